//! What each operator reads, keeps and gives, in words.

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;

use crate::pipeline::describe::{input_name, input_schema};
use crate::pipeline::plan::{
    Join, JoinKind, Operator, Order, Plan, Plugin, Step, Window, WindowKind,
};
use crate::pipeline::show_duration;
use crate::plugin::{AlarmClock, Kind, StateLayout};

/// The input columns that the step reads, and which go on.
pub fn read(plan: &Plan, step: &Step) -> String {
    let schema = input_schema(plan, step.inputs[0]);
    let key = step.keys.as_ref().map_or(&[][..], |k| k[0].as_slice());
    match &step.operator {
        Operator::Project { filter, projection } => {
            let of_filter = filter.as_ref().map_or_else(Vec::new, |f| f.columns());
            match projection {
                Some(projection) => {
                    let read = of_filter.into_iter().chain(projection.columns());
                    format!("{}; the others go no further", share(schema, read))
                }
                None if of_filter.is_empty() => "all go on".into(),
                None => format!("{}; all go on", share(schema, of_filter)),
            }
        }
        Operator::Lookup(lookup) => {
            let table = &plan.tables[lookup.table];
            let added: Vec<&str> = (lookup.add.iter())
                .map(|i| table.schema.field(*i).name().as_str())
                .collect();
            format!(
                "{}; all go on, with {} of the table",
                share(schema, [lookup.on]),
                added.join(", ")
            )
        }
        Operator::Window(window) => {
            let read = key.iter().copied().chain(window.aggregation.columns());
            format!("{}; the others go no further", share(schema, read))
        }
        Operator::Top(_) => "all go on".into(),
        Operator::Join(join) => {
            let side = |at: usize| {
                let schema = input_schema(plan, step.inputs[at]);
                let keys = step.keys.as_ref().and_then(|k| k.get(at));
                let keys = keys.into_iter().flatten().copied();
                let read = share(schema, keys.chain(join.carried[at].iter().copied()));
                let kept = names(schema, join.carried[at].iter().copied());
                let kept = if kept.is_empty() {
                    "none"
                } else {
                    kept.as_str()
                };
                format!(
                    "{}: {read}, of which are kept: {kept}",
                    input_name(plan, step.inputs[at])
                )
            };
            format!("only what `select` needs is kept. {}. {}", side(0), side(1))
        }
        Operator::Deduplicate(_) => {
            format!("{}; all go on", share(schema, key.iter().copied()))
        }
        Operator::Plugin(plugin) => format!(
            "the key and what the plugin asks for: see `tidemill plugin inspect {} --pipeline FILE --step {}`",
            plugin.file.display(),
            step.name
        ),
    }
}

fn share(schema: &SchemaRef, read: impl IntoIterator<Item = usize>) -> String {
    let read: BTreeSet<usize> = read.into_iter().collect();
    let (n, all) = (read.len(), schema.fields().len());
    match n {
        0 => format!("reads none of {all}"),
        n => format!("reads {n} of {all}: {}", names(schema, read)),
    }
}

fn names(schema: &SchemaRef, columns: impl IntoIterator<Item = usize>) -> String {
    let names: Vec<&str> = (columns.into_iter())
        .map(|i| schema.field(i).name().as_str())
        .collect();
    names.join(", ")
}

/// What checkpoints hold of the step, and until when.
pub fn state(step: &Step) -> String {
    match &step.operator {
        Operator::Project { .. } | Operator::Lookup(_) => "nothing".into(),
        Operator::Window(window) => of_window(step, window),
        Operator::Top(top) => format!(
            "the best {} rows of each window that is not complete",
            top.n
        ),
        Operator::Join(join) => of_join(join),
        Operator::Deduplicate(deduplicate) => format!(
            "for each key the time of the row that passed, until the watermark is {} past it",
            show_duration(deduplicate.within)
        ),
        Operator::Plugin(plugin) => of_plugin(plugin),
    }
}

