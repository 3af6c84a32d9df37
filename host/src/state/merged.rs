//! `state.redb`: the merged state, one B-tree of all steps' keys, one of their times and one of their segments.
//!
//! Behind the log by design: the state of a checkpoint is this file with the log's later changes on top. Invariants: it
//! holds nothing of an undecided checkpoint; all of the checkpoints below `merged_below` and, while a merge is under
//! way, some of later ones, whose changes are then still in the log.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::Path;

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::Changes;
use super::file::{Fault, OpenFile, RedbFile, plain};
use super::log::{Decided, Identity, get_number, put_meta, write_identity};
use super::timers::{self, Moves, TIMERS};
use crate::limits::STATE_CACHE_BYTES;

/// `step u16 BE | group u16 BE | key` -> value.
const STATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state");
/// (step, segment) -> bytes.
const SEGMENTS: TableDefinition<(u16, u128), &[u8]> = TableDefinition::new("segments");
/// (step, group) -> keys.
const COUNTS: TableDefinition<(u16, u16), u64> = TableDefinition::new("counts");

/// Bytes of step and group in front of a key.
pub(super) const PREFIX: usize = 4;

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
            tx.open_table(TIMERS)?;
            tx.open_table(SEGMENTS)?;
            tx.open_table(COUNTS)?;
            write_identity(tx, identity)
        };
        let file = RedbFile::open(path, STATE_CACHE_BYTES, open_file, first)?;
        Ok(Self { file })
    }

    pub fn read(&self) -> Result<ReadTransaction, Fault> {
        self.file.read()
    }

    /// As of [`RedbFile::failed`].
    pub fn failed(&self) -> Option<&str> {
        self.file.failed()
    }

    /// Gives the copied file at `path` another state id.
    pub fn rename(path: &Path, id: &[u8; 16]) -> Result<(), Fault> {
        let never = |_: &WriteTransaction| Err(Fault("there is no state".into()));
        let file = RedbFile::open(path, STATE_CACHE_BYTES, &plain, never)?;
        file.write(|tx| put_meta(tx, "state_id", id))
    }

    /// Writes a slice of one step's changes, with their times. Doing it again changes nothing.
    pub fn apply(&self, step: u16, changes: &Changes) -> Result<(), Fault> {
        self.file.write(|tx| {
            let mut state = tx.open_table(STATE)?;
            let mut moves = Moves::default();
            let mut grown: BTreeMap<u16, i64> = BTreeMap::new();
            let mut key = Vec::new();
            for change in changes.iter() {
                key.clear();
                key.extend_from_slice(&prefix(step, change.group).to_be_bytes());
                key.extend_from_slice(change.key);
                let before = match change.value {
                    Some(value) => state.insert(key.as_slice(), value)?,
                    None => state.remove(key.as_slice())?,
                };
                *grown.entry(change.group).or_default() +=
                    i64::from(change.value.is_some()) - i64::from(before.is_some());
                let times = |value: Option<&[u8]>| value.map(timers::times).transpose();
                let before = times(before.as_ref().map(|b| b.value()))?.unwrap_or_default();
                let after = times(change.value)?.unwrap_or_default();
                moves.note((step, change.group, change.key), before, after);
            }
            moves.apply(tx)?;
            count_up(tx, step, &grown)
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
                timers::drop_step(tx, step)?;
                let mut counts = tx.open_table(COUNTS)?;
                counts.retain_in((step, 0)..=(step, u16::MAX), |_, _| false)?;
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

/// Keys of a step in the key groups `groups`, ascending, those behind `after` (group and key) if it is given.
pub(super) fn range_after(
    tx: &ReadTransaction,
    step: u16,
    groups: Range<u16>,
    after: Option<(u16, &[u8])>,
) -> Result<Rows<&'static [u8]>, Fault> {
    let Some((group, key)) = after else {
        return range(tx, step, groups);
    };
    let table: ReadOnlyTable<&[u8], &[u8]> = tx.open_table(STATE)?;
    let [_, to] = bounds(step, groups);
    let after = [&prefix(step, group).to_be_bytes(), key].concat();
    let from = Bound::Excluded(after.as_slice());
    Ok(table.range::<&[u8]>((from, Bound::Excluded(to.as_slice())))?)
}

/// The values of `keys` (group and key) of a step, in their order.
pub(super) fn get(
    tx: &ReadTransaction,
    step: u16,
    keys: &[(u16, &[u8])],
    each: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let table: ReadOnlyTable<&[u8], &[u8]> = tx.open_table(STATE)?;
    let mut whole = Vec::new();
    for (place, (group, key)) in keys.iter().enumerate() {
        whole.clear();
        whole.extend_from_slice(&prefix(step, *group).to_be_bytes());
        whole.extend_from_slice(key);
        let value = table.get(whole.as_slice())?;
        each(place, value.as_ref().map(|v| v.value()))?;
    }
    Ok(())
}

/// Keys of a step in the key groups `groups`.
pub(super) fn count(tx: &ReadTransaction, step: u16, groups: &Range<u16>) -> Result<u64, Fault> {
    let rows = tx.open_table(COUNTS)?;
    let rows = rows.range((step, groups.start)..(step, groups.end))?;
    rows.map(|row| Ok(row?.1.value())).sum()
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

fn count_up(tx: &WriteTransaction, step: u16, grown: &BTreeMap<u16, i64>) -> Result<(), Fault> {
    let mut counts = tx.open_table(COUNTS)?;
    for (&group, &more) in grown.iter().filter(|(_, more)| **more != 0) {
        let before = counts.get((step, group))?.map_or(0, |row| row.value());
        counts.insert((step, group), before.saturating_add_signed(more))?;
    }
    Ok(())
}

fn prefix(step: u16, group: u16) -> u32 {
    (u32::from(step) << 16) | u32::from(group)
}

fn bounds(step: u16, groups: Range<u16>) -> [[u8; 4]; 2] {
    [groups.start, groups.end].map(|group| prefix(step, group).to_be_bytes())
}
