//! `median`, `percentile_cont`: exact, from all values of a group. `approx_median`, `approx_percentile_cont`: exact for
//! some hundred values, then from counts in buckets whose width is a fixed share of their values.
//!
//! Which of the two it is, and the result, depend on the values of a group alone: not on their order, nor on how partial
//! results were merged. That is why this is no t-digest, DataFusion's way.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};

use super::extreme::canonical;
use super::lists;
use super::partials::{Function, Partials, allocated, each_row};

/// Values up to which an approximate percentile is exact.
const EXACT_MAX: usize = 256;
/// A bucket ends at this times its start, so that its middle is within 0.5 % of every value in it.
const GROWTH: f64 = 1.010_05;
/// Above the bucket of the smallest positive float, counted from that of 1.0: ln(5e-324) / ln(GROWTH) is -74,453.
const ONE: i32 = 80_000;
/// Beyond the bucket of the greatest float.
const INFINITE: i32 = i32::MAX - 1;
const NAN: i32 = i32::MAX;

/// The value below which the share `fraction` of all values lies, as float; NaN is the greatest value.
#[derive(Debug, Clone)]
pub(super) struct Percentile {
    pub fraction: f64,
    pub approximate: bool,
}

#[derive(Default, Clone)]
struct Values {
    /// Not counted in buckets yet.
    plain: Vec<f64>,
    /// Bucket and count, ascending.
    buckets: Vec<(i32, i64)>,
}

struct Groups {
    percentile: Percentile,
    groups: Vec<Values>,
    /// Allocated by all groups.
    bytes: usize,
}

impl Function for Percentile {
    fn result(&self) -> DataType {
        DataType::Float64
    }

    fn states(&self) -> Vec<DataType> {
        let mut kinds = vec![lists::list_of(DataType::Float64)];
        if self.approximate {
            kinds.push(lists::list_of(DataType::Int32));
            kinds.push(lists::list_of(DataType::Int64));
        }
        kinds
    }

    fn partials(&self) -> Box<dyn Partials> {
        Box::new(Groups {
            percentile: self.clone(),
            groups: Vec::new(),
            bytes: 0,
        })
    }
}

impl Values {
    fn push(&mut self, value: f64, approximate: bool) {
        self.plain.push(value);
        if approximate && self.plain.len() > EXACT_MAX {
            self.fold();
        }
    }

    /// Counts plain values in buckets.
    fn fold(&mut self) {
        let mut found: Vec<(i32, i64)> = self.plain.drain(..).map(|v| (bucket(v), 1)).collect();
        found.sort_unstable();
        self.add(found);
    }

    /// Adds counts, sorted by bucket.
    fn add(&mut self, found: Vec<(i32, i64)>) {
        let mut merged: Vec<(i32, i64)> = Vec::with_capacity(self.buckets.len() + found.len());
        let mut old = self.buckets.iter().copied().peekable();
        let mut new = found.into_iter().peekable();
        while let Some((bucket, count)) = match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if a.0 <= b.0 => old.next(),
            (_, Some(_)) => new.next(),
            _ => old.next(),
        } {
            match merged.last_mut() {
                Some(last) if last.0 == bucket => last.1 = last.1.saturating_add(count),
                _ => merged.push((bucket, count)),
            }
        }
        merged.shrink_to_fit();
        self.buckets = merged;
    }

    fn percentile(mut self, fraction: f64) -> Option<f64> {
        if self.buckets.is_empty() {
            return exact(self.plain, fraction);
        }
        self.fold();
        let count: i64 = self.buckets.iter().map(|(_, count)| count).sum();
        let rank = (fraction * (count - 1) as f64).round() as i64;
        let mut below = 0;
        let holds = |&&(_, count): &&(i32, i64)| {
            below += count;
            below > rank
        };
        let found = self.buckets.iter().find(holds).or(self.buckets.last());
        found.map(|(bucket, _)| middle(*bucket))
    }

    fn bytes(&self) -> usize {
        allocated(&self.plain) + allocated(&self.buckets)
    }
}

