//! An edit of a pipeline file, what may be given up, and what becomes of each step.

use std::sync::{Arc, OnceLock};

use super::*;
use crate::engine::meta::PluginMeta;
use crate::pipeline::{self, Overrides};
use crate::plugin::Runtime;

const FILE: &str = r#"
name = "shop"
[host]
state = "/state"
workers = 2
[sources.clicks]
file = { path = "clicks.jsonl" }
fields = { user = "string", page = "string", n = "int", at = "timestamp" }
event_time = { field = "at", lateness = "1m" }
[sources.buys]
file = { path = "buys.jsonl" }
fields = { user = "string", amount = "float", at = "timestamp" }
event_time = { field = "at" }
[steps.valid]
from = "clicks"
where = "n > 0"
[steps.views]
from = "valid"
key = ["page"]
window = { tumbling = "1m" }
aggregate = { rows = "count(*)", total = "sum(n)" }
top = { n = 3, by = "rows desc" }
[steps.visits]
from = "valid"
key = ["user"]
window = { session = "30m" }
aggregate = { rows = "count(*)" }
[steps.bought]
join = { left = "clicks", right = "buys", on = ["user"], after = "10m" }
select = ["left.page", "right.amount"]
[steps.once]
from = "clicks"
deduplicate = { on = ["user", "page"], within = "1h" }
[sinks.all]
from = ["bought"]
console = {}
"#;

fn planned(text: &str) -> Plan {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::new(None).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipeline.toml");
    std::fs::write(&path, text).unwrap();
    match pipeline::check(&path, &Overrides::default(), runtime) {
        Ok((plan, _)) => plan,
        Err(report) => panic!("{report}"),
    }
}

/// What a checkpoint of a run of `plan` says, its steps being at watermark 7.
fn known(plan: &Plan) -> EngineMeta {
    let mut meta = EngineMeta {
        steps: first_steps(plan, 0, 0),
        ..EngineMeta::default()
    };
    meta.steps.values_mut().for_each(|s| s.watermark = 7);
    for source in &plan.sources {
        let entry = meta.sources.entry(source.name.clone()).or_default();
        entry.reads = source_identity(source);
    }
    for sink in &plan.sinks {
        meta.sinks
            .insert(sink.name.clone(), serde_json::Value::Null);
    }
    meta
}

