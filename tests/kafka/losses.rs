//! Input that is gone before it was read, topics that are created anew: row 30 of the fault matrix, first part.
//!
//! The real binary against a real Kafka. What is in the output is compared whole: nothing lost but what is counted as lost,
//! nothing twice, and no record of a new topic read as if it were one of the old.

use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use super::{PATIENCE, Test, broker};
use crate::pauses::until;
use crate::support::kafka::Broker;
use crate::support::running::Running;
use crate::support::{Pipeline, binary};

pub fn tests() -> Vec<Test> {
    vec![
        (
            "kafka_input_truncated_past_the_position_stops_or_is_counted",
            truncated_while_stopped,
        ),
        (
            "kafka_input_truncated_while_running_is_counted_and_kept",
            truncated_while_running,
        ),
        (
            "kafka_input_cut_off_that_has_grown_again_stops",
            cut_off_and_grown,
        ),
        (
            "kafka_a_topic_created_anew_is_not_read_at_old_offsets",
            created_anew_while_stopped,
        ),
        (
            "kafka_a_topic_created_anew_while_running_stops",
            created_anew_while_running,
        ),
        (
            "kafka_a_topic_created_anew_while_running_is_read_from_its_beginning",
            created_anew_and_gone_on,
        ),
        (
            "kafka_rights_taken_away_and_given_back_cost_nothing",
            rights_come_back,
        ),
    ]
}

/// Rows `n` of one topic to a file, at least one checkpoint each 100 ms.
pub fn pipeline(broker: &Broker, kafka: &str) -> Pipeline {
    Pipeline::new(
        2,
        &format!(
            "[sources.s]\nkafka = {{ {kafka}, brokers = \"{}\" }}\nfields = {{ n = \"int\" }}\n[steps.all]\nfrom = \"s\"\n\
             [sinks.out]\nfrom = [\"all\"]\nfile = {{ path = \"out.jsonl\" }}\n",
            broker.cluster_address()
        ),
    )
}

pub fn write(broker: &Broker, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
    let records: Vec<String> = numbers.map(|n| format!("{{\"n\":{n}}}")).collect();
    broker.produce(
        topic,
        partition,
        records.iter().map(|r| (1_000, Some(r.as_str()))),
    );
}

/// The values of the output, sorted.
pub fn values(run: &Pipeline) -> Vec<i64> {
    let rows = run.rows("out.jsonl").into_iter();
    let mut values: Vec<i64> = rows.map(|r| r["n"].as_i64().unwrap()).collect();
    values.sort_unstable();
    values
}

/// A host without end, what it says in `stderr.txt`.
pub fn start(run: &Pipeline, more: &[&str]) -> Running {
    let mut command = Command::new(binary());
    command.arg("run").arg(run.file()).args(more);
    Running::start(command, &run.dir.path().join("stderr.txt"))
}

pub fn said(run: &Pipeline) -> String {
    std::fs::read_to_string(run.dir.path().join("stderr.txt")).unwrap_or_default()
}

