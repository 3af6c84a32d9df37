//! The whole host, JSON in and out: CPU a record, records a second, memory, and the restart after kill -9.
//!
//! `cargo bench --bench whole` (5 million clicks and 2 million purchases with a million users; `-- --records 500000` for a
//! quick look). Prints CPU nanoseconds a record, and the same as a ratio to a run that only decodes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_tidemill")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository")
        .to_owned()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let records = arguments
        .iter()
        .position(|a| a == "--records")
        .and_then(|i| arguments.get(i + 1)?.parse().ok());
    let clicks: u64 = records.unwrap_or(5_000_000);
    let dir = TempDir::new().expect("a temporary folder");
    let plugins = ["sessions", "enrich", "anomaly"].map(|p| build(dir.path(), p));
    generate(dir.path(), "clicks", clicks);
    generate(dir.path(), "transactions", clicks * 2 / 5);
    println!(
        "{clicks} clicks and {} purchases of a million users, JSON lines",
        clicks * 2 / 5
    );
    let sessions = format!(
        "[steps.valid]\nfrom = \"clicks\"\nwhere = \"action <> 'search'\"\n[steps.sessions]\nfrom = \"valid\"\nkey = [\"user_id\"]\n\
         plugin = {{ file = \"{}\", config = {{ timeout = \"30m\", end_on = [\"logout\"], converted_by = [\"purchase_complete\"] }} }}\n{}",
        plugins[0].display(),
        sink("sessions", "sessions"),
    );
    let purchases = format!(
        "[tables.products]\nfile = {{ path = \"products.csv\" }}\nkey = \"product_id\"\nfields = {{ product_id = \"string\", category = \"string\", price = \"float\" }}\n\
         [steps.enriched]\nfrom = \"transactions\"\nplugin = {{ file = \"{}\", config = {{ table = \"products\", high_value = 250.0 }} }}\n\
         [steps.anomalies]\nfrom = \"enriched\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\", config = {{ threshold = 3.0, min_count = 5 }} }}\n{}{}",
        plugins[1].display(),
        plugins[2].display(),
        sink("enriched", "enriched"),
        sink("anomalies", "anomalies"),
    );
    for workers in [1, 2] {
        let decode = measure(
            dir.path(),
            "clicks: decode only",
            workers,
            &(clicks_source("") + &dropped("clicks")),
            None,
        );
        measure(
            dir.path(),
            "clicks: where + sessions",
            workers,
            &(clicks_source("") + &sessions),
            Some(decode),
        );
        let decode = measure(
            dir.path(),
            "purchases: decode only",
            workers,
            &(purchases_source() + &dropped("transactions")),
            None,
        );
        measure(
            dir.path(),
            "purchases: enrich + anomaly",
            workers,
            &(purchases_source() + &purchases),
            Some(decode),
        );
    }
    restart(dir.path(), &(clicks_source("") + &sessions));
}

fn build(dir: &Path, name: &str) -> PathBuf {
    let out = dir.join(format!("{name}.wasm"));
    let folder = root().join("plugins").join(name);
    run(Command::new(binary())
        .args(["plugin", "build"])
        .arg(folder)
        .arg("--out")
        .arg(&out));
    out
}

fn generate(dir: &Path, kind: &str, count: u64) {
    let mut command = Command::new(binary());
    command.args([
        "generate",
        "--kind",
        kind,
        "--per-second",
        "1000",
        "--users",
        "1000000",
        "--count",
    ]);
    run(command.arg(count.to_string()).arg("--out").arg(dir));
}

