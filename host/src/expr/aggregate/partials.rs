//! What every aggregate offers: its types, and partial results by group.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

/// An aggregate over arguments of known types.
pub(super) trait Function: Debug + Send + Sync {
    /// The type of its results.
    fn result(&self) -> DataType;

    /// Its results can be null: a group without values.
    fn nullable(&self) -> bool {
        true
    }

    /// The types of the columns of a partial state.
    fn states(&self) -> Vec<DataType>;

    /// Raised whenever a stored state would be read differently.
    fn version(&self) -> u32 {
        1
    }

    fn partials(&self) -> Box<dyn Partials>;
}

/// Partial results of one aggregate for groups 0..n.
///
/// `groups` has the group of each row, below `total`; `total` never shrinks until the partial results are taken out.
pub(super) trait Partials: Send {
    /// Takes rows in: `values` are the arguments, then the order keys. `filter` has no nulls.
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String>;

    /// Takes partial states in. Their number, types and lengths are checked already; what is in them is not.
    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String>;

    /// Partial states of all groups; empties self.
    fn state(&mut self) -> Result<Vec<ArrayRef>, String>;

    /// Results of all groups; empties self. A group whose result cannot be represented is null and appended to `refused`.
    fn evaluate(&mut self, refused: &mut Vec<(u32, String)>) -> Result<ArrayRef, String>;

    /// Memory in bytes, about.
    fn bytes(&self) -> usize;
}

/// Calls `take` with each row and its group, but for rows that are null in `values` or that `filter` drops.
#[inline]
pub(super) fn each_row(
    values: Option<&dyn Array>,
    filter: Option<&BooleanArray>,
    groups: &[usize],
    mut take: impl FnMut(usize, usize),
) {
    let nulls = values
        .and_then(|v| v.nulls())
        .filter(|n| n.null_count() > 0);
    match (nulls, filter.map(BooleanArray::values)) {
        (None, None) => {
            for (row, &group) in groups.iter().enumerate() {
                take(row, group);
            }
        }
        (Some(nulls), None) => {
            for (row, &group) in groups.iter().enumerate() {
                if nulls.is_valid(row) {
                    take(row, group);
                }
            }
        }
        (nulls, Some(passed)) => {
            for (row, &group) in groups.iter().enumerate() {
                if passed.value(row) && nulls.is_none_or(|n| n.is_valid(row)) {
                    take(row, group);
                }
            }
        }
    }
}

/// Memory of a vector in bytes.
pub(super) fn allocated<T>(values: &Vec<T>) -> usize {
    values.capacity() * size_of::<T>()
}
