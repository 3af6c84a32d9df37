//! Hosts and state directories that do not belong together: rows 16, 17 and 24 to 29 of the fault matrix. Each ends in
//! words that name both sides and the ways out; nothing is guessed.

use std::process::{Command, Output};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::super::{PATIENCE, Test, broker};
use super::running::until;
use super::{Scene, copy, told};
use tidemill::kafka::{admin, decision};

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_exactly_row_15_a_host_that_slept_goes_on", slept),
        ("kafka_exactly_row_16_a_zombie_writes_nothing", zombie),
        ("kafka_exactly_row_17_two_hosts_one_runs", two_hosts),
        ("kafka_exactly_row_24_an_older_copy_is_refused", older_copy),
        ("kafka_exactly_row_25_a_lost_state_is_refused", lost_state),
        (
            "kafka_exactly_row_26_a_foreign_state_is_refused",
            foreign_state,
        ),
        (
            "kafka_exactly_row_27_group_offsets_are_never_used",
            group_offsets,
        ),
        ("kafka_exactly_row_28_the_decisions_are_gone", no_decisions),
        ("kafka_exactly_row_29_kafka_lost_a_decision", lost_decision),
        ("kafka_exactly_no_transactions_any_more", other_delivery),
        ("kafka_exactly_a_transaction_without_an_end", endless),
    ]
}

/// The start is refused with exit code 2, and `parts` are said.
pub fn assert_refused(output: &Output, parts: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for part in parts {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
}

/// A host that stood still for longer than its transaction may last, with nobody in its place, goes on by itself.
fn slept() {
    let scene = Scene::new(broker(), 6_000);
    let brokers = format!("brokers = \"{}\"", scene.broker.cluster_address());
    scene.write(&brokers, "transaction_timeout = \"2s\"");
    let mut host = scene.start(&["--until-end"]);
    until("output", || scene.read(&scene.output).len() > 100);
    host.signal(libc::SIGSTOP);
    // What is awaited here is the time itself: the broker looks for overdue transactions every ten seconds.
    std::thread::sleep(std::time::Duration::from_secs(13));
    host.signal(libc::SIGCONT);
    let status = host.end();
    assert!(status.success(), "{}", host.said());
    scene.assert_exact("after a long sleep");
}

/// A host that stood still while a successor took over, with a copy of its state, ends with exit code 3 and writes nothing.
fn zombie() {
    let mut scene = Scene::new(broker(), 1_200);
    scene.has_file = false;
    scene.write_plain();
    let mut old = scene.start(&[]);
    until("output", || scene.read(&scene.output).len() > 100);
    old.signal(libc::SIGSTOP);
    let zombie_dir = scene.moved();
    scene.feed(600);
    scene.finish();
    old.signal(libc::SIGCONT);
    let (status, said) = (old.end(), old.said());
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("must not run beside"), "{said}");
    scene.assert_exact("with a zombie");
    drop(zombie_dir);
}

/// A second host with a state of its own is refused before it shuts the first one out.
fn two_hosts() {
    let scene = Scene::new(broker(), 1_200);
    scene.write_plain();
    let mut first = scene.start(&[]);
    until("output", || scene.read(&scene.output).len() > 100);
    for _ in 0..2 {
        let second = scene.command(&["--set", "host.state=\"other\""]);
        assert_refused(
            &{ second }.output().unwrap(),
            &["another host runs this pipeline"],
        );
    }
    let same = scene.command(&[]).output().unwrap();
    assert_refused(&same, &["in use by another tidemill process"]);
    first.terminate();
    scene.finish();
    scene.assert_exact("with a second host");
}

