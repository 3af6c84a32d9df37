//! Reads one step's changes of many checkpoints as one: ascending keys, each with its newest value.
//!
//! Invariant: the checkpoints given are decided. Memory: one blob a checkpoint.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

use redb::{ReadOnlyTable, ReadTransaction};

use super::blob;
use super::file::Fault;
use super::log::CHANGES;

type ChangesTable = ReadOnlyTable<(u64, u16, u32), &'static [u8]>;

/// A cursor over the newest change of each key. Starts before the first: call [`advance`](Self::advance).
pub(super) struct Newest {
    runs: BinaryHeap<Run>,
    key: Vec<u8>,
    value: Vec<u8>,
    deleted: bool,
}

impl Newest {
    /// Changes of `step` in the checkpoints `numbers`.
    pub fn open(log: &ReadTransaction, numbers: &[u64], step: u16) -> Result<Self, Fault> {
        let changes = log.open_table(CHANGES)?;
        let mut runs = BinaryHeap::new();
        for &number in numbers {
            runs.extend(Run::open(&changes, number, step)?);
        }
        Ok(Self {
            runs,
            key: Vec::new(),
            value: Vec::new(),
            deleted: false,
        })
    }

    /// Goes to the next key; false if there is none.
    pub fn advance(&mut self) -> Result<bool, Fault> {
        let Some(newest) = self.runs.peek_mut() else {
            return Ok(false);
        };
        self.key.clear();
        self.key.extend_from_slice(newest.key());
        self.value.clear();
        self.value
            .extend_from_slice(newest.value().unwrap_or_default());
        self.deleted = newest.value().is_none();
        advance_run(newest)?;
        while let Some(older) = self.runs.peek_mut().filter(|run| run.key() == self.key) {
            advance_run(older)?;
        }
        Ok(true)
    }

    /// `group u16 BE | key`.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// `None`: the key is deleted.
    pub fn value(&self) -> Option<&[u8]> {
        (!self.deleted).then_some(&self.value)
    }
}

fn advance_run(mut run: PeekMut<'_, Run>) -> Result<(), Fault> {
    if !run.advance()? {
        PeekMut::pop(run);
    }
    Ok(())
}

/// The changes of one checkpoint, at one of them.
struct Run {
    number: u64,
    blobs: redb::Range<'static, (u64, u16, u32), &'static [u8]>,
    blob: Vec<u8>,
    next: usize,
    key: Range<usize>,
    value: Option<Range<usize>>,
}

impl Run {
    /// At the first change; `None` if there is none.
    fn open(changes: &ChangesTable, number: u64, step: u16) -> Result<Option<Self>, Fault> {
        let mut run = Self {
            number,
            blobs: changes.range((number, step, 0)..=(number, step, u32::MAX))?,
            blob: Vec::new(),
            next: 0,
            key: 0..0,
            value: None,
        };
        Ok(run.advance()?.then_some(run))
    }

    fn advance(&mut self) -> Result<bool, Fault> {
        if self.next == self.blob.len() {
            // Where reading fails the run is still in its heap, and compared: it has to be whole then.
            (self.key, self.value) = (0..0, None);
            let Some(row) = self.blobs.next().transpose()? else {
                return Ok(false);
            };
            self.blob.clear();
            self.blob.extend_from_slice(row.1.value());
            self.next = 0;
        }
        let Some(((key, value), rest)) = blob::read(&self.blob[self.next..])? else {
            return Err(Fault("a blob of the log is empty".into()));
        };
        let value_len = value.map(<[u8]>::len);
        let end = self.blob.len() - rest.len();
        let value_start = end - value_len.unwrap_or(0);
        self.key = value_start - key.len()..value_start;
        self.value = value_len.map(|_| value_start..end);
        self.next = end;
        Ok(true)
    }

    fn key(&self) -> &[u8] {
        &self.blob[self.key.clone()]
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.clone().map(|range| &self.blob[range])
    }
}

/// The heap's greatest is the smallest key and, among equal keys, the newest checkpoint.
impl Ord for Run {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.key().cmp(self.key())).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Run {}
