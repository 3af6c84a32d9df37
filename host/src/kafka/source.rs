//! A Kafka topic as a source: which partitions it has, where each begins and ends, and readers of them.
//!
//! All partitions are assigned by hand. The consumer group bears the pipeline's name and holds nothing but the offsets of
//! decided checkpoints, written for lag monitors and never read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::admin::{self, Topic};
use super::connection::{self, Link, cause};
use super::properties::Scope;
use super::reader::KafkaReader;
use crate::error::ConnectorError;
use crate::pipeline::plan::{Cluster, Start};
use crate::source::{Partition, Position, Reader, Source};

/// Bounds memory (16 MB of fetched records a reader) and keeps fetching when the bound is met for a moment.
const DEFAULTS: &[(&str, &str)] = &[
    ("check.crcs", "false"),
    ("fetch.max.bytes", "8388608"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.wait.max.ms", "100"),
    ("queued.max.messages.kbytes", "16384"),
    ("queued.min.messages", "10000"),
];

const FIXED: &[(&str, &str)] = &[
    ("allow.auto.create.topics", "false"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("isolation.level", "read_committed"),
];

/// A commit that the broker does not answer is given up for the next.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How often a running source looks for new partitions.
const LOOK_FOR_PARTITIONS_EVERY: Duration = Duration::from_secs(60);

/// A topic of a pipeline, all its partitions.
pub struct KafkaSource {
    pipeline: String,
    cluster: Cluster,
    topic: String,
    start: Start,
    link: Arc<Link>,
    control: Mutex<Control>,
}

/// What the source itself, beside its readers, asks and tells the broker.
#[derive(Default)]
struct Control {
    consumer: Option<Arc<BaseConsumer<SourceContext>>>,
    partitions: usize,
    committed: Option<Instant>,
    looked: Option<Instant>,
}

impl KafkaSource {
    /// `name` is the source's name in the pipeline file. Nothing is connected yet.
    pub fn new(name: &str, pipeline: &str, cluster: &Cluster, topic: &str, start: Start) -> Self {
        let hosts = connection::hosts(cluster);
        Self {
            pipeline: pipeline.to_owned(),
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            start,
            link: Arc::new(Link::new(format!(
                "source {name} (topic {topic} at {hosts})"
            ))),
            control: Mutex::default(),
        }
    }

    fn consumer(&self) -> Result<BaseConsumer<SourceContext>, ConnectorError> {
        let mut config = connection::config(
            &self.cluster,
            Scope::Consumer,
            self.link.place(),
            DEFAULTS,
            FIXED,
        )?;
        config.set("group.id", &self.pipeline);
        config
            .create_with_context(SourceContext::new(self.link.clone()))
            .map_err(|error| self.link.failed(cause(&error)))
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where partition `id` begins, which has records from `low` up to `high`.
    fn start_of(
        &self,
        id: u32,
        (low, high): (i64, i64),
        resume: &BTreeMap<u32, Position>,
        by_time: &BTreeMap<u32, i64>,
    ) -> Result<i64, ConnectorError> {
        if let Some(position) = resume.get(&id) {
            return self.resumable(id, position.offset, low, high);
        }
        Ok(match self.start {
            Start::Earliest => low,
            // A partition that appeared after the first start is read whole.
            Start::Latest if !resume.is_empty() => low,
            Start::Latest => high,
            Start::At(_) => by_time.get(&id).copied().unwrap_or(high),
        })
    }

    fn resumable(&self, id: u32, offset: i64, low: i64, high: i64) -> Result<i64, ConnectorError> {
        if (low..=high).contains(&offset) {
            return Ok(offset);
        }
        let what = match offset < low {
            true => "its records were deleted before they were read",
            false => "the topic is shorter than what was read: was it deleted and created anew?",
        };
        Err(self.link.failed(format!(
            "partition {id}: reading goes on at offset {offset}, but the topic has offsets {low} to {high} ({what}). \
             `tidemill reset` gives up the pipeline's state and starts anew"
        )))
    }

    /// Positions of partitions that the topic does not have.
    fn refuse_missing(
        &self,
        topic: &Topic,
        resume: &BTreeMap<u32, Position>,
    ) -> Result<(), ConnectorError> {
        match resume.keys().find(|id| !topic.partitions.contains(id)) {
            None => Ok(()),
            Some(id) => Err(self.link.failed(format!(
                "the state has a position in partition {id}, but the topic has {} partitions: was it deleted and \
                 created anew? `tidemill reset` gives up the pipeline's state and starts anew",
                topic.partitions.len()
            ))),
        }
    }

    /// The first offset of each partition whose record is not older than `Start::At`; empty for the other rules.
    fn offsets_by_time(
        &self,
        consumer: &BaseConsumer<SourceContext>,
        partitions: &[u32],
        stop: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<u32, i64>, ConnectorError> {
        let Start::At(micros) = self.start else {
            return Ok(BTreeMap::new());
        };
        // Kafka's timestamps are milliseconds; negative ones would mean something else to it.
        let millis = micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0);
        let mut wanted = TopicPartitionList::new();
        for &id in partitions {
            wanted
                .add_partition_offset(&self.topic, id as i32, Offset::Offset(millis.max(0)))
                .map_err(|error| self.link.failed(cause(&error)))?;
        }
        let found = admin::ask(consumer, &self.link, stop, |timeout| {
            let found = consumer.offsets_for_times(wanted.clone(), timeout)?;
            found.elements().iter().try_for_each(|e| e.error())?;
            Ok(found)
        })?;
        let offsets = found.elements().into_iter().filter_map(|element| {
            match element.offset() {
                Offset::Offset(offset) => Some((element.partition() as u32, offset)),
                // No record is as young: the partition begins at its end.
                _ => None,
            }
        });
        Ok(offsets.collect())
    }

    /// Commits offsets of the group. Returns at once; what fails is told by the context.
    fn commit(&self, consumer: &BaseConsumer<SourceContext>, positions: &BTreeMap<u32, Position>) {
        let mut offsets = TopicPartitionList::with_capacity(positions.len());
        for (&id, position) in positions {
            let offset = Offset::Offset(position.offset);
            if offsets
                .add_partition_offset(&self.topic, id as i32, offset)
                .is_err()
            {
                return;
            }
        }
        if let Err(error) = consumer.commit(&offsets, CommitMode::Async) {
            tracing::debug!("{}: group offsets: {}", self.link.place(), cause(&error));
        }
    }

    fn look_for_partitions(&self, control: &mut Control, consumer: &BaseConsumer<SourceContext>) {
        if control
            .looked
            .is_some_and(|at| at.elapsed() < LOOK_FOR_PARTITIONS_EVERY)
        {
            return;
        }
        control.looked = Some(Instant::now());
        let metadata = consumer
            .client()
            .fetch_metadata(Some(&self.topic), Duration::from_millis(200));
        let now = metadata.map_or(0, |m| m.topics().iter().map(|t| t.partitions().len()).sum());
        if now > control.partitions {
            let added = now - control.partitions;
            tracing::warn!(
                "{}: the topic has {added} new partition(s); they are read from their beginning after a restart",
                self.link.place()
            );
            control.partitions = now;
        }
    }
}

impl Source for KafkaSource {
    fn partitions(
        &self,
        resume: &BTreeMap<u32, Position>,
        ends: &BTreeMap<u32, i64>,
        bounded: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Partition>, ConnectorError> {
        let consumer = Arc::new(self.consumer()?);
        let topic = admin::topic(&*consumer, &self.link, &self.topic, stop)?;
        self.refuse_missing(&topic, resume)?;
        let by_time = self.offsets_by_time(&consumer, &topic.partitions, stop)?;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for &id in &topic.partitions {
            let bounds = admin::ask(&*consumer, &self.link, stop, |timeout| {
                consumer
                    .client()
                    .fetch_watermarks(&self.topic, id as i32, timeout)
            })?;
            let start = self.start_of(id, bounds, resume, &by_time)?;
            let end = ends.get(&id).copied().unwrap_or(bounds.1);
            partitions.push(Partition {
                id,
                start: Position {
                    offset: start,
                    record: start,
                },
                end: bounded.then_some(end),
            });
        }
        let mut control = self.control();
        control.partitions = partitions.len();
        control.looked = Some(Instant::now());
        control.consumer = Some(consumer);
        Ok(partitions)
    }

    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError> {
        let reader = KafkaReader::open(&self.topic, self.link.clone(), partitions, || {
            self.consumer()
        })?;
        Ok(Box::new(reader))
    }

    fn describe(&self, partition: u32, number: i64) -> Value {
        json!({ "topic": self.topic, "partition": partition, "offset": number })
    }

    fn decided(&self, positions: &BTreeMap<u32, Position>) {
        let mut control = self.control();
        let Some(consumer) = control.consumer.clone() else {
            return;
        };
        // Serves the answer to the commit before, and log lines.
        while consumer.poll(Duration::ZERO).is_some() {}
        let context = consumer.client().context();
        let waiting = control
            .committed
            .is_some_and(|at| at.elapsed() < COMMIT_PATIENCE);
        if !(waiting && context.committing.load(Ordering::Relaxed)) {
            context.committing.store(true, Ordering::Relaxed);
            control.committed = Some(Instant::now());
            self.commit(&consumer, positions);
        }
        if !self.link.is_down() {
            self.look_for_partitions(&mut control, &consumer);
        }
    }
}

#[cfg(test)]
impl KafkaSource {
    /// The group's offsets, as a lag monitor sees them.
    pub(super) fn committed(&self, partitions: &[Partition]) -> Vec<Option<i64>> {
        let consumer = self
            .control()
            .consumer
            .clone()
            .expect("partitions were asked for");
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            wanted.add_partition(&self.topic, partition.id as i32);
        }
        let found = consumer
            .committed_offsets(wanted, Duration::from_secs(10))
            .unwrap();
        let offset =
            |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element
                .offset()
            {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
        found.elements().iter().map(offset).collect()
    }
}

/// Context of the clients of one source.
pub(super) struct SourceContext {
    link: Arc<Link>,
    committing: AtomicBool,
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
