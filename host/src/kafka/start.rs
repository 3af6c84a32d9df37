//! Where the partitions of a topic begin: the position that the state has, or the source's rule; and what becomes of a
//! position that the topic does not have any more.
//!
//! Invariant: a position is read from only in the topic that it is a position of, and only where that topic has it.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::admin::{self, Topic};
use super::connection::cause;
use super::context::SourceContext;
use super::identity;
use super::link::Link;
use super::loss::{self, Anew};
use super::topics;
use super::watch::Seen;
use crate::error::ConnectorError;
use crate::pipeline::plan::{OnDataLoss, Start};
use crate::source::{Lost, Partition, Position};

/// What the pipeline file says about beginnings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub start: Start,
    pub on_data_loss: OnDataLoss,
}

/// What the state says.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub positions: &'a BTreeMap<u32, Position>,
    /// Where a bounded run that is gone on with ends.
    pub ends: &'a BTreeMap<u32, i64>,
    /// By topic.
    pub ids: &'a BTreeMap<String, String>,
}

/// A source that is beginning.
pub(super) struct Began<'a> {
    pub rules: &'a Rules,
    pub known: Known<'a>,
    pub consumer: &'a BaseConsumer<SourceContext>,
    pub link: &'a Link,
    pub stop: &'a dyn Fn() -> bool,
}

/// One topic, ready to be read.
pub(super) struct BegunTopic {
    /// Each with the offset at which a bounded run ends.
    pub partitions: Vec<(Partition, i64)>,
    pub losses: Vec<(u32, Lost)>,
    pub seen: Seen,
}

