//! A plan as a Mermaid flowchart, for `tidemill check --diagram`.
//!
//! Shows no secret. A window and its ranking (`top`) are one box, as in the file. Whatever a name or path holds, it stays
//! text: nothing in it can end a label.

use std::fmt::Write;

use super::describe::{input_schema, operator_words, sink_place, source_place, table_place};
use super::plan::{Input, Operator, Plan, Step};
use super::resolve::unused::names;

/// Sources, tables, steps and sinks as boxes, rows as arrows; ports and sides of joins stand on them.
pub fn diagram(plan: &Plan) -> String {
    let mut out = String::from("flowchart LR\n");
    for source in &plan.sources {
        let text = label(&[&source.name, &source_place(source)]);
        let _ = writeln!(out, "    source_{}([\"{text}\"])", source.name);
    }
    for table in &plan.tables {
        let text = label(&[&table.name, &table_place(table)]);
        let _ = writeln!(out, "    table_{}[(\"{text}\")]", table.name);
    }
    for (index, step) in plan.steps.iter().enumerate() {
        if ranked(plan, index).is_some() {
            continue;
        }
        let mut lines = vec![step.name.clone(), operator_words(plan, step)];
        lines.extend(ranking(plan, index).map(|top| operator_words(plan, top)));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let _ = writeln!(out, "    step_{}[\"{}\"]", step.name, label(&lines));
    }
    for sink in &plan.sinks {
        let text = label(&[&sink.name, &sink_place(&sink.connector)]);
        let _ = writeln!(out, "    sink_{}[[\"{text}\"]]", sink.name);
    }
    for (index, step) in plan.steps.iter().enumerate() {
        if ranked(plan, index).is_none() {
            arrows_into(&mut out, plan, step);
        }
    }
    for sink in &plan.sinks {
        for input in &sink.inputs {
            arrow(
                &mut out,
                plan,
                input.input,
                None,
                &format!("sink_{}", sink.name),
            );
        }
    }
    out
}

fn arrows_into(out: &mut String, plan: &Plan, step: &Step) {
    let to = format!("step_{}", step.name);
    for (i, input) in step.inputs.iter().enumerate() {
        let side = match step.operator {
            Operator::Join(_) => Some(["left", "right"][i.min(1)]),
            _ => None,
        };
        arrow(out, plan, *input, side, &to);
    }
    for table in &plan.tables {
        let on = match &step.operator {
            Operator::Lookup(lookup) if plan.tables[lookup.table].name == table.name => {
                let column = input_schema(plan, step.inputs[0]).field(lookup.on);
                format!("|\"{}\"|", escape(column.name()))
            }
            Operator::Plugin(plugin) if mentions(&plugin.config, &table.name) => String::new(),
            _ => continue,
        };
        let _ = writeln!(out, "    table_{} -.->{on} {to}", table.name);
    }
}

/// Rows of `input` go to the box `to`.
fn arrow(out: &mut String, plan: &Plan, input: Input, side: Option<&str>, to: &str) {
    let (from, port) = match input {
        Input::Source(i) => (format!("source_{}", plan.sources[i].name), None),
        Input::Port { step, port } => {
            let name = &plan.steps[ranked(plan, step).unwrap_or(step)].name;
            let port = (port > 0).then(|| plan.steps[step].ports[port].name.as_str());
            (format!("step_{name}"), port)
        }
    };
    let said: Vec<String> = side.into_iter().chain(port).map(escape).collect();
    let _ = match said.is_empty() {
        true => writeln!(out, "    {from} --> {to}"),
        false => writeln!(out, "    {from} -->|\"{}\"| {to}", said.join(": ")),
    };
}

/// The window whose rows this step ranks, if it is a ranking.
pub(super) fn ranked(plan: &Plan, step: usize) -> Option<usize> {
    match (&plan.steps[step].operator, plan.steps[step].inputs.first()) {
        (Operator::Top(_), Some(Input::Port { step: window, .. })) => Some(*window),
        _ => None,
    }
}

/// The step that ranks the rows of this window.
pub(super) fn ranking(plan: &Plan, window: usize) -> Option<&Step> {
    let ranks = |i: &usize| ranked(plan, *i) == Some(window);
    (0..plan.steps.len()).find(ranks).map(|i| &plan.steps[i])
}

/// A plugin names its tables in its config.
fn mentions(config: &str, table: &str) -> bool {
    serde_json::from_str(config).is_ok_and(|config| names(&config, table))
}

fn label(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
    lines.join("<br/>")
}

/// Text that means nothing to Mermaid or HTML; characters that would end a line or move a cursor become spaces.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("#quot;"),
            '#' => escaped.push_str("#35;"),
            '&' => escaped.push_str("#amp;"),
            '<' => escaped.push_str("#lt;"),
            '>' => escaped.push_str("#gt;"),
            '`' => escaped.push_str("#96;"),
            '\\' => escaped.push_str("#92;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_a_label() {
        for (text, expected) in [
            ("plain-1.2 ü", "plain-1.2 ü"),
            ("a\"] --> b[\"", "a#quot;] --#gt; b[#quot;"),
            ("#quot;", "#35;quot;"),
            ("<script>&amp;", "#lt;script#gt;#amp;amp;"),
            ("`x`\n\x1b[2J", "#96;x#96;  [2J"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }
}
