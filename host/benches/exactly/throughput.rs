//! How fast a topic is read to its end with either promise, in turns, so that what else the machine does meets both.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::format::timestamp;
use tidemill::time::Micros;

use crate::stream::{PARTITIONS, hand_over};
use crate::support::binary;
use crate::support::kafka::Broker;

/// Records to a second of event time.
const PER_SECOND: u64 = 100_000;
/// Each has a record each quarter of a second, so a window of a second makes one row of four.
const USERS: u64 = 25_000;
/// One user of so many is filtered out.
const REFUSED_EVERY: u64 = 10;
/// 2026-01-01.
const FIRST: Micros = 1_767_225_600_000_000;
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);
const DELIVERIES: [&str; 2] = ["at-least-once", "exactly-once"];
const GOAL_PERCENT: f64 = 90.0;

/// Steps that end with the step `out`, and how many rows it has of a second of event time.
struct Shape {
    what: &'static str,
    steps: &'static str,
    rows: u64,
}

const SHAPES: [Shape; 2] = [
    Shape {
        what: "where + count by user in windows of 1 s, one row of four records",
        steps: "[steps.valid]\nfrom = \"events\"\nwhere = \"amount > 0\"\n\
                [steps.out]\nfrom = \"valid\"\nkey = [\"user_id\"]\nwindow = { tumbling = \"1s\" }\n\
                aggregate = { events = \"count(*)\", amount = \"sum(amount)\" }\n",
        rows: USERS - USERS / REFUSED_EVERY,
    },
    Shape {
        what: "where + deduplicate, one row of one record",
        steps: "[steps.valid]\nfrom = \"events\"\nwhere = \"amount >= 0\"\n\
                [steps.out]\nfrom = \"valid\"\ndeduplicate = { on = [\"id\"], within = \"1s\" }\n",
        rows: PER_SECOND,
    },
];

/// `runs` with each promise. `records` are rounded up to whole seconds of event time.
pub fn run(records: u64, runs: u64) {
    let broker = Broker::get().unwrap_or_else(|reason| panic!("{reason}"));
    let seconds = records.div_ceil(PER_SECOND);
    let (input, empty) = (
        broker.topic("in", PARTITIONS),
        broker.topic("empty", PARTITIONS),
    );
    produce(broker, &input, seconds * PER_SECOND);
    println!(
        "\n{} records in {PARTITIONS} partitions, read to the end; checkpoint_every = 1s; seconds of wall time, start and end included",
        seconds * PER_SECOND
    );
    for shape in &SHAPES {
        // Once unmeasured: broker and page cache are cold for the first.
        let _ = Measured::of(broker, shape, &input, seconds, DELIVERIES[0]);
        let mut all: [Runs; 2] = Default::default();
        for _ in 0..runs {
            for (runs, delivery) in all.iter_mut().zip(DELIVERIES) {
                let whole = Measured::of(broker, shape, &input, seconds, delivery);
                let nothing = Measured::of(broker, shape, &empty, 0, delivery);
                runs.whole.push(whole);
                runs.nothing.push(nothing.wall);
            }
        }
        report(shape, seconds * PER_SECOND, &all);
    }
}

/// With one promise.
#[derive(Default)]
struct Runs {
    whole: Vec<Measured>,
    /// Seconds of runs that had nothing to read: start and end alone.
    nothing: Vec<f64>,
}

impl Runs {
    /// Seconds of the best run and of the median one.
    fn best_and_median(&self) -> [f64; 2] {
        let walls = sorted(self.whole.iter().map(|r| r.wall));
        [walls[0], walls[walls.len() / 2]]
    }

    /// As [`best_and_median`](Self::best_and_median), of start and end alone.
    fn fixed(&self) -> [f64; 2] {
        let walls = sorted(self.nothing.iter().copied());
        [walls[0], walls[walls.len() / 2]]
    }

    /// CPU seconds of the run that took the fewest, and of the one that took the most.
    fn cpu(&self) -> [f64; 2] {
        let seconds = sorted(self.whole.iter().map(|r| r.cpu));
        [seconds[0], seconds[seconds.len() - 1]]
    }
}

fn sorted(seconds: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut seconds: Vec<f64> = seconds.collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// A run to the end, by its own count.
struct Measured {
    /// Seconds.
    wall: f64,
    cpu: f64,
    checkpoints: u64,
}

impl Measured {
    /// Runs in a new state directory into a new topic; `seconds` of event time are in `input`.
    fn of(broker: &Broker, shape: &Shape, input: &str, seconds: u64, delivery: &str) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let output = broker.topic("out", PARTITIONS);
        let file = dir.path().join("pipeline.toml");
        let text = pipeline(broker, shape, input, &output, delivery);
        std::fs::write(&file, text).expect("the folder is ours");
        let summary = run_to_end(&file);
        broker.delete_topic(&output);
        let rows = summary["sinks"]["results"]["records_out"].as_u64();
        if seconds > 0 {
            assert_eq!(rows, Some(seconds * shape.rows), "rows of {}", shape.what);
        }
        let number = |name: &str| summary[name].as_f64().unwrap_or_default();
        Self {
            wall: number("wall_seconds"),
            cpu: number("cpu_seconds"),
            checkpoints: number("checkpoints") as u64,
        }
    }
}

