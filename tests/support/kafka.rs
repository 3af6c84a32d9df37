//! A real Apache Kafka for tests: fetched through Maven once, started as a process of its own, one node that is broker and
//! controller, on ports the system chooses.
//!
//! `TIDEMILL_KAFKA=host:port` names another one to use. Where neither Java and Maven nor that variable are present the
//! tests that need a broker are shown as ignored, unless `TIDEMILL_KAFKA=required`.
//!
//! Invariant: a process started here ends with the test process, however that ends, and nothing else is ever killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tidemill::kafka::admin;
use tidemill::pipeline::plan::{Brokers, Cluster};

const VERSION: &str = "4.3.0";
const START_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Whether a broker can be had here; `Err` says why not and what to do. Starts nothing.
pub fn available() -> Result<(), String> {
    if named().is_some() {
        return Ok(());
    }
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
    own: Option<Node>,
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
        let node = Node::format(libraries()?)?;
        Ok(Broker {
            bootstrap: format!("127.0.0.1:{}", node.port),
            own: Some(node),
        })
    }

    /// The TLS listener: its `host:port` and the file with the certificate to trust. User `app`, password `right`,
    /// mechanism PLAIN. `None` with a broker of someone else's.
    pub fn tls(&self) -> Option<(String, PathBuf)> {
        let node = self.own.as_ref()?;
        Some((
            format!("127.0.0.1:{}", node.tls_port),
            node.dir.path().join("broker.pem"),
        ))
    }

    pub fn cluster(&self) -> Cluster {
        Cluster {
            brokers: Brokers::At(self.bootstrap.clone()),
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

    fn node(&self) -> &Node {
        self.own
            .as_ref()
            .expect("only a broker of the test's own is started and stopped")
    }

    /// Creates a topic named `what` and a number, so that no two tests or runs meet.
    pub fn topic(&self, what: &str, partitions: u32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}-{}-{number}", std::process::id());
        admin::create_topic(&self.cluster(), &name, partitions, 1, &[]).expect("a new topic");
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

/// One node of Kafka: its directory, its port and, while it runs, its process.
struct Node {
    libraries: PathBuf,
    dir: TempDir,
    port: u16,
    tls_port: u16,
    process: Mutex<Option<Child>>,
}

impl Node {
    /// Writes the settings and formats the storage.
    fn format(libraries: PathBuf) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let ports = free_ports().map_err(|error| error.to_string())?;
        certify(dir.path())?;
        let settings = settings(dir.path(), ports);
        fs::write(dir.path().join("server.properties"), settings)
            .map_err(|error| error.to_string())?;
        let node = Self {
            libraries,
            dir,
            port: ports[0],
            tls_port: ports[1],
            process: Mutex::new(None),
        };
        let output = node
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(node.dir.path().join("server.properties"))
            .output()
            .map_err(|error| format!("java: {error}"))?;
        match output.status.success() {
            true => Ok(node),
            false => Err(format!(
                "formatting Kafka's storage failed: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args([
                "-Xmx512m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
            ])
            .arg(self.libraries.join("*"))
            .arg(class);
        command
    }

    fn launch(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log file");
        let mut command = self.java("kafka.Kafka");
        command
            .arg(self.dir.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let child = spawn_bound(command).expect("java starts");
        let before = self.lock().replace(child);
        assert!(before.is_none(), "the broker runs already");
    }

    fn kill(&self) {
        if let Some(mut child) = self.lock().take() {
            // Already ended is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn is_running(&self) -> bool {
        self.lock()
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("kafka.log")
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let from = log.len().saturating_sub(4_000);
        log.get(log.ceil_char_boundary(from)..)
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a process that the system kills when this one ends, even by `kill -9`.
fn spawn_bound(mut command: Command) -> std::io::Result<Child> {
    // The system watches the thread that starts the child, so one is kept for that.
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        // SAFETY: between fork and exec only one async-signal-safe system call is made.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
    }
    let (reply, answer) = mpsc::channel();
    let orders = keeper
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    orders
        .send((command, reply))
        .expect("the keeper lives as long as the process");
    answer.recv().expect("the keeper answers")
}

/// Ports that nobody listened on a moment ago.
fn free_ports() -> std::io::Result<[u16; 3]> {
    let listen = || TcpListener::bind("127.0.0.1:0");
    let sockets = [listen()?, listen()?, listen()?];
    let port = |socket: &TcpListener| socket.local_addr().map(|address| address.port());
    Ok([port(&sockets[0])?, port(&sockets[1])?, port(&sockets[2])?])
}

/// Makes a key for the broker, and a certificate that nobody has signed but itself.
fn certify(dir: &Path) -> Result<(), String> {
    let common = [
        "-keystore",
        "broker.p12",
        "-storetype",
        "PKCS12",
        "-storepass",
        "changeit",
        "-alias",
        "broker",
    ];
    let make: &[&str] = &[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=127.0.0.1",
        "-ext",
        "san=ip:127.0.0.1",
    ];
    let export: &[&str] = &["-exportcert", "-rfc", "-file", "broker.pem"];
    for step in [make, export] {
        let output = Command::new("keytool")
            .args(step)
            .args(common)
            .current_dir(dir)
            .output();
        let output = output.map_err(|error| format!("keytool: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "keytool: {}",
                String::from_utf8_lossy(&output.stdout)
            ));
        }
    }
    Ok(())
}

/// One node with a plain listener and one with TLS and passwords.
fn settings(dir: &Path, [port, tls, controller]: [u16; 3]) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SAFE://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SAFE://127.0.0.1:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SAFE:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.safe.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_app=\"right\";
ssl.keystore.location={dir}/broker.p12
ssl.keystore.type=PKCS12
ssl.keystore.password=changeit
ssl.key.password=changeit
log.dirs={dir}/data
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
",
        dir = dir.display()
    )
}

/// The directory of Kafka's libraries, fetched through Maven at first.
fn libraries() -> Result<PathBuf, String> {
    static FETCHED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FETCHED.get_or_init(fetch).clone()
}

fn fetch() -> Result<PathBuf, String> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let complete = base.join(format!("kafka-{VERSION}"));
    if complete.is_dir() {
        return Ok(complete);
    }
    let told = |error: std::io::Error| format!("{}: {error}", base.display());
    fs::create_dir_all(base).map_err(told)?;
    let work = tempfile::tempdir_in(base).map_err(told)?;
    fs::write(work.path().join("pom.xml"), pom()).map_err(told)?;
    let output = Command::new("mvn")
        .args([
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DoutputDirectory=libs",
        ])
        .current_dir(work.path())
        .output()
        .map_err(|error| format!("mvn: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "Maven could not fetch Kafka: {}",
            String::from_utf8_lossy(&output.stdout)
        ));
    }
    match fs::rename(work.path().join("libs"), &complete) {
        // Another test process was faster.
        Err(_) if complete.is_dir() => Ok(complete),
        Err(error) => Err(told(error)),
        Ok(()) => Ok(complete),
    }
}

fn pom() -> String {
    let dependency = |(group, artifact, version): (&str, &str, &str)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let dependencies: String = [
        ("org.apache.kafka", "kafka_2.13", VERSION),
        ("org.apache.kafka", "kafka-tools", VERSION),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.3"),
    ]
    .map(dependency)
    .concat();
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>tidemill</groupId><artifactId>test-kafka</artifactId>\
         <version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
}
