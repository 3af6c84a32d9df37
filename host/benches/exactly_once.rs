//! What exactly once costs through a real Apache Kafka: throughput and delay, each beside at least once; and how soon
//! output comes after a crash.
//!
//! `cargo bench --bench exactly_once` (`-- --only PART` for one of `throughput`, with `--records N` and `--runs N`; `delays`,
//! with `--seconds N`; `restart`, with `--keys N` and `--runs N`). The fsync time of the disk is printed beside, because every checkpoint waits for some.
//! The broker is the tests'; broker, host, producer and consumer share one machine, so that a ratio tells more than a rate.

#[path = "latency/delays.rs"]
mod delays;
#[path = "exactly/disk.rs"]
mod disk;
#[path = "exactly/paced.rs"]
mod paced;
#[path = "exactly/restart.rs"]
mod restart;
#[path = "latency/stream.rs"]
mod stream;
#[path = "exactly/throughput.rs"]
mod throughput;

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;

use support::kafka;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let at = arguments.iter().position(|a| a == flag)?;
        Some(arguments.get(at + 1).map_or("", String::as_str))
    };
    let number = |flag: &str, default: u64| match after(flag).map(str::parse) {
        None => default,
        Some(Ok(number)) if number > 0 => number,
        Some(_) => panic!("{flag} needs a whole number above 0"),
    };
    if let Err(reason) = kafka::available() {
        println!("not measured: {reason}");
        return;
    }
    let only = after("--only");
    disk::report();
    if only.is_none_or(|part| part == "throughput") {
        throughput::run(number("--records", 2_000_000), number("--runs", 3));
        disk::report();
    }
    if only.is_none_or(|part| part == "delays") {
        paced::run(number("--seconds", 30));
        disk::report();
    }
    if only.is_none_or(|part| part == "restart") {
        restart::run(number("--keys", 10_000_000), number("--runs", 3));
        disk::report();
    }
}
