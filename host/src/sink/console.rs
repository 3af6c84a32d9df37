//! The latest rows as tables for a person to watch.
//!
//! Keeps only what it shows, so it promises nothing across a crash. Whoever owns the terminal calls
//! [`ConsoleSink::render`]. Invariant: no row can send control characters to the terminal.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use super::Sink;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::format::timestamp;
use crate::pipeline::plan::{self, SinkConnector};

/// Characters of one cell; the rest is cut off.
const CELL_CHARS_MAX: usize = 40;

/// Shows the latest rows, one table an input.
#[derive(Debug)]
pub struct ConsoleSink {
    rows_max: usize,
    tables: Vec<Table>,
    rows: AtomicU64,
}

#[derive(Debug)]
struct Table {
    label: String,
    columns: Vec<Column>,
    /// The cells of the latest rows, oldest first.
    latest: Mutex<VecDeque<Vec<String>>>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// Numbers stand to the right.
    right: bool,
}

impl ConsoleSink {
    /// `sink` must have a console connector.
    pub fn new(sink: &plan::Sink) -> Self {
        let SinkConnector::Console { rows } = sink.connector else {
            panic!("sink {} is not the console", sink.name);
        };
        Self {
            rows_max: rows,
            tables: sink.inputs.iter().map(Table::new).collect(),
            rows: AtomicU64::new(0),
        }
    }

    /// The tables as text, each under its step's name; inputs that had no row yet are left out. Ends with a newline.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            table.render(&mut text);
        }
        text
    }
}

impl Sink for ConsoleSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        let rows = batch.rows();
        let first = rows.saturating_sub(self.rows_max);
        let shown: Vec<_> = (first..rows).map(|row| cells(batch, row)).collect();
        let mut latest = self.tables[input]
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        latest.extend(shown);
        let surplus = latest.len().saturating_sub(self.rows_max);
        latest.drain(..surplus);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, _last: bool) -> Result<Value, ConnectorError> {
        Ok(Value::Null)
    }

    fn sync(&self, _cut: &Value) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

impl Table {
    fn new(input: &plan::SinkInput) -> Self {
        let column = |field: &arrow::datatypes::FieldRef| Column {
            name: cell(field.name()),
            right: field.data_type().is_numeric(),
        };
        Self {
            label: input.label.clone(),
            columns: input.schema.fields().iter().map(column).collect(),
            latest: Mutex::new(VecDeque::new()),
        }
    }

    fn render(&self, text: &mut String) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.is_empty() {
            return;
        }
        let width = |(index, column): (usize, &Column)| {
            let cells = latest.iter().map(|row| row[index].chars().count());
            cells.max().unwrap_or(0).max(column.name.chars().count())
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(width).collect();
        let names: Vec<String> = self.columns.iter().map(|c| c.name.clone()).collect();
        let rule: Vec<String> = widths.iter().map(|&w| "-".repeat(w)).collect();
        let _ = writeln!(text, "{}", self.label);
        for line in [&names, &rule].into_iter().chain(latest.iter()) {
            self.render_line(line, &widths, text);
        }
    }

    fn render_line(&self, cells: &[String], widths: &[usize], text: &mut String) {
        let start = text.len();
        for ((cell, &width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column.right {
                (padding.as_str(), "")
            } else {
                ("", padding.as_str())
            };
            let _ = write!(text, "  {before}{cell}{after}");
        }
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    }
}

fn cells(batch: &Batch, row: usize) -> Vec<String> {
    let columns = batch.columns.columns();
    columns.iter().map(|c| cell(&value(c, row))).collect()
}

/// A value as a person reads it; times in UTC.
fn value(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    if let DataType::Timestamp(TimeUnit::Microsecond, _) = column.data_type() {
        let times = column.as_primitive::<TimestampMicrosecondType>();
        let mut text = Vec::new();
        timestamp::write(times.value(row), &mut text);
        return String::from_utf8_lossy(&text).into_owned();
    }
    let options = FormatOptions::new().with_display_error(true);
    match ArrayFormatter::try_new(column, &options) {
        Ok(texts) => texts.value(row).to_string(),
        Err(cause) => cause.to_string(),
    }
}

/// `text` without anything a terminal would obey, cut to [`CELL_CHARS_MAX`].
fn cell(text: &str) -> String {
    let mut shown = String::new();
    for (index, char) in text.chars().enumerate() {
        if index == CELL_CHARS_MAX {
            shown.push('…');
            break;
        }
        if obeyed(char) {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

/// Control characters, and those that turn the direction of text around.
fn obeyed(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
