//! A Kafka topic as a sink: one JSON document a row.
//!
//! At least once: a checkpoint waits until its rows are acknowledged by all in-sync replicas; what was written after the
//! last decided checkpoint is written again after a crash. Within a thread the order of rows is kept.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use serde_json::Value;

use super::producer::TopicProducer;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::format::encode::RowWriter;
use crate::pipeline::plan;
use crate::sink::Sink;

/// A sink of a pipeline that writes to a Kafka topic.
pub struct KafkaSink {
    producer: TopicProducer,
    inputs: Vec<Input>,
    rows: AtomicU64,
}

/// How rows of one input become records.
struct Input {
    rows: RowWriter,
    key: Key,
}

enum Key {
    None,
    /// The bytes of this string column; a null is no key.
    Text(usize),
    /// A JSON array of these columns' values.
    Array(Vec<usize>, RowWriter),
}

impl KafkaSink {
    /// Opens the sink. Its topic must exist. Nothing of an earlier run matters: what it had not delivered is written again.
    pub fn open(
        _pipeline: &str,
        sink: &plan::Sink,
        _resume: Option<&Value>,
    ) -> Result<Self, ConnectorError> {
        let who = format!("sink {}", sink.name);
        let plan::SinkConnector::Kafka {
            cluster,
            topic,
            key,
        } = &sink.connector
        else {
            return Err(ConnectorError::failed(who, "not a Kafka sink"));
        };
        let several = sink.inputs.len() > 1;
        let inputs = sink.inputs.iter().enumerate().map(|(at, input)| Input {
            rows: match several {
                true => RowWriter::with_leading(&input.schema, "step", &input.label),
                false => RowWriter::new(&input.schema),
            },
            key: Key::new(&input.schema, key.get(at).map_or(&[], Vec::as_slice)),
        });
        Ok(Self {
            producer: TopicProducer::open(&who, cluster, topic)?,
            inputs: inputs.collect(),
            rows: AtomicU64::new(0),
        })
    }
}

impl Sink for KafkaSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        let input = &self.inputs[input];
        let keys = input.key.of(&batch.columns);
        let (mut rows, mut ends) = (Vec::new(), Vec::with_capacity(batch.rows()));
        input.rows.write(&batch.columns, &mut rows, &mut ends);
        let mut start = 0;
        for (row, &end) in ends.iter().enumerate() {
            self.producer.send(keys.get(row), &rows[start..end])?;
            start = end;
        }
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, _last: bool) -> Result<Value, ConnectorError> {
        Ok(self.producer.cut())
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        self.producer.sync_cut(cut)
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.producer.stop();
    }
}

impl Key {
    fn new(schema: &SchemaRef, columns: &[usize]) -> Self {
        match columns {
            [] => Self::None,
            &[one] if schema.field(one).data_type().is_string() => Self::Text(one),
            several => {
                let fields: Vec<_> = several.iter().map(|&at| schema.field(at).clone()).collect();
                Self::Array(
                    several.to_vec(),
                    RowWriter::arrays(&Schema::new(fields).into()),
                )
            }
        }
    }

    fn of(&self, columns: &RecordBatch) -> Keys {
        match self {
            Self::None => Keys::None,
            Self::Text(at) => {
                let column = cast(columns.column(*at), &DataType::Utf8);
                Keys::Text(column.expect("every string is UTF-8").as_string().clone())
            }
            Self::Array(at, writer) => {
                let columns = columns
                    .project(at)
                    .expect("key columns are columns of the input");
                let (mut bytes, mut ends) = (Vec::new(), Vec::new());
                writer.write(&columns, &mut bytes, &mut ends);
                Keys::Written(bytes, ends)
            }
        }
    }
}

/// The keys of a batch's rows.
enum Keys {
    None,
    Text(StringArray),
    Written(Vec<u8>, Vec<usize>),
}

impl Keys {
    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Text(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Self::Written(bytes, ends) => {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                Some(&bytes[start..ends[row]])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray, StringViewArray};

    use super::*;

    fn keys(columns: &[usize]) -> Vec<Option<String>> {
        let batch = RecordBatch::try_from_iter([
            (
                "user",
                Arc::new(StringArray::from(vec![Some("ann \"a\""), None])) as Arc<dyn Array>,
            ),
            ("view", Arc::new(StringViewArray::from(vec!["v1", "v2"]))),
            (
                "amount",
                Arc::new(Float64Array::from(vec![None, Some(2.5)])),
            ),
        ]);
        let batch = batch.unwrap();
        let keys = Key::new(&batch.schema(), columns).of(&batch);
        let text = |row| {
            keys.get(row)
                .map(|key| String::from_utf8(key.to_vec()).unwrap())
        };
        vec![text(0), text(1)]
    }

    #[test]
    fn one_string_column_is_the_key_as_it_is_and_null_is_no_key() {
        assert_eq!(keys(&[0]), [Some("ann \"a\"".into()), None]);
        assert_eq!(keys(&[1]), [Some("v1".into()), Some("v2".into())]);
        assert_eq!(keys(&[]), [None, None]);
    }

    #[test]
    fn any_other_key_is_a_json_array_of_its_values() {
        assert_eq!(keys(&[2]), [Some("[null]".into()), Some("[2.5]".into())]);
        assert_eq!(
            keys(&[0, 2]),
            [
                Some(r#"["ann \"a\"",null]"#.into()),
                Some("[null,2.5]".into())
            ]
        );
    }
}
