//! One idempotent producer a topic, shared by all threads, and the ledger of what it has not delivered yet.
//!
//! Records belong to a generation; a barrier starts the next. To sync a generation is to wait for the delivery reports of
//! its records and those before, however many later ones are under way. Flushing would wait for those, too.
//!
//! Invariant: `sync(g)` says yes only if the broker has acknowledged every record sent before the barrier that gave `g`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};

use serde_json::{Value, json};

use super::admin;
use super::connection::{self, cause};
use super::ending::Ending;
use super::link::Link;
use super::properties::Scope;
use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;

const DEFAULTS: &[(&str, &str)] = &[
    ("batch.size", "1000000"),
    ("compression.codec", "lz4"),
    ("linger.ms", "5"),
    // Without an end: a broker that is away is waited for. `stop` ends the waiting.
    ("message.timeout.ms", "0"),
    ("partitioner", "murmur2_random"),
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "200000"),
];

const FIXED: &[(&str, &str)] = &[("acks", "all"), ("enable.idempotence", "true")];

/// How long opening waits for a broker that is away.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// Longest time between two looks at whether to stop, or whether a full queue has room again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Writes to one topic.
pub struct TopicProducer {
    producer: Ending<ThreadedProducer<Deliveries>>,
    shared: Arc<Shared>,
    cluster: Cluster,
    topic: String,
    /// The topic is known to exist.
    checked: AtomicBool,
}

/// Called with partition, offset and bytes of each record that the broker has acknowledged.
pub(super) type OnWritten = Box<dyn Fn(u32, i64, usize) + Send + Sync>;

struct Shared {
    link: Arc<Link>,
    on_written: Option<OnWritten>,
    ledger: Mutex<Ledger>,
    changed: Condvar,
    stopped: AtomicBool,
}

/// Records under way, by generation.
#[derive(Debug, Default)]
struct Ledger {
    /// Generation of `open[0]`; all before are delivered.
    first: u64,
    /// Records sent and not delivered of generations `first..`; the last is the current one.
    open: VecDeque<u64>,
    failed: Option<String>,
}

impl Ledger {
    fn current(&self) -> u64 {
        self.first + (self.open.len() as u64).saturating_sub(1)
    }

    fn send(&mut self) -> u64 {
        if self.open.is_empty() {
            self.open.push_back(0);
        }
        if let Some(open) = self.open.back_mut() {
            *open += 1;
        }
        self.current()
    }

    /// Returns whether a generation is now complete.
    fn delivered(&mut self, generation: u64) -> bool {
        let at = generation
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok());
        let Some(open) = at.and_then(|at| self.open.get_mut(at)) else {
            debug_assert!(
                false,
                "a record of generation {generation} was delivered twice"
            );
            return false;
        };
        *open = open.saturating_sub(1);
        let complete = *open == 0;
        while self.open.len() > 1 && self.open[0] == 0 {
            self.open.pop_front();
            self.first += 1;
        }
        complete
    }

    fn barrier(&mut self) -> u64 {
        if self.open.is_empty() {
            self.open.push_back(0);
        }
        let closed = self.current();
        self.open.push_back(0);
        while self.open.len() > 1 && self.open[0] == 0 {
            self.open.pop_front();
            self.first += 1;
        }
        closed
    }

    fn is_complete(&self, generation: u64) -> bool {
        let closed = generation.saturating_add(1).saturating_sub(self.first);
        self.open
            .iter()
            .take(usize::try_from(closed).unwrap_or(usize::MAX))
            .all(|&open| open == 0)
    }
}

impl TopicProducer {
    /// Opens a producer for `topic`. `who` is how errors name the writer ("sink results"). Waits a few seconds for the
    /// broker; if it is away, writing waits for it. A topic that does not exist is an error, here or at the first record.
    pub fn open(who: &str, cluster: &Cluster, topic: &str) -> Result<Self, ConnectorError> {
        Self::open_with(who, cluster, topic, None)
    }

