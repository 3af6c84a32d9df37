//! The stand-in for the host: tables, log lines and metrics of one test, that is of one thread.

use crate::bindings::Column;
use crate::bindings::imports::Level;
use std::cell::RefCell;

use super::table::Table;

#[derive(Default)]
struct Host {
    tables: Vec<(String, Table)>,
    counters: Vec<(String, u64)>,
    histograms: Vec<(String, Vec<f64>)>,
    lines: Vec<String>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// The slot of a name, made if need be.
fn slot<T: Default>(list: &mut Vec<(String, T)>, name: &str) -> u32 {
    let found = list.iter().position(|(known, _)| known == name);
    let index = found.unwrap_or_else(|| {
        list.push((name.to_owned(), T::default()));
        list.len() - 1
    });
    index as u32
}

pub(crate) fn log(level: Level, message: &str) {
    let level = format!("{level:?}")
        .trim_start_matches("Level::")
        .to_lowercase();
    HOST.with_borrow_mut(|host| host.lines.push(format!("{level}: {message}")));
}

pub(crate) fn counter(name: &str) -> u32 {
    HOST.with_borrow_mut(|host| slot(&mut host.counters, name))
}

pub(crate) fn counter_add(handle: u32, n: u64) {
    HOST.with_borrow_mut(|host| host.counters[handle as usize].1 += n);
}

pub(crate) fn histogram(name: &str) -> u32 {
    HOST.with_borrow_mut(|host| slot(&mut host.histograms, name))
}

pub(crate) fn histogram_record(handle: u32, values: &[f64]) {
    HOST.with_borrow_mut(|host| host.histograms[handle as usize].1.extend_from_slice(values));
}

pub(crate) fn table(name: &str) -> Result<u32, String> {
    HOST.with_borrow(|host| {
        let index = host.tables.iter().position(|(known, _)| known == name);
        index.map(|index| index as u32).ok_or_else(|| {
            format!("there is no table `{name}`: a test makes it with testing::table(..)")
        })
    })
}

pub(crate) fn table_get(
    handle: u32,
    keys: &Column,
    columns: &[String],
) -> Result<Vec<Column>, String> {
    HOST.with_borrow(|host| host.tables[handle as usize].1.get(keys, columns))
}

pub(super) fn put_table(name: &str, table: Table) {
    HOST.with_borrow_mut(|host| {
        let index = slot(&mut host.tables, name) as usize;
        host.tables[index].1 = table;
    });
}

/// The lines that plugins of this test have logged, each as `level: text`.
pub fn log_lines() -> Vec<String> {
    HOST.with_borrow(|host| host.lines.clone())
}

/// What plugins of this test have added to a counter.
pub fn counter_value(name: &str) -> u64 {
    HOST.with_borrow(|host| {
        host.counters
            .iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, n)| *n)
    })
}

/// What plugins of this test have recorded in a histogram.
pub fn histogram_values(name: &str) -> Vec<f64> {
    HOST.with_borrow(|host| {
        let found = host.histograms.iter().find(|(known, _)| known == name);
        found.map_or_else(Vec::new, |(_, values)| values.clone())
    })
}
