//! `min` and `max` of floats in a total order: NaN is the greatest value, as in an `order by`. DataFusion's own keep or
//! drop a NaN depending on which row came first.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type};

use super::partials::{Function, Partials, allocated, each_row};

#[derive(Debug)]
pub(super) struct Extreme {
    pub greatest: bool,
}

struct Extremes {
    greatest: bool,
    values: Vec<f64>,
    found: Vec<bool>,
}

impl Function for Extreme {
    fn result(&self) -> DataType {
        DataType::Float64
    }

    fn states(&self) -> Vec<DataType> {
        vec![DataType::Float64]
    }

    fn partials(&self) -> Box<dyn Partials> {
        Box::new(Extremes {
            greatest: self.greatest,
            values: Vec::new(),
            found: Vec::new(),
        })
    }
}

impl Partials for Extremes {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.values.resize(total, 0.0);
        self.found.resize(total, false);
        let column = values[0].as_primitive::<Float64Type>();
        each_row(Some(column), filter, groups, |row, group| {
            let value = canonical(column.value(row));
            let best = &mut self.values[group];
            let better = match self.greatest {
                true => value.total_cmp(best).is_gt(),
                false => value.total_cmp(best).is_lt(),
            };
            if better || !self.found[group] {
                *best = value;
                self.found[group] = true;
            }
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.update(states, groups, None, total)
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        let found = NullBuffer::from(std::mem::take(&mut self.found));
        let values = std::mem::take(&mut self.values);
        Ok(vec![Arc::new(Float64Array::new(
            values.into(),
            Some(found),
        ))])
    }

    fn evaluate(&mut self, _: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        Ok(self.state()?.remove(0))
    }

    fn bytes(&self) -> usize {
        allocated(&self.values) + allocated(&self.found)
    }
}

/// One NaN and one zero: `x` as it compares and counts.
pub(super) fn canonical(x: f64) -> f64 {
    match x {
        x if x.is_nan() => f64::NAN,
        // -0.0 + 0.0 is 0.0.
        x => x + 0.0,
    }
}
