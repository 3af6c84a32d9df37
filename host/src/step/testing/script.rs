//! Rows and watermarks of a test as text, as batches and back.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;

use super::Given;
use crate::batch::Batch;
use crate::time::{END_OF_TIME, MICROS_PER_SECOND, Micros, NO_TIME};

/// A row that goes in.
#[derive(Debug, Clone)]
pub struct In {
    pub input: usize,
    pub key: Option<String>,
    pub value: Option<i64>,
    pub time: Micros,
}

/// The rows of an epoch, and the watermark of its tick.
#[derive(Debug, Clone)]
pub struct Epoch {
    pub rows: Vec<In>,
    pub watermark: Micros,
}

pub fn seconds(n: i64) -> Micros {
    n * MICROS_PER_SECOND
}

/// `k` and `v`, both of which may be null.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

/// Rows with the columns of [`schema`].
pub fn batch(rows: &[In]) -> Batch {
    let keys: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.key.clone())));
    let values: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.value)));
    Batch {
        columns: RecordBatch::try_new(schema(), vec![keys, values]).expect("two columns"),
        times: rows.iter().map(|r| r.time).collect(),
        origins: None,
    }
}

/// What a step gave, row by row.
pub(super) fn given(port: usize, batch: &Batch) -> Vec<Given> {
    let cell = |column: &ArrayRef, row: usize| {
        if column.is_null(row) {
            return "_".to_owned();
        }
        match column.data_type() {
            DataType::Timestamp(..) => {
                show_time(column.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            _ => array_value_to_string(column, row).expect("a cell can be shown"),
        }
    };
    let row = |row: usize| Given {
        port,
        time: batch.times[row],
        cells: (batch.columns.columns().iter())
            .map(|c| cell(c, row))
            .collect::<Vec<_>>()
            .join(" "),
    };
    (0..batch.rows()).map(row).collect()
}

/// Seconds, with what is left in microseconds.
pub fn show_time(time: Micros) -> String {
    match time {
        END_OF_TIME => "end".into(),
        NO_TIME => "none".into(),
        _ if time % MICROS_PER_SECOND == 0 => (time / MICROS_PER_SECOND).to_string(),
        _ => format!("{time}us"),
    }
}

/// `a@3=7 R:_@4 ~10`, with the end of time behind.
pub(super) fn parse(script: &str) -> Vec<Epoch> {
    let mut epochs = Vec::new();
    let mut rows = Vec::new();
    for word in script.split_whitespace().chain(["~end"]) {
        if let Some(watermark) = word.strip_prefix('~') {
            let watermark = match watermark {
                "end" => END_OF_TIME,
                "none" => NO_TIME,
                n => seconds(n.parse().expect("a watermark")),
            };
            let rows = std::mem::take(&mut rows);
            epochs.push(Epoch { rows, watermark });
        } else {
            rows.push(row(word));
        }
    }
    epochs
}

fn row(word: &str) -> In {
    let (input, word) = match word.strip_prefix("R:") {
        Some(word) => (1, word),
        None => (0, word),
    };
    let (key, rest) = word.split_once('@').expect("key@time");
    let (time, value) = rest.split_once('=').unwrap_or((rest, "1"));
    In {
        input,
        key: (key != "_").then(|| key.to_owned()),
        value: (value != "_").then(|| value.parse().expect("a value")),
        time: seconds(time.parse().expect("a time")),
    }
}

/// What [`parse`] takes.
pub(super) fn text(epochs: &[Epoch]) -> String {
    let row = |row: &In| {
        let input = ["", "R:"][row.input];
        let key = row.key.as_deref().unwrap_or("_");
        let value = row.value.map_or("_".into(), |v| v.to_string());
        format!("{input}{key}@{}={value} ", show_time(row.time))
    };
    let epoch = |epoch: &Epoch| {
        let rows: String = epoch.rows.iter().map(row).collect();
        format!("{rows}~{}", show_time(epoch.watermark))
    };
    epochs.iter().map(epoch).collect::<Vec<_>>().join(" ")
}

/// `10: a 0 10 2, b 0 10 1; end: ...`: by epoch, each with its watermark, what it gave; rows of the port `late` begin so.
pub(super) fn show(epochs: &[Epoch], given: &[(usize, Given)]) -> String {
    let mut shown = Vec::new();
    for (number, epoch) in epochs.iter().enumerate() {
        let rows = given.iter().filter(|(n, _)| *n == number);
        let mut rows: Vec<String> = rows
            .map(|(_, row)| match row.port {
                0 => row.cells.clone(),
                REFUSED => format!("refused {}", row.cells),
                _ => format!("late {}", row.cells),
            })
            .collect();
        rows.sort();
        if !rows.is_empty() {
            shown.push(format!(
                "{}: {}",
                show_time(epoch.watermark),
                rows.join(", ")
            ));
        }
    }
    shown.join("; ")
}

/// The port of refused rows, which is none.
pub(super) const REFUSED: usize = 9;
