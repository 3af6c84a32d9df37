//! The tree of a pipeline file read into a [`Spec`]: which keys there are and what each looks like.
//!
//! Checks one table at a time; whether a name leads anywhere is `resolve`'s concern.

mod fields;
mod files;
mod plugin;
mod remote;
mod sinks;
mod sources;
mod steps;
mod tables;
mod windows;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostics::Findings;
use super::plan::Delivery;
use super::read::Reader;
use super::secrets;
use super::spec::{Connection, DeadLetters, Host, Property, Spec};
use super::text::{Span, Spanned, Texts};
use super::tree::{Kind, Node, Table};
use super::values;
use crate::limits::{STATE_MEMORY_BYTES_MIN, TRANSACTION_TIMEOUT_MAX, TRANSACTION_TIMEOUT_MIN};

/// Key groups that a state may be divided into.
const KEY_GROUPS_MAX: u64 = 32_768;
const WORKERS_MAX: u64 = 256;

/// Reads the whole tree. Mistakes go to `findings`; the spec holds what could be read.
pub fn spec(texts: Arc<Texts>, dir: PathBuf, root: &Table, findings: &mut Findings) -> Spec {
    let mut r = Reader::new(root, "the pipeline file".into(), Span::default(), findings);
    let name = pipeline_name(&mut r);
    let host = r.nested("host", host).unwrap_or_default();
    let kafka = r.nested("kafka", |r| connection(r, true));
    let dead_letters = r.nested("dead_letters", dead_letters).flatten();
    let errors = r.findings.errors.len();
    let sources = each(&mut r, "sources", sources::source);
    if sources.is_empty() && r.findings.errors.len() == errors {
        let span = r.key_span("sources").unwrap_or_default();
        r.findings
            .error(span, "the pipeline has no source")
            .help("add a table such as [sources.clicks]");
    }
    let tables = each(&mut r, "tables", tables::table);
    let steps = each(&mut r, "steps", steps::step);
    let sinks = each(&mut r, "sinks", sinks::sink);
    r.finish();
    Spec {
        texts,
        dir,
        name,
        host,
        kafka,
        dead_letters,
        sources,
        tables,
        steps,
        sinks,
    }
}

fn pipeline_name(r: &mut Reader) -> Option<Spanned<String>> {
    let name = r.required("name", "name = \"my-pipeline\"")?;
    if values::is_pipeline_name(&name.value) && name.value.len() <= 64 {
        return Some(name);
    }
    r.findings
        .error(name.span, format!("\"{}\" is no pipeline name", name.value))
        .help("a name has 1 to 64 of a to z, 0 to 9 and `-`: it is the prefix of topics and ids");
    None
}

/// The tables below `section`, each with its id.
fn each<T>(
    r: &mut Reader,
    section: &'static str,
    mut read: impl FnMut(Spanned<String>, &mut Reader) -> T,
) -> Vec<T> {
    r.nested(section, |r| {
        r.place = format!("[{section}]");
        let mut all = Vec::new();
        for (id, node) in r.entries() {
            check_id(r, id);
            let place = format!("[{section}.{}]", id.value);
            all.extend(r.table_at(node, &id.value, place, id.span, |r| read(id.clone(), r)));
        }
        all
    })
    .unwrap_or_default()
}

fn check_id(r: &mut Reader, id: &Spanned<String>) {
    if values::is_id(&id.value) && id.value.len() <= 64 {
        return;
    }
    let like = values::id_like(&id.value).map_or(String::new(), |id| format!(", such as `{id}`"));
    r.findings
        .error(id.span, format!("`{}` is no id", id.value))
        .help(format!(
            "an id starts with a to z and has up to 64 of a to z, 0 to 9 and `_`{like}"
        ));
}

fn host(r: &mut Reader) -> Host {
    r.place = "[host]".into();
    let words = [
        ("exactly-once", Delivery::ExactlyOnce),
        ("at-least-once", Delivery::AtLeastOnce),
    ];
    let host = Host {
        state: r.string("state"),
        workers: r.whole("workers", 1, WORKERS_MAX).map(|n| n.value as usize),
        checkpoint_every: clock(r, "checkpoint_every"),
        transaction_timeout: transaction_timeout(r),
        delivery: r.word("delivery", &words, &[]),
        key_groups: r
            .whole("key_groups", 1, KEY_GROUPS_MAX)
            .map(|n| n.value as u16),
        state_memory: state_memory(r),
        admin_port: r
            .nested("admin", |r| r.whole("port", 0, 65_535))
            .flatten()
            .map(|n| n.value as u16),
        metrics: r.string("metrics"),
    };
    if let Some(metrics) = &host.metrics
        && (metrics.value.is_empty() || metrics.value.ends_with('/'))
    {
        r.findings
            .error(metrics.span, format!("\"{}\" names no file", metrics.value))
            .help("write metrics = \"output/metrics.json\"");
    }
    if let (Some(every), Some(span)) = (&host.checkpoint_every, r.key_span("checkpoint_every"))
        && every.value.as_millis() < 10
    {
        r.findings
            .error(span, "`checkpoint_every` is shorter than 10ms")
            .help("every checkpoint waits for the disk; the default is 1s");
    }
    host
}