fn run(command: &mut Command) {
    let output = command.output().expect("the binary starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn clicks_source(more: &str) -> String {
    format!(
        "[sources.clicks]\nfile = {{ path = \"clicks.jsonl\" }}\nfields = {{ event_id = \"string\", user_id = \"string\", \
         product_id = \"string?\", action = \"string\", timestamp = \"timestamp\" }}\n\
         event_time = {{ field = \"timestamp\", lateness = \"5m\" }}\n{more}\n"
    )
}

fn purchases_source() -> String {
    "[sources.transactions]\nfile = { path = \"transactions.jsonl\" }\nfields = { transaction_id = \"string\", user_id = \"string\", \
     product_id = \"string?\", quantity = \"int?\", amount = \"float\", timestamp = \"timestamp\" }\n\
     event_time = { field = \"timestamp\", lateness = \"5m\" }\n"
        .into()
}

fn sink(name: &str, step: &str) -> String {
    format!("[sinks.{name}]\nfrom = [\"{step}\"]\nfile = {{ path = \"{name}.jsonl\" }}\n")
}

/// A step that lets nothing through: what is left is reading and decoding.
fn dropped(source: &str) -> String {
    format!(
        "[steps.none]\nfrom = \"{source}\"\nwhere = \"user_id = ''\"\n{}",
        sink("none", "none")
    )
}

fn pipeline(dir: &Path, workers: usize, text: &str) -> PathBuf {
    for old in [
        "state",
        "sessions.jsonl",
        "enriched.jsonl",
        "anomalies.jsonl",
        "none.jsonl",
        "dead-letters.jsonl",
    ] {
        let path = dir.join(old);
        let _ = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
    }
    let file = dir.join("pipeline.toml");
    let head = format!("name = \"bench\"\n[host]\nstate = \"state\"\nworkers = {workers}\n");
    std::fs::write(&file, head + text).expect("the folder is ours");
    file
}

/// Runs to the end and prints; returns CPU nanoseconds a record.
fn measure(dir: &Path, what: &str, workers: usize, text: &str, decode: Option<f64>) -> f64 {
    let file = pipeline(dir, workers, text);
    let summary = dir.join("summary.json");
    run(Command::new(binary())
        .arg("run")
        .arg(&file)
        .args(["--until-end", "--summary"])
        .arg(&summary));
    let summary: Value =
        serde_json::from_str(&std::fs::read_to_string(summary).expect("a summary")).expect("JSON");
    let records: f64 = summary["sources"]
        .as_object()
        .expect("sources")
        .values()
        .map(|s| s["records_in"].as_f64().expect("a count"))
        .sum();
    let (cpu, wall) = (
        summary["cpu_seconds"].as_f64().expect("seconds"),
        summary["wall_seconds"].as_f64().expect("seconds"),
    );
    let nanos = cpu * 1e9 / records;
    let ratio = decode.map_or(String::new(), |d| {
        format!(", {:.2} x decode only", nanos / d)
    });
    println!(
        "{what:30} {workers} workers: {nanos:7.0} ns CPU a record{ratio}, {:9.0} records/s, {:5.0} MB resident at most",
        records / wall,
        summary["max_resident_bytes"].as_f64().expect("bytes") / 1e6,
    );
    nanos
}

/// kill -9 in the middle of a run; then the time from start to the first new output.
fn restart(dir: &Path, text: &str) {
    let file = pipeline(dir, 2, text);
    let out = dir.join("sessions.jsonl");
    let start = || {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(&file)
            .arg("--until-end")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("the binary starts")
    };
    let length = || std::fs::metadata(&out).map_or(0, |m| m.len());
    let mut host = start();
    let half = std::fs::metadata(dir.join("clicks.jsonl"))
        .expect("generated")
        .len()
        / 30;
    wait_for(|| length() > half);
    host.kill().expect("it runs");
    host.wait().expect("it ends");
    let (again, cut) = (Instant::now(), length());
    let mut host = start();
    // The file is first cut back to the checkpoint, then grows beyond it.
    let mut least = cut;
    wait_for(|| {
        least = least.min(length());
        length() > least
    });
    println!(
        "restart after kill -9 to first new output: {} ms",
        again.elapsed().as_millis()
    );
    host.kill().expect("it runs");
    host.wait().expect("it ends");
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(300);
    while !done() {
        assert!(Instant::now() < until, "nothing happened for 300 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}
