//! What the network and the brokers do to a transaction: rows 6 to 14 of the fault matrix, with a proxy between host and
//! broker that loses, repeats and holds requests of Kafka's protocol.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::Test;
use super::running::until;
use super::{PARTITIONS, SLOWLY, SLOWLY_TO_THE_END, Scene, told};
use crate::support::kafka::Broker;
use crate::support::proxy::{ApiKey, Direction, Proxy};
use crate::support::running::Running;
use crate::support::{Pipeline, binary};

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_exactly_row_06_commit_applied_reply_lost", reply_lost),
        (
            "kafka_exactly_row_07_commit_applied_then_killed",
            killed_after_commit,
        ),
        ("kafka_exactly_row_08_late_commit_is_fenced", late_commit),
        (
            "kafka_exactly_row_09_late_offsets_decide_nothing",
            late_offsets,
        ),
        (
            "kafka_exactly_row_10_the_coordinator_hangs",
            hanging_coordinator,
        ),
        ("kafka_exactly_row_11_the_broker_restarts", broker_restart),
        (
            "kafka_exactly_a_stop_while_the_broker_is_away",
            stopped_without_broker,
        ),
        (
            "kafka_exactly_a_client_that_gives_nothing_is_replaced",
            silent_client,
        ),
        (
            "kafka_exactly_row_16_a_zombie_whose_commit_comes_late",
            || zombie(Reply::Late),
        ),
        (
            "kafka_exactly_row_16_a_zombie_whose_commit_never_comes",
            || zombie(Reply::Never),
        ),
        (
            "kafka_exactly_row_16_a_zombie_with_a_checkpoint_of_the_same_number",
            twin,
        ),
        (
            "kafka_exactly_a_start_in_doubt_starts_again",
            doubtful_start,
        ),
        ("kafka_exactly_a_stop_while_a_start_commits", stopped_start),
        ("kafka_exactly_row_13_the_network_is_cut", cut),
        ("kafka_exactly_row_14_the_network_is_slow", slow),
        (
            "kafka_exactly_checkpoints_go_on_where_kafka_takes_less_than_is_made",
            slower_than_the_rows,
        ),
    ]
}

/// A broker behind a proxy, for one test at a time.
fn behind() -> (Broker, Proxy) {
    let mut proxy = Proxy::new();
    let broker = Broker::start_behind(&mut proxy).unwrap_or_else(|reason| panic!("{reason}"));
    (broker, proxy)
}

/// Requests that get no answer are given up after this time, not after a minute.
const IMPATIENT: &str = "properties = { \"socket.timeout.ms\" = \"2000\" }";

fn scene<'b>(broker: &'b Broker, records: i32, host: &str) -> Scene<'b> {
    let scene = Scene::new(broker, records);
    let brokers = format!("brokers = \"{}\"\n{IMPATIENT}", broker.proxied_address());
    scene.write(&brokers, host);
    scene
}

fn reply_lost() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 1_800, "");
    let lost = proxy.on(ApiKey::EndTxn).responses().nth(4).swallow();
    let mut host = scene.start(&SLOWLY_TO_THE_END);
    assert!(host.end().success());
    assert_eq!(lost.hits(), 1);
    let told = host.said();
    assert!(
        told.contains("is replaced") || told.contains("going on from the last decided"),
        "{told}"
    );
    scene.assert_exact("a lost reply to a commit");
}

fn killed_after_commit() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 1_200, "");
    let lost = proxy.on(ApiKey::EndTxn).responses().nth(4).swallow();
    let mut host = scene.start(&SLOWLY_TO_THE_END);
    lost.wait_for_hits(1);
    host.kill();
    let told = scene.finish();
    assert!(told.contains("kept"), "{told}");
    scene.assert_exact("killed between a commit and its reply");
}

/// A commit that is held until the transactions after it are under way, and then arrives.
fn late_commit() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 3_000, "");
    let held = proxy.on(ApiKey::EndTxn).requests().nth(4).hold();
    let mut host = scene.start(&SLOWLY_TO_THE_END);
    held.wait_for_hits(1);
    // The client has given it up and committed by another connection or another producer.
    let before = proxy.count(ApiKey::EndTxn, Direction::Request).passed;
    proxy.wait_for_passed(ApiKey::EndTxn, Direction::Request, before + 2);
    held.release();
    assert!(host.end().success());
    scene.assert_exact("a commit that came late");
}

