//! One partition as a reader stands in it.
//!
//! Invariant: `next` only grows, and every record at or above it is handed over once.

use super::topics::split;
use crate::source::{About, Partition, Position, Record};

pub(super) struct Part {
    pub id: u32,
    pub next: i64,
    pub end: Option<i64>,
    /// librdkafka has reported the end at `next`.
    pub at_end: bool,
    /// Left unread for now.
    pub held: bool,
    pub stopped: bool,
    /// The broker says that it may not be read.
    pub denied: bool,
}

/// A partition before its first record.
pub(super) fn part(partition: &Partition) -> Part {
    let next = partition.start.offset;
    Part {
        id: partition.id,
        next,
        end: partition.end,
        at_end: false,
        held: false,
        denied: false,
        // Finished before it began: never assigned.
        stopped: partition.end.is_some_and(|end| next >= end),
    }
}

impl Part {
    /// A bounded run has read it to its end.
    pub fn finished(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    /// Index of its topic.
    pub fn topic(&self) -> usize {
        split(self.id).0
    }

    /// The number in the topic.
    pub fn partition(&self) -> i32 {
        split(self.id).1
    }

    /// Hands over a record, unless it was before or is beyond the end.
    pub fn take(
        &mut self,
        offset: i64,
        value: Option<&[u8]>,
        about: About<'_>,
        each: &mut dyn FnMut(Record<'_>),
    ) {
        self.at_end = false;
        if self.end.is_some_and(|end| offset >= end) {
            // Beyond the end: whatever was before it has been read.
            self.next = self.next.max(self.end.unwrap_or(offset));
            return;
        }
        if offset < self.next {
            // A fetch after a reconnect may begin in the middle of a batch of the broker.
            return;
        }
        self.next = offset + 1;
        each(Record {
            partition: self.id,
            number: offset,
            next: Position {
                offset: offset + 1,
                record: offset + 1,
            },
            value,
            about,
        });
    }
}
