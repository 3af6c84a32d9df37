//! Dead letters as records of a Kafka topic: one JSON object each, without a key.
//!
//! As the Kafka sink: within the transaction of a checkpoint if that is on the same cluster, else at least once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::records::Records;
use super::sink::TopicOutput;
use super::transaction::TransactionalProducer;
use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;
use crate::sink::dead_letters::{DeadLetter, DeadLetters};

/// The dead-letter topic of a pipeline, shared by all workers.
pub struct KafkaDeadLetters {
    output: TopicOutput,
    count: AtomicU64,
}

impl KafkaDeadLetters {
    /// Opens the topic, which must exist.
    pub fn open(
        cluster: &Cluster,
        topic: &str,
        transaction: Option<&Arc<TransactionalProducer>>,
    ) -> Result<Self, ConnectorError> {
        Ok(Self {
            output: TopicOutput::open("dead letters", cluster, topic, transaction)?,
            count: AtomicU64::new(0),
        })
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn write(&self, letters: &[DeadLetter]) -> Result<(), ConnectorError> {
        let texts = letters.iter().map(DeadLetter::to_json);
        self.output
            .write(Records::of_texts(self.output.topic(), texts))?;
        self.count
            .fetch_add(letters.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self) -> Result<Value, ConnectorError> {
        Ok(self.output.cut())
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        self.output.sync(cut)
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.output.stop();
    }
}
