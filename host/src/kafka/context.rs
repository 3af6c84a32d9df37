//! What librdkafka tells the clients of one source: log lines, errors, and how a commit of group offsets went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult};

use super::connection::cause;
use super::link::Link;

/// Context of the clients of one source.
pub(super) struct SourceContext {
    link: Arc<Link>,
    /// A commit of group offsets is under way.
    pub(super) committing: AtomicBool,
    told: AtomicBool,
}

impl SourceContext {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            committing: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }
}

impl ClientContext for SourceContext {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.link.hear_log(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.link.hear_error(&error, reason);
    }
}

impl ConsumerContext for SourceContext {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        self.committing.store(false, Ordering::Relaxed);
        if let Err(error) = result
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "{}: group offsets are not committed ({}); only lag monitors need them",
                self.link.place(),
                cause(&error)
            );
        }
    }
}
