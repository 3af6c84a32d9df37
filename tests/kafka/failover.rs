//! Leaders and coordinators that move, brokers that die and come back: row 12 of the fault matrix.
//!
//! Three brokers die one after the other while a pipeline reads from them and writes to them, exactly once. Whichever was the
//! leader of an input, an output or the decisions, or the coordinator of the transactions, has moved by then.

use std::time::Instant;

use serde_json::Value;
use tidemill::kafka::TopicProducer;
use tidemill::pipeline::plan::Start;
use tidemill::source::Source;

use super::losses::{said, start};
use super::{PATIENCE, Test, partitions, read_until, source};
use crate::pauses::until;
use crate::support::Pipeline;
use crate::support::kafka::cluster::{Brokers, NODES};

pub fn tests() -> Vec<Test> {
    vec![(
        "kafka_leaders_and_coordinators_that_move_cost_nothing",
        everything_moves,
    )]
}

/// Records written while a broker is away, and as many while all are there.
const RECORDS: usize = 2_000;

fn everything_moves() {
    let brokers = Brokers::start(None).unwrap_or_else(|reason| panic!("{reason}"));
    let (input, output) = (brokers.topic("input", 3), brokers.topic("output", 2));
    let run = Pipeline::new(
        2,
        &format!(
            "[kafka]\nbrokers = \"{}\"\n[sources.s]\nkafka = {{ topic = \"{input}\" }}\nfields = {{ n = \"int\" }}\n\
             [steps.all]\nfrom = \"s\"\n[sinks.out]\nfrom = [\"all\"]\nkafka = {{ topic = \"{output}\" }}\n",
            brokers.cluster_address()
        ),
    );
    let mut host = start(&run, &[]);
    let producer = TopicProducer::open("input", &brokers.cluster(), &input).unwrap();
    let mut written = 0;
    let mut write = || {
        for _ in 0..RECORDS {
            let row = format!("{{\"n\":{written}}}");
            let key = (written % 97).to_string();
            producer.send(Some(key.as_bytes()), row.as_bytes()).unwrap();
            written += 1;
        }
        producer.sync(producer.barrier()).unwrap();
    };
    write();
    until(&run, |status| {
        status["sources"][0]["records_in"].as_u64() > Some(0)
    });
    for number in 1..=NODES as i32 {
        brokers.wait_until_in_sync(&input);
        brokers.kill_one(number);
        write();
        assert!(!host.has_ended(), "{}", said(&run));
        brokers.start_again(number);
        brokers.wait_until_in_sync(&input);
        brokers.wait_until_in_sync(&output);
        write();
    }
    // And once by itself, without a death.
    let leader = brokers.replicas(&input).unwrap()[0].leader;
    brokers.move_leader(&input, 0, leader % NODES as i32 + 1);
    write();
    until(&run, |status| {
        status["state"] == "running" && status["sources"][0]["lag"] == 0
    });
    host.terminate();

    let out = source(&brokers, &output, Start::Earliest);
    let mut reader = out.reader(partitions(&out, true)).unwrap();
    let begun = Instant::now();
    let rows = read_until(&mut *reader, super::finished);
    assert!(begun.elapsed() < PATIENCE);
    let mut numbers: Vec<i64> = rows
        .iter()
        .map(|row| {
            serde_json::from_str::<Value>(row).unwrap()["n"]
                .as_i64()
                .unwrap()
        })
        .collect();
    numbers.sort_unstable();
    let expected: Vec<i64> = (0..written).collect();
    assert!(
        numbers == expected,
        "{} of {written} came: {}",
        numbers.len(),
        said(&run)
    );
}
