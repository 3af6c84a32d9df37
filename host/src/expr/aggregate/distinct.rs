//! `count(distinct x)`, exact: the values themselves are the state. Numbers here, texts and bytes in `interned`.
//!
//! One table of (group, value) for all groups: a set a group would cost a hundred times the memory for small groups.
//! Floats count as they compare: one NaN, one zero.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::extreme::canonical;
use super::interned::{Interned, Spelled};
use super::lists;
use super::partials::{Function, Partials, allocated, each_row};

/// Of arguments of `kind`: int, float, decimal, string or bytes.
#[derive(Debug)]
pub(super) struct Distinct {
    kind: DataType,
}

impl Distinct {
    /// Takes the column type `kind`, perhaps as another type.
    pub fn new(kind: &DataType) -> Self {
        let kind = match kind {
            DataType::Boolean | DataType::Date32 | DataType::Timestamp(..) => DataType::Int64,
            kind => kind.clone(),
        };
        Self { kind }
    }

    /// The type in which it takes its argument.
    pub fn kind(&self) -> &DataType {
        &self.kind
    }
}

impl Function for Distinct {
    fn result(&self) -> DataType {
        DataType::Int64
    }

    fn nullable(&self) -> bool {
        false
    }

    fn states(&self) -> Vec<DataType> {
        vec![lists::list_of(self.kind.clone())]
    }

    fn partials(&self) -> Box<dyn Partials> {
        match &self.kind {
            DataType::Utf8 => Box::new(Interned::new(Spelled::Text)),
            DataType::Binary => Box::new(Interned::new(Spelled::Bytes)),
            DataType::Float64 => Box::new(Sets::<Bits>::new(&self.kind)),
            DataType::Decimal128(..) => Box::new(Sets::<i128>::new(&self.kind)),
            _ => Box::new(Sets::<i64>::new(&self.kind)),
        }
    }
}

/// A number as it is hashed and compared.
trait Number: Copy + Ord + Hash + Send {
    type Arrow: ArrowPrimitiveType;
    fn of(native: <Self::Arrow as ArrowPrimitiveType>::Native) -> Self;
    fn native(self) -> <Self::Arrow as ArrowPrimitiveType>::Native;
}

/// A float by its bits, one NaN and one zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Bits(u64);

impl Number for Bits {
    type Arrow = Float64Type;
    fn of(native: f64) -> Self {
        Self(canonical(native).to_bits())
    }
    fn native(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// A column of floats as integers that are equal where the floats are.
pub(super) fn bits(floats: &ArrayRef) -> ArrayRef {
    let floats = floats.as_primitive::<Float64Type>();
    let bits: Int64Array = floats.unary(|float| canonical(float).to_bits() as i64);
    Arc::new(bits)
}

impl Number for i64 {
    type Arrow = Int64Type;
    fn of(native: i64) -> Self {
        native
    }
    fn native(self) -> i64 {
        self
    }
}

impl Number for i128 {
    type Arrow = Decimal128Type;
    fn of(native: i128) -> Self {
        native
    }
    fn native(self) -> i128 {
        self
    }
}

struct Sets<N> {
    kind: DataType,
    /// Values come from outside: seeded anew in each process, so that nobody can choose them to collide.
    hasher: RandomState,
    found: HashTable<(u32, N)>,
    counts: Vec<i64>,
}

impl<N: Number> Sets<N> {
    fn new(kind: &DataType) -> Self {
        Self {
            kind: kind.clone(),
            hasher: RandomState::default(),
            found: HashTable::new(),
            counts: Vec::new(),
        }
    }

    #[inline]
    fn insert(&mut self, group: usize, value: N) {
        let entry = (group as u32, value);
        let hash = self.hasher.hash_one(entry);
        let place = self.found.entry(
            hash,
            |other| *other == entry,
            |other| self.hasher.hash_one(other),
        );
        if let Entry::Vacant(place) = place {
            place.insert(entry);
            self.counts[group] += 1;
        }
    }
}

impl<N: Number> Partials for Sets<N> {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.counts.resize(total, 0);
        let column = values[0].as_primitive::<N::Arrow>();
        each_row(Some(column), filter, groups, |row, group| {
            self.insert(group, N::of(column.value(row)));
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.counts.resize(total, 0);
        let (values, ends) = lists::unpacked(&states[0])?;
        let values = values.as_primitive::<N::Arrow>();
        for (value, group) in values.values().iter().zip(lists::spread(&ends, groups)) {
            self.insert(group, N::of(*value));
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        let counts = std::mem::take(&mut self.counts);
        let offsets = lists::offsets(counts.iter().map(|&count| count as usize))?;
        // Sorted, because the table's order is another in each process.
        let mut found: Vec<(u32, N)> = std::mem::take(&mut self.found).into_iter().collect();
        found.sort_unstable();
        let values = found.into_iter().map(|(_, value)| value.native());
        let values = PrimitiveArray::<N::Arrow>::from_iter_values(values);
        let values = Arc::new(values.with_data_type(self.kind.clone()));
        Ok(vec![lists::lists(values, offsets, None)])
    }

    fn evaluate(&mut self, _: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        self.found = HashTable::new();
        let counts = std::mem::take(&mut self.counts);
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn bytes(&self) -> usize {
        self.found.allocation_size() + allocated(&self.counts)
    }
}
