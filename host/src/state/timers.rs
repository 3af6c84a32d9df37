//! The index of times in `state.redb`: which key is to be looked at next, without a look at all keys.
//!
//! Kept by the merge alone, in the transactions that write the keys, and by key group before time: a merge goes from group
//! to group, and rewrites the pages of a group once instead of all pages with each slice. Invariant: an entry is there
//! exactly if the key's value in the same file has that time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::{Bound, Range};

use redb::{ReadOnlyTable, ReadTransaction, TableDefinition, WriteTransaction};

use super::file::Fault;
use super::value::Value;
use crate::time::Micros;

/// `step u16 BE | kind u8 | key group u16 BE | time i64 BE, sign flipped | key`.
pub(super) const TIMERS: TableDefinition<&[u8], ()> = TableDefinition::new("timers");

/// Bytes in front of the time.
const PREFIX: usize = 5;
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

/// Changes of the index, collected while the keys of a slice are written.
#[derive(Debug, Default)]
pub(super) struct Moves {
    gone: Vec<Vec<u8>>,
    come: Vec<Vec<u8>>,
}

impl Moves {
    /// A key's times were `before` and are `after`.
    pub fn note(&mut self, (step, group, key): (u16, u16, &[u8]), before: Times, after: Times) {
        for (kind, (before, after)) in KINDS.into_iter().zip(before.into_iter().zip(after)) {
            if before == after {
                continue;
            }
            let entry = |time| entry((step, kind, group), time, key);
            self.gone.extend(before.map(entry));
            self.come.extend(after.map(entry));
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
        for entry in &self.come {
            table.insert(entry.as_slice(), ())?;
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

/// A place among the times of a step: behind this time and key.
pub(super) type After<'a> = Option<(Micros, &'a [u8])>;

/// The times of one key group, at one of them.
struct Group {
    rows: redb::Range<'static, &'static [u8], ()>,
    /// Time and key.
    head: (Micros, Vec<u8>),
    number: u16,
}

/// Gives the times of a step that are behind `after` and at or before `until`, ascending by time and key, until `each` says
/// that it is enough. `groups` are those to look at. Returns the time that comes next in each of them.
pub(super) fn scan(
    tx: &ReadTransaction,
    (step, kind): (u16, Timer),
    groups: &mut dyn Iterator<Item = u16>,
    (after, until): (After<'_>, Micros),
    each: &mut dyn FnMut(Micros, &[u8]) -> bool,
) -> Result<Vec<(u16, Micros)>, Fault> {
    let table = tx.open_table(TIMERS)?;
    let mut nexts = Vec::new();
    let mut heap = BinaryHeap::new();
    for number in groups {
        match Group::open(&table, (step, kind, number), after)? {
            Some(group) if group.head.0 <= until => heap.push(group),
            later => nexts.push((number, later.map_or(Micros::MAX, |g| g.head.0))),
        }
    }
    while let Some(mut first) = heap.peek_mut() {
        let (time, key) = &first.head;
        if !each(*time, key) {
            break;
        }
        let number = first.number;
        let more = first.advance()?;
        if !more || first.head.0 > until {
            let head = PeekMut::pop(first).head.0;
            nexts.push((number, if more { head } else { Micros::MAX }));
        }
    }
    nexts.extend(heap.iter().map(|group| (group.number, group.head.0)));
    Ok(nexts)
}

impl Group {
    /// At the first time behind `after`; `None` if there is none.
    fn open(
        table: &ReadOnlyTable<&'static [u8], ()>,
        place: (u16, Timer, u16),
        after: After<'_>,
    ) -> Result<Option<Self>, Fault> {
        let from = after.map(|(time, key)| entry(place, time, key));
        let first = entry(place, Micros::MIN, &[]);
        let from = match &from {
            Some(from) => Bound::Excluded(from.as_slice()),
            None => Bound::Included(first.as_slice()),
        };
        // Every time of the group begins so, and no flipped time is above.
        let end = [&first[..PREFIX], &[u8::MAX; 9]].concat();
        let mut group = Self {
            rows: table.range::<&[u8]>((from, Bound::Excluded(end.as_slice())))?,
            head: (0, Vec::new()),
            number: place.2,
        };
        Ok(group.advance()?.then_some(group))
    }

    /// To the next time; false if there is none.
    fn advance(&mut self) -> Result<bool, Fault> {
        let Some(row) = self.rows.next() else {
            return Ok(false);
        };
        let row = row?.0;
        let (header, key) = (row.value().split_first_chunk::<HEADER>())
            .ok_or_else(|| Fault("an entry of the index of times is malformed".into()))?;
        let time = u64::from_be_bytes(header[PREFIX..].try_into().expect("8 bytes"));
        self.head.0 = (time ^ (1 << 63)) as Micros;
        self.head.1.clear();
        self.head.1.extend_from_slice(key);
        Ok(true)
    }
}

/// The heap's greatest has the earliest time, and among equal ones the smallest key.
impl Ord for Group {
    fn cmp(&self, other: &Self) -> Ordering {
        other.head.cmp(&self.head)
    }
}

impl PartialOrd for Group {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Group {}

fn entry((step, kind, group): (u16, Timer, u16), time: Micros, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + key.len());
    bytes.extend_from_slice(&step.to_be_bytes());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&group.to_be_bytes());
    bytes.extend_from_slice(&((time as u64) ^ (1 << 63)).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// What is known of the times that come next, so that groups where nothing is due are not looked at.
#[derive(Debug, Default)]
pub(super) struct Upcoming {
    /// By key group of the worker: no time behind `from` comes before.
    next: Vec<Micros>,
    from: Micros,
    /// What it was read from: checkpoints below this one.
    merged_below: u64,
}

impl Upcoming {
    /// Forgets what no longer holds: a merge brings new times; and it was looked at from `after` on.
    pub fn refresh(&mut self, groups: &Range<u16>, merged_below: u64, after: After<'_>) {
        let after = after.map_or(Micros::MIN, |(time, _)| time);
        if self.next.is_empty() || self.merged_below != merged_below || after < self.from {
            self.next = vec![Micros::MIN; groups.len()];
            self.merged_below = merged_below;
        }
        self.from = after;
    }

    /// The groups in which something may be due at `until`.
    pub fn due(&self, groups: &Range<u16>, until: Micros) -> Vec<u16> {
        let due = groups.clone().zip(&self.next);
        due.filter(|(_, next)| **next <= until)
            .map(|(group, _)| group)
            .collect()
    }

    pub fn learn(&mut self, groups: &Range<u16>, nexts: Vec<(u16, Micros)>) {
        for (group, next) in nexts {
            self.next[usize::from(group - groups.start)] = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_order_as_step_kind_group_time_and_key() {
        let golden: &[u8] = &[1, 2, 1, 0, 3, 127, 255, 255, 255, 255, 255, 255, 254, b'k'];
        assert_eq!(entry((258, Timer::Expiry, 3), -2, b"k"), golden);
        let ascending = [
            entry((1, Timer::Alarm, 0), Micros::MIN, b""),
            entry((1, Timer::Alarm, 0), -1, b"z"),
            entry((1, Timer::Alarm, 0), 0, b"a"),
            entry((1, Timer::Alarm, 0), 0, b"b"),
            entry((1, Timer::Alarm, 0), Micros::MAX, b"a"),
            entry((1, Timer::Alarm, 1), -7, b"a"),
            entry((1, Timer::Expiry, 0), -5, b"a"),
            entry((2, Timer::Alarm, 0), -9, b"a"),
        ];
        assert!(ascending.is_sorted());
    }

    #[test]
    fn a_time_that_stays_is_not_moved() {
        let mut moves = Moves::default();
        moves.note((1, 2, b"k"), [Some(5), Some(7)], [Some(5), Some(8)]);
        moves.note((1, 2, b"l"), [None, None], [None, None]);
        assert_eq!(moves.gone, [entry((1, Timer::Expiry, 2), 7, b"k")]);
        assert_eq!(moves.come, [entry((1, Timer::Expiry, 2), 8, b"k")]);
    }

    #[test]
    fn groups_without_due_times_are_left_out_until_the_next_merge() {
        let (groups, mut upcoming) = (4..7, Upcoming::default());
        upcoming.refresh(&groups, 1, None);
        assert_eq!(upcoming.due(&groups, 0), [4, 5, 6]);
        upcoming.learn(&groups, vec![(4, 10), (5, Micros::MAX), (6, 3)]);
        upcoming.refresh(&groups, 1, Some((0, b"k")));
        assert_eq!(upcoming.due(&groups, 3), [6]);
        assert_eq!(upcoming.due(&groups, 10), [4, 6]);
        upcoming.refresh(&groups, 2, Some((0, b"k")));
        assert_eq!(upcoming.due(&groups, 3), [4, 5, 6]);
    }
}
