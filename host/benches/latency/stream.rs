//! A steady stream through a host between two topics: who produces, the host, who consumes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::format::timestamp;
use tidemill::time::{MICROS_PER_SECOND, Micros};

use crate::support::binary;
use crate::support::kafka::Broker;
use crate::support::process::spawn_bound;

pub const PARTITIONS: u32 = 4;
pub const PRODUCTS: u64 = 100;
const USERS: u64 = 10_000;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// For the last results.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// How much is produced, and which of it counts.
#[derive(Clone, Copy)]
pub struct Load {
    /// Records a second, in all partitions together.
    pub per_second: u64,
    /// Records of the first seconds do not count: the host starts, connects and compiles in them.
    pub warm_up: Duration,
    pub measured: Duration,
}

impl Load {
    /// Records that count.
    pub fn records(&self) -> u64 {
        self.per_second * self.measured.as_secs()
    }
}

pub struct Stream {
    load: Load,
    broker: &'static Broker,
    dir: TempDir,
    input: String,
    output: String,
}

/// When what was produced.
pub struct Produced {
    load: Load,
    start: Micros,
    /// By second of event time: when its first record was produced to each partition.
    first: BTreeMap<i64, [Micros; PARTITIONS as usize]>,
}

impl Produced {
    /// Event times, which are times of production, that count.
    pub fn measured(&self) -> Range<Micros> {
        let from = self.start + self.load.warm_up.as_micros() as Micros;
        from..from + self.load.measured.as_micros() as Micros
    }

    /// When every partition had a record of second `second` (since 1970) or later.
    #[allow(dead_code, reason = "only windows need it")]
    pub fn passed(&self, second: i64) -> Option<Micros> {
        self.first.get(&second)?.iter().copied().max()
    }
}

/// A result, and when it was consumed.
pub struct Arrived {
    pub at: Micros,
    bytes: Vec<u8>,
}

/// Ends the consumer when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Arrived {
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("the host writes JSON")
    }
}

impl Stream {
    /// `steps` read the source `events`; [`sink`](Self::sink) writes their results. Output is at least once unless
    /// [`run`](Self::run) is told otherwise.
    pub fn new(load: Load, steps: &str) -> Self {
        let broker = Broker::get().unwrap_or_else(|reason| panic!("{reason}"));
        let [input, output] = ["in", "out"].map(|t| broker.topic(t, PARTITIONS));
        let dir = TempDir::new().expect("a temporary folder");
        // A name of its own: decisions are kept by it.
        let name = input.replacen("in", "latency", 1);
        let head = format!(
            "name = \"{name}\"\n[host]\nstate = \"state\"\ndelivery = \"at-least-once\"\ncheckpoint_every = \"50ms\"\n\
             [kafka]\nbrokers = \"{}\"\n[sources.events]\nkafka = {{ topic = \"{input}\" }}\n\
             fields = {{ id = \"int\", user_id = \"string\", product_id = \"string\", amount = \"float\", \
             produced = \"int\", timestamp = \"timestamp\" }}\nevent_time = {{ field = \"timestamp\" }}\n",
            broker.cluster_address()
        );
        let products = (0..PRODUCTS).map(|p| format!("p{p:05},kind{},{}.5\n", p % 8, p + 1));
        let products = "product_id,category,price\n".to_owned() + &products.collect::<String>();
        let write = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).expect("the folder is ours");
        };
        write("products.csv", products);
        write(
            "pipeline.toml",
            (head + steps).replace("OUTPUT_TOPIC", &output),
        );
        Self {
            load,
            broker,
            dir,
            input,
            output,
        }
    }

    /// The sink of `step`, keyed by a column.
    pub fn sink(step: &str, key: &str) -> String {
        format!(
            "[sinks.results]\nfrom = [\"{step}\"]\nkafka = {{ topic = \"OUTPUT_TOPIC\", key = [\"{key}\"] }}\n"
        )
    }

    /// Runs all three, and ends them. Each of `set` is a `PATH=VALUE` for the host.
    pub fn run(&self, set: &[String]) -> (Produced, Vec<Arrived>) {
        let mut host = self.host(set);
        let over = AtomicBool::new(false);
        let results = thread::scope(|scope| {
            let consumer = scope.spawn(|| self.consume(&over));
            // Over also if it panics: the consumer would be waited for.
            let end = Over(&over);
            let produced = self.produce();
            thread::sleep(AFTERWARDS);
            drop(end);
            (produced, consumer.join().expect("a consumer"))
        });
        let ended = host.try_wait().expect("a child");
        assert!(ended.is_none(), "the host ended by itself: {ended:?}");
        host.kill().expect("it runs");
        host.wait().expect("it ends");
        results
    }

    fn host(&self, set: &[String]) -> Child {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(self.dir.path().join("pipeline.toml"));
        for pair in set {
            command.arg("--set").arg(pair);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        spawn_bound(command).expect("the binary starts")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.broker.cluster_address());
        config
    }

    /// Records at their time on the clock, to the partitions in turn.
    fn produce(&self) -> Produced {
        let producer: BaseProducer = self.client().create().expect("a producer");
        let mut produced = Produced {
            load: self.load,
            start: now(),
            first: BTreeMap::new(),
        };
        let whole = self.load.warm_up + self.load.measured;
        let start = Instant::now();
        for id in 0..self.load.per_second * whole.as_secs() {
            // To the millisecond: a sleep for each record would take a core from what is measured.
            let due = start + Duration::from_millis(id * 1_000 / self.load.per_second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let at = now();
            let partition = (id % u64::from(PARTITIONS)) as usize;
            let first = produced.first.entry(at / MICROS_PER_SECOND).or_default();
            if first[partition] == 0 {
                first[partition] = at;
            }
            hand_over(&producer, &self.input, partition as i32, &record(id, at));
        }
        producer.flush(ANSWER_WITHIN).expect("acknowledgements");
        produced
    }

    fn consume(&self, over: &AtomicBool) -> Vec<Arrived> {
        let mut config = self.client();
        config
            .set("group.id", "bench")
            .set("fetch.min.bytes", "1")
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(&self.output, partition as i32, Offset::Beginning)
                .expect("a valid offset");
        }
        consumer.assign(&all).expect("partitions");
        let mut arrived = Vec::new();
        while !over.load(Ordering::Relaxed) {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.expect("a broker");
                let bytes = message.payload().expect("a value").to_vec();
                arrived.push(Arrived { at: now(), bytes });
            }
        }
        arrived
    }
}

/// Queues a record; waits for room in the queue where the broker is behind.
pub fn hand_over(producer: &BaseProducer, topic: &str, partition: i32, value: &str) {
    loop {
        let record = BaseRecord::<str, str>::to(topic)
            .partition(partition)
            .payload(value);
        match producer.send(record) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
    producer.poll(Duration::ZERO);
}

fn record(id: u64, at: Micros) -> String {
    format!(
        "{{\"id\":{id},\"user_id\":\"u{:07}\",\"product_id\":\"p{:05}\",\"amount\":{}.25,\"produced\":{at},\"timestamp\":\"{}\"}}",
        id.wrapping_mul(7_919) % USERS,
        id % PRODUCTS,
        1 + id % 300,
        timestamp::show(at),
    )
}

fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_micros() as Micros
}
