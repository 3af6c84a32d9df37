//! Committed records with the time at which the host sent them: it tells which checkpoint's transaction a row is of.
//!
//! Nothing of checkpoint N + 1 is sent before the transaction of N is committed, and the decision is the last record of a
//! transaction. So a row is of the first decision that was not sent before it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

use super::super::PATIENCE;
use super::{PARTITIONS, Scene};
use tidemill::kafka::decision;

/// A committed record; those of a partition in their order.
pub struct Sent {
    /// Milliseconds since 1970, by the producer's clock.
    pub at: i64,
    pub value: Value,
}

pub fn rows(scene: &Scene<'_>) -> Vec<Sent> {
    read(scene, &scene.output, PARTITIONS)
}

/// In the order in which they were made; all that were ever made, while the topic is not compacted.
pub fn decisions(scene: &Scene<'_>) -> Vec<Sent> {
    read(scene, &decision::topic(&scene.name), 1)
}

/// Index of the decision that makes `row` visible.
pub fn decision_of(row: &Sent, decisions: &[Sent]) -> usize {
    decisions.partition_point(|decision| decision.at < row.at)
}

fn read(scene: &Scene<'_>, topic: &str, partitions: i32) -> Vec<Sent> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", scene.broker.cluster_address())
        .set("group.id", "exactly-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&all).unwrap();
    let until = Instant::now() + PATIENCE;
    let (mut sent, mut ended) = (Vec::new(), vec![false; partitions as usize]);
    while ended.contains(&false) {
        assert!(Instant::now() < until, "{topic} was not read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(record)) => sent.push(Sent {
                at: record.timestamp().to_millis().unwrap(),
                value: serde_json::from_slice(record.payload().unwrap()).unwrap(),
            }),
            Some(Err(KafkaError::PartitionEOF(partition))) => ended[partition as usize] = true,
            Some(Err(error)) => panic!("{topic}: {error}"),
        }
    }
    sent
}
