//! One transactional producer of librdkafka, and what is known against it.
//!
//! librdkafka speaks a protocol in which a request of one transaction that comes late can hit the next one, and it repeats
//! requests by itself. So whatever may have been repeated makes an instance doubtful, and a doubtful one is thrown away:
//! the next instance has another epoch, and the broker refuses what comes late of the old one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::super::connection::cause;
use super::super::ending::Ending;
use super::super::link::Link;
use super::super::records::Records;
use super::statistics::Statistics;
use crate::error::ConnectorError;

/// A call that takes longer is repeated, so that a stop is heard.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Longest time between two looks at whether to stop.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often librdkafka tells its statistics.
pub(super) const STATISTICS_MS: &str = "250";
/// A commit that took less cannot hold a repeated request: librdkafka waits longer before it repeats one (100 ms less its
/// jitter, both for a request and for a connection).
const QUICK: Duration = Duration::from_millis(50);
/// A coordinator that does not end a broken transaction within this time is away.
const ABORT_WITHIN: Duration = Duration::from_secs(5);
/// Statistics that do not come within this time say nothing: doubt.
const STATISTICS_WITHIN: Duration = Duration::from_secs(2);

/// A producer from its creation to its first doubt.
pub(super) struct Instance {
    producer: Ending<ThreadedProducer<Context>>,
    told: Arc<Told>,
    /// When the transaction got its first record, on both clocks: only one of them counts while a machine sleeps.
    began: Mutex<Option<(Instant, SystemTime)>>,
    has_begun: AtomicBool,
    commits: AtomicU64,
    /// Once a record could not be written: why another producer is said to have taken the place of this one, if it is.
    shut_out: OnceLock<Option<String>>,
}

/// What librdkafka's threads have told.
struct Told {
    link: Arc<Link>,
    failed: Mutex<Option<NotWritten>>,
    /// Records handed over and not acknowledged.
    outstanding: AtomicU64,
    /// Connections lost, requests timed out.
    errors: AtomicU64,
    statistics: Mutex<Statistics>,
    news: Condvar,
}

#[derive(Debug, Clone)]
struct NotWritten {
    cause: String,
    /// Writing it again would end the same way.
    for_good: bool,
}

impl Instance {
    pub(super) fn new(config: &ClientConfig, link: &Arc<Link>) -> Result<Self, ConnectorError> {
        let told = Arc::new(Told {
            link: link.clone(),
            failed: Mutex::default(),
            outstanding: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            statistics: Mutex::default(),
            news: Condvar::new(),
        });
        let producer = config
            .create_with_context(Context(told.clone()))
            .map_err(|error| link.failed(cause(&error)))?;
        Ok(Self {
            producer: Ending::new(producer),
            told,
            began: Mutex::default(),
            has_begun: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            shut_out: OnceLock::new(),
        })
    }

    /// Ends whatever the predecessor left open and shuts it out. Waits for the broker for as long as it takes.
    pub(super) fn fence(&self, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        self.until_done(
            stop,
            Duration::MAX,
            "the coordinator of transactions",
            || self.producer.init_transactions(ATTEMPT),
        )?;
        self.told.link.connected();
        Ok(())
    }

    pub(super) fn begin(&self) -> Result<(), ConnectorError> {
        *lock(&self.began) = None;
        self.has_begun.store(false, Ordering::Relaxed);
        self.producer
            .begin_transaction()
            .map_err(|error| self.trouble("beginning a transaction", &error))
    }

    /// Hands records over. Waits while librdkafka's queue is full.
    pub(super) fn send(
        &self,
        records: &Records,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        for (key, value) in records.iter() {
            let mut record = BaseRecord::to(&records.topic).payload(value);
            record.key = key;
            self.send_one(record, stop)?;
        }
        self.check()
    }

    pub(super) fn send_one(
        &self,
        record: BaseRecord<'_, [u8], [u8]>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            *lock(&self.began) = Some((Instant::now(), SystemTime::now()));
        }
        self.told.outstanding.fetch_add(1, Ordering::Relaxed);
        let sent = self.hand_over(record, stop);
        if sent.is_err() {
            self.told.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }

