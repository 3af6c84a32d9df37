//! Runs of the binary to their end, and what they cost: shared by the benchmarks of whole pipelines.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_tidemill")
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository")
        .to_owned()
}

pub fn run(command: &mut Command) {
    let output = command.output().expect("the binary starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// JSON lines of `kind`, which come `per_second` in event time, of `users` users and 10,000 products.
pub fn generate(dir: &Path, kind: &str, count: u64, per_second: u64, users: u64) {
    let mut command = Command::new(binary());
    command.args(["generate", "--kind", kind, "--products", "10000"]);
    for (flag, number) in [
        ("--per-second", per_second),
        ("--users", users),
        ("--count", count),
    ] {
        command.arg(flag).arg(number.to_string());
    }
    run(command.arg("--out").arg(dir));
}

pub fn clicks_source(more: &str) -> String {
    format!(
        "[sources.clicks]\nfile = {{ path = \"clicks.jsonl\" }}\nfields = {{ event_id = \"string\", user_id = \"string\", \
         product_id = \"string?\", action = \"string\", timestamp = \"timestamp\" }}\n\
         event_time = {{ field = \"timestamp\", lateness = \"5m\" }}\n{more}\n"
    )
}

pub fn purchases_source() -> String {
    "[sources.transactions]\nfile = { path = \"transactions.jsonl\" }\nfields = { transaction_id = \"string\", user_id = \"string\", \
     product_id = \"string?\", quantity = \"int?\", amount = \"float\", timestamp = \"timestamp\" }\n\
     event_time = { field = \"timestamp\", lateness = \"5m\" }\n"
        .into()
}

pub fn sink(name: &str, step: &str) -> String {
    format!("[sinks.{name}]\nfrom = [\"{step}\"]\nfile = {{ path = \"{name}.jsonl\" }}\n")
}

/// A step that lets nothing through: what is left is reading and decoding.
pub fn dropped(source: &str) -> String {
    format!(
        "[steps.none]\nfrom = \"{source}\"\nwhere = \"user_id = ''\"\n{}",
        sink("none", "none")
    )
}

pub fn pipeline(dir: &Path, workers: usize, text: &str) -> PathBuf {
    for old in std::fs::read_dir(dir)
        .expect("the folder is ours")
        .flatten()
    {
        let path = old.path();
        let input = ["clicks.jsonl", "transactions.jsonl"]
            .iter()
            .any(|i| path.ends_with(i));
        let _ = match path.extension().and_then(|e| e.to_str()) {
            Some("jsonl") if !input => std::fs::remove_file(path),
            None if path.ends_with("state") => std::fs::remove_dir_all(path),
            _ => Ok(()),
        };
    }
    let file = dir.join("pipeline.toml");
    let head = format!("name = \"bench\"\n[host]\nstate = \"state\"\nworkers = {workers}\n");
    std::fs::write(&file, head + text).expect("the folder is ours");
    file
}

/// Runs to the end and prints; returns CPU nanoseconds a record.
pub fn measure(dir: &Path, what: &str, workers: usize, text: &str, decode: Option<f64>) -> f64 {
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
