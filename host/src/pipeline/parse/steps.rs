//! `[steps.X]`: one operator each.

use serde_json::Value;

use super::super::plan::{LookupKind, Order};
use super::super::read::Reader;
use super::super::spec::{Lookup, Operator, Plugin, PluginLimits, Step};
use super::super::text::Spanned;
use super::super::tree::{Kind, Node};
use super::super::values;

/// Operators and options that later versions know.
const LATER: [&str; 8] = [
    "window",
    "aggregate",
    "join",
    "deduplicate",
    "top",
    "allowed_lateness",
    "state_ttl",
    "union",
];
/// Less memory than this holds no plugin at all.
const PLUGIN_MEMORY_MIN: usize = 1 << 20;

pub fn step(name: Spanned<String>, r: &mut Reader) -> Step {
    r.later(&LATER);
    let from = from(r);
    let project = Operator::Project {
        filter: r.string("where"),
        select: select(r),
    };
    let broken_project =
        r.has("select") && matches!(&project, Operator::Project { select: None, .. });
    let lookup = r.nested("lookup", lookup);
    let plugin = plugin(r);
    r.node("key");
    r.node("order");
    r.node("limits");
    misplaced(r);
    let later = LATER.iter().any(|key| r.has(key));
    let operator = match (lookup, plugin) {
        _ if later => None,
        (Some(lookup), None) if !r.has("plugin") => Some(Operator::Lookup(lookup)),
        (None, Some(plugin)) if !r.has("lookup") => Some(Operator::Plugin(Box::new(plugin))),
        (None, None) if !r.has("plugin") && !r.has("lookup") && !broken_project => Some(project),
        _ => None,
    };
    Step {
        name,
        from,
        operator,
    }
}

fn from(r: &mut Reader) -> Option<Spanned<String>> {
    if r.has("join") {
        r.node("from");
        return None;
    }
    if let Some(node) = r.node("from")
        && matches!(node.kind, Kind::Array(_))
    {
        r.findings
            .error(
                node.span,
                "`from` with a list (a union) is not supported yet",
            )
            .help("a step reads one input: from = \"clicks\"");
        return None;
    }
    r.required("from", "from = \"my_source\"")
}

fn select(r: &mut Reader) -> Option<Vec<Spanned<String>>> {
    let list = r.strings("select", "[\"user_id\", \"upper(action) as action\"]")?;
    if list.value.is_empty() {
        r.findings
            .error(list.span, "`select` names no column")
            .help("leave `select` out for all columns");
        return None;
    }
    Some(list.value)
}

/// One step does one thing: refuses what belongs to another operator.
fn misplaced(r: &mut Reader) {
    let operator = match (r.has("plugin"), r.has("lookup")) {
        (true, true) => {
            let message = format!("{} has both `lookup` and `plugin`", r.place);
            let span = r.key_span("plugin").unwrap_or(r.span);
            r.findings
                .error(span, message)
                .help("a step does one thing: make two steps of it");
            return;
        }
        (true, false) => "plugin",
        (false, true) => "lookup",
        (false, false) if LATER.iter().any(|key| r.has(key)) => return,
        (false, false) => "filter",
    };
    let wrong: &[&str] = match operator {
        "plugin" => &["where", "select"],
        "lookup" => &["where", "select", "key", "order", "limits"],
        _ => &["key", "order", "limits"],
    };
    for key in wrong {
        let Some(span) = r.key_span(key) else {
            continue;
        };
        let help = match *key {
            "where" | "select" => "put it in a step of its own, before or after this one",
            _ => "it belongs to a step with `plugin`",
        };
        r.findings
            .error(span, format!("a {operator} step has no `{key}`"))
            .help(help);
    }
}

fn lookup(r: &mut Reader) -> Lookup {
    let kinds = [("left", LookupKind::Left), ("inner", LookupKind::Inner)];
    let kind = r
        .word("kind", &kinds, &[])
        .map_or(LookupKind::Left, |k| k.value);
    // An inner lookup may do no more than filter.
    if kind == LookupKind::Left {
        r.need("add", "add = [\"category\"]");
    }
    let add = r.strings("add", "[\"category\", \"price\"]");
    let none = add.as_ref().filter(|add| add.value.is_empty());
    if let Some(add) = none.filter(|_| kind == LookupKind::Left) {
        r.findings.error(add.span, "`add` names no column");
    }
    Lookup {
        table: r.required("table", "table = \"products\""),
        on: r.required("on", "on = \"product_id\""),
        add: add.map_or_else(Vec::new, |a| a.value),
        kind,
    }
}

fn plugin(r: &mut Reader) -> Option<Plugin> {
    let errors = r.findings.errors.len();
    let mut plugin = r.nested("plugin", |r| Plugin {
        file: r.required("file", "file = \"my_plugin.wasm\""),
        config: config(r),
        sha256: digest(r),
        key: None,
        order: None,
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
    plugin.limits = r.nested("limits", limits).unwrap_or_default();
    plugin.broken = r.findings.errors.len() > errors;
    Some(plugin)
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

fn object(r: &mut Reader, table: &super::super::tree::Table) -> Value {
    let entries = table.entries.iter();
    Value::Object(
        entries
            .map(|e| (e.key.value.clone(), json(r, &e.value)))
            .collect(),
    )
}
