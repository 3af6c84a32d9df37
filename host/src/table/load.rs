//! A table's file to a snapshot: CSV or JSON lines, each record decoded as a source's would be.
//!
//! Unlike a source, a table has no dead letters: one record that cannot be read refuses the whole file.

use std::fs;
use std::sync::Arc;

use arrow::array::RecordBatch;
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
    // A null key is refused where it stands, whatever the fields say of nulls.
    let strict = with_key_required(&table.schema, table.key);
    let mut records = framing::split(table.format, &text);
    let header = match table.format {
        Format::Csv => match records.next() {
            Some((_, header)) => Some(header),
            None => return Err(failed("is empty; its first line names the columns".into())),
        },
        Format::Json => None,
    };
    let mut decoder = format::decoder(table.format, &strict, &table.paths, None, header)
        .map_err(|cause| failed(format!("line 1: {cause}")))?;
    let rows = decode(decoder.as_mut(), records).map_err(failed)?;
    // The columns as the plan has them: a key that may be null there has no null here.
    let rows = RecordBatch::try_new(table.schema.clone(), rows.columns().to_vec())
        .map_err(|error| failed(error.to_string()))?;
    Snapshot::new(&table.name, rows, table.key).map_err(failed)
}

fn decode<'a>(
    decoder: &mut dyn Decoder,
    records: impl Iterator<Item = (i64, &'a [u8])>,
) -> Result<RecordBatch, String> {
    for (line, record) in records.filter(|(_, record)| !record.trim_ascii().is_empty()) {
        let result = decoder.push(record);
        result.map_err(|cause| format!("line {line}: {cause}"))?;
    }
    Ok(decoder.finish())
}

fn with_key_required(schema: &SchemaRef, key: usize) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields[key] = Arc::new(fields[key].as_ref().clone().with_nullable(false));
    Arc::new(Schema::new(fields))
}
