//! Reads the partitions of one worker.
//!
//! Keeps, per partition, the next offset and whether the end was reached. The end is known by position, never by counting:
//! control records and aborted ones take offsets too, and librdkafka reports the end of a partition with its offset.
//! Partitions take turns fetch by fetch (1 MiB, `fetch.message.max.bytes`): none waits longer than one fetch of each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};

use super::connection::{cause, is_transient};
use super::context::SourceContext;
use super::doubts::{Doubts, PROBE_WAIT};
use super::ending::Ending;
use super::link::Link;
use super::loss;
use super::part::{Part, part};
use super::queue::{Asked, BatchConsumer, Fetched};
use super::silence::{ASK_WAIT, Silence};
use super::topics::{id, split};
use crate::error::ConnectorError;
use crate::limits::EPOCH_RECORDS_MAX;
use crate::pipeline::plan::OnDataLoss;
use crate::source::{About, Partition, Position, Progress, Reader, Record};

/// Events (log lines, errors) served before records are read.
const EVENTS_MAX: usize = 64;

pub(super) struct KafkaReader {
    batches: Option<Ending<BatchConsumer<SourceContext>>>,
    /// In the order of their numbers.
    topics: Vec<String>,
    link: Arc<Link>,
    parts: Vec<Part>,
    index: HashMap<u32, usize>,
    doubts: Doubts,
    silence: Silence,
    on_data_loss: OnDataLoss,
    /// Why it is not known where librdkafka goes on.
    broken: Option<String>,
}

impl KafkaReader {
    /// `partitions` have the numbers that [`topics::id`] makes of `topics`.
    pub(super) fn open(
        topics: &[String],
        link: Arc<Link>,
        partitions: Vec<Partition>,
        asked: Asked,
        on_data_loss: OnDataLoss,
        consumer: impl FnOnce() -> Result<BaseConsumer<SourceContext>, ConnectorError>,
    ) -> Result<Self, ConnectorError> {
        let parts: Vec<Part> = partitions.iter().map(part).collect();
        let unread: Vec<&Part> = parts.iter().filter(|p| !p.finished()).collect();
        let batches = match unread.is_empty() {
            true => None,
            false => Some(Ending::new(assign(
                topics,
                &link,
                &unread,
                asked,
                consumer()?,
            )?)),
        };
        Ok(Self {
            batches,
            doubts: Doubts::new(topics.len(), parts.first().map_or(0, Part::topic)),
            silence: Silence::new(),
            on_data_loss,
            topics: topics.to_vec(),
            link,
            index: parts.iter().enumerate().map(|(at, p)| (p.id, at)).collect(),
            parts,
            broken: None,
        })
    }

