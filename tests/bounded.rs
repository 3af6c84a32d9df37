//! State stays as large as windows, joins, sessions and their lateness reach back, however long a pipeline runs.
//!
//! The e-commerce example over hours of event time, epoch by epoch and without waiting; how fast the machine is plays no
//! part. `cargo bench --bench latency -- --only bounded` measures the same with the clock running, and the process' memory.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use tempfile::TempDir;
use tidemill::limits::MERGE_UNMERGED_BYTES_MAX;
use tidemill::testing::{Driven, Driver};

use crate::support::ecommerce::{self, Made};
use crate::support::trial;

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "state_does_not_grow_with_time",
        state_does_not_grow_with_time,
    )]
}

const HOURS: usize = 3;
/// Event time of an epoch. A checkpoint is due at each: event time must move on all the same.
const EPOCH_SECONDS: usize = 30;
const EPOCHS_AN_HOUR: usize = 3_600 / EPOCH_SECONDS;
const CLICKS_A_SECOND: usize = 5;
/// The generator brings records as soon as they are asked for.
const AT_ONCE: usize = 1_000_000;
/// Visits come and go, so two hours are never quite alike.
const SLACK: f64 = 1.15;

/// Highest readings of an hour.
#[derive(Debug, Default, Clone, Copy)]
struct Hour {
    keys: u64,
    /// Keyed state and rows that wait for their order, bytes.
    memory: usize,
    /// The state's files, bytes: decided changes gather in the log until a merge is worth it, so this rises in steps.
    disk: u64,
}

/// The furthest reach is that of the sessions: 30 minutes of silence and 5 of lateness. So the second hour has all there
/// can be, and no later one has more.
fn state_does_not_grow_with_time() {
    let dir = TempDir::new().unwrap();
    let clicks = generate(CLICKS_A_SECOND);
    let transactions = generate(1);
    let source = |generate, a_second| Made {
        generate,
        per_epoch: Some(EPOCH_SECONDS * a_second),
    };
    let file = ecommerce::write(
        dir.path(),
        "state = \"state\"\ncheckpoint_every = \"1s\"",
        &source(&clicks, CLICKS_A_SECOND),
        &source(&transactions, 1),
    );
    let mut driver = Driver::open(&file, &[])
        .unwrap_or_else(|e| panic!("{e}"))
        .expect("there is something to do");
    let mut hours = [Hour::default(); HOURS];
    let mut epoch = 0;
    loop {
        driver.advance(Duration::from_secs(1));
        if driver.epoch().unwrap_or_else(|e| panic!("{e}")) == Driven::Ended {
            break;
        }
        if let Some(hour) = hours.get_mut(epoch / EPOCHS_AN_HOUR) {
            hour.look(&driver, &dir.path().join("state"));
        }
        epoch += 1;
    }
    assert!(epoch >= HOURS * EPOCHS_AN_HOUR, "{epoch} epochs");
    let (full, last) = (hours[1], hours[HOURS - 1]);
    let grown = |now: u64, then: u64| now as f64 > then as f64 * SLACK;
    assert!(full.memory > 0 && full.keys > 0, "{hours:#?}");
    assert!(!grown(last.keys, full.keys), "{hours:#?}");
    assert!(!grown(last.memory as u64, full.memory as u64), "{hours:#?}");
    assert!(last.disk <= MERGE_UNMERGED_BYTES_MAX, "{hours:#?}");
}

fn generate(a_second: usize) -> String {
    format!(
        "per_second = {AT_ONCE}, speed = {}, count = {}, users = 500, products = 100",
        AT_ONCE / a_second,
        HOURS * 3_600 * a_second
    )
}

impl Hour {
    fn look(&mut self, driver: &Driver, state: &Path) {
        let gauges = driver.gauges();
        let keys = gauges.iter().map(|(_, g)| g.keys).sum();
        let memory = gauges.iter().map(|(_, g)| g.state_bytes + g.waiting_bytes);
        let files = ["log.redb", "state.redb"].map(|f| state.join(f).metadata());
        let disk = files.into_iter().flatten().map(|m| m.len()).sum();
        self.keys = self.keys.max(keys);
        self.memory = self.memory.max(memory.sum());
        self.disk = self.disk.max(disk);
    }
}
