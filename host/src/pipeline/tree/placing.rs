//! Where a header or a dotted key puts its value: TOML's rules on who may add to which table.
//!
//! Invariant: a table is opened once and a key is given once; the second of two is reported and the first stays.

use super::{Entry, Findings, Form, Kind, Node, Span, Spanned, Table};

pub(super) fn new_table(key: &Spanned<String>, form: Form) -> Entry {
    Entry {
        key: key.clone(),
        value: Node {
            kind: Kind::Table(Table {
                entries: Vec::new(),
                form,
            }),
            span: key.span,
        },
    }
}

/// Makes the table of a header and returns its path; `None` if keys below it have nowhere to go.
pub(super) fn open(
    root: &mut Table,
    path: Vec<Spanned<String>>,
    list: bool,
    findings: &mut Findings,
) -> Option<Vec<Spanned<String>>> {
    let (last, parents) = path.split_last()?;
    let mut table = root;
    for key in parents {
        table = step_into(table, key, Form::Implied, findings)?;
    }
    let Some(at) = table.position(&last.value) else {
        let mut entry = new_table(last, Form::Header);
        if list {
            entry.value.kind = Kind::Tables(vec![header_table()]);
        }
        table.entries.push(entry);
        return Some(path);
    };
    let entry = &mut table.entries[at];
    match &mut entry.value.kind {
        Kind::Tables(tables) if list => tables.push(header_table()),
        Kind::Table(table) if !list && table.form == Form::Implied => {
            table.form = Form::Header;
            // From here on the table stands where its own header is.
            entry.key.span = last.span;
            entry.value.span = last.span;
        }
        Kind::Table(table) if table.form == Form::Header => {
            duplicate(last, entry.key.span, findings);
        }
        _ => {
            duplicate(last, entry.key.span, findings);
            return None;
        }
    }
    Some(path)
}

fn header_table() -> Table {
    Table {
        entries: Vec::new(),
        form: Form::Header,
    }
}

/// The table at `path`, which a header has opened.
pub(super) fn reach<'t>(root: &'t mut Table, path: &[Spanned<String>]) -> Option<&'t mut Table> {
    path.iter().try_fold(root, |table, key| {
        let at = table.position(&key.value)?;
        as_table(&mut table.entries[at].value)
    })
}

fn as_table(node: &mut Node) -> Option<&mut Table> {
    match &mut node.kind {
        Kind::Table(table) => Some(table),
        Kind::Tables(tables) => tables.last_mut(),
        _ => None,
    }
}

/// The table under `key`, made as `form` if there is none.
fn step_into<'t>(
    table: &'t mut Table,
    key: &Spanned<String>,
    form: Form,
    findings: &mut Findings,
) -> Option<&'t mut Table> {
    let at = table.position(&key.value).unwrap_or(table.entries.len());
    if at == table.entries.len() {
        table.entries.push(new_table(key, form));
    }
    let entry = &mut table.entries[at];
    let first = entry.key.span;
    let closed = match &entry.value.kind {
        Kind::Table(table) => {
            table.form == Form::Inline || (form == Form::Dotted && table.form == Form::Header)
        }
        Kind::Tables(_) => form == Form::Dotted,
        Kind::Broken => return None,
        _ => true,
    };
    if closed {
        duplicate(key, first, findings);
        return None;
    }
    as_table(&mut entry.value)
}

pub(super) fn insert(
    table: &mut Table,
    path: &[Spanned<String>],
    value: Node,
    findings: &mut Findings,
) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut table = table;
    for key in parents {
        match step_into(table, key, Form::Dotted, findings) {
            Some(inner) => table = inner,
            None => return,
        }
    }
    match table.get(&last.value) {
        Some(first) => duplicate(last, first.key.span, findings),
        None => table.entries.push(Entry {
            key: last.clone(),
            value,
        }),
    }
}

fn duplicate(key: &Spanned<String>, first: Span, findings: &mut Findings) {
    findings
        .error(key.span, format!("duplicate key `{}`", key.value))
        .first(first)
        .help("a key or table can be given once; remove one of the two");
}
