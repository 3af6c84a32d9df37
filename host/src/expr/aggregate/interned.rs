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
        let column = &values[0];
        self.insert_all(column, |take| {
            each_row(Some(column.as_ref()), filter, groups, take);
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.counts.resize(total, 0);
        let (values, ends) = lists::unpacked(&states[0])?;
        self.insert_all(&values, |take| {
            for (row, group) in lists::spread(&ends, groups).enumerate() {
                take(row, group);
            }
        });
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
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
