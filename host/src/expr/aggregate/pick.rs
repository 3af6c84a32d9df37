//! `first_value(x order by ...)` and `last_value(...)`: the best row of each group so far, encoded so that bytes compare
//! like the order keys.
//!
//! Rows that the keys do not tell apart are told apart by the value itself, so that it does not matter which came first.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use super::partials::{Function, Partials, allocated, each_row};

/// Inputs are the value, then the keys; states the same and whether there is one.
#[derive(Clone)]
pub(super) struct Pick {
    pub last: bool,
    pub kinds: Vec<DataType>,
    /// How to sort by each key; empty to sort by the value.
    pub keys: Vec<SortOptions>,
    /// How to sort by the value.
    pub own: SortOptions,
}

struct Picked {
    pick: Pick,
    converter: RowConverter,
    /// The encoded row of each group; empty for none.
    best: Vec<Vec<u8>>,
}

/// The converter of rows as (keys, value), from columns (value, keys).
pub(super) fn converter(
    kinds: &[DataType],
    keys: &[SortOptions],
    own: SortOptions,
) -> RowConverter {
    let keys = kinds[1..].iter().zip(keys);
    let mut fields: Vec<SortField> = keys
        .map(|(kind, options)| SortField::new_with_options(kind.clone(), *options))
        .collect();
    fields.push(SortField::new_with_options(kinds[0].clone(), own));
    RowConverter::new(fields).expect("the types of columns can be ordered")
}

/// Columns (value, keys) as (keys, value).
pub(super) fn value_last(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    let mut columns = columns.to_vec();
    columns.rotate_left(1);
    columns
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.last { "Last" } else { "First" })
    }
}

impl Function for Pick {
    fn result(&self) -> DataType {
        self.kinds[0].clone()
    }

    fn states(&self) -> Vec<DataType> {
        let mut kinds = self.kinds.clone();
        kinds.push(DataType::Boolean);
        kinds
    }

    fn partials(&self) -> Box<dyn Partials> {
        Box::new(Picked {
            converter: converter(&self.kinds, &self.keys, self.own),
            pick: self.clone(),
            best: Vec::new(),
        })
    }
}

impl Picked {
    /// The columns (value, keys) of the best rows, null where there is none.
    fn columns(&mut self) -> Result<Vec<ArrayRef>, String> {
        let nothing: Vec<ArrayRef> = value_last(&self.pick.kinds_of_nulls());
        let plain = |error: arrow::error::ArrowError| error.to_string();
        let nothing = self.converter.convert_columns(&nothing).map_err(plain)?;
        let parser = self.converter.parser();
        let rows = self.best.iter().map(|row| match row.is_empty() {
            true => nothing.row(0),
            false => parser.parse(row),
        });
        let mut columns = self.converter.convert_rows(rows).map_err(plain)?;
        columns.rotate_right(1);
        Ok(columns)
    }
}

impl Pick {
    fn kinds_of_nulls(&self) -> Vec<ArrayRef> {
        let kinds = self.kinds.iter();
        kinds
            .map(|kind| arrow::array::new_null_array(kind, 1))
            .collect()
    }
}

impl Partials for Picked {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.best.resize(total, Vec::new());
        let rows = self.converter.convert_columns(&value_last(values));
        let rows = rows.map_err(|error| error.to_string())?;
        let last = self.pick.last;
        each_row(None, filter, groups, |row, group| {
            let row = rows.row(row);
            let row = row.as_ref();
            let best = &mut self.best[group];
            // A row has at least the byte that says whether its value is null.
            let better = match last {
                true => row > best.as_slice(),
                false => best.is_empty() || row < best.as_slice(),
            };
            if better {
                best.clear();
                best.extend_from_slice(row);
            }
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        let (is_some, columns) = states
            .split_last()
            .ok_or("a stored partial result is empty")?;
        self.update(columns, groups, Some(is_some.as_boolean()), total)
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        let mut columns = self.columns()?;
        let is_some: BooleanArray = self.best.iter().map(|row| Some(!row.is_empty())).collect();
        columns.push(Arc::new(is_some));
        self.best = Vec::new();
        Ok(columns)
    }

    fn evaluate(&mut self, _: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        let mut columns = self.columns()?;
        self.best = Vec::new();
        Ok(columns.swap_remove(0))
    }

    fn bytes(&self) -> usize {
        let rows: usize = self.best.iter().map(Vec::capacity).sum();
        rows + allocated(&self.best)
    }
}
