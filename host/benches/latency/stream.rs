//! A steady stream through a host between two topics: who produces, the host, who consumes.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::format::timestamp;
use tidemill::time::{MICROS_PER_SECOND, Micros};

use crate::support::binary;
use crate::support::kafka::Broker;
use crate::support::process::spawn_bound;
use crate::{MEASURED, PER_SECOND, PRODUCTS, USERS, WARM_UP};

pub const PARTITIONS: u32 = 4;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// For the last results.
const AFTERWARDS: Duration = Duration::from_secs(2);

pub struct Stream {
    broker: &'static Broker,
    dir: TempDir,
    input: String,
    output: String,
}

/// When what was produced.
#[derive(Default)]
pub struct Produced {
    pub start: Micros,
    /// By second of event time: when its first record was produced to each partition.
    pub first: BTreeMap<i64, [Micros; PARTITIONS as usize]>,
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
    /// `steps` read the source `events`; [`sink`](Self::sink) writes their results.
    pub fn new(steps: &str) -> Self {
        let broker = Broker::get().unwrap_or_else(|reason| panic!("{reason}"));
        let [input, output] = ["in", "out"].map(|t| broker.topic(t, PARTITIONS));
        let dir = TempDir::new().expect("a temporary folder");
        let head = format!(
            "name = \"latency\"\n[host]\nstate = \"state\"\ncheckpoint_every = \"50ms\"\n\
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

    /// Runs all three, and ends them.
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
            start: now(),
            ..Produced::default()
        };
        let start = Instant::now();
        for id in 0..PER_SECOND * (WARM_UP + MEASURED).as_secs() {
            let due = start + Duration::from_micros(id * 1_000_000 / PER_SECOND);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let at = now();
            let partition = (id % u64::from(PARTITIONS)) as usize;
            let first = produced.first.entry(at / MICROS_PER_SECOND).or_default();
            if first[partition] == 0 {
                first[partition] = at;
            }
            let record = record(id, at);
            let record = BaseRecord::<str, str>::to(&self.input)
                .partition(partition as i32)
                .payload(&record);
            let sent = producer.send(record).map_err(|(error, _)| error);
            sent.expect("room in the queue");
            producer.poll(Duration::ZERO);
        }
        producer.flush(ANSWER_WITHIN).expect("acknowledgements");
        produced
    }

    fn consume(&self, over: &AtomicBool) -> Vec<Arrived> {
        let mut config = self.client();
        config.set("group.id", "bench").set("fetch.min.bytes", "1");
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
