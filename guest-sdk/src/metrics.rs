//! Counters, histograms and log lines. Numbers are gathered and cross once a call: a crossing costs more than a row.
//! What a failed call gathered is dropped with it, because the host repeats the call.

use crate::host::{self, Level};
use std::cell::RefCell;

#[derive(Default)]
struct Pending {
    counters: Vec<(u32, u64)>,
    histograms: Vec<(u32, Vec<f64>)>,
}

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::default();
}

/// A number that only grows, made by [`Setup::counter`](crate::Setup::counter).
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter(Option<usize>);

/// A distribution of values, made by [`Setup::histogram`](crate::Setup::histogram).
#[derive(Clone, Copy, Debug, Default)]
pub struct Histogram(Option<usize>);

impl Counter {
    /// Adds to the counter.
    ///
    /// # Panics
    /// If it was not made in `setup`.
    pub fn add(self, n: u64) {
        let slot = self
            .0
            .expect("a counter is made in `setup`, with `setup.counter(name)`");
        PENDING.with_borrow_mut(|pending| pending.counters[slot].1 += n);
    }

    pub(crate) fn new(name: &str) -> Self {
        let handle = host::counter(name);
        PENDING.with_borrow_mut(|pending| {
            pending.counters.push((handle, 0));
            Counter(Some(pending.counters.len() - 1))
        })
    }
}

impl Histogram {
    /// Records a value.
    ///
    /// # Panics
    /// If it was not made in `setup`.
    pub fn record(self, value: f64) {
        let slot = self
            .0
            .expect("a histogram is made in `setup`, with `setup.histogram(name)`");
        PENDING.with_borrow_mut(|pending| pending.histograms[slot].1.push(value));
    }

    pub(crate) fn new(name: &str) -> Self {
        let handle = host::histogram(name);
        PENDING.with_borrow_mut(|pending| {
            pending.histograms.push((handle, Vec::new()));
            Histogram(Some(pending.histograms.len() - 1))
        })
    }
}

/// Ends a call: sends what it gathered, or drops it.
pub(crate) fn flush(call_succeeded: bool) {
    PENDING.with_borrow_mut(|pending| {
        for (handle, n) in &mut pending.counters {
            let n = std::mem::take(n);
            if call_succeeded && n > 0 {
                host::counter_add(*handle, n);
            }
        }
        for (handle, values) in &mut pending.histograms {
            if call_succeeded && !values.is_empty() {
                host::histogram_record(*handle, values);
            }
            values.clear();
        }
    });
}

#[doc(hidden)]
pub fn log(level: LogLevel, line: std::fmt::Arguments<'_>) {
    let level = match level {
        LogLevel::Trace => Level::Trace,
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warn => Level::Warn,
        LogLevel::Error => Level::Error,
    };
    host::log(level, &line.to_string());
}

#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes a line to the host's log, as [`format!`] would make it.
#[macro_export]
macro_rules! trace {
    ($($line:tt)*) => { $crate::metrics::log($crate::metrics::LogLevel::Trace, format_args!($($line)*)) };
}

/// Writes a line to the host's log, as [`format!`] would make it.
#[macro_export]
macro_rules! debug {
    ($($line:tt)*) => { $crate::metrics::log($crate::metrics::LogLevel::Debug, format_args!($($line)*)) };
}

/// Writes a line to the host's log, as [`format!`] would make it.
#[macro_export]
macro_rules! info {
    ($($line:tt)*) => { $crate::metrics::log($crate::metrics::LogLevel::Info, format_args!($($line)*)) };
}

/// Writes a line to the host's log, as [`format!`] would make it.
#[macro_export]
macro_rules! warn {
    ($($line:tt)*) => { $crate::metrics::log($crate::metrics::LogLevel::Warn, format_args!($($line)*)) };
}

/// Writes a line to the host's log, as [`format!`] would make it.
#[macro_export]
macro_rules! error {
    ($($line:tt)*) => { $crate::metrics::log($crate::metrics::LogLevel::Error, format_args!($($line)*)) };
}
