//! Questions to a cluster that outlast a broker that is away, and the creation of topics.
//!
//! Asking for a topic never creates it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::connection::{self, cause, is_transient};
use super::ending::Ending;
use super::link::{Asking, Link};
use super::properties::Scope;
use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;

/// One attempt; a stop is heard between two.
const ATTEMPT: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A topic that was just created may be unknown to a broker for a moment.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
const CREATE_WITHIN: Duration = Duration::from_secs(15);

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Ids of its partitions, ascending.
    pub partitions: Vec<u32>,
}

/// The topics of a cluster with the number of their partitions, internal ones left out; waits up to `within` for an answer.
pub fn topics(cluster: &Cluster, within: Duration) -> Result<Vec<(String, usize)>, ConnectorError> {
    let link = Arc::new(Link::quiet(format!(
        "Kafka at {}",
        connection::hosts(cluster)
    )));
    let consumer = asking_client(cluster, &link)?;
    let until = Instant::now() + within;
    let metadata = ask(&consumer, &link, &|| Instant::now() >= until, |timeout| {
        consumer.client().fetch_metadata(None, timeout)
    })
    .map_err(|error| no_answer(error, &link, within))?;
    let named = metadata
        .topics()
        .iter()
        .filter(|t| !t.name().starts_with("__"));
    Ok(named
        .map(|t| (t.name().to_owned(), t.partitions().len()))
        .collect())
}

/// Creates a topic and waits until the cluster knows it. `replicas` of -1 takes the cluster's default. A topic of that
/// name that exists is an error.
pub fn create_topic(
    cluster: &Cluster,
    topic: &str,
    partitions: u32,
    replicas: i32,
    settings: &[(&str, &str)],
) -> Result<(), ConnectorError> {
    let place = format!("topic {topic} at {}", connection::hosts(cluster));
    try_create(cluster, topic, partitions, replicas, settings)?
        .map_err(|code| ConnectorError::failed(place, format!("not created: {code}")))
}

/// As [`create_topic`]; the inner error is the cluster's refusal.
pub(super) fn try_create(
    cluster: &Cluster,
    topic: &str,
    partitions: u32,
    replicas: i32,
    settings: &[(&str, &str)],
) -> Result<Result<(), RDKafkaErrorCode>, ConnectorError> {
    let place = format!("topic {topic} at {}", connection::hosts(cluster));
    let config = connection::config(cluster, Scope::Producer, &place, &[], &[])?;
    let client: Ending<AdminClient<Asking>> = config
        .create_with_context(Asking(Arc::new(Link::new(place.clone()))))
        .map(Ending::new)
        .map_err(|error| ConnectorError::failed(&place, cause(&error)))?;
    let count = i32::try_from(partitions)
        .map_err(|_| ConnectorError::failed(&place, "too many partitions"))?;
    let mut new = NewTopic::new(topic, count, TopicReplication::Fixed(replicas));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let options = AdminOptions::new()
        .operation_timeout(Some(CREATE_WITHIN))
        .request_timeout(Some(CREATE_WITHIN));
    let results = wait(client.create_topics([&new], &options))
        .map_err(|error| ConnectorError::failed(&place, cause(&error)))?;
    Ok(results
        .into_iter()
        .try_for_each(|result| result.map(drop).map_err(|(_, code)| code)))
}

pub(super) fn asking_client(
    cluster: &Cluster,
    link: &Arc<Link>,
) -> Result<Ending<BaseConsumer<Asking>>, ConnectorError> {
    let fixed = [("allow.auto.create.topics", "false")];
    connection::config(cluster, Scope::Consumer, link.place(), &[], &fixed)?
        .create_with_context(Asking(link.clone()))
        .map(Ending::new)
        .map_err(|error| link.failed(cause(&error)))
}

pub(super) fn no_answer(error: ConnectorError, link: &Link, within: Duration) -> ConnectorError {
    match error {
        ConnectorError::Stopped { .. } => {
            let cause = link
                .last_cause()
                .map_or_else(String::new, |cause| format!(": {cause}"));
            link.failed(format!(
                "no broker answered within {} s{cause}",
                within.as_secs()
            ))
        }
        other => other,
    }
}

/// Whether the topic exists and how many partitions it has; asks with a client of its own. Errors name `link`'s place.
pub(super) fn find_topic(
    cluster: &Cluster,
    link: &Arc<Link>,
    name: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Topic, ConnectorError> {
    let consumer = asking_client(cluster, link)?;
    topic(&consumer, link, name, stop)
}

/// The partitions of a topic. Waits for a broker that is away, and for a partition without a leader; a topic that does not
/// exist is an error.
pub(super) fn topic<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    link: &Link,
    name: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Topic, ConnectorError> {
    let mut asked = None;
    ask(consumer, link, stop, |timeout| {
        let metadata = consumer.client().fetch_metadata(Some(name), timeout)?;
        let asked: &Instant = asked.get_or_insert_with(Instant::now);
        let topic = metadata.topics().first();
        match topic.and_then(|t| t.error()).map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) if asked.elapsed() < UNKNOWN_FOR => {
                Err(KafkaError::MetadataFetch(
                    RDKafkaErrorCode::LeaderNotAvailable,
                ))
            }
            Some(code) => Err(KafkaError::MetadataFetch(code)),
            None => {
                let ids = topic.map_or(&[][..], |t| t.partitions()).iter();
                let mut partitions: Vec<u32> = ids.map(|p| p.id() as u32).collect();
                partitions.sort_unstable();
                match partitions.is_empty() {
                    true => Err(KafkaError::MetadataFetch(
                        RDKafkaErrorCode::LeaderNotAvailable,
                    )),
                    false => Ok(Topic { partitions }),
                }
            }
        }
    })
}

/// Repeats `question` with backoff until it is answered, `stop` says true, or waiting is no use.
pub(super) fn ask<C: ConsumerContext, T>(
    consumer: &BaseConsumer<C>,
    link: &Link,
    stop: &dyn Fn() -> bool,
    mut question: impl FnMut(Duration) -> KafkaResult<T>,
) -> Result<T, ConnectorError> {
    let mut backoff = BACKOFF_MIN;
    loop {
        if stop() {
            return Err(link.stopped());
        }
        link.check()?;
        match question(ATTEMPT) {
            Ok(answer) => {
                link.connected();
                return Ok(answer);
            }
            Err(error) => {
                let code = error.rdkafka_error_code();
                if !code.is_some_and(is_transient) {
                    return Err(refusal(link, &error));
                }
                serve(consumer, backoff);
                if code != Some(RDKafkaErrorCode::LeaderNotAvailable) {
                    link.lost(&cause(&error));
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Serves the events of a client that reads nothing, for `time`.
pub(super) fn serve<C: ConsumerContext>(consumer: &BaseConsumer<C>, time: Duration) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        consumer.poll(left);
    }
}

fn refusal(link: &Link, error: &KafkaError) -> ConnectorError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => link.failed(
            "the topic does not exist; create it, or correct its name in the pipeline file",
        ),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => link.failed(
            "this user may not use the topic; grant it, or change the credentials under [kafka]",
        ),
        Some(RDKafkaErrorCode::InvalidTopic) => {
            link.failed("Kafka does not allow a topic of this name")
        }
        _ => link.failed(cause(error)),
    }
}

/// Runs a future of the admin client, which its own thread completes.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