/// Until the output holds as many rows, decided or not.
pub fn until_rows(run: &Pipeline, count: usize) {
    let end = Instant::now() + PATIENCE;
    let lines = || {
        let text = std::fs::read_to_string(run.dir.path().join("out.jsonl")).unwrap_or_default();
        text.lines().count()
    };
    while lines() < count {
        assert!(
            Instant::now() < end,
            "{} of {count} rows came: {}",
            lines(),
            said(run)
        );
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

fn bounded(run: &Pipeline, more: &[&str]) -> Output {
    run.command(&[&["--keep-open"], more].concat())
        .output()
        .unwrap()
}

fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The run stops with exit code 1 and says all of `parts`.
fn stops_saying(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

/// What the summary of a run says that the source has lost: records, times unknown.
fn lost(run: &Pipeline) -> (u64, u64) {
    let text = std::fs::read(run.dir.path().join("summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&text).unwrap();
    counts(&summary["sources"]["s"]["lost"])
}

fn counts(lost: &Value) -> (u64, u64) {
    (
        lost["records"].as_u64().unwrap(),
        lost["unknown"].as_u64().unwrap(),
    )
}

fn truncated_while_stopped() {
    let broker = broker();
    let ways = [
        ("earliest", 10..20, 15..20, 5),
        ("latest", 10..20, 0..0, 10),
    ];
    for (rule, behind, read, expected) in ways {
        let topic = broker.topic("truncated", 1);
        write(broker, &topic, 0, 0..10);
        let run = pipeline(broker, &format!("topic = \"{topic}\""));
        succeeded(&bounded(&run, &[]));
        write(broker, &topic, 0, behind);
        broker.delete_records(&topic, 0, 15);
        let parts = [
            topic.as_str(),
            "partition 0",
            "offset 10,",
            "15 to 20",
            "5 records were deleted before they were read",
            "on_data_loss",
            "tidemill reset",
        ];
        stops_saying(&bounded(&run, &[]), &parts);

        let summary = run.dir.path().join("summary.json");
        let rule = format!("sources.s.kafka.on_data_loss={rule}");
        let more = ["--set", &rule, "--summary", summary.to_str().unwrap()];
        let output = bounded(&run, &more);
        succeeded(&output);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("{expected} records lost")), "{told}");
        let all: Vec<i64> = (0..10).chain(read).collect();
        assert_eq!(values(&run), all);
        assert_eq!(lost(&run), (expected, 0));

        // The count is part of the checkpoint, and what comes later is read.
        write(broker, &topic, 0, 20..22);
        let more = ["--summary", summary.to_str().unwrap()];
        succeeded(&bounded(&run, &more));
        assert_eq!(values(&run), [all, vec![20, 21]].concat());
        assert_eq!(lost(&run), (expected, 0));
    }
}

fn truncated_while_running() {
    let broker = broker();
    let topic = broker.topic("truncated-later", 1);
    write(broker, &topic, 0, 0..10);
    let rule = format!("topic = \"{topic}\", on_data_loss = \"earliest\"");
    let run = pipeline(broker, &rule);
    let mut host = start(&run, &[]);
    until_rows(&run, 10);
    until(&run, |status| status["sources"][0]["lag"] == 0);
    host.signal(libc::SIGSTOP);
    // A fetch that waits at the broker would still be answered with what comes now; it waits 100 ms.
    std::thread::park_timeout(std::time::Duration::from_millis(500));
    write(broker, &topic, 0, 10..20);
    broker.delete_records(&topic, 0, 15);
    host.signal(libc::SIGCONT);
    until_rows(&run, 15);
    let status = until(&run, |status| {
        status["state"] == "running" && status["sources"][0]["lost"]["records"] == 5
    });
    assert_eq!(counts(&status["sources"][0]["lost"]), (5, 0));
    host.kill();

    let mut host = start(&run, &[]);
    let status = until(&run, |status| status["state"] == "running");
    assert_eq!(
        counts(&status["sources"][0]["lost"]),
        (5, 0),
        "kept by kill -9"
    );
    host.terminate();
    assert_eq!(values(&run), (0..10).chain(15..20).collect::<Vec<_>>());
}

/// A broker that loses its last records, as after a power cut, and has others in their place when the host looks again: the
/// offsets alone would tell nothing.
fn cut_off_and_grown() {
    let broker = Broker::start().unwrap_or_else(|reason| panic!("{reason}"));
    let topic = broker.topic("cut-off", 1);
    write(&broker, &topic, 0, 0..10);
    write(&broker, &topic, 0, 10..20);
    let run = pipeline(&broker, &format!("topic = \"{topic}\""));
    let mut host = start(&run, &[]);
    until_rows(&run, 20);
    until(&run, |status| status["sources"][0]["lag"] == 0);
    host.signal(libc::SIGSTOP);
    broker.kill();
    broker.cut_log(&topic, 0);
    broker.up();
    write(&broker, &topic, 0, 100..130);
    host.signal(libc::SIGCONT);
    let status = host.end();
    let said = said(&run);
    assert_eq!(status.code(), Some(1), "{said}");
    for part in [
        topic.as_str(),
        "offset 20, where reading goes on",
        "Kafka has lost records that were read, and may have others in their place",
        "on_data_loss",
    ] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    let rows = values(&run);
    assert_eq!(rows, (0..20).collect::<Vec<_>>(), "none of the others");
}

/// The new topic is longer than what was read of the old: its offsets alone would tell nothing.
fn created_anew_while_stopped() {
    let broker = broker();
    let topic = broker.topic("anew", 2);
    write(broker, &topic, 0, 0..10);
    let run = pipeline(broker, &format!("topic = \"{topic}\""));
    succeeded(&bounded(&run, &[]));
    broker.create_anew(&topic, 1);
    write(broker, &topic, 0, 100..130);
    let parts = [
        topic.as_str(),
        "was deleted and created anew",
        "its id was ",
        ", now it is ",
        "on_data_loss",
        "tidemill reset",
    ];
    stops_saying(&bounded(&run, &[]), &parts);
    assert_eq!(values(&run), (0..10).collect::<Vec<_>>());

    let summary = run.dir.path().join("summary.json");
    let more = [
        "--set",
        "sources.s.kafka.on_data_loss=earliest",
        "--summary",
        summary.to_str().unwrap(),
    ];
    succeeded(&bounded(&run, &more));
    let all: Vec<i64> = (0..10).chain(100..130).collect();
    assert_eq!(values(&run), all);
    assert_eq!(lost(&run), (0, 2), "of each partition nobody knows");
    // From now on it is the topic.
    succeeded(&bounded(&run, &[]));
    assert_eq!(values(&run), all);

    // A topic of which nothing was read is as good as its successor.
    let empty = broker.topic("anew-empty", 1);
    let run = pipeline(broker, &format!("topic = \"{empty}\""));
    succeeded(&bounded(&run, &[]));
    broker.create_anew(&empty, 1);
    write(broker, &empty, 0, 0..5);
    succeeded(&bounded(&run, &[]));
    assert_eq!(values(&run), (0..5).collect::<Vec<_>>());
}

fn created_anew_while_running() {
    let broker = broker();
    let topic = broker.topic("anew-later", 1);
    write(broker, &topic, 0, 0..10);
    let run = pipeline(broker, &format!("topic = \"{topic}\""));
    let mut host = start(&run, &[]);
    until_rows(&run, 10);
    until(&run, |status| status["sources"][0]["lag"] == 0);
    broker.create_anew(&topic, 1);
    write(broker, &topic, 0, 100..130);
    let status = host.end();
    let told = said(&run);
    assert_eq!(status.code(), Some(1), "{told}");
    for part in [&topic, "created anew", "its id was "] {
        assert!(told.contains(part), "{told:?} lacks {part:?}");
    }
    let more = ["--set", "sources.s.kafka.on_data_loss=earliest"];
    succeeded(&bounded(&run, &more));
    let all: Vec<i64> = (0..10).chain(100..130).collect();
    assert_eq!(
        values(&run),
        all,
        "what was read of it at old offsets was dropped"
    );
}

fn created_anew_and_gone_on() {
    let broker = broker();
    let topic = broker.topic("anew-on", 1);
    write(broker, &topic, 0, 0..10);
    let rule = format!("topic = \"{topic}\", on_data_loss = \"latest\"");
    let run = pipeline(broker, &rule);
    let mut host = start(&run, &[]);
    until_rows(&run, 10);
    until(&run, |status| status["sources"][0]["lag"] == 0);
    broker.create_anew(&topic, 3);
    for partition in 0..3 {
        let first = 100 * (1 + i64::from(partition));
        write(broker, &topic, partition, first..first + 30);
    }
    until(&run, |status| {
        status["state"] == "running" && status["sources"][0]["lost"]["unknown"] == 1
    });
    until_rows(&run, 100);
    host.terminate();
    let new = (100..130).chain(200..230).chain(300..330);
    assert_eq!(values(&run), (0..10).chain(new).collect::<Vec<_>>());
}

fn rights_come_back() {
    let broker = Broker::start_with_rights().unwrap_or_else(|reason| panic!("{reason}"));
    let topic = broker.topic("secret", 2);
    write(&broker, &topic, 0, 0..10);
    let run = pipeline(&broker, &format!("topic = \"{topic}\""));
    let mut host = start(&run, &[]);
    until_rows(&run, 10);
    until(&run, |status| status["sources"][0]["lag"] == 0);
    for round in 1..3 {
        broker.forbid(&topic);
        until(&run, |status| {
            let waits = &status["sources"][0]["waiting"];
            waits.as_str().is_some_and(|why| why.contains(&topic))
        });
        assert!(!host.has_ended(), "{}", said(&run));
        broker.allow(&topic);
        until(&run, |status| status["sources"][0]["waiting"].is_null());
        write(&broker, &topic, 0, 10 * round..10 * round + 5);
        write(&broker, &topic, 1, 10 * round + 5..10 * (round + 1));
        until_rows(&run, 10 * (round as usize + 1));
    }
    host.terminate();
    assert_eq!(values(&run), (0..30).collect::<Vec<_>>());
    assert!(said(&run).contains("can be read again"), "{}", said(&run));

    // Who never had the right is told so at once.
    broker.forbid(&topic);
    let parts = [topic.as_str(), "may not"];
    stops_saying(&bounded(&run, &[]), &parts);
}
