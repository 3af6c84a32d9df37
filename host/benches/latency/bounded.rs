//! The e-commerce example at sixty times the speed of time: what its state takes, quarter by quarter of the run.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::binary;
use crate::support::ecommerce::{self, Made};
use crate::support::process::spawn_bound;

const SPEED: u64 = 60;
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Highest readings of a quarter, bytes.
#[derive(Default, Clone, Copy)]
struct Quarter {
    /// Keyed state in memory: `state_bytes` of `[host] metrics`.
    state: u64,
    /// `log.redb` and `state.redb`: `state_disk_bytes`.
    disk: u64,
    resident: u64,
    keys: u64,
}

/// `minutes` of wall time are as many hours of event time.
pub fn run(minutes: u64, set: &[String]) {
    let dir = TempDir::new().expect("a temporary folder");
    let made = |per_second: u64| {
        format!("per_second = {per_second}, speed = {SPEED}, users = 10000, products = 100")
    };
    let (clicks, transactions) = (made(4_000), made(1_000));
    let source = |generate| Made {
        generate,
        per_epoch: None,
    };
    let file = ecommerce::write(
        dir.path(),
        "state = \"state\"\ncheckpoint_every = \"1s\"\nmetrics = \"metrics.json\"",
        &source(&clicks),
        &source(&transactions),
    );
    let mut host = host(&file, set);
    let (quarters, rows) = watch(
        &mut host,
        &dir.path().join("metrics.json"),
        Duration::from_secs(60 * minutes),
    );
    host.kill().expect("it runs");
    host.wait().expect("it ends");
    println!(
        "e-commerce, 5,000 records/s at {SPEED} times the speed: {minutes} h of event time in {minutes} min, {rows} results"
    );
    println!("quarter | keys    | state MB | on disk MB | resident MB");
    for (number, q) in quarters.iter().enumerate() {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "{:>7} | {:>7} | {:>8.1} | {:>10.1} | {:>11.1}",
            number + 1,
            q.keys,
            megabytes(q.state),
            megabytes(q.disk),
            megabytes(q.resident)
        );
    }
}

fn host(file: &Path, set: &[String]) -> Child {
    let mut command = Command::new(binary());
    command.arg("run").arg(file);
    for pair in set {
        command.arg("--set").arg(pair);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    spawn_bound(command).expect("the binary starts")
}

fn watch(host: &mut Child, metrics: &Path, whole: Duration) -> ([Quarter; 4], u64) {
    let (mut quarters, mut rows) = ([Quarter::default(); 4], 0);
    let start = Instant::now();
    while start.elapsed() < whole {
        std::thread::sleep(LOOK_EVERY);
        let ended = host.try_wait().expect("a child");
        assert!(ended.is_none(), "the host ended by itself: {ended:?}");
        let Ok(text) = std::fs::read_to_string(metrics) else {
            continue;
        };
        let status: Value = serde_json::from_str(&text).expect("a file is whole");
        let share = start.elapsed().as_secs_f64() / whole.as_secs_f64();
        let quarter = &mut quarters[((share * 4.0) as usize).min(3)];
        let steps = status["steps"].as_object().expect("steps");
        let keys = steps.values().filter_map(|s| s["keys"].as_u64()).sum();
        let sinks = status["sinks"].as_object().expect("sinks");
        rows = sinks
            .values()
            .filter_map(|s| s["records_out"].as_u64())
            .sum();
        let number = |name: &str| status[name].as_u64().unwrap_or_else(|| panic!("{name}"));
        quarter.keys = quarter.keys.max(keys);
        quarter.state = quarter.state.max(number("state_bytes"));
        quarter.disk = quarter.disk.max(number("state_disk_bytes"));
        quarter.resident = quarter.resident.max(resident(host.id()));
    }
    (quarters, rows)
}

/// Bytes of memory a process holds.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.expect("VmRSS in kB") * 1_024
}
