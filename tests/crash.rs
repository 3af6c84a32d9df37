//! kill -9 of the real process at random moments: the output is that of the undisturbed run.

use std::time::Duration;

use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::pipelines::{all_plugins, assert_all_plugins};
use crate::support::data::Data;
use crate::support::running::wait;
use crate::support::{Pipeline, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "kill_9_fifty_times_loses_and_doubles_nothing",
        fifty_kills,
    )]
}

/// Kills while it reads, checkpoints, restores and starts; between 40 and 400 ms after each start.
fn fifty_kills() {
    const KILLS: usize = 50;
    const CLICKS: usize = 40_000;
    let seed = std::env::var("TIDEMILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(7);
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), CLICKS, seed);
    // Slow enough that no start comes to the end before the last kill.
    let run = Pipeline::new(
        2,
        &all_plugins(&data, "limit = { per_second = 3000, per_epoch = 200 }", ""),
    );
    let mut landed = 0;
    for _ in 0..KILLS {
        let mut child = run
            .command(&["--set", "host.checkpoint_every=50ms"])
            .spawn()
            .unwrap();
        let patience = Duration::from_millis(rng.random_range(40..400));
        if wait(&mut child, patience).is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            landed += 1;
        }
    }
    assert!(
        landed >= KILLS * 9 / 10,
        "only {landed} of {KILLS} kills landed: the run is faster than its limit"
    );
    // Without the limit: only the rest is read.
    let rest = run.command(&[
        "--set",
        "sources.clicks.limit.per_second=1000000",
        "--set",
        "sources.transactions.limit.per_second=1000000",
    ]);
    let output = { rest }.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_all_plugins(&run, &data, &format!("{landed} kills"));
}
