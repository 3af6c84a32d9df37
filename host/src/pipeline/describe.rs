//! A plan in a few lines, for `tidemill check`.

use std::fmt::Write;

use super::plan::{
    Brokers, Cluster, DeadLetters, Input, LookupKind, Operator, Order, Plan, Roll, SinkConnector,
    Source, SourceConnector, Step, Table, TableConnector, Top, Topics, WindowKind,
};
use super::resolve::type_name;
use super::values::show_duration;
use crate::time::MICROS_PER_SECOND;
use arrow::datatypes::SchemaRef;

/// Sources, tables, steps with operators, ports and columns, sinks: one line each. Shows no secret.
pub fn describe(plan: &Plan) -> String {
    let mut out = format!("pipeline {}\n", plan.name);
    for source in &plan.sources {
        let time = match &source.event_time {
            Some(time) => format!("event time {}", source.schema.field(time.column).name()),
            None => "no event time".into(),
        };
        let from = source_place(source);
        line(&mut out, "source", &source.name, &format!("{from}, {time}"));
        columns(&mut out, "", &source.schema);
    }
    for table in &plan.tables {
        let key = table.schema.field(table.key).name();
        let about = format!("{}, key {key}", table_place(table));
        line(&mut out, "table", &table.name, &about);
        columns(&mut out, "", &table.schema);
    }
    for step in &plan.steps {
        line(&mut out, "step", &step.name, &step_about(plan, step));
        for (i, port) in step.ports.iter().enumerate() {
            let name = if i == 0 { "" } else { &port.name };
            columns(&mut out, name, &port.schema);
        }
    }
    for sink in &plan.sinks {
        let from: Vec<_> = sink.inputs.iter().map(|i| i.label.as_str()).collect();
        let to = sink_place(&sink.connector);
        line(
            &mut out,
            "sink",
            &sink.name,
            &format!("{} -> {to}", from.join(", ")),
        );
    }
    let dead = match &plan.dead_letters {
        DeadLetters::Kafka { cluster, topic } => kafka_place(cluster, topic),
        DeadLetters::File { path } => format!("file {}", path.display()),
    };
    line(&mut out, "dead letters", "", &dead);
    out
}

fn line(out: &mut String, what: &str, name: &str, about: &str) {
    let gap = if name.is_empty() { "" } else { " " };
    let _ = writeln!(out, "{what}{gap}{name}: {about}");
}

fn columns(out: &mut String, port: &str, schema: &SchemaRef) {
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .map(|f| {
            let null = if f.is_nullable() { "?" } else { "" };
            format!("{} {}{null}", f.name(), type_name(f.data_type()))
        })
        .collect();
    let port = if port.is_empty() {
        String::new()
    } else {
        format!(".{port}: ")
    };
    let _ = writeln!(out, "    {port}{}", columns.join(", "));
}

/// What positions in a source are positions of: it must stay the same while they count. Brokers and directories may move.
pub fn source_identity(source: &Source) -> String {
    match &source.connector {
        SourceConnector::Kafka { topics, .. } => match topics {
            Topics::Named(names) => format!("topic {}", names.join(", ")),
            Topics::Pattern(pattern) => format!("topics like {pattern}"),
        },
        SourceConnector::File { path } => {
            let name = path.file_name().unwrap_or(path.as_os_str());
            format!("file {}", name.display())
        }
        SourceConnector::Generate(generate) => {
            format!(
                "generated {}",
                format!("{:?}", generate.kind).to_lowercase()
            )
        }
    }
}

/// Whether positions of what [`source_identity`] was `old` are positions of `source`, too. Topics may be added.
pub fn goes_on(old: &str, source: &Source) -> bool {
    let added = |names: &[String]| {
        let old = old.strip_prefix("topic ");
        old.is_some_and(|old| old.split(", ").all(|name| names.iter().any(|n| n == name)))
    };
    match &source.connector {
        SourceConnector::Kafka {
            topics: Topics::Named(names),
            ..
        } if added(names) => true,
        _ => old.is_empty() || old == source_identity(source),
    }
}

pub(super) fn table_place(table: &Table) -> String {
    match &table.connector {
        TableConnector::File { path } => format!("file {}", path.display()),
        TableConnector::Kafka { cluster, topic } => kafka_place(cluster, topic),
    }
}

pub(super) fn source_place(source: &Source) -> String {
    match &source.connector {
        SourceConnector::Kafka {
            cluster, topics, ..
        } => match topics {
            Topics::Named(names) => kafka_place(cluster, &names.join(", ")),
            Topics::Pattern(pattern) => kafka_place(cluster, &format!("like {pattern}")),
        },
        SourceConnector::File { path } => format!("file {}", path.display()),
        SourceConnector::Generate(generate) => {
            let count = match generate.count {
                Some(count) => format!("{count} records"),
                None => "for ever".into(),
            };
            format!("generator, {} a second, {count}", generate.per_second)
        }
    }
}

fn kafka_place(cluster: &Cluster, topic: &str) -> String {
    match &cluster.brokers {
        Brokers::Embedded => format!("topic {topic} on the embedded broker"),
        Brokers::At(hosts) => format!("topic {topic} at {hosts}"),
    }
}

