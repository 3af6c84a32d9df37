//! A Kafka topic as a sink: one JSON document a row.
//!
//! Within the transaction of a checkpoint, or at least once: then a checkpoint waits until its rows are acknowledged by all
//! in-sync replicas, and what was written after the last decided one is written again after a crash. Within a thread the
//! order of rows is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::producer::TopicProducer;
use super::records::{Key, Records};
use super::transaction::TransactionalProducer;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::format::encode::RowWriter;
use crate::pipeline::plan;
use crate::sink::Sink;

/// A sink of a pipeline that writes to a Kafka topic.
pub struct KafkaSink {
    output: TopicOutput,
    inputs: Vec<Input>,
    rows: AtomicU64,
}

/// How rows of one input become records.
struct Input {
    rows: RowWriter,
    key: Key,
}

impl KafkaSink {
    /// Opens the sink, within `transaction` if there is one. Its topic must exist. Nothing of an earlier run matters: what
    /// it had not delivered is written again.
    pub fn open(
        sink: &plan::Sink,
        transaction: Option<&Arc<TransactionalProducer>>,
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
            output: TopicOutput::open(&who, cluster, topic, transaction)?,
            inputs: inputs.collect(),
            rows: AtomicU64::new(0),
        })
    }
}

impl Sink for KafkaSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        let (input, topic) = (&self.inputs[input], self.output.topic.clone());
        let records = Records::of_rows(topic, &input.key, &input.rows, &batch.columns);
        self.output.write(records)?;
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, _last: bool) -> Result<Value, ConnectorError> {
        Ok(self.output.cut())
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        self.output.sync(cut)
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.output.stop();
    }
}

/// A topic that is written to, in one of two ways.
pub(super) struct TopicOutput {
    topic: Arc<str>,
    way: Way,
}

enum Way {
    /// Its end and its decision are those of the checkpoint.
    InTransaction(Arc<TransactionalProducer>),
    AtLeastOnce(TopicProducer),
}

impl TopicOutput {
    pub(super) fn open(
        who: &str,
        cluster: &plan::Cluster,
        topic: &str,
        transaction: Option<&Arc<TransactionalProducer>>,
    ) -> Result<Self, ConnectorError> {
        let way = match transaction {
            Some(transaction) if transaction.cluster() == cluster => {
                transaction.check_topic(who, topic)?;
                Way::InTransaction(transaction.clone())
            }
            _ => Way::AtLeastOnce(TopicProducer::open(who, cluster, topic)?),
        };
        let topic = topic.into();
        Ok(Self { topic, way })
    }

    pub(super) fn topic(&self) -> Arc<str> {
        self.topic.clone()
    }

    pub(super) fn write(&self, records: Records) -> Result<(), ConnectorError> {
        match &self.way {
            Way::InTransaction(transaction) => transaction.write(records),
            Way::AtLeastOnce(producer) => records
                .iter()
                .try_for_each(|(key, value)| producer.send(key, value)),
        }
    }

    pub(super) fn cut(&self) -> Value {
        match &self.way {
            Way::InTransaction(_) => Value::Null,
            Way::AtLeastOnce(producer) => producer.cut(),
        }
    }

    pub(super) fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        match &self.way {
            Way::InTransaction(_) => Ok(()),
            Way::AtLeastOnce(producer) => producer.sync_cut(cut),
        }
    }

    pub(super) fn stop(&self) {
        match &self.way {
            // It is stopped by itself.
            Way::InTransaction(_) => {}
            Way::AtLeastOnce(producer) => producer.stop(),
        }
    }
}
