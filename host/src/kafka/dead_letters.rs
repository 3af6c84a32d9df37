//! Dead letters as records of a Kafka topic: one JSON object each, without a key.
//!
//! At least once, as the Kafka sink: a checkpoint waits for its letters, a crash may repeat those after it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::producer::TopicProducer;
use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;
use crate::sink::dead_letters::{DeadLetter, DeadLetters};

/// The dead-letter topic of a pipeline, shared by all workers.
pub struct KafkaDeadLetters {
    producer: TopicProducer,
    count: AtomicU64,
}

impl KafkaDeadLetters {
    /// Opens the topic, which must exist.
    pub fn open(cluster: &Cluster, topic: &str) -> Result<Self, ConnectorError> {
        Ok(Self {
            producer: TopicProducer::open("dead letters", cluster, topic)?,
            count: AtomicU64::new(0),
        })
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn write(&self, letters: &[DeadLetter]) -> Result<(), ConnectorError> {
        for letter in letters {
            self.producer.send(None, letter.to_json().as_bytes())?;
        }
        self.count
            .fetch_add(letters.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self) -> Result<Value, ConnectorError> {
        Ok(self.producer.cut())
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        self.producer.sync_cut(cut)
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.producer.stop();
    }
}
