//! kill -9 while a snapshot is taken, and while one is put back: nothing half is ever taken for whole.

use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::{Host, finish, refused, restore, slow_plugins, snapshot, text, tidemill};
use crate::pipelines::assert_all_plugins;
use crate::support::data::Data;
use crate::support::running::wait;
use crate::support::{Pipeline, binary, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "crash_at_each_step_of_a_snapshot_leaves_none_or_a_whole_one",
            steps_of_snapshots,
        ),
        trial(
            "crash_at_each_step_of_a_restore_is_refused_until_it_is_done_again",
            steps_of_restores,
        ),
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

/// The command ended by the drill at `point`.
fn crash(run: &Pipeline, words: &[&str], point: &str) {
    let mut command = Command::new(binary());
    command.arg(words[0]).arg(run.file()).args(&words[1..]);
    let output = command.env("TIDEMILL_CRASH_AT", point).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("TIDEMILL_CRASH_AT: ending at"),
        "{point}: {said}"
    );
    assert_eq!(output.status.code(), None, "{point}");
}

fn steps_of_snapshots() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 30_000, 31);
    let run = slow_plugins(&data);
    Host::start(&run).kill();
    for (point, whole) in [
        ("snapshot-begun", false),
        ("snapshot-copied", false),
        ("snapshot-hashed", false),
        ("snapshot-whole", true),
    ] {
        let to = dir.path().join(point);
        crash(&run, &["snapshot", text(&to)], point);
        if whole {
            restore(&run, &to, &["--replace"]);
        } else {
            let said = refused(&run, &["restore"], &[text(&to), "--replace"], 2);
            assert!(said.contains("an unfinished snapshot"), "{point}: {said}");
            let said = refused(&run, &["snapshot"], &[text(&to)], 2);
            assert!(
                said.contains("unfinished snapshot, which can be removed"),
                "{point}: {said}"
            );
        }
    }
    finish(&run);
    assert_all_plugins(&run, &data, "crashes of snapshots");
}

/// Up to the mark the old state goes on; after it nothing starts before the restore is done again. Twice at each step.
fn steps_of_restores() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 30_000, 32);
    let run = slow_plugins(&data);
    let mut host = Host::start(&run);
    let to = dir.path().join("snapshot");
    let taken = snapshot(&run, &to);
    host.wait_for_checkpoint(&run, taken["checkpoint"].as_u64().unwrap() + 3);
    host.kill();
    let at = |run: &Pipeline| {
        let listing = super::succeed(run, &["state", "list"], &["--json"]);
        serde_json::from_str::<serde_json::Value>(&listing).unwrap()["checkpoint"].clone()
    };
    for (point, untouched) in [
        ("restore-copied", true),
        ("restore-ready", true),
        ("restore-marked", false),
        ("restore-aside", false),
        ("restore-aside:2", false),
        ("restore-aside:3", false),
        ("restore-cleared", false),
        ("restore-placing", false),
        ("restore-placing:2", false),
        ("restore-placing:3", false),
        ("restore-placed", false),
    ] {
        let before = at(&run);
        for _ in 0..2 {
            // The second one may find less to do than the first.
            let words = ["restore", text(&to), "--replace"];
            let output = Command::new(binary())
                .arg(words[0])
                .arg(run.file())
                .args(&words[1..])
                .env("TIDEMILL_CRASH_AT", point)
                .output()
                .unwrap();
            if output.status.success() {
                continue;
            }
            if untouched {
                assert_eq!(at(&run), before, "{point}");
                continue;
            }
            for words in [&["state", "list"][..], &["run"], &["snapshot"]] {
                let more = dir.path().join("none");
                let more: &[&str] = if words == ["snapshot"] {
                    &[text(&more)]
                } else {
                    &[]
                };
                let said = refused(&run, words, more, 2);
                assert!(
                    said.contains("was not finished: run it again"),
                    "{point}: {said}"
                );
            }
        }
        crash_or_done(&run, &to);
        assert_eq!(at(&run), taken["checkpoint"], "{point}");
        // Something that goes aside next time.
        let mut host = Host::start(&run);
        host.wait_for_checkpoint(&run, taken["checkpoint"].as_u64().unwrap() + 2);
        host.kill();
    }
    crash(&run, &["restore", text(&to), "--replace"], "restore-marked");
    restore(&run, &to, &[]);
    finish(&run);
    assert_all_plugins(&run, &data, "crashes of restores");
}

/// With the mark there, no `--replace` is needed: what was there has been given up.
fn crash_or_done(run: &Pipeline, to: &std::path::Path) {
    let marked = run.dir.path().join("state/replacing").exists();
    restore(run, to, if marked { &[] } else { &["--replace"] });
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
