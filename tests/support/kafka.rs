//! A real Apache Kafka for tests: fetched through Maven once, started as a process of its own, one node that is broker and
//! controller, on ports the system chooses.
//!
//! `TIDEMILL_KAFKA=host:port` names another one to use. Where neither Java and Maven nor that variable are present the
//! tests that need a broker are shown as ignored, unless `TIDEMILL_KAFKA=required`.
//!
//! Invariant: a process started here ends with the test process, however that ends, and nothing else is ever killed.

mod authority;
mod certificates;
pub mod cluster;
mod libraries;
mod node;
pub mod secured;
mod settings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidemill::kafka::admin;
use tidemill::pipeline::plan::{Brokers as Hosts, Cluster};

use super::proxy::Proxy;
use certificates::{certify, with_password};
use node::Node;
use settings::{Listener, Settings, free_ports};

const START_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Whether a broker can be had here; `Err` says why not and what to do. Starts nothing.
pub fn available() -> Result<(), String> {
    if named().is_some() {
        return Ok(());
    }
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND.get_or_init(find_programs).clone()
}

fn find_programs() -> Result<(), String> {
    for program in ["java", "mvn"] {
        let found = Command::new(program).arg("-version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err(format!(
                "needs a Kafka: install Java 17 and Maven ({program} is missing), or set TIDEMILL_KAFKA=host:port"
            ));
        }
    }
    Ok(())
}

/// Whether tests that need a broker must fail rather than be ignored where none can be had.
pub fn required() -> bool {
    std::env::var("TIDEMILL_KAFKA").is_ok_and(|value| value == "required")
}

fn named() -> Option<String> {
    std::env::var("TIDEMILL_KAFKA")
        .ok()
        .filter(|value| value != "required" && !value.is_empty())
}

/// A Kafka that tests talk to.
pub struct Broker {
    bootstrap: String,
    own: Option<Own>,
}

/// A broker that the test has started.
struct Own {
    node: Node,
    /// Of the listener with TLS and a password, where there is one.
    tls_port: Option<u16>,
    /// The proxy's port, where there is one.
    proxied: Option<u16>,
}

