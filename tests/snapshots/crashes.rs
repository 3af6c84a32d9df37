//! kill -9 while a snapshot is taken, and while one is put back: nothing half is ever taken for whole.

use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::{Host, finish, refused, restore, slow_plugins, snapshot, text, tidemill};
use crate::crash::wait;
use crate::pipelines::assert_all_plugins;
use crate::support::data::Data;
use crate::support::{binary, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "kill_9_during_snapshots_leaves_none_or_a_whole_one",
            kills_of_snapshots,
        ),
        trial(
            "kill_9_during_restores_leaves_the_old_state_or_the_new_one",
            kills_of_restores,
        ),
    ]
}

fn seed() -> u64 {
    let seed = std::env::var("TIDEMILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(3);
    println!("TIDEMILL_SEED={seed}");
    seed
}

/// The host dies at random moments of a snapshot; what is left is refused or goes on.
fn kills_of_snapshots() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, seed);
    let run = slow_plugins(&data);
    let mut whole = None;
    for round in 0..12 {
        let host = Host::start(&run);
        let to = dir.path().join(format!("snapshot{round}"));
        let mut asking = Command::new(binary())
            .arg("snapshot")
            .arg(run.file())
            .arg(&to)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = wait(&mut asking, Duration::from_millis(rng.random_range(5..120)));
        host.kill();
        asking.wait().unwrap();
        match to.join("snapshot.json").exists() {
            true => whole = Some(to),
            false => {
                let said = refused(&run, &["restore"], &[text(&to), "--replace"], 2);
                assert!(
                    said.contains("no snapshot") || said.contains("an unfinished snapshot"),
                    "{said}"
                );
                if to.exists() {
                    let said = refused(&run, &["snapshot"], &[text(&to)], 2);
                    assert!(
                        said.contains("is not empty") || said.contains("unfinished"),
                        "{said}"
                    );
                }
            }
        }
    }
    if let Some(whole) = whole {
        restore(&run, &whole, &["--replace"]);
    }
    finish(&run);
    assert_all_plugins(&run, &data, &format!("kills of snapshots, seed {seed}"));
}

fn kills_of_restores() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, seed);
    let run = slow_plugins(&data);
    let host = Host::start(&run);
    let to = dir.path().join("snapshot");
    snapshot(&run, &to);
    host.kill();
    let (mut whole, mut between, mut before) = (0, 0, 0);
    for _ in 0..40 {
        let mut restoring = Command::new(binary())
            .arg("restore")
            .arg(run.file())
            .arg(&to)
            .arg("--replace")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ended = wait(
            &mut restoring,
            Duration::from_millis(rng.random_range(1..60)),
        );
        let _ = restoring.kill();
        restoring.wait().unwrap();
        // A state that is read, or a refusal that says what to do.
        let looked = tidemill(&run, &["state", "list"], &[]);
        let said = String::from_utf8_lossy(&looked.stderr).into_owned();
        match (looked.status.success(), ended) {
            (true, Some(_)) => whole += 1,
            (true, None) => before += 1,
            (false, _) => {
                assert!(said.contains("was not finished: run it again"), "{said}");
                between += 1;
            }
        }
    }
    println!("{whole} whole, {between} between two states, {before} as before");
    restore(&run, &to, &["--replace"]);
    finish(&run);
    assert_all_plugins(&run, &data, &format!("kills of restores, seed {seed}"));
}