/// Between the two values next to the place, in proportion.
fn exact(mut values: Vec<f64>, fraction: f64) -> Option<f64> {
    let place = fraction * values.len().checked_sub(1)? as f64;
    let (_, low, above) = values.select_nth_unstable_by(place as usize, f64::total_cmp);
    let low = *low;
    let high = above.iter().copied().min_by(f64::total_cmp);
    Some(match (high, place.fract()) {
        (Some(high), part) if part > 0.0 && high != low => low * (1.0 - part) + high * part,
        _ => low,
    })
}

fn bucket(value: f64) -> i32 {
    let size = |size: f64| match size.is_finite() {
        true => ONE + (size.ln() / GROWTH.ln()).ceil() as i32,
        false => INFINITE,
    };
    match value {
        v if v.is_nan() => NAN,
        v if v > 0.0 => size(v),
        v if v < 0.0 => -size(-v),
        _ => 0,
    }
}

/// As far, in proportion, from the start as from the end of the bucket.
fn middle(bucket: i32) -> f64 {
    match bucket {
        NAN => f64::NAN,
        INFINITE => f64::INFINITY,
        0 => 0.0,
        b if b == -INFINITE => f64::NEG_INFINITY,
        b => {
            let size = (f64::from(b.abs() - ONE) * GROWTH.ln()).exp() * 2.0 / (1.0 + GROWTH);
            size.min(f64::MAX).copysign(f64::from(b))
        }
    }
}

impl Groups {
    fn take(&mut self, group: usize, value: f64) {
        let values = &mut self.groups[group];
        let before = values.bytes();
        values.push(canonical(value), self.percentile.approximate);
        self.bytes = self.bytes + values.bytes() - before;
    }
}

impl Partials for Groups {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.groups.resize(total, Values::default());
        let column = values[0].as_primitive::<Float64Type>();
        each_row(Some(column), filter, groups, |row, group| {
            self.take(group, column.value(row));
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.groups.resize(total, Values::default());
        let (values, ends) = lists::unpacked(&states[0])?;
        let values = values.as_primitive::<Float64Type>();
        for (value, group) in values.values().iter().zip(lists::spread(&ends, groups)) {
            self.take(group, *value);
        }
        if !self.percentile.approximate {
            return Ok(());
        }
        let (buckets, ends) = lists::unpacked(&states[1])?;
        let (counts, same) = lists::unpacked(&states[2])?;
        if ends != same {
            return Err("stored buckets and their counts differ in number".into());
        }
        let buckets = buckets.as_primitive::<Int32Type>().values();
        let counts = counts.as_primitive::<Int64Type>().values();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        for ((start, &end), &group) in starts.zip(&ends).zip(groups) {
            if start == end {
                continue;
            }
            let found = (start..end).map(|i| (buckets[i], counts[i].max(0)));
            let values = &mut self.groups[group];
            let before = values.bytes();
            values.add(found.collect());
            self.bytes = self.bytes + values.bytes() - before;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        self.bytes = 0;
        let groups = std::mem::take(&mut self.groups);
        let ends = lists::offsets(groups.iter().map(|g| g.plain.len()))?;
        let plain: Vec<f64> = groups.iter().flat_map(|g| &g.plain).copied().collect();
        let mut columns = vec![lists::lists(
            Arc::new(Float64Array::from(plain)),
            ends,
            None,
        )];
        if self.percentile.approximate {
            let ends = lists::offsets(groups.iter().map(|g| g.buckets.len()))?;
            let all = || groups.iter().flat_map(|g| &g.buckets);
            let buckets = Int32Array::from_iter_values(all().map(|(bucket, _)| *bucket));
            let counts = Int64Array::from_iter_values(all().map(|(_, count)| *count));
            columns.push(lists::lists(Arc::new(buckets), ends.clone(), None));
            columns.push(lists::lists(Arc::new(counts), ends, None));
        }
        Ok(columns)
    }

    fn evaluate(&mut self, _: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        self.bytes = 0;
        let groups = std::mem::take(&mut self.groups);
        let fraction = self.percentile.fraction;
        let values: Vec<Option<f64>> = groups.into_iter().map(|g| g.percentile(fraction)).collect();
        let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
        let values: Vec<f64> = values.into_iter().map(Option::unwrap_or_default).collect();
        Ok(Arc::new(Float64Array::new(values.into(), Some(nulls))))
    }

    fn bytes(&self) -> usize {
        self.bytes + allocated(&self.groups)
    }
}
