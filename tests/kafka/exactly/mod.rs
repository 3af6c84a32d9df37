//! Exactly once, whatever happens: a pipeline with state, dead letters, a topic and a file behind it is disturbed in every
//! way that one machine allows, and what committed readers see is compared with what was fed.
//!
//! Every record has an id; a row of the output says how many rows of its key the plugin has seen. So a row that is lost or
//! doubled, an order that is broken and a state that remembers what was taken back all show. Some records cannot be read, and
//! on some the plugin panics: each is a dead letter once, in the same transaction (row 33).

mod crashes;
mod hosts;
mod network;
mod running;
mod sent;
mod snapshots;
mod swaps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Test, finished, partitions, read_until, source};
use crate::support::kafka::Broker;
use crate::support::running::Running;
use crate::support::{binary, plugin, read_rows};
use tidemill::pipeline::plan::Start;
use tidemill::source::Source;

pub fn tests() -> Vec<Test> {
    [
        crashes::tests(),
        hosts::tests(),
        network::tests(),
        snapshots::tests(),
        swaps::tests(),
    ]
    .concat()
}

const PARTITIONS: i32 = 3;
const USERS: i32 = 30;
/// One record of so many cannot be read.
const BAD_EVERY: i32 = 40;
/// One of so many makes the plugin panic.
const POISON_EVERY: i32 = 97;

/// Few enough records a second for many transactions, however long a busy machine takes for one.
const FLOWING: &str = "sources.purchases.limit.per_second=400";
const SLOWLY: [&str; 2] = ["--set", FLOWING];
const SLOWLY_TO_THE_END: [&str; 3] = ["--until-end", SLOWLY[0], SLOWLY[1]];

const COPY: &str = "[sinks.copy]
from = \"counted\"
file = { path = \"copy.jsonl\" }
";

/// A pipeline with its topics, fed and not yet run.
struct Scene<'b> {
    broker: &'b Broker,
    dir: TempDir,
    /// Of the pipeline, so that no two scenes share decisions.
    name: String,
    input: String,
    output: String,
    letters: String,
    /// The rows go to a file, too, which cannot be moved with the state.
    has_file: bool,
    fed: i32,
}

impl<'b> Scene<'b> {
    /// `records` are in the input.
    fn new(broker: &'b Broker, records: i32) -> Self {
        let input = broker.topic("exactly-in", PARTITIONS as u32);
        let mut scene = Self {
            broker,
            dir: TempDir::new().unwrap(),
            name: input.replace("exactly-in", "exactly"),
            output: broker.topic("exactly-out", PARTITIONS as u32),
            letters: broker.topic("exactly-letters", 1),
            input,
            has_file: true,
            fed: 0,
        };
        scene.feed(records);
        scene
    }

    fn feed(&mut self, records: i32) {
        let ids = self.fed..self.fed + records;
        for partition in 0..PARTITIONS {
            let mine = ids.clone().filter(|id| partition_of(*id) == partition);
            let texts: Vec<String> = mine.map(record).collect();
            let values = texts.iter().map(|text| (1, Some(text.as_str())));
            self.broker.produce(&self.input, partition, values);
        }
        self.fed += records;
    }

