//! A Parquet file as a source: one partition whose rows come as columns.
//!
//! Positions are rows. The file is what it was when it was opened: a Parquet file is written once, so it is not followed,
//! and a run that is not bounded is caught up at its last row.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};

use super::{Partition, Position, Progress, Reader, Record, Source};
use crate::error::ConnectorError;
use crate::format::parquet::{ParquetFile, Piece, Rows};
use crate::pipeline::plan::{self, SourceConnector};

const PARTITION: u32 = 0;
/// Memory of the rows handed over by one poll before it returns early.
const POLL_BYTES_MAX: usize = 32 << 20;

pub struct ParquetSource {
    name: String,
    path: PathBuf,
    schema: SchemaRef,
    paths: Vec<Vec<String>>,
}

impl ParquetSource {
    /// `source` must have a file connector; anything else is a mistake of the caller.
    pub fn new(source: &plan::Source) -> Self {
        let SourceConnector::File { path } = &source.connector else {
            panic!("source {} is not a file", source.name);
        };
        let (schema, paths) = source.of_value();
        Self {
            name: source.name.clone(),
            path: path.clone(),
            schema,
            paths,
        }
    }

    fn open(&self) -> Result<ParquetFile, ConnectorError> {
        let file = File::open(&self.path).map_err(|cause| ConnectorError::io(&self.path, cause))?;
        ParquetFile::open(file, &self.schema, &self.paths).map_err(|wrong| self.failed(wrong))
    }

    fn failed(&self, cause: impl ToString) -> ConnectorError {
        let place = format!("source {}: {}", self.name, self.path.display());
        ConnectorError::failed(place, cause)
    }
}

impl Source for ParquetSource {
    fn partitions(
        &self,
        resume: &BTreeMap<u32, Position>,
        ends: &BTreeMap<u32, i64>,
        bounded: bool,
        _stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Partition>, ConnectorError> {
        let rows = self.open()?.rows();
        let start = resume.get(&PARTITION).copied().unwrap_or(at(0));
        let end = bounded.then(|| ends.get(&PARTITION).copied().unwrap_or(rows));
        let needed = start.offset.max(end.unwrap_or(0));
        if rows < needed {
            return Err(self.failed(format!(
                "{rows} rows, but the checkpoint has seen {needed}: the file was replaced. Put the old one back, or \
                 start over with `tidemill reset`"
            )));
        }
        Ok(vec![Partition {
            id: PARTITION,
            start,
            end,
        }])
    }

    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError> {
        let part = match partitions.first() {
            None => None,
            Some(partition) => {
                let file = self.open()?;
                let next = partition.start.offset;
                Some(Part {
                    rows: file.read(next).map_err(|cause| self.failed(cause))?,
                    next,
                    last: partition.end.unwrap_or(file.rows()),
                    bounded: partition.end.is_some(),
                })
            }
        };
        Ok(Box::new(ParquetReader {
            place: format!("source {}: {}", self.name, self.path.display()),
            part,
            paused: false,
        }))
    }

    fn columnar(&self) -> bool {
        true
    }

    fn describe(&self, _partition: u32, number: i64) -> Value {
        json!({ "file": self.path.display().to_string(), "row": number })
    }
}

fn at(row: i64) -> Position {
    Position {
        offset: row,
        record: row,
    }
}

/// The one partition, or none for a worker that has no part of it.
struct ParquetReader {
    place: String,
    part: Option<Part>,
    paused: bool,
}

struct Part {
    rows: Rows,
    next: i64,
    /// Rows of the file, or those that a bounded run reads.
    last: i64,
    bounded: bool,
}

impl Reader for ParquetReader {
    /// The rows are columns: [`poll_columns`](Self::poll_columns) has them.
    fn poll(
        &mut self,
        _max: usize,
        _wait: Duration,
        _each: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn poll_columns(
        &mut self,
        max: usize,
        each: &mut dyn FnMut(u32, Piece),
    ) -> Result<(), ConnectorError> {
        let (place, paused) = (&self.place, self.paused);
        let Some(part) = self.part.as_mut().filter(|_| !paused) else {
            return Ok(());
        };
        let (mut left, mut bytes) = (max as i64, 0);
        while left > 0 && part.next < part.last && bytes < POLL_BYTES_MAX {
            let want = left.min(part.last - part.next) as usize;
            let piece = part.rows.next(want);
            let piece = piece.map_err(|cause| ConnectorError::failed(place, cause))?;
            let piece = piece.ok_or_else(|| {
                let cause = format!(
                    "ends behind row {}, but its footer tells of {}",
                    part.next, part.last
                );
                ConnectorError::failed(place, cause)
            })?;
            left -= piece.next - part.next;
            part.next = piece.next;
            bytes += piece.rows.get_array_memory_size();
            each(PARTITION, piece);
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[u32]) {
        self.paused = partitions.contains(&PARTITION);
    }

    fn progress(&self) -> Vec<Progress> {
        let progress = |part: &Part| {
            let ended = part.next >= part.last;
            Progress {
                partition: PARTITION,
                next: at(part.next),
                caught_up: ended,
                finished: ended && part.bounded,
                lag: Some((part.last - part.next).max(0) as u64),
            }
        };
        self.part.iter().map(progress).collect()
    }
}

#[cfg(test)]
mod tests;