fn of_window(step: &Step, window: &Window) -> String {
    let each = |key: &str, global: &str| match step.keys.as_ref().is_some_and(|k| k[0].is_empty()) {
        true => global.to_owned(),
        false => key.to_owned(),
    };
    let aggregates = step.signature["aggregate"].as_array();
    let texts: Vec<&str> = (aggregates.into_iter().flatten())
        .filter_map(|a| a["aggregate"].as_str())
        .collect();
    let what = format!("partial results of {}", texts.join(", "));
    let lateness = match window.allowed_lateness {
        0 => String::new(),
        lateness => format!(" + {}", show_duration(lateness)),
    };
    match window.kind {
        WindowKind::Tumbling(_) => format!(
            "{what}, {}, until the watermark reaches its end{lateness}: then its result goes out",
            each("for each key and open window", "for each open window"),
        ),
        WindowKind::Sliding { size, every } => format!(
            "{what}, {} of {}; a window's result is put together of its {} pieces and goes out when the watermark \
             reaches its end{lateness}",
            each("for each key and piece", "for each piece"),
            show_duration(every),
            size / every.max(1)
        ),
        WindowKind::Session(gap) => format!(
            "{what}, {}, until the watermark is {} past its last row: then its result goes out",
            each("for each key and open session", "for each open session"),
            show_duration(gap)
        ),
    }
}

fn of_join(join: &Join) -> String {
    let unmatched = match join.kind {
        JoinKind::Inner => "",
        JoinKind::Left => "; a left row without a match goes out then",
        JoinKind::Right => "; a right row without a match goes out then",
        JoinKind::Full => "; a row without a match goes out then",
    };
    format!(
        "rows of both sides until nothing on time can match them: left rows for {}, right rows for {} past their time; \
         pairs go out at once{unmatched}",
        show_duration(join.after),
        show_duration(join.before)
    )
}

fn of_plugin(plugin: &Plugin) -> String {
    if plugin.component.kind() == Kind::Transform {
        return "nothing".into();
    }
    let about = plugin.component.description();
    let mut parts = Vec::new();
    match about.state {
        StateLayout::None => {}
        StateLayout::Fixed(words) => parts.push(format!("{} bytes for each key", words * 8)),
        StateLayout::Blob => parts.push("the plugin's state of each key".to_owned()),
    }
    match about.alarms {
        AlarmClock::None => {}
        AlarmClock::EventTime => {
            parts.push("an alarm of each key, which the watermark fires".into())
        }
        AlarmClock::ProcessingTime => {
            parts.push("an alarm of each key, which the clock fires".into())
        }
    }
    if let Some(ttl) = plugin.state_ttl {
        let ttl = show_duration(ttl);
        parts.push(format!(
            "a key is forgotten when {ttl} have passed since it was last touched"
        ));
    }
    if plugin.order == Order::EventTime {
        parts.push(format!(
            "rows that wait until the watermark has passed them, so that they come in order, up to {} MB",
            plugin.limits.wait >> 20
        ));
    }
    match parts.is_empty() {
        true => "nothing".into(),
        false => parts.join("; "),
    }
}

/// Of the rows that the step gives.
pub fn event_time(step: &Step) -> String {
    if !step.has_event_time {
        return "none: its input has none".into();
    }
    match &step.operator {
        Operator::Window(_) => "window_end - 1ms".into(),
        Operator::Join(_) => "the later one of the pair; of a row without a match its own".into(),
        Operator::Plugin(plugin) if plugin.component.kind() == Kind::Keyed => {
            "that of the row, or of the alarm, that it comes from".into()
        }
        _ => "that of the row it comes from".into(),
    }
}

/// Which rows are late for the step.
pub fn late(step: &Step) -> &'static str {
    match &step.operator {
        Operator::Window(window) => match window.kind {
            WindowKind::Session(_) => "rows of a session that is over",
            _ if window.allowed_lateness > 0 => "rows of windows that are not corrected any more",
            _ => "rows of windows whose result is out",
        },
        Operator::Join(_) => {
            "rows of either side below the watermark, whose match may be forgotten"
        }
        Operator::Deduplicate(_) => "rows below the watermark: what they repeat may be forgotten",
        _ => "rows below the watermark, which came too late for their order",
    }
}