    fn hand_over(
        &self,
        mut record: BaseRecord<'_, [u8], [u8]>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.wait_a_moment();
                    self.check()?;
                    if stop() {
                        return Err(self.told.link.stopped());
                    }
                }
                Err((error, _)) => return Err(self.trouble("writing", &error)),
            }
        }
    }

    /// Returns when every record is acknowledged.
    pub(super) fn flush(&self, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        while self.told.outstanding.load(Ordering::Acquire) > 0 {
            self.check()?;
            if stop() {
                return Err(self.told.link.stopped());
            }
            // Only says that nothing is to linger: waiting in it would last to the end of its time-out.
            let _ = self.producer.flush(Duration::ZERO);
            let statistics = lock(&self.told.statistics);
            if self.told.outstanding.load(Ordering::Acquire) > 0 {
                let waited = self.told.news.wait_timeout(statistics, LOOK_AGAIN);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.check()
    }

    /// Commits. An error says nothing about whether the transaction is committed.
    pub(super) fn commit(
        &self,
        within: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.until_done(stop, within, "the commit", || {
            self.producer.commit_transaction(ATTEMPT)
        })
    }

    /// Whether a request may have been repeated since `errors` were counted, `took` ago.
    pub(super) fn is_doubtful(&self, errors: u64, took: Duration) -> Option<String> {
        // Serves what is queued; the thread of the producer does, too, but later perhaps.
        self.producer.poll(Duration::ZERO);
        if self.errors() != errors {
            return Some("a connection was lost or a request timed out".into());
        }
        if took < QUICK {
            return None;
        }
        let Some(now) = self.next_statistics() else {
            return Some("the commit was slow, and no statistics tell why".into());
        };
        let commits = self.commits.load(Ordering::Relaxed);
        let repeated = now.retries > 0 || now.timeouts > 0 || now.disconnects > 0;
        (repeated || now.end_txn != commits).then(|| {
            format!(
                "the commit took {} ms, and {} requests were repeated, {} timed out, {} connections were lost ({} of {commits} \
                 commits sent)",
                took.as_millis(),
                now.retries,
                now.timeouts,
                now.disconnects,
                now.end_txn
            )
        })
    }

    pub(super) fn errors(&self) -> u64 {
        self.told.errors.load(Ordering::Relaxed)
    }

    /// The broker has given up a transaction that is open for longer.
    pub(super) fn is_open_for(&self, timeout: Duration) -> bool {
        lock(&self.began).is_some_and(|(monotonic, wall)| {
            monotonic.elapsed() >= timeout || wall.elapsed().is_ok_and(|past| past >= timeout)
        })
    }

    /// Statistics that librdkafka tells from now on.
    fn next_statistics(&self) -> Option<Statistics> {
        let statistics = lock(&self.told.statistics);
        // The one after the next: the next may have been written before now.
        let wanted = statistics.number + 2;
        let waited =
            self.told
                .news
                .wait_timeout_while(statistics, STATISTICS_WITHIN, |statistics| {
                    statistics.number < wanted
                });
        let (statistics, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then_some(*statistics)
    }

    fn wait_a_moment(&self) {
        let waited = self
            .told
            .news
            .wait_timeout(lock(&self.told.statistics), LOOK_AGAIN);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Fails if a record could not be written.
    fn check(&self) -> Result<(), ConnectorError> {
        let link = &self.told.link;
        let failed = lock(&self.told.failed).clone();
        match failed {
            Some(NotWritten { cause, for_good }) if for_good => Err(link.failed(cause)),
            Some(NotWritten { cause, .. }) => Err(self.abort(&cause)),
            None => link.check(),
        }
    }

    /// Ends the transaction, of which a record could not be written. A broker that leads a partition tells a producer that
    /// was shut out no more than that its epoch is an old one; the coordinator tells that another took its place.
    fn abort(&self, why: &str) -> ConnectorError {
        let link = &self.told.link;
        let shut_out = self.shut_out.get_or_init(|| {
            let aborted = self.until_done(&|| false, ABORT_WITHIN, why, || {
                self.producer.abort_transaction(ATTEMPT)
            });
            match aborted {
                Err(ConnectorError::Fenced { cause, .. }) => Some(cause),
                _ => None,
            }
        });
        match shut_out {
            Some(cause) => ConnectorError::Fenced {
                place: link.place().to_owned(),
                cause: cause.clone(),
            },
            None => doubt(link, why),
        }
    }

    /// Repeats a call that librdkafka says may be repeated: it goes on where it stood.
    fn until_done(
        &self,
        stop: &dyn Fn() -> bool,
        within: Duration,
        what: &str,
        mut call: impl FnMut() -> KafkaResult<()>,
    ) -> Result<(), ConnectorError> {
        let link = &self.told.link;
        let begun = Instant::now();
        loop {
            link.check()?;
            match call() {
                Ok(()) => {
                    link.seen();
                    return Ok(());
                }
                Err(error) if is_retriable(&error) => {
                    if stop() {
                        return Err(link.stopped());
                    }
                    if begun.elapsed() >= within {
                        let seconds = within.as_secs();
                        return Err(doubt(link, &format!("{what}: no answer in {seconds} s")));
                    }
                    if begun.elapsed() >= 2 * ATTEMPT {
                        link.waits_for(&format!("{what} ({})", cause(&error)));
                    }
                }
                Err(error) => return Err(self.trouble(what, &error)),
            }
        }
    }

    fn trouble(&self, what: &str, error: &KafkaError) -> ConnectorError {
        use RDKafkaErrorCode::*;
        let link = &self.told.link;
        if let Some(NotWritten {
            cause,
            for_good: true,
        }) = &*lock(&self.told.failed)
        {
            return link.failed(cause);
        }
        // A call after a fatal error says no more than that there was one.
        let fatal = self.producer.client().fatal_error();
        let (code, text) = match fatal {
            Some((code, reason)) => (Some(code), format!("{what}: {reason} ({code})")),
            None => (
                error.rdkafka_error_code(),
                format!("{what}: {}", cause(error)),
            ),
        };
        match code {
            Some(Fenced | ProducerFenced | InvalidProducerEpoch) => ConnectorError::Fenced {
                place: link.place().to_owned(),
                cause: text,
            },
            Some(
                ClusterAuthorizationFailed
                | GroupAuthorizationFailed
                | TopicAuthorizationFailed
                | TransactionalIdAuthorizationFailed,
            ) => link.failed(format!(
                "{text}; grant this user what `tidemill doctor` lists as missing"
            )),
            Some(InvalidTransactionTimeout) => link.failed(format!(
                "{text}; the brokers allow less (transaction.max.timeout.ms): lower transaction_timeout under [host]"
            )),
            Some(UnsupportedVersion | UnsupportedFeature) => link.failed(format!(
                "{text}; these brokers have no transactions: set delivery = \"at-least-once\" under [host]"
            )),
            _ => doubt(link, &text),
        }
    }
}

fn doubt(link: &Link, cause: &str) -> ConnectorError {
    ConnectorError::Doubt {
        place: link.place().to_owned(),
        cause: cause.to_owned(),
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => true,
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Context(Arc<Told>);

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.link.hear_log(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.errors.fetch_add(1, Ordering::Relaxed);
        // A fatal error comes back from the call that meets it, with its own code.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::Fatal) {
            self.0.link.hear_error(&error, reason);
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let told = Statistics::read(statistics);
        let mut now = lock(&self.0.statistics);
        let number = now.number + 1;
        *now = Statistics { number, ..told };
        drop(now);
        self.0.news.notify_all();
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            self.0.not_written(error, message);
        } else {
            self.0.link.seen();
        }
        if self.0.outstanding.fetch_sub(1, Ordering::Release) == 1 {
            // With the lock: who waits has either seen the count or hears this.
            let _waiting = lock(&self.0.statistics);
            self.0.news.notify_all();
        }
    }
}

impl Told {
    fn not_written(&self, error: &KafkaError, message: &BorrowedMessage<'_>) {
        let cause = format!(
            "a record was not written to {} partition {}: {}",
            message.topic(),
            message.partition(),
            cause(error)
        );
        let for_good = error.rdkafka_error_code().is_some_and(is_for_good);
        let mut failed = lock(&self.failed);
        // One that ends for good says more than those that were given up with it.
        if failed.as_ref().is_none_or(|f| for_good && !f.for_good) {
            *failed = Some(NotWritten { cause, for_good });
        }
    }
}

/// Whether a record would be refused again.
fn is_for_good(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        InvalidMessage
            | InvalidMessageSize
            | InvalidRecord
            | MessageSizeTooLarge
            | PolicyViolation
            | TopicAuthorizationFailed
            | UnknownPartition
            | UnknownTopic
            | UnknownTopicOrPartition
    )
}