    /// Serves log lines and errors of the client.
    fn serve_events(&self, batches: &BatchConsumer<SourceContext>) -> Result<(), ConnectorError> {
        for _ in 0..EVENTS_MAX {
            match batches.consumer().poll(Duration::ZERO) {
                None => break,
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    return Err(self.link.failed(code));
                }
                // The context has heard it.
                Some(Err(_)) => {}
                Some(Ok(_)) => {
                    return Err(self.link.failed("a record came past the partition queues"));
                }
            }
        }
        self.link.check()
    }

    /// Asks for a topic while the broker is away, does not know it or does not let it be read; a fetch that works again says
    /// nothing by itself.
    fn probe(&mut self, batches: &BatchConsumer<SourceContext>) -> Result<(), ConnectorError> {
        let denied = self.parts.iter().find(|p| p.denied).map(Part::topic);
        let Some(topic) = self.doubts.due(self.link.is_down(), denied) else {
            return Ok(());
        };
        let name = &self.topics[topic];
        let metadata = batches
            .consumer()
            .client()
            .fetch_metadata(Some(name), PROBE_WAIT);
        if let Ok(metadata) = metadata {
            self.link.seen();
            let known = metadata.topics().iter().find_map(is_known);
            if known.is_some_and(|known| self.doubts.answered(topic, known)) {
                return Err(self.link.failed(format!(
                    "the topic {name} no longer exists; create it again, or point the source at another one and run \
                     `tidemill reset`"
                )));
            }
        }
        if denied.is_some() {
            self.link.deny(name);
            self.try_denied(batches);
        }
        Ok(())
    }

    /// Fetches denied partitions once more. One that may be read again gives its records, or its end.
    fn try_denied(&self, batches: &BatchConsumer<SourceContext>) {
        let mut list = TopicPartitionList::new();
        let denied = self
            .parts
            .iter()
            .filter(|p| p.denied && !p.held && !p.stopped);
        for part in denied {
            let (topic, partition) = (&self.topics[part.topic()], part.partition());
            list.add_partition_offset(topic, partition, Offset::Offset(part.next))
                .expect("an offset read is not negative");
        }
        let sought = match list.count() {
            0 => return,
            _ => batches.consumer().seek_partitions(list, Duration::ZERO),
        };
        if let Err(error) = sought {
            // The next probe tries again.
            tracing::debug!("{}: {}", self.link.place(), cause(&error));
        }
    }

    /// A fetch of partition `at` worked.
    fn granted(&mut self, at: usize) {
        let topic = self.parts[at].topic();
        self.doubts.proven[topic] = true;
        self.silence.forget(self.parts[at].id);
        if std::mem::take(&mut self.parts[at].denied)
            && !self.parts.iter().any(|p| p.denied && p.topic() == topic)
        {
            self.link.grant(&self.topics[topic]);
        }
    }

    /// Fails for good where nothing was ever read of the topic: then it was not granted, and waiting is no use.
    fn denied(&mut self, topic: usize, partition: i32) -> Result<(), ConnectorError> {
        let name = &self.topics[topic];
        if !self.doubts.proven[topic] {
            return Err(self.link.failed(format!(
                "this user may not read topic {name}; grant it READ on the topic, or change the credentials under [kafka]"
            )));
        }
        if let Some(at) = part_at(&self.index, topic, partition) {
            // Nobody knows whether something came since.
            (self.parts[at].denied, self.parts[at].at_end) = (true, false);
        }
        self.link.deny(name);
        Ok(())
    }

    /// Stops fetching partitions that a bounded run has finished.
    fn stop_finished(&mut self, batches: &BatchConsumer<SourceContext>) {
        if self.parts.iter().all(|p| p.end.is_none()) {
            return;
        }
        let mut done = TopicPartitionList::new();
        for part in self.parts.iter_mut().filter(|p| p.finished() && !p.stopped) {
            part.stopped = true;
            done.add_partition(&self.topics[part.topic()], part.partition());
        }
        if done.count() > 0
            && let Err(error) = batches.consumer().pause(&done)
        {
            // Harmless: records beyond the end are dropped as they come.
            tracing::debug!("{}: {}", self.link.place(), cause(&error));
        }
    }
}

/// Whether there is such a topic; `None` if that cannot be said for now.
fn is_known(topic: &MetadataTopic) -> Option<bool> {
    use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    match topic.error().map(RDKafkaErrorCode::from) {
        None => (!topic.partitions().is_empty()).then_some(true),
        Some(UnknownTopic | UnknownTopicOrPartition) => Some(false),
        Some(_) => None,
    }
}

fn assign(
    topics: &[String],
    link: &Link,
    parts: &[&Part],
    asked: Asked,
    consumer: BaseConsumer<SourceContext>,
) -> Result<BatchConsumer<SourceContext>, ConnectorError> {
    let ids: Vec<_> = parts.iter().map(|p| split(p.id)).collect();
    let batches = BatchConsumer::new(consumer, topics, &ids, asked)
        .ok_or_else(|| link.failed("librdkafka gave no queue for the partitions"))?;
    let mut assignment = TopicPartitionList::with_capacity(parts.len());
    for part in parts {
        assignment
            .add_partition_offset(
                &topics[part.topic()],
                part.partition(),
                Offset::Offset(part.next),
            )
            .map_err(|error| link.failed(cause(&error)))?;
    }
    batches
        .consumer()
        .assign(&assignment)
        .map_err(|error| link.failed(cause(&error)))?;
    Ok(batches)
}

