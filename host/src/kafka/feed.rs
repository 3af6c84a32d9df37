//! Fills a topic of the embedded broker no faster than it is read, so that nothing is dropped unread.
//!
//! The embedded broker forgets what exceeds 5 MiB a partition. The feed counts what it has written and what the slowest
//! reader has not taken yet, and waits while any partition holds more than [`UNREAD_BYTES_MAX`] of that.
//!
//! Invariant: bytes unread in a partition plus bytes under way never exceed the limit by more than one record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::producer::TopicProducer;
use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;

/// Unread bytes of a partition at which the feed waits; what the broker adds a record is left room for.
pub const UNREAD_BYTES_MAX: u64 = 3 << 20;
/// Offsets are remembered in pieces of this size.
const PIECE_BYTES: u64 = 64 << 10;
/// How often the readers' positions are looked at while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The next offset that the slowest reader of a partition wants; 0 if none has begun.
pub type Consumed = Box<dyn Fn(u32) -> i64 + Send + Sync>;

/// Writes one topic of the embedded broker.
pub struct GeneratorFeed {
    producer: TopicProducer,
    unread: Arc<Tally>,
    consumed: Consumed,
}

#[derive(Default)]
struct Tally {
    unread: Mutex<Unread>,
    changed: Condvar,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl GeneratorFeed {
    pub fn open(
        cluster: &Cluster,
        topic: &str,
        consumed: Consumed,
    ) -> Result<Self, ConnectorError> {
        let unread = Arc::new(Tally::default());
        let tally = unread.clone();
        let on_written = Box::new(move |partition, offset, bytes: usize| {
            tally.lock().written(partition, offset, bytes as u64);
            tally.changed.notify_all();
        });
        Ok(Self {
            producer: TopicProducer::open_with("generator", cluster, topic, Some(on_written))?,
            unread,
            consumed,
        })
    }

    /// Writes a record, after waiting until there is room. [`ConnectorError::Stopped`] if `stop` says true meanwhile.
    pub fn send(
        &self,
        key: Option<&[u8]>,
        payload: &[u8],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ConnectorError> {
        let bytes = (payload.len() + key.map_or(0, <[u8]>::len)) as u64;
        let mut unread = self.unread.lock();
        while !unread.has_room() {
            unread.read_up_to(&self.consumed);
            if unread.has_room() {
                break;
            }
            if stop() {
                return Err(ConnectorError::Stopped {
                    place: format!("room in topic {}", self.producer.topic()),
                });
            }
            let waited = self.unread.changed.wait_timeout(unread, LOOK_AGAIN);
            unread = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        unread.under_way += bytes;
        drop(unread);
        self.producer.send(key, payload)
    }

    /// Returns when everything sent is acknowledged.
    pub fn finish(&self) -> Result<(), ConnectorError> {
        self.producer.sync(self.producer.barrier())
    }

    /// Ends all waiting for the broker, now and later.
    pub fn stop(&self) {
        self.producer.stop();
    }
}

/// What was written and not read yet.
#[derive(Debug, Default)]
struct Unread {
    partitions: BTreeMap<u32, Pieces>,
    /// Sent and not acknowledged: may come to lie in any partition.
    under_way: u64,
}

#[derive(Debug, Default)]
struct Pieces {
    bytes: u64,
    /// Last offset and bytes of each piece, ascending.
    pieces: VecDeque<(i64, u64)>,
}

impl Unread {
    fn has_room(&self) -> bool {
        let fullest = self.partitions.values().map(|p| p.bytes).max().unwrap_or(0);
        fullest + self.under_way < UNREAD_BYTES_MAX
    }

    fn written(&mut self, partition: u32, offset: i64, bytes: u64) {
        self.under_way = self.under_way.saturating_sub(bytes);
        let partition = self.partitions.entry(partition).or_default();
        partition.bytes += bytes;
        match partition.pieces.back_mut() {
            Some((last, size)) if *size < PIECE_BYTES => {
                *last = offset.max(*last);
                *size += bytes;
            }
            _ => partition.pieces.push_back((offset, bytes)),
        }
    }

    fn read_up_to(&mut self, consumed: &dyn Fn(u32) -> i64) {
        for (&id, partition) in &mut self.partitions {
            let next = consumed(id);
            while let Some(&(last, bytes)) = partition.pieces.front()
                && last < next
            {
                partition.bytes -= bytes;
                partition.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_slowest_partition_leaves() {
        let mut unread = Unread::default();
        let record = 1 << 10;
        let mut offset = 0;
        while unread.has_room() {
            unread.under_way += record;
            unread.written(7, offset, record);
            offset += 1;
        }
        assert_eq!(offset as u64, UNREAD_BYTES_MAX / record);
        unread.read_up_to(&|_| 10);
        assert!(!unread.has_room(), "a piece counts until it is read whole");
        unread.read_up_to(&|partition| if partition == 7 { 64 } else { 0 });
        assert!(unread.has_room());
        unread.read_up_to(&|_| offset);
        assert_eq!(unread.partitions[&7].bytes, 0);
        assert!(unread.partitions[&7].pieces.is_empty());
    }

    #[test]
    fn what_is_under_way_counts_for_every_partition() {
        let mut unread = Unread::default();
        unread.under_way = UNREAD_BYTES_MAX;
        assert!(!unread.has_room());
        unread.written(0, 0, UNREAD_BYTES_MAX / 2);
        assert!(!unread.has_room());
        unread.written(1, 0, UNREAD_BYTES_MAX / 2);
        assert!(unread.has_room());
    }
}
