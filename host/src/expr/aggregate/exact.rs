//! `sum` and `avg` of integers and decimals, without rounding or overflow on the way: only a result that does not fit its
//! type is refused. DataFusion's own wrap.
//!
//! Sums are kept in 128 bits, those of decimals with many digits in 256: no number of rows overflows them.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, Decimal128Array, Float64Array,
    Int64Array, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL128_MAX_SCALE, DECIMAL256_MAX_PRECISION, DataType,
    Decimal128Type, Decimal256Type, DecimalType, Int64Type, i256,
};

use super::super::words;
use super::partials::{Function, Partials, allocated, each_row};

/// Digits of values whose sum of 10^13 rows is below 2^127.
const NARROW_DIGITS_MAX: u8 = 24;
/// Digits that a sum of decimals has more than its values, as in DataFusion: room for 10^10 rows.
const SUM_DIGITS: u8 = 10;
/// Digits after the point that a mean of decimals has more than its values, as in DataFusion.
const MEAN_DIGITS: u8 = 4;

/// `sum`: int of ints; decimal(min(38, p + 10), s) of decimal(p, s). `avg`: float of ints; decimal(min(38, p + 4),
/// min(38, s + 4)), rounded half away from zero, of decimals.
#[derive(Debug, Clone)]
pub(super) struct Exact {
    mean: bool,
    /// `None` for integers.
    decimal: Option<(u8, i8)>,
}

struct Sums<S: DecimalType> {
    exact: Exact,
    sums: Vec<S::Native>,
    counts: Vec<i64>,
}

impl Exact {
    /// `None` if `kind` is neither int nor decimal.
    pub fn new(mean: bool, kind: &DataType) -> Option<Self> {
        let decimal = match kind {
            DataType::Int64 => None,
            DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
            _ => return None,
        };
        Some(Self { mean, decimal })
    }

    fn is_narrow(&self) -> bool {
        self.decimal
            .is_none_or(|(digits, _)| digits <= NARROW_DIGITS_MAX)
    }
}

impl Function for Exact {
    fn result(&self) -> DataType {
        let most = DECIMAL128_MAX_PRECISION;
        match (self.decimal, self.mean) {
            (None, false) => DataType::Int64,
            (None, true) => DataType::Float64,
            (Some((p, s)), false) => DataType::Decimal128(most.min(p + SUM_DIGITS), s),
            (Some((p, s)), true) => DataType::Decimal128(
                most.min(p + MEAN_DIGITS),
                DECIMAL128_MAX_SCALE.min(s + MEAN_DIGITS as i8),
            ),
        }
    }

    fn states(&self) -> Vec<DataType> {
        let scale = self.decimal.map_or(0, |(_, scale)| scale);
        let sum = match self.is_narrow() {
            true => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
            false => DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale),
        };
        vec![sum, DataType::Int64]
    }

    fn partials(&self) -> Box<dyn Partials> {
        match self.is_narrow() {
            true => Box::new(Sums::<Decimal128Type>::new(self)),
            false => Box::new(Sums::<Decimal256Type>::new(self)),
        }
    }
}

/// Integers wide enough for sums.
trait Wide: ArrowNativeTypeOp {
    fn of(value: i128) -> Self;
    fn widest(self) -> i256;
}

impl Wide for i128 {
    fn of(value: i128) -> Self {
        value
    }
    fn widest(self) -> i256 {
        i256::from_i128(self)
    }
}

impl Wide for i256 {
    fn of(value: i128) -> Self {
        i256::from_i128(value)
    }
    fn widest(self) -> i256 {
        self
    }
}

impl<S: DecimalType<Native: Wide>> Sums<S> {
    fn new(exact: &Exact) -> Self {
        Self {
            exact: exact.clone(),
            sums: Vec::new(),
            counts: Vec::new(),
        }
    }

    fn grow(&mut self, total: usize) {
        self.sums.resize(total, S::Native::of(0));
        self.counts.resize(total, 0);
    }

    #[inline]
    fn add(
        &mut self,
        column: &dyn Array,
        filter: Option<&BooleanArray>,
        groups: &[usize],
        value: impl Fn(usize) -> i128,
    ) {
        each_row(Some(column), filter, groups, |row, group| {
            let sum = &mut self.sums[group];
            *sum = sum.add_wrapping(S::Native::of(value(row)));
            self.counts[group] += 1;
        });
    }