fn older_copy() {
    let mut scene = Scene::new(broker(), 600);
    scene.write_plain();
    scene.command(&["--keep-open"]).output().unwrap();
    let dir = scene.dir.path().to_owned();
    copy(&dir.join("state"), &dir.join("kept"));
    scene.feed(600);
    let output = scene.command(&["--keep-open"]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    std::fs::remove_dir_all(dir.join("state")).unwrap();
    copy(&dir.join("kept"), &dir.join("state"));
    let output = scene.command(&["--keep-open"]).output().unwrap();
    assert_refused(
        &output,
        &["it is an older copy", "tidemill restore", "decisions"],
    );
}

/// Deleted by hand it is refused; given up by `reset` it is not.
fn lost_state() {
    let scene = Scene::new(broker(), 600);
    scene.write_plain();
    scene.command(&["--keep-open"]).output().unwrap();
    let dir = scene.dir.path().to_owned();
    std::fs::remove_dir_all(dir.join("state")).unwrap();
    std::fs::remove_file(dir.join("copy.jsonl")).unwrap();
    let output = scene.command(&["--keep-open"]).output().unwrap();
    assert_refused(
        &output,
        &[
            "was lost or exchanged",
            "tidemill reset PIPELINE --abandon ",
        ],
    );
    let told = told(&output);
    let (_, id) = told.split_once("--abandon ").unwrap();
    let id: String = id.chars().take_while(char::is_ascii_hexdigit).collect();
    let mut reset = Command::new(super::binary());
    reset
        .arg("reset")
        .arg(scene.file())
        .args(["--yes", "--abandon", &id]);
    let output = reset.output().unwrap();
    assert!(output.status.success(), "{}", super::told(&output));
    scene.finish();
    // As announced: what was written before is written again.
    let rows = scene.read(&scene.output).len();
    assert_eq!(rows, 2 * (600 - 15 - 6), "rows of both lives");
}

fn foreign_state() {
    let one = Scene::new(broker(), 600);
    let other = Scene::new(broker(), 600);
    for scene in [&one, &other] {
        scene.write_plain();
        scene.command(&["--keep-open"]).output().unwrap();
    }
    let state = one.dir.path().join("state");
    std::fs::remove_dir_all(&state).unwrap();
    copy(&other.dir.path().join("state"), &state);
    let output = one.command(&["--keep-open"]).output().unwrap();
    assert_refused(&output, &["holds the state of pipeline"]);
}

/// Whatever others do to the group's offsets, reading goes on where the checkpoint says.
fn group_offsets() {
    let mut scene = Scene::new(broker(), 600);
    scene.write_plain();
    scene.command(&["--keep-open"]).output().unwrap();
    let committed = scene.broker.committed(&scene.name, &scene.input, 0);
    assert_eq!(
        committed,
        Some(200),
        "offsets are committed for lag monitors"
    );
    scene.broker.commit(&scene.name, &scene.input, 0, 3);
    scene.feed(600);
    scene.finish();
    scene.assert_exact("after a reset of the group's offsets");
    let committed = scene.broker.committed(&scene.name, &scene.input, 0);
    assert_eq!(committed, Some(400), "and they are committed again");
}

fn no_decisions() {
    let scene = Scene::new(broker(), 600);
    scene.write_plain();
    scene.command(&["--keep-open"]).output().unwrap();
    scene.broker.delete_topic(&decision::topic(&scene.name));
    let output = scene.command(&["--keep-open"]).output().unwrap();
    assert_refused(
        &output,
        &["the last decision in Kafka is not there", "Kafka lost it"],
    );
}

/// The log of decisions is shorter than the state remembers, as after an unclean leader election.
fn lost_decision() {
    let scene = Scene::new(broker(), 600);
    scene.write_plain();
    scene.command(&["--keep-open"]).output().unwrap();
    let topic = decision::topic(&scene.name);
    let decisions = scene.read(&topic);
    scene.broker.delete_topic(&topic);
    admin::create_topic(&scene.broker.cluster(), &topic, 1, 1, &[]).unwrap();
    for decision in &decisions[..decisions.len() - 1] {
        let text = decision.to_string();
        scene.broker.produce(&topic, 0, [(1, Some(text.as_str()))]);
    }
    let output = scene.command(&["--keep-open"]).output().unwrap();
    assert_refused(&output, &["knows that checkpoint", "Kafka lost it"]);
}

/// To at-least-once and back: each finds the other's checkpoints.
fn other_delivery() {
    let mut scene = Scene::new(broker(), 600);
    scene.write_plain();
    assert!(!scene.run_with_drill("prepared:3").status.success());
    let at_least = ["--keep-open", "--set", "host.delivery=at-least-once"];
    for _ in 0..2 {
        let output = scene.command(&at_least).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        scene.feed(600);
    }
    scene.finish();
    scene.assert_exact("with another delivery in between");
}

/// What became of it can be learnt from nobody: a start says so instead of waiting for ever, and goes on once it has ended.
fn endless() {
    let scene = Scene::new(broker(), 600);
    scene.write_plain();
    scene.command(&["--keep-open"]).output().unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", scene.broker.cluster_address())
        .set("transactional.id", format!("{}/hanging", scene.name))
        // The longest that brokers allow.
        .set("transaction.timeout.ms", "900000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let topic = decision::topic(&scene.name);
    let record = BaseRecord::to(&topic).key("other").payload("{}");
    producer.send(record).unwrap();
    producer.flush(PATIENCE).unwrap();
    let output = scene.command(&["--keep-open"]).output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("a transaction on the topic has no end"),
        "{told}"
    );
    producer.abort_transaction(PATIENCE).unwrap();
    scene.finish();
    scene.assert_exact("after a transaction without an end");
}
