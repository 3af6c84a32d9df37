//! Records to columns and back: the seam between bytes of a source or sink and Arrow. Files that hold columns, and files
//! that are compressed, are opened here too.

mod columns;
pub mod compression;
pub mod csv;
pub mod csv_rows;
pub mod decimal;
pub mod encode;
pub mod framing;
pub mod json;
pub mod parquet;
pub mod parts;
mod text;
pub mod timestamp;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use crate::limits::RECORD_BYTES_MAX;
use crate::pipeline::plan;
use crate::time::Micros;

/// Decodes records of one worker and source into columns.
///
/// Invariant: a record that is refused leaves nothing behind; the rows decoded are exactly the records accepted, in order.
pub trait Decoder: Send {
    /// Adds one record. Returns its event time if the decoder was given an event-time column, else [`crate::time::NO_TIME`].
    /// `Err` is the reason, in words for a dead letter.
    fn push(&mut self, record: &[u8]) -> Result<Micros, String>;

    /// Takes back the record last pushed.
    fn undo(&mut self);

    fn rows(&self) -> usize;

    /// Memory of the rows so far. Whoever feeds the decoder ends a batch long before a column reaches 2 GiB: a record
    /// that would take it there is refused.
    fn bytes(&self) -> usize;

    fn schema(&self) -> SchemaRef;

    /// The rows so far as columns; the decoder is empty afterwards.
    fn finish(&mut self) -> RecordBatch;
}

/// A decoder of records in `format` into columns of `schema`. `paths[i]` says where the value of column `i` stands in a
/// record (member names from the outside in). `event_time` is the column whose value [`Decoder::push`] returns. CSV needs
/// the `header`, the file's first record; JSON ignores it. Errors name the field that cannot be read.
pub fn decoder(
    format: plan::Format,
    schema: &SchemaRef,
    paths: &[Vec<String>],
    event_time: Option<usize>,
    header: Option<&[u8]>,
) -> Result<Box<dyn Decoder>, String> {
    Ok(match format {
        plan::Format::Json => Box::new(json::JsonDecoder::new(schema, paths, event_time)?),
        plan::Format::Csv => {
            let header = header.ok_or("CSV without a header: its first line names the columns")?;
            Box::new(csv::CsvDecoder::new(schema, paths, event_time, header)?)
        }
        plan::Format::Text => Box::new(text::TextDecoder::new(schema, paths)?),
        plan::Format::Parquet => return Err("Parquet has no records: it is read as columns".into()),
    })
}

/// What a type is called in a pipeline file.
pub fn type_name(ty: &DataType) -> String {
    match ty {
        DataType::Utf8 => "string".into(),
        DataType::Int64 => "int".into(),
        DataType::Float64 => "float".into(),
        DataType::Boolean => "bool".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Binary => "bytes".into(),
        DataType::Date32 => "date".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        other => other.to_string(),
    }
}

/// Refuses what is too large before it is looked at.
fn check_size(record: &[u8]) -> Result<(), String> {
    if record.len() <= RECORD_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "longer than {RECORD_BYTES_MAX} bytes, the most that one record may have"
    ))
}

/// A piece of a record as a reason shows it: quoted, escaped, cut to 40 characters.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(40).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", cut.escape_debug())
}

/// Why a text is no timestamp.
fn no_timestamp(label: &str, text: &str) -> String {
    format!(
        "{label}: {} is not an RFC 3339 timestamp such as 2026-01-01T00:00:00Z",
        shown(text)
    )
}