    pub(super) fn open_with(
        who: &str,
        cluster: &Cluster,
        topic: &str,
        on_written: Option<OnWritten>,
    ) -> Result<Self, ConnectorError> {
        let hosts = connection::hosts(cluster);
        let link = Arc::new(Link::new(format!("{who} (topic {topic} at {hosts})")));
        let config = connection::config(cluster, Scope::Producer, link.place(), DEFAULTS, FIXED)?;
        let shared = Arc::new(Shared {
            link: link.clone(),
            on_written,
            ledger: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let producer = config
            .create_with_context(Deliveries(shared.clone()))
            .map_err(|error| link.failed(cause(&error)))?;
        let this = Self {
            producer: Ending::new(producer),
            shared,
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            checked: AtomicBool::new(false),
        };
        let until = Instant::now() + OPEN_WITHIN;
        match this.check_topic(&|| Instant::now() >= until) {
            Ok(()) | Err(ConnectorError::Stopped { .. }) => Ok(this),
            Err(error) => Err(error),
        }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Hands a record over. Waits while the queue is full. `key` of `None` goes to any partition.
    pub fn send(&self, key: Option<&[u8]>, payload: &[u8]) -> Result<(), ConnectorError> {
        if !self.checked.load(Ordering::Relaxed) {
            self.check_topic(&|| self.shared.stopped.load(Ordering::Relaxed))?;
        }
        let generation = self.shared.ledger().send();
        let mut record =
            BaseRecord::with_opaque_to(&self.topic, generation as usize).payload(payload);
        if let Some(key) = key {
            record = record.key(key);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    if let Err(error) = self.shared.wait_for_room() {
                        self.shared.delivered(generation, None);
                        return Err(error);
                    }
                }
                Err((error, _)) => {
                    self.shared.delivered(generation, Some(cause(&error)));
                    return self.shared.check();
                }
            }
        }
    }

    /// Ends the current generation and returns its number. Records sent from now on belong to the next.
    pub fn barrier(&self) -> u64 {
        self.shared.ledger().barrier()
    }

    /// Returns when everything sent up to the barrier that gave `generation` is acknowledged. An error means that some
    /// record is not, and that none of what follows may be counted on either.
    pub fn sync(&self, generation: u64) -> Result<(), ConnectorError> {
        let mut ledger = self.shared.ledger();
        loop {
            self.shared.check_with(&ledger)?;
            if ledger.is_complete(generation) {
                return Ok(());
            }
            ledger = self.shared.wait(ledger)?;
        }
    }

    /// A [`barrier`](Self::barrier) as it stands in a checkpoint. Means nothing to another process: what was not synced
    /// there is written again.
    pub(super) fn cut(&self) -> Value {
        json!({ "generation": self.barrier() })
    }

    /// [`sync`](Self::sync) up to a [`cut`](Self::cut).
    pub(super) fn sync_cut(&self, cut: &Value) -> Result<(), ConnectorError> {
        match cut["generation"].as_u64() {
            Some(generation) => self.sync(generation),
            None => Err(self
                .shared
                .link
                .failed(format!("{cut} is no cut of a Kafka sink"))),
        }
    }

    /// Ends all waiting, now and later, with [`ConnectorError::Stopped`].
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }

    fn check_topic(&self, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        admin::find_topic(&self.cluster, &self.shared.link, &self.topic, stop)?;
        self.checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn check(&self) -> Result<(), ConnectorError> {
        self.check_with(&self.ledger())
    }

    fn check_with(&self, ledger: &Ledger) -> Result<(), ConnectorError> {
        match &ledger.failed {
            Some(cause) => Err(self.link.failed(cause)),
            None => self.link.check(),
        }
    }

    /// Waits for a change, or a moment.
    fn wait<'a>(
        &self,
        ledger: MutexGuard<'a, Ledger>,
    ) -> Result<MutexGuard<'a, Ledger>, ConnectorError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(self.link.stopped());
        }
        let waited = self.changed.wait_timeout(ledger, LOOK_AGAIN);
        Ok(waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0)
    }

    fn wait_for_room(&self) -> Result<(), ConnectorError> {
        let ledger = self.wait(self.ledger())?;
        self.check_with(&ledger)
    }

    fn delivered(&self, generation: u64, failure: Option<String>) {
        let mut ledger = self.ledger();
        let failed = failure.is_some();
        if let Some(failure) = failure {
            ledger.failed.get_or_insert(failure);
        }
        let complete = ledger.delivered(generation);
        drop(ledger);
        if complete || failed {
            self.changed.notify_all();
        }
    }
}

/// Context of the producer: the opaque of each record is its generation.
struct Deliveries(Arc<Shared>);

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.link.hear_log(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.link.hear_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, generation: usize) {
        let failure = match result {
            Ok(message) => {
                self.0.link.seen();
                if let Some(on_written) = &self.0.on_written {
                    let bytes = message.payload_len() + message.key_len();
                    on_written(message.partition() as u32, message.offset(), bytes);
                }
                None
            }
            Err((error, message)) => Some(format!(
                "a record was not written to partition {}: {}",
                message.partition(),
                cause(error)
            )),
        };
        self.0.delivered(generation as u64, failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_complete_when_its_records_and_those_before_are_delivered() {
        let mut ledger = Ledger::default();
        let a = ledger.send();
        let first = ledger.barrier();
        let b = ledger.send();
        let second = ledger.barrier();
        let c = ledger.send();
        assert_eq!((a, b, c), (first, second, second + 1));
        ledger.delivered(b);
        assert!(!ledger.is_complete(first) && !ledger.is_complete(second));
        ledger.delivered(a);
        assert!(ledger.is_complete(first) && ledger.is_complete(second));
        assert!(!ledger.is_complete(c));
        ledger.delivered(c);
        assert!(ledger.is_complete(c));
    }

    #[test]
    fn empty_generations_are_complete_and_take_no_room() {
        let mut ledger = Ledger::default();
        for expected in 0..1_000 {
            let generation = ledger.barrier();
            assert_eq!(generation, expected);
            assert!(ledger.is_complete(generation));
        }
        assert!(ledger.open.len() <= 1, "{}", ledger.open.len());
    }
}
