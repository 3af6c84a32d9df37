//! `tidemill doctor` against a real broker: one that is well, topics that are missing, credentials that are wrong, a host
//! that runs meanwhile.

use std::time::{Duration, Instant};

use regex::Regex;
use tidemill::kafka::admin;

use super::{PATIENCE, Test, broker};
use crate::doctor::{doctor, findings};
use crate::support::Pipeline;
use crate::support::kafka::Broker;
use crate::support::process::spawn_bound;

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_doctor_of_a_broker_that_is_well", well),
        ("kafka_doctor_finds_topics_that_are_missing", missing),
        (
            "kafka_doctor_tells_refused_credentials_without_showing_them",
            credentials,
        ),
        ("kafka_doctor_beside_a_running_host", beside_a_host),
        ("kafka_doctor_compares_state_and_decision", decisions),
        (
            "kafka_doctor_tries_no_transaction_where_none_is_asked_for",
            at_least_once,
        ),
    ]
}

/// A pipeline of three topics, the last for dead letters.
fn pipeline(broker: &Broker, [from, to, letters]: [&str; 3]) -> Pipeline {
    let text = format!(
        "[kafka]\nbrokers = \"{}\"\n[dead_letters]\nkafka = {{ topic = \"{letters}\" }}\n\
         [sources.clicks]\nkafka = {{ topic = \"{from}\" }}\nfields = {{ user = \"string\" }}\n\
         [sinks.out]\nfrom = \"clicks\"\nkafka = {{ topic = \"{to}\" }}\n",
        broker.cluster_address()
    );
    let pipeline = Pipeline::new(1, &text);
    // A name of its own: its topics are on a broker that is shared.
    let text = std::fs::read_to_string(pipeline.file()).expect("the folder is ours");
    let named = format!("name = \"{}\"", name(&pipeline));
    std::fs::write(pipeline.file(), text.replacen("name = \"test\"", &named, 1))
        .expect("the folder is ours");
    pipeline
}

fn name(pipeline: &Pipeline) -> String {
    let dir = pipeline
        .dir
        .path()
        .file_name()
        .expect("a name")
        .to_string_lossy();
    let own: String = dir.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("doctor-{}", own.to_ascii_lowercase())
}

fn topics(broker: &Broker) -> [String; 3] {
    [("well", 3), ("well-out", 2), ("well-letters", 1)].map(|(name, n)| broker.topic(name, n))
}

/// The output with what differs from run to run replaced.
fn golden(text: &str, broker: &Broker, pipeline: &Pipeline) -> String {
    let mut text = text
        .replace(broker.cluster_address(), "HOST:PORT")
        .replace(&name(pipeline), "NAME");
    for (pattern, plain) in [
        (r"cluster [\w-]+", "cluster ID"),
        (r"-\d+-\d+ \(", " ("),
        (r"\d+\.\d+ (ms|s|GB|MB)\b", "N $1"),
        (r"librdkafka [\d.]+", "librdkafka N"),
        (r"user \d+", "user N"),
    ] {
        text = Regex::new(pattern)
            .expect("a pattern")
            .replace_all(&text, plain)
            .into_owned();
    }
    text
}

fn well() {
    let broker = broker();
    let names = topics(broker);
    let pipeline = pipeline(broker, [&names[0], &names[1], &names[2]]);
    let (code, out, err) = doctor(&pipeline, &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    // The disk of this machine may be slow: what is said of it is not looked at here.
    let (cluster, _) = out.split_once("\nstate ").expect("the state comes last");
    insta::assert_snapshot!(golden(cluster, broker, &pipeline), @r"
    pipeline NAME
      ok       no mistakes in the file: 1 source, 0 steps, 1 sink

    versions
      ok       tidemill 0.1.0, librdkafka N

    Kafka at HOST:PORT
      ok       answers in N ms over PLAINTEXT: 1 broker, cluster ID
      ok       speaks the protocol of Apache Kafka 4.1 or newer
      ok       topic well (source clicks): 3 partitions; this user may read it
      warning  topic well-out (sink out): 1 replica, min.insync.replicas=1
               -> a single broker is for trying out: what it loses is lost, and with it the decision which output is true
      warning  topic well-letters (dead letters): 1 replica, min.insync.replicas=1
               -> as above
      ok       transactions may stay open for 1m (the brokers allow 15m), checkpoints come every 100ms
      ok       the brokers remember transactional ids for 7d and group offsets for 7d
      ok       transactions, tried for N s: aborted records stay hidden, group offsets go with the commit, a fenced producer cannot commit; a commit takes N ms
      ok       the clocks of this host and of the broker agree
      ok       topic __tidemill.NAME.decisions (the pipeline's decisions) is not there yet: the first run makes it
      warning  topic __transaction_state (of all transactions): 1 replica, min.insync.replicas=1
               -> as above
      warning  topic __consumer_offsets (of group offsets): 1 replica, min.insync.replicas=1
               -> as above
    ");
    assert_eq!(left_behind(broker, &pipeline), Vec::<String>::new());
}

/// Topics of the pipeline's own: a doctor leaves none, and makes none of what only a run may make.
fn left_behind(broker: &Broker, pipeline: &Pipeline) -> Vec<String> {
    let prefix = format!("__tidemill.{}.", name(pipeline));
    let mut all = rdkafka_topics(broker);
    all.retain(|name| name.starts_with(&prefix));
    all
}

fn rdkafka_topics(broker: &Broker) -> Vec<String> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", broker.cluster_address());
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    metadata
        .topics()
        .iter()
        .map(|t| t.name().to_owned())
        .collect()
}

fn missing() {
    let broker = broker();
    let names = topics(broker);
    let pipeline = pipeline(broker, ["no-such-topic", &names[1], "no-such-letters"]);
    let (code, out, err) = doctor(&pipeline, &["--json"]);
    assert_eq!(code, Some(1), "{out}{err}");
    let failures = findings(&out, "failure");
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(
        failures[0].contains("topic no-such-topic (source clicks) does not exist"),
        "{failures:?}"
    );
    assert!(
        failures[1].contains("topic no-such-letters (dead letters) does not exist"),
        "{failures:?}"
    );
    let now = admin::topics(&broker.cluster(), PATIENCE).expect("topics");
    assert!(
        now.iter().all(|(name, _)| !name.starts_with("no-such")),
        "asking made a topic: {now:?}"
    );
}

fn credentials() {
    let broker = broker();
    let Some((hosts, certificate)) = broker.tls() else {
        // Someone else's broker: its passwords are not known here.
        return;
    };
    let names = topics(broker);
    let pipeline = pipeline(broker, [&names[0], &names[1], &names[2]]);
    let with = |password: &str, certificate: &str| {
        std::fs::write(pipeline.dir.path().join("password"), password).expect("ours");
        let set = |name: &str, value: &str| format!("kafka.properties.\"{name}\"={value}");
        let all = [
            format!("kafka.brokers={hosts}"),
            set("security.protocol", "SASL_SSL"),
            set("sasl.mechanism", "PLAIN"),
            set("sasl.username", "app"),
            set("sasl.password", "${file:password}"),
            set("ssl.ca.location", certificate),
        ];
        let mut arguments = vec!["--json"];
        arguments.extend(all.iter().flat_map(|pair| ["--set", pair.as_str()]));
        doctor(&pipeline, &arguments)
    };
    let certificate = certificate.display().to_string();
    let (code, out, err) = with("right", &certificate);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("over SASL_SSL: 1 broker"), "{out}");

    let (code, out, err) = with("swordfish", &certificate);
    assert_eq!(code, Some(1), "{out}{err}");
    let failures = findings(&out, "failure");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].contains("refuses these credentials"),
        "{failures:?}"
    );
    assert!(
        !out.contains("swordfish") && !err.contains("swordfish"),
        "{out}{err}"
    );

    let (code, out, err) = with("right", "probe");
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        findings(&out, "failure")[0].contains("certificate"),
        "{out}"
    );
}

