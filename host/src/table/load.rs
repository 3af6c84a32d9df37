//! A table's file to a snapshot: CSV or JSON lines, each record decoded as a source's would be.
//!
//! Unlike a source, a table has no dead letters: one record that cannot be read refuses the whole file.

use std::fs;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};

use super::Snapshot;
use crate::error::ConnectorError;
use crate::format::{self, Decoder, framing};
use crate::limits::TABLE_BYTES_MAX;
use crate::pipeline::plan::{self, Format};

/// Reads the whole file.
pub(super) fn load(table: &plan::Table) -> Result<Snapshot, ConnectorError> {
    let path = &table.path;
    let place = format!("table {}: {}", table.name, path.display());
    let failed = |cause: String| ConnectorError::failed(&place, cause);
    let io = |cause| ConnectorError::io(path, cause);
    let bytes = fs::metadata(path).map_err(io)?.len();
    if bytes > TABLE_BYTES_MAX {
        return Err(failed(format!(
            "{bytes} bytes are more than the {TABLE_BYTES_MAX} that a table may have"
        )));
    }
    let text = fs::read(path).map_err(io)?;
    // Read as if it could be null: an empty key of a CSV record is no key, not one that is an empty text.
    let lenient = with_key_nullable(&table.schema, table.key);
    let mut records = framing::split(table.format, &text);
    let header = match table.format {
        Format::Csv => match records.next() {
            Some((_, header)) => Some(header),
            None => return Err(failed("is empty; its first line names the columns".into())),
        },
        Format::Json => None,
    };
    let mut decoder = format::decoder(table.format, &lenient, &table.paths, None, header)
        .map_err(|cause| failed(format!("line 1: {cause}")))?;
    let columns = decode(decoder.as_mut(), table.key, records).map_err(failed)?;
    let rows = RecordBatch::try_new(table.schema.clone(), columns)
        .map_err(|error| failed(error.to_string()))?;
    Snapshot::new(&table.name, rows, table.key).map_err(failed)
}

fn decode<'a>(
    decoder: &mut dyn Decoder,
    key: usize,
    records: impl Iterator<Item = (i64, &'a [u8])>,
) -> Result<Vec<ArrayRef>, String> {
    let mut lines = Vec::new();
    for (line, record) in records.filter(|(_, record)| !record.trim_ascii().is_empty()) {
        let result = decoder.push(record);
        result.map_err(|cause| format!("line {line}: {cause}"))?;
        lines.push(line);
    }
    let rows = decoder.finish();
    match lines
        .iter()
        .enumerate()
        .find(|(row, _)| rows.column(key).is_null(*row))
    {
        Some((_, line)) => Err(format!(
            "line {line}: the key `{}` is null or missing; every row of a table needs one",
            rows.schema_ref().field(key).name()
        )),
        None => Ok(rows.columns().to_vec()),
    }
}

fn with_key_nullable(schema: &SchemaRef, key: usize) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields[key] = Arc::new(fields[key].as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields))
}
