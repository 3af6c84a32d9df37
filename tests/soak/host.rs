//! The pipeline under test: its file, and the host that runs it, dies and is started again.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::arguments::Arguments;
use crate::expected::{LARGE, WINDOW_MS};
use crate::support::process::spawn_bound;
use crate::support::{binary, plugin};

/// The topics of one soak.
#[derive(Debug, Clone)]
pub struct Topics {
    pub input: String,
    /// In the order of [`Output::ALL`](crate::expected::Output::ALL).
    pub outputs: [String; 4],
}

/// A folder with the pipeline file, its state and the log of its hosts.
pub struct Pipeline {
    dir: TempDir,
}

impl Pipeline {
    pub fn new(arguments: &Arguments, servers: &str, topics: &Topics) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let [marked, large, windows, dead_letters] = &topics.outputs;
        let text = format!(
            "name = \"soak\"
[host]
state = \"state\"
workers = {workers}
checkpoint_every = \"{every}\"
delivery = \"{delivery}\"
[kafka]
brokers = \"{servers}\"
[dead_letters]
kafka = {{ topic = \"{dead_letters}\" }}
[sources.records]
kafka = {{ topic = \"{input}\" }}
format = \"json\"
fields = {{ id = \"int\", key = \"string\", at = \"timestamp\", amount = \"float\" }}
event_time = {{ field = \"at\", lateness = \"1s\", idle_after = \"30d\", max_ahead = \"36500d\" }}
[steps.marked]
from = \"records\"
key = [\"key\"]
plugin = {{ file = \"{plugin}\", config = {{}} }}
[steps.large]
from = \"records\"
where = \"amount >= {LARGE}\"
[steps.windows]
from = \"records\"
key = [\"key\"]
window = {{ tumbling = \"{WINDOW_MS}ms\" }}
aggregate = {{ records = \"count(*)\", total = \"sum(amount)\" }}
[sinks.marked]
from = [\"marked\"]
kafka = {{ topic = \"{marked}\", key = [\"key\"] }}
[sinks.large]
from = [\"large\"]
kafka = {{ topic = \"{large}\", key = [\"key\"] }}
[sinks.windows]
from = [\"windows\"]
kafka = {{ topic = \"{windows}\", key = [\"key\"] }}
",
            workers = arguments.workers,
            every = arguments.checkpoint_every,
            delivery = arguments.delivery.name(),
            input = topics.input,
            plugin = plugin("tests/guests/stamp").display(),
        );
        std::fs::write(dir.path().join("pipeline.toml"), text).expect("the folder is ours");
        Self { dir }
    }

    pub fn start(&self, more: &[&str]) -> Host {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("the folder is ours");
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(self.dir.path().join("pipeline.toml"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Host(spawn_bound(command).expect("the binary starts"))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("host.log")
    }

    /// The last lines that hosts of this pipeline said.
    pub fn said(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Keeps the folder, to be looked into, and names it.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

/// A running host. Killed when it is dropped.
pub struct Host(Child);

impl Host {
    /// `kill -9`. The exit status is someone else's doing if it ended by itself before.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        let before = self.ended();
        if before.is_none() {
            // Ended in between is as good.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
        before
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child of ours that has not been waited for, or to nobody.
        unsafe { libc::kill(self.0.id() as i32, signal) };
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// How it ends, if it does within a time.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            let left = until.checked_duration_since(Instant::now())?;
            // A process cannot be waited for with a deadline; looking now and then is as good.
            std::thread::sleep(left.min(Duration::from_millis(5)));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
