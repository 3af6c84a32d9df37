//! Moved positions and new partitions on a real topic.

use std::process::{Command, Output};

use super::{Test, broker};
use crate::support::kafka::Broker;
use crate::support::{Pipeline, binary};

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_reset_to_offsets_and_times", reset),
        ("kafka_a_new_partition_is_read_whole", new_partition),
    ]
}

fn pipeline(broker: &Broker, topic: &str, start: &str) -> Pipeline {
    Pipeline::new(
        2,
        &format!(
            "[sources.s]\nkafka = {{ topic = \"{topic}\", brokers = \"{}\", start = \"{start}\" }}\nfields = {{ n = \"int\" }}\n\
             [steps.all]\nfrom = \"s\"\n[sinks.out]\nfrom = [\"all\"]\nfile = {{ path = \"out.jsonl\" }}\n",
            broker.cluster_address()
        ),
    )
}

/// The values of the output from row `from` on, sorted.
fn values(run: &Pipeline, from: usize) -> Vec<i64> {
    let rows = run.rows("out.jsonl");
    let mut values: Vec<i64> = rows[from..]
        .iter()
        .map(|r| r["n"].as_i64().unwrap())
        .collect();
    values.sort_unstable();
    values
}

fn succeeds(run: &Pipeline) {
    let output = run.command(&["--keep-open"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn reset_to(run: &Pipeline, to: &str, more: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .arg("reset")
        .arg(run.file())
        .args(["--to", to])
        .args(more);
    command.output().unwrap()
}

fn reset() {
    let broker = broker();
    let topic = broker.topic("reset", 2);
    broker.produce(
        &topic,
        0,
        [
            (1_000, Some("{\"n\":1}")),
            (2_000, Some("{\"n\":2}")),
            (3_000, Some("{\"n\":3}")),
        ],
    );
    broker.produce(&topic, 1, [(2_500, Some("{\"n\":11}"))]);
    let run = pipeline(broker, &topic, "earliest");
    succeeds(&run);
    assert_eq!(values(&run, 0), [1, 2, 3, 11]);

    let asked = reset_to(&run, "1970-01-01T00:00:02Z", &[]);
    let text = said(&asked);
    assert!(asked.status.success(), "{text}");
    assert!(
        text.contains("2 records are read again") && text.contains("1 record is read again"),
        "{text}"
    );
    succeeds(&run);
    assert_eq!(values(&run, 4), Vec::<i64>::new(), "it was only asked");

    assert!(
        reset_to(&run, "1970-01-01T00:00:02Z", &["--yes"])
            .status
            .success()
    );
    succeeds(&run);
    assert_eq!(values(&run, 4), [2, 3, 11], "behind what was there");

    let offsets = run.dir.path().join("offsets.json");
    let offsets = offsets.to_str().unwrap();
    std::fs::write(offsets, "{ \"s\": { \"0\": 2 } }").unwrap();
    let done = reset_to(&run, offsets, &["--yes"]);
    assert!(done.status.success(), "{}", said(&done));
    succeeds(&run);
    assert_eq!(values(&run, 7), [3], "the other partition stayed");

    std::fs::write(offsets, "{ \"s\": { \"0\": 4, \"2\": 0 } }").unwrap();
    let refused = reset_to(&run, offsets, &["--yes"]);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(
        text.contains("it has offsets 0 to 3") && text.contains("only its partitions 0 to 1"),
        "{text}"
    );

    assert!(reset_to(&run, "2100-01-01T00:00:00Z", &[]).status.success());
    assert!(reset_to(&run, "earliest", &["--yes"]).status.success());
    succeeds(&run);
    assert_eq!(values(&run, 8), [1, 2, 3, 11]);
}

/// `start = "latest"` says where reading begins, not that what comes later is left out.
fn new_partition() {
    let broker = broker();
    let topic = broker.topic("grown", 1);
    broker.produce(&topic, 0, [(1_000, Some("{\"n\":1}"))]);
    let run = pipeline(broker, &topic, "latest");
    succeeds(&run);
    broker.grow(&topic, 2);
    broker.produce(&topic, 0, [(1_000, Some("{\"n\":2}"))]);
    broker.produce(&topic, 1, [(1_000, Some("{\"n\":11}"))]);
    succeeds(&run);
    assert_eq!(values(&run, 0), [2, 11]);
    succeeds(&run);
    assert_eq!(values(&run, 0), [2, 11], "nothing came twice");
}
