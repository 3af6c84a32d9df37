//! Parquet files to columns of the declared fields, found by name.
//!
//! Types must hold what the file has without loss: narrower ints become `int`, any timestamp microseconds in UTC (one
//! without a zone counts as UTC), dictionaries and views plain values. Which types go together is known before a row is
//! read; a value that does not fit all the same refuses its row, as does a null where the field allows none.
//! Memory: one batch of rows and the pages it stands in, whatever the size of a row group.

mod convert;

use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use super::{shown, type_name};

/// Rows decoded at once.
const BATCH_ROWS: usize = 4_096;

/// A file whose columns suit the fields.
pub struct ParquetFile {
    file: File,
    metadata: ArrowReaderMetadata,
    fields: Arc<Fields>,
}

/// Where the fields are in a file.
struct Fields {
    schema: SchemaRef,
    /// Names from the outside in.
    places: Vec<Vec<String>>,
    mask: ProjectionMask,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    File(String),
    /// Fields by index, and what is wrong with each.
    Fields(Vec<(usize, String)>),
}

/// Rows of a file in their order.
pub struct Rows {
    reader: ParquetRecordBatchReader,
    fields: Arc<Fields>,
    /// Rows read and not handed over, as the file has them.
    left: Option<RecordBatch>,
    /// How many rows were handed over or left out before.
    next: i64,
}

/// Some rows in sequence.
#[derive(Debug)]
pub struct Piece {
    /// The rows that suit the fields.
    pub rows: RecordBatch,
    /// The number of each, from 1, as a person counts.
    pub numbers: Vec<i64>,
    pub refused: Vec<RefusedRow>,
    /// How many rows stand before the next piece.
    pub next: i64,
}

/// A row that does not suit the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    pub number: i64,
    pub reason: String,
    /// The row as JSON, as far as fields name its columns.
    pub raw: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(cause) => f.write_str(cause),
            Self::Fields(wrong) => {
                let causes: Vec<_> = wrong.iter().map(|(_, cause)| cause.as_str()).collect();
                f.write_str(&causes.join("; "))
            }
        }
    }
}

impl ParquetFile {
    /// Reads the file's footer and finds the fields of `schema`; `paths[i]` is the way to field `i`.
    pub fn open(file: File, schema: &SchemaRef, paths: &[Vec<String>]) -> Result<Self, Unreadable> {
        let metadata =
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(|cause| {
                Unreadable::File(format!("not a Parquet file that can be read: {cause}"))
            })?;
        let found = metadata.schema().fields();
        let mut wrong = Vec::new();
        let mut places = Vec::with_capacity(paths.len());
        for (index, (field, path)) in schema.fields().iter().zip(paths).enumerate() {
            match place(found, path).and_then(|(place, from)| {
                check_type(field.name(), from, field.data_type())?;
                Ok(place)
            }) {
                Ok(place) => places.push(place),
                Err(cause) => wrong.push((index, cause)),
            }
        }
        if !wrong.is_empty() {
            return Err(Unreadable::Fields(wrong));
        }
        let roots = places
            .iter()
            .filter_map(|place| found.find(&place[0]).map(|(root, _)| root));
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots.collect::<Vec<_>>());
        let fields = Arc::new(Fields {
            schema: schema.clone(),
            places,
            mask,
        });
        Ok(Self {
            file,
            metadata,
            fields,
        })
    }

    pub fn rows(&self) -> i64 {
        self.metadata.metadata().file_metadata().num_rows()
    }

    /// The rows behind the first `from`.
    pub fn read(&self, from: i64) -> Result<Rows, String> {
        let groups = self.metadata.metadata().row_groups();
        // The group that reading begins in, and how many rows stand before it.
        let (mut first, mut start) = (0, 0);
        while first < groups.len() && start + groups[first].num_rows() <= from {
            start += groups[first].num_rows();
            first += 1;
        }
        let file = self.file.try_clone().map_err(|cause| cause.to_string())?;
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(self.fields.mask.clone())
                .with_row_groups((first..groups.len()).collect())
                .with_offset(usize::try_from(from - start).unwrap_or(0))
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(|cause| cause.to_string())?;
        Ok(Rows {
            reader,
            fields: self.fields.clone(),
            left: None,
            next: from,
        })
    }
}

impl Rows {
    /// Up to `max` rows; `None` at the end.
    pub fn next(&mut self, max: usize) -> Result<Option<Piece>, String> {
        let rows = match self.left.take() {
            Some(rows) => rows,
            None => match self.reader.next() {
                None => return Ok(None),
                Some(rows) => rows.map_err(|cause| format!("row {}: {cause}", self.next + 1))?,
            },
        };
        let count = rows.num_rows().min(max);
        if count < rows.num_rows() {
            self.left = Some(rows.slice(count, rows.num_rows() - count));
        }
        let first = self.next;
        self.next += count as i64;
        convert::piece(&self.fields, &rows.slice(0, count), first).map(Some)
    }
}

/// Where `path` leads: a column of this very name, dots and all, or a way through structs.
fn place<'f>(
    found: &'f arrow::datatypes::Fields,
    path: &[String],
) -> Result<(Vec<String>, &'f DataType), String> {
    let whole = path.join(".");
    let named = |name: &str| found.iter().filter(|f| f.name() == name).count();
    match named(&whole) {
        1 => {
            let (_, field) = found.find(&whole).expect("one has this name");
            return Ok((vec![whole], field.data_type()));
        }
        0 => {}
        _ => return Err(format!("the file has the column `{whole}` twice")),
    }
    let mut fields = found;
    let (last, way) = path.split_last().ok_or("a field without a path")?;
    for name in way {
        fields = match fields.find(name).map(|(_, f)| f.data_type()) {
            Some(DataType::Struct(inner)) if named(&path[0]) == 1 => inner,
            _ => return Err(missing(&whole, found)),
        };
    }
    match fields.find(last) {
        Some((_, field)) => Ok((path.to_vec(), field.data_type())),
        None => Err(missing(&whole, found)),
    }
}

fn missing(name: &str, found: &arrow::datatypes::Fields) -> String {
    let names: Vec<_> = found.iter().take(20).map(|f| shown(f.name())).collect();
    let more = if found.len() > names.len() {
        ", …"
    } else {
        ""
    };
    format!(
        "the file has no column `{name}`; it has {}{more}",
        names.join(", ")
    )
}

fn check_type(name: &str, from: &DataType, to: &DataType) -> Result<(), String> {
    if convert::holds(from, to) {
        return Ok(());
    }
    let from = match from {
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        t if t.is_integer() => "int".to_owned(),
        t if t.is_floating() => "float".to_owned(),
        DataType::Struct(_) => "a struct".to_owned(),
        DataType::List(_) | DataType::LargeList(_) => "a list".to_owned(),
        other => type_name(other),
    };
    Err(format!(
        "column `{name}` of the file is {from}, which a field of type {} cannot hold",
        type_name(to)
    ))
}

#[cfg(test)]
pub(crate) mod tests;