fn step_about(plan: &Plan, step: &Step) -> String {
    let from: Vec<_> = step.inputs.iter().map(|i| input_name(plan, *i)).collect();
    format!("{} -> {}", from.join(", "), operator_words(plan, step))
}

/// What a step does, with its key.
pub(super) fn operator_words(plan: &Plan, step: &Step) -> String {
    let operator = match &step.operator {
        Operator::Project { filter, projection } => match (filter, projection) {
            (None, None) => "all rows".into(),
            (Some(_), None) => "where".into(),
            (None, Some(_)) => "select".into(),
            (Some(_), Some(_)) => "where and select".into(),
        },
        Operator::Lookup(lookup) => {
            let kind = match lookup.kind {
                LookupKind::Left => "",
                LookupKind::Inner => "inner ",
            };
            format!("{kind}lookup in {}", plan.tables[lookup.table].name)
        }
        Operator::Window(window) => match window.kind {
            WindowKind::Tumbling(size) => format!("tumbling window of {}", show_duration(size)),
            WindowKind::Sliding { size, every } => format!(
                "sliding window of {} every {}",
                show_duration(size),
                show_duration(every)
            ),
            WindowKind::Session(gap) => format!("sessions with gaps below {}", show_duration(gap)),
        },
        Operator::Top(top) => return ranking_words(plan, step, top),
        Operator::Join(join) => format!(
            "{} join, right from {} before to {} after left",
            format!("{:?}", join.kind).to_lowercase(),
            show_duration(join.before),
            show_duration(join.after)
        ),
        Operator::Deduplicate(d) => format!("first row within {}", show_duration(d.within)),
        Operator::Plugin(plugin) => {
            let order = match plugin.order {
                Order::Arrival => "",
                Order::EventTime => ", in event-time order",
            };
            let forgets = plugin
                .state_ttl
                .map(|ttl| format!(", forgets after {}", show_duration(ttl)));
            let forgets = forgets.unwrap_or_default();
            format!("plugin {}{order}{forgets}", plugin.file.display())
        }
    };
    let key = match step.keys.as_ref().and_then(|keys| keys.first()) {
        None => String::new(),
        Some(key) if key.is_empty() => String::new(),
        Some(key) => {
            let schema = input_schema(plan, step.inputs[0]);
            let names: Vec<_> = key
                .iter()
                .map(|i| schema.field(*i).name().as_str())
                .collect();
            format!(" by {}", names.join(", "))
        }
    };
    format!("{operator}{key}")
}

fn ranking_words(plan: &Plan, step: &Step, top: &Top) -> String {
    let schema = input_schema(plan, step.inputs[0]);
    let by = top.by.iter().map(|&(column, descending)| {
        let name = schema.field(column).name();
        format!("{name}{}", if descending { " desc" } else { "" })
    });
    let by: Vec<_> = by.collect();
    format!("first {} of each window by {}", top.n, by.join(", "))
}

pub(super) fn input_name(plan: &Plan, input: Input) -> String {
    match input {
        Input::Source(source) => plan.sources[source].name.clone(),
        Input::Port { step, port: 0 } => plan.steps[step].name.clone(),
        Input::Port { step, port } => {
            let step = &plan.steps[step];
            format!("{}.{}", step.name, step.ports[port].name)
        }
    }
}

pub(super) fn input_schema(plan: &Plan, input: Input) -> &SchemaRef {
    match input {
        Input::Source(source) => &plan.sources[source].schema,
        Input::Port { step, port } => &plan.steps[step].ports[port].schema,
    }
}

/// Where a sink writes, in a few words; no secret.
pub fn sink_place(connector: &SinkConnector) -> String {
    match connector {
        SinkConnector::Kafka { cluster, topic, .. } => kafka_place(cluster, topic),
        SinkConnector::File { path, .. } => format!("file {}", path.display()),
        SinkConnector::Files { dir, roll, .. } => {
            format!("files in {}, {}", dir.display(), rolled(roll))
        }
        SinkConnector::Parquet {
            dir,
            roll,
            partition_by,
            ..
        } => {
            let by = match partition_by.as_slice() {
                [] => String::new(),
                columns => format!(", partitioned by {}", columns.join(", ")),
            };
            format!("Parquet files in {}{by}, {}", dir.display(), rolled(roll))
        }
        SinkConnector::Console { rows } => format!("console, {rows} rows"),
        SinkConnector::Webhook(webhook) => {
            let rows = match webhook.batch {
                1 => "a row a request".to_string(),
                n => format!("up to {n} rows a request"),
            };
            format!("{}, {rows}", webhook.place())
        }
        SinkConnector::Postgres(postgres) => {
            let key = match postgres.key.is_empty() {
                true => String::new(),
                false => format!(", one row for each {}", postgres.key.join(", ")),
            };
            format!(
                "table {} in {}{key}",
                postgres.table.join("."),
                postgres.place
            )
        }
    }
}

fn rolled(roll: &Roll) -> String {
    let seconds = roll.every as f64 / MICROS_PER_SECOND as f64;
    let kib = roll.bytes.div_ceil(1 << 10);
    let size = match kib {
        kib if kib % 1_024 == 0 => format!("{} MB", kib >> 10),
        kib => format!("{kib} KB"),
    };
    format!("a new one after {seconds} s or {size}")
}
