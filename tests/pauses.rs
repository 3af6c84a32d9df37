//! A plugin that fails on every row pauses its pipeline: the host stays, says so, and goes on with a mended version.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::pipelines::sinks;
use crate::support::data::Data;
use crate::support::running::Running;
use crate::support::{Pipeline, binary, plugin, plugin_variant, read_rows, trial};

const GUEST: &str = "tests/guests/stamp";
/// Whatever is waited for comes this soon, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_paused_pipeline_goes_on_with_a_mended_plugin",
            goes_on_with_a_mended_plugin,
        ),
        trial("a_bounded_run_does_not_wait_at_a_pause", bounded),
    ]
}

fn goes_on_with_a_mended_plugin() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 20_000, 21);
    let run = stamping(&data, 500);
    let failing = plugin_variant(GUEST, &[("STAMP", "panics")]);
    let mended = plugin_variant(GUEST, &[("STAMP", "two")]);

    let mut host = start(&run, 500);
    until(&run, |status| rows_out(status) > 0);
    succeeded(&ask(
        &run,
        &["plugin", "swap"],
        &[failing.to_str().unwrap()],
    ));
    let paused = until(&run, |status| status["state"]["paused"].is_string());
    let why = paused["state"]["paused"].as_str().unwrap();
    assert!(why.contains("stamped"), "{why}");
    assert!(!host.has_ended(), "{}", host.said());
    let misfit = ask(
        &run,
        &["plugin", "swap"],
        &[plugin("plugins/anomaly").to_str().unwrap()],
    );
    let said = String::from_utf8_lossy(&misfit.stderr);
    assert!(
        !misfit.status.success() && said.contains("threshold"),
        "{said}"
    );
    let history = ask(&run, &["plugin", "history"], &[]);
    assert!(history.status.success(), "{history:?}");

    // Swapped in while it is paused, then rolled back to the failing one, which pauses again.
    succeeded(&ask(&run, &["plugin", "swap"], &[mended.to_str().unwrap()]));
    until(&run, |status| rows_out(status) > 0);
    succeeded(&ask(&run, &["plugin", "rollback"], &[]));
    until(&run, |status| status["state"]["paused"].is_string());
    host.terminate();

    // The next host finds the failing version in force, and is rolled back out of its pause.
    let mut host = start(&run, 1_000_000);
    until(&run, |status| status["state"]["paused"].is_string());
    succeeded(&ask(&run, &["plugin", "rollback"], &[]));
    until(&run, |status| {
        status["state"] == "running" && status["sources"][0]["lag"] == 0
    });
    host.terminate();
    assert_each_once(&run, &data);
}

/// Every purchase is stamped or a dead letter, once, and the stamps count on through pauses.
fn assert_each_once(run: &Pipeline, data: &Data) {
    let stamped = run.rows("stamped.jsonl");
    let mut seen = std::collections::HashMap::<String, i64>::new();
    for row in &stamped {
        let count = seen.entry(row["user_id"].to_string()).or_default();
        *count += 1;
        assert_eq!(row["seen"], *count, "{row}");
    }
    let letters = read_rows(&run.dir.path().join("state/dead-letters.jsonl"));
    let raw = letters.iter().map(|letter| {
        serde_json::from_str::<Value>(letter["raw"].as_str().unwrap()).unwrap()["transaction_id"].to_string()
    });
    let stamped = stamped.iter().map(|row| row["transaction_id"].to_string());
    let mut got: Vec<String> = stamped.chain(raw).collect();
    let mut expected: Vec<String> = read_rows(&data.transactions)
        .iter()
        .map(|row| row["transaction_id"].to_string())
        .collect();
    got.sort();
    expected.sort();
    assert!(
        got == expected,
        "{} rows out, {} in",
        got.len(),
        expected.len()
    );
}

fn bounded() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, 22);
    let failing = plugin_variant(GUEST, &[("STAMP", "panics")]);
    let run = stamping_with(&data, 1_000_000, failing.to_str().unwrap());
    let output = run.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("paused: step stamped"), "{said}");
}

fn stamping(data: &Data, per_second: u32) -> Pipeline {
    stamping_with(data, per_second, plugin(GUEST).to_str().unwrap())
}

fn stamping_with(data: &Data, per_second: u32, file: &str) -> Pipeline {
    let limit = format!("limit = {{ per_second = {per_second}, per_epoch = 50 }}");
    let text = format!(
        "{}[steps.stamped]\nfrom = \"transactions\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{file}\", config = {{}} }}\n{}",
        data.transactions(&limit),
        sinks(&["stamped"]),
    );
    Pipeline::new(2, &text)
}

/// A host that runs until it is stopped.
pub fn start(run: &Pipeline, per_second: u32) -> Running {
    let mut command = Command::new(binary());
    command
        .arg("run")
        .arg(run.file())
        .args(["--set", "host.checkpoint_every=20ms", "--set"])
        .arg(format!(
            "sources.transactions.limit.per_second={per_second}"
        ));
    Running::start(command, &run.dir.path().join("stderr.txt"))
}

fn ask(run: &Pipeline, command: &[&str], more: &[&str]) -> Output {
    let mut asking = Command::new(binary());
    asking.args(command).arg(run.file());
    if command[0] == "plugin" {
        asking.arg("stamped");
    }
    asking.args(more).output().unwrap()
}

fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Asks for the status until it is as wanted.
pub fn until(run: &Pipeline, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let output = ask(run, &["status"], &["--json"]);
        let status = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < end, "never came: {status}");
        // Only the host knows when; it is asked now and then.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rows_out(status: &Value) -> u64 {
    status["steps"][0]["rows_out"].as_u64().unwrap_or_default()
}
