//! Keyed state that does not fit into memory, and keys that are forgotten: the results are those of a state that is all
//! there, whatever is evicted, however rows are cut into epochs, wherever it crashes.

use std::fmt::Write;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::step::Gauges;
use tidemill::testing::{Driven, Driver};

use crate::pipelines::{all_plugins, assert_all_plugins, sinks};
use crate::support::data::Data;
use crate::support::{Pipeline, assert_same_rows, plugin, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("plugins_whose_keys_are_evicted_give_the_same", evicted),
        trial(
            "keys_that_nobody_touches_are_forgotten_at_the_same_row",
            forgotten,
        ),
        trial("alarms_that_alarms_set_keep_a_key_alive", kept_by_alarms),
    ]
}

/// Next to nothing stays in memory.
const LITTLE: (&str, &str) = ("host.state_memory", "64KB");

fn open(run: &Pipeline, set: &[(&str, &str)]) -> Driver {
    Driver::open(&run.file(), set)
        .unwrap_or_else(|e| panic!("{e}"))
        .expect("there is something to do")
}

/// Readings of all steps and starts together.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    evicted: u64,
    read_back: u64,
    forgotten: u64,
}

impl Sum {
    fn add(&mut self, driver: &Driver) {
        for (
            _,
            Gauges {
                evicted,
                read_back,
                forgotten,
                ..
            },
        ) in driver.gauges()
        {
            self.evicted += evicted;
            self.read_back += read_back;
            self.forgotten += forgotten;
        }
    }
}

/// Epochs with a checkpoint each; false if the end came before `epochs` were turned.
fn turn(driver: &mut Driver, epochs: usize) -> bool {
    for _ in 0..epochs {
        driver.advance(Duration::from_secs(1));
        if driver.epoch().unwrap_or_else(|e| panic!("{e}")) == Driven::Ended {
            return false;
        }
    }
    true
}

/// Crashes every few epochs, with little memory and with plenty in turn.
fn to_the_end(run: &Pipeline, crash_every: usize) -> Sum {
    let mut sum = Sum::default();
    for start in 0.. {
        let set = if start % 3 == 2 { &[][..] } else { &[LITTLE] };
        let mut driver = open(run, set);
        let more = turn(&mut driver, crash_every);
        sum.add(&driver);
        if !more {
            break;
        }
    }
    sum
}

fn evicted() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 12_000, 11);
    let mut sum = Sum::default();
    for crash_every in [7, 40, 1_000] {
        let run = Pipeline::new(1, &all_plugins(&data, "limit = { per_epoch = 100 }", ""));
        let of_run = to_the_end(&run, crash_every);
        assert_all_plugins(&run, &data, &format!("a crash every {crash_every} epochs"));
        sum.evicted += of_run.evicted;
        sum.read_back += of_run.read_back;
    }
    println!("{sum:?}");
    assert!(sum.evicted > 100 && sum.read_back > 100, "{sum:?}");
}

const USERS: usize = 3_000;
const HOUR: i64 = 3_600;

/// Each user buys once in the first hours and once again, half of them after 20 hours, half after 30; keys are forgotten
/// after 24. Some buy a third time right after.
fn purchases() -> (String, Vec<Value>) {
    let mut rows = Vec::new();
    for user in 0..USERS {
        let first = user as i64 * 5;
        let again = first + if user % 2 == 0 { 30 } else { 20 } * HOUR + 17;
        rows.extend([(first, user), (again, user)]);
        rows.extend((user % 5 == 0).then_some((again + 400, user)));
    }
    rows.sort_unstable();
    let mut text = String::new();
    let mut seen: Vec<(i64, u64)> = vec![(i64::MIN / 2, 0); USERS];
    let mut expected = Vec::new();
    for (at, user) in rows {
        let time = show(at);
        writeln!(
            text,
            "{{\"user_id\":\"u{user}\",\"amount\":1.0,\"at\":\"{time}\"}}"
        )
        .unwrap();
        let (last, count) = &mut seen[user];
        // The alarm at the end of the five minutes was the last touch.
        let alarm = (*last).div_euclid(300) * 300 + 300;
        *count = if at - alarm >= 24 * HOUR {
            1
        } else {
            *count + 1
        };
        *last = at;
        let until = show(at.div_euclid(300) * 300 + 300);
        expected
            .push(json!({ "user_id": format!("u{user}"), "until": until, "purchases": *count }));
    }
    (text, expected)
}

