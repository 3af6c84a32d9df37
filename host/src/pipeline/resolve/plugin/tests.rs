//! Ports, keys and orders of plugin steps, with what a plugin says given by hand.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::*;
use crate::pipeline::check::{Overrides, draft};
use crate::pipeline::diagnostics::Findings;
use crate::pipeline::plan::Input;
use crate::pipeline::spec::{Operator as Written, Spec};
use crate::plugin::PluginPort;

const TEXT: &str = r#"
name = "p"
[sources.s]
file = { path = "s.jsonl" }
fields = { user = "string", amount = "float" }
[steps.stateless]
from = "s"
plugin = { file = "p.wasm" }
[steps.keyed]
from = "s"
key = ["user"]
plugin = { file = "p.wasm" }
order = "event-time"
"#;

fn spec() -> Spec {
    let draft = draft(Path::new("p.toml"), TEXT.into(), &Overrides::default());
    assert!(draft.findings.is_empty());
    draft.spec
}

/// Runs `with` on a resolver of the spec, with the step at `index`, and gives the messages of what it found.
fn found<T>(
    index: usize,
    with: impl FnOnce(&mut Resolver, &spec::Step, &spec::Plugin) -> Option<T>,
) -> (Option<T>, Vec<String>) {
    let spec = spec();
    let mut findings = Findings::default();
    let mut resolver = Resolver {
        spec: &spec,
        runtime: None,
        findings: &mut findings,
        names: HashMap::new(),
        sources: Vec::new(),
        tables: Vec::new(),
        steps: Vec::new(),
        places: Vec::new(),
        components: HashMap::new(),
    };
    let step = &spec.steps[index];
    let Some(Written::Plugin(plugin)) = &step.operator else {
        panic!("{step:?}");
    };
    let result = with(&mut resolver, step, plugin);
    let said = findings.errors.into_iter().map(|e| e.message).collect();
    (result, said)
}

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("user", DataType::Utf8, false),
        Field::new("amount", DataType::Float64, false),
    ]))
}

fn port(name: &str, adds: &[&str], new_rows: bool) -> PluginPort {
    PluginPort {
        name: name.into(),
        adds: adds
            .iter()
            .map(|n| Arc::new(Field::new(*n, DataType::Int64, true)))
            .collect(),
        new_rows,
    }
}

/// The ports of a keyed step as `name: columns`, and what was found.
fn ports(ports: Vec<PluginPort>, late: bool) -> (Option<Vec<String>>, Vec<String>) {
    let input = input();
    let planned = PluginPlan {
        reads: vec![Some(1)],
        ports,
    };
    let shape = Shape {
        key: &[0],
        input: &input,
        late,
    };
    let (made, said) = found(1, |r, _, _| r.ports(&planned, &shape, Span::default()));
    let shown = made.map(|ports| {
        let columns = |p: &Port| {
            let names: Vec<_> = p
                .schema
                .fields()
                .iter()
                .map(|f| f.name().as_str())
                .collect();
            format!("{}: {}", p.name, names.join(" "))
        };
        ports.iter().map(columns).collect()
    });
    (shown, said)
}

#[test]
fn ports_have_the_input_or_the_key_in_front() {
    let (made, said) = ports(
        vec![port("out", &["z"], false), port("made", &["n", "m"], true)],
        true,
    );
    let expected = ["out: user amount z", "made: user n m", "late: user amount"];
    assert_eq!(made.unwrap(), expected, "{said:?}");
    let (made, _) = ports(vec![port("out", &["z"], false)], false);
    assert_eq!(made.unwrap(), ["out: user amount z"]);
}

#[test]
fn ports_that_cannot_be_told_apart_are_refused() {
    for (given, expected) in [
        (vec![port("late", &[], false)], "`late` is reserved"),
        (
            vec![port("a", &[], false), port("a", &[], false)],
            "`a` is there twice",
        ),
        (
            vec![port("a", &["user"], false)],
            "the input already has it",
        ),
        (vec![port("a", &["user"], true)], "the input already has it"),
        (vec![port("a", &["z", "z"], true)], "added twice"),
        (vec![], "no output port"),
    ] {
        let (made, said) = ports(given, true);
        assert!(made.is_none());
        assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
    }
}

#[test]
fn a_key_is_for_keyed_plugins() {
    let keyed = |index, kind| found(index, |r, s, p| r.keyed_or_not(s, p, kind));
    assert!(keyed(0, Kind::Transform).0.is_some());
    assert!(keyed(1, Kind::Keyed).0.is_some());
    assert!(keyed(0, Kind::Keyed).1[0].contains("needs a `key`"));
    assert!(keyed(1, Kind::Transform).1[0].contains("has no `key`"));
}

fn description(order: RowOrder, alarms: AlarmClock) -> Description {
    Description {
        name: "p".into(),
        version: "1".into(),
        config_schema: String::new(),
        state: StateLayout::Fixed(3),
        state_version: 2,
        alarms,
        order,
    }
}

#[test]
fn event_time_is_needed_where_it_is_used() {
    let order = |index, kind, asked, alarms, has_event_time| {
        let rows = Rows {
            inputs: vec![Input::Source(0)],
            schema: input(),
            has_event_time,
            corrections: false,
        };
        let description = description(asked, alarms);
        found(index, |r, s, p| {
            r.plugin_order(s, p, &rows, kind, &description)
        })
    };
    let (arrival, in_time) = (RowOrder::Arrival, RowOrder::EventTime);
    let none = AlarmClock::None;
    // Step 0 writes no order, step 1 writes event-time.
    let plain = order(0, Kind::Keyed, arrival, none, false);
    assert_eq!(plain.0, Some(Order::Arrival));
    let asked = order(0, Kind::Keyed, in_time, none, true);
    assert_eq!(asked.0, Some(Order::EventTime));
    let written = order(1, Kind::Keyed, arrival, none, true);
    assert_eq!(written.0, Some(Order::EventTime));
    for refused in [
        order(0, Kind::Keyed, in_time, none, false),
        order(1, Kind::Keyed, arrival, none, false),
        order(0, Kind::Keyed, arrival, AlarmClock::EventTime, false),
    ] {
        assert!(refused.0.is_none());
        assert!(refused.1[0].contains("needs a watermark"), "{refused:?}");
    }
    let stateless = order(1, Kind::Transform, arrival, none, true);
    assert!(stateless.1[0].contains("takes rows as they come"));
}

#[test]
fn a_signature_holds_what_the_state_depends_on() {
    let input = input();
    let shape = Shape {
        key: &[0],
        input: &input,
        late: true,
    };
    let said = description(RowOrder::EventTime, AlarmClock::None);
    let arrival = signature(Kind::Keyed, &said, &shape, Order::Arrival).to_string();
    assert_eq!(
        arrival,
        r#"{"operator":"plugin","kind":"keyed","key":[{"name":"user","type":"string"}],"state":{"fixed":3},"state_version":2,"alarms":"none","order":"arrival"}"#
    );
    let ordered = signature(Kind::Keyed, &said, &shape, Order::EventTime).to_string();
    assert!(
        ordered.contains(
            r#""input":[{"name":"user","type":"string"},{"name":"amount","type":"float"}]"#
        )
    );
}

#[test]
fn a_missing_plugin_beside_its_crate_is_one_command_away() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.wasm");
    let help = || read(&file).unwrap_err().1;
    assert_eq!(help(), "tidemill plugin build DIR --out FILE makes one");
    std::fs::write(dir.path().join("Cargo.toml"), "").unwrap();
    let command = format!("tidemill plugin build {} --out", dir.path().display());
    assert!(help().contains(&command), "{}", help());
}
