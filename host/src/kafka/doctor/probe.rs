//! Transactions tried out on a topic, a group and a transactional id of the probe's own.
//!
//! One partition gets, in this order: a record of an aborted transaction; a record of a committed one; a record of a
//! transaction whose producer is then fenced, and tries to commit; a record of its successor. A read_committed reader that
//! has seen the last must have seen exactly the second and the last: all before it were decided by then.
//!
//! Invariant: topic and group are deleted at the end, however it ends; what cannot be deleted is told. A transactional id
//! cannot be deleted, it expires at the brokers.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, Message, Offset, Timestamp, TopicPartitionList};

use super::code;
use crate::kafka::admin::wait;
use crate::kafka::connection::{self, cause};
use crate::kafka::link::{Asking, Link};
use crate::kafka::properties::Scope;
use crate::limits::{PROBE_CLEANUP_MAX, PROBE_MAX};
use crate::pipeline::plan::Cluster;

type BaseProducer = rdkafka::producer::BaseProducer<Delivering>;

const ABORTED: &str = "aborted";
const COMMITTED: &str = "committed";
const ZOMBIE: &str = "zombie";
const SUCCESSOR: &str = "successor";

/// Group offsets that go with the transactions.
const OFFSET_ABORTED: i64 = 1;
const OFFSET_COMMITTED: i64 = 2;
const OFFSET_ZOMBIE: i64 = 3;

/// Settings of the probe's topic. Where it cannot be deleted, its records at least go away.
const TOPIC_SETTINGS: &[(&str, &str)] = &[
    ("message.timestamp.type", "LogAppendTime"),
    ("retention.ms", "3600000"),
];

/// What is to be tried.
pub struct Probe<'a> {
    pub cluster: &'a Cluster,
    /// Name of the topic, which must not exist.
    pub topic: String,
    pub group: String,
    pub transactional_id: String,
    /// Of the topic.
    pub replicas: i32,
    pub transaction_timeout: Duration,
}

/// What must hold of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    AbortedIsHidden,
    CommittedIsVisible,
    OffsetsGoWithTheTransaction,
    ZombieIsFenced,
    ZombieIsHidden,
}

/// What the cluster did.
#[derive(Debug, Clone, PartialEq)]
pub struct Conformance {
    /// Rules that do not hold, each with what was seen.
    pub broken: Vec<(Rule, String)>,
    pub clock: Option<ClockDifference>,
    pub took: Duration,
    /// Of a commit with one record.
    pub commit: Duration,
}

/// The broker's clock against ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDifference {
    /// Milliseconds that the broker is ahead, at least; negative: behind. 0: within what the record's way explains.
    pub ahead_ms: i64,
}

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeError {
    Denied(Denied),
    /// The brokers allow no transaction as long as the pipeline's.
    TimeoutTooLong,
    Failed {
        step: &'static str,
        cause: String,
    },
}

/// What this user may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    CreateTopic,
    UseTopic,
    UseGroup,
    UseTransactionalId,
}

