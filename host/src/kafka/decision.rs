//! The decisions of a pipeline: a compacted topic whose last record says which checkpoint is the true one.
//!
//! The record of checkpoint N is written in the transaction that carries N's output, so that one is visible exactly if the
//! other is. Read only after the predecessor was fenced: before, its transaction may still be committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::admin;
use super::connection::{self, cause, is_transient};
use super::ending::Ending;
use super::link::{Asking, Link};
use super::properties::Scope;
use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;

/// Of the records; another one is refused.
const VERSION: u32 = 1;
/// Shards are partitions; a pipeline has one.
pub(super) const PARTITION: i32 = 0;
pub(super) const KEY: &str = "0";

/// Small and often closed segments, so that compaction leaves little to read at a start.
const SETTINGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("segment.ms", "600000"),
    ("unclean.leader.election.enable", "false"),
];
/// Copies of each record, where there are so many brokers, and how many must have it.
const REPLICAS: usize = 3;
const REPLICAS_IN_SYNC: &str = "2";

/// Offsets read back from the end at first, and how many times as many where no decision is among them.
const LOOK_BACK: i64 = 64;
const LOOK_BACK_GROWS: i64 = 16;
/// Nothing heard for so long: the client begins again.
const SILENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// A transaction that nobody writes any more has its mark in less, while there are brokers that answer.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// What makes a checkpoint true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    v: u32,
    /// Of the state that the checkpoint is of.
    pub state: String,
    pub checkpoint: u64,
    /// Of the host that wrote it: grows with each start.
    pub incarnation: u64,
    /// Digest of the positions of all inputs.
    pub positions: String,
    /// Of each plugin step, the digest of the version in force.
    pub plugins: BTreeMap<String, String>,
}