    /// The pipeline file; `kafka` goes into `[kafka]`, `host` into `[host]`.
    fn write(&self, kafka: &str, host: &str) {
        let text = format!(
            "name = \"{name}\"
[host]
state = \"state\"
workers = 2
checkpoint_every = \"10ms\"
{host}
[kafka]
{kafka}
[dead_letters]
kafka = {{ topic = \"{letters}\" }}
[sources.purchases]
kafka = {{ topic = \"{input}\" }}
fields = {{ id = \"int\", user = \"string\", amount = \"float\" }}
limit = {{ per_second = 2000, per_epoch = 60 }}
[steps.counted]
from = \"purchases\"
key = [\"user\"]
plugin = {{ file = \"{plugin}\" }}
[sinks.counts]
from = \"counted\"
kafka = {{ topic = \"{output}\", key = [\"user\"] }}
{copy}",
            name = self.name,
            letters = self.letters,
            input = self.input,
            output = self.output,
            plugin = plugin("tests/guests/stamp").display(),
            copy = if self.has_file { COPY } else { "" },
        );
        std::fs::write(self.file(), text).unwrap();
    }

    /// Writes the file as it is by default.
    fn write_plain(&self) {
        let brokers = format!("brokers = \"{}\"", self.broker.cluster_address());
        self.write(&brokers, "");
    }

    /// Goes on with a copy of the state in another directory; returns the one that was left.
    fn moved(&mut self) -> TempDir {
        let moved = TempDir::new().unwrap();
        for file in ["state", "pipeline.toml"] {
            copy(&self.dir.path().join(file), &moved.path().join(file));
        }
        std::mem::replace(&mut self.dir, moved)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pipeline.toml")
    }

    /// What the hosts of [`start`](Self::start) say.
    fn said(&self) -> PathBuf {
        self.dir.path().join("stderr.txt")
    }

    /// `tidemill run` with what a test adds, until it ends or the test has done with it.
    fn start(&self, more: &[&str]) -> Running {
        Running::start(self.command(more), &self.said())
    }

    /// `tidemill run` with what a test adds.
    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("run").arg(self.file()).args(more);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs to the end of the input, crashing at `drill` if it is reached before.
    fn run_with_drill(&self, drill: &str) -> Output {
        let mut command = self.command(&SLOWLY_TO_THE_END);
        command.env("TIDEMILL_CRASH_AT", drill);
        command.output().unwrap()
    }

    /// Runs to the end of the input.
    fn finish(&self) -> String {
        let output = self.command(&["--until-end"]).output().unwrap();
        let told = told(&output);
        assert!(output.status.success(), "{}: {told}", output.status);
        told
    }

    /// What readers of committed records see is what was fed, each once, in the order of each key; so is the file.
    fn assert_exact(&self, what: &str) {
        let rows: Vec<Value> = self.read(&self.output);
        self.assert_rows(&rows, &format!("{what}, topic"));
        if self.has_file {
            let copy = read_rows(&self.dir.path().join("copy.jsonl"));
            self.assert_rows(&copy, &format!("{what}, file"));
        }
        let mut letters: Vec<i64> = self.read(&self.letters).iter().map(raw_id).collect();
        letters.sort_unstable();
        let bad: Vec<i64> = (0..self.fed)
            .filter(|id| is_refused(*id))
            .map(i64::from)
            .collect();
        assert_eq!(letters, bad, "{what}: dead letters");
    }

    fn assert_rows(&self, rows: &[Value], what: &str) {
        let mut by_user: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
        for row in rows {
            let seen = (row["id"].as_i64().unwrap(), row["seen"].as_i64().unwrap());
            let user = row["user"].as_str().unwrap();
            by_user.entry(user).or_default().push(seen);
        }
        let good = (0..self.fed).filter(|id| !is_refused(*id)).count();
        for user in 0..USERS.min(self.fed) {
            let ids = (user..self.fed)
                .step_by(USERS as usize)
                .filter(|id| !is_refused(*id));
            let expected: Vec<(i64, i64)> = ids.map(i64::from).zip(1..).collect();
            let found = by_user
                .remove(format!("u{user}").as_str())
                .unwrap_or_default();
            let first = found.iter().zip(&expected).find(|(f, e)| f != e);
            assert!(
                found == expected,
                "{what}: user u{user}: {} rows, {} expected; first difference (id, seen): {first:?}",
                found.len(),
                expected.len()
            );
        }
        assert!(
            by_user.is_empty(),
            "{what}: rows of users that never were: {by_user:?}"
        );
        assert_eq!(rows.len(), good, "{what}: rows");
    }

    /// All committed records of a topic.
    fn read(&self, topic: &str) -> Vec<Value> {
        let source = source(self.broker, topic, Start::Earliest);
        let mut reader = source.reader(partitions(&source, true)).unwrap();
        let texts = read_until(&mut *reader, finished);
        let parse =
            |text: &String| serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        texts.iter().map(parse).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(copied.success());
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn partition_of(id: i32) -> i32 {
    id % USERS % PARTITIONS
}

fn is_bad(id: i32) -> bool {
    id % BAD_EVERY == BAD_EVERY - 1
}

fn is_poison(id: i32) -> bool {
    id % POISON_EVERY == POISON_EVERY - 1
}

fn is_refused(id: i32) -> bool {
    is_bad(id) || is_poison(id)
}

fn record(id: i32) -> String {
    let user = id % USERS;
    let amount = match (is_bad(id), is_poison(id)) {
        (true, _) => "\"much\"",
        (false, true) => "-1.5",
        (false, false) => "1.5",
    };
    format!(r#"{{"id":{id},"user":"u{user}","amount":{amount}}}"#)
}

/// The id in the raw record of a dead letter.
fn raw_id(letter: &Value) -> i64 {
    let raw: Value = serde_json::from_str(letter["raw"].as_str().unwrap()).unwrap();
    raw["id"].as_i64().unwrap()
}