impl Began<'_> {
    /// Where the partitions of topic `name`, at `place` in the numbering, begin and end.
    pub(super) fn topic(&self, place: usize, name: &str) -> Result<BegunTopic, ConnectorError> {
        let topic = admin::topic(self.consumer, self.link, name, self.stop)?;
        let id = self.id(name)?;
        let anew = self.anew(place, name, id.as_deref(), &topic);
        let mut losses = Vec::new();
        if let Some(anew) = &anew {
            losses = self.lost_with(place, name, anew)?;
        }
        let by_time = self.offsets_by_time(name, &topic.partitions)?;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for &number in &topic.partitions {
            let id = topics::id(place, number).ok_or_else(|| {
                self.link
                    .failed(format!("partition {number} of {name} is one too many"))
            })?;
            let bounds = self.ask(|timeout| {
                let client = self.consumer.client();
                client.fetch_watermarks(name, number as i32, timeout)
            })?;
            let (start, lost) = match anew {
                // Nothing of the new topic was ever read.
                Some(_) => (bounds.0, Lost::default()),
                None => self.start(id, name, bounds, by_time.get(&number).copied())?,
            };
            if !lost.is_none() {
                losses.push((id, lost));
            }
            let partition = Partition {
                id,
                start: Position {
                    offset: start,
                    record: start,
                },
                end: None,
            };
            let end = self.known.ends.get(&id).filter(|_| anew.is_none());
            partitions.push((partition, end.copied().unwrap_or(bounds.1)));
        }
        let seen = Seen {
            id,
            partitions: partitions.len(),
        };
        Ok(BegunTopic {
            partitions,
            losses,
            seen,
        })
    }

    fn ask<T>(
        &self,
        question: impl FnMut(std::time::Duration) -> KafkaResult<T>,
    ) -> Result<T, ConnectorError> {
        admin::ask(self.consumer, self.link, self.stop, question)
    }

    fn id(&self, name: &str) -> Result<Option<String>, ConnectorError> {
        let names = [name.to_owned()];
        self.ask(|timeout| {
            let broker = identity::broker(self.consumer, name, timeout)?;
            match identity::describe(self.consumer, &names, broker, timeout)?.remove(name) {
                Some(Ok(described)) => Ok(described.id),
                Some(Err(code)) => Err(KafkaError::MetadataFetch(code)),
                None => Ok(None),
            }
        })
    }

    /// Whether the topic is another one than the positions are of. One of which nothing was read is as good as the old one.
    fn anew(&self, place: usize, name: &str, id: Option<&str>, topic: &Topic) -> Option<Anew> {
        let positions = self.known.positions.iter();
        let mut positions = positions.filter(|(id, _)| topics::split(**id).0 == place);
        if let (Some(was), Some(is)) = (self.known.ids.get(name), id)
            && was != is
        {
            return positions
                .any(|(_, position)| position.offset > 0)
                .then(|| Anew::Id {
                    was: was.clone(),
                    is: is.to_owned(),
                });
        }
        // Of a cluster that gives no ids this much is certain.
        let mut numbers = positions.map(|(id, _)| topics::split(*id).1);
        let missing = numbers.find(|&n| !topic.partitions.contains(&(n as u32)));
        missing.map(|partition| Anew::Without { partition })
    }

    /// What goes with the old topic, partition by partition.
    fn lost_with(
        &self,
        place: usize,
        name: &str,
        anew: &Anew,
    ) -> Result<Vec<(u32, Lost)>, ConnectorError> {
        let told = anew.told(name, &loss::now());
        if self.rules.on_data_loss == OnDataLoss::Stop {
            return Err(self.link.failed(loss::refusal(&told)));
        }
        tracing::warn!(
            "{}: {told}; the new one is read from its beginning, as `on_data_loss` says",
            self.link.place()
        );
        let ids = self.known.positions.keys();
        let of_topic = ids.filter(|id| topics::split(**id).0 == place);
        Ok(of_topic.map(|&id| (id, Lost::unknown())).collect())
    }

    /// Where partition `id` begins, which has records from `low` up to `high`, and what is lost by that.
    fn start(
        &self,
        id: u32,
        name: &str,
        (low, high): (i64, i64),
        by_time: Option<i64>,
    ) -> Result<(i64, Lost), ConnectorError> {
        let start = match self.known.positions.get(&id) {
            Some(position) => return self.resume(id, name, position.offset, (low, high)),
            None => match self.rules.start {
                Start::Earliest => low,
                // What appeared after the first start is read whole.
                _ if self.is_known(topics::split(id).0) => low,
                Start::Latest if !self.known.positions.is_empty() => low,
                Start::Latest => high,
                Start::At(_) => by_time.unwrap_or(high),
            },
        };
        Ok((start, Lost::default()))
    }

    /// Some partition of the topic was read before.
    fn is_known(&self, place: usize) -> bool {
        let mut known = self.known.positions.keys();
        known.any(|id| topics::split(*id).0 == place)
    }

    fn resume(
        &self,
        id: u32,
        name: &str,
        position: i64,
        range: (i64, i64),
    ) -> Result<(i64, Lost), ConnectorError> {
        let resumed = loss::resume(self.rules.on_data_loss, position, range);
        let told = || {
            let partition = topics::split(id).1;
            format!(
                "topic {name}, {}",
                loss::out_of_range(partition, position, range)
            )
        };
        let (start, lost) = resumed.ok_or_else(|| self.link.failed(loss::refusal(&told())))?;
        if !lost.is_none() {
            tracing::warn!(
                "{}: {}; reading goes on at offset {start}, as `on_data_loss` says: {lost} lost",
                self.link.place(),
                told()
            );
        }
        Ok((start, lost))
    }

    /// The first offset of each partition whose record is not older than `Start::At`; empty for the other rules.
    fn offsets_by_time(
        &self,
        topic: &str,
        partitions: &[u32],
    ) -> Result<BTreeMap<u32, i64>, ConnectorError> {
        let Start::At(micros) = self.rules.start else {
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
        let found = self.ask(|timeout| {
            let found = self.consumer.offsets_for_times(wanted.clone(), timeout)?;
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
}