/// Offsets of the group are for lag monitors: nothing waits for them, and those that come late, after a crash even, move
/// nothing but what monitors show.
fn late_offsets() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 4_800, "");
    let held = proxy.on(ApiKey::OffsetCommit).requests().nth(1).hold();
    let mut host = scene.start(&SLOWLY);
    held.wait_for_hits(1);
    let before = proxy.count(ApiKey::EndTxn, Direction::Request).passed;
    proxy.wait_for_passed(ApiKey::EndTxn, Direction::Request, before + 5);
    host.kill();
    let mut host = scene.start(&SLOWLY);
    let before = proxy.count(ApiKey::EndTxn, Direction::Request).passed;
    proxy.wait_for_passed(ApiKey::EndTxn, Direction::Request, before + 2);
    held.release();
    host.terminate();
    scene.finish();
    scene.assert_exact("offsets that came late");
}

/// Nothing is processed before the predecessor is shut out; then it goes on.
fn hanging_coordinator() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 600, "");
    let held = proxy
        .on(ApiKey::InitProducerId)
        .requests()
        .first(3)
        .swallow();
    let mut host = scene.start(&["--until-end"]);
    held.wait_for_hits(1);
    assert!(scene.read(&scene.output).is_empty());
    assert!(host.end().success());
    scene.assert_exact("a coordinator that hung");
}

/// As often as it is killed, with transactions under way, the pipeline goes on when it is back.
fn broker_restart() {
    let (broker, proxy) = behind();
    let mut scene = scene(&broker, 1_200, "");
    let mut host = scene.start(&SLOWLY);
    for _ in 0..2 {
        let before = proxy.count(ApiKey::EndTxn, Direction::Response).passed;
        scene.feed(2_400);
        proxy.wait_for_passed(ApiKey::EndTxn, Direction::Response, before + 3);
        broker.kill();
        broker.up();
    }
    host.kill();
    scene.finish();
    scene.assert_exact("a broker that was killed twice");
}

/// With a transaction in doubt it begins again and waits for the broker; a stop then is a clean end, and nothing is lost.
fn stopped_without_broker() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 1_200, "transaction_timeout = \"2s\"");
    let lost = proxy.on(ApiKey::EndTxn).requests().nth(4).swallow();
    let mut host = scene.start(&SLOWLY);
    lost.wait_for_hits(1);
    proxy.refuse_everything();
    until("a new beginning", || {
        host.said()
            .contains("going on from the last decided checkpoint")
    });
    host.terminate();
    proxy.go_on();
    scene.finish();
    scene.assert_exact("a stop while the broker is away");
}

/// A consumer that has forgotten what it was to fetch looks as one whose fetches never arrive.
fn silent_client() {
    let (broker, proxy) = behind();
    let mut scene = Scene::new(&broker, 600);
    let brokers = format!("brokers = \"{}\"", broker.proxied_address());
    scene.write(&brokers, "");
    let mut host = scene.start(&SLOWLY);
    proxy.wait_for_passed(ApiKey::EndTxn, Direction::Response, 2);
    let lost = proxy.on(ApiKey::Fetch).requests().swallow();
    scene.feed(600);
    until("another client", || {
        host.said().contains("going on with another client")
    });
    lost.release();
    host.kill();
    scene.finish();
    scene.assert_exact("a client that gave nothing");
}

/// What becomes of the reply to a zombie's commit.
enum Reply {
    Late,
    Never,
}

/// A host that stood still in a commit, which was applied, finds that another has gone on from there: it does not shut that
/// one out, whether the reply makes its producer doubtful or the lack of one makes it begin again.
fn zombie(reply: Reply) {
    let (broker, proxy) = behind();
    let mut scene = Scene::new(&broker, 1_200);
    scene.has_file = false;
    let brokers = format!("brokers = \"{}\"", broker.proxied_address());
    let timeout = match reply {
        Reply::Late => "",
        Reply::Never => "transaction_timeout = \"3s\"",
    };
    scene.write(&brokers, timeout);
    let held = proxy.on(ApiKey::EndTxn).responses().nth(4).hold();
    let mut old = scene.start(&SLOWLY);
    held.wait_for_hits(1);
    old.signal(libc::SIGSTOP);
    let old_dir = scene.moved();
    scene.write_plain();
    let mut newer = scene.start(&[]);
    until("output of the newer host", || {
        scene.read(&scene.output).len() > 1_000
    });
    if matches!(reply, Reply::Late) {
        held.release();
    }
    old.signal(libc::SIGCONT);
    let (status, said) = (old.end(), old.said());
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("a newer host has taken over"), "{said}");
    scene.feed(600);
    newer.terminate();
    scene.finish();
    scene.assert_exact("with a zombie in a commit");
    drop(old_dir);
}

