//! Rows as JSON lines or CSV in one file, exactly once with the checkpoint.
//!
//! Rows of one batch stand together; batches of several workers in any order. What holds across a crash is the invariant
//! of `line_file`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::Sink;
use super::line_file::LineFile;
use super::lines::LineWriter;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::pipeline::plan::{self, SinkConnector};

/// A file of lines.
#[derive(Debug)]
pub struct FileSink {
    file: LineFile,
    lines: LineWriter,
    rows: AtomicU64,
}

impl FileSink {
    /// Opens the file of `sink`, which must have a file connector. `resume` is the last checkpoint's
    /// [`cut`](Sink::cut); without one this is a first start. Errors say what is wrong with the file and what to do.
    pub fn open(sink: &plan::Sink, resume: Option<&Value>) -> Result<Self, ConnectorError> {
        let SinkConnector::File {
            path,
            existing,
            format,
        } = &sink.connector
        else {
            panic!("sink {} is not a file", sink.name);
        };
        let file = LineFile::open(path, *existing, resume)?;
        let lines = LineWriter::new(sink, *format);
        lines.begin(&file)?;
        Ok(Self {
            file,
            lines,
            rows: AtomicU64::new(0),
        })
    }
}

impl Sink for FileSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        let mut lines = Vec::with_capacity(batch.rows() * 128);
        self.lines.write(input, batch, &mut lines);
        self.file.append(&lines)?;
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, _last: bool) -> Result<Value, ConnectorError> {
        self.file.cut()
    }

    fn sync(&self, _cut: &Value) -> Result<(), ConnectorError> {
        self.file.sync()
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::pipeline::plan::{Existing, Input, LineFormat, SinkInput};

    fn batch(values: Vec<i64>) -> Batch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let times = vec![0; values.len()].into();
        let column = Arc::new(Int64Array::from(values));
        Batch {
            columns: RecordBatch::try_new(schema, vec![column]).unwrap(),
            times,
            origins: None,
        }
    }

    fn sink(path: &std::path::Path, labels: &[&str]) -> plan::Sink {
        let input = |label: &&str| SinkInput {
            label: (*label).to_owned(),
            input: Input::Source(0),
            schema: batch(vec![]).schema(),
        };
        plan::Sink {
            name: "out".to_owned(),
            inputs: labels.iter().map(input).collect(),
            connector: SinkConnector::File {
                path: path.to_owned(),
                existing: Existing::Refuse,
                format: LineFormat::Json,
            },
        }
    }

    #[test]
    fn rows_after_the_checkpoint_come_again_and_stand_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let plan = sink(&path, &["views", "sessions.late"]);
        let first = FileSink::open(&plan, None).unwrap();
        first.write(0, &batch(vec![1, 2])).unwrap();
        let cut = first.cut(false).unwrap();
        first.sync(&cut).unwrap();
        first.write(1, &batch(vec![3])).unwrap();
        first.cut(false).unwrap();
        assert_eq!(first.rows(), 3);
        drop(first);
        let second = FileSink::open(&plan, Some(&cut)).unwrap();
        second.write(1, &batch(vec![3, 4])).unwrap();
        second.cut(false).unwrap();
        assert_eq!(second.rows(), 2);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"step\":\"views\",\"n\":1}\n{\"step\":\"views\",\"n\":2}\n\
             {\"step\":\"sessions.late\",\"n\":3}\n{\"step\":\"sessions.late\",\"n\":4}\n"
        );
    }

    #[test]
    fn rows_of_a_single_input_have_no_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let only = FileSink::open(&sink(&path, &["views"]), None).unwrap();
        only.write(0, &batch(vec![1])).unwrap();
        only.cut(false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"n\":1}\n");
    }

    /// The sink as CSV, with what becomes of a file that is there.
    fn csv(path: &std::path::Path, labels: &[&str], existing: Existing) -> plan::Sink {
        plan::Sink {
            connector: SinkConnector::File {
                path: path.to_owned(),
                existing,
                format: LineFormat::Csv,
            },
            ..sink(path, labels)
        }
    }

    #[test]
    fn csv_has_its_header_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        let plan = csv(&path, &["views", "sessions.late"], Existing::Refuse);
        let first = FileSink::open(&plan, None).unwrap();
        let cut = first.cut(false).unwrap();
        first.write(0, &batch(vec![1])).unwrap();
        first.cut(false).unwrap();
        drop(first);
        let second = FileSink::open(&plan, Some(&cut)).unwrap();
        second.write(1, &batch(vec![2])).unwrap();
        second.cut(false).unwrap();
        let text = || std::fs::read_to_string(&path).unwrap();
        assert_eq!(text(), "step,n\nsessions.late,2\n");
        let more = csv(&path, &["views", "sessions.late"], Existing::Append);
        let third = FileSink::open(&more, None).unwrap();
        third.write(0, &batch(vec![3])).unwrap();
        third.cut(false).unwrap();
        assert_eq!(text(), "step,n\nsessions.late,2\nviews,3\n");
    }

    #[test]
    fn csv_is_not_appended_to_other_columns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        for theirs in ["a,b\n1,2\n", "m", "{}\n"] {
            std::fs::write(&path, theirs).unwrap();
            let plan = csv(&path, &["views"], Existing::Append);
            let error = FileSink::open(&plan, None).unwrap_err().to_string();
            assert!(error.contains("its first line is not `n`"), "{error}");
        }
    }
}
