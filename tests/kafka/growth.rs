//! Partitions and topics that come while a pipeline runs: row 30 of the fault matrix, second part. They are read from their
//! beginning, without anybody's help, exactly once.

use serde_json::Value;

use super::losses::{pipeline, said, start, until_rows, values, write};
use super::{Test, broker};
use crate::pauses::until;
use crate::support::Pipeline;
use crate::support::kafka::Broker;

pub fn tests() -> Vec<Test> {
    vec![
        (
            "kafka_partitions_added_while_running_are_read_exactly_once",
            partitions_added,
        ),
        (
            "kafka_topics_like_the_pattern_are_read_as_they_come",
            topics_added,
        ),
        (
            "kafka_a_new_partition_does_not_move_the_watermark_back",
            watermark_stays,
        ),
    ]
}

fn partitions_added() {
    let broker = broker();
    let topic = broker.topic("growing", 1);
    write(broker, &topic, 0, 0..100);
    // Where reading begins says nothing of partitions that come later.
    let run = pipeline(
        broker,
        &format!("topic = \"{topic}\", start = \"earliest\""),
    );
    let mut host = start(&run, &[]);
    until_rows(&run, 100);
    broker.grow(&topic, 3);
    // Nothing else comes meanwhile.
    write(broker, &topic, 1, 1_000..1_100);
    write(broker, &topic, 2, 2_000..2_100);
    until_rows(&run, 300);
    write(broker, &topic, 0, 100..200);
    until_rows(&run, 400);
    assert!(!host.has_ended(), "{}", said(&run));
    // And once more, with a kill in the middle.
    broker.grow(&topic, 4);
    write(broker, &topic, 3, 3_000..3_100);
    host.kill();
    let mut host = start(&run, &[]);
    until_rows(&run, 500);
    until(&run, |status| {
        status["state"] == "running" && status["sources"][0]["lag"] == 0
    });
    host.terminate();
    let expected = (0..200).chain(1_000..1_100).chain(2_000..2_100);
    assert_eq!(
        values(&run),
        expected.chain(3_000..3_100).collect::<Vec<_>>()
    );
}

fn topics_added() {
    let broker = broker();
    let first = broker.topic("like-this", 2);
    write(broker, &first, 1, 0..10);
    let pattern = format!("like-(this|that)-{}-.*", std::process::id());
    let run = pipeline(
        broker,
        &format!(
            "pattern = \"{pattern}\", properties = {{ \"topic.metadata.refresh.interval.ms\" = \"100\" }}"
        ),
    );
    let mut host = start(&run, &[]);
    until_rows(&run, 10);
    let second = broker.topic("like-that", 2);
    write(broker, &second, 0, 100..110);
    write(broker, &second, 1, 110..120);
    until_rows(&run, 30);
    host.terminate();
    let expected: Vec<i64> = (0..10).chain(100..120).collect();
    assert_eq!(values(&run), expected);
}

/// Rows of the new partition that are not below the watermark count; those below it are late, and neither is lost.
fn watermark_stays() {
    let broker = broker();
    let topic = broker.topic("growing-time", 1);
    let at = |minute: i64| format!("2026-01-01T00:{minute:02}:30Z");
    let row = |minute: i64| format!("{{\"k\":\"a\",\"at\":\"{}\"}}", at(minute));
    let send = |partition: i32, minutes: &[i64]| {
        let rows: Vec<String> = minutes.iter().map(|&m| row(m)).collect();
        broker.produce(
            &topic,
            partition,
            rows.iter().map(|r| (1, Some(r.as_str()))),
        );
    };
    let run = windows(broker, &topic);
    send(0, &[0, 1, 2, 10]);
    let mut host = start(&run, &[]);
    until_rows(&run, 3);
    let before = until(&run, |status| status["sources"][0]["watermark"].is_i64());
    broker.grow(&topic, 2);
    // From when on it holds the watermark back is when it is found.
    until(&run, |status| {
        status["state"] == "running" && said(&run).contains("1 new partition")
    });
    until(&run, |status| {
        status["state"] == "running" && status["checkpoint"]["number"].as_u64() > Some(0)
    });
    send(1, &[1, 10, 20]);
    send(0, &[10, 20, 21]);
    // The window of minute 10 ends when both partitions are beyond it.
    until_rows(&run, 4);
    let after = until(&run, |status| status["sources"][0]["watermark"].is_i64());
    let watermark = |status: &Value| status["sources"][0]["watermark"].as_i64().unwrap();
    assert!(watermark(&after) >= watermark(&before));
    host.terminate();
    let rows = run.rows("out.jsonl");
    let counts: Vec<i64> = rows.iter().map(|r| r["rows"].as_i64().unwrap()).collect();
    assert_eq!(counts, [1, 1, 1, 3], "{rows:?}");
    let late = run.rows("late.jsonl");
    assert_eq!(late.len(), 1, "{late:?}");
    assert_eq!(late[0]["at"], at(1));
}

fn windows(broker: &Broker, topic: &str) -> Pipeline {
    Pipeline::new(
        2,
        &format!(
            "[sources.s]\nkafka = {{ topic = \"{topic}\", brokers = \"{}\" }}\nfields = {{ k = \"string\", at = \"timestamp\" }}\n\
             event_time = {{ field = \"at\" }}\n\
             [steps.counts]\nfrom = \"s\"\nkey = [\"k\"]\nwindow = {{ tumbling = \"1m\" }}\naggregate = {{ rows = \"count(*)\" }}\n\
             [sinks.out]\nfrom = [\"counts\"]\nfile = {{ path = \"out.jsonl\" }}\n\
             [sinks.late]\nfrom = [\"counts.late\"]\nfile = {{ path = \"late.jsonl\" }}\n",
            broker.cluster_address()
        ),
    )
}
