//! Faults of the disk and of the process, one test a row of the fault matrix: what each must end in stands in its name.
//!
//! What all rows have in common is the subject: a pipeline with state of every kind and a sink of every kind of file. After
//! whatever happened, a run to the end must leave the output that its input calls for: each row once.

mod disk;
mod full;
mod process;
mod strace;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::data::Data;
use crate::support::running::wait;
use crate::support::{Pipeline, assert_same_rows, binary, read_rows};

/// Whatever is waited for comes this soon, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn trials() -> Vec<Trial> {
    let rows = [disk::trials(), full::trials(), process::trials()];
    rows.into_iter().flatten().collect()
}

/// A test that needs something of the machine: ignored, with the reason, where that is missing, unless `variable` is
/// `required`.
fn needing(variable: &str, available: Result<(), String>, trial: Trial) -> Trial {
    let required = std::env::var(variable).is_ok_and(|value| value == "required");
    match available {
        Err(reason) if !required => trial.with_kind(reason).with_ignored_flag(true),
        _ => trial,
    }
}

/// A pipeline to be disturbed, with its input.
struct Subject {
    data: Data,
    run: Pipeline,
    _input: TempDir,
}

impl Subject {
    /// Reads `clicks` clicks, `per_second` of them unless the run says otherwise.
    fn new(clicks: usize, per_second: usize, seed: u64) -> Self {
        let input = TempDir::new().unwrap();
        let data = Data::write(input.path(), clicks, seed);
        let limit = format!("limit = {{ per_second = {per_second}, per_epoch = 100 }}");
        let text = format!(
            "{}\
             [steps.actions]\nfrom = \"clicks\"\nkey = [\"action\"]\nwindow = {{ tumbling = \"1m\" }}\n\
             aggregate = {{ clicks = \"count(*)\" }}\n\
             [steps.first]\nfrom = \"clicks\"\ndeduplicate = {{ on = [\"event_id\"], within = \"1h\" }}\n\
             [sinks.all]\nfrom = [\"first\"]\nfile = {{ path = \"all.jsonl\" }}\n\
             [sinks.rolled]\nfrom = [\"clicks\"]\nfile = {{ dir = \"rolled\", roll = \"1s\" }}\n\
             [sinks.actions]\nfrom = [\"actions\"]\nfile = {{ path = \"actions.jsonl\" }}\n",
            data.clicks(&limit),
        );
        Self {
            run: Pipeline::new(2, &text),
            data,
            _input: input,
        }
    }

    fn state(&self, file: &str) -> PathBuf {
        self.run.dir.path().join("state").join(file)
    }

    /// To the end, with small checkpoints.
    fn to_the_end(&self) -> Command {
        self.run.command(&["--set", "host.checkpoint_every=20ms"])
    }

    /// Without end, its words in a pipe.
    fn endless(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(self.run.file())
            .args(["--set", "host.checkpoint_every=20ms"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Whether a run at full speed succeeds, and what it said.
    fn finish(&self) -> (bool, String) {
        let faster = "sources.clicks.limit.per_second=1000000";
        let output = self.run.command(&["--set", faster]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    /// Runs undisturbed and at full speed to the end; the output must be whole.
    fn assert_clean(&self, what: &str) {
        let (success, said) = self.finish();
        assert!(success, "{what}: {said}");
        self.assert_whole(what);
    }

    /// The same with one of its files or directories, `name`, elsewhere: below `place`.
    fn assert_clean_in(&self, place: &Path, name: &str) {
        let output = self.finish();
        assert!(output.0, "{name} on a disk that was full: {}", output.1);
        let (from, to) = (place.join(name), self.run.dir.path().join(name));
        if from.is_dir() {
            std::fs::create_dir(&to).unwrap();
            for entry in std::fs::read_dir(&from).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
                }
            }
        } else {
            std::fs::copy(from, to).unwrap();
        }
        self.assert_whole(&format!("{name} on a disk that was full"));
    }

    /// Every click once in both sinks, and every minute counted once and right.
    fn assert_whole(&self, what: &str) {
        let what = format!("{what}, seed {}", self.data.seed);
        let dir = self.run.dir.path();
        let ids = |rows: Vec<Value>| {
            let ids = rows.into_iter().map(|row| json!({ "id": row["event_id"] }));
            ids.collect::<Vec<_>>()
        };
        let clicks = read_rows(&self.data.clicks);
        let expected = ids(clicks.clone());
        assert_same_rows(
            &format!("{what}: file"),
            ids(self.run.rows("all.jsonl")),
            expected.clone(),
        );
        let mut rolled = Vec::new();
        for entry in std::fs::read_dir(dir.join("rolled")).unwrap() {
            rolled.extend(read_rows(&entry.unwrap().path()));
        }
        assert_same_rows(&format!("{what}: directory"), ids(rolled), expected);
        let minutes = self.run.rows("actions.jsonl").into_iter().map(|row| {
            let minute = &row["window_start"].as_str().unwrap()[..16];
            json!({ "action": row["action"], "minute": minute, "clicks": row["clicks"] })
        });
        assert_same_rows(
            &format!("{what}: windows"),
            minutes.collect(),
            by_minute(&clicks),
        );
    }
}

fn by_minute(clicks: &[Value]) -> Vec<Value> {
    let mut counts = std::collections::BTreeMap::<(String, String), u64>::new();
    for click in clicks {
        let minute = &click["timestamp"].as_str().unwrap()[..16];
        let action = click["action"].as_str().unwrap();
        *counts.entry((action.into(), minute.into())).or_default() += 1;
    }
    let row = |((action, minute), clicks)| json!({ "action": action, "minute": minute, "clicks": clicks });
    counts.into_iter().map(row).collect()
}

/// Waits for a child's end and gives its exit code (`None`: a signal) and what it said.
fn ended(mut child: Child, what: &str) -> (Option<i32>, String) {
    let Some(status) = wait(&mut child, PATIENCE) else {
        child.kill().unwrap();
        let said = child.wait_with_output().unwrap().stderr;
        panic!("{what}: it did not end; {}", String::from_utf8_lossy(&said));
    };
    let said = child.wait_with_output().unwrap().stderr;
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a signal to a child of this process that has not been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
}