impl Probe<'_> {
    /// Runs the probe, which takes up to [`PROBE_MAX`], and cleans up behind it. The second part names what could not be
    /// deleted.
    pub fn run(&self) -> (Result<Conformance, ProbeError>, Vec<String>) {
        match self.admin() {
            Err(error) => (Err(error), Vec::new()),
            Ok(admin) => match self.create(&admin) {
                Err(error) => (Err(error), Vec::new()),
                Ok(()) => {
                    let result = Run::new(self).and_then(|run| run.all());
                    (result, self.clean_up(&admin))
                }
            },
        }
    }

    fn admin(&self) -> Result<AdminClient<Asking>, ProbeError> {
        let admin = self.config(Scope::Producer, &[])?;
        let admin = admin.create_with_context(Asking(self.link().into()));
        admin.map_err(|e| failed("connecting", &e))
    }

    fn create(&self, admin: &AdminClient<Asking>) -> Result<(), ProbeError> {
        let mut new = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(self.replicas));
        for (name, value) in TOPIC_SETTINGS {
            new = new.set(name, value);
        }
        let step = "creating the topic";
        let results = wait(admin.create_topics([&new], &options(PROBE_MAX)));
        let results = results.map_err(|e| denied_or_failed(step, &e))?;
        for result in results {
            result.map_err(|(_, code)| match code {
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                    ProbeError::Denied(Denied::CreateTopic)
                }
                code => ProbeError::Failed {
                    step,
                    cause: code.to_string(),
                },
            })?;
        }
        Ok(())
    }

    fn clean_up(&self, admin: &AdminClient<Asking>) -> Vec<String> {
        let mut left = Vec::new();
        let deleted = wait(admin.delete_topics(&[&self.topic], &options(PROBE_CLEANUP_MAX)));
        let deleted = deleted.map_err(|e| cause(&e)).and_then(|results| {
            let refused = results.into_iter().find_map(Result::err);
            refused.map_or(Ok(()), |(_, code)| Err(code.to_string()))
        });
        if let Err(why) = deleted {
            left.push(format!("topic {} ({why})", self.topic));
        }
        let deleted = wait(admin.delete_groups(&[&self.group], &options(PROBE_CLEANUP_MAX)));
        let deleted = deleted.map_err(|e| cause(&e)).and_then(|results| {
            let refused = results.into_iter().find_map(Result::err);
            match refused {
                // No offset was ever committed; or the topic, with which its offsets go, was faster.
                None | Some((_, RDKafkaErrorCode::GroupIdNotFound)) => Ok(()),
                Some((_, code)) => Err(code.to_string()),
            }
        });
        if let Err(why) = deleted {
            left.push(format!("group {} ({why})", self.group));
        }
        left
    }

    fn link(&self) -> Link {
        let hosts = connection::hosts(self.cluster);
        Link::quiet(format!("the probe at {hosts}"))
    }

    fn config(&self, kind: Scope, fixed: &[(&str, &str)]) -> Result<ClientConfig, ProbeError> {
        let config = connection::config(self.cluster, kind, "the probe", &[], fixed);
        config.map_err(|e| ProbeError::Failed {
            step: "connecting",
            cause: e.to_string(),
        })
    }

    fn producer(&self) -> Result<BaseProducer, ProbeError> {
        let timeout = self.transaction_timeout.as_millis().to_string();
        let fixed = [
            ("transactional.id", self.transactional_id.as_str()),
            ("transaction.timeout.ms", timeout.as_str()),
            ("enable.idempotence", "true"),
            ("acks", "all"),
        ];
        let mut config = self.config(Scope::Producer, &fixed)?;
        // A time of the pipeline file for its own producer may be longer than the transaction's.
        config
            .remove("message.timeout.ms")
            .remove("delivery.timeout.ms");
        config
            .create_with_context(Delivering {
                link: self.link(),
                failure: Mutex::default(),
            })
            .map_err(|e| failed("connecting", &e))
    }

    fn consumer(&self) -> Result<BaseConsumer<Asking>, ProbeError> {
        let fixed = [
            ("group.id", self.group.as_str()),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
        ];
        self.config(Scope::Consumer, &fixed)?
            .create_with_context(Asking(self.link().into()))
            .map_err(|e| failed("connecting", &e))
    }
}

/// A probe whose topic exists.
struct Run<'p> {
    probe: &'p Probe<'p>,
    consumer: BaseConsumer<Asking>,
    began: Instant,
    broken: Vec<(Rule, String)>,
}

impl<'p> Run<'p> {
    fn new(probe: &'p Probe<'p>) -> Result<Self, ProbeError> {
        Ok(Self {
            probe,
            consumer: probe.consumer()?,
            began: Instant::now(),
            broken: Vec::new(),
        })
    }

