//! A broker that is not there, or goes and comes back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidemill::kafka::{KafkaSource, TopicProducer, admin};
use tidemill::pipeline::plan::{Brokers, Cluster, Start};
use tidemill::source::Source;

use super::{PATIENCE, Test, partitions, read_until, source};
use crate::support::kafka::Broker;

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_a_broker_that_starts_late_is_waited_for", starts_late),
        ("kafka_kill_and_restart_under_load", restart_under_load),
        ("kafka_credentials_and_certificates", credentials),
        (
            "kafka_no_broker_is_a_clear_error_for_who_only_asks",
            nobody_there,
        ),
    ]
}

fn own_broker() -> Broker {
    Broker::prepare().unwrap_or_else(|reason| panic!("{reason}"))
}

fn starts_late() {
    let broker = own_broker();
    broker.up();
    let topic = broker.topic("late", 3);
    broker.kill();
    let asked = AtomicUsize::new(0);
    let launch_in_the_middle = || {
        if asked.fetch_add(1, Ordering::Relaxed) == 2 {
            broker.launch();
        }
        false
    };
    let source = source(&broker, &topic, Start::Earliest);
    let parts = source.partitions(
        &BTreeMap::new(),
        &BTreeMap::new(),
        false,
        &launch_in_the_middle,
    );
    assert_eq!(parts.unwrap().len(), 3);

    broker.kill();
    let sink = TopicProducer::open("sink results", &broker.cluster(), &topic).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| broker.up());
        sink.send(None, b"waited").unwrap();
        sink.sync(sink.barrier()).unwrap();
    });
}

fn credentials() {
    let broker = Broker::get().unwrap_or_else(|reason| panic!("{reason}"));
    let Some((hosts, certificate)) = broker.tls() else {
        return own_credentials();
    };
    check_credentials(broker, &hosts, &certificate.display().to_string());
}

/// Where the shared broker is someone else's, whose passwords are not known here.
fn own_credentials() {
    let broker = own_broker();
    broker.up();
    let (hosts, certificate) = broker.tls().expect("a broker of the test's own");
    check_credentials(&broker, &hosts, &certificate.display().to_string());
}

fn check_credentials(broker: &Broker, hosts: &str, certificate: &str) {
    let topic = broker.topic("secret", 2);
    let with = |password: &str, certificate: Option<&str>| {
        let mut properties = BTreeMap::from([
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "app"),
            ("sasl.password", password),
        ]);
        properties.extend(certificate.map(|file| ("ssl.ca.location", file)));
        let cluster = Cluster {
            brokers: Brokers::At(hosts.to_owned()),
            properties: properties
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        };
        let source = KafkaSource::new("clicks", "kafka-tests", &cluster, &topic, Start::Earliest);
        let until = Instant::now() + PATIENCE;
        let found = source.partitions(&BTreeMap::new(), &BTreeMap::new(), false, &|| {
            Instant::now() > until
        });
        found
            .map(|parts| parts.len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(with("right", Some(certificate)), Ok(2));
    let refused = with("swordfish", Some(certificate)).unwrap_err();
    assert!(
        refused.contains("credentials") && refused.contains("source clicks"),
        "{refused}"
    );
    assert!(!refused.contains("swordfish"), "{refused}");
    let unknown = with("right", None).unwrap_err();
    assert!(
        unknown.contains("TLS") && unknown.contains("certificate"),
        "{unknown}"
    );
}

fn nobody_there() {
    let nobody = Cluster {
        brokers: Brokers::At("127.0.0.1:1".to_owned()),
        properties: BTreeMap::new(),
    };
    let error = admin::topics(&nobody, Duration::from_secs(1))
        .unwrap_err()
        .to_string();
    for part in ["127.0.0.1:1", "no broker answered within 1 s", "refused"] {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

/// Records flow in through a sink and out through a source while the broker is killed twice: each comes exactly once, in
/// the order of its partition.
fn restart_under_load() {
    const RECORDS: usize = 200_000;
    const PARTITIONS: usize = 3;
    let broker = own_broker();
    broker.up();
    let topic = broker.topic("load", PARTITIONS as u32);
    let producer = TopicProducer::open("sink results", &broker.cluster(), &topic).unwrap();
    let written = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let mut values = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _told = Told(&failed);
            for i in 0..RECORDS {
                let key = (i % 100).to_string();
                producer
                    .send(Some(key.as_bytes()), i.to_string().as_bytes())
                    .unwrap();
                written.store(i + 1, Ordering::Relaxed);
                if i % 10_000 == 9_999 {
                    producer.sync(producer.barrier()).unwrap();
                }
            }
        });
        scope.spawn(|| {
            let _told = Told(&failed);
            for share in [4, 2] {
                let until = Instant::now() + PATIENCE;
                while written.load(Ordering::Relaxed) < RECORDS / share {
                    assert!(Instant::now() < until && !failed.load(Ordering::Relaxed));
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                broker.kill();
                broker.up();
            }
        });
        let source = source(&broker, &topic, Start::Earliest);
        let mut reader = source.reader(partitions(&source, false)).unwrap();
        values = read_until(&mut *reader, |_, count| {
            assert!(
                !failed.load(Ordering::Relaxed),
                "writing failed after {} records",
                written.load(Ordering::Relaxed)
            );
            count >= RECORDS
        });
    });
    let mut seen = vec![0; RECORDS];
    let mut last_of_key = [None; 100];
    for value in &values {
        let number: usize = value.parse().unwrap();
        seen[number] += 1;
        let last = last_of_key[number % 100].replace(number);
        assert!(
            last.is_none_or(|last| last < number),
            "{number} after {last:?}"
        );
    }
    assert!(seen.iter().all(|&times| times == 1));
}

/// Tells the others if its thread panics, so that they do not wait for it.
struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
