//! A broker inside the host's own process, for demos and tests: librdkafka's mock cluster.
//!
//! What it is not: it keeps 5 MiB a partition and drops the oldest batches beyond that, without a word; it has no
//! transactions worth the name (an aborted record is visible), nothing on disk, no authentication, and it answers
//! every question for an offset by time with the end. `CreateTopics` is not among its requests: topics are made at start.
//! It listens on loopback at a port the system chooses.
//!
//! Whoever feeds it must therefore wait for the slowest reader: see [`GeneratorFeed`](super::GeneratorFeed).

use std::sync::Mutex;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::ConnectorError;

const PLACE: &str = "embedded broker";

/// Runs until it is dropped; everything in it is gone then.
pub struct EmbeddedBroker {
    bootstrap: String,
    cluster: Mutex<Mock>,
}

struct Mock(MockCluster<'static, DefaultProducerContext>);

// SAFETY: the mock cluster is a handle to a thread of librdkafka's own that serves operations from a queue; no thread but
// that one touches its state. The mutex around it keeps two callers apart as well.
unsafe impl Send for Mock {}

impl EmbeddedBroker {
    /// Starts a broker with these topics and numbers of partitions (at least 1).
    pub fn start(topics: &[(&str, u32)]) -> Result<Self, ConnectorError> {
        let cluster = MockCluster::new(1).map_err(|error| ConnectorError::failed(PLACE, error))?;
        let broker = Self {
            bootstrap: cluster.bootstrap_servers(),
            cluster: Mutex::new(Mock(cluster)),
        };
        for &(topic, partitions) in topics {
            broker.create_topic(topic, partitions)?;
        }
        Ok(broker)
    }

    /// `host:port` of the broker.
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    pub fn create_topic(&self, topic: &str, partitions: u32) -> Result<(), ConnectorError> {
        let failed = |cause: &dyn std::fmt::Display| {
            ConnectorError::failed(format!("{PLACE}, topic {topic}"), cause)
        };
        let count = i32::try_from(partitions.max(1)).map_err(|error| failed(&error))?;
        self.cluster()
            .0
            .create_topic(topic, count, 1)
            .map_err(|error| failed(&error))
    }

    /// Takes the broker away, or brings it back.
    #[cfg(test)]
    pub(super) fn set_down(&self, down: bool) {
        let cluster = self.cluster();
        let result = if down {
            cluster.0.broker_down(-1)
        } else {
            cluster.0.broker_up(-1)
        };
        result.expect("the mock cluster has a broker");
    }

    /// Answers the next `times` fetches with: not authorised.
    #[cfg(test)]
    pub(super) fn deny_fetches(&self, times: usize) {
        use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        let cluster = self.cluster();
        cluster
            .0
            .request_errors(RDKafkaApiKey::Fetch, &vec![denied; times]);
    }

    fn cluster(&self) -> std::sync::MutexGuard<'_, Mock> {
        self.cluster
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
