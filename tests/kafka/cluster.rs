//! Three brokers of which one dies: what the tests of the guarantee build on.

use std::time::Instant;

use super::Test;
use crate::support::kafka::cluster::{Brokers, NODES};
use crate::support::proxy::{ApiKey, Direction, Proxy};
use tidemill::kafka::TopicProducer;
use tidemill::pipeline::plan::{Brokers as Hosts, Cluster};

pub fn tests() -> Vec<Test> {
    vec![("kafka_cluster_survives_the_death_of_a_leader", leader_dies)]
}

/// Records go on through the death of the leader, its return and a change of leaders, all past the proxy.
fn leader_dies() {
    let mut proxy = Proxy::new();
    let began = Instant::now();
    let brokers = Brokers::start(Some(&mut proxy)).unwrap_or_else(|reason| panic!("{reason}"));
    println!(
        "three brokers answer after {:.1} s",
        began.elapsed().as_secs_f32()
    );
    let topic = brokers.topic("replicated", 1);
    brokers.wait_until_in_sync(&topic);
    let through_proxy = Cluster {
        brokers: Hosts::At(brokers.proxied_addresses()),
        properties: Default::default(),
    };
    let producer = TopicProducer::open("sink results", &through_proxy, &topic).unwrap();
    let write = |value: &str| {
        producer.send(None, value.as_bytes()).unwrap();
        producer.sync(producer.barrier()).unwrap();
    };
    let leader = || brokers.replicas(&topic).unwrap()[0].leader;

    let first = leader();
    write("a");
    brokers.kill_one(first);
    write("b");
    assert_ne!(leader(), first);
    brokers.start_again(first);
    brokers.wait_until_in_sync(&topic);
    brokers.move_leader(&topic, 0, first);
    write("c");
    assert_eq!(leader(), first);
    assert!(proxy.count(ApiKey::Produce, Direction::Request).passed >= 3);

    let source = super::source(&brokers, &topic, tidemill::pipeline::plan::Start::Earliest);
    let mut reader =
        tidemill::source::Source::reader(&source, super::partitions(&source, true)).unwrap();
    assert_eq!(
        super::read_until(&mut *reader, super::finished),
        ["a", "b", "c"]
    );
    drop(brokers.transaction(&topic, 0, &["d"]));
    let coordinator = brokers.transaction_coordinator("some-pipeline/0");
    assert!((1..=NODES as i32).contains(&coordinator));
}
