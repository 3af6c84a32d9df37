//! Rows of a sink as lines of text: what a file of either kind is filled with.

use super::line_file::LineFile;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::format::csv_rows::CsvWriter;
use crate::format::encode::RowWriter;
use crate::pipeline::plan::{self, LineFormat, STEP_COLUMN};

/// Makes lines of the rows of all inputs; with several inputs their rows begin with the column `step`.
#[derive(Debug)]
pub(super) enum LineWriter {
    /// One for each input.
    Json(Vec<RowWriter>),
    Csv(CsvWriter),
}

impl LineWriter {
    pub fn new(sink: &plan::Sink, format: LineFormat) -> Self {
        match format {
            LineFormat::Json => Self::Json(json_writers(sink)),
            LineFormat::Csv => {
                let labels: Vec<_> = sink.inputs.iter().map(|i| i.label.clone()).collect();
                let leading = (labels.len() > 1).then_some((STEP_COLUMN, labels.as_slice()));
                Self::Csv(CsvWriter::new(&sink.inputs[0].schema, leading))
            }
        }
    }

    /// Appends the rows, each with its newline, to `out`.
    pub fn write(&self, input: usize, batch: &Batch, out: &mut Vec<u8>) {
        match self {
            Self::Json(writers) => writers[input].write_lines(&batch.columns, out),
            Self::Csv(writer) => writer.write(input, &batch.columns, out),
        }
    }

    /// Makes sure that a file begins as one of this kind does. Errors say that it has other columns.
    pub fn begin(&self, file: &LineFile) -> Result<(), ConnectorError> {
        match self {
            Self::Json(_) => Ok(()),
            Self::Csv(writer) => file.begin_with(writer.header()),
        }
    }

    /// What files of this kind have in common: rows of another kind do not belong into one of them.
    pub fn kind(&self) -> String {
        match self {
            Self::Json(_) => "json".into(),
            Self::Csv(writer) => String::from_utf8_lossy(writer.header()).into_owned(),
        }
    }
}

/// A writer for each input; with several inputs their rows begin with the column `step`.
pub fn json_writers(sink: &plan::Sink) -> Vec<RowWriter> {
    let single = sink.inputs.len() == 1;
    let writer = |input: &plan::SinkInput| {
        if single {
            RowWriter::new(&input.schema)
        } else {
            RowWriter::with_leading(&input.schema, STEP_COLUMN, &input.label)
        }
    };
    sink.inputs.iter().map(writer).collect()
}
