//! Kafka topics as a source: which partitions they have, where each begins and ends, and readers of them.
//!
//! All partitions are assigned by hand. The consumer group bears the pipeline's name and holds nothing but the offsets of
//! decided checkpoints, written for lag monitors and never read.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::admin::{self, Topic};
use super::connection::{self, Link, cause};
use super::context::SourceContext;
use super::properties::Scope;
use super::queue::Asked;
use super::reader::KafkaReader;
use super::topics::{self, Numbering};
use crate::error::ConnectorError;
use crate::pipeline::plan::{
    self, Cluster, RecordPart, SourceConnector, Start, Topics, topic_pattern,
};
use crate::source::{GroupOffset, Partition, Position, Reader, Source};

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

/// Topics of a pipeline, all their partitions.
pub struct KafkaSource {
    pipeline: String,
    cluster: Cluster,
    topics: Topics,
    start: Start,
    asked: Asked,
    numbering: Mutex<Numbering>,
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
        let topics = Topics::Named(vec![topic.to_owned()]);
        Self::of(&format!("source {name}"), pipeline, cluster, topics, start)
    }

    /// The source of a plan. `source` must have a Kafka connector; anything else is a mistake of the caller.
    pub fn of_plan(source: &plan::Source, pipeline: &str) -> Self {
        let SourceConnector::Kafka {
            cluster,
            topics,
            start,
        } = &source.connector
        else {
            panic!("source {} is not Kafka", source.name);
        };
        let what = format!("source {}", source.name);
        let mut this = Self::of(&what, pipeline, cluster, topics.clone(), *start);
        this.asked = Asked {
            headers: source.has_part(RecordPart::Headers),
            timestamp: source.has_part(RecordPart::Timestamp),
        };
        this
    }

    /// `what` is what an error calls it.
    pub(super) fn of(
        what: &str,
        pipeline: &str,
        cluster: &Cluster,
        topics: Topics,
        start: Start,
    ) -> Self {
        let hosts = connection::hosts(cluster);
        let place = format!("{what} ({} at {hosts})", topics::shown(&topics));
        let named = match &topics {
            Topics::Named(names) => names.clone(),
            Topics::Pattern(_) => Vec::new(),
        };
        Self {
            pipeline: pipeline.to_owned(),
            cluster: cluster.clone(),
            topics,
            start,
            asked: Asked::default(),
            numbering: Mutex::new(Numbering::new(named)),
            link: Arc::new(Link::new(place)),
            control: Mutex::default(),
        }
    }

    fn numbering(&self) -> MutexGuard<'_, Numbering> {
        self.numbering
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
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
        by_time: Option<i64>,
    ) -> Result<i64, ConnectorError> {
        if let Some(position) = resume.get(&id) {
            return self.resumable(topics::split(id).1, position.offset, low, high);
        }
        Ok(match self.start {
            Start::Earliest => low,
            // A partition that appeared after the first start is read whole.
            Start::Latest if !resume.is_empty() => low,
            Start::Latest => high,
            Start::At(_) => by_time.unwrap_or(high),
        })
    }

    fn resumable(&self, id: i32, offset: i64, low: i64, high: i64) -> Result<i64, ConnectorError> {
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

    /// Positions of partitions that the topic at `place` does not have.
    fn refuse_missing(
        &self,
        place: usize,
        topic: &Topic,
        resume: &BTreeMap<u32, Position>,
    ) -> Result<(), ConnectorError> {
        let mut known = resume.keys().map(|&id| topics::split(id));
        let is_gone = |&(of, partition): &(usize, i32)| {
            of == place && !topic.partitions.contains(&(partition as u32))
        };
        match known.find(is_gone) {
            None => Ok(()),
            Some((_, id)) => Err(self.link.failed(format!(
                "the state has a position in partition {id}, but the topic has {} partitions: was it deleted and \
                 created anew? `tidemill reset` gives up the pipeline's state and starts anew",
                topic.partitions.len()
            ))),
        }
    }

    /// The topics to read, each with its place in the numbering, which gets the new ones.
    fn places(&self, found: Vec<String>, resume: &BTreeMap<u32, Position>) -> Vec<(usize, String)> {
        let mut numbering = self.numbering();
        let places = found
            .into_iter()
            .map(|topic| (numbering.place(&topic), topic));
        let places: Vec<_> = places.collect();
        let read = |id: &u32| {
            places
                .iter()
                .any(|(place, _)| *place == topics::split(*id).0)
        };
        let mut gone: Vec<_> = resume
            .keys()
            .filter(|id| !read(id))
            .filter_map(|&id| Some(numbering.split(id)?.0))
            .collect();
        gone.dedup();
        for topic in gone {
            tracing::warn!(
                "{}: topic {topic} is no longer read: it is gone, or the pipeline file no longer names it",
                self.link.place()
            );
        }
        places
    }

    /// Where the partitions of one topic begin and end.
    fn partitions_of(
        &self,
        consumer: &BaseConsumer<SourceContext>,
        (place, name): (usize, &str),
        resume: &BTreeMap<u32, Position>,
        ends: &BTreeMap<u32, i64>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<(Partition, i64)>, ConnectorError> {
        let topic = admin::topic(consumer, &self.link, name, stop)?;
        self.refuse_missing(place, &topic, resume)?;
        let by_time = self.offsets_by_time(consumer, name, &topic.partitions, stop)?;
        let mut found = Vec::with_capacity(topic.partitions.len());
        for &number in &topic.partitions {
            let id = topics::id(place, number).ok_or_else(|| {
                self.link
                    .failed(format!("partition {number} of {name} is one too many"))
            })?;
            let bounds = admin::ask(consumer, &self.link, stop, |timeout| {
                consumer
                    .client()
                    .fetch_watermarks(name, number as i32, timeout)
            })?;
            let by_time = by_time.get(&number).copied();
            let start = self.start_of(id, bounds, resume, by_time)?;
            let partition = Partition {
                id,
                start: Position {
                    offset: start,
                    record: start,
                },
                end: None,
            };
            found.push((partition, ends.get(&id).copied().unwrap_or(bounds.1)));
        }
        Ok(found)
    }

    /// The first offset of each partition whose record is not older than `Start::At`; empty for the other rules.
    fn offsets_by_time(
        &self,
        consumer: &BaseConsumer<SourceContext>,
        topic: &str,
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
                .add_partition_offset(topic, id as i32, Offset::Offset(millis.max(0)))
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
        for (topic, partition, offset) in self.group_offsets(positions) {
            let offset = Offset::Offset(offset);
            if offsets
                .add_partition_offset(&topic, partition, offset)
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
        let known = self.numbering().topics().to_vec();
        // A topic that is like the pattern and new is news, too.
        let pattern = match &self.topics {
            Topics::Named(_) => None,
            Topics::Pattern(pattern) => topic_pattern(pattern).ok(),
        };
        let only = known
            .first()
            .filter(|_| known.len() == 1 && pattern.is_none());
        let metadata = consumer
            .client()
            .fetch_metadata(only.map(String::as_str), Duration::from_millis(200));
        let is_read = |name: &str| {
            known.iter().any(|topic| topic == name)
                || pattern
                    .as_ref()
                    .is_some_and(|p| !name.starts_with("__") && p.is_match(name))
        };
        let now = metadata.map_or(0, |metadata| {
            let read = metadata.topics().iter().filter(|t| is_read(t.name()));
            read.map(|t| t.partitions().len()).sum()
        });
        if now > control.partitions {
            let added = now - control.partitions;
            tracing::warn!(
                "{}: there are {added} new partition(s); they are read from their beginning after a restart",
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
        let found = topics::find(&self.topics, &consumer, &self.link, stop)?;
        let mut partitions = Vec::new();
        for (place, name) in self.places(found, resume) {
            let of_topic = self.partitions_of(&consumer, (place, &name), resume, ends, stop)?;
            partitions.extend(of_topic.into_iter().map(|(partition, end)| Partition {
                end: bounded.then_some(end),
                ..partition
            }));
        }
        let mut control = self.control();
        control.partitions = partitions.len();
        control.looked = Some(Instant::now());
        control.consumer = Some(consumer);
        Ok(partitions)
    }

    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError> {
        let topics = self.numbering().topics().to_vec();
        let link = self.link.clone();
        let reader = KafkaReader::open(&topics, link, partitions, self.asked, || self.consumer())?;
        Ok(Box::new(reader))
    }

    fn describe(&self, partition: u32, number: i64) -> Value {
        let numbering = self.numbering();
        let (topic, partition) = numbering.split(partition).unwrap_or_default();
        json!({ "topic": topic, "partition": partition, "offset": number })
    }

    fn topics(&self) -> Vec<String> {
        self.numbering().topics().to_vec()
    }

    fn recall(&self, topics: &[String]) {
        // A state of before there were several topics names none: its one topic is the first.
        if !topics.is_empty() {
            *self.numbering() = Numbering::new(topics.to_vec());
        }
    }

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn group_offsets(&self, positions: &BTreeMap<u32, Position>) -> Vec<GroupOffset> {
        let numbering = self.numbering();
        let offset = |(&id, position): (&u32, &Position)| {
            let (topic, partition) = numbering.split(id)?;
            Some((topic.to_owned(), partition, position.offset))
        };
        positions.iter().filter_map(offset).collect()
    }

    fn decided(&self, positions: &BTreeMap<u32, Position>, committed: bool) {
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
        let under_way = waiting && context.committing.load(Ordering::Relaxed);
        if !committed && !under_way {
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
            let numbering = self.numbering();
            let (topic, number) = numbering.split(partition.id).expect("a partition found");
            wanted.add_partition(topic, number);
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
