//! How soon committed output comes after kill -9, with millions of keys in the state: at once after it was filled, while
//! merges still have to catch up, and at rest.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::binary;
use crate::support::kafka::Broker;
use crate::support::running::Running;

/// New keys a second while the state is filled, and afterwards.
const FILLING: u64 = 400_000;
const AT_REST: u64 = 20_000;
/// How long it runs before the first kill at rest, and between kills.
const SETTLES: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_secs(6);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const SHOW_EVERY: Duration = Duration::from_secs(5);
const COMES_WITHIN: Duration = Duration::from_secs(120);
const GOAL: Duration = Duration::from_secs(2);

/// Fills the state with `keys` of about 100 bytes and kills the host once then and `runs` times at rest.
pub fn run(keys: u64, runs: u64) {
    let broker = Broker::get().unwrap_or_else(|reason| panic!("{reason}"));
    println!(
        "\n{keys} keys of about 100 bytes by `deduplicate`, exactly once, checkpoint_every = 1s, state_memory = 400MB; from the start \
         after kill -9 to the first committed output"
    );
    let subject = Subject::new(broker);
    let mut host = subject.start(FILLING);
    let resident = subject.wait_for(keys, &host);
    println!("  filled at {FILLING} new keys a second: {resident} MB resident at most");
    let (next, took) = subject.kill_and_start(host);
    let seconds = took.as_secs_f64();
    println!("  killed while filling: {seconds:.2} s");
    host = next;
    std::thread::sleep(SETTLES);
    let mut worst = Duration::ZERO;
    for _ in 0..runs {
        let (next, took) = subject.kill_and_start(host);
        let (seconds, resident) = (took.as_secs_f64(), resident_mb(next.id()));
        println!(
            "  killed with {AT_REST} new keys a second: {seconds:.2} s; {resident} MB resident then"
        );
        (host, worst) = (next, worst.max(took));
        std::thread::sleep(BETWEEN);
    }
    host.kill();
    let verdict = if worst < GOAL {
        "reached"
    } else {
        "not reached"
    };
    println!("  goal: under {} s: {verdict}", GOAL.as_secs());
}

struct Subject {
    dir: TempDir,
    reader: BaseConsumer,
    output: String,
}

impl Subject {
    fn new(broker: &Broker) -> Self {
        let output = broker.topic("restarts", 1);
        let dir = TempDir::new().expect("a temporary folder");
        let text = format!(
            "name = \"{output}\"\n[host]\nstate = \"state\"\nworkers = 2\ncheckpoint_every = \"1s\"\nstate_memory = \"400MB\"\n\
             [kafka]\nbrokers = \"{}\"\n\
             [sources.events]\ngenerate = {{ kind = \"clicks\", per_second = 1000000, seed = 1, users = 1000000 }}\n\
             [steps.wide]\nfrom = \"events\"\nselect = [\"concat(repeat('a key of a hundred bytes ', 3), event_id) as id\"]\n\
             [steps.once]\nfrom = \"wide\"\ndeduplicate = {{ on = [\"id\"], within = \"30d\" }}\n\
             [steps.few]\nfrom = \"once\"\nwhere = \"id like '%00'\"\n\
             [sinks.few]\nfrom = [\"few\"]\nkafka = {{ topic = \"{output}\" }}\n",
            broker.cluster_address()
        );
        std::fs::write(dir.path().join("pipeline.toml"), text).expect("the folder is ours");
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", broker.cluster_address())
            .set("group.id", "restarts")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .set("isolation.level", "read_committed");
        Self {
            dir,
            reader: config.create().expect("a consumer"),
            output,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pipeline.toml")
    }

    fn start(&self, per_second: u64) -> Running {
        let mut command = Command::new(binary());
        command.arg("run").arg(self.file()).arg("--set");
        command.arg(format!("sources.events.limit.per_second={per_second}"));
        Running::start(command, &self.dir.path().join("said.txt"))
    }

    /// Returns when the host has read so many records, with what it had resident at most, in MB.
    fn wait_for(&self, records: u64, host: &Running) -> u64 {
        let (mut shown, mut most) = (Instant::now(), 0);
        loop {
            std::thread::sleep(LOOK_EVERY);
            most = most.max(resident_mb(host.id()));
            let read = self.records_in();
            if read.is_some_and(|read| read >= records) {
                return most;
            }
            if shown.elapsed() >= SHOW_EVERY {
                shown = Instant::now();
                println!("  {} keys, {most} MB resident at most", read.unwrap_or(0));
            }
        }
    }

    /// Of the host; none before it has started.
    fn records_in(&self) -> Option<u64> {
        let mut status = Command::new(binary());
        let output = status.arg("status").arg(self.file()).arg("--json").output();
        let output = output.expect("the binary starts");
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["sources"][0]["records_in"].as_u64()
    }

    /// Kills the host and starts another; how long after its start its first output was committed.
    fn kill_and_start(&self, mut host: Running) -> (Running, Duration) {
        host.kill();
        // Whatever was committed lies before, and what was left open is never committed.
        self.read_from_end();
        let begun = Instant::now();
        let host = self.start(AT_REST);
        while begun.elapsed() < COMES_WITHIN {
            match self.reader.poll(Duration::from_millis(20)) {
                Some(Ok(_)) => return (host, begun.elapsed()),
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => panic!("{error}"),
            }
        }
        panic!("no output within {COMES_WITHIN:?}: {}", host.said());
    }

    /// Returns when the reader stands at the end of what is committed.
    fn read_from_end(&self) {
        let mut end = TopicPartitionList::new();
        end.add_partition_offset(&self.output, 0, Offset::End)
            .and_then(|()| self.reader.assign(&end))
            .expect("a topic of ours");
        let until = Instant::now() + COMES_WITHIN;
        while Instant::now() < until {
            if let Some(Err(KafkaError::PartitionEOF(_))) =
                self.reader.poll(Duration::from_millis(20))
            {
                return;
            }
        }
        panic!("the end of {} was not reached", self.output);
    }
}

fn resident_mb(process: u32) -> u64 {
    let path = Path::new("/proc").join(process.to_string()).join("status");
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1_000
}
