//! All that a pipeline writes to Kafka between two checkpoints, as one transaction, with the decision in it.
//!
//! One producer for all sinks and dead letters. While the transaction of checkpoint N is committed the rows of N + 1 are
//! held in memory, bounded; then they are written in the order in which they came. Invariants: what is written between
//! `hold` and `release` belongs to the next transaction; a producer that may have repeated a request is replaced before
//! the next transaction has a record.

mod instance;
mod statistics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::BaseRecord;

use super::admin;
use super::connection;
use super::decision::{self, Decision, Decisions};
use super::link::Link;
use super::properties::Scope;
use super::records::Records;
use crate::crash;
use crate::error::ConnectorError;
use crate::limits::KAFKA_HELD_BYTES_MAX;
use crate::pipeline::plan::Cluster;
use instance::{Instance, LOOK_AGAIN, STATISTICS_MS};

const DEFAULTS: &[(&str, &str)] = &[
    ("batch.size", "1000000"),
    ("compression.codec", "lz4"),
    ("linger.ms", "5"),
    ("partitioner", "murmur2_random"),
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "200000"),
];

const FIXED: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // A connection lost is a reason for doubt, so it has to be told.
    ("log.connection.close", "true"),
    ("reconnect.backoff.ms", "100"),
    // Less than `retry.backoff.ms` would cut that short.
    ("retry.backoff.max.ms", "1000"),
    ("retry.backoff.ms", "100"),
    ("statistics.interval.ms", STATISTICS_MS),
];

/// How long opening waits for a topic of a broker that is away.
const TOPIC_WITHIN: Duration = Duration::from_secs(5);

/// Writes the transactions of one pipeline.
pub struct TransactionalProducer {
    cluster: Cluster,
    config: ClientConfig,
    timeout: Duration,
    link: Arc<Link>,
    decisions: Decisions,
    /// The one in use; while it is being replaced, the old one.
    instance: Mutex<Arc<Instance>>,
    /// Open: rows go to this instance. Closed: they are held.
    gate: RwLock<Option<Arc<Instance>>>,
    held: Mutex<Held>,
    room: Condvar,
    stopped: AtomicBool,
    /// Of this host, to tell a newer one.
    writer: Mutex<Option<(String, u64)>>,
}

#[derive(Default)]
struct Held {
    records: Vec<Records>,
    bytes: usize,
}

