//! A Kafka topic as a sink: one JSON document a row.
//!
//! At least once: a checkpoint waits until its rows are acknowledged by all in-sync replicas; what was written after the
//! last decided checkpoint is written again after a crash. Within a thread the order of rows is kept.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use serde_json::{Value, json};

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
        let plan::SinkConnector::Kafka { cluster, topic, key } = &sink.connector else {
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

    fn cut(&self) -> Result<Value, ConnectorError> {
        Ok(json!({ "generation": self.producer.barrier() }))
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        match cut["generation"].as_u64() {
            Some(generation) => self.producer.sync(generation),
            None => Err(ConnectorError::failed(
                format!("topic {}", self.producer.topic()),
                format!("{cut} is no cut of a Kafka sink"),
            )),
        }
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
            &[one] if schema.field(one).data_type() == &DataType::Utf8 => Self::Text(one),
            several => {
                let fields: Vec<_> = several.iter().map(|&at| schema.field(at).clone()).collect();
                Self::Array(several.to_vec(), RowWriter::arrays(&Schema::new(fields).into()))
            }
        }
    }

    fn of<'a>(&self, columns: &'a RecordBatch) -> Keys<'a> {
        match self {
            Self::None => Keys::None,
            Self::Text(at) => Keys::Text(columns.column(*at).as_string()),
            Self::Array(at, writer) => {
                let columns = columns.project(at).expect("key columns are columns of the input");
                let (mut bytes, mut ends) = (Vec::new(), Vec::new());
                writer.write(&columns, &mut bytes, &mut ends);
                Keys::Written(bytes, ends)
            }
        }
    }
}

/// The keys of a batch's rows.
enum Keys<'a> {
    None,
    Text(&'a arrow::array::StringArray),
    Written(Vec<u8>, Vec<usize>),
}

impl Keys<'_> {
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
