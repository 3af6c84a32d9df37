//! Steps over event time: windows, interval joins, `deduplicate`.

use super::super::plan::JoinKind;
use super::super::read::Reader;
use super::super::spec::{Deduplicate, Join, Top, Window, WindowKind};
use super::super::text::Spanned;
use super::super::tree::{Kind, Node};
use super::super::values::show_duration;
use crate::time::{MICROS_PER_MS, Micros};

const AGGREGATE: &str = "aggregate = { rows = \"count(*)\" }";

pub(super) fn window(r: &mut Reader) -> Option<Window> {
    let kind = r.nested("window", kind)?;
    r.need("aggregate", AGGREGATE);
    let aggregate = r.nested("aggregate", aggregate).unwrap_or_default();
    Some(Window {
        kind,
        key: r.strings("key", "[\"product_id\"]"),
        aggregate,
        allowed_lateness: r.duration("allowed_lateness"),
        top: r.nested("top", top).flatten(),
    })
}

fn kind(r: &mut Reader) -> Option<WindowKind> {
    let tumbling = length(r, "tumbling");
    let sliding = length(r, "sliding");
    let session = length(r, "session");
    if r.has("sliding") {
        r.need("every", "every = \"1m\"");
    }
    let every = length(r, "every");
    let written: Vec<_> = ["tumbling", "sliding", "session"]
        .into_iter()
        .filter(|k| r.has(k))
        .collect();
    match written[..] {
        // A name that was misspelt is told as unknown.
        [] if r.has_unknown() => return None,
        [] => {
            let message = format!("{} names no kind of window", r.place);
            r.findings
                .error(r.span, message)
                .help("write window = { tumbling = \"1m\" }, { sliding = \"5m\", every = \"1m\" } or { session = \"30m\" }");
            return None;
        }
        [_] => {}
        [first, second, ..] => {
            let span = r.key_span(second).unwrap_or(r.span);
            r.findings
                .error(
                    span,
                    format!("a window is `{first}` or `{second}`, not both"),
                )
                .help("make two steps of it");
            return None;
        }
    }
    if let (Some(span), false) = (r.key_span("every"), r.has("sliding")) {
        r.findings
            .error(span, "only a sliding window has `every`")
            .help("write { sliding = \"5m\", every = \"1m\" }");
        return None;
    }
    if let (Some(size), Some(every)) = (&sliding, &every)
        && size.value % every.value != 0
    {
        r.findings
            .error(
                every.span,
                "`every` does not divide the length of the window",
            )
            .maybe_help(near(size.value, every.value).map(|e| format!("write every = \"{e}\"")));
        return None;
    }
    match (tumbling, sliding, every, session) {
        (Some(size), ..) => Some(WindowKind::Tumbling(size.value)),
        (_, Some(size), Some(every), _) => Some(WindowKind::Sliding {
            size: size.value,
            every: every.value,
        }),
        (.., Some(gap)) => Some(WindowKind::Session(gap.value)),
        _ => None,
    }
}

/// The longest period below `every` that divides `size`, in whole milliseconds; `None` if none is near.
fn near(size: Micros, every: Micros) -> Option<String> {
    /// Periods that are tried: a length such as a prime number of milliseconds has no useful one.
    const TRIES: usize = 10_000;
    let mut parts = (size / every + 1..=size / MICROS_PER_MS).take(TRIES);
    let whole = parts.find(|n| size % (n * MICROS_PER_MS) == 0)?;
    Some(show_duration(size / whole))
}

/// A duration of whole milliseconds: the results of a window have the time of its last millisecond.
fn length(r: &mut Reader, key: &'static str) -> Option<Spanned<Micros>> {
    let length = r.duration(key)?;
    if length.value > 0 && length.value % MICROS_PER_MS == 0 {
        return Some(length);
    }
    let message = format!("`{key}` must be one or more whole milliseconds");
    r.findings.error(length.span, message);
    None
}

fn aggregate(r: &mut Reader) -> Vec<(Spanned<String>, Spanned<String>)> {
    let mut all = Vec::new();
    let entries: Vec<_> = r.entries().collect();
    if entries.is_empty() {
        r.findings
            .error(r.span, "`aggregate` names no result")
            .help(format!("write {AGGREGATE}"));
    }
    for (name, node) in entries {
        match &node.kind {
            Kind::String(sql) => all.push((name.clone(), Spanned::new(sql.clone(), node.span))),
            _ => r.wrong(&name.value, node, "SQL such as \"count(*)\""),
        }
    }
    all
}

fn top(r: &mut Reader) -> Option<Top> {
    r.need("n", "n = 10");
    let n = r.whole("n", 1, crate::limits::TOP_ROWS_MAX as u64);
    let by = r.required("by", "by = \"revenue desc\"");
    Some(Top {
        n: n?.value as usize,
        by: by?,
    })
}

/// Both sides are read by the step, so they come back as what it reads.
pub(super) fn join(r: &mut Reader) -> Option<(Join, Vec<Spanned<String>>)> {
    let errors = r.findings.errors.len();
    let kinds = [
        ("inner", JoinKind::Inner),
        ("left", JoinKind::Left),
        ("right", JoinKind::Right),
        ("full", JoinKind::Full),
    ];
    let (left, right, mut join) = r.nested("join", |r| {
        let left = r.required("left", "left = \"clicks\"");
        let right = r.required("right", "right = \"transactions\"");
        r.need("on", "on = [\"user_id\"]");
        let on = r.strings("on", "[\"user_id\"]");
        if let Some(on) = on.as_ref().filter(|on| on.value.is_empty()) {
            r.findings.error(on.span, "`on` names no column");
        }
        r.need("after", "after = \"10m\"");
        let join = Join {
            on: on.map_or_else(Vec::new, |on| on.value),
            before: r.duration("before").map_or(0, |d| d.value),
            after: r.duration("after").map_or(0, |d| d.value),
            kind: r
                .word("kind", &kinds, &[])
                .map_or(JoinKind::Inner, |k| k.value),
            select: None,
        };
        (left, right, join)
    })?;
    join.select = super::steps::select(r);
    (r.findings.errors.len() == errors).then_some(())?;
    Some((join, vec![left?, right?]))
}

pub(super) fn deduplicate(r: &mut Reader) -> Option<Deduplicate> {
    r.nested("deduplicate", |r| {
        r.need("on", "on = [\"event_id\"]");
        let on = r.strings("on", "[\"event_id\"]");
        if let Some(on) = on.as_ref().filter(|on| on.value.is_empty()) {
            r.findings.error(on.span, "`on` names no column");
        }
        r.need("within", "within = \"1h\"");
        let within = r.duration("within");
        Some(Deduplicate {
            on: on.filter(|on| !on.value.is_empty())?,
            within: within?.value,
        })
    })
    .flatten()
}

/// The names of `from`: one, or a list of rows to be read as one.
pub(super) fn names(r: &mut Reader) -> Vec<Spanned<String>> {
    match r.node("from") {
        Some(Node {
            kind: Kind::Array(_),
            ..
        }) => {
            let list = r.strings("from", "[\"a\", \"b\"]");
            if let Some(list) = list.as_ref().filter(|l| l.value.is_empty()) {
                r.findings.error(list.span, "`from` names nothing to read");
            }
            list.map_or_else(Vec::new, |l| l.value)
        }
        _ => r
            .required("from", "from = \"my_source\"")
            .into_iter()
            .collect(),
    }
}