impl TransactionalProducer {
    /// Connects nothing yet. `timeout` is how long the broker lets a transaction be open.
    pub fn new(
        pipeline: &str,
        cluster: &Cluster,
        timeout: Duration,
    ) -> Result<Self, ConnectorError> {
        let id = format!("{pipeline}/0");
        let hosts = connection::hosts(cluster);
        let link = Arc::new(Link::new(format!("transactions of {id} at {hosts}")));
        let millis = timeout.as_millis().to_string();
        let mut config =
            connection::config(cluster, Scope::Producer, link.place(), DEFAULTS, FIXED)?;
        // librdkafka's other name for one that is set here.
        config.remove("delivery.timeout.ms");
        config
            .set("transactional.id", &id)
            .set("transaction.timeout.ms", &millis)
            .set("message.timeout.ms", &millis);
        let instance = Arc::new(Instance::new(&config, &link)?);
        Ok(Self {
            cluster: cluster.clone(),
            config,
            timeout,
            decisions: Decisions::new(cluster, pipeline),
            link,
            instance: Mutex::new(instance),
            gate: RwLock::new(None),
            held: Mutex::default(),
            room: Condvar::new(),
            stopped: AtomicBool::new(false),
            writer: Mutex::default(),
        })
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The topic of the decisions and where it is, for messages.
    pub fn place(&self) -> String {
        let hosts = connection::hosts(&self.cluster);
        format!("topic {} at {hosts}", self.decisions.topic())
    }

    /// Makes sure that there is a topic for the decisions.
    pub fn ensure_topic(&self, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        self.decisions.ensure(stop)
    }

    /// Ends what a predecessor left open and shuts it out; begins a transaction.
    pub fn fence(&self, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        let instance = self.instance();
        instance.fence(stop)?;
        instance.begin()
    }

    /// The last decision in Kafka. Final only once the predecessor is [fenced](Self::fence).
    pub fn last_decision(
        &self,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Decision>, ConnectorError> {
        self.decisions.last(stop)
    }

    /// The last decision that can be seen now, without waiting for a transaction that is open.
    pub fn visible_decision(
        &self,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Decision>, ConnectorError> {
        self.decisions.last_visible(stop)
    }

    /// Fails if there is no such topic. A broker that is away for the moment is not asked for long.
    pub(super) fn check_topic(&self, who: &str, topic: &str) -> Result<(), ConnectorError> {
        let hosts = connection::hosts(&self.cluster);
        let link = Arc::new(Link::new(format!("{who} (topic {topic} at {hosts})")));
        let until = Instant::now() + TOPIC_WITHIN;
        match admin::find_topic(&self.cluster, &link, topic, &|| Instant::now() >= until) {
            Ok(_) | Err(ConnectorError::Stopped { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes records into the transaction of the epoch that runs. Blocks while too much is held, or librdkafka's queue is
    /// full. The order of calls of one thread is kept.
    pub(super) fn write(&self, records: Records) -> Result<(), ConnectorError> {
        if records.len() == 0 {
            return Ok(());
        }
        loop {
            let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(instance) = &*gate {
                let sent = instance.send(&records, &|| self.is_stopped());
                return sent.map_err(|error| self.explain(error));
            }
            // The gate cannot open while it is looked at, so what is pushed here is found by who opens it.
            let mut held = self.held();
            if held.bytes < KAFKA_HELD_BYTES_MAX {
                held.bytes += records.size();
                held.records.push(records);
                return Ok(());
            }
            drop(gate);
            if self.is_stopped() {
                return Err(self.link.stopped());
            }
            let waited = self.room.wait_timeout(held, LOOK_AGAIN);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Between two epochs: what is written from now on belongs to the next transaction.
    pub fn hold(&self) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Everything of the transaction is at the broker, with the decision. Not committed.
    pub fn prepare(
        &self,
        decision: &Decision,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        let stop = || stop() || self.is_stopped();
        let instance = self.instance();
        let prepare = || {
            let bytes = decision.to_bytes();
            let record = BaseRecord::to(self.decisions.topic())
                .partition(decision::PARTITION)
                .key(decision::KEY.as_bytes())
                .payload(bytes.as_slice());
            instance.send_one(record, &stop)?;
            crash::point("decision-sent");
            instance.flush(&stop)?;
            crash::point("flushed");
            Ok(())
        };
        prepare().map_err(|error| self.explain(error))?;
        *lock(&self.writer) = Some((decision.state.clone(), decision.incarnation));
        Ok(())
    }

    /// Commits the prepared transaction of checkpoint `number` and begins the next one. An error leaves open whether it is
    /// committed: only the decisions tell, once this producer is fenced.
    pub fn commit(&self, number: u64, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        let stop = || stop() || self.is_stopped();
        let instance = self.instance();
        let (errors, begun) = (instance.errors(), Instant::now());
        instance
            .commit(self.timeout, &stop)
            .map_err(|error| self.explain(error))?;
        crash::point("committed");
        match instance.is_doubtful(errors, begun.elapsed()) {
            None => instance.begin(),
            Some(why) => self.replace(number, &why, &stop),
        }
    }

    /// The producer may have repeated a request that is still under way: another takes its place, and the decision is read
    /// back from where late requests no longer reach it.
    fn replace(
        &self,
        number: u64,
        why: &str,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        tracing::info!(
            checkpoint = number,
            why,
            "the transactional producer is replaced"
        );
        // A host that took over while this one slept is right, and must not be shut out.
        self.check_alone(self.decisions.last_visible(stop)?)?;
        let instance = Arc::new(Instance::new(&self.config, &self.link)?);
        instance.fence(stop)?;
        let decided = self.check_alone(self.decisions.last(stop)?)?;
        if decided != Some(number) {
            return Err(ConnectorError::Doubt {
                place: self.link.place().to_owned(),
                cause: format!(
                    "checkpoint {number} was committed, but the last decision is {decided:?}"
                ),
            });
        }
        instance.begin()?;
        *lock(&self.instance) = instance;
        Ok(())
    }

    /// The checkpoint of the last decision, unless another host wrote it.
    fn check_alone(&self, last: Option<Decision>) -> Result<Option<u64>, ConnectorError> {
        match last {
            Some(other) if self.is_newer(&other) => Err(self.taken_over(&other)),
            last => Ok(last.map(|decision| decision.checkpoint)),
        }
    }

    /// Writes what was held, in order, and lets the rest go straight through.
    pub fn release(&self) -> Result<(), ConnectorError> {
        let instance = self.instance();
        let held = self.take_held();
        self.send_all(&instance, &held)?;
        // What came meanwhile is written with the gate locked: writers that are faster than this would keep it closed for
        // ever.
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let held = self.take_held();
        self.send_all(&instance, &held)?;
        *gate = Some(instance);
        Ok(())
    }

    fn take_held(&self) -> Vec<Records> {
        let held = std::mem::take(&mut *self.held());
        self.room.notify_all();
        held.records
    }

    fn send_all(&self, instance: &Instance, all: &[Records]) -> Result<(), ConnectorError> {
        let stop = || self.is_stopped();
        let sent = all
            .iter()
            .try_for_each(|records| instance.send(records, &stop));
        sent.map_err(|error| self.explain(error))
    }

    /// Ends all waiting, now and later, with [`ConnectorError::Stopped`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.room.notify_all();
    }

    /// Shut out by whom? A host that started after this one has written a decision of its own, or is about to. A broker
    /// that gave up a transaction which was open for too long shuts its producer out, too: then nobody else is there.
    fn explain(&self, error: ConnectorError) -> ConnectorError {
        let ConnectorError::Fenced { place, cause } = error else {
            return error;
        };
        let other = self.newer_host();
        if other.is_none() && self.instance().is_open_for(self.timeout) {
            let seconds = self.timeout.as_secs();
            let cause = format!(
                "the transaction was open for more than {seconds} s (transaction_timeout under [host]), so the broker has \
                 given it up ({cause})"
            );
            return ConnectorError::Doubt { place, cause };
        }
        match other {
            Some(other) => self.taken_over(&other),
            None => ConnectorError::Fenced {
                place,
                cause: format!(
                    "another host of this pipeline has taken over ({cause}); this one must not run beside it"
                ),
            },
        }
    }

    /// `decision` is of another host, which has gone on with the pipeline.
    pub fn taken_over(&self, decision: &Decision) -> ConnectorError {
        ConnectorError::Fenced {
            place: self.link.place().to_owned(),
            cause: format!(
                "a newer host has taken over (its last decision is checkpoint {}, incarnation {}); this one must not run beside it",
                decision.checkpoint, decision.incarnation
            ),
        }
    }

    fn newer_host(&self) -> Option<Decision> {
        // Without an answer for so long nobody can be told of.
        let until = Instant::now() + TOPIC_WITHIN;
        let last = self
            .decisions
            .last(&|| self.is_stopped() || Instant::now() >= until);
        let last = last.ok().flatten()?;
        self.is_newer(&last).then_some(last)
    }

    /// Whether a host that started after this one wrote it. Nobody is newer than one that has decided nothing yet.
    fn is_newer(&self, decision: &Decision) -> bool {
        let me = lock(&self.writer);
        me.as_ref().is_some_and(|(state, incarnation)| {
            decision.state != *state || decision.incarnation > *incarnation
        })
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn instance(&self) -> Arc<Instance> {
        lock(&self.instance).clone()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
