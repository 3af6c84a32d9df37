//! The whole host, JSON in and out: CPU a record, records a second, memory, and the restart after kill -9.
//!
//! `cargo bench --bench whole` (5 million clicks and 2 million purchases with a million users; `-- --records 500000` for a
//! quick look). Prints CPU nanoseconds a record, and the same as a ratio to a run that only decodes.

mod runs;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use runs::{
    binary, clicks_source, dropped, generate, measure, pipeline, purchases_source, root, run, sink,
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let records = arguments
        .iter()
        .position(|a| a == "--records")
        .and_then(|i| arguments.get(i + 1)?.parse().ok());
    let clicks: u64 = records.unwrap_or(5_000_000);
    let dir = TempDir::new().expect("a temporary folder");
    let plugins = ["sessions", "enrich", "anomaly"].map(|p| build(dir.path(), p));
    generate(dir.path(), "clicks", clicks, 1_000, 1_000_000);
    generate(dir.path(), "transactions", clicks * 2 / 5, 1_000, 1_000_000);
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