    fn all(mut self) -> Result<Conformance, ProbeError> {
        let first = self.begin()?;
        self.transact(&first, ABORTED, Some(OFFSET_ABORTED))?;
        first
            .abort_transaction(self.left())
            .map_err(|e| denied_or_failed("aborting", &e))?;
        self.expect_offset(None, "after an abort")?;

        let window = self.transact(&first, COMMITTED, Some(OFFSET_COMMITTED))?;
        let commit = self.commit(&first)?;
        self.expect_offset(Some(OFFSET_COMMITTED), "after a commit")?;

        self.transact(&first, ZOMBIE, Some(OFFSET_ZOMBIE))?;
        let second = self.begin()?;
        if first.commit_transaction(self.left()).is_ok() {
            let seen = "a producer committed after another had taken its transactional id over";
            self.broken.push((Rule::ZombieIsFenced, seen.into()));
        }
        self.expect_offset(Some(OFFSET_COMMITTED), "after a producer was fenced")?;

        self.transact(&second, SUCCESSOR, None)?;
        self.commit(&second)?;
        let (seen, appended) = self.read()?;
        self.judge(&seen);
        Ok(Conformance {
            broken: self.broken,
            clock: appended.map(|at| difference(at, window)),
            took: self.began.elapsed(),
            commit,
        })
    }

    /// A producer that has the transactional id, which fences whoever had it.
    fn begin(&self) -> Result<BaseProducer, ProbeError> {
        let producer = self.probe.producer()?;
        let ready = producer.init_transactions(self.left());
        ready.map_err(|e| denied_or_failed("init_transactions", &e))?;
        Ok(producer)
    }

    /// Begins a transaction with a record and an offset, both acknowledged; when, in milliseconds, the record was sent and
    /// acknowledged.
    fn transact(
        &self,
        producer: &BaseProducer,
        record: &str,
        offset: Option<i64>,
    ) -> Result<(i64, i64), ProbeError> {
        let failed = |error: KafkaError| denied_or_failed("writing", &error);
        producer.begin_transaction().map_err(failed)?;
        let sent = now_ms();
        let what = BaseRecord::<str, str>::to(&self.probe.topic)
            .payload(record)
            .partition(0);
        producer.send(what).map_err(|(e, _)| failed(e))?;
        producer.flush(self.left()).map_err(failed)?;
        producer.context().check().map_err(failed)?;
        let acknowledged = now_ms();
        if let Some(offset) = offset {
            let group = self.consumer.group_metadata().ok_or(ProbeError::Failed {
                step: "sending offsets",
                cause: "librdkafka has no group".into(),
            })?;
            producer
                .send_offsets_to_transaction(&self.at(Offset::Offset(offset))?, &group, self.left())
                .map_err(|e| denied_or_failed("sending offsets", &e))?;
        }
        Ok((sent, acknowledged))
    }

    fn commit(&self, producer: &BaseProducer) -> Result<Duration, ProbeError> {
        let began = Instant::now();
        let committed = producer.commit_transaction(self.left());
        committed.map_err(|e| denied_or_failed("committing", &e))?;
        Ok(began.elapsed())
    }

    fn expect_offset(&mut self, expected: Option<i64>, when: &str) -> Result<(), ProbeError> {
        let failed = |e: KafkaError| denied_or_failed("reading group offsets", &e);
        let asked = self.at(Offset::Invalid)?;
        let found = self
            .consumer
            .committed_offsets(asked, self.left())
            .map_err(failed)?;
        let found = match found.elements().first().map(|e| (e.error(), e.offset())) {
            Some((Ok(()), Offset::Offset(offset))) => Some(offset),
            Some((Err(error), _)) => return Err(failed(error)),
            _ => None,
        };
        if found != expected {
            let shown = |offset: Option<i64>| offset.map_or("none".into(), |o| o.to_string());
            let seen = format!(
                "{when} the group's offset is {}, expected {}",
                shown(found),
                shown(expected)
            );
            self.broken.push((Rule::OffsetsGoWithTheTransaction, seen));
        }
        Ok(())
    }

