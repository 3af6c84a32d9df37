//! Snapshots of a pipeline under load, put back here and elsewhere; what is damaged, foreign or unfinished is refused.

mod crashes;
mod documented;
mod looking;
mod refusals;
mod restoring;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::pipelines::all_plugins;
use crate::support::data::Data;
use crate::support::{Pipeline, binary};

pub fn trials() -> Vec<Trial> {
    let all = [
        restoring::trials(),
        crashes::trials(),
        documented::trials(),
        refusals::trials(),
        looking::trials(),
    ];
    all.into_iter().flatten().collect()
}

/// A host answers its admin API this soon after its start, even on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// Slow enough that a run does not come to its end before a test wants it to.
const SLOW: &str = "limit = { per_second = 3000, per_epoch = 200 }";

/// All plugins, slowly, each step into a file.
fn slow_plugins(data: &Data) -> Pipeline {
    Pipeline::new(2, &all_plugins(data, SLOW, ""))
}

/// A host that runs until it is killed or told to stop.
struct Host {
    child: Child,
}

impl Host {
    fn start(run: &Pipeline) -> Self {
        let mut command = run.command(&["--set", "host.checkpoint_every=50ms"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut host = Self {
            child: child.expect("the binary starts"),
        };
        host.wait_for_checkpoint(run, 3);
        host
    }

    /// Until the checkpoint is decided.
    fn wait_for_checkpoint(&mut self, run: &Pipeline, number: u64) {
        let started = Instant::now();
        loop {
            let output = tidemill(run, &["status"], &["--json"]);
            let status: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            let found = status.and_then(|s| s["checkpoint"]["number"].as_u64());
            if found.is_some_and(|found| found >= number) {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the host ended: {ended:?}");
            assert!(
                started.elapsed() < START_MAX,
                "no checkpoint {number} in time"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// `tidemill WORDS PIPELINE MORE`.
fn tidemill(run: &Pipeline, words: &[&str], more: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(words).arg(run.file()).args(more);
    command.output().expect("the binary starts")
}

/// What a command that succeeds prints.
fn succeed(run: &Pipeline, words: &[&str], more: &[&str]) -> String {
    let output = tidemill(run, words, more);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} {more:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that fails says; it ends with `code`.
fn refused(run: &Pipeline, words: &[&str], more: &[&str], code: i32) -> String {
    let output = tidemill(run, words, more);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{words:?} {more:?}: {said}"
    );
    said
}

fn snapshot(run: &Pipeline, to: &Path) -> Value {
    let said = succeed(run, &["snapshot"], &[text(to), "--json"]);
    serde_json::from_str(&said).unwrap()
}

fn restore(run: &Pipeline, from: &Path, more: &[&str]) -> String {
    succeed(run, &["restore"], &[&[text(from)], more].concat())
}

/// Runs to the end of the input, as fast as it goes.
fn finish(run: &Pipeline) {
    let mut command = run.command(&[]);
    let text = std::fs::read_to_string(run.file()).unwrap();
    let has = |source: &&str| text.contains(&format!("[sources.{source}]"));
    for source in ["clicks", "transactions"].into_iter().filter(has) {
        command.args([
            "--set",
            &format!("sources.{source}.limit.per_second=1000000"),
        ]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Files below `dir`, ascending.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(files(&entry.path())),
            false => all.push(entry.path()),
        }
    }
    all.sort();
    all
}
