//! How soon results are there, through a real Apache Kafka, and whether state stays bounded.
//!
//! `cargo bench --bench latency` (`-- --only PART` for one of `rows`, `windows`, `bounded`; `--set PATH=VALUE` is handed to
//! the host; `--minutes N` of wall time for `bounded`). Output is at least once; `exactly_once` measures the other. A delay is
//! from just before a record is handed to the producer until its result is in the consumer's hands: both clients, the broker
//! twice and the host are in it. The broker is the tests'. Everything runs on one machine, so one clock is read.

#[path = "latency/bounded.rs"]
mod bounded;
#[path = "latency/delays.rs"]
mod delays;
#[path = "latency/stream.rs"]
mod stream;

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;

use std::time::Duration;

use serde_json::Value;
use tidemill::format::timestamp;
use tidemill::time::{MICROS_PER_SECOND, Micros};

use delays::report;
use stream::{Arrived, Load, PARTITIONS, PRODUCTS, Stream};
use support::kafka;

const LOAD: Load = Load {
    per_second: 5_000,
    warm_up: Duration::from_secs(8),
    measured: Duration::from_secs(20),
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let places = arguments.iter().enumerate().filter(|(_, a)| *a == flag);
        let values = places.filter_map(|(at, _)| arguments.get(at + 1).cloned());
        values.collect::<Vec<_>>()
    };
    let only = after("--only");
    let wanted = |part: &str| only.is_empty() || only.iter().any(|o| o == part);
    let set = after("--set");
    if wanted("rows") || wanted("windows") {
        match kafka::available() {
            Err(reason) => println!("delays are not measured: {reason}"),
            Ok(()) => {
                println!("{} records/s in {PARTITIONS} partitions", LOAD.per_second);
                if wanted("rows") {
                    rows(&set);
                }
                if wanted("windows") {
                    windows(&set);
                }
            }
        }
    }
    if wanted("bounded") {
        let minutes = after("--minutes").first().and_then(|m| m.parse().ok());
        bounded::run(minutes.unwrap_or(1), &set);
    }
}

/// Rows that wait for nothing: filter, lookup, a stateless and a keyed plugin.
fn rows(set: &[String]) {
    let [enrich, stamp] = ["plugins/enrich", "tests/guests/stamp"].map(support::plugin);
    let stream = Stream::new(
        LOAD,
        &format!(
            "[tables.products]\nfile = {{ path = \"products.csv\" }}\nkey = \"product_id\"\n\
         fields = {{ product_id = \"string\", category = \"string\", price = \"float\" }}\n\
         [steps.valid]\nfrom = \"events\"\nwhere = \"amount > 0\"\n\
         [steps.priced]\nfrom = \"valid\"\nlookup = {{ table = \"products\", on = \"product_id\", add = [\"price\"] }}\n\
         [steps.enriched]\nfrom = \"priced\"\n\
         plugin = {{ file = \"{}\", config = {{ table = \"products\", high_value = 250.0 }} }}\n\
         [steps.counted]\nfrom = \"enriched\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\" }}\n{}",
            enrich.display(),
            stamp.display(),
            Stream::sink("counted", "user_id"),
        ),
    );
    let (produced, arrived) = stream.run(set);
    let measured = produced.measured();
    let delay = |row: &Arrived| {
        let at = number(&row.value(), "produced");
        measured.contains(&at).then_some(row.at - at)
    };
    let delays: Vec<Micros> = arrived.iter().filter_map(delay).collect();
    let expected = LOAD.records();
    let missing = expected.saturating_sub(delays.len() as u64);
    assert!(
        missing < LOAD.per_second / 100,
        "{missing} of {expected} did not arrive"
    );
    report("where + lookup + enrich + keyed plugin", delays);
}

/// Rows of windows of a second, after a record whose time is beyond the window has been produced to the last partition.
fn windows(set: &[String]) {
    let stream = Stream::new(
        LOAD,
        &format!(
            "[steps.counts]\nfrom = \"events\"\nkey = [\"product_id\"]\nwindow = {{ tumbling = \"1s\" }}\n\
         aggregate = {{ events = \"count(*)\" }}\n{}",
            Stream::sink("counts", "product_id"),
        ),
    );
    let (produced, arrived) = stream.run(set);
    let measured = produced.measured();
    let delay = |row: &Arrived| {
        let end = row.value()["window_end"].as_str().map(str::to_owned);
        let end = timestamp::parse(end?.as_bytes())?;
        let passed = produced.passed(end / MICROS_PER_SECOND)?;
        measured.contains(&end).then_some(row.at - passed)
    };
    let delays: Vec<Micros> = arrived.iter().filter_map(delay).collect();
    assert!(delays.len() as u64 >= PRODUCTS * (LOAD.measured.as_secs() - 1));
    report("tumbling window of 1 s", delays);
}

fn number(row: &Value, name: &str) -> i64 {
    row[name]
        .as_i64()
        .unwrap_or_else(|| panic!("{name} in {row}"))
}
