//! The e-commerce example as it stands in the repository, on a real broker: what comes out is what oracles say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, Test, partitions, source};
use crate::files::parquet_rows;
use crate::support::kafka::Broker;
use crate::support::running::Running;
use crate::support::{assert_same_rows, binary, oracle, plugin, read_rows, root, shop};
use tidemill::kafka::admin;
use tidemill::pipeline::plan::Start;
use tidemill::source::Source;

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_ecommerce_example_agrees_with_oracles", example),
        ("kafka_broker_restart_under_a_running_pipeline", restart),
        ("kafka_generate_fills_the_topics", generated),
        ("kafka_a_clean_stop_has_a_bound", stop_without_broker),
    ]
}

const PARTITIONS: i32 = 3;
const TOPICS: [&str; 5] = [
    "clickstream",
    "transactions",
    "analytics-results",
    "alerts",
    "ecommerce-dead-letters",
];

/// The sinks of the example that write Parquet files, with their steps.
const PARQUET: [(&str, &str); 3] = [
    ("page_views_files", "page_views"),
    ("revenue_files", "revenue"),
    ("conversions_files", "conversions"),
];

/// Generated records, in files for the oracles and in the topics of the example by user.
struct Shop {
    dir: TempDir,
}

impl Shop {
    fn new(broker: &Broker, count: u32) -> Self {
        let dir = TempDir::new().unwrap();
        let made = Command::new(binary())
            .args([
                "generate",
                "--kind",
                "ecommerce",
                "--seed",
                "5",
                "--per-second",
                "20",
            ])
            .args(["--users", "40", "--count", &count.to_string(), "--out"])
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        for topic in TOPICS {
            admin::create_topic(&broker.cluster(), topic, PARTITIONS as u32, 1, &[])
                .expect("a new topic");
        }
        Self { dir }
    }

    /// Writes the records `from..to` of each file, a user always to the same partition.
    fn feed(&self, broker: &Broker, from: usize, to: usize) {
        for (file, topic) in [
            ("clicks.jsonl", TOPICS[0]),
            ("transactions.jsonl", TOPICS[1]),
        ] {
            let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let mut by_partition: BTreeMap<i32, Vec<(i64, Option<&str>)>> = BTreeMap::new();
            for line in &lines[from.min(lines.len())..to.min(lines.len())] {
                let record: Value = serde_json::from_str(line).unwrap();
                let user = record["user_id"].as_str().unwrap();
                let partition = user.bytes().map(i32::from).sum::<i32>() % PARTITIONS;
                by_partition
                    .entry(partition)
                    .or_default()
                    .push((1, Some(line)));
            }
            for (partition, records) in by_partition {
                broker.produce(topic, partition, records);
            }
        }
    }

