//! What a source asks of the cluster and tells it while it runs, beside its readers: whether its topics are still the same
//! ones, whether there are more of them or more partitions, and the group's offsets.
//!
//! librdkafka reads on, at the old offsets, when a topic is deleted and created anew, and says nothing. So each checkpoint
//! asks for the ids of the topics after all its records were read, and before it becomes durable.
//!
//! Invariant: no checkpoint is confirmed here with records of another topic than its positions are of. A cluster that does
//! not answer does not hold checkpoints up: then the next answer tells, as the ids in the state stay the old ones.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

use super::connection::cause;
use super::context::SourceContext;
use super::ending::Ending;
use super::identity::{self, Described};
use super::link::Link;
use super::loss::{self, Anew};
use super::topics;
use crate::error::ConnectorError;
use crate::pipeline::plan::Topics;

/// A commit that the broker does not answer is given up for the next.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a checkpoint may wait for the ids of the topics.
const VERIFY_WITHIN: Duration = Duration::from_millis(500);
/// How long it may wait for the names of all topics, which a pattern is held against.
const LIST_WITHIN: Duration = Duration::from_millis(500);

/// A topic as it was when reading began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub id: Option<String>,
    pub partitions: usize,
}

/// The running source.
pub(super) struct Watch {
    pub consumer: Ending<BaseConsumer<SourceContext>>,
    link: Arc<Link>,
    /// Those that are read, by name.
    topics: BTreeMap<String, Seen>,
    /// Where the source reads all that are like a pattern.
    pattern: Option<String>,
    list_every: Duration,
    /// To an end that was fixed at the start: what comes later is for the next run.
    bounded: bool,
    grown: OnceLock<String>,
    /// The broker that described the topics last.
    asked: Mutex<Option<i32>>,
    times: Mutex<Times>,
}

struct Times {
    committed: Option<Instant>,
    /// What was not committed because an answer was awaited.
    left_out: Option<TopicPartitionList>,
    listed: Instant,
}

impl Watch {
    /// `list_every` says how often topics that are like a pattern are looked for.
    pub(super) fn new(
        consumer: Ending<BaseConsumer<SourceContext>>,
        link: Arc<Link>,
        topics: BTreeMap<String, Seen>,
        read: &Topics,
        list_every: Duration,
        bounded: bool,
    ) -> Self {
        Self {
            consumer,
            link,
            topics,
            pattern: match read {
                Topics::Named(_) => None,
                Topics::Pattern(pattern) => Some(pattern.clone()),
            },
            list_every,
            bounded,
            grown: OnceLock::new(),
            asked: Mutex::default(),
            times: Mutex::new(Times {
                committed: None,
                left_out: None,
                listed: Instant::now(),
            }),
        }
    }

    /// What there is now that was not when reading began.
    pub(super) fn grown(&self) -> Option<String> {
        self.grown.get().cloned()
    }

    /// Looks at the topics.
    ///
    /// # Errors
    /// [`ConnectorError::Changed`] if one of them is not the one that reading began with.
    pub(super) fn verify(&self) -> Result<(), ConnectorError> {
        if self.link.is_down() {
            return Ok(());
        }
        let found = match self.describe() {
            Ok(found) => found,
            Err(error) => {
                // Another broker may answer at the next checkpoint.
                *lock(&self.asked) = None;
                let (place, cause) = (self.link.place(), cause(&error));
                tracing::debug!("{place}: the topics could not be looked at: {cause}");
                return Ok(());
            }
        };
        for (name, now) in found {
            // One that cannot be described cannot be read either: the readers say so.
            let (Ok(now), Some(seen)) = (now, self.topics.get(&name)) else {
                continue;
            };
            if let (Some(was), Some(is)) = (&seen.id, &now.id)
                && was != is
            {
                let anew = Anew::Id {
                    was: was.clone(),
                    is: is.clone(),
                };
                return Err(self.link.changed(anew.told(&name, &loss::now())));
            }
            if now.partitions > seen.partitions {
                let added = now.partitions - seen.partitions;
                self.grow(format!("topic {name} has {added} new partition(s)"));
            }
        }
        self.look_for_topics();
        Ok(())
    }

    fn describe(&self) -> KafkaResult<BTreeMap<String, Result<Described, RDKafkaErrorCode>>> {
        let names: Vec<String> = self.topics.keys().cloned().collect();
        let Some(first) = names.first() else {
            return Ok(BTreeMap::new());
        };
        let known = *lock(&self.asked);
        let broker = match known {
            Some(broker) => broker,
            None => identity::broker(&self.consumer, first, VERIFY_WITHIN)?,
        };
        let found = identity::describe(&self.consumer, &names, broker, VERIFY_WITHIN)?;
        *lock(&self.asked) = Some(broker);
        Ok(found)
    }

    fn grow(&self, what: String) {
        if !self.bounded && self.grown.set(what.clone()).is_ok() {
            tracing::info!(
                "{}: {what}; reading goes on with it after this checkpoint",
                self.link.place()
            );
        }
    }

    /// Topics that are like the pattern and new.
    fn look_for_topics(&self) {
        let Some(pattern) = self.pattern.as_ref().filter(|_| !self.bounded) else {
            return;
        };
        {
            let mut times = lock(&self.times);
            if times.listed.elapsed() < self.list_every {
                return;
            }
            times.listed = Instant::now();
        }
        let Ok(metadata) = self.consumer.client().fetch_metadata(None, LIST_WITHIN) else {
            return;
        };
        let names = metadata.topics().iter().map(|t| t.name().to_owned());
        let new = topics::like(pattern, names.collect())
            .unwrap_or_default()
            .into_iter()
            .find(|name| !self.topics.contains_key(name));
        if let Some(name) = new {
            self.grow(format!("there is a new topic, {name}"));
        }
    }

    /// A checkpoint is decided. Commits the group's `offsets`, for lag monitors. Returns at once; what fails is told by the
    /// context.
    pub(super) fn decided(&self, offsets: &TopicPartitionList) {
        // Serves the answer to the commit before, and log lines.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        let context = self.consumer.client().context();
        let mut times = lock(&self.times);
        let waiting = times
            .committed
            .is_some_and(|at| at.elapsed() < COMMIT_PATIENCE);
        if waiting && context.committing.load(Ordering::Relaxed) {
            times.left_out = Some(offsets.clone());
            return;
        }
        context.committing.store(true, Ordering::Relaxed);
        (times.committed, times.left_out) = (Some(Instant::now()), None);
        drop(times);
        self.commit(offsets);
    }

    fn commit(&self, offsets: &TopicPartitionList) {
        if let Err(error) = self.consumer.commit(offsets, CommitMode::Async) {
            tracing::debug!("{}: group offsets: {}", self.link.place(), cause(&error));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The consumer ends after it has the answer.
        if let Some(offsets) = lock(&self.times).left_out.take() {
            self.commit(&offsets);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