impl Broker {
    /// The broker that all tests of this process share, started at the first call. Give topics names of their own:
    /// [`topic`](Self::topic).
    pub fn get() -> Result<&'static Broker, String> {
        static SHARED: OnceLock<Result<Broker, String>> = OnceLock::new();
        let start = || match named() {
            Some(bootstrap) => Ok(Broker {
                bootstrap,
                own: None,
            }),
            None => Broker::start(),
        };
        SHARED.get_or_init(start).as_ref().map_err(Clone::clone)
    }

    /// A broker of the test's own, to be stopped and started at will.
    pub fn start() -> Result<Broker, String> {
        let broker = Broker::prepare()?;
        broker.up();
        Ok(broker)
    }

    /// As [`start`](Self::start), but it does not run yet: [`up`](Self::up).
    pub fn prepare() -> Result<Broker, String> {
        Broker::prepare_with(None, "")
    }

    /// A broker of the test's own that knows rights: everybody has all, until [`forbid`](Self::forbid).
    pub fn start_with_rights() -> Result<Broker, String> {
        let rights = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
";
        let broker = Broker::prepare_with(None, rights)?;
        broker.up();
        Ok(broker)
    }

    /// From now on nobody may read or see a topic.
    pub fn forbid(&self, topic: &str) {
        self.rights(topic, &["--add", "--deny-principal", "User:*"]);
    }

    /// Takes [`forbid`](Self::forbid) back.
    pub fn allow(&self, topic: &str) {
        self.rights(
            topic,
            &["--remove", "--force", "--deny-principal", "User:*"],
        );
    }

    fn rights(&self, topic: &str, change: &[&str]) {
        let own = self.own.as_ref().expect("a broker of the test's own");
        let of_topic = ["--operation", "Read", "--topic", topic];
        let arguments = [&["--bootstrap-server", &self.bootstrap], change, &of_topic].concat();
        own.node
            .tool("org.apache.kafka.tools.AclCommand", &arguments);
    }

    /// A broker of the test's own with one more listener, [`proxied_address`](Self::proxied_address), which is reached
    /// through `proxy` and advertises nothing else.
    pub fn start_behind(proxy: &mut Proxy) -> Result<Broker, String> {
        let broker = Broker::prepare_with(Some(proxy), "")?;
        broker.up();
        Ok(broker)
    }

    fn prepare_with(proxy: Option<&mut Proxy>, more: &str) -> Result<Broker, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let [port, tls_port, behind, controller] = free_ports()?;
        certify(dir.path())?;
        let mut listeners = vec![
            Listener::new("PLAINTEXT", "PLAINTEXT", port),
            Listener::new("SAFE", "SASL_SSL", tls_port),
        ];
        let front = |proxy: &mut Proxy| proxy.forward_to(behind).map_err(|e| e.to_string());
        let proxied = proxy.map(front).transpose()?;
        listeners.extend(proxied.map(|front| Listener {
            advertised: front,
            ..Listener::new("PROXIED", "PLAINTEXT", behind)
        }));
        let settings = Settings {
            id: 1,
            listeners,
            controllers: vec![controller],
            more: with_password(dir.path()) + more,
        };
        let node = Node::format(dir, "512m", &settings, &[])?;
        Ok(Broker {
            bootstrap: format!("127.0.0.1:{port}"),
            own: Some(Own {
                node,
                tls_port: Some(tls_port),
                proxied,
            }),
        })
    }

    /// The TLS listener: its `host:port` and the file with the certificate to trust. User `app`, password `right`,
    /// mechanism PLAIN. `None` with a broker of someone else's.
    pub fn tls(&self) -> Option<(String, PathBuf)> {
        let own = self.own.as_ref()?;
        let certificate = own.node.dir().join("broker.pem");
        Some((format!("127.0.0.1:{}", own.tls_port?), certificate))
    }

    /// `host:port` without TLS.
    pub fn cluster_address(&self) -> &str {
        &self.bootstrap
    }

    /// `host:port` of the proxy. Panics for a broker without one.
    pub fn proxied_address(&self) -> String {
        let proxied = self.own.as_ref().and_then(|own| own.proxied);
        let port = proxied.expect("a broker behind a proxy");
        format!("127.0.0.1:{port}")
    }

    pub fn cluster(&self) -> Cluster {
        Cluster {
            brokers: Hosts::At(self.bootstrap.clone()),
            properties: BTreeMap::new(),
        }
    }

    /// Starts the process and returns when the broker answers. Panics with the end of its log if it does not.
    pub fn up(&self) {
        self.launch();
        self.wait_until_up();
    }

    /// Starts the process and returns at once.
    pub fn launch(&self) {
        self.node().launch();
    }

    pub fn wait_until_up(&self) {
        let node = self.node();
        let until = Instant::now() + START_WITHIN;
        while let Err(error) = admin::topics(&self.cluster(), Duration::from_secs(2)) {
            assert!(
                node.is_running() && Instant::now() < until,
                "{error}\n{}",
                node.log_end()
            );
        }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.node().kill();
    }

    /// Takes the end of the last record off the log of a partition, whose broker must not run.
    pub fn cut_log(&self, topic: &str, partition: i32) {
        let dir = self.node().dir().join("data");
        let log = dir.join(format!("{topic}-{partition}/00000000000000000000.log"));
        let file = std::fs::File::options().write(true).open(&log);
        let file = file.unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let length = file.metadata().expect("a size").len();
        file.set_len(length.checked_sub(1).expect("a record"))
            .expect("a shorter log");
    }

    fn node(&self) -> &Node {
        let own = self.own.as_ref();
        let own = own.expect("only a broker of the test's own is started and stopped");
        &own.node
    }

    /// Creates a topic named `what` and a number, so that no two tests or runs meet.
    pub fn topic(&self, what: &str, partitions: u32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}-{}-{number}", std::process::id());
        admin::create_topic(&self.cluster(), &name, partitions, -1, &[]).expect("a new topic");
        name
    }

    /// Writes values to a partition, each with its timestamp in milliseconds; returns when they are acknowledged.
    pub fn produce<'a>(
        &self,
        topic: &str,
        partition: i32,
        records: impl IntoIterator<Item = (i64, Option<&'a str>)>,
    ) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        for (millis, value) in records {
            send(&producer, topic, partition, millis, value);
        }
        producer
            .flush(ANSWER_WITHIN)
            .expect("all records acknowledged");
    }

    /// Writes a record with its key and headers; without a value it is a tombstone.
    pub fn produce_keyed(
        &self,
        topic: &str,
        partition: i32,
        key: &str,
        headers: &[(&str, Option<&str>)],
        value: Option<&str>,
    ) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(Header { key, value: *value });
        }
        let mut record = BaseRecord::to(topic)
            .partition(partition)
            .timestamp(1_767_225_600_000)
            .key(key);
        if !headers.is_empty() {
            record = record.headers(all);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        let sent = producer.send(record);
        sent.map_err(|(error, _)| error).expect("room in the queue");
        producer.flush(ANSWER_WITHIN).expect("acknowledged");
    }

    /// Begins a transaction that has written `values` to a partition.
    pub fn transaction(&self, topic: &str, partition: i32, values: &[&str]) -> Transaction {
        let mut config = self.client();
        config.set("transactional.id", format!("test-{topic}-{}", unique()));
        let producer: BaseProducer = config.create().expect("a producer");
        producer
            .init_transactions(ANSWER_WITHIN)
            .expect("init_transactions");
        producer.begin_transaction().expect("begin_transaction");
        for value in values {
            send(&producer, topic, partition, 1, Some(value));
        }
        producer
            .flush(ANSWER_WITHIN)
            .expect("all records acknowledged");
        Transaction(producer)
    }

    /// Deletes the records of a partition below `before`, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("an admin client");
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(topic, partition, Offset::Offset(before))
            .expect("a valid offset");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let deleted = runtime.block_on(admin.delete_records(&offsets, &AdminOptions::new()));
        for element in deleted.expect("delete_records").elements() {
            element.error().expect("records deleted");
        }
    }

    /// Gives a topic more partitions; returns when the broker knows them.
    pub fn grow(&self, topic: &str, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let wanted = NewPartitions::new(topic, partitions);
        let grown = runtime.block_on(admin.create_partitions([&wanted], &AdminOptions::new()));
        for result in grown.expect("create_partitions") {
            result.expect("partitions created");
        }
        let until = Instant::now() + ANSWER_WITHIN;
        let known = || admin::topics(&self.cluster(), ANSWER_WITHIN).expect("topics");
        while !known().contains(&(topic.to_owned(), partitions)) {
            assert!(
                Instant::now() < until,
                "{topic} has no {partitions} partitions"
            );
            std::thread::yield_now();
        }
    }

    /// Deletes a topic and creates another of its name.
    pub fn create_anew(&self, topic: &str, partitions: u32) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let deleted = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new()));
        for result in deleted.expect("delete_topics") {
            result.expect("topic deleted");
        }
        let until = Instant::now() + ANSWER_WITHIN;
        // The broker may need a moment to forget it.
        while let Err(error) = admin::create_topic(&self.cluster(), topic, partitions, 1, &[]) {
            assert!(Instant::now() < until, "{topic} created anew: {error}");
            std::thread::yield_now();
        }
    }

    /// The offset that a group has committed.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let mut config = self.client();
        config.set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition);
        let found = consumer
            .committed_offsets(wanted, ANSWER_WITHIN)
            .expect("committed offsets");
        match found.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Commits an offset of a group without members, as an operator's tool does.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let mut config = self.client();
        config.set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("a valid offset");
        consumer
            .commit(&offsets, CommitMode::Sync)
            .expect("committed");
    }

    /// Deletes a topic; returns when the broker no longer knows it.
    pub fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let deleted = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new()));
        for result in deleted.expect("delete_topics") {
            result.expect("topic deleted");
        }
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let until = Instant::now() + ANSWER_WITHIN;
        let known = || {
            let metadata = consumer
                .fetch_metadata(Some(topic), ANSWER_WITHIN)
                .expect("metadata");
            metadata.topics().iter().any(|t| t.error().is_none())
        };
        while known() {
            assert!(Instant::now() < until, "{topic} is still there");
            std::thread::yield_now();
        }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, millis: i64, value: Option<&str>) {
    let mut record = BaseRecord::<str, str>::to(topic)
        .partition(partition)
        .timestamp(millis);
    if let Some(value) = value {
        record = record.payload(value);
    }
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("room in the queue");
    producer.poll(Duration::ZERO);
}

/// A transaction of another application, open until it is ended.
pub struct Transaction(BaseProducer);

impl Transaction {
    pub fn commit(self) {
        self.0
            .commit_transaction(ANSWER_WITHIN)
            .expect("commit_transaction");
    }

    pub fn abort(self) {
        self.0
            .abort_transaction(ANSWER_WITHIN)
            .expect("abort_transaction");
    }
}
