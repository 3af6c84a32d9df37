//! What is read of a source to the columns of its schema: values of records, parts of records, rows that come as columns.
//!
//! Invariant: a record that is refused leaves nothing behind; value and parts have the same rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};

use crate::format::parts::PartColumns;
use crate::format::{Decoder, decoder};
use crate::pipeline::plan::{self, RecordPart};
use crate::source::Record;
use crate::time::{Micros, NO_TIME};

/// Collects the rows of one source and worker.
pub struct Intake {
    schema: SchemaRef,
    value: Value,
    parts: Option<PartColumns>,
    /// For each column of the schema, where it comes from.
    places: Vec<Place>,
    /// The column with the event time.
    event_time: Option<Place>,
}

enum Value {
    Records(Box<dyn Decoder>),
    /// Batches of the value's columns, and the numbers of their rows.
    Columns(SchemaRef, Vec<RecordBatch>, Vec<i64>),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Value(usize),
    Part(usize),
}

impl Intake {
    /// For `source`, whose rows come as columns (`columnar`) or as records, of a format whose first record is `header`.
    /// Errors name the field that cannot be read.
    pub fn new(
        source: &plan::Source,
        header: Option<&[u8]>,
        columnar: bool,
    ) -> Result<Self, String> {
        let (value_schema, paths) = source.of_value();
        let places = places(&source.parts);
        let event_time = source.event_time.as_ref().map(|t| places[t.column]);
        let of_value = match event_time {
            Some(Place::Value(column)) => Some(column),
            _ => None,
        };
        let value = match columnar {
            true => Value::Columns(value_schema, Vec::new(), Vec::new()),
            false => Value::Records(decoder(
                source.format,
                &value_schema,
                &paths,
                of_value,
                header,
            )?),
        };
        Ok(Self {
            schema: source.schema.clone(),
            value,
            parts: part_columns(source, event_time)?,
            places,
            event_time,
        })
    }

    pub fn is_columnar(&self) -> bool {
        matches!(self.value, Value::Columns(..))
    }

    /// Adds a record; returns its event time, or [`NO_TIME`] where there is none.
    pub fn push(&mut self, record: &Record<'_>, value: &[u8]) -> Result<Micros, String> {
        let Value::Records(decoder) = &mut self.value else {
            return Err("a record of a source of columns".into());
        };
        let time = decoder.push(value)?;
        let Some(parts) = &mut self.parts else {
            return Ok(time);
        };
        match parts.push(record.number, &record.about) {
            Ok(part_time) => Ok(match self.event_time {
                Some(Place::Part(_)) => part_time,
                _ => time,
            }),
            Err(reason) => {
                decoder.undo();
                Err(reason)
            }
        }
    }

    /// Takes back the record last pushed.
    pub fn undo(&mut self) {
        if let Value::Records(decoder) = &mut self.value {
            decoder.undo();
        }
        if let Some(parts) = &mut self.parts {
            parts.undo();
        }
    }

    /// The event times of rows that came as columns.
    pub fn times(&self, rows: &RecordBatch) -> Vec<Micros> {
        match self.event_time {
            Some(Place::Value(column)) => {
                let times = rows
                    .column(column)
                    .as_primitive::<TimestampMicrosecondType>();
                times.values().to_vec()
            }
            _ => vec![NO_TIME; rows.num_rows()],
        }
    }

    /// Adds rows that came as columns, `numbers[i]` being the number of row `i`.
    pub fn add(&mut self, rows: RecordBatch, numbers: &[i64]) {
        if let Value::Columns(_, batches, all) = &mut self.value {
            batches.push(rows);
            all.extend_from_slice(numbers);
        }
    }

