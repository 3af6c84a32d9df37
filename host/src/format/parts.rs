//! Columns of what is known of a record besides its value: key, headers, topic, partition, offset, timestamp.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::columns::{Column, Kind, Rows};
use crate::pipeline::plan::RecordPart;
use crate::time::Micros;

/// What a source tells of a record besides its value and number. A file tells nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    pub key: Option<&'a [u8]>,
    /// A JSON object; only from a reader that was asked for headers.
    pub headers: Option<&'a str>,
    pub topic: Option<&'a str>,
    /// The partition's number in its topic.
    pub partition: Option<i32>,
    pub timestamp: Option<Micros>,
}

/// The columns of a batch that hold parts of records.
///
/// Invariant: a record that is refused leaves nothing behind.
pub struct PartColumns {
    rows: Rows,
    parts: Vec<RecordPart>,
}

impl PartColumns {
    /// `parts[i]` goes into column `i` of `schema`; `event_time` is the column whose value [`push`](Self::push) returns.
    pub fn new(
        schema: &SchemaRef,
        parts: Vec<RecordPart>,
        event_time: Option<usize>,
    ) -> Result<Self, String> {
        let names = schema.fields().iter().map(|f| vec![f.name().clone()]);
        let rows = Rows::new(schema, &names.collect::<Vec<_>>(), event_time)?;
        Ok(Self { rows, parts })
    }

    /// Adds the record `number`; `Err` says what it lacks.
    pub fn push(&mut self, number: i64, about: &About<'_>) -> Result<Micros, String> {
        let filled = self
            .parts
            .iter()
            .enumerate()
            .try_for_each(|(at, part)| put(self.rows.open(at), *part, number, about));
        let pushed = filled.and_then(|()| self.rows.complete());
        if pushed.is_err() {
            self.rows.roll_back();
        }
        pushed
    }

    pub fn undo(&mut self) {
        self.rows.undo();
    }

    pub fn finish(&mut self) -> RecordBatch {
        self.rows.finish()
    }
}

fn put(
    column: &mut Column,
    part: RecordPart,
    number: i64,
    about: &About<'_>,
) -> Result<(), String> {
    let text = match part {
        RecordPart::Key => return put_key(column, about.key),
        RecordPart::Headers => about.headers,
        RecordPart::Topic => about.topic,
        RecordPart::Partition => return put_number(column, about.partition.map(i64::from)),
        RecordPart::Offset => return put_number(column, Some(number)),
        RecordPart::Timestamp => return put_number(column, about.timestamp),
    };
    match text {
        Some(text) => column.put_text(text),
        None => column.put_null(),
    }
}

fn put_number(column: &mut Column, number: Option<i64>) -> Result<(), String> {
    match number {
        Some(number) => column.put_number(number),
        None => return column.put_null(),
    }
    Ok(())
}

fn put_key(column: &mut Column, key: Option<&[u8]>) -> Result<(), String> {
    match key {
        None => column.put_null(),
        Some(key) if column.kind() == Kind::Bytes => column.put_bytes(key),
        Some(key) => match std::str::from_utf8(key) {
            Ok(text) => column.put_text(text),
            Err(_) => Err(format!(
                "{}: the record's key is not UTF-8 (the type `bytes` would hold it)",
                column.label()
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;
    use crate::format::encode::row_json;

    fn columns(fields: &[(&str, DataType, bool)], event_time: Option<usize>) -> PartColumns {
        let arrow = fields
            .iter()
            .map(|(n, t, null)| Field::new(*n, t.clone(), *null));
        let schema = Arc::new(Schema::new(arrow.collect::<Vec<_>>()));
        let parts = fields
            .iter()
            .map(|(name, ..)| RecordPart::named(name).unwrap());
        PartColumns::new(&schema, parts.collect(), event_time).unwrap()
    }

    #[test]
    fn parts_become_columns() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let fields = [
            ("_timestamp", time, false),
            ("_key", DataType::Utf8, true),
            ("_offset", DataType::Int64, false),
            ("_partition", DataType::Int64, true),
            ("_topic", DataType::Utf8, true),
            ("_headers", DataType::Utf8, true),
        ];
        let mut columns = columns(&fields, Some(0));
        let about = About {
            key: Some(b"k"),
            headers: Some("{}"),
            topic: Some("t"),
            partition: Some(3),
            timestamp: Some(5_000),
        };
        assert_eq!(columns.push(7, &about), Ok(5_000));
        let bare = About {
            timestamp: Some(1),
            ..About::default()
        };
        assert_eq!(columns.push(8, &bare), Ok(1));
        let reason = columns.push(9, &About::default()).unwrap_err();
        assert!(reason.contains("field `_timestamp`"), "{reason}");
        let wrong = About {
            key: Some(b"\xff"),
            ..about
        };
        assert!(columns.push(9, &wrong).unwrap_err().contains("not UTF-8"));
        columns.push(10, &about).unwrap();
        columns.undo();
        let rows = columns.finish();
        assert_eq!(rows.num_rows(), 2);
        assert_eq!(
            row_json(&rows, 0),
            r#"{"_timestamp":"1970-01-01T00:00:00.005Z","_key":"k","_offset":7,"_partition":3,"_topic":"t","_headers":"{}"}"#
        );
        assert!(row_json(&rows, 1).ends_with(
            r#""_key":null,"_offset":8,"_partition":null,"_topic":null,"_headers":null}"#
        ));
    }

    #[test]
    fn a_key_of_any_bytes_fits_into_bytes() {
        let mut columns = columns(&[("_key", DataType::Binary, false)], None);
        columns
            .push(
                0,
                &About {
                    key: Some(b"\xff\x00"),
                    ..About::default()
                },
            )
            .unwrap();
        assert!(
            columns
                .push(1, &About::default())
                .unwrap_err()
                .contains("found null")
        );
        assert_eq!(row_json(&columns.finish(), 0), r#"{"_key":"/wA="}"#);
    }
}
