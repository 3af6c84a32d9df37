//! A table's file to a snapshot: CSV, JSON lines, text or Parquet, compressed or not, each row decoded as a source's would
//! be.
//!
//! Unlike a source, a table has no dead letters: one record that cannot be read refuses the whole file.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};

use super::Snapshot;
use crate::error::ConnectorError;
use crate::format::compression::{Compression, damage};
use crate::format::parquet::ParquetFile;
use crate::format::{self, Decoder, framing};
use crate::limits::TABLE_BYTES_MAX;
use crate::pipeline::plan::{self, Format};

/// Reads the whole file at `path`.
pub(super) fn load(table: &plan::Table, path: &Path) -> Result<Snapshot, ConnectorError> {
    let place = format!("table {}: {}", table.name, path.display());
    let failed = |cause: String| ConnectorError::failed(&place, cause);
    let io = |cause| ConnectorError::io(path, cause);
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > TABLE_BYTES_MAX {
        return Err(failed(too_large(bytes)));
    }
    let columns = match table.format {
        Format::Parquet => parquet(table, file),
        _ => text(Compression::of(path), file).and_then(|text| records(table, &text)),
    };
    let rows = RecordBatch::try_new(table.schema.clone(), columns.map_err(failed)?)
        .map_err(|error| failed(error.to_string()))?;
    Snapshot::new(&table.name, rows, table.key).map_err(failed)
}

fn too_large(bytes: u64) -> String {
    format!("{bytes} bytes are more than the {TABLE_BYTES_MAX} that a table may have")
}

/// All bytes of the file, decompressed.
fn text(compression: Compression, file: File) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = compression
        .reader(file)
        .and_then(|reader| reader.take(TABLE_BYTES_MAX + 1).read_to_end(&mut text));
    match (read, compression) {
        (Ok(bytes), _) if bytes as u64 > TABLE_BYTES_MAX => Err(too_large(bytes as u64)),
        (Ok(_), _) => Ok(text),
        (Err(cause), Compression::None) => Err(cause.to_string()),
        (Err(cause), _) => Err(damage(&cause)),
    }
}

fn records(table: &plan::Table, text: &[u8]) -> Result<Vec<ArrayRef>, String> {
    // Read as if it could be null: an empty key of a CSV record is no key, not one that is an empty text.
    let lenient = with_key_nullable(&table.schema, table.key);
    let mut records = framing::split(table.format, text);
    let header = match table.format {
        Format::Csv => match records.next() {
            Some((_, header)) => Some(header),
            None => return Err("is empty; its first line names the columns".into()),
        },
        _ => None,
    };
    let mut decoder = format::decoder(table.format, &lenient, &table.paths, None, header)
        .map_err(|cause| format!("line 1: {cause}"))?;
    decode(decoder.as_mut(), table.key, records)
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
        Some((_, line)) => Err(format!("line {line}: {}", no_key(&rows.schema(), key))),
        None => Ok(rows.columns().to_vec()),
    }
}

fn parquet(table: &plan::Table, file: File) -> Result<Vec<ArrayRef>, String> {
    let lenient = with_key_nullable(&table.schema, table.key);
    let file =
        ParquetFile::open(file, &lenient, &table.paths).map_err(|wrong| wrong.to_string())?;
    let (mut rows, mut pieces, mut bytes) = (file.read(0)?, Vec::new(), 0);
    while let Some(piece) = rows.next(usize::MAX)? {
        if let Some(row) = piece.refused.first() {
            return Err(format!("row {}: {}", row.number, row.reason));
        }
        let keys = piece.rows.column(table.key);
        if let Some(row) = (0..keys.len()).find(|&row| keys.is_null(row)) {
            let why = no_key(&lenient, table.key);
            return Err(format!("row {}: {why}", piece.numbers[row]));
        }
        bytes += piece.rows.get_array_memory_size() as u64;
        if bytes > TABLE_BYTES_MAX {
            return Err(too_large(bytes));
        }
        pieces.push(piece.rows);
    }
    let whole = concat_batches(&lenient, &pieces).map_err(|error| error.to_string())?;
    Ok(whole.columns().to_vec())
}

fn no_key(schema: &Schema, key: usize) -> String {
    format!(
        "the key `{}` is null or missing; every row of a table needs one",
        schema.field(key).name()
    )
}

pub(super) fn with_key_nullable(schema: &SchemaRef, key: usize) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields[key] = Arc::new(fields[key].as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields))
}
