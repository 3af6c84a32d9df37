//! `[steps.X]`: one operator each. Filters and lookups are here; the larger operators have files of their own.

use std::collections::BTreeSet;

use super::super::plan::LookupKind;
use super::super::read::Reader;
use super::super::spec::{Lookup, Operator, Step};
use super::super::text::Spanned;
use super::{plugin, windows};

/// What each operator takes besides its own key and `from`.
const OPERATORS: [(&str, &[&str]); 5] = [
    ("deduplicate", &[]),
    ("join", &["select"]),
    ("lookup", &[]),
    ("plugin", &["key", "order", "state_ttl", "limits"]),
    ("window", &["key", "aggregate", "allowed_lateness", "top"]),
];
/// A step with none of them filters and projects.
const FILTER: &[&str] = &["where", "select"];

pub fn step(name: Spanned<String>, r: &mut Reader) -> Step {
    let clear = misplaced(r);
    let mut from = match r.has("join") {
        true => Vec::new(),
        false => windows::names(r),
    };
    let project = Operator::Project {
        filter: r.string("where"),
        select: select(r),
    };
    let several = OPERATORS.iter().filter(|(key, _)| r.has(key)).count() > 1;
    let operator = if several {
        None
    } else if r.has("plugin") {
        plugin::plugin(r).map(|p| Operator::Plugin(Box::new(p)))
    } else if r.has("lookup") {
        r.nested("lookup", lookup).map(Operator::Lookup)
    } else if r.has("window") {
        windows::window(r).map(|w| Operator::Window(Box::new(w)))
    } else if r.has("join") {
        windows::join(r).map(|(join, sides)| {
            from = sides;
            Operator::Join(Box::new(join))
        })
    } else if r.has("deduplicate") {
        windows::deduplicate(r).map(Operator::Deduplicate)
    } else {
        let broken = r.has("select") && matches!(&project, Operator::Project { select: None, .. });
        (!broken).then_some(project)
    };
    // All are known, whichever the step has: one of another operator was told already.
    for (operator, options) in OPERATORS {
        r.node(operator);
        for key in options {
            r.node(key);
        }
    }
    Step {
        name,
        from,
        operator: operator.filter(|_| clear),
    }
}

pub(super) fn select(r: &mut Reader) -> Option<Vec<Spanned<String>>> {
    let list = r.strings("select", "[\"user_id\", \"upper(action) as action\"]")?;
    if list.value.is_empty() {
        r.findings
            .error(list.span, "`select` names no column")
            .help("leave `select` out for all columns");
        return None;
    }
    Some(list.value)
}

/// One step does one thing: refuses what belongs to another operator. False if it is not clear which one it is.
fn misplaced(r: &mut Reader) -> bool {
    let written: Vec<_> = OPERATORS.iter().filter(|(key, _)| r.has(key)).collect();
    if let [(first, _), (second, _), ..] = written[..] {
        let message = format!("{} has both `{first}` and `{second}`", r.place);
        let spans = [first, second].map(|key| r.key_span(key));
        let later = spans.into_iter().flatten().max_by_key(|s| s.start);
        r.findings
            .error(later.unwrap_or(r.span), message)
            .help("a step does one thing: make two steps of it");
        // One mistake is enough: their options are not looked at.
        return false;
    }
    let (operator, own) = match written[..] {
        [(operator, own)] => (*operator, *own),
        _ => ("filter", FILTER),
    };
    let options = OPERATORS.iter().flat_map(|(_, options)| options.iter());
    let all: BTreeSet<&str> = FILTER.iter().chain(options).copied().collect();
    for key in all {
        if let Some(span) = r.key_span(key).filter(|_| !own.contains(&key)) {
            r.findings
                .error(span, format!("a {operator} step has no `{key}`"))
                .help(place_of(key));
        }
    }
    if operator == "join"
        && let Some(span) = r.key_span("from")
    {
        r.node("from");
        r.findings
            .error(span, "a join step has no `from`")
            .help("its inputs are `left` and `right` of `join`");
    }
    true
}

fn place_of(key: &str) -> String {
    if FILTER.contains(&key) {
        return "put it in a step of its own, before or after this one".into();
    }
    let owners: Vec<_> = OPERATORS
        .iter()
        .filter(|(_, options)| options.contains(&key))
        .map(|(operator, _)| format!("`{operator}`"))
        .collect();
    format!("it belongs to a step with {}", owners.join(" or "))
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
