//! `count(*)` and `count(x)`: rows, or rows at which `x` is not null.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};

use super::partials::{Function, Partials, allocated, each_row};

#[derive(Debug)]
pub(super) struct Count;

#[derive(Default)]
struct Counts(Vec<i64>);

impl Function for Count {
    fn result(&self) -> DataType {
        DataType::Int64
    }

    fn nullable(&self) -> bool {
        false
    }

    fn states(&self) -> Vec<DataType> {
        vec![DataType::Int64]
    }

    fn partials(&self) -> Box<dyn Partials> {
        Box::<Counts>::default()
    }
}

impl Partials for Counts {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.0.resize(total, 0);
        let values = values.first().map(|values| values.as_ref() as &dyn Array);
        each_row(values, filter, groups, |_, group| self.0[group] += 1);
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.0.resize(total, 0);
        let counts = states[0].as_primitive::<Int64Type>();
        each_row(Some(counts), None, groups, |row, group| {
            self.0[group] = self.0[group].saturating_add(counts.value(row));
        });
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        let counts = std::mem::take(&mut self.0);
        Ok(vec![Arc::new(Int64Array::from(counts))])
    }

    fn evaluate(&mut self, _: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        Ok(self.state()?.remove(0))
    }

    fn bytes(&self) -> usize {
        allocated(&self.0)
    }
}
