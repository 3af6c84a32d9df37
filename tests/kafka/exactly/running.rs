//! Hosts that run until a test has done with them, and the commands that are put to them.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::PATIENCE;
use super::{Scene, told};
use crate::support::binary;
use crate::support::running::Running;

/// A run without end. `drill` is where it is to crash, if it is.
pub fn start(scene: &Scene<'_>, settings: &[&str], drill: Option<&str>) -> Running {
    let set: Vec<&str> = settings.iter().flat_map(|s| ["--set", *s]).collect();
    let mut command = scene.command(&set);
    if let Some(drill) = drill {
        command.env("TIDEMILL_CRASH_AT", drill);
    }
    Running::start(command, &scene.said())
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `tidemill WORDS PIPELINE MORE`.
pub fn command(scene: &Scene<'_>, words: &[&str], more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).arg(scene.file()).args(more);
    command
}

/// What a command prints that succeeds.
pub fn succeed(scene: &Scene<'_>, words: &[&str], more: &[&str]) -> String {
    let output: Output = command(scene, words, more).output().unwrap();
    assert!(
        output.status.success(),
        "{words:?} {more:?}: {}",
        told(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What the running host answers as JSON, as soon as it answers.
pub fn ask(scene: &Scene<'_>, words: &[&str], more: &[&str]) -> Value {
    let more = [more, &["--json"]].concat();
    let mut answer = None;
    until(&format!("an answer to {words:?}"), || {
        let output = command(scene, words, &more).output().unwrap();
        let success = output.status.success();
        answer = success.then(|| serde_json::from_slice(&output.stdout).unwrap());
        success
    });
    answer.unwrap()
}
