//! The engine epoch by epoch, with a clock that is moved by hand: a crash at every input position, and an oracle at every
//! watermark.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;
use tidemill::testing::{Driven, Driver};

use crate::pipelines::{all_plugins, assert_all_plugins, sinks};
use crate::support::data::Data;
use crate::support::{Pipeline, assert_same_rows, oracle, plugin, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_crash_at_every_position_gives_the_same_output",
            crash_everywhere,
        ),
        trial(
            "what_is_out_at_each_watermark_is_what_an_oracle_says",
            oracle_at_each_watermark,
        ),
        trial("two_crashes_in_a_row_give_the_same_output", crash_twice),
        trial(
            "rows_read_as_one_may_differ_in_what_can_be_null",
            union_of_nullable,
        ),
    ]
}

/// Records of the small runs; each epoch takes `PER_EPOCH` of each source.
const CLICKS: usize = 1_600;
const PER_EPOCH: usize = 20;
const SEED: u64 = 31;

struct Small {
    data: Data,
    run: Pipeline,
    _dir: TempDir,
}

impl Small {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let data = Data::write(dir.path(), CLICKS, SEED);
        let limit = format!("limit = {{ per_epoch = {PER_EPOCH} }}");
        let run = Pipeline::new(1, &all_plugins(&data, &limit, ""));
        Self {
            data,
            run,
            _dir: dir,
        }
    }

    fn open(&self) -> Driver {
        Driver::open(&self.run.file(), &[])
            .unwrap_or_else(|e| panic!("{e}"))
            .expect("there is something to do")
    }

    /// As if it had never run; the compiled plugins stay.
    fn forget(&self) {
        let dir = self.run.dir.path();
        let _ = std::fs::remove_dir_all(dir.join("state"));
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// Turns `epochs` epochs with a checkpoint after every third, then forgets all that was not decided.
fn run_and_crash(mut driver: Driver, epochs: usize) -> bool {
    for epoch in 0..epochs {
        if epoch % 3 == 2 {
            driver.advance(Duration::from_secs(1));
        }
        if driver.epoch().unwrap_or_else(|e| panic!("{e}")) == Driven::Ended {
            return false;
        }
    }
    true
}

fn crash_everywhere() {
    let small = Small::new();
    let mut crashes = 0;
    for epochs in 0.. {
        small.forget();
        if !run_and_crash(small.open(), epochs) {
            break;
        }
        crashes += 1;
        small.open().run_to_end().unwrap();
        assert_all_plugins(
            &small.run,
            &small.data,
            &format!("crash after {epochs} epochs"),
        );
    }
    assert!(
        crashes >= CLICKS / PER_EPOCH,
        "only {crashes} crashes: the input ended early"
    );
}

/// Clicks of two files, of which only one may lack the product, wait together for event-time order, through crashes.
fn union_of_nullable() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), CLICKS, SEED);
    let text = std::fs::read_to_string(&data.clicks).unwrap();
    let has_product = |line: &&str| line.contains("\"product_id\":\"");
    let (whole, others): (Vec<&str>, Vec<&str>) = text.lines().partition(has_product);
    assert!(!others.is_empty());
    let mut pipeline = String::new();
    for (name, lines, null) in [("whole", whole, ""), ("others", others, "?")] {
        let path = dir.path().join(format!("{name}.jsonl"));
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        pipeline += &format!(
            "[sources.{name}]\nfile = {{ path = \"{}\" }}\nfields = {{ user_id = \"string\", \
             product_id = \"string{null}\", action = \"string\", timestamp = \"timestamp\" }}\n\
             event_time = {{ field = \"timestamp\", lateness = \"5m\" }}\nlimit = {{ per_epoch = {PER_EPOCH} }}\n",
            path.display()
        );
    }
    pipeline += &format!(
        "[steps.sessions]\nfrom = [\"whole\", \"others\"]\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\", \
         config = {{ timeout = \"10m\", converted_by = [\"add_to_cart\"] }} }}\n{}",
        plugin("plugins/sessions").display(),
        sinks(&["sessions"])
    );
    for epochs in [2, 9, 30] {
        let run = Pipeline::new(1, &pipeline);
        let open = || Driver::open(&run.file(), &[]).unwrap_or_else(|e| panic!("{e}"));
        assert!(run_and_crash(open().expect("new"), epochs));
        open().expect("not at its end").run_to_end().unwrap();
        assert_same_rows(
            &format!("crash after {epochs} epochs"),
            run.rows("sessions.jsonl"),
            oracle::sessions(&data.clicks, &[]),
        );
    }
}

fn crash_twice() {
    let small = Small::new();
    for (first, second) in [(4, 0), (7, 1), (20, 5), (33, 20), (50, 2)] {
        small.forget();
        assert!(run_and_crash(small.open(), first));
        assert!(run_and_crash(small.open(), second));
        small.open().run_to_end().unwrap();
        assert_all_plugins(
            &small.run,
            &small.data,
            &format!("crashes after {first} and {second} epochs"),
        );
    }
}

/// Anomalies come in arrival order: after each epoch exactly those among the purchases read so far are out. Sessions:
/// all that are out are among those of the whole input, and none is out twice.
fn oracle_at_each_watermark() {
    let small = Small::new();
    let all = std::fs::read_to_string(&small.data.transactions).unwrap();
    let sessions = oracle::sessions(&small.data.clicks, &[]);
    let mut driver = small.open();
    let prefix = small.run.dir.path().join("prefix.txt");
    let mut read = 0;
    loop {
        driver.advance(Duration::from_secs(1));
        let more = driver.epoch().unwrap_or_else(|e| panic!("{e}"));
        read = (read + PER_EPOCH).min(all.lines().count());
        let lines: String = all.lines().take(read).map(|l| format!("{l}\n")).collect();
        std::fs::write(&prefix, lines).unwrap();
        let label = format!("anomalies among the first {read} purchases");
        assert_same_rows(
            &label,
            small.run.rows("anomalies.jsonl"),
            oracle::anomalies(&prefix),
        );
        let out = small.run.rows("sessions.jsonl");
        assert!(
            out.iter()
                .all(|s| count(&out, s) == 1 && count(&sessions, s) == 1),
            "a session too many: {out:?}"
        );
        if more == Driven::Ended {
            break;
        }
    }
    assert_all_plugins(&small.run, &small.data, "at the end");
}

fn count(rows: &[Value], row: &Value) -> usize {
    rows.iter().filter(|r| *r == row).count()
}