impl Decision {
    pub fn new(state: String, checkpoint: u64, incarnation: u64) -> Self {
        Self {
            v: VERSION,
            state,
            checkpoint,
            incarnation,
            positions: String::new(),
            plugins: BTreeMap::new(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let decision: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        match decision.v {
            VERSION => Ok(decision),
            other => Err(format!(
                "it is of version {other}, this tidemill knows {VERSION}"
            )),
        }
    }
}

/// The topic of a pipeline's decisions.
pub fn topic(pipeline: &str) -> String {
    format!("__tidemill.{pipeline}.decisions")
}

/// The decisions of one pipeline, as they are read.
pub(super) struct Decisions {
    cluster: Cluster,
    pipeline: String,
    topic: String,
    link: Arc<Link>,
}

impl Decisions {
    pub(super) fn new(cluster: &Cluster, pipeline: &str) -> Self {
        let topic = topic(pipeline);
        let hosts = connection::hosts(cluster);
        let link = Arc::new(Link::new(format!("decisions ({topic} at {hosts})")));
        Self {
            cluster: cluster.clone(),
            pipeline: pipeline.to_owned(),
            topic,
            link,
        }
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Creates the topic if there is none.
    pub(super) fn ensure(&self, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        let client = admin::asking_client(&self.cluster, &self.link)?;
        let (known, brokers) = admin::ask(&client, &self.link, stop, |timeout| {
            let metadata = client.client().fetch_metadata(Some(&self.topic), timeout)?;
            let topic = metadata.topics().first();
            match topic.and_then(|t| t.error()).map(RDKafkaErrorCode::from) {
                None => Ok((true, metadata.brokers().len())),
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    Ok((false, metadata.brokers().len()))
                }
                Some(code) => Err(KafkaError::MetadataFetch(code)),
            }
        })?;
        if known {
            return Ok(());
        }
        let replicas = brokers.clamp(1, REPLICAS);
        let mut settings = SETTINGS.to_vec();
        if replicas == REPLICAS {
            settings.push(("min.insync.replicas", REPLICAS_IN_SYNC));
        }
        match admin::try_create(&self.cluster, &self.topic, 1, replicas as i32, &settings)? {
            Ok(()) => {
                tracing::info!(topic = self.topic, replicas, "created");
                Ok(())
            }
            Err(RDKafkaErrorCode::TopicAlreadyExists) => Ok(()),
            Err(code) => Err(self.link.failed(format!(
                "the topic does not exist and could not be created ({code}); create it with one partition and {}",
                settings
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// The last decision. Waits while a transaction on the topic is open.
    pub(super) fn last(&self, stop: &dyn Fn() -> bool) -> Result<Option<Decision>, ConnectorError> {
        self.last_before_end("read_uncommitted", stop)
    }

    /// The last decision before whatever transaction is open: a predecessor that died may have left one, and nobody but
    /// who fences it ends it before its timeout.
    pub(super) fn last_visible(
        &self,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Decision>, ConnectorError> {
        self.last_before_end("read_committed", stop)
    }

    /// The last decision before the topic's end as a reader of that isolation finds it.
    fn last_before_end(
        &self,
        isolation: &str,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Decision>, ConnectorError> {
        let asking = self.consumer(isolation)?;
        // All partitions of the topic, so that one that was just created is waited for.
        admin::topic(&asking, &self.link, &self.topic, stop)?;
        let (low, high) = admin::ask(&asking, &self.link, stop, |timeout| {
            asking
                .client()
                .fetch_watermarks(&self.topic, PARTITION, timeout)
        })?;
        let mut look_back = LOOK_BACK;
        loop {
            let from = high.saturating_sub(look_back).max(low);
            let found = self.last_between(from, high, stop)?;
            if found.is_some() || from == low {
                return Ok(found);
            }
            look_back = look_back.saturating_mul(LOOK_BACK_GROWS);
        }
    }

    /// The last decision at offsets `from..to`, all of which no open transaction hides.
    fn last_between(
        &self,
        from: i64,
        to: i64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Decision>, ConnectorError> {
        let mut last = None;
        let mut next = from;
        while next < to {
            let consumer = self.consumer("read_committed")?;
            self.wait_until_stable(&consumer, to, stop)?;
            self.assign(&consumer, next)?;
            let mut heard = Instant::now();
            while next < to && heard.elapsed() < SILENCE {
                if stop() {
                    return Err(self.link.stopped());
                }
                self.link.check()?;
                match consumer.poll(POLL) {
                    None => continue,
                    Some(Ok(message)) => {
                        next = message.offset() + 1;
                        if let Some(bytes) = message.payload() {
                            last = Some(self.read(bytes, message.offset())?);
                        }
                    }
                    // The end of what is stable, which is beyond `to`: markers and aborted records are no messages.
                    Some(Err(KafkaError::PartitionEOF(_))) => next = to,
                    Some(Err(error)) => self.heard(error)?,
                }
                heard = Instant::now();
            }
        }
        self.link.seen();
        Ok(last)
    }

    /// Waits until no open transaction hides anything before `to`. Not for ever: a transaction whose mark the brokers have
    /// lost has no end, and what became of it can be learnt from nobody.
    fn wait_until_stable(
        &self,
        consumer: &BaseConsumer<Asking>,
        to: i64,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        let mut waited = Duration::ZERO;
        loop {
            // Of a client that reads what is committed this is the last stable offset.
            let (_, stable) = admin::ask(consumer, &self.link, stop, |timeout| {
                consumer
                    .client()
                    .fetch_watermarks(&self.topic, PARTITION, timeout)
            })?;
            if stable >= to {
                return Ok(());
            }
            if waited >= ENDS_WITHIN {
                let seconds = ENDS_WITHIN.as_secs();
                return Err(self.link.failed(format!(
                    "a transaction on the topic has no end: nobody writes it any more, and for {seconds} s the brokers have not \
                     said what became of it. They have lost its mark, as Apache Kafka 4.3.0 and 4.3.1 do when a broker is \
                     killed. See \"A transaction without an end\" in docs/operations.md"
                )));
            }
            self.link.waits_for("a transaction on the topic to end");
            consumer.poll(POLL);
            waited += POLL;
        }
    }

    fn read(&self, bytes: &[u8], offset: i64) -> Result<Decision, ConnectorError> {
        Decision::read(bytes).map_err(|cause| {
            self.link.failed(format!(
                "the record at offset {offset} is no decision: {cause}. Something else has written there; nothing is guessed \
                 from it. Let only this pipeline's user write to the topic"
            ))
        })
    }

    fn heard(&self, error: KafkaError) -> Result<(), ConnectorError> {
        match error.rdkafka_error_code() {
            Some(code) if is_transient(code) => Ok(()),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => Ok(()),
            _ => Err(self.link.failed(cause(&error))),
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Asking>, from: i64) -> Result<(), ConnectorError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, PARTITION, Offset::Offset(from))
            .and_then(|()| consumer.assign(&list))
            .map_err(|error| self.link.failed(cause(&error)))
    }

    fn consumer(&self, isolation: &str) -> Result<Ending<BaseConsumer<Asking>>, ConnectorError> {
        let fixed = [
            ("allow.auto.create.topics", "false"),
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("fetch.wait.max.ms", "50"),
            ("group.id", self.pipeline.as_str()),
            ("isolation.level", isolation),
        ];
        connection::config(
            &self.cluster,
            Scope::Consumer,
            self.link.place(),
            &[],
            &fixed,
        )?
        .create_with_context(Asking(self.link.clone()))
        .map(Ending::new)
        .map_err(|error| self.link.failed(cause(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_as_it_was_written_and_others_are_refused() {
        let mut decision = Decision::new("ab".into(), 7, 3);
        decision.positions = "12".into();
        decision.plugins.insert("anomaly".into(), "sha".into());
        let bytes = decision.to_bytes();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"v":1,"state":"ab","checkpoint":7,"incarnation":3,"positions":"12","plugins":{"anomaly":"sha"}}"#
        );
        assert_eq!(Decision::read(&bytes), Ok(decision));
        let newer = String::from_utf8(bytes)
            .unwrap()
            .replace("\"v\":1", "\"v\":2");
        assert!(
            Decision::read(newer.as_bytes())
                .unwrap_err()
                .contains("version 2")
        );
        assert!(Decision::read(b"hello").is_err());
    }
}
