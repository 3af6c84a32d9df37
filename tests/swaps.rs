//! A plugin is swapped under load, again and again, with kill -9 among the swaps: every row once, by one version, on
//! the state the rows before it left.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::pipelines::sinks;
use crate::support::data::Data;
use crate::support::running::wait;
use crate::support::{Pipeline, binary, plugin, plugin_variant, read_rows, trial};

const GUEST: &str = "tests/guests/stamp";
/// A host answers its admin API this soon after its start, even on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "two_hundred_swaps_with_kills_lose_and_double_nothing",
            two_hundred_swaps,
        ),
        trial(
            "rollback_and_history_name_the_versions",
            rollback_and_history,
        ),
        trial(
            "a_version_that_does_not_fit_is_refused_with_the_difference",
            refused_with_difference,
        ),
    ]
}

/// A pipeline that stamps purchases, `per_second` of them.
fn stamping(data: &Data, per_second: u32) -> Pipeline {
    let text = format!(
        "{}[steps.stamped]\nfrom = \"transactions\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\", config = {{}} }}\n{}",
        data.transactions(&format!(
            "limit = {{ per_second = {per_second}, per_epoch = 50 }}"
        )),
        plugin(GUEST).display(),
        sinks(&["stamped"]),
    );
    Pipeline::new(2, &text)
}

fn start(run: &Pipeline) -> Child {
    run.command(&["--set", "host.checkpoint_every=20ms"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

fn ask(run: &Pipeline, command: &str, more: &[&str]) -> Output {
    Command::new(binary())
        .args(["plugin", command])
        .arg(run.file())
        .arg("stamped")
        .args(more)
        .output()
        .unwrap()
}

fn swap(run: &Pipeline, file: &Path) -> Output {
    ask(run, "swap", &[file.to_str().unwrap()])
}

/// Asks until the host answers: after a start its admin API takes a moment.
fn swap_when_up(run: &Pipeline, file: &Path) -> Output {
    let started = Instant::now();
    loop {
        let output = swap(run, file);
        if output.status.success() || started.elapsed() > START_MAX {
            return output;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("already") {
            return output;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn two_hundred_swaps() {
    const SWAPS: usize = 200;
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 200_000, 11);
    let run = stamping(&data, 300);
    let versions = [plugin(GUEST), plugin_variant(GUEST, &[("STAMP", "two")])];
    let mut host = start(&run);
    let (mut done, mut kills, mut turn) = (0, 0, 1);
    while done < SWAPS {
        // Every eighth swap meets a kill, at another moment of it each time.
        if turn % 8 == 0 {
            let mut asking = Command::new(binary())
                .args(["plugin", "swap"])
                .arg(run.file())
                .arg("stamped")
                .arg(&versions[turn % 2])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let _ = wait(&mut asking, Duration::from_millis(kills * 3 % 60));
            host.kill().unwrap();
            host.wait().unwrap();
            asking.wait().unwrap();
            kills += 1;
            host = start(&run);
        } else {
            let output = swap_when_up(&run, &versions[turn % 2]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() || said.contains("already"),
                "swap {done}: {said}"
            );
            done += usize::from(output.status.success());
            assert!(
                host.try_wait().unwrap().is_none(),
                "the run ended before the last swap"
            );
        }
        turn += 1;
    }
    host.kill().unwrap();
    host.wait().unwrap();
    let last = run
        .command(&["--set", "sources.transactions.limit.per_second=10000000"])
        .output()
        .unwrap();
    assert!(
        last.status.success(),
        "{}",
        String::from_utf8_lossy(&last.stderr)
    );
    assert_stamped(&run, &data, kills);
}

fn assert_stamped(run: &Pipeline, data: &Data, kills: u64) {
    let rows = run.rows("stamped.jsonl");
    let mut seen: HashMap<String, i64> = HashMap::new();
    let mut versions: HashMap<String, usize> = HashMap::new();
    let mut ids = Vec::new();
    for row in &rows {
        let count = seen.entry(row["user_id"].to_string()).or_default();
        *count += 1;
        assert_eq!(
            row["seen"], *count,
            "after {kills} kills the state of a key lost or doubled rows: {row}"
        );
        *versions.entry(row["version"].to_string()).or_default() += 1;
        ids.push(row["transaction_id"].to_string());
    }
    ids.sort();
    let mut expected: Vec<String> = read_rows(&data.transactions)
        .iter()
        .map(|r| r["transaction_id"].to_string())
        .collect();
    expected.sort();
    assert!(
        ids == expected,
        "{} rows out, {} in",
        ids.len(),
        expected.len()
    );
    assert_eq!(versions.len(), 2, "both versions have worked: {versions:?}");
}

fn rollback_and_history() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 12);
    let run = stamping(&data, 300);
    let mut host = start(&run);
    let two = plugin_variant(GUEST, &[("STAMP", "two")]);
    let output = swap_when_up(&run, &two);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let back = ask(&run, "rollback", &[]);
    assert!(
        back.status.success(),
        "{}",
        String::from_utf8_lossy(&back.stderr)
    );
    let history = ask(&run, "history", &["--json"]);
    let history: serde_json::Value =
        serde_json::from_slice(&history.stdout).expect("history as JSON");
    let digests: Vec<&str> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["digest"].as_str().unwrap())
        .collect();
    assert_eq!(digests.len(), 3, "{history}");
    assert_eq!(digests[0], digests[2], "rolled back to the first version");
    assert_ne!(digests[0], digests[1]);
    assert_eq!(history[2]["in_force"], true);
    host.kill().unwrap();
    host.wait().unwrap();
}

fn refused_with_difference() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 13);
    let run = stamping(&data, 300);
    let mut host = start(&run);
    let fits = swap_when_up(&run, &plugin_variant(GUEST, &[("STAMP", "two")]));
    assert!(
        fits.status.success(),
        "{}",
        String::from_utf8_lossy(&fits.stderr)
    );
    for (other, expected) in [
        ("plugins/anomaly", "threshold"),
        ("plugins/enrich", "Transform"),
    ] {
        let output = swap(&run, &plugin(other));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(expected),
            "{other}: {said}"
        );
    }
    let garbage = dir.path().join("garbage.wasm");
    std::fs::write(&garbage, b"no component").unwrap();
    let output = swap(&run, &garbage);
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        host.try_wait().unwrap().is_none(),
        "a refused swap ended the run"
    );
    host.kill().unwrap();
    host.wait().unwrap();
}