fn state_memory(r: &mut Reader) -> Option<usize> {
    let memory = r.size("state_memory")?;
    if memory.value < STATE_MEMORY_BYTES_MIN {
        r.findings
            .error(memory.span, "`state_memory` is below 64KB")
            .help("it is shared by all workers and keyed steps; the default is 1GB");
    }
    Some(memory.value)
}

fn clock(r: &mut Reader, key: &'static str) -> Option<Spanned<Duration>> {
    let written = r.duration(key)?;
    Some(Spanned::new(values::clock(written.value), written.span))
}

fn transaction_timeout(r: &mut Reader) -> Option<Spanned<Duration>> {
    let timeout = clock(r, "transaction_timeout")?;
    let (least, most) = (TRANSACTION_TIMEOUT_MIN, TRANSACTION_TIMEOUT_MAX);
    if (least..=most).contains(&timeout.value) {
        return Some(timeout);
    }
    r.findings
        .error(
            timeout.span,
            format!(
                "`transaction_timeout` is not within {}s to {}m",
                least.as_secs(),
                most.as_secs() / 60
            ),
        )
        .help("brokers abort a transaction that is open for longer; the default is 60s, and most brokers allow no more than 15m");
    None
}

/// `brokers` and `properties` of `[kafka]` (`whole`) or among the keys of one source or sink.
pub(super) fn connection(r: &mut Reader, whole: bool) -> Connection {
    if whole {
        r.place = "[kafka]".into();
        r.need("brokers", "brokers = \"localhost:9092\"");
    }
    let brokers = r.string("brokers");
    let broken = whole && brokers.is_none();
    let properties = r.nested("properties", properties).unwrap_or_default();
    Connection {
        broken: broken || (r.has("brokers") && brokers.is_none()),
        brokers,
        properties,
        span: r.span,
    }
}

fn properties(r: &mut Reader) -> Vec<Property> {
    let mut all = Vec::new();
    for (name, node) in r.entries() {
        all.extend(property(r, name, node));
        // `security.protocol = ..` without quotes makes tables of its parts.
        if matches!(node.kind, Kind::Table(_)) {
            r.findings
                .error(name.span, format!("property `{}` is a table", name.value))
                .help("put the name in quotes: \"security.protocol\" = \"SASL_SSL\"");
        }
    }
    all
}

fn property(r: &mut Reader, name: &Spanned<String>, node: &Node) -> Option<Property> {
    let value = match &node.kind {
        Kind::String(text) => text.clone(),
        Kind::Integer(n) => n.to_string(),
        Kind::Boolean(b) => b.to_string(),
        Kind::Float(x) => x.to_string(),
        Kind::Table(_) | Kind::Broken => return None,
        _ => {
            r.wrong(&name.value, node, "a string");
            return None;
        }
    };
    if secrets::is_secret(&name.value) && !secrets::is_reference(&value) {
        r.findings
            .error(node.span, format!("the secret `{}` is written out", name.value))
            .help("give it as \"${env:NAME}\" or \"${file:/path}\": the file itself is no place for secrets");
        return None;
    }
    Some(Property {
        name: name.clone(),
        value: Spanned::new(value, node.span),
    })
}

fn dead_letters(r: &mut Reader) -> Option<DeadLetters> {
    r.place = "[dead_letters]".into();
    let kafka = r.nested("kafka", |r| DeadLetters::Kafka {
        topic: topic(r),
        connection: connection(r, false),
    });
    let file = r.nested("file", |r| DeadLetters::File {
        path: r.required("path", "path = \"dead-letters.jsonl\""),
    });
    one_connector(r, &["kafka", "file"], "[dead_letters]");
    kafka.or(file)
}

/// A topic that Kafka accepts.
pub(super) fn topic(r: &mut Reader) -> Option<Spanned<String>> {
    let topic = r.required("topic", "topic = \"my-topic\"")?;
    topic_like(r, &topic).then_some(topic)
}

/// Whether Kafka accepts a topic of this name; says so if not.
fn topic_like(r: &mut Reader, topic: &Spanned<String>) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = topic.value.as_str();
    if name.len() <= 249 && name.chars().all(allowed) && name != "." && name != ".." {
        return true;
    }
    r.findings
        .error(topic.span, format!("\"{name}\" is no name of a topic"))
        .help("a topic has up to 249 letters, digits, `.`, `_` and `-`");
    false
}

/// Says so if there is no connector among `keys`, or more than one.
pub(super) fn one_connector(r: &mut Reader, keys: &[&'static str], place: &str) {
    let written: Vec<_> = keys.iter().filter(|k| r.has(k)).collect();
    match written[..] {
        [_] => {}
        [] => {
            let list: Vec<_> = keys.iter().map(|k| format!("`{k}`")).collect();
            let message = format!("{place} names no connector");
            r.findings
                .error(r.span, message)
                .help(format!("add one of {}", list.join(", ")));
        }
        [first, second, ..] => {
            let message = format!("{place} has two connectors: `{first}` and `{second}`");
            let (a, b) = (r.key_span(first), r.key_span(second));
            let later = if a.map(|s| s.start) > b.map(|s| s.start) {
                a
            } else {
                b
            };
            r.findings
                .error(later.unwrap_or(r.span), message)
                .help("give each its own table");
        }
    }
}
