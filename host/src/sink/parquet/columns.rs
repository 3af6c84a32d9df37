//! The columns of a Parquet sink: one table of all inputs, in types that every reader of Parquet knows.
//!
//! Times are microseconds in UTC; strings and bytes have one width of offsets. Everything else stays as it is.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::ConnectorError;
use crate::pipeline::plan;

/// Makes rows of each input rows of the table.
#[derive(Debug)]
pub struct Columns {
    /// The sink, for errors.
    place: String,
    schema: SchemaRef,
    /// Of several inputs: what stands in the column `step` of each.
    labels: Vec<String>,
}

impl Columns {
    pub fn new(sink: &plan::Sink) -> Self {
        let columns = sink.schema();
        let fields = columns.fields().iter().map(|f| {
            let ty = known_type(f.data_type());
            Field::new(f.name(), ty, f.is_nullable())
        });
        let several = sink.inputs.len() > 1;
        let labels = sink.inputs.iter().filter(|_| several);
        Self {
            place: format!("sink {}", sink.name),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            labels: labels.map(|i| i.label.clone()).collect(),
        }
    }

    /// Whatever makes a difference to a reader.
    pub fn names_and_types(&self) -> Vec<String> {
        let fields = self.schema.fields().iter();
        fields
            .map(|f| {
                let null = if f.is_nullable() { "?" } else { "" };
                format!("{} {}{null}", f.name(), f.data_type())
            })
            .collect()
    }

    /// `rows` of input `input` as rows of the table.
    pub fn of(&self, input: usize, rows: &RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let failed = |cause| ConnectorError::failed(&self.place, cause);
        let step = self.labels.get(input).map(|label| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
                label,
                rows.num_rows(),
            )))
        });
        let columns = step.into_iter().chain(rows.columns().iter().cloned());
        let columns: Result<Vec<_>, _> = columns
            .zip(self.schema.fields())
            .map(
                |(column, field)| match column.data_type() == field.data_type() {
                    true => Ok(column),
                    false => cast(&column, field.data_type()),
                },
            )
            .collect();
        RecordBatch::try_new(self.schema.clone(), columns.map_err(failed)?).map_err(failed)
    }
}

fn known_type(ty: &DataType) -> DataType {
    match ty {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Date64 => DataType::Date32,
        DataType::Dictionary(_, value) => known_type(value),
        other => other.clone(),
    }
}