/// Steps that are emptied by the edit, or the refusal, after which nothing may have changed.
fn edited(from: &str, to: &str, give_up: &[&str]) -> Result<Vec<String>, String> {
    let (old, new) = (planned(FILE), FILE.replacen(from, to, 1));
    assert_ne!(new, FILE, "`{from}` is not in the file");
    let new = planned(&new);
    let before = known(&old);
    let mut meta = before.clone();
    let give_up: Vec<String> = give_up.iter().map(|s| (*s).to_owned()).collect();
    match steps(&new, &mut meta, &give_up, (5, 0)) {
        Ok(mut dropped) => {
            dropped.sort();
            for step in &new.steps {
                let kept = &meta.steps[&step.name];
                assert_eq!(kept.signature, step.signature);
                let empty = dropped.contains(&step.name);
                assert_eq!(kept.watermark, if empty { crate::time::NO_TIME } else { 7 });
            }
            assert_eq!(meta.steps.len(), new.steps.len());
            Ok(dropped)
        }
        Err(RunError::Refused(text)) => {
            assert_eq!(meta, before);
            Err(text)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_has_no_part_in_the_state_may_change() {
    for (from, to) in [
        ("workers = 2", "workers = 7"),
        ("n > 0", "n > 5"),
        ("lateness = \"1m\"", "lateness = \"2m\""),
        // What is counted is kept already.
        (
            "aggregate = { rows = \"count(*)\" }",
            "aggregate = { visits = \"count(*) + 1\" }",
        ),
        ("from = [\"bought\"]", "from = [\"once\"]"),
        ("[sinks.all]", "[sinks.other]"),
        (
            "page = \"string\", n",
            "page = \"string\", more = \"int?\", n",
        ),
    ] {
        assert_eq!(edited(from, to, &[]).unwrap(), Vec::<String>::new(), "{to}");
    }
}

#[test]
fn steps_go_by_name_wherever_they_stand() {
    let (head, tail) = FILE.split_once("[steps.once]").unwrap();
    let (once, sinks) = tail.split_once("[sinks.all]").unwrap();
    let (top, rest) = head.split_once("[steps.valid]").unwrap();
    let moved = format!("{top}[steps.once]{once}[steps.valid]{rest}[sinks.all]{sinks}");
    let mut meta = known(&planned(FILE));
    let dropped = steps(&planned(&moved), &mut meta, &[], (5, 0)).unwrap();
    assert_eq!(dropped, Vec::<String>::new());
}

#[test]
fn a_change_is_refused_with_the_difference_or_starts_empty() {
    for (from, to, said, give_up, emptied) in [
        (
            "tumbling = \"1m\"",
            "tumbling = \"5m\"",
            &[
                "step views: `window` was { tumbling = \"1m\" }, is { tumbling = \"5m\" }",
                "its open windows with --drop-state views",
            ][..],
            "views",
            &["views", "views.top"][..],
        ),
        (
            "tumbling = \"1m\"",
            "sliding = \"1m\", every = \"30s\"",
            &["is { sliding = \"1m\", every = \"30s\" }"],
            "views",
            &["views", "views.top"],
        ),
        (
            "key = [\"page\"]",
            "key = [\"page\", \"user\"]",
            &["step views: `key` was [\"page\"], is [\"page\", \"user\"]"],
            "views",
            &["views", "views.top"],
        ),
        (
            "total = \"sum(n)\"",
            "total = \"max(n)\"",
            &["`aggregate` kept count(*), sum(n), now count(*), max(n)"],
            "views",
            &["views", "views.top"],
        ),
        (
            "n = 3, by",
            "n = 5, by",
            &[
                "step views: `n` of `top` was 3, is 5",
                "--drop-state views.top",
            ],
            "views.top",
            &["views.top"],
        ),
        (
            "top = { n = 3, by = \"rows desc\" }\n",
            "",
            &["step views: it has no `top` any more"],
            "views.top",
            &["views.top"],
        ),
        (
            "session = \"30m\"",
            "session = \"1h\"",
            &[
                "step visits: `window` was { session = \"30m\" }",
                "its open sessions",
            ],
            "visits",
            &["visits"],
        ),
        (
            "after = \"10m\"",
            "before = \"1s\", after = \"20m\"",
            &[
                "step bought: ",
                "`after` was \"10m\", is \"20m\"",
                "`before` was \"0s\", is \"1s\"",
            ],
            "bought",
            &["bought"],
        ),
        (
            "after = \"10m\"",
            "after = \"10m\", kind = \"left\"",
            &["`kind` was \"inner\", is \"left\""],
            "bought",
            &["bought"],
        ),
        (
            "\"left.page\"",
            "\"left.n\"",
            &["what is kept of the left side was [\"page\"], is [\"n\"]"],
            "bought",
            &["bought"],
        ),
        (
            "amount = \"float\"",
            "amount = \"int\"",
            &[
                "column `amount` in what is kept of the right side was of type float, is of type int",
            ],
            "bought",
            &["bought"],
        ),
        (
            "within = \"1h\"",
            "within = \"2h\"",
            &[
                "step once: `within` was \"1h\", is \"2h\"",
                "the keys that it has seen",
            ],
            "once",
            &["once"],
        ),
        (
            "deduplicate = { on = [\"user\", \"page\"], within = \"1h\" }",
            "where = \"n > 3\"",
            &["step once: it was `deduplicate`, is a filter"],
            "once",
            &["once"],
        ),
        (
            "[steps.once]",
            "[steps.first]",
            &[
                "step once: it is no longer in the file",
                "step first is new and just like it",
            ],
            "once",
            &["first", "once"],
        ),
    ] {
        let text = edited(from, to, &[]).unwrap_err();
        for part in said {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(text.contains("/state"), "{text}");
        assert_eq!(
            edited(from, to, &["valid"]).unwrap_err(),
            text,
            "another step"
        );
        assert_eq!(edited(from, to, &[give_up]).unwrap(), emptied, "{to}");
    }
}

#[test]
fn a_window_tells_its_change_once() {
    let text = edited("tumbling = \"1m\"", "tumbling = \"2m\"", &[]).unwrap_err();
    assert_eq!(text.matches("--drop-state").count(), 1, "{text}");
    // The ranking alone does not make the window fit.
    let text = edited("tumbling = \"1m\"", "tumbling = \"2m\"", &["views.top"]).unwrap_err();
    assert!(text.contains("--drop-state views"), "{text}");
}

#[test]
fn every_loss_is_told_at_once() {
    let both = FILE
        .replace("\"1h\"", "\"2h\"")
        .replace("\"30m\"", "\"1h\"");
    let mut meta = known(&planned(FILE));
    let error = steps(&planned(&both), &mut meta, &[], (5, 0)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("step once: ") && text.contains("step visits: "),
        "{text}"
    );
}

#[test]
fn steps_without_state_come_and_go() {
    let without = FILE.replace("from = \"valid\"", "from = \"clicks\"");
    let without = without.replace("[steps.valid]\nfrom = \"clicks\"\nwhere = \"n > 0\"\n", "");
    let mut meta = known(&planned(FILE));
    let dropped = steps(&planned(&without), &mut meta, &[], (5, 0)).unwrap();
    assert_eq!(dropped, ["valid"]);
    let dropped = steps(&planned(FILE), &mut meta, &[], (6, 0)).unwrap();
    assert_eq!(dropped, ["valid"], "a new step starts empty");
}

#[test]
fn what_was_given_up_is_empty_whatever_it_has_become() {
    for (from, to) in [("\"1h\"", "\"1h\" "), ("\"1h\"", "\"2h\"")] {
        let mut meta = known(&planned(FILE));
        let version = PluginMeta {
            digest: "in force".into(),
            ..PluginMeta::default()
        };
        let once = meta.steps.get_mut("once").unwrap();
        (once.given_up, once.plugin) = (true, Some(version.clone()));
        let new = planned(&FILE.replace(from, to));
        assert_eq!(steps(&new, &mut meta, &[], (5, 0)).unwrap(), ["once"]);
        assert!(!meta.steps["once"].given_up);
        // No state: it stays in force in what is the same step.
        let same = from == to.trim();
        assert_eq!(meta.steps["once"].plugin, same.then_some(version));
        assert_eq!(meta.steps["once"].watermark, crate::time::NO_TIME);
    }
}

#[test]
fn a_source_that_reads_something_else_is_refused() {
    let meta = known(&planned(FILE));
    for (from, to, fits) in [
        ("\"clicks.jsonl\"", "\"elsewhere/clicks.jsonl\"", true),
        (
            "[sources.clicks]",
            "[sources.clicks]\nbad_records = \"stop\"",
            true,
        ),
        ("\"clicks.jsonl\"", "\"other.jsonl\"", false),
    ] {
        let checked = sources(&planned(&FILE.replace(from, to)), &meta);
        assert_eq!(checked.is_ok(), fits, "{to}");
        if let Err(error) = checked {
            let text = error.to_string();
            let said = "source clicks read file clicks.jsonl, now it reads file other.jsonl";
            assert!(text.contains(said), "{text}");
        }
    }
}

#[test]
fn an_edit_of_what_has_run_to_the_end_is_noticed() {
    let plan = planned(FILE);
    let meta = known(&plan);
    for (from, to, expected) in [
        ("n > 0", "n > 1", None),
        ("\"1h\"", "\"2h\"", Some("step once")),
        ("n = 3", "n = 4", Some("step views")),
        ("[sinks.all]", "[sinks.more]", Some("sink more")),
    ] {
        let found = differs(&planned(&FILE.replace(from, to)), &meta);
        assert_eq!(found.as_deref(), expected, "{to}");
    }
}