impl Reader for KafkaReader {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), ConnectorError> {
        let Some(mut batches) = self.batches.take() else {
            return Ok(());
        };
        let result = self.poll_batches(&mut batches, max, wait, each);
        self.batches = Some(batches);
        result
    }

    fn pause(&mut self, partitions: &[u32]) {
        let Some(batches) = &self.batches else { return };
        let (mut hold, mut free) = (TopicPartitionList::new(), TopicPartitionList::new());
        for part in self.parts.iter_mut().filter(|p| !p.stopped) {
            let held = partitions.contains(&part.id);
            if std::mem::replace(&mut part.held, held) == held {
                continue;
            }
            // What comes meanwhile is not seen, so the end reported before says nothing any more.
            part.at_end = false;
            self.silence.forget(part.id);
            let list = if held { &mut hold } else { &mut free };
            let (topic, partition) = (&self.topics[part.topic()], part.partition());
            list.add_partition_offset(topic, partition, Offset::Offset(part.next))
                .expect("an offset read is not negative");
        }
        if let Err(error) = hold_and_free(batches.consumer(), &hold, &free) {
            self.broken.get_or_insert(cause(&error));
        }
    }

    fn progress(&self) -> Vec<Progress> {
        self.parts
            .iter()
            .map(|part| self.progress_of(part))
            .collect()
    }
}

/// Pauses some partitions and lets others go on where reading stood.
///
/// librdkafka resumes where it believes the application to be. After a batch read it takes the report of a partition's end
/// for a record, and would leave the next record out: hence the seek. Resuming a partition that is not paused would fetch it
/// again from its start, so only changes may come here.
fn hold_and_free(
    consumer: &BaseConsumer<SourceContext>,
    hold: &TopicPartitionList,
    free: &TopicPartitionList,
) -> KafkaResult<()> {
    if hold.count() > 0 {
        consumer.pause(hold)?;
    }
    if free.count() > 0 {
        // Without a wait: librdkafka does both in this order.
        consumer.seek_partitions(free.clone(), Duration::ZERO)?;
        consumer.resume(free)?;
    }
    Ok(())
}

impl KafkaReader {
    fn poll_batches(
        &mut self,
        batches: &mut BatchConsumer<SourceContext>,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), ConnectorError> {
        if let Some(cause) = &self.broken {
            return Err(self.link.failed(cause));
        }
        self.serve_events(batches)?;
        let mut failed = Ok(());
        let max = max.min(EPOCH_RECORDS_MAX);
        let entries = batches.read(max, wait, &mut |fetched| {
            let result = self.take(fetched, each);
            if failed.is_ok() {
                failed = result;
            }
        });
        failed?;
        if entries > 0 {
            self.stop_finished(batches);
        }
        // With nothing left in the queue: what is not given then was not fetched.
        if self.link.is_down() {
            self.silence.forget_all();
        } else if entries < max && self.silence.is_due() {
            self.ask_for_more(batches)?;
        }
        if entries == 0 || self.parts.iter().any(|p| p.denied) {
            self.probe(batches)?;
        }
        Ok(())
    }

