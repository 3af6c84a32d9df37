//! How soon results are there at a steady 20,000 records a second, for a reader who sees committed records only.

use std::time::Duration;

use serde_json::Value;
use tidemill::time::Micros;

use crate::delays;
use crate::stream::{Load, PARTITIONS, Produced, Stream};

const PER_SECOND: u64 = 20_000;
const WARM_UP: Duration = Duration::from_secs(8);
const GOAL_MILLIS: f64 = 300.0;
/// The goal is for the first of them.
const RUNS: [(&str, &str); 3] = [
    ("exactly-once", "100ms"),
    ("at-least-once", "100ms"),
    ("exactly-once", "50ms"),
];

/// One run of each, of which `seconds` count.
pub fn run(seconds: u64) {
    let load = Load {
        per_second: PER_SECOND,
        warm_up: WARM_UP,
        measured: Duration::from_secs(seconds),
    };
    println!(
        "\n{PER_SECOND} records/s in {PARTITIONS} partitions for {seconds} s after {} s; where + deduplicate, one result a record",
        WARM_UP.as_secs()
    );
    for (number, (delivery, every)) in RUNS.into_iter().enumerate() {
        let p99 = measure(load, delivery, every);
        if number == 0 {
            let reached = p99.is_some_and(|p99| p99 < GOAL_MILLIS);
            let verdict = if reached { "reached" } else { "not reached" };
            println!("  goal: p99 under {GOAL_MILLIS} ms: {verdict}");
        }
    }
}

/// The 99th percentile, in milliseconds; `None` unless each record has exactly one result.
fn measure(load: Load, delivery: &str, every: &str) -> Option<f64> {
    let stream = Stream::new(
        load,
        &format!(
            "[steps.valid]\nfrom = \"events\"\nwhere = \"amount > 0\"\n\
             [steps.once]\nfrom = \"valid\"\ndeduplicate = {{ on = [\"id\"], within = \"1s\" }}\n{}",
            Stream::sink("once", "user_id"),
        ),
    );
    let (produced, arrived) = stream.run(&[
        format!("host.delivery={delivery}"),
        format!("host.checkpoint_every={every}"),
    ]);
    let mut ids = Vec::with_capacity(arrived.len());
    let mut measured = Vec::with_capacity(arrived.len());
    for row in &arrived {
        let (id, at) = sent(&row.value(), &produced);
        if let Some(at) = at {
            ids.push(id);
            measured.push(row.at - at);
        }
    }
    let what = format!("{delivery}, checkpoint_every = {every}");
    let p99 = delays::report(&what, measured);
    complete(ids, load.records()).then_some(p99).flatten()
}

/// A result's id, and when its record was produced, if it counts.
fn sent(row: &Value, produced: &Produced) -> (i64, Option<Micros>) {
    let number = |name: &str| {
        let value = row[name].as_i64();
        value.unwrap_or_else(|| panic!("{name} in {row}"))
    };
    let at = number("produced");
    (
        number("id"),
        produced.measured().contains(&at).then_some(at),
    )
}

/// Whether nothing is missing and nothing is there twice; prints what is.
fn complete(mut ids: Vec<i64>, expected: u64) -> bool {
    let arrived = ids.len();
    ids.sort_unstable();
    ids.dedup();
    let twice = arrived - ids.len();
    // Producing keeps its pace to a few milliseconds only, and so do the bounds of what counts.
    let missing = expected.saturating_sub(ids.len() as u64);
    let tolerated = PER_SECOND / 50;
    if missing > tolerated || twice > 0 {
        println!("  of {expected} results {missing} are missing and {twice} are there twice");
    }
    missing <= tolerated && twice == 0
}