    /// `tidemill run examples/ecommerce/pipeline.toml` on this broker, with a state of its own.
    fn run(&self, broker: &Broker, more: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(root().join("examples/ecommerce/pipeline.toml"));
        command
            .arg("--brokers")
            .arg(broker.cluster_address())
            .args(more);
        let state = self.dir.path().join("state");
        command
            .arg("--set")
            .arg(format!("host.state=\"{}\"", state.display()));
        let metrics = self.metrics();
        command
            .arg("--set")
            .arg(format!("host.metrics=\"{}\"", metrics.display()));
        for (sink, step) in PARQUET {
            let dir = self.parquet(step);
            command
                .arg("--set")
                .arg(format!("sinks.{sink}.parquet.dir=\"{}\"", dir.display()));
        }
        for (step, folder) in [
            ("enriched", "plugins/enrich"),
            ("sessions", "plugins/sessions"),
            ("anomalies", "plugins/anomaly"),
            ("statistics", "plugins/running"),
        ] {
            let file = plugin(folder);
            command
                .arg("--set")
                .arg(format!("steps.{step}.plugin.file=\"{}\"", file.display()));
        }
        for source in ["clicks", "transactions"] {
            command
                .arg("--set")
                .arg(format!("sources.{source}.event_time.max_ahead=\"36500d\""));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Where the example's Parquet files of a step go.
    fn parquet(&self, step: &str) -> PathBuf {
        self.dir.path().join("output").join(step)
    }

    fn metrics(&self) -> PathBuf {
        self.dir.path().join("output/metrics.json")
    }

    /// What the windows, the join and the statistics of the example should give, by step.
    fn counted(&self) -> [(&'static str, Vec<Value>); 5] {
        let products = root().join("examples/ecommerce/products.csv");
        let shop = shop::Shop::read(self.dir.path(), &products);
        let counted = [
            ("page_views", shop.page_views()),
            ("revenue", shop.revenue()),
            ("conversions", shop.conversions()),
            ("conversion_rates", shop.conversion_rates()),
            ("statistics", shop.statistics()),
        ];
        for (step, rows) in &counted {
            assert!(!rows.is_empty(), "the records hold no {step} to compare");
        }
        counted
    }

    /// What sessions and anomalies the records hold, as the topic of results should.
    fn expected(&self) -> (Vec<Value>, Vec<Value>) {
        let ends = ["logout", "purchase_complete"];
        let clicks = self.dir.path().join("clicks.jsonl");
        let sessions = oracle::sessions_of(&clicks, 1_800_000, &ends, "purchase_complete");
        let anomalies = oracle::anomalies(&self.dir.path().join("transactions.jsonl"));
        assert!(
            !sessions.is_empty() && !anomalies.is_empty(),
            "the records hold nothing to compare"
        );
        (sessions, anomalies.iter().map(scored).collect())
    }
}

fn scored(row: &Value) -> Value {
    json!({ "transaction_id": row["transaction_id"], "z_score": row["z_score"] })
}

/// All records of a topic, as JSON.
fn read(broker: &Broker, topic: &str) -> Vec<Value> {
    let source = source(broker, topic, Start::Earliest);
    let mut reader = source.reader(partitions(&source, true)).unwrap();
    let (mut rows, until) = (Vec::new(), Instant::now() + PATIENCE);
    while !reader.progress().iter().all(|p| p.finished) {
        assert!(
            Instant::now() < until,
            "topic {topic} is not read to its end"
        );
        let each = &mut |r: tidemill::source::Record<'_>| {
            rows.extend(r.value.map(|v| serde_json::from_slice::<Value>(v).unwrap()));
        };
        reader
            .poll(10_000, Duration::from_millis(100), each)
            .unwrap();
    }
    rows
}

fn of_step(rows: &[Value], step: &str) -> Vec<Value> {
    let mut rows: Vec<Value> = rows.iter().filter(|r| r["step"] == step).cloned().collect();
    rows.iter_mut()
        .for_each(|r| drop(r.as_object_mut().unwrap().remove("step")));
    rows
}

fn example() {
    let broker = Broker::start().unwrap_or_else(|reason| panic!("{reason}"));
    let shop = Shop::new(&broker, 20_000);
    shop.feed(&broker, 0, usize::MAX);
    let output = shop.run(&broker, &["--until-end"]).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (sessions, anomalies) = shop.expected();
    let results = read(&broker, "analytics-results");
    assert_same_rows("sessions", of_step(&results, "sessions"), sessions);
    let scores = of_step(&results, "anomalies").iter().map(scored).collect();
    assert_same_rows("anomalies", scores, anomalies);
    for (step, expected) in shop.counted() {
        if PARQUET.iter().any(|(_, of)| *of == step) {
            let what = format!("Parquet files of {step}");
            assert_same_rows(&what, parquet_rows(&shop.parquet(step)), expected.clone());
        }
        assert_same_rows(step, of_step(&results, step), expected);
    }
    let large = read_rows(&shop.dir.path().join("transactions.jsonl"));
    let large = large
        .iter()
        .filter(|r| r["amount"].as_f64().unwrap() > 250.0)
        .count();
    assert_eq!(
        read(&broker, "alerts").len(),
        large,
        "purchases of high value"
    );
    assert_eq!(read(&broker, "ecommerce-dead-letters").len(), 0);
    let metrics = std::fs::read_to_string(shop.metrics()).expect("the example names the file");
    let metrics: Value = serde_json::from_str(&metrics).expect("a whole file");
    for source in ["clicks", "transactions"] {
        let records = read_rows(&shop.dir.path().join(format!("{source}.jsonl"))).len();
        let about = &metrics["sources"][source];
        assert_eq!(
            (&about["records_in"], &about["lag"]),
            (&json!(records), &json!(0)),
            "{source}"
        );
    }
    for step in ["sessions", "anomalies"] {
        let rows = of_step(&results, step).len();
        assert_eq!(metrics["steps"][step]["rows_out"], json!(rows), "{step}");
    }
}

/// The broker goes away while the pipeline runs, and comes back: nothing is lost. At least once: rows may come twice.
fn restart() {
    let broker = Broker::start().unwrap_or_else(|reason| panic!("{reason}"));
    let shop = Shop::new(&broker, 20_000);
    shop.feed(&broker, 0, 6_000);
    let mut host = Running::start(shop.run(&broker, &[]), &shop.dir.path().join("stderr.txt"));
    await_results(&broker, &mut host);
    broker.kill();
    broker.up();
    shop.feed(&broker, 6_000, usize::MAX);
    host.terminate();
    let output = shop.run(&broker, &["--until-end"]).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (sessions, anomalies) = shop.expected();
    let results = read(&broker, "analytics-results");
    assert_same_rows("sessions", once(of_step(&results, "sessions")), sessions);
    let scores = of_step(&results, "anomalies").iter().map(scored).collect();
    assert_same_rows("anomalies", once(scores), anomalies);
}

fn await_results(broker: &Broker, host: &mut Running) {
    let until = Instant::now() + PATIENCE;
    while read(broker, "analytics-results").is_empty() {
        assert!(!host.has_ended(), "{}", host.said());
        assert!(Instant::now() < until, "no result came");
    }
}

fn once(rows: Vec<Value>) -> Vec<Value> {
    let by_text: BTreeMap<String, Value> = rows.into_iter().map(|r| (r.to_string(), r)).collect();
    by_text.into_values().collect()
}

/// `generate --brokers` writes what `generate --out` does.
fn generated() {
    let broker = Broker::start().unwrap_or_else(|reason| panic!("{reason}"));
    let shop = Shop::new(&broker, 5_000);
    let output = Command::new(binary())
        .args([
            "generate",
            "--kind",
            "ecommerce",
            "--seed",
            "5",
            "--users",
            "40",
            "--count",
            "5000",
        ])
        // The same times as those of the files, a thousand times faster.
        .args([
            "--per-second",
            "20000",
            "--speed",
            "1000",
            "--brokers",
            broker.cluster_address(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (file, topic) in [
        ("clicks.jsonl", TOPICS[0]),
        ("transactions.jsonl", TOPICS[1]),
    ] {
        let expected = read_rows(&shop.dir.path().join(file));
        assert_same_rows(topic, read(&broker, topic), expected);
    }
}

/// A stop ends within its bound although the broker that the output waits for is gone; the next run delivers it.
fn stop_without_broker() {
    let broker = Broker::start().unwrap_or_else(|reason| panic!("{reason}"));
    let shop = Shop::new(&broker, 20_000);
    let text = format!(
        "name = \"stopping\"\n[sources.clicks]\nfile = {{ path = \"clicks.jsonl\" }}\nfields = {{ event_id = \"string\" }}\n\
         limit = {{ per_second = 1000 }}\n[sinks.out]\nfrom = [\"clicks\"]\n\
         kafka = {{ brokers = \"{}\", topic = \"alerts\" }}\n",
        broker.cluster_address()
    );
    let file = shop.dir.path().join("stopping.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(binary());
    command.arg("run").arg(&file);
    let mut host = Running::start(command, &shop.dir.path().join("stderr.txt"));
    let until = Instant::now() + PATIENCE;
    while read(&broker, "alerts").is_empty() {
        assert!(Instant::now() < until, "no record came");
    }
    broker.kill();
    host.signal(libc::SIGTERM);
    let (status, said) = (host.end(), host.said());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("could not be delivered in time"), "{said}");
}
