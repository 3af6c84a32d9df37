//! Rows as JSON lines in a file, exactly once with the checkpoint.
//!
//! Rows of one batch stand together; batches of several workers in any order. What holds across a crash is the invariant
//! of `line_file`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::Sink;
use super::line_file::LineFile;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::format::encode::RowWriter;
use crate::pipeline::plan::{self, SinkConnector};

/// A file of JSON lines.
#[derive(Debug)]
pub struct FileSink {
    file: LineFile,
    /// One for each input of the sink.
    writers: Vec<RowWriter>,
    rows: AtomicU64,
}

impl FileSink {
    /// Opens the file of `sink`, which must have a file connector. `resume` is the last checkpoint's
    /// [`cut`](Sink::cut); without one this is a first start. Errors say what is wrong with the file and what to do.
    pub fn open(sink: &plan::Sink, resume: Option<&Value>) -> Result<Self, ConnectorError> {
        let SinkConnector::File { path, existing } = &sink.connector else {
            panic!("sink {} is not a file", sink.name);
        };
        Ok(Self {
            file: LineFile::open(path, *existing, resume)?,
            writers: row_writers(sink),
            rows: AtomicU64::new(0),
        })
    }
}

/// A writer for each input; with several inputs their rows begin with the column `step`.
pub fn row_writers(sink: &plan::Sink) -> Vec<RowWriter> {
    let single = sink.inputs.len() == 1;
    let writer = |input: &plan::SinkInput| {
        if single {
            RowWriter::new(&input.schema)
        } else {
            RowWriter::with_leading(&input.schema, "step", &input.label)
        }
    };
    sink.inputs.iter().map(writer).collect()
}

impl Sink for FileSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        let mut lines = Vec::with_capacity(batch.rows() * 128);
        self.writers[input].write_lines(&batch.columns, &mut lines);
        self.file.append(&lines)?;
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self) -> Result<Value, ConnectorError> {
        self.file.cut()
    }

    fn sync(&self, _cut: &Value) -> Result<(), ConnectorError> {
        self.file.sync()
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}
