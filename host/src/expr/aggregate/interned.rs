//! `count(distinct x)` of texts and bytes: a table holds the pairs of group and value.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::lists;
use super::partials::{Partials, allocated, each_row};

/// What the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelled {
    Text,
    Bytes,
}

pub(super) struct Interned {
    spelled: Spelled,
    /// Values come from outside: seeded anew in each process, so that nobody can choose them to collide.
    hasher: RandomState,
    /// Half of the hash of group and value, which is all of it that is used, and the number of the pair.
    numbers: HashTable<(u32, u32)>,
    /// By number: the group of a pair, and where its value ends among all values one after the other.
    groups: Vec<u32>,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    counts: Vec<i64>,
    unsettled: Unsettled,
}

/// Lists of stored values that their groups have not looked into: a list holds each value once, so as long as nothing
/// else comes to a group its length is enough.
#[derive(Default)]
struct Unsettled {
    lists: Vec<ArrayRef>,
    /// By group: list, and where its values start and end there; empty where there is none.
    of_group: Vec<(u32, u32, u32)>,
}

impl Unsettled {
    /// Remembers the values of a group that has none.
    fn put(&mut self, group: usize, list: usize, values: std::ops::Range<usize>) {
        if self.of_group.len() <= group {
            self.of_group.resize(group + 1, (0, 0, 0));
        }
        self.of_group[group] = (list as u32, values.start as u32, values.end as u32);
    }

    /// The values of a group, which are no longer here then.
    fn take(&mut self, group: usize) -> Option<(ArrayRef, std::ops::Range<usize>)> {
        let place = self.of_group.get_mut(group)?;
        let (list, start, end) = std::mem::take(place);
        let values = start as usize..end as usize;
        (!values.is_empty()).then(|| (self.lists[list as usize].clone(), values))
    }
}

impl Interned {
    pub fn new(spelled: Spelled) -> Self {
        Self {
            spelled,
            hasher: RandomState::default(),
            numbers: HashTable::new(),
            groups: Vec::new(),
            ends: Vec::new(),
            bytes: Vec::new(),
            counts: Vec::new(),
            unsettled: Unsettled::default(),
        }
    }

    fn value(bytes: &[u8], ends: &[usize], number: u32) -> std::ops::Range<usize> {
        let number = number as usize;
        debug_assert!(ends[number] <= bytes.len());
        number.checked_sub(1).map_or(0, |before| ends[before])..ends[number]
    }

    /// One probe a row: a table of values beside one of pairs would miss the cache twice.
    #[inline]
    fn insert(&mut self, group: usize, value: &[u8]) {
        let group = group as u32;
        let half = self.hasher.hash_one((group, value)) as u32;
        let (groups, ends, bytes) = (&self.groups, &self.ends, &self.bytes);
        let same = |&(other, number): &(u32, u32)| {
            other == half
                && groups[number as usize] == group
                && bytes[Self::value(bytes, ends, number)] == *value
        };
        if let Entry::Vacant(place) =
            (self.numbers).entry(spread(half), same, |&(half, _)| spread(half))
        {
            place.insert((half, self.ends.len() as u32));
            self.groups.push(group);
            self.bytes.extend_from_slice(value);
            self.ends.push(self.bytes.len());
            self.counts[group as usize] += 1;
        }
    }

    fn insert_all<'a>(
        &mut self,
        values: &'a ArrayRef,
        mut each: impl FnMut(&mut dyn FnMut(usize, usize)),
    ) {
        match self.spelled {
            Spelled::Text => {
                let texts: &'a StringArray = values.as_string();
                each(&mut |row, group| self.insert(group, texts.value(row).as_bytes()));
            }
            Spelled::Bytes => {
                let values: &'a BinaryArray = values.as_binary();
                each(&mut |row, group| self.insert(group, values.value(row)));
            }
        }
    }

    /// Takes the values of a group in that it has as a list.
    fn settle(&mut self, group: usize) {
        let Some((list, values)) = self.unsettled.take(group) else {
            return;
        };
        self.counts[group] = 0;
        let list = list.slice(values.start, values.len());
        self.insert_all(&list, |take| {
            (0..list.len()).for_each(|row| take(row, group))
        });
    }

    /// The values `numbers` as an array.
    fn values(&self, numbers: impl Iterator<Item = u32>) -> Result<ArrayRef, String> {
        let mut bytes = Vec::new();
        let mut ends = vec![0_i32];
        for number in numbers {
            bytes.extend_from_slice(&self.bytes[Self::value(&self.bytes, &self.ends, number)]);
            let end = i32::try_from(bytes.len())
                .map_err(|_| "the different values of all groups are more than 2 GiB")?;
            ends.push(end);
        }
        let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
        let values = BinaryArray::new(ends, Buffer::from_vec(bytes), None);
        Ok(match self.spelled {
            Spelled::Bytes => Arc::new(values),
            Spelled::Text => {
                Arc::new(StringArray::try_from_binary(values).expect("the values came from texts"))
            }
        })
    }

    /// Empty, with the room it had: as much comes again until the next checkpoint.
    fn clear(&mut self) {
        self.numbers.clear();
        self.groups.clear();
        self.ends.clear();
        self.bytes.clear();
        self.counts.clear();
        self.unsettled = Unsettled::default();
    }
}

/// A hash for a table of half a hash: a table uses the highest bits, too.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Partials for Interned {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.counts.resize(total, 0);
        if !self.unsettled.lists.is_empty() {
            groups.iter().for_each(|&group| self.settle(group));
        }
        let column = &values[0];
        self.insert_all(column, |take| {
            each_row(Some(column.as_ref()), filter, groups, take);
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.counts.resize(total, 0);
        let (values, ends) = lists::unpacked(&states[0])?;
        let list = self.unsettled.lists.len();
        self.unsettled.lists.push(values.clone());
        let mut start = 0;
        for (&end, &group) in ends.iter().zip(groups) {
            let range = std::mem::replace(&mut start, end)..end;
            if self.counts[group] == 0 {
                self.counts[group] = range.len() as i64;
                self.unsettled.put(group, list, range);
                continue;
            }
            self.settle(group);
            let more = values.slice(range.start, range.len());
            self.insert_all(&more, |take| {
                (0..more.len()).for_each(|row| take(row, group))
            });
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        (0..self.counts.len()).for_each(|group| self.settle(group));
        let groups = self.groups.iter().copied();
        let (order, offsets) = lists::by_group(groups, self.counts.len())?;
        let values = self.values(order.into_iter())?;
        self.clear();
        Ok(vec![lists::lists(values, offsets, None)])
    }

    fn evaluate(&mut self, _: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        let counts = std::mem::take(&mut self.counts);
        self.clear();
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn bytes(&self) -> usize {
        self.numbers.allocation_size()
            + allocated(&self.groups)
            + allocated(&self.bytes)
            + allocated(&self.ends)
            + allocated(&self.counts)
    }
}