/// The name is the output's, so that no two runs share decisions.
fn pipeline(broker: &Broker, shape: &Shape, input: &str, output: &str, delivery: &str) -> String {
    format!(
        "name = \"{output}\"\n[host]\nstate = \"state\"\ncheckpoint_every = \"1s\"\ndelivery = \"{delivery}\"\n\
         [kafka]\nbrokers = \"{}\"\n[sources.events]\nkafka = {{ topic = \"{input}\" }}\n\
         fields = {{ id = \"int\", user_id = \"string\", amount = \"float\", timestamp = \"timestamp\" }}\n\
         event_time = {{ field = \"timestamp\" }}\n{}\
         [sinks.results]\nfrom = [\"out\"]\nkafka = {{ topic = \"{output}\", key = [\"user_id\"] }}\n",
        broker.cluster_address(),
        shape.steps
    )
}

/// The run's summary; empty if there was nothing to do.
fn run_to_end(file: &Path) -> Value {
    let summary = file.with_file_name("summary.json");
    let mut command = Command::new(binary());
    command.arg("run").arg(file).arg("--until-end");
    command.arg("--summary").arg(&summary);
    let ended = command.stdin(Stdio::null()).output();
    let ended = ended.expect("the binary starts");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{errors}");
    let text = std::fs::read_to_string(summary).expect("a summary");
    serde_json::from_str(&text).expect("a summary is JSON")
}

fn produce(broker: &Broker, topic: &str, records: u64) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.cluster_address())
        .set("compression.type", "lz4");
    let producer: BaseProducer = config.create().expect("a producer");
    for id in 0..records {
        let partition = (id % u64::from(PARTITIONS)) as i32;
        hand_over(&producer, topic, partition, &record(id));
    }
    let flushed = producer.flush(ACKNOWLEDGED_WITHIN);
    flushed.expect("acknowledgements");
}

fn record(id: u64) -> String {
    let at = FIRST + (id * 1_000_000 / PER_SECOND) as Micros;
    let user = id % USERS;
    format!(
        "{{\"id\":{id},\"user_id\":\"u{user:07}\",\"product_id\":\"p{:05}\",\"action\":\"view\",\"amount\":{},\
         \"timestamp\":\"{}\"}}",
        id % 1_000,
        user % REFUSED_EVERY,
        timestamp::show(at)
    )
}

fn report(shape: &Shape, records: u64, all: &[Runs; 2]) {
    println!("{}", shape.what);
    for (delivery, runs) in DELIVERIES.iter().zip(all) {
        let walls: Vec<String> = runs
            .whole
            .iter()
            .map(|r| format!("{:.2}", r.wall))
            .collect();
        let checkpoints = runs.whole.iter().map(|r| r.checkpoints).max();
        println!(
            "  {delivery:13}: {} s; best {:.0} records/s; {:.0} to {:.0} ns CPU a record; {} checkpoints; {:.2} s with nothing to read",
            walls.join(" "),
            records as f64 / runs.best_and_median()[0],
            runs.cpu()[0] * 1e9 / records as f64,
            runs.cpu()[1] * 1e9 / records as f64,
            checkpoints.unwrap_or(0),
            runs.fixed()[1],
        );
    }
    let whole = all.each_ref().map(Runs::best_and_median);
    let fixed = all.each_ref().map(Runs::fixed);
    for (number, what) in ["best runs", "medians"].into_iter().enumerate() {
        let [at_least, exactly] = [0, 1].map(|side| (whole[side][number], fixed[side][number]));
        println!(
            "  exactly once has, by the {what}, {:.0} % of the throughput; {}; goal {GOAL_PERCENT} %",
            at_least.0 / exactly.0 * 100.0,
            reading(at_least, exactly)
        );
    }
    let [at_least, exactly] = all.each_ref().map(Runs::cpu);
    println!(
        "  and takes {:.2} times the host's CPU, by the runs with the least",
        exactly[0] / at_least[0]
    );
}

/// The share of the throughput when seconds of start and end, the second of each pair, do not count.
fn reading(at_least: (f64, f64), exactly: (f64, f64)) -> String {
    let short = |(whole, fixed): (f64, f64)| whole < 3.0 * fixed;
    if short(at_least) || short(exactly) {
        return "mostly start and end: more --records tell more".into();
    }
    let share = (at_least.0 - at_least.1) / (exactly.0 - exactly.1);
    format!("{:.0} % without start and end", share * 100.0)
}