fn show(seconds: i64) -> String {
    let (day, rest) = (1 + seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn forgotten() {
    let (rows, expected) = purchases();
    let mut evicted = 0;
    // How rows are cut into epochs, and how often it crashes.
    for (per_epoch, crash_every) in [(50, 1_000), (333, 9), (100_000, 1_000), (1_000, 3)] {
        let run = Pipeline::new(
            1,
            &format!(
                "[sources.purchases]\nfile = {{ path = \"{{dir}}/purchases.jsonl\" }}\n\
                 fields = {{ user_id = \"string\", amount = \"float\", at = \"timestamp\" }}\n\
                 event_time = {{ field = \"at\", lateness = \"0s\" }}\nlimit = {{ per_epoch = {per_epoch} }}\n\
                 [steps.running]\nfrom = \"purchases\"\nkey = [\"user_id\"]\nstate_ttl = \"24h\"\n\
                 plugin = {{ file = \"{}\", config = {{ every = \"5m\" }} }}\n\
                 [steps.counts]\nfrom = \"running\"\nselect = [\"user_id\", \"until\", \"purchases\"]\n{}",
                plugin("plugins/running").display(),
                sinks(&["counts"]),
            ),
        );
        std::fs::write(run.dir.path().join("purchases.jsonl"), &rows).unwrap();
        let sum = to_the_end(&run, crash_every);
        let label = format!("{per_epoch} rows an epoch, a crash every {crash_every}");
        println!("{label}: {sum:?}");
        assert_same_rows(&label, run.rows("counts.jsonl"), expected.clone());
        assert!(sum.forgotten > 0, "{label}: {sum:?}");
        evicted += sum.evicted;
    }
    assert!(evicted > 0);
}

/// Keys beat for 30 hours after a row and are forgotten an hour and a half after the last beat. It must not matter whether
/// event time passes in small steps, with a key of its own that ticks, or jumps over a chain of alarms at once.
fn kept_by_alarms() {
    const LATER: [(i64, bool); 4] = [(1, true), (29, true), (31, true), (32, false)];
    let mut rows: Vec<(i64, String)> = Vec::new();
    let mut expected = Vec::new();
    for (number, (hours, known)) in LATER.iter().enumerate() {
        let (first, again) = (60 * number as i64, 60 * number as i64 + hours * HOUR + 900);
        let user = format!("u{hours}");
        let beats = hours.min(&30) * i64::from(*known);
        expected.push(json!({ "user_id": user, "rows": 1, "beats": 0 }));
        expected.push(json!({ "user_id": user, "rows": 1 + i64::from(*known), "beats": beats }));
        rows.extend([(first, user.clone()), (again, user)]);
    }
    rows.sort_unstable();
    for (ticks, per_epoch) in [(false, 1), (false, 1_000), (true, 1), (true, 7)] {
        let mut all = rows.clone();
        if ticks {
            all.extend((0..400).map(|n| (n * 300 + 7, format!("tick{n}"))));
            all.sort_unstable();
        }
        let text: String = all
            .iter()
            .map(|(at, user)| format!("{{\"user_id\":\"{user}\",\"at\":\"{}\"}}\n", show(*at)))
            .collect();
        let run = Pipeline::new(
            1,
            &format!(
                "[sources.purchases]\nfile = {{ path = \"{{dir}}/purchases.jsonl\" }}\n\
                 fields = {{ user_id = \"string\", at = \"timestamp\" }}\n\
                 event_time = {{ field = \"at\", lateness = \"0s\" }}\nlimit = {{ per_epoch = {per_epoch} }}\n\
                 [steps.pulse]\nfrom = \"purchases\"\nkey = [\"user_id\"]\nstate_ttl = \"90m\"\n\
                 plugin = {{ file = \"{}\" }}\n\
                 [steps.counts]\nfrom = \"pulse\"\nwhere = \"user_id like 'u%'\"\n\
                 select = [\"user_id\", \"rows\", \"beats\"]\n{}",
                plugin("tests/guests/pulse").display(),
                sinks(&["counts"]),
            ),
        );
        std::fs::write(run.dir.path().join("purchases.jsonl"), text).unwrap();
        to_the_end(&run, 1_000);
        let label = format!("ticks: {ticks}, {per_epoch} rows an epoch");
        assert_same_rows(&label, run.rows("counts.jsonl"), expected.clone());
    }
}
