//! `plugin = { .. }` of a step, with what belongs to it: key, order, limits, config.

use serde_json::Value;

use super::super::plan::Order;
use super::super::read::Reader;
use super::super::spec::{Plugin, PluginLimits};
use super::super::text::Spanned;
use super::super::tree::{Kind, Node, Table};
use super::super::values;
use crate::time::Micros;

/// What is forgotten sooner needs no state.
const STATE_TTL_MIN: Micros = 1_000_000;
/// Less memory than this holds no plugin at all.
const PLUGIN_MEMORY_MIN: usize = 1 << 20;

pub(super) fn plugin(r: &mut Reader) -> Option<Plugin> {
    let errors = r.findings.errors.len();
    let mut plugin = r.nested("plugin", |r| Plugin {
        file: r.required("file", "file = \"my_plugin.wasm\""),
        config: config(r),
        sha256: digest(r),
        key: None,
        order: None,
        state_ttl: None,
        limits: PluginLimits::default(),
        broken: false,
    })?;
    plugin.key = r.strings("key", "[\"user_id\"]");
    if let Some(key) = plugin.key.as_ref().filter(|k| k.value.is_empty()) {
        r.findings
            .error(key.span, "`key` names no column")
            .help("a keyed plugin needs at least one; a stateless one has no `key`");
    }
    let orders = [
        ("arrival", Order::Arrival),
        ("event-time", Order::EventTime),
    ];
    plugin.order = r.word("order", &orders, &[]);
    plugin.state_ttl = state_ttl(r, plugin.key.is_some());
    plugin.limits = r.nested("limits", limits).unwrap_or_default();
    plugin.broken = r.findings.errors.len() > errors;
    Some(plugin)
}

fn state_ttl(r: &mut Reader, keyed: bool) -> Option<Spanned<Micros>> {
    let ttl = r.duration("state_ttl")?;
    if ttl.value < STATE_TTL_MIN {
        r.findings
            .error(ttl.span, "`state_ttl` is shorter than 1s")
            .help("it is event time, such as \"30d\"; without it keys are never forgotten");
    }
    if !keyed {
        r.findings
            .error(ttl.span, "a plugin without `key` keeps no state to forget")
            .help("remove `state_ttl`, or add key = [\"user_id\"]");
    }
    Some(ttl)
}

fn limits(r: &mut Reader) -> PluginLimits {
    let default = PluginLimits::default();
    let memory = r.size("memory");
    if let Some(memory) = memory.as_ref().filter(|m| m.value < PLUGIN_MEMORY_MIN) {
        r.findings
            .error(memory.span, "`memory` is below 1MB: no plugin fits in it");
    }
    let call = r.duration("call");
    if let Some(call) = call.as_ref().filter(|c| c.value < 1_000) {
        r.findings
            .error(call.span, "`call` is shorter than 1ms: no call ends in it");
    }
    PluginLimits {
        memory: memory.map_or(default.memory, |m| m.value),
        call: call.map_or(default.call, |c| values::clock(c.value)),
        failed: r.share("failed").map_or(default.failed, |s| s.value),
        wait: r.size("wait").map_or(default.wait, |s| s.value),
    }
}

fn digest(r: &mut Reader) -> Option<Spanned<String>> {
    let digest = r.string("sha256")?;
    if digest.value.len() == 64 && digest.value.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(digest.map(|d| d.to_ascii_lowercase()));
    }
    r.findings
        .error(digest.span, "`sha256` is no SHA-256 digest")
        .help("64 hexadecimal digits; `tidemill plugin inspect FILE` shows the digest");
    None
}

/// `config` as the JSON document that the plugin is given; `{}` if there is none.
fn config(r: &mut Reader) -> Spanned<Value> {
    let empty = Value::Object(serde_json::Map::new());
    let Some(node) = r.node("config") else {
        return Spanned::new(empty, r.span);
    };
    if !matches!(node.kind, Kind::Table(_)) {
        r.wrong("config", node, "a table");
        return Spanned::new(empty, node.span);
    }
    let span = r.key_span("config").unwrap_or(node.span);
    Spanned::new(json(r, node), span)
}

fn json(r: &mut Reader, node: &Node) -> Value {
    match &node.kind {
        Kind::String(text) | Kind::DateTime(text) => Value::String(text.clone()),
        Kind::Integer(n) => Value::from(*n),
        Kind::Boolean(b) => Value::Bool(*b),
        Kind::Float(x) => {
            if !x.is_finite() {
                r.findings
                    .error(node.span, format!("{x} cannot be given to a plugin"))
                    .help("a config is JSON, whose numbers are finite");
            }
            Value::from(*x)
        }
        Kind::Array(items) => items.iter().map(|item| json(r, item)).collect(),
        Kind::Table(table) => object(r, table),
        Kind::Tables(tables) => tables.iter().map(|table| object(r, table)).collect(),
        Kind::Broken => Value::Null,
    }
}

fn object(r: &mut Reader, table: &Table) -> Value {
    let entries = table.entries.iter();
    Value::Object(
        entries
            .map(|e| (e.key.value.clone(), json(r, &e.value)))
            .collect(),
    )
}
