//! Where records come from: the seam between the engine and files, generators and Kafka.
//!
//! A source has partitions; a worker reads some of them through one [`Reader`]. A source keeps no position that matters:
//! the engine's checkpoint says where to go on.

pub mod file;
pub mod generate;
mod loss;
pub mod parquet;
mod records;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::format::parquet::Piece;

pub use crate::format::parts::About;
pub use loss::Lost;

/// Where reading of a partition goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Kafka: the next offset. File: the next byte. Generator: the next index.
    pub offset: i64,
    /// File: lines before `offset` (the header counts, and each line of a CSV record of several), so that line numbers
    /// survive a restart. Elsewhere equal to `offset`.
    pub record: i64,
}

/// A partition as found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub id: u32,
    pub start: Position,
    /// The `offset` at which a bounded run stops reading it; `None` if the run is not bounded.
    pub end: Option<i64>,
}

/// One record, borrowed from the reader until the next.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub partition: u32,
    /// What a dead letter names: Kafka offset, 1-based line number, generator index.
    pub number: i64,
    /// Where reading goes on after this record.
    pub next: Position,
    /// Kafka tombstones have none. A file's record that is longer than [`crate::limits::RECORD_BYTES_MAX`] is cut off
    /// one byte beyond that, which no decoder accepts.
    pub value: Option<&'a [u8]>,
    pub about: About<'a>,
}

/// How far a partition has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub partition: u32,
    pub next: Position,
    /// Nothing is left to read for now (position = end offset). A partition that is paused or rate limited with records
    /// left is not caught up.
    pub caught_up: bool,
    /// A bounded run has read it to its end.
    pub finished: bool,
    /// Records (Kafka, generator) or bytes (file) left, where known.
    pub lag: Option<u64>,
}

/// A source of a pipeline, opened once.
pub trait Source: Send + Sync {
    /// The partitions and where each begins: `resume` wins, then the start rule of the pipeline file. With `bounded`
    /// each gets its end as it is now, but `ends` (of an earlier bounded start) wins. Waits, with backoff, for a broker
    /// that is not there, until `stop` says true.
    fn partitions(
        &self,
        resume: &BTreeMap<u32, Position>,
        ends: &BTreeMap<u32, i64>,
        bounded: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Partition>, ConnectorError>;

    /// A reader of some of the partitions, used by one thread.
    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError>;

    /// The first record of a format that has a header (CSV), known once [`partitions`](Self::partitions) has returned.
    fn header(&self) -> Option<Vec<u8>> {
        None
    }

    /// Its readers have columns instead of records: [`Reader::poll_columns`].
    fn columnar(&self) -> bool {
        false
    }

    /// What the `position` of a dead letter says, for example `{ "topic": .., "partition": .., "offset": .. }`.
    fn describe(&self, partition: u32, number: i64) -> serde_json::Value;

    /// Names that the ids of partitions are made of, in the order in which they got their numbers; known once
    /// [`partitions`](Self::partitions) has returned, and kept in the state.
    fn topics(&self) -> Vec<String> {
        Vec::new()
    }

    /// What tells each of the topics from another of its name, where known; once [`partitions`](Self::partitions) has
    /// returned, and kept in the state.
    fn topic_ids(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The [`topics`](Self::topics) and [`topic_ids`](Self::topic_ids) of the state that is gone on from; before
    /// [`partitions`](Self::partitions).
    fn recall(&self, _topics: &[String], _ids: &BTreeMap<String, String>) {}

    /// What [`partitions`](Self::partitions) had to leave out because it is gone, by partition.
    fn losses(&self) -> BTreeMap<u32, Lost> {
        BTreeMap::new()
    }

    /// Called when all records of a checkpoint are read, before it becomes durable, and now and then between two.
    ///
    /// # Errors
    /// [`ConnectorError::Changed`] if they may be records of something else than the source began with.
    fn verify(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// There is more to read than [`partitions`](Self::partitions) has found: what. It is read once the source is opened
    /// again, so the run ends at its next checkpoint. Asked in every epoch.
    fn grown(&self) -> Option<String> {
        None
    }

    /// Why nothing can be read for now, if the source knows.
    fn waiting(&self) -> Option<String> {
        None
    }

    /// A checkpoint with these positions is decided. Kafka commits group offsets here, for lag monitors only.
    fn decided(&self, _positions: &BTreeMap<u32, Position>) {}
}

/// Reads the partitions of one worker.
pub trait Reader: Send {
    /// Hands over up to `max` records in partition order, waiting at most `wait` for the first. Returns early rather
    /// than wait when it has some. `each` sees every record once.
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), ConnectorError>;

    /// As [`poll`](Self::poll), for a source of columns: hands over up to `max` rows in sequence, each piece with its
    /// partition, and does not wait.
    fn poll_columns(
        &mut self,
        _max: usize,
        _each: &mut dyn FnMut(u32, Piece),
    ) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// From now on leaves exactly these partitions unread; they are not caught up because of it.
    fn pause(&mut self, partitions: &[u32]);

    /// One entry a partition, true after the last `poll`.
    fn progress(&self) -> Vec<Progress>;
}