    /// The result of each group, or why there is none.
    fn results<T: Default>(
        &self,
        refused: &mut Vec<(u32, String)>,
        result: impl Fn(i256, i64) -> Result<T, String>,
    ) -> Vec<T> {
        let groups = self.sums.iter().zip(&self.counts).enumerate();
        let groups = groups.map(|(group, (sum, &count))| match count {
            0 => T::default(),
            _ => result(sum.widest(), count).unwrap_or_else(|why| {
                refused.push((group as u32, why));
                T::default()
            }),
        });
        groups.collect()
    }

    fn clear(&mut self) {
        self.sums = Vec::new();
        self.counts = Vec::new();
    }
}

impl<S: DecimalType<Native: Wide>> Partials for Sums<S> {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.grow(total);
        match self.exact.decimal {
            None => {
                let column = values[0].as_primitive::<Int64Type>();
                self.add(column, filter, groups, |row| i128::from(column.value(row)));
            }
            Some(_) => {
                let column = values[0].as_primitive::<Decimal128Type>();
                self.add(column, filter, groups, |row| column.value(row));
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.grow(total);
        let sums = states[0].as_primitive::<S>();
        let counts = states[1].as_primitive::<Int64Type>();
        each_row(Some(sums), None, groups, |row, group| {
            self.sums[group] = self.sums[group].add_wrapping(sums.value(row));
            self.counts[group] = self.counts[group].saturating_add(counts.value(row));
        });
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        let sums = PrimitiveArray::<S>::new(std::mem::take(&mut self.sums).into(), None);
        let sums = sums.with_data_type(self.exact.states().remove(0));
        let counts = Int64Array::from(std::mem::take(&mut self.counts));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn evaluate(&mut self, refused: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        let some = self.counts.iter().map(|&count| count > 0);
        let nulls = Some(NullBuffer::from_iter(some));
        let array: ArrayRef = match self.exact.result() {
            DataType::Int64 => {
                let sums = self.results(refused, |sum, _| integer(sum));
                Arc::new(Int64Array::new(sums.into(), nulls))
            }
            DataType::Decimal128(precision, scale) => {
                let fits = decimal_in(precision, scale);
                let values = match self.exact.mean {
                    false => self.results(refused, |sum, _| fits(sum)),
                    true => {
                        let from = self.exact.decimal.map_or(0, |(_, scale)| scale);
                        let by = i256::from_i128(10_i128.pow((scale - from) as u32));
                        self.results(refused, |sum, count| fits(divided(sum * by, count)))
                    }
                };
                let array = Decimal128Array::new(values.into(), nulls);
                Arc::new(array.with_data_type(self.exact.result()))
            }
            _ => {
                let means = self.results(refused, |sum, count| Ok(mean(sum, count)));
                Arc::new(Float64Array::new(means.into(), nulls)) as _
            }
        };
        self.clear();
        Ok(array)
    }

    fn bytes(&self) -> usize {
        allocated(&self.sums) + allocated(&self.counts)
    }
}

fn integer(sum: i256) -> Result<i64, String> {
    let narrow = sum.to_i128().and_then(|sum| i64::try_from(sum).ok());
    narrow.ok_or_else(|| format!("the sum {sum} does not fit into an int of 64 bits"))
}

fn mean(sum: i256, count: i64) -> f64 {
    // Sums of integers are narrow: 128 bits hold them.
    let sum = sum.to_i128().unwrap_or(i128::MAX);
    sum as f64 / count as f64
}

/// Rounded half away from zero.
fn divided(sum: i256, count: i64) -> i256 {
    let count = i256::from_i128(i128::from(count));
    let half = count / i256::from_i128(2);
    match sum.is_negative() {
        true => (sum - half) / count,
        false => (sum + half) / count,
    }
}

fn decimal_in(precision: u8, scale: i8) -> impl Fn(i256) -> Result<i128, String> {
    let end = 10_i128.pow(u32::from(precision));
    move |value| match value.to_i128() {
        Some(value) if -end < value && value < end => Ok(value),
        _ => Err(format!(
            "the result does not fit into {}({precision}, {scale})",
            words::type_name(&DataType::Decimal128(precision, scale))
        )),
    }
}
