//! Targets and what they do to sources, steps and sinks; then the pipeline runs on from there.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::target::index;
use super::*;
use crate::pipeline::plan::{Generate, GenerateKind};
use crate::pipeline::{self, Overrides};
use crate::plugin::Runtime;
use crate::testing::Driver;

/// Clicks of a file, purchases of the generator, and steps of the one, the other and both.
const FILE: &str = r#"
name = "shop"
[host]
state = "state"
workers = 1
[sources.clicks]
file = { path = "clicks.jsonl" }
fields = { user_id = "string", n = "int", at = "timestamp" }
event_time = { field = "at" }
[sources.buys]
generate = { kind = "transactions", per_second = 10, count = 100, seed = 1 }
[steps.counted]
from = "clicks"
key = ["user_id"]
window = { tumbling = "1m" }
aggregate = { rows = "count(*)" }
[steps.spent]
from = "buys"
key = ["user_id"]
window = { tumbling = "1m" }
aggregate = { total = "sum(amount)" }
[steps.both]
join = { left = "clicks", right = "buys", on = ["user_id"], after = "1m" }
select = ["left.n", "right.amount"]
[steps.plain]
from = "buys"
select = ["transaction_id"]
[sinks.counted]
from = ["counted"]
file = { path = "counted.jsonl" }
[sinks.spent]
from = ["spent", "both"]
file = { path = "spent.jsonl", existing = "overwrite" }
[sinks.plain]
from = ["plain"]
file = { path = "plain.jsonl", existing = "overwrite" }
"#;

struct Shop {
    dir: TempDir,
}

impl Shop {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pipeline.toml"), FILE).unwrap();
        let lines: String = (0..20)
            .map(|i| {
                format!(
                    "{{\"user_id\":\"u{}\",\"n\":{i},\"at\":\"2026-01-01T00:00:{i:02}Z\"}}\n",
                    i % 3
                )
            })
            .collect();
        std::fs::write(dir.path().join("clicks.jsonl"), lines).unwrap();
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pipeline.toml")
    }

    fn run(&self) {
        let driver = Driver::open(&self.file(), &[]).unwrap_or_else(|e| panic!("{e}"));
        let mut driver = driver.expect("something to do");
        driver.run_to_end().unwrap();
    }

    fn plan(&self) -> Plan {
        plan_of(&self.file())
    }

    fn propose(&self, target: &Target) -> Result<Proposal, RunError> {
        propose(&self.plan(), target, &|| false)
    }

    fn carry_out(&self, target: &Target) {
        self.propose(target)
            .unwrap()
            .carry_out(&self.plan())
            .unwrap();
    }

    fn lines(&self, file: &str) -> usize {
        let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap();
        text.lines().count()
    }

    fn length(&self) -> i64 {
        let meta = std::fs::metadata(self.dir.path().join("clicks.jsonl")).unwrap();
        meta.len() as i64
    }
}

fn plan_of(file: &Path) -> Plan {
    let spec = pipeline::load(file, &Overrides::default()).unwrap();
    pipeline::plan(&spec, &Runtime::new(None).unwrap()).unwrap()
}

fn offsets(all: &[(&str, u32, i64)]) -> Target {
    let mut offsets = Offsets::new();
    for (source, partition, offset) in all {
        let entry = offsets.entry((*source).into()).or_default();
        entry.insert(*partition, *offset);
    }
    Target::Offsets(offsets)
}

fn positions(proposal: &Proposal, source: &str) -> Vec<(Option<i64>, i64)> {
    let source = proposal.sources.iter().find(|s| s.name == source).unwrap();
    source.partitions.iter().map(|p| (p.now, p.then)).collect()
}

fn lost(proposal: &Proposal) -> Vec<&str> {
    proposal.steps.iter().map(|s| s.name.as_str()).collect()
}

#[test]
fn everything_again() {
    let shop = Shop::new();
    shop.run();
    let (counted, plain) = (shop.lines("counted.jsonl"), shop.lines("plain.jsonl"));
    let proposal = shop.propose(&Target::Earliest).unwrap();
    assert!(proposal.changes() && proposal.was_finished);
    assert_eq!(positions(&proposal, "clicks"), [(Some(shop.length()), 0)]);
    assert_eq!(positions(&proposal, "buys"), [(Some(100), 0)]);
    assert_eq!(lost(&proposal), ["both", "counted", "spent"]);
    let anew: Vec<_> = proposal.sinks.iter().map(|s| s.begins_anew).collect();
    assert_eq!(anew, [false, true, true]);
    // It was only asked for.
    drop(proposal);
    assert!(Driver::open(&shop.file(), &[]).unwrap().is_none());

    shop.carry_out(&Target::Earliest);
    shop.run();
    assert_eq!(
        shop.lines("counted.jsonl"),
        2 * counted,
        "behind what was there"
    );
    assert_eq!(shop.lines("plain.jsonl"), plain, "anew");
    assert!(Driver::open(&shop.file(), &[]).unwrap().is_none());
}