    /// The rows so far; none are left.
    pub fn finish(&mut self) -> RecordBatch {
        let (value, parts): (RecordBatch, Vec<ArrayRef>) = match &mut self.value {
            Value::Records(decoder) => {
                let value = decoder.finish();
                match &mut self.parts {
                    None => return value,
                    Some(parts) => (value, parts.finish().columns().to_vec()),
                }
            }
            Value::Columns(schema, batches, numbers) => {
                let value = concat_batches(schema, batches.iter())
                    .expect("pieces of one file have one schema");
                batches.clear();
                // Of a file's rows the number is known.
                let numbers: ArrayRef = Arc::new(Int64Array::from(std::mem::take(numbers)));
                let parts = self.schema.fields().len() - value.num_columns();
                (value, vec![numbers; parts])
            }
        };
        let columns = self.places.iter().map(|place| match *place {
            Place::Value(at) => value.column(at).clone(),
            Place::Part(at) => parts[at].clone(),
        });
        let rows = RecordBatchOptions::new().with_row_count(Some(value.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns.collect(), &rows)
            .expect("value and parts have the schema's types and one length")
    }
}

fn places(parts: &[Option<RecordPart>]) -> Vec<Place> {
    let (mut of_value, mut of_parts) = (0.., 0..);
    let mut place = |part: &Option<RecordPart>| match part {
        None => of_value.next().map(Place::Value),
        Some(_) => of_parts.next().map(Place::Part),
    };
    parts.iter().filter_map(&mut place).collect()
}

fn part_columns(
    source: &plan::Source,
    event_time: Option<Place>,
) -> Result<Option<PartColumns>, String> {
    let with = source.schema.fields().iter().zip(&source.parts);
    let found: Vec<_> = with
        .filter_map(|(f, part)| Some((f.clone(), (*part)?)))
        .collect();
    if found.is_empty() {
        return Ok(None);
    }
    let (fields, parts): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let event_time = match event_time {
        Some(Place::Part(column)) => Some(column),
        _ => None,
    };
    PartColumns::new(&Arc::new(Schema::new(fields)), parts, event_time).map(Some)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, TimeUnit};

    use super::*;
    use crate::format::encode::row_json;
    use crate::pipeline::plan::{BadRecords, EventTime, Format, Limit, SourceConnector};
    use crate::source::{About, Position};

    fn time() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    /// A source with these columns; the event time is column `event_time`.
    fn source(fields: &[(&str, DataType)], event_time: Option<usize>) -> plan::Source {
        let arrow = fields
            .iter()
            .map(|(name, ty)| Field::new(*name, ty.clone(), false));
        plan::Source {
            name: "s".into(),
            connector: SourceConnector::File { path: "x".into() },
            format: Format::Json,
            schema: Arc::new(Schema::new(arrow.collect::<Vec<_>>())),
            paths: fields
                .iter()
                .map(|(name, _)| vec![name.to_string()])
                .collect(),
            parts: fields
                .iter()
                .map(|(name, _)| RecordPart::named(name))
                .collect(),
            event_time: event_time.map(|column| EventTime {
                column,
                lateness: 0,
                idle_after: std::time::Duration::ZERO,
                max_ahead: 0,
            }),
            bad_records: BadRecords::DeadLetter,
            limit: Limit::default(),
        }
    }

    fn record(number: i64, about: About<'_>) -> Record<'_> {
        Record {
            partition: 0,
            number,
            next: Position {
                offset: number + 1,
                record: number + 1,
            },
            value: None,
            about,
        }
    }

    #[test]
    fn parts_stand_among_the_columns_of_the_value() {
        let fields = [
            ("_offset", DataType::Int64),
            ("a", DataType::Int64),
            ("_timestamp", time()),
            ("at", time()),
        ];
        for (event_time, expected) in [(2, 7), (3, 5)] {
            let mut intake = Intake::new(&source(&fields, Some(event_time)), None, false).unwrap();
            let about = About {
                timestamp: Some(7),
                ..About::default()
            };
            let value = br#"{"at":"1970-01-01T00:00:00.000005Z","a":1}"#;
            assert_eq!(intake.push(&record(3, about), value), Ok(expected));
            // Neither a broken value nor a missing part leaves anything behind.
            assert!(intake.push(&record(4, about), b"{}").is_err());
            assert!(intake.push(&record(5, About::default()), value).is_err());
            intake.push(&record(6, about), value).unwrap();
            intake.undo();
            let rows = intake.finish();
            assert_eq!(rows.num_rows(), 1);
            assert_eq!(
                row_json(&rows, 0),
                r#"{"_offset":3,"a":1,"_timestamp":"1970-01-01T00:00:00.000007Z","at":"1970-01-01T00:00:00.000005Z"}"#
            );
            assert_eq!(intake.finish().num_rows(), 0);
        }
    }

    #[test]
    fn rows_that_come_as_columns_get_their_numbers() {
        let fields = [("a", DataType::Int64), ("_offset", DataType::Int64)];
        let mut intake = Intake::new(&source(&fields, None), None, true).unwrap();
        assert!(intake.is_columnar());
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let piece = |values: Vec<i64>| {
            let column: ArrayRef = Arc::new(Int64Array::from(values));
            RecordBatch::try_new(schema.clone(), vec![column]).unwrap()
        };
        assert_eq!(intake.times(&piece(vec![1])), [NO_TIME]);
        intake.add(piece(vec![10, 11]), &[1, 2]);
        intake.add(piece(vec![13]), &[4]);
        let rows = intake.finish();
        assert_eq!(row_json(&rows, 2), r#"{"a":13,"_offset":4}"#);
        assert_eq!(rows.num_rows(), 3);
        assert_eq!(intake.finish().num_rows(), 0);
    }
}