    /// Whether the broker has records that librdkafka does not give. It may forget a partition whose broker disappears while
    /// it asks it something (2.10 to 2.12): then only another client reads on.
    fn ask_for_more(
        &mut self,
        batches: &BatchConsumer<SourceContext>,
    ) -> Result<(), ConnectorError> {
        let reads = |part: &&Part| !(part.held || part.stopped || part.denied || part.finished());
        let parts: Vec<&Part> = self.parts.iter().filter(reads).collect();
        for at in self.silence.turn(parts.len()) {
            let (name, part) = (&self.topics[parts[at].topic()], parts[at]);
            let client = batches.consumer().client();
            let Ok((_, end)) = client.fetch_watermarks(name, part.partition(), ASK_WAIT) else {
                continue;
            };
            let waits = (end > part.next).then_some(part.next);
            if self.silence.heard_of(part.id, waits) {
                return Err(self.link.changed(format!(
                    "topic {name}, partition {}: the broker has records from offset {} on, and librdkafka gives none of them; \
                     going on with another client",
                    part.partition(),
                    part.next
                )));
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        fetched: Fetched<'_>,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), ConnectorError> {
        match fetched {
            Fetched::Record {
                topic,
                partition,
                offset,
                value,
                key,
                headers,
                timestamp,
            } => {
                self.link.seen();
                let about = About {
                    key,
                    headers,
                    topic: Some(&self.topics[topic]),
                    partition: Some(partition),
                    timestamp: timestamp.map(|millis| millis.saturating_mul(1_000)),
                };
                if let Some(at) = part_at(&self.index, topic, partition) {
                    self.parts[at].take(offset, value, about, each);
                    if self.parts[at].denied || !self.doubts.proven[topic] {
                        self.granted(at);
                    }
                    self.doubts.read(topic);
                }
                Ok(())
            }
            Fetched::Event {
                topic,
                partition,
                offset,
                code,
                text,
            } => self.event((topic, partition), offset, code, text),
        }
    }

    fn event(
        &mut self,
        (topic, partition): (usize, i32),
        offset: i64,
        code: RDKafkaErrorCode,
        text: &str,
    ) -> Result<(), ConnectorError> {
        let at = part_at(&self.index, topic, partition);
        match code {
            RDKafkaErrorCode::PartitionEOF => {
                self.link.seen();
                if let Some(at) = at {
                    let part = &mut self.parts[at];
                    part.next = part.next.max(offset);
                    part.at_end = true;
                    self.granted(at);
                }
                Ok(())
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => {
                self.doubts.unknown(topic);
                Ok(())
            }
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let wanted = at.map_or(offset, |at| self.parts[at].next);
                Err(self.gone((topic, partition), wanted, text))
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => self.denied(topic, partition),
            code if is_transient(code) => {
                tracing::debug!("{}: partition {partition}: {text}", self.link.place());
                Ok(())
            }
            code => Err(self.link.failed(format!(
                "partition {partition} at offset {offset}: {code}: {text}"
            ))),
        }
    }

    /// The broker does not have the offset any more. What that means is found out where the source is opened again, with
    /// one exception: a log that was cut off may have grown over the offset since, and then nothing would be found.
    ///
    /// What librdkafka says of another offset than this is of no position of ours: while a partition is paused it takes the
    /// report of its end for a record, and holds the offset behind it against the log.
    fn gone(&self, (topic, partition): (usize, i32), wanted: i64, text: &str) -> ConnectorError {
        let told = format!(
            "topic {}, partition {partition}: offset {wanted}, where reading goes on, is not there any more ({text})",
            self.topics[topic]
        );
        match self.on_data_loss == OnDataLoss::Stop && is_cut_off_at(wanted, text) {
            true => self.link.failed(loss::refusal(&format!(
                "{told}: Kafka has lost records that were read, and may have others in their place"
            ))),
            false => self.link.changed(told),
        }
    }

    fn progress_of(&self, part: &Part) -> Progress {
        let finished = part.finished();
        let last = match (part.end, &self.batches) {
            (Some(end), _) if finished => Some(end),
            (_, Some(batches)) => batches.end_seen(part.topic(), part.partition()),
            _ => None,
        };
        let lag = last.map(|last| u64::try_from(last - part.next).unwrap_or(0));
        Progress {
            partition: part.id,
            next: Position {
                offset: part.next,
                record: part.next,
            },
            // The end that the last fetch saw may be beyond the one reported: then something came since.
            caught_up: finished || (part.at_end && lag == Some(0)),
            finished,
            lag,
        }
    }
}

/// Whether librdkafka says that the log was cut off before `offset`.
fn is_cut_off_at(offset: i64, text: &str) -> bool {
    text.contains("truncation") && text.contains(&format!(" at offset {offset} "))
}

fn part_at(index: &HashMap<u32, usize>, topic: usize, partition: i32) -> Option<usize> {
    let id = id(topic, u32::try_from(partition).ok()?)?;
    index.get(&id).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_the_position_itself_counts() {
        let text = "Partition log truncation detected at offset 20953 (leader epoch 0): broker end offset is 13989 (offset leader \
                    epoch 0). Reset to INVALID.: Local: Partition log truncation detected (broker 1)";
        assert!(is_cut_off_at(20_953, text));
        assert!(
            !is_cut_off_at(20_952, text),
            "behind the end of a paused partition"
        );
        assert!(!is_cut_off_at(
            20_953,
            "fetch failed due to requested offset not available at offset 20953 "
        ));
    }
}
