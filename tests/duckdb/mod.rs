//! Event time against DuckDB: thousands of small random cases, through 1 to 4 workers and crashes at random epochs.
//!
//! Needs Python with its package `duckdb`: `TIDEMILL_DUCKDB_PYTHON` names an interpreter that has it, otherwise one is set
//! up once in the target folder. Where neither can be had the tests are shown as ignored, unless
//! `TIDEMILL_DUCKDB=required`. `TIDEMILL_SEED` repeats a run.

mod data;
mod steps;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill::testing::{Driven, Driver, START};

use crate::support::running::wait;
use crate::support::{self, Pipeline};
use data::{LEFT, RIGHT, Shape};
use steps::{Check, Settings};

const DUCKDB_VERSION: &str = "1.4.2";
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

pub fn trials() -> Vec<Trial> {
    let tests: [(&'static str, fn()); 2] = [
        ("duckdb_agrees_with_one_worker_through_crashes", driven),
        ("duckdb_agrees_with_several_workers_and_kill_9", killed),
    ];
    let python = python();
    let required = std::env::var("TIDEMILL_DUCKDB").is_ok_and(|v| v == "required");
    let trial = |(name, test)| {
        let trial = support::trial(name, test);
        match &python {
            Err(reason) if !required => trial.with_kind(reason.clone()).with_ignored_flag(true),
            _ => trial,
        }
    };
    tests.into_iter().map(trial).collect()
}

/// An interpreter with DuckDB.
fn python() -> Result<PathBuf, String> {
    let works = |python: &Path| {
        let mut command = Command::new(python);
        let command = command.args(["-c", "import duckdb"]);
        command
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    if let Some(given) = std::env::var_os("TIDEMILL_DUCKDB_PYTHON") {
        let given = PathBuf::from(given);
        return match works(&given) {
            true => Ok(given),
            false => Err(format!("{} has no duckdb", given.display())),
        };
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("duckdb-venv");
    let python = venv.join("bin/python");
    if !works(&python) {
        let run = |command: &mut Command| {
            let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            done.is_ok_and(|s| s.success())
        };
        if !run(Command::new("python3").args(["-m", "venv"]).arg(&venv)) {
            return Err("needs python3 with venv".into());
        }
        let package = format!("duckdb=={DUCKDB_VERSION}");
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--retries",
            "1",
            "--timeout",
            "20",
        ];
        if !run(Command::new(&python).args(pip).arg(package)) {
            return Err("pip cannot install duckdb".into());
        }
    }
    Ok(python)
}

/// A DuckDB that answers one request after the other.
struct DuckDb {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl DuckDb {
    fn start() -> Self {
        let python = python().unwrap_or_else(|reason| panic!("{reason}"));
        let mut command = Command::new(python);
        command.arg(support::root().join("tests/duckdb/compare.py"));
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = piped.spawn().expect("python starts");
        Self {
            requests: process.stdin.take().expect("piped"),
            answers: BufReader::new(process.stdout.take().expect("piped")),
            process,
        }
    }

    /// Panics with the first difference; gives the number of rows compared.
    fn compare(&mut self, run: &Pipeline, checks: &[Check], label: &str) -> u64 {
        let dir = run.dir.path();
        let files = |names: [&str; 2]| names.map(|name| dir.join(name));
        let check = |check: &Check| {
            let file = dir.join(format!("{}.jsonl", check.step));
            let file = file.exists().then_some(file);
            json!({ "name": check.step, "file": file, "sql": check.sql, "times": check.times })
        };
        let request = json!({
            "tables": { "l": files(LEFT), "r": files(RIGHT) },
            "checks": checks.iter().map(check).collect::<Vec<_>>(),
        });
        writeln!(self.requests, "{request}").expect("python runs");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("python runs");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{label}: no answer, see standard error"));
        assert!(
            answer["differs"].is_null(),
            "{label}: {}",
            answer["differs"]
        );
        answer["rows"].as_u64().expect("a count")
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A pipeline with its data.
struct Case {
    run: Pipeline,
    checks: Vec<Check>,
    cases: usize,
    settings: Settings,
}

impl Case {
    fn new(workers: usize, cases: usize, now: i64, rng: &mut StdRng) -> Self {
        let settings = Settings::random(rng);
        let every = settings.every * SECOND;
        let span = every * rng.random_range(10..100);
        // Before and across 1970, now, and as far ahead of the clock as a record may be.
        let last = [-DAY, span / 2, now, now + DAY][rng.random_range(0..4)];
        let shape = Shape {
            cases,
            first: last - span,
            last,
            every,
            disorder: settings.lateness * SECOND,
        };
        let checks = steps::checks(&settings);
        let run = Pipeline::new(workers, &steps::pipeline(&settings, &checks));
        data::write(run.dir.path(), &shape, rng);
        Self {
            run,
            checks,
            cases,
            settings,
        }
    }
}

fn seed() -> u64 {
    let given = std::env::var("TIDEMILL_SEED").ok();
    let seed = given
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(rand::random);
    println!("seed {seed}");
    seed
}

/// One worker, epoch by epoch: checkpoints and crashes between any two.
fn driven() {
    const RUNS: u64 = 25;
    let base = seed();
    let mut duckdb = DuckDb::start();
    let (mut rows, mut cases) = (0, 0);
    for seed in (0..RUNS).map(|i| base.wrapping_add(i)) {
        let mut rng = StdRng::seed_from_u64(seed);
        let case = Case::new(1, 120, START, &mut rng);
        let label = format!("seed {seed}, {:?}", case.settings);
        let mut crashes = rng.random_range(0..4);
        let mut driver = open(&case.run, &label);
        loop {
            if rng.random_ratio(1, 4) {
                driver.advance(Duration::from_secs(1));
            }
            let driven = driver.epoch().unwrap_or_else(|e| panic!("{label}: {e}"));
            if driven == Driven::Ended {
                break;
            }
            if crashes > 0 && rng.random_ratio(1, 12) {
                crashes -= 1;
                drop(driver);
                driver = open(&case.run, &label);
            }
        }
        drop(driver);
        rows += duckdb.compare(&case.run, &case.checks, &label);
        cases += case.cases;
    }
    println!("{cases} cases, {rows} rows");
    assert!(rows > 10_000, "{rows} rows are too few to tell");
}

fn open(run: &Pipeline, label: &str) -> Driver {
    Driver::open(&run.file(), &[])
        .unwrap_or_else(|e| panic!("{label}: {e}"))
        .unwrap_or_else(|| panic!("{label}: it had ended"))
}

/// The binary with 2 to 4 workers, another number after each kill -9.
fn killed() {
    const RUNS: u64 = 10;
    let base = seed();
    let mut duckdb = DuckDb::start();
    let (mut rows, mut kills) = (0, 0);
    for seed in (0..RUNS).map(|i| base.wrapping_add(i)) {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("after 1970").as_micros() as i64;
        let case = Case::new(2, 200, now, &mut rng);
        let label = format!("seed {seed}, {:?}", case.settings);
        for _ in 0..rng.random_range(0..4) {
            let workers = format!("host.workers={}", rng.random_range(1..=4));
            let arguments = ["--set", &workers, "--set", "host.checkpoint_every=20ms"];
            let mut child = case
                .run
                .command(&arguments)
                .spawn()
                .expect("the binary starts");
            let patience = Duration::from_millis(rng.random_range(100..500));
            if wait(&mut child, patience).is_none() {
                child.kill().expect("it runs");
                child.wait().expect("it was started");
                kills += 1;
            }
        }
        let workers = format!("host.workers={}", rng.random_range(2..=4));
        let output = case.run.command(&["--set", &workers]).output();
        let output = output.expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{label}: {said}");
        rows += duckdb.compare(&case.run, &case.checks, &label);
    }
    println!("{kills} kills, {rows} rows");
    assert!(rows > 10_000, "{rows} rows are too few to tell");
}