fn beside_a_host() {
    let broker = broker();
    let names = topics(broker);
    let pipeline = pipeline(broker, [&names[0], &names[1], &names[2]]);
    let mut command = std::process::Command::new(crate::support::binary());
    command.arg("run").arg(pipeline.file());
    let log = std::fs::File::create(pipeline.dir.path().join("host.log")).expect("ours");
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(log);
    let mut host = spawn_bound(command).expect("the binary starts");
    let state = || {
        doctor(
            &pipeline,
            &["--json", "--set", "host.delivery=at-least-once"],
        )
    };
    let until = Instant::now() + PATIENCE;
    while !state().1.contains("a host is running on it") {
        assert!(Instant::now() < until, "{}", state().1);
    }
    let (code, out, err) = doctor(&pipeline, &["--json"]);
    assert_eq!(code, Some(0), "{out}{err}");
    broker.produce(&names[0], 0, [(1, Some("{\"user\":\"ann\"}"))]);
    while broker_end(broker, &names[1]) == 0 {
        assert!(
            Instant::now() < until,
            "the host does not work beside the doctor"
        );
        assert!(matches!(host.try_wait(), Ok(None)), "the host ended");
    }
    host.kill().expect("it runs");
    host.wait().expect("it ends");
}

/// Records and markers in all partitions.
fn broker_end(broker: &Broker, topic: &str) -> i64 {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", broker.cluster_address());
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let end = |partition| consumer.fetch_watermarks(topic, partition, Duration::from_secs(10));
    (0..2)
        .map(|partition| end(partition).expect("watermarks").1)
        .sum()
}

fn decisions() {
    let broker = broker();
    let names = topics(broker);
    let pipeline = pipeline(broker, [&names[0], &names[1], &names[2]]);
    broker.produce(&names[0], 0, [(1, Some("{\"user\":\"ann\"}"))]);
    pipeline.run();
    let (code, out, err) = doctor(&pipeline, &["--json"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let ok = findings(&out, "ok");
    let agrees =
        |text: &String| text.starts_with("it agrees with the decision in Kafka, checkpoint ");
    assert!(ok.iter().any(agrees), "{ok:?}");

    // The state directory is lost: a start would not guess what of the output is its own.
    std::fs::remove_dir_all(pipeline.dir.path().join("state")).expect("the folder is ours");
    let (code, out, _) = doctor(&pipeline, &["--json"]);
    assert_eq!(code, Some(1), "{out}");
    let failures = findings(&out, "failure");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].contains("do not belong together"),
        "{failures:?}"
    );
    assert!(
        failures[0].contains("the state directory holds none"),
        "{failures:?}"
    );
    let output = pipeline.command(&[]).output().expect("the binary starts");
    assert_eq!(
        output.status.code(),
        Some(2),
        "the doctor says what a start does"
    );
}

fn at_least_once() {
    let broker = broker();
    let names = topics(broker);
    let pipeline = pipeline(broker, [&names[0], &names[1], &names[2]]);
    let (code, out, err) = doctor(&pipeline, &["--set", "host.delivery=at-least-once"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        !out.contains("transactions") && !out.contains("decisions"),
        "{out}"
    );
}
