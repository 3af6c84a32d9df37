//! Source and sink against a real Apache Kafka: what the embedded broker cannot show.

mod cluster;
mod doctor;
mod ecommerce;
mod exactly;
mod failover;
mod faults;
mod growth;
mod inputs;
mod losses;
mod proxied;
mod reading;
mod resets;
mod security;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tidemill::kafka::KafkaSource;
use tidemill::pipeline::plan::Start;
use tidemill::source::{Partition, Position, Progress, Reader, Source};

use crate::support;
use crate::support::kafka::{self, Broker};

/// No test waits longer than this for something to happen.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn trials() -> Vec<Trial> {
    [
        reading::tests(),
        inputs::tests(),
        faults::tests(),
        ecommerce::tests(),
        exactly::tests(),
        resets::tests(),
        losses::tests(),
        growth::tests(),
        failover::tests(),
        proxied::tests(),
        cluster::tests(),
        security::tests(),
        doctor::tests(),
    ]
    .concat()
    .into_iter()
    .map(|(name, test)| trial(name, test))
    .collect()
}

type Test = (&'static str, fn());

/// Ignored, with the reason, where there is no broker to test with.
fn trial(name: &'static str, test: fn()) -> Trial {
    let trial = support::trial(name, test);
    match kafka::available() {
        Err(reason) if !kafka::required() => trial.with_kind(reason).with_ignored_flag(true),
        _ => trial,
    }
}

fn broker() -> &'static Broker {
    Broker::get().unwrap_or_else(|reason| panic!("{reason}"))
}

fn source(broker: &Broker, topic: &str, start: Start) -> KafkaSource {
    KafkaSource::new("clicks", "kafka-tests", &broker.cluster(), topic, start)
}

fn partitions(source: &KafkaSource, bounded: bool) -> Vec<Partition> {
    source
        .partitions(&BTreeMap::new(), &BTreeMap::new(), bounded, &|| false)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn at(offset: i64) -> BTreeMap<u32, Position> {
    BTreeMap::from([(
        0,
        Position {
            offset,
            record: offset,
        },
    )])
}

/// Polls until `done`; the values that came, in order. A tombstone is "(none)".
fn read_until(
    reader: &mut dyn Reader,
    mut done: impl FnMut(&[Progress], usize) -> bool,
) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    let mut values = Vec::new();
    while !done(&reader.progress(), values.len()) {
        assert!(
            Instant::now() < until,
            "stuck at {:?} after {} records",
            reader.progress(),
            values.len()
        );
        let polled = reader.poll(10_000, Duration::from_millis(50), &mut |record| {
            let value = record
                .value
                .map_or("(none)".into(), String::from_utf8_lossy);
            values.push(value.into_owned());
        });
        polled.unwrap_or_else(|error| panic!("{error}"));
    }
    values
}

fn finished(progress: &[Progress], _: usize) -> bool {
    progress.iter().all(|p| p.finished)
}

fn caught_up(progress: &[Progress], _: usize) -> bool {
    progress.iter().all(|p| p.caught_up)
}