/// A host whose commit never arrived has prepared a checkpoint of the number that its successor decides at its start. It
/// must not take the one for the other.
fn twin() {
    let (broker, proxy) = behind();
    let mut scene = Scene::new(&broker, 1_200);
    scene.has_file = false;
    let brokers = format!("brokers = \"{}\"", broker.proxied_address());
    scene.write(&brokers, "transaction_timeout = \"3s\"");
    let held = proxy.on(ApiKey::EndTxn).requests().nth(4).hold();
    let mut old = scene.start(&SLOWLY);
    held.wait_for_hits(1);
    old.signal(libc::SIGSTOP);
    let old_dir = scene.moved();
    scene.write_plain();
    let output = scene.run_with_drill("start-decided");
    assert!(!output.status.success(), "{}", told(&output));
    old.signal(libc::SIGCONT);
    let (status, said) = (old.end(), old.said());
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("a newer host has taken over"), "{said}");
    held.release();
    scene.finish();
    scene.assert_exact("with a zombie of the same number");
    drop(old_dir);
}

/// It commits a decision of its own before the first record; whether that went well is found out in the process.
fn doubtful_start() {
    let (broker, proxy) = behind();
    let scene = Scene::new(&broker, 1_200);
    let brokers = format!("brokers = \"{}\"", broker.proxied_address());
    scene.write(&brokers, "transaction_timeout = \"2s\"");
    assert!(!scene.run_with_drill("committed:3").status.success());
    let lost = proxy.on(ApiKey::EndTxn).responses().nth(1).swallow();
    let mut host = scene.start(&SLOWLY_TO_THE_END);
    assert!(host.end().success(), "{}", host.said());
    assert_eq!(lost.hits(), 1);
    assert!(host.said().contains("starting again"), "{}", host.said());
    scene.assert_exact("a start in doubt");
}

fn stopped_start() {
    let (broker, proxy) = behind();
    let scene = Scene::new(&broker, 1_200);
    let brokers = format!("brokers = \"{}\"", broker.proxied_address());
    scene.write(&brokers, "");
    assert!(!scene.run_with_drill("committed:3").status.success());
    let held = proxy.on(ApiKey::EndTxn).requests().nth(1).hold();
    let mut host = scene.start(&SLOWLY);
    held.wait_for_hits(1);
    let asked = Instant::now();
    host.terminate();
    assert!(asked.elapsed() < Duration::from_secs(30), "{}", host.said());
    held.release();
    scene.finish();
    scene.assert_exact("a stop while a start commits");
}

/// For a moment, and for longer than a transaction may last.
fn cut() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 9_000, "transaction_timeout = \"6s\"");
    let mut host = scene.start(&["--until-end"]);
    for (round, seconds) in [(1, 1), (2, 9)] {
        proxy.wait_for_passed(ApiKey::EndTxn, Direction::Response, 5 * round);
        proxy.hold_everything();
        // What is awaited here is the time itself: that the broker gives the transaction up.
        std::thread::sleep(Duration::from_secs(seconds));
        proxy.cut_everything();
        proxy.go_on();
    }
    let status = host.end();
    assert!(status.success(), "{status}");
    scene.assert_exact("a network that was cut");
}

fn slow() {
    let (broker, proxy) = behind();
    let scene = scene(&broker, 600, "");
    proxy.slow_down(Duration::from_millis(60), Duration::from_millis(40), 5);
    scene.finish();
    scene.assert_exact("a slow network");
}

/// Rows are always waiting to be written: that must not keep the next checkpoint from coming.
fn slower_than_the_rows() {
    const CHECKPOINTS: u64 = 4;
    let (broker, proxy) = behind();
    let output = broker.topic("flood", PARTITIONS as u32);
    let text = format!(
        "[kafka]\nbrokers = \"{}\"\nproperties = {{ \"compression.type\" = \"none\" }}\n\
         [sources.clicks]\ngenerate = {{ kind = \"clicks\", per_second = 1000000, seed = 1, users = 1000 }}\n\
         [sinks.out]\nfrom = [\"clicks\"]\nkafka = {{ topic = \"{output}\" }}\n",
        broker.proxied_address()
    );
    let run = Pipeline::new(2, &text);
    proxy.slow_down(Duration::from_millis(30), Duration::ZERO, 1);
    let mut command = Command::new(binary());
    command.arg("run").arg(run.file());
    let mut host = Running::start(command, &run.dir.path().join("said.txt"));
    until("checkpoints", || {
        let mut status = Command::new(binary());
        let output = status.arg("status").arg(run.file()).arg("--json").output();
        let status: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default();
        status["checkpoint"]["count"].as_u64() >= Some(CHECKPOINTS)
    });
    assert!(!host.said().contains("going on from"), "{}", host.said());
    host.kill();
}