    /// Reads read_committed until the successor's record: what was seen, and when the broker appended the committed one.
    fn read(&self) -> Result<(Vec<String>, Option<i64>), ProbeError> {
        let failed = |e: KafkaError| denied_or_failed("reading", &e);
        self.consumer
            .assign(&self.at(Offset::Beginning)?)
            .map_err(failed)?;
        let (mut seen, mut appended) = (Vec::new(), None);
        while !seen.iter().any(|s| s == SUCCESSOR) {
            let left = self.left();
            if left.is_zero() {
                // What was committed is not visible: that is a finding, not a failure to find out.
                break;
            }
            let Some(message) = self.consumer.poll(left) else {
                continue;
            };
            let message = message.map_err(failed)?;
            let text = String::from_utf8_lossy(message.payload().unwrap_or_default());
            if let (COMMITTED, Timestamp::LogAppendTime(at)) = (&*text, message.timestamp()) {
                appended = Some(at);
            }
            seen.push(text.into_owned());
        }
        Ok((seen, appended))
    }

    fn judge(&mut self, seen: &[String]) {
        let has = |record: &str| seen.iter().any(|s| s == record);
        let shown = format!("a read_committed reader saw [{}]", seen.join(", "));
        let mut broken = |holds: bool, rule: Rule| {
            if !holds {
                self.broken.push((rule, shown.clone()));
            }
        };
        broken(!has(ABORTED), Rule::AbortedIsHidden);
        broken(has(COMMITTED) && has(SUCCESSOR), Rule::CommittedIsVisible);
        broken(!has(ZOMBIE), Rule::ZombieIsHidden);
    }

    fn at(&self, offset: Offset) -> Result<TopicPartitionList, ProbeError> {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.probe.topic, 0, offset);
        added.map_err(|e| failed("naming the partition", &e))?;
        Ok(list)
    }

    fn left(&self) -> Duration {
        PROBE_MAX.saturating_sub(self.began.elapsed())
    }
}

/// Context of a producer: remembers that a record was not written.
struct Delivering {
    link: Link,
    failure: Mutex<Option<KafkaError>>,
}

impl Delivering {
    fn check(&self) -> Result<(), KafkaError> {
        let failure = self.failure.lock().unwrap_or_else(|p| p.into_inner());
        failure.clone().map_or(Ok(()), Err)
    }
}

impl ClientContext for Delivering {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.link.hear_log(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.link.hear_error(&error, reason);
    }
}

impl ProducerContext for Delivering {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            let mut failure = self.failure.lock().unwrap_or_else(|p| p.into_inner());
            failure.get_or_insert_with(|| error.clone());
        }
    }
}

fn options(within: Duration) -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(within))
        .operation_timeout(Some(within))
}

/// How far a time of the broker is outside of the time in which it must have been taken.
fn difference(broker_ms: i64, (sent_ms, acknowledged_ms): (i64, i64)) -> ClockDifference {
    let ahead = (broker_ms - acknowledged_ms).max(0);
    let behind = (sent_ms - broker_ms).max(0);
    ClockDifference {
        ahead_ms: ahead - behind,
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as i64)
}

fn failed(step: &'static str, error: &KafkaError) -> ProbeError {
    ProbeError::Failed {
        step,
        cause: match code(error) {
            RDKafkaErrorCode::OperationTimedOut => {
                format!("no answer within {} s", PROBE_MAX.as_secs())
            }
            _ => cause(error),
        },
    }
}

fn denied_or_failed(step: &'static str, error: &KafkaError) -> ProbeError {
    match code(error) {
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
            ProbeError::Denied(Denied::UseTransactionalId)
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => ProbeError::Denied(Denied::UseTopic),
        RDKafkaErrorCode::GroupAuthorizationFailed => ProbeError::Denied(Denied::UseGroup),
        RDKafkaErrorCode::InvalidTransactionTimeout => ProbeError::TimeoutTooLong,
        _ => failed(step, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_the_records_way_does_not_explain() {
        let ahead = |broker| difference(broker, (1_000, 1_040)).ahead_ms;
        assert_eq!([ahead(1_000), ahead(1_020), ahead(1_040)], [0, 0, 0]);
        assert_eq!((ahead(4_040), ahead(-2_000)), (3_000, -3_000));
    }
}
