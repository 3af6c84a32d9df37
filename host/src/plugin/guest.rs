//! What a plugin may call: log, metrics and tables; and what the host keeps of it beside the plugin's memory.
//!
//! Nothing here tells a plugin the time, gives it randomness or lets it reach out. Invariant: what a call logs and counts
//! counts only once the call is settled, so that a call repeated in parts is not counted twice.

use std::sync::Arc;

use wasmtime::component::{Linker, WasmStr};
use wasmtime::{StoreContextMut, bail};

use super::columns::{copy_out, lift_any, rows_of};
use super::limits::{Deadline, MemoryLimit, printable};
use super::wire::{self, Column, Level};
use super::{Histogram, Tables};
use crate::limits::{
    PLUGIN_LOG_LINES_PER_SECOND_MAX, PLUGIN_METRICS_MAX, PLUGIN_NAME_BYTES_MAX,
    PLUGIN_TABLE_CELLS_MAX,
};

/// The host's side of one instance.
pub struct Guest {
    pub memory: MemoryLimit,
    pub deadline: Deadline,
    pub call: Noted,
    counters: Vec<String>,
    histograms: Vec<String>,
    tables: Arc<dyn Tables>,
}

/// What the running call logged and counted.
#[derive(Debug, Default)]
pub struct Noted {
    pub lines: Vec<(Level, String)>,
    pub lines_dropped: u64,
    /// The last line of level error: before a trap, the panic's text.
    pub last_error: Option<String>,
    /// By handle.
    pub counts: Vec<u64>,
    pub recorded: Vec<Histogram>,
}

impl Guest {
    pub fn new(tables: Arc<dyn Tables>, memory_bytes: usize, deadline: Deadline) -> Self {
        Self {
            memory: MemoryLimit::new(memory_bytes),
            deadline,
            call: Noted::default(),
            counters: Vec::new(),
            histograms: Vec::new(),
            tables,
        }
    }

    /// Name and sum of each counter that the call added to.
    pub fn counted<'a>(&'a self, noted: &'a Noted) -> impl Iterator<Item = (&'a str, u64)> {
        let names = self.counters.iter().map(String::as_str);
        names.zip(noted.counts.iter().copied())
    }

    pub fn recorded<'a>(
        &'a self,
        noted: &'a Noted,
    ) -> impl Iterator<Item = (&'a str, &'a Histogram)> {
        let names = self.histograms.iter().map(String::as_str);
        names.zip(&noted.recorded)
    }
}

/// Makes the functions of `wit/host.wit` callable.
pub fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut host = linker.instance(wire::HOST)?;
    host.func_wrap("log", log)?;
    host.func_wrap("counter", |mut store, (name,): (String,)| {
        Ok((handle("counter", &mut guest(&mut store).counters, name)?,))
    })?;
    host.func_wrap("counter-add", counter_add)?;
    host.func_wrap("histogram", |mut store, (name,): (String,)| {
        let names = &mut guest(&mut store).histograms;
        Ok((handle("histogram", names, name)?,))
    })?;
    host.func_wrap("histogram-record", histogram_record)?;
    host.func_wrap("table", |mut store, (name,): (String,)| {
        Ok((guest(&mut store).tables.table(&name),))
    })?;
    host.func_wrap("table-get", table_get)
}

fn guest<'a>(store: &'a mut StoreContextMut<'_, Guest>) -> &'a mut Guest {
    store.data_mut()
}

fn log(
    mut store: StoreContextMut<'_, Guest>,
    (level, message): (Level, WasmStr),
) -> wasmtime::Result<()> {
    // A flood costs neither memory nor the time to read it; the last error is kept all the same, it may explain a trap.
    let is_full = store.data().call.lines.len() >= PLUGIN_LOG_LINES_PER_SECOND_MAX as usize;
    if is_full && level != Level::Error {
        store.data_mut().call.lines_dropped += 1;
        return Ok(());
    }
    let line = printable(&message.to_str(&store)?);
    let call = &mut store.data_mut().call;
    if level == Level::Error {
        call.last_error = Some(line.clone());
    }
    if is_full {
        call.lines_dropped += 1;
    } else {
        call.lines.push((level, line));
    }
    Ok(())
}

/// The handle of a metric: the same name gives the same one.
fn handle(kind: &str, names: &mut Vec<String>, name: String) -> wasmtime::Result<u32> {
    if let Some(at) = names.iter().position(|n| *n == name) {
        return Ok(at as u32);
    }
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_name || name.len() > PLUGIN_NAME_BYTES_MAX {
        bail!(
            "the name of a {kind} is [a-z][a-z0-9_]* of at most {PLUGIN_NAME_BYTES_MAX} bytes, not `{}`",
            printable(&name)
        );
    }
    if names.len() >= PLUGIN_METRICS_MAX {
        bail!("a plugin may have {PLUGIN_METRICS_MAX} {kind}s; `{name}` is one more");
    }
    names.push(name);
    Ok(names.len() as u32 - 1)
}

/// The slot of a handle in the running call's notes.
fn slot<'a, T: Default + Clone>(
    kind: &str,
    known: usize,
    slots: &'a mut Vec<T>,
    handle: u32,
) -> wasmtime::Result<&'a mut T> {
    if handle as usize >= known {
        bail!("there is no {kind} {handle}: the plugin has {known}");
    }
    slots.resize(known, T::default());
    Ok(&mut slots[handle as usize])
}

fn counter_add(
    mut store: StoreContextMut<'_, Guest>,
    (handle, n): (u32, u64),
) -> wasmtime::Result<()> {
    let guest = guest(&mut store);
    let known = guest.counters.len();
    let sum = slot("counter", known, &mut guest.call.counts, handle)?;
    *sum = sum.saturating_add(n);
    Ok(())
}

fn histogram_record(
    mut store: StoreContextMut<'_, Guest>,
    (handle, values): (u32, Vec<f64>),
) -> wasmtime::Result<()> {
    let guest = guest(&mut store);
    let known = guest.histograms.len();
    let recorded = slot("histogram", known, &mut guest.call.recorded, handle)?;
    values.into_iter().for_each(|v| recorded.record(v));
    Ok(())
}

type Columns = Result<Vec<Column>, String>;

fn table_get(
    mut store: StoreContextMut<'_, Guest>,
    (handle, keys, columns): (u32, Column, Vec<String>),
) -> wasmtime::Result<(Columns,)> {
    let rows = rows_of(&keys);
    if rows.saturating_mul(columns.len()) > PLUGIN_TABLE_CELLS_MAX {
        bail!(
            "a table-get gives at most {PLUGIN_TABLE_CELLS_MAX} values, not {rows} rows of {} columns",
            columns.len()
        );
    }
    let keys = match lift_any(keys, rows) {
        Ok(keys) => keys,
        Err(cause) => bail!("the keys of a table-get: the column {cause}"),
    };
    let tables = &guest(&mut store).tables;
    Ok((tables
        .get(handle, &keys, &columns)
        .and_then(|found| found.iter().map(|c| copy_out(c)).collect()),))
}
