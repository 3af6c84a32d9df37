//! `state.redb`: the merged state, one B-tree of all steps' keys and one of their segments.
//!
//! Behind the log by design: the state of a checkpoint is this file with the log's later changes on top. Invariants: it
//! holds nothing of an undecided checkpoint; all of the checkpoints below `merged_below` and, while a merge is under
//! way, some of later ones, whose changes are then still in the log.

use std::ops::Range;
use std::path::Path;

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::Changes;
use super::file::{Fault, OpenFile, RedbFile, plain};
use super::log::{Decided, Identity, get_number, put_meta, write_identity};
use crate::limits::STATE_CACHE_BYTES;

/// `step u16 BE | group u16 BE | key` -> value.
const STATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state");
/// (step, segment) -> bytes.
const SEGMENTS: TableDefinition<(u16, u128), &[u8]> = TableDefinition::new("segments");

pub(super) type Rows<K> = redb::Range<'static, K, &'static [u8]>;

/// (step, segment), and its bytes unless it was dropped.
pub(super) type SegmentChange = ((u16, u128), Option<Vec<u8>>);

#[derive(Debug)]
pub(super) struct Merged {
    file: RedbFile,
}

impl Merged {
    /// Opens the merged state, or makes an empty one for `identity`.
    pub fn open(path: &Path, open_file: &OpenFile, identity: &Identity) -> Result<Self, Fault> {
        let first = |tx: &WriteTransaction| {
            tx.open_table(STATE)?;
            tx.open_table(SEGMENTS)?;
            write_identity(tx, identity)
        };
        let file = RedbFile::open(path, STATE_CACHE_BYTES, open_file, first)?;
        Ok(Self { file })
    }

    pub fn read(&self) -> Result<ReadTransaction, Fault> {
        self.file.read()
    }

    /// Gives the copied file at `path` another state id.
    pub fn rename(path: &Path, id: &[u8; 16]) -> Result<(), Fault> {
        let never = |_: &WriteTransaction| Err(Fault("there is no state".into()));
        let file = RedbFile::open(path, STATE_CACHE_BYTES, &plain, never)?;
        file.write(|tx| put_meta(tx, "state_id", id))
    }

    /// Writes a slice of one step's changes. Doing it again changes nothing.
    pub fn apply(&self, step: u16, changes: &Changes) -> Result<(), Fault> {
        self.file.write(|tx| {
            let mut state = tx.open_table(STATE)?;
            let mut key = Vec::new();
            for change in changes.iter() {
                key.clear();
                key.extend_from_slice(&prefix(step, change.group).to_be_bytes());
                key.extend_from_slice(change.key);
                match change.value {
                    Some(value) => drop(state.insert(key.as_slice(), value)?),
                    None => drop(state.remove(key.as_slice())?),
                }
            }
            Ok(())
        })
    }

    /// Writes segments; `None` drops one. Doing it again changes nothing.
    pub fn apply_segments(&self, segments: &[SegmentChange]) -> Result<(), Fault> {
        self.file.write(|tx| {
            let mut table = tx.open_table(SEGMENTS)?;
            for (id, bytes) in segments {
                match bytes {
                    Some(bytes) => drop(table.insert(*id, bytes.as_slice())?),
                    None => drop(table.remove(*id)?),
                }
            }
            Ok(())
        })
    }

    /// All changes up to and with `merged` are in; what dropped steps left goes.
    pub fn finish(&self, merged: Decided, dropped_steps: &[u16]) -> Result<(), Fault> {
        self.file.write(|tx| {
            let mut state = tx.open_table(STATE)?;
            let mut segments = tx.open_table(SEGMENTS)?;
            for &step in dropped_steps {
                let [from, to] = bounds(step, 0..u16::MAX);
                state.retain_in(from.as_slice()..to.as_slice(), |_, _| false)?;
                segments.retain_in((step, 0)..=(step, u128::MAX), |_, _| false)?;
            }
            put_meta(tx, "merged_below", &(merged.number() + 1).to_le_bytes())
        })
    }
}

/// Checkpoints below this one are merged.
pub(super) fn merged_below(tx: &ReadTransaction) -> Result<u64, Fault> {
    get_number(tx, "merged_below")
}

/// Keys of all steps.
pub(super) fn entries(tx: &ReadTransaction) -> Result<u64, Fault> {
    Ok(tx.open_table(STATE)?.len()?)
}

/// Keys of a step in the key groups `groups`, ascending.
pub(super) fn range(
    tx: &ReadTransaction,
    step: u16,
    groups: Range<u16>,
) -> Result<Rows<&'static [u8]>, Fault> {
    let table: ReadOnlyTable<&[u8], &[u8]> = tx.open_table(STATE)?;
    let [from, to] = bounds(step, groups);
    Ok(table.range(from.as_slice()..to.as_slice())?)
}

/// Segments of a step, ascending.
pub(super) fn segments(tx: &ReadTransaction, step: u16) -> Result<Rows<(u16, u128)>, Fault> {
    let table = tx.open_table(SEGMENTS)?;
    Ok(table.range((step, 0)..=(step, u128::MAX))?)
}

pub(super) fn segment_table(
    tx: &ReadTransaction,
) -> Result<ReadOnlyTable<(u16, u128), &'static [u8]>, Fault> {
    Ok(tx.open_table(SEGMENTS)?)
}

fn prefix(step: u16, group: u16) -> u32 {
    (u32::from(step) << 16) | u32::from(group)
}

fn bounds(step: u16, groups: Range<u16>) -> [[u8; 4]; 2] {
    [groups.start, groups.end].map(|group| prefix(step, group).to_be_bytes())
}
