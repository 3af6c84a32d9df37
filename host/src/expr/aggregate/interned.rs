//! `count(distinct x)` of texts and bytes: each different value is kept once for all groups, and a table holds the pairs
//! of group and value.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use foldhash::fast::{FixedState, RandomState};
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
    /// Half of the hash, and the number of a value: most values that differ are told apart without a look at them.
    numbers: HashTable<(u32, u32)>,
    /// All values one after the other, in the order of their numbers, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Group and number of a value. The seed is fixed: the order of this table is that of the states.
    pairs: HashTable<(u32, u32)>,
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
            bytes: Vec::new(),
            ends: Vec::new(),
            pairs: HashTable::new(),
            counts: Vec::new(),
            unsettled: Unsettled::default(),
        }
    }

    fn value(bytes: &[u8], ends: &[usize], number: u32) -> std::ops::Range<usize> {
        let number = number as usize;
        debug_assert!(ends[number] <= bytes.len());
        number.checked_sub(1).map_or(0, |before| ends[before])..ends[number]
    }

    #[inline]
    fn insert(&mut self, group: usize, value: &[u8]) {
        let number = self.number(value);
        let pair = (group as u32, number);
        let hash = |pair: &(u32, u32)| FixedState::default().hash_one(pair);
        let place = self.pairs.entry(hash(&pair), |other| *other == pair, hash);
        if let Entry::Vacant(place) = place {
            place.insert(pair);
            self.counts[group] += 1;
        }
    }

    /// The number of `value`, a new one if it is new.
    #[inline]
    fn number(&mut self, value: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(value);
        let half = (hash >> 32) as u32;
        let (bytes, ends) = (&self.bytes, &self.ends);
        let place = self.numbers.entry(
            hash,
            |&(h, number)| h == half && bytes[Self::value(bytes, ends, number)] == *value,
            |&(_, number)| {
                self.hasher
                    .hash_one(&bytes[Self::value(bytes, ends, number)])
            },
        );
        match place {
            Entry::Occupied(known) => known.get().1,
            Entry::Vacant(place) => {
                let number = self.ends.len() as u32;
                place.insert((half, number));
                self.bytes.extend_from_slice(value);
                self.ends.push(self.bytes.len());
                number
            }
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
        self.pairs.clear();
        self.bytes.clear();
        self.ends.clear();
        self.counts.clear();
        self.unsettled = Unsettled::default();
    }
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
        let pairs: Vec<(u32, u32)> = self.pairs.iter().copied().collect();
        let groups = pairs.iter().map(|(group, _)| *group);
        let (order, offsets) = lists::by_group(groups, self.counts.len())?;
        let values = self.values(order.iter().map(|&place| pairs[place as usize].1))?;
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
            + self.pairs.allocation_size()
            + allocated(&self.bytes)
            + allocated(&self.ends)
            + allocated(&self.counts)
    }
}
