//! Dead letters as records of a Kafka topic: one JSON document each, without a key.

use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;

use super::producer::TopicProducer;

/// The dead-letter topic of a pipeline, shared by all workers.
pub struct KafkaDeadLetters {
    producer: TopicProducer,
}

impl KafkaDeadLetters {
    pub fn open(cluster: &Cluster, topic: &str) -> Result<Self, ConnectorError> {
        let producer = TopicProducer::open("dead letters", cluster, topic)?;
        Ok(Self { producer })
    }

    /// Writes one document; it is durable after the next [`sync`](Self::sync).
    pub fn write_json(&self, document: &[u8]) -> Result<(), ConnectorError> {
        self.producer.send(None, document)
    }
}
