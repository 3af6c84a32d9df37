//! The index of times in `state.redb`: which key is to be looked at next, without a look at all keys.
//!
//! Kept by the merge alone, in the transactions that write the keys. Invariant: an entry is there exactly if the key's
//! value in the same file has that time.

use std::ops::Bound;

use redb::{ReadTransaction, TableDefinition, WriteTransaction};

use super::file::Fault;
use super::value::Value;
use crate::time::Micros;

/// `step u16 BE | kind u8 | time i64 BE, sign flipped | key` -> key group.
pub(super) const TIMERS: TableDefinition<&[u8], u16> = TableDefinition::new("timers");

/// Bytes in front of the time.
const PREFIX: usize = 3;
const HEADER: usize = PREFIX + 8;

/// What a time of a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The key wants to be called.
    Alarm = 0,
    /// The key is forgotten.
    Expiry = 1,
}

const KINDS: [Timer; 2] = [Timer::Alarm, Timer::Expiry];

/// The times of one value, by kind, as the index has them.
pub(super) type Times = [Option<Micros>; 2];

pub(super) fn times(value: &[u8]) -> Result<Times, Fault> {
    let value = Value::read(value).map_err(Fault)?;
    Ok([value.alarm, value.expiry.map(|e| e.indexed())])
}

/// Whether a value has a time, without a look whether it is whole.
pub(super) fn may_have_times(value: &[u8]) -> bool {
    value.first().is_some_and(|flags| flags & !1 != 0)
}

/// Changes of the index, collected while the keys of a slice are written.
#[derive(Debug, Default)]
pub(super) struct Moves {
    gone: Vec<Vec<u8>>,
    come: Vec<(Vec<u8>, u16)>,
}

impl Moves {
    /// A key's times were `before` and are `after`.
    pub fn note(&mut self, (step, group, key): (u16, u16, &[u8]), before: Times, after: Times) {
        for (kind, (before, after)) in KINDS.into_iter().zip(before.into_iter().zip(after)) {
            if before == after {
                continue;
            }
            let entry = |time| entry(step, kind, time, key);
            self.gone.extend(before.map(entry));
            self.come.extend(after.map(|time| (entry(time), group)));
        }
    }

    /// Writes them in the order of the B-tree, so that each of its pages is written once.
    pub fn apply(mut self, tx: &WriteTransaction) -> Result<(), Fault> {
        let mut table = tx.open_table(TIMERS)?;
        self.gone.sort_unstable();
        self.come.sort_unstable();
        for entry in &self.gone {
            table.remove(entry.as_slice())?;
        }
        for (entry, group) in &self.come {
            table.insert(entry.as_slice(), *group)?;
        }
        Ok(())
    }
}

/// Forgets all times of a step.
pub(super) fn drop_step(tx: &WriteTransaction, step: u16) -> Result<(), Fault> {
    let mut table = tx.open_table(TIMERS)?;
    let (from, to) = (step.to_be_bytes(), step.saturating_add(1).to_be_bytes());
    table.retain_in(from.as_slice()..to.as_slice(), |_, _| false)?;
    Ok(())
}

/// Gives the times of a step that are behind `after` and at or before `until`, ascending by time and key, with their key
/// groups, until `each` says that it is enough. True: there may be more.
pub(super) fn scan(
    tx: &ReadTransaction,
    (step, kind): (u16, Timer),
    after: Option<(Micros, &[u8])>,
    until: Micros,
    each: &mut dyn FnMut(Micros, u16, &[u8]) -> bool,
) -> Result<bool, Fault> {
    let table = tx.open_table(TIMERS)?;
    let after = after.map(|(time, key)| entry(step, kind, time, key));
    let first = entry(step, kind, Micros::MIN, &[]);
    // The next time is behind all keys of `until`; behind the last time comes the next kind.
    let end = match until.checked_add(1) {
        Some(next) => entry(step, kind, next, &[]),
        None => [&step.to_be_bytes()[..], &[kind as u8 + 1]].concat(),
    };
    let from = match &after {
        Some(after) => Bound::Excluded(after.as_slice()),
        None => Bound::Included(first.as_slice()),
    };
    if after.as_ref().is_some_and(|after| *after >= end) {
        return Ok(false);
    }
    for row in table.range::<&[u8]>((from, Bound::Excluded(end.as_slice())))? {
        let (key, group) = row?;
        let (header, key) = (key.value().split_first_chunk::<HEADER>())
            .ok_or_else(|| Fault("an entry of the index of times is malformed".into()))?;
        let time = u64::from_be_bytes(header[PREFIX..].try_into().expect("8 bytes"));
        if !each((time ^ (1 << 63)) as Micros, group.value(), key) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn entry(step: u16, kind: Timer, time: Micros, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + key.len());
    bytes.extend_from_slice(&step.to_be_bytes());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&((time as u64) ^ (1 << 63)).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_order_as_step_kind_time_and_key() {
        let golden: &[u8] = &[1, 2, 1, 127, 255, 255, 255, 255, 255, 255, 254, b'k'];
        assert_eq!(entry(258, Timer::Expiry, -2, b"k"), golden);
        let ascending = [
            entry(1, Timer::Alarm, Micros::MIN, b""),
            entry(1, Timer::Alarm, -1, b"z"),
            entry(1, Timer::Alarm, 0, b"a"),
            entry(1, Timer::Alarm, 0, b"b"),
            entry(1, Timer::Alarm, Micros::MAX, b"a"),
            entry(1, Timer::Expiry, -5, b"a"),
            entry(2, Timer::Alarm, -9, b"a"),
        ];
        assert!(ascending.is_sorted());
    }

    #[test]
    fn a_time_that_stays_is_not_moved() {
        let mut moves = Moves::default();
        moves.note((1, 2, b"k"), [Some(5), Some(7)], [Some(5), Some(8)]);
        moves.note((1, 2, b"l"), [None, None], [None, None]);
        assert_eq!(moves.gone, [entry(1, Timer::Expiry, 7, b"k")]);
        assert_eq!(moves.come, [(entry(1, Timer::Expiry, 8, b"k"), 2)]);
    }
}
