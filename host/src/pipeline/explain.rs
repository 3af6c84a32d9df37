//! What a plan does with rows, time and state, in words, for `tidemill check --explain`: for someone who has not read how
//! the engine works. Shows no secret, and nothing that the engine does not do.

mod operators;

use std::fmt::Write;

use super::describe::{
    input_name, input_schema, operator_words, sink_place, source_place, table_place,
};
use super::diagram::{ranked, ranking};
use super::plan::{BadRecords, Brokers, DeadLetters, Input, Plan, Source, Step};
use super::resolve::type_name;
use super::values::show_duration;
use crate::time::{MICROS_PER_MS, Micros};

/// Columns of the text.
const WIDTH: usize = 120;
const LABEL: usize = 13;

const READING: &[(&str, &str)] = &[
    (
        "worker",
        "a thread. Each reads its share of the partitions and runs all steps; rows change worker where a step needs all \
         rows of a key in one place.",
    ),
    (
        "watermark",
        "event time below which no row is expected any more. A partition's is its newest row minus `lateness`; that of a \
         source or step is the lowest of its inputs'. A partition that is read to its end and silent for `idle_after` \
         holds nobody back.",
    ),
    (
        "late",
        "a row that comes when the watermark has passed what it belongs to.",
    ),
];

/// Sources, tables, steps and sinks: how rows move, what is kept, what waits for what. At most 120 columns wide, names
/// and paths aside.
pub fn explain(plan: &Plan) -> String {
    let mut out = format!(
        "pipeline {}: {}, {}, {}; {}, a checkpoint every {}\n\n",
        plan.name,
        counted(plan.sources.len(), "source"),
        counted(
            plan.steps
                .iter()
                .enumerate()
                .filter(|(i, _)| ranked(plan, *i).is_none())
                .count(),
            "step"
        ),
        counted(plan.sinks.len(), "sink"),
        counted(plan.host.workers, "worker"),
        show_duration(plan.host.checkpoint_every.as_micros() as Micros),
    );
    READING
        .iter()
        .for_each(|(label, text)| entry(&mut out, label, text));
    for source in &plan.sources {
        heading(&mut out, "source", &source.name, &source_place(source));
        source_entries(&mut out, source);
    }
    for table in &plan.tables {
        let about = table_place(table);
        heading(&mut out, "table", &table.name, &about);
        entry(&mut out, "key", table.schema.field(table.key).name());
        entry(
            &mut out,
            "held",
            "whole, by every worker; read again when the file changes",
        );
    }
    for (index, step) in plan.steps.iter().enumerate() {
        if ranked(plan, index).is_none() {
            step_entries(&mut out, plan, index, step);
        }
    }
    for sink in &plan.sinks {
        heading(&mut out, "sink", &sink.name, &sink_place(&sink.connector));
        let from: Vec<&str> = sink.inputs.iter().map(|i| i.label.as_str()).collect();
        entry(&mut out, "writes", &from.join(", "));
    }
    heading(&mut out, "dead letters", "", &dead_letters(plan));
    entry(
        &mut out,
        "get",
        "records that cannot be read, and rows at which an expression or plugin fails, each with the reason",
    );
    out
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn heading(out: &mut String, what: &str, name: &str, about: &str) {
    let gap = if name.is_empty() { "" } else { " " };
    let _ = writeln!(out, "\n{what}{gap}{name}: {about}");
}

/// A label and text that is wrapped behind it.
fn entry(out: &mut String, label: &str, text: &str) {
    let mut line = format!("  {label:LABEL$}");
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = " ".repeat(2 + LABEL);
        }
        line.push(' ');
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{line}");
}

fn source_entries(out: &mut String, source: &Source) {
    entry(out, "columns", &columns(source.schema.fields().iter()));
    match &source.event_time {
        None => entry(
            out,
            "event time",
            "none: no step that waits for time can read it",
        ),
        Some(time) => {
            let text = format!(
                "{}; its watermark stays {} behind the newest row of each partition; a partition at its end and silent \
                 for {} is left out; rows more than {} ahead of the clock are refused",
                source.schema.field(time.column).name(),
                show_duration(time.lateness),
                show_duration(time.idle_after.as_micros() as Micros),
                show_duration(time.max_ahead)
            );
            entry(out, "event time", &text);
        }
    }
    let bad = match source.bad_records {
        BadRecords::DeadLetter => "become dead letters",
        BadRecords::Skip => "are counted and left out",
        BadRecords::Stop => "stop the pipeline",
    };
    entry(out, "bad records", bad);
}

fn columns<'a>(fields: impl Iterator<Item = &'a arrow::datatypes::FieldRef>) -> String {
    let column = |f: &arrow::datatypes::FieldRef| {
        let null = if f.is_nullable() { "?" } else { "" };
        format!("{} {}{null}", f.name(), type_name(f.data_type()))
    };
    fields.map(column).collect::<Vec<_>>().join(", ")
}

