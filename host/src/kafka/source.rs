//! Kafka topics as a source: which partitions they have, and readers of them.
//!
//! All partitions are assigned by hand. The consumer group bears the pipeline's name and holds nothing but the offsets of
//! decided checkpoints, written for lag monitors and never read. Where a partition begins, and what happens if that is not
//! possible any more, is said in `start`; what is asked while the source runs, in `watch`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
#[cfg(test)]
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::connection::{self, cause};
use super::context::SourceContext;
use super::ending::Ending;
use super::link::Link;
use super::properties::Scope;
use super::queue::Asked;
use super::reader::KafkaReader;
use super::start::{Began, Known, Rules};
use super::topics::{self, Numbering};
use super::watch::Watch;
use crate::error::ConnectorError;
use crate::pipeline::plan::{self, Cluster, RecordPart, SourceConnector, Topics};
use crate::source::{Lost, Partition, Position, Reader, Source};

/// Bounds memory (16 MB of fetched records a reader) and keeps fetching when the bound is met for a moment.
const DEFAULTS: &[(&str, &str)] = &[
    ("check.crcs", "false"),
    ("fetch.max.bytes", "8388608"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.wait.max.ms", "100"),
    ("isolation.level", "read_committed"),
    ("queued.max.messages.kbytes", "16384"),
    ("queued.min.messages", "10000"),
];

const FIXED: &[(&str, &str)] = &[
    ("allow.auto.create.topics", "false"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
];

/// How often topics that are like a pattern are looked for, unless `topic.metadata.refresh.interval.ms` says otherwise.
const LIST_TOPICS_EVERY: Duration = Duration::from_secs(60);

/// Topics of a pipeline, all their partitions.
pub struct KafkaSource {
    pipeline: String,
    cluster: Cluster,
    topics: Topics,
    rules: Rules,
    asked: Asked,
    numbering: Mutex<Numbering>,
    link: Arc<Link>,
    /// Ids of the topics, of the state before [`Source::partitions`] and as found after it.
    ids: Mutex<BTreeMap<String, String>>,
    losses: Mutex<BTreeMap<u32, Lost>>,
    /// Since the partitions were asked for.
    watch: Mutex<Option<Arc<Watch>>>,
}

impl KafkaSource {
    /// `name` is the source's name in the pipeline file. Nothing is connected yet.
    pub fn new(
        name: &str,
        pipeline: &str,
        cluster: &Cluster,
        topic: &str,
        start: plan::Start,
    ) -> Self {
        let topics = Topics::Named(vec![topic.to_owned()]);
        Self::of(&format!("source {name}"), pipeline, cluster, topics, start)
    }

    /// What to do with positions that the topics do not have any more, in place of stopping.
    #[must_use]
    pub fn on_data_loss(mut self, rule: plan::OnDataLoss) -> Self {
        self.rules.on_data_loss = rule;
        self
    }

    /// The source of a plan. `source` must have a Kafka connector; anything else is a mistake of the caller.
    pub fn of_plan(source: &plan::Source, pipeline: &str) -> Self {
        let SourceConnector::Kafka {
            cluster,
            topics,
            start,
            on_data_loss,
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
        this.on_data_loss(*on_data_loss)
    }

    /// `what` is what an error calls it.
    pub(super) fn of(
        what: &str,
        pipeline: &str,
        cluster: &Cluster,
        topics: Topics,
        start: plan::Start,
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
            rules: Rules {
                start,
                on_data_loss: plan::OnDataLoss::Stop,
            },
            asked: Asked::default(),
            numbering: Mutex::new(Numbering::new(named)),
            link: Arc::new(Link::new(place)),
            ids: Mutex::default(),
            losses: Mutex::default(),
            watch: Mutex::default(),
        }
    }

    fn numbering(&self) -> MutexGuard<'_, Numbering> {
        lock(&self.numbering)
    }

    fn watch(&self) -> Option<Arc<Watch>> {
        lock(&self.watch).clone()
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

    fn list_every(&self) -> Duration {
        let written = self
            .cluster
            .properties
            .get("topic.metadata.refresh.interval.ms");
        let millis = written.and_then(|text| text.parse().ok());
        millis.map_or(LIST_TOPICS_EVERY, Duration::from_millis)
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
        let consumer = Ending::new(self.consumer()?);
        let found = topics::find(&self.topics, &consumer, &self.link, stop)?;
        let ids = lock(&self.ids).clone();
        let began = Began {
            rules: &self.rules,
            known: Known {
                positions: resume,
                ends,
                ids: &ids,
            },
            consumer: &consumer,
            link: &self.link,
            stop,
        };
        let (mut partitions, mut losses) = (Vec::new(), BTreeMap::new());
        let (mut ids, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (place, name) in self.places(found, resume) {
            let topic = began.topic(place, &name)?;
            partitions.extend(topic.partitions.into_iter().map(|(p, end)| Partition {
                end: bounded.then_some(end),
                ..p
            }));
            losses.extend(topic.losses);
            ids.extend(topic.seen.id.clone().map(|id| (name.clone(), id)));
            seen.insert(name, topic.seen);
        }
        *lock(&self.ids) = ids;
        *lock(&self.losses) = losses;
        let (link, list_every) = (self.link.clone(), self.list_every());
        let watch = Watch::new(consumer, link, seen, &self.topics, list_every, bounded);
        *lock(&self.watch) = Some(Arc::new(watch));
        Ok(partitions)
    }

    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError> {
        let topics = self.numbering().topics().to_vec();
        let link = self.link.clone();
        let (asked, rule) = (self.asked, self.rules.on_data_loss);
        let consumer = || self.consumer();
        let reader = KafkaReader::open(&topics, link, partitions, asked, rule, consumer)?;
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

    fn topic_ids(&self) -> BTreeMap<String, String> {
        lock(&self.ids).clone()
    }

    fn recall(&self, topics: &[String], ids: &BTreeMap<String, String>) {
        // A state of before there were several topics names none: its one topic is the first.
        if !topics.is_empty() {
            *self.numbering() = Numbering::new(topics.to_vec());
        }
        *lock(&self.ids) = ids.clone();
    }

    fn losses(&self) -> BTreeMap<u32, Lost> {
        lock(&self.losses).clone()
    }

    fn verify(&self) -> Result<(), ConnectorError> {
        self.watch().map_or(Ok(()), |watch| watch.verify())
    }

    fn grown(&self) -> Option<String> {
        self.watch()?.grown()
    }

    fn waiting(&self) -> Option<String> {
        self.link.waiting()
    }

    fn decided(&self, positions: &BTreeMap<u32, Position>) {
        let Some(watch) = self.watch() else {
            return;
        };
        let numbering = self.numbering();
        let mut offsets = TopicPartitionList::with_capacity(positions.len());
        for (&id, position) in positions {
            if let Some((topic, partition)) = numbering.split(id) {
                offsets
                    .add_partition_offset(topic, partition, Offset::Offset(position.offset))
                    .expect("an offset read is not negative");
            }
        }
        watch.decided(&offsets);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
impl KafkaSource {
    /// The group's offsets, as a lag monitor sees them.
    pub(super) fn committed(&self, partitions: &[Partition]) -> Vec<Option<i64>> {
        let consumer = &self.watch().expect("partitions were asked for").consumer;
        let mut wanted = rdkafka::TopicPartitionList::new();
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
                rdkafka::Offset::Offset(offset) => Some(offset),
                _ => None,
            };
        found.elements().iter().map(offset).collect()
    }
}