#[test]
fn offsets_move_what_they_name_and_the_others_keep_their_state() {
    let shop = Shop::new();
    let mut driver = Driver::open(&shop.file(), &[("sources.buys.limit.per_epoch", "10")])
        .unwrap()
        .unwrap();
    driver.epoch().unwrap();
    driver.advance(std::time::Duration::from_secs(2));
    driver.epoch().unwrap();
    driver.epoch().unwrap();
    assert!(driver.checkpoint() > 0);
    drop(driver);
    let now = shop.propose(&offsets(&[("buys", 0, 0)])).unwrap();
    let read = positions(&now, "buys")[0].0.unwrap();
    assert!((10..100).contains(&read), "{read}");
    assert_eq!(lost(&now), ["both", "spent"]);
    let both = now.steps.iter().find(|s| s.name == "both").unwrap();
    assert_eq!(both.not_read_again, ["clicks"]);
    let fates: Vec<_> = now.sinks.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(fates, ["spent", "plain"]);
    drop(now);
    shop.carry_out(&offsets(&[("buys", 0, 5)]));
    shop.run();
    let undisturbed = Shop::new();
    undisturbed.run();
    assert_eq!(
        shop.lines("counted.jsonl"),
        undisturbed.lines("counted.jsonl")
    );
    assert_eq!(shop.lines("plain.jsonl"), 95, "from 5 on, in a new file");
}

#[test]
fn a_pipeline_that_never_ran_begins_where_it_is_told() {
    let shop = Shop::new();
    let proposal = shop.propose(&offsets(&[("buys", 0, 60)])).unwrap();
    assert_eq!(positions(&proposal, "buys"), [(None, 60)]);
    assert!(lost(&proposal).is_empty());
    assert!(
        !shop.dir.path().join("state").exists(),
        "asking makes no state"
    );
    proposal.carry_out(&shop.plan()).unwrap();
    shop.run();
    assert_eq!(shop.lines("plain.jsonl"), 40);
}

#[test]
fn a_time_is_an_index_of_the_generator_and_the_whole_file() {
    let shop = Shop::new();
    shop.run();
    let start = 1_767_225_600_000_000;
    let proposal = shop.propose(&Target::Time(start + 4_000_000)).unwrap();
    assert_eq!(positions(&proposal, "buys"), [(Some(100), 40)]);
    assert_eq!(positions(&proposal, "clicks"), [(Some(shop.length()), 0)]);
    let notes: Vec<_> = proposal.sources.iter().filter_map(|s| s.note).collect();
    assert_eq!(notes.len(), 1);
    let again: Vec<_> = proposal
        .sources
        .iter()
        .map(|s| s.partitions[0].again())
        .collect();
    assert_eq!(again, [shop.length() as u64, 60]);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let shop = Shop::new();
    shop.run();
    for (target, said) in [
        (
            offsets(&[("click", 0, 0)]),
            &["name click", "are clicks, buys"][..],
        ),
        (
            offsets(&[("clicks", 0, 7), ("buys", 0, 101), ("buys", 3, 0)]),
            &[
                "clicks, partition 0, offset 7: a file can only be read from its beginning",
                "buys, partition 0, offset 101: it has offsets 0 to 100",
                "buys, partition 3, offset 0: there are only its partitions 0",
            ],
        ),
    ] {
        let text = shop.propose(&target).unwrap_err().to_string();
        for part in said {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
    assert!(Driver::open(&shop.file(), &[]).unwrap().is_none());
}

#[test]
fn a_state_in_use_is_refused() {
    let shop = Shop::new();
    let _driver = Driver::open(&shop.file(), &[]).unwrap().unwrap();
    let error = shop.propose(&Target::Earliest).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
}

#[test]
fn changed_steps_may_go_with_their_state() {
    let shop = Shop::new();
    let mut driver = Driver::open(&shop.file(), &[]).unwrap().unwrap();
    driver.epoch().unwrap();
    driver.advance(std::time::Duration::from_secs(2));
    driver.epoch().unwrap();
    drop(driver);
    let edited = FILE.replace("tumbling = \"1m\"", "tumbling = \"30s\"");
    std::fs::write(shop.file(), edited).unwrap();
    let error = Driver::open(&shop.file(), &[]).err().expect("a refusal");
    assert!(
        error.to_string().contains("--drop-state counted"),
        "{error}"
    );
    shop.carry_out(&Target::Earliest);
    shop.run();
}

#[test]
fn the_index_of_a_time() {
    let generate = |per_second, speed, count| Generate {
        kind: GenerateKind::Clicks,
        per_second,
        count,
        seed: 1,
        speed,
        start: 1_000_000,
        users: 1,
        products: 1,
    };
    for (per_second, speed, count, time, expected) in [
        (10.0, 1.0, None, 0, 0),
        (10.0, 1.0, None, 1_000_000, 0),
        (10.0, 1.0, None, 1_000_001, 1),
        (10.0, 1.0, None, 2_000_000, 10),
        (10.0, 60.0, None, 61_000_000, 10),
        (10.0, 1.0, Some(4), 2_000_000, 4),
        (10.0, 1.0, None, i64::MIN, 0),
        (1e9, 1.0, None, i64::MAX, i64::MAX),
    ] {
        let index = index(&generate(per_second, speed, count), time);
        assert_eq!(index, expected, "{per_second} {speed} {count:?} {time}");
    }
}