fn step_entries(out: &mut String, plan: &Plan, index: usize, step: &Step) {
    heading(out, "step", &step.name, &operator_words(plan, step));
    let from: Vec<String> = step.inputs.iter().map(|i| input_name(plan, *i)).collect();
    entry(out, "reads", &from.join(", "));
    entry(out, "columns", &operators::read(plan, step));
    entry(out, "rows move", &exchange(plan, step));
    entry(out, "keeps", &operators::state(step));
    if step.operator.has_hot_table() {
        let text = format!(
            "up to {} KB on each worker; keys that were not used lately leave it and are read back from disk",
            plan.memory_of_table() >> 10
        );
        entry(out, "in memory", &text);
    }
    let top = ranking(plan, index);
    if let Some(top) = top {
        let text = format!(
            "the {}; for that all rows of a window go to one worker, which keeps its best ones until the watermark says \
             that all have come",
            operator_words(plan, top)
        );
        entry(out, "then", &text);
    }
    if step.has_event_time {
        entry(out, "watermark", &watermark(plan, step));
    }
    let last = top.unwrap_or(step);
    entry(out, "gives", &columns(last.ports[0].schema.fields().iter()));
    entry(out, "event time", &operators::event_time(step));
    for (port, about) in step.ports.iter().enumerate() {
        let readers = match (port, top) {
            (0, Some(_)) => readers(plan, plan_index(plan, last), 0),
            _ => readers(plan, index, port),
        };
        let name = match port {
            0 => "read by".to_owned(),
            _ => format!(".{}", about.name),
        };
        entry(out, &name, &port_text(port, &about.name, &readers, step));
    }
}

fn plan_index(plan: &Plan, step: &Step) -> usize {
    let same = |s: &Step| s.name == step.name;
    plan.steps.iter().position(same).unwrap_or_default()
}

fn port_text(port: usize, name: &str, readers: &[String], step: &Step) -> String {
    let what = match (port, name) {
        (0, _) => String::new(),
        (_, "late") => format!("{}; ", operators::late(step)),
        _ => String::new(),
    };
    match (readers.is_empty(), port) {
        (false, 0) => readers.join(", "),
        (false, _) => format!("{what}read by {}", readers.join(", ")),
        (true, 0) => "nothing".into(),
        (true, _) => format!("{what}read by nothing, only counted"),
    }
}

/// Steps and sinks that read a port, rankings being part of their window.
fn readers(plan: &Plan, step: usize, port: usize) -> Vec<String> {
    let input = Input::Port { step, port };
    let steps = plan.steps.iter().filter(|s| s.inputs.contains(&input));
    let sinks = (plan.sinks.iter()).filter(|s| s.inputs.iter().any(|i| i.input == input));
    let steps = steps.map(|s| format!("step {}", s.name));
    steps
        .chain(sinks.map(|s| format!("sink {}", s.name)))
        .collect()
}

/// Which worker a row goes to before the step.
fn exchange(plan: &Plan, step: &Step) -> String {
    let Some(keys) = &step.keys else {
        return "not: each worker handles the rows that it has".into();
    };
    let key = keys.first().map_or(&[][..], Vec::as_slice);
    if key.is_empty() {
        return "all to one worker, for the step has no key: it goes no faster with more workers"
            .into();
    }
    let schema = input_schema(plan, step.inputs[0]);
    let names: Vec<&str> = key
        .iter()
        .map(|i| schema.field(*i).name().as_str())
        .collect();
    format!(
        "to the worker that owns their {} ({} key groups, shared out among the workers)",
        names.join(", "),
        plan.host.key_groups
    )
}

/// How far the step's watermark stays behind what it reads.
fn watermark(plan: &Plan, step: &Step) -> String {
    let mut behind: Vec<(String, Micros)> = Vec::new();
    for input in &step.inputs {
        for (source, micros) in behind_of(plan, *input) {
            match behind.iter_mut().find(|(name, _)| *name == source) {
                Some((_, most)) => *most = micros.max(*most),
                None => behind.push((source, micros)),
            }
        }
    }
    let each: Vec<String> = behind
        .iter()
        .map(|(name, micros)| match micros {
            0 => format!("the newest row of {name}"),
            _ => format!("the newest row of {name} - {}", show_duration(*micros)),
        })
        .collect();
    match &each[..] {
        [] => "none".into(),
        [only] => format!("{only}, in the partition that is furthest behind"),
        all => format!(
            "the lowest of: {}; each in the partition that is furthest behind",
            all.join("; ")
        ),
    }
}

/// For each source of `input`, how far behind its newest row the watermark is: lateness, and what steps hold back.
fn behind_of(plan: &Plan, input: Input) -> Vec<(String, Micros)> {
    match input {
        Input::Source(i) => {
            let source = &plan.sources[i];
            let lateness = source.event_time.as_ref().map_or(0, |t| t.lateness);
            vec![(source.name.clone(), lateness)]
        }
        Input::Port { step, .. } => {
            let step = &plan.steps[step];
            // The last millisecond of a window is no delay.
            let held = match step.holds_back {
                MICROS_PER_MS => 0,
                held => held,
            };
            let all = step.inputs.iter().flat_map(|i| behind_of(plan, *i));
            all.map(|(name, micros)| (name, micros + held)).collect()
        }
    }
}

fn dead_letters(plan: &Plan) -> String {
    match &plan.dead_letters {
        DeadLetters::File { path } => format!("file {}", path.display()),
        DeadLetters::Kafka { cluster, topic } => match &cluster.brokers {
            Brokers::Embedded => format!("topic {topic} on the embedded broker"),
            Brokers::At(hosts) => format!("topic {topic} at {hosts}"),
        },
    }
}
