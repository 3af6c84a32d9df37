//! librdkafka behind the proxy: faults on the wire as the host will meet them, and what a real broker makes of them.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{PATIENCE, Test};
use crate::support::kafka::Broker;
use crate::support::proxy::{ApiKey, Direction, Proxy};

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_proxy_faults_of_writing_double_nothing", writing),
        ("kafka_proxy_a_lost_answer_to_a_commit", lost_answer),
        (
            "kafka_proxy_a_late_commit_hits_the_next_transaction",
            late_commit,
        ),
        ("kafka_proxy_a_half_open_network", half_open),
    ]
}

struct Behind {
    proxy: Proxy,
    broker: Broker,
    topic: String,
}

impl Behind {
    fn start() -> Self {
        let mut proxy = Proxy::new();
        let broker = Broker::start_behind(&mut proxy).unwrap_or_else(|reason| panic!("{reason}"));
        let topic = broker.topic("proxied", 1);
        Self {
            proxy,
            broker,
            topic,
        }
    }

    /// A producer that gives up on an answer after a second; with an id it is a transactional one.
    fn producer(&self, id: Option<&str>) -> BaseProducer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.broker.proxied_address())
            .set("enable.idempotence", "true")
            .set("socket.timeout.ms", "1000")
            .set("retry.backoff.ms", "20")
            .set("reconnect.backoff.ms", "20");
        if let Some(id) = id {
            config.set("transactional.id", id);
        }
        let producer: BaseProducer = config.create().expect("a producer");
        if id.is_some() {
            producer
                .init_transactions(PATIENCE)
                .expect("init_transactions");
        }
        producer
    }

    fn write(&self, producer: &BaseProducer, value: &str) {
        let record = BaseRecord::<str, str>::to(&self.topic).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).expect("acknowledged");
    }

    /// What a reader of committed records finds up to the last stable offset, asked for without the proxy.
    fn committed(&self) -> Vec<String> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.broker.cluster_address())
            .set("group.id", "reads-committed")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.topic, 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&from).unwrap();
        let (mut values, until) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            assert!(Instant::now() < until, "no end after {values:?}");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => {
                    let value = message.payload().unwrap_or_default();
                    values.push(String::from_utf8_lossy(value).into_owned());
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return values,
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }
}

/// A lost answer, a repeated request, a cut connection: an idempotent producer's records come once each, in order.
fn writing() {
    let behind = Behind::start();
    let producer = behind.producer(None);
    behind.write(&producer, "0");
    let faults = [
        behind
            .proxy
            .on(ApiKey::Produce)
            .responses()
            .nth(1)
            .swallow(),
        behind
            .proxy
            .on(ApiKey::Produce)
            .requests()
            .nth(4)
            .duplicate(),
        behind.proxy.on(ApiKey::Produce).responses().nth(6).cut(),
    ];
    let expected: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    for value in &expected[1..] {
        behind.write(&producer, value);
    }
    faults.iter().for_each(|fault| fault.wait_for_hits(1));
    assert_eq!(behind.committed(), expected);
    let passed = behind
        .proxy
        .count(ApiKey::Produce, Direction::Request)
        .passed;
    assert!(passed > 21, "{passed} requests: nothing was tried again");
}

/// The broker has committed and the answer is lost: librdkafka asks again by itself, and says nothing of it.
fn lost_answer() {
    let behind = Behind::start();
    let producer = behind.producer(Some("lost-answer"));
    let lost = behind.proxy.on(ApiKey::EndTxn).responses().nth(1).swallow();
    producer.begin_transaction().unwrap();
    behind.write(&producer, "a");
    producer.commit_transaction(PATIENCE).expect("committed");
    assert_eq!(lost.hits(), 1);
    let asked = behind.proxy.count(ApiKey::EndTxn, Direction::Request);
    assert!(asked.passed >= 2, "{asked:?}");
    assert_eq!(behind.committed(), ["a"]);
}

/// KAFKA-17754, the hazard that every rule about throwing producers away is for: a commit that was late ends a
/// transaction that nobody has committed.
fn late_commit() {
    let behind = Behind::start();
    let producer = behind.producer(Some("late-commit"));
    let late = behind.proxy.on(ApiKey::EndTxn).requests().nth(1).hold();
    producer.begin_transaction().unwrap();
    behind.write(&producer, "a");
    producer
        .commit_transaction(PATIENCE)
        .expect("committed by the second attempt");
    late.wait_for_hits(1);
    producer.begin_transaction().unwrap();
    behind.write(&producer, "never committed");
    assert_eq!(behind.committed(), ["a"]);
    late.release();
    let until = Instant::now() + PATIENCE;
    while behind.committed() != ["a", "never committed"] {
        assert!(Instant::now() < until, "the late commit has no effect");
    }
}

/// Nothing comes through for a while, then everything goes on; a fast link that became slow changes nothing either.
fn half_open() {
    let behind = Behind::start();
    let producer = behind.producer(Some("half-open"));
    producer.begin_transaction().unwrap();
    behind.write(&producer, "a");
    behind.proxy.hold_everything();
    let outcome = producer.commit_transaction(Duration::from_millis(1_500));
    assert!(outcome.is_err(), "a commit came through");
    behind.proxy.go_on();
    behind
        .proxy
        .slow_down(Duration::from_millis(20), Duration::from_millis(20), 3);
    producer.commit_transaction(PATIENCE).expect("committed");
    assert_eq!(behind.committed(), ["a"]);
}
