//! `array_agg(x order by ...)`, `string_agg` and `nth_value`: all rows of all groups, columnar as they came, sorted at
//! the end. A list or text beyond its limit is refused with its group.
//!
//! Rows that the keys do not tell apart are told apart by the value itself, so that it does not matter which came first.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringBuilder, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, concat, filter, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::lists;
use super::partials::{Function, Partials, allocated};
use super::pick::{converter, value_last};
use crate::limits::{LIST_VALUES_MAX, RECORD_BYTES_MAX};

/// Smaller chunks are joined, lest thin input be kept in crumbs.
const CHUNK_ROWS: usize = 8_192;

/// Inputs are the value, then the keys; states a list of each.
#[derive(Clone)]
pub(super) struct Ordered {
    pub shape: Shape,
    pub kinds: Vec<DataType>,
    /// How to sort by each key; empty to sort by the value.
    pub keys: Vec<SortOptions>,
    /// How to sort by the value.
    pub own: SortOptions,
    /// Equal rows count once; there are no keys then.
    pub distinct: bool,
}

/// What becomes of the values in order.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    List,
    /// Joined by this text; nulls are left out.
    Text(String),
    /// The n-th, from 0.
    Nth(usize),
}

struct Rows {
    ordered: Ordered,
    chunks: Vec<Chunk>,
    groups: usize,
}

/// Columns (value, keys), and the group of each row.
struct Chunk {
    groups: Vec<u32>,
    columns: Vec<ArrayRef>,
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ordered").field(&self.shape).finish()
    }
}

impl Function for Ordered {
    fn result(&self) -> DataType {
        match self.shape {
            Shape::List => lists::list_of(self.kinds[0].clone()),
            Shape::Text(_) | Shape::Nth(_) => self.kinds[0].clone(),
        }
    }

    fn states(&self) -> Vec<DataType> {
        self.kinds.iter().cloned().map(lists::list_of).collect()
    }

    fn partials(&self) -> Box<dyn Partials> {
        Box::new(Rows {
            ordered: self.clone(),
            chunks: Vec::new(),
            groups: 0,
        })
    }
}

impl Ordered {
    /// No limit on the number of values: not all of them are in the result.
    fn may_be_long(&self) -> bool {
        self.distinct || !matches!(self.shape, Shape::List)
    }
}

impl Rows {
    fn push(&mut self, chunk: Chunk) -> Result<(), String> {
        if chunk.groups.is_empty() {
            return Ok(());
        }
        self.chunks.push(chunk);
        while let [.., before, last] = &self.chunks[..]
            && before.groups.len() <= 2 * last.groups.len()
            && before.groups.len() + last.groups.len() <= CHUNK_ROWS
        {
            let pair = self.chunks.split_off(self.chunks.len() - 2);
            self.chunks.push(joined(pair)?);
        }
        Ok(())
    }

    /// All rows in one chunk, the order that brings the rows of each group together, and where each group ends.
    fn gathered(&mut self) -> Result<Option<(Chunk, Vec<u32>, OffsetBuffer<i32>)>, String> {
        let chunks = std::mem::take(&mut self.chunks);
        if chunks.is_empty() {
            return Ok(None);
        }
        let whole = joined(chunks)?;
        let (order, ends) = lists::by_group(whole.groups.iter().copied(), self.groups)?;
        Ok(Some((whole, order, ends)))
    }

    /// Values in order and where each group's end.
    fn sorted(&mut self) -> Result<(ArrayRef, OffsetBuffer<i32>), String> {
        let Some((whole, mut order, ends)) = self.gathered()? else {
            let none = arrow::array::new_empty_array(&self.ordered.kinds[0]);
            return Ok((none, OffsetBuffer::new_zeroed(self.groups)));
        };
        let Ordered {
            kinds, keys, own, ..
        } = &self.ordered;
        let rows = converter(kinds, keys, *own)
            .convert_columns(&value_last(&whole.columns))
            .map_err(plain)?;
        let row = |&i: &u32| rows.row(i as usize);
        for group in ends.windows(2) {
            let of_group = &mut order[group[0] as usize..group[1] as usize];
            if of_group.len() > LIST_VALUES_MAX && !self.ordered.may_be_long() {
                // It is refused anyway.
                continue;
            }
            of_group.sort_unstable_by(|a, b| row(a).cmp(&row(b)));
        }
        let (order, ends) = match self.ordered.distinct {
            false => (order, ends),
            true => deduplicated(&order, &ends, |a, b| row(a) == row(b))?,
        };
        let values = take(&whole.columns[0], &UInt32Array::from(order), None).map_err(plain)?;
        Ok((values, ends))
    }
}

impl Partials for Rows {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        passed: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.groups = total;
        let groups: Vec<u32> = groups.iter().map(|&group| group as u32).collect();
        let whole = Chunk {
            groups,
            columns: values.to_vec(),
        };
        let nulls = match self.ordered.shape {
            Shape::Text(_) => values[0].nulls().map(|n| n.inner().clone()),
            _ => None,
        };
        let kept = match (passed.map(BooleanArray::values), nulls) {
            (None, None) => return self.push(whole),
            (Some(passed), Some(valid)) => passed & &valid,
            (Some(passed), None) => passed.clone(),
            (None, Some(valid)) => valid,
        };
        self.push(whole.filtered(&BooleanArray::new(kept, None))?)
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.groups = total;
        let mut columns = Vec::with_capacity(states.len());
        let mut ends: Option<Vec<usize>> = None;
        for state in states {
            let (values, own) = lists::unpacked(state)?;
            if ends.get_or_insert_with(|| own.clone()) != &own {
                return Err("stored values and their order keys differ in number".into());
            }
            columns.push(values);
        }
        let ends = ends.unwrap_or_default();
        let groups = lists::spread(&ends, groups).map(|g| g as u32).collect();
        self.push(Chunk { groups, columns })
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        let gathered = self.gathered()?;
        let groups = std::mem::take(&mut self.groups);
        let Some((whole, order, ends)) = gathered else {
            let none = |kind| {
                lists::lists(
                    arrow::array::new_empty_array(kind),
                    OffsetBuffer::new_zeroed(groups),
                    None,
                )
            };
            return Ok(self.ordered.kinds.iter().map(none).collect());
        };
        let order = UInt32Array::from(order);
        let column = |column: &ArrayRef| {
            let values = take(column, &order, None).map_err(plain)?;
            Ok(lists::lists(values, ends.clone(), None))
        };
        whole.columns.iter().map(column).collect()
    }

    fn evaluate(&mut self, refused: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        let (values, ends) = self.sorted()?;
        self.groups = 0;
        match &self.ordered.shape {
            Shape::List => {
                let lengths = ends.windows(2).map(|group| group[1] - group[0]);
                let long = lengths
                    .enumerate()
                    .filter(|(_, length)| *length as usize > LIST_VALUES_MAX);
                refused.extend(long.map(|(group, length)| {
                    let why =
                        format!("a list of {length} values; at most {LIST_VALUES_MAX} are allowed");
                    (group as u32, why)
                }));
                let some = ends.windows(2).map(|group| group[0] < group[1]).collect();
                Ok(lists::lists(values, ends, Some(NullBuffer::new(some))))
            }
            Shape::Text(between) => texts(&values, &ends, between, refused),
            Shape::Nth(n) => {
                let places = ends.windows(2).map(|group| {
                    let place = group[0] as usize + n;
                    (place < group[1] as usize).then_some(place as u32)
                });
                take(&values, &places.collect::<UInt32Array>(), None).map_err(plain)
            }
        }
    }

    fn bytes(&self) -> usize {
        let chunk = |chunk: &Chunk| {
            let columns = chunk.columns.iter();
            let columns: usize = columns.map(|c| c.get_array_memory_size()).sum();
            columns + allocated(&chunk.groups)
        };
        self.chunks.iter().map(chunk).sum()
    }
}

impl Chunk {
    fn filtered(&self, kept: &BooleanArray) -> Result<Self, String> {
        let groups = self.groups.iter().zip(kept.values());
        let groups = groups.filter_map(|(&group, kept)| kept.then_some(group));
        let columns = self.columns.iter().map(|c| filter(c, kept).map_err(plain));
        Ok(Self {
            groups: groups.collect(),
            columns: columns.collect::<Result<_, _>>()?,
        })
    }
}

fn joined(mut chunks: Vec<Chunk>) -> Result<Chunk, String> {
    if chunks.len() == 1 {
        return Ok(chunks.remove(0));
    }
    let columns = (0..chunks[0].columns.len()).map(|i| {
        let pieces: Vec<&dyn Array> = chunks.iter().map(|c| c.columns[i].as_ref()).collect();
        concat(&pieces).map_err(plain)
    });
    Ok(Chunk {
        columns: columns.collect::<Result<_, _>>()?,
        groups: chunks.iter().flat_map(|c| &c.groups).copied().collect(),
    })
}

fn deduplicated(
    order: &[u32],
    ends: &OffsetBuffer<i32>,
    same: impl Fn(&u32, &u32) -> bool,
) -> Result<(Vec<u32>, OffsetBuffer<i32>), String> {
    let mut kept = Vec::with_capacity(order.len());
    let mut lengths = Vec::with_capacity(ends.len());
    for group in ends.windows(2) {
        let before = kept.len();
        let mut of_group = order[group[0] as usize..group[1] as usize].to_vec();
        of_group.dedup_by(|a, b| same(a, b));
        kept.extend(of_group);
        lengths.push(kept.len() - before);
    }
    Ok((kept, lists::offsets(lengths.into_iter())?))
}

fn texts(
    values: &ArrayRef,
    ends: &OffsetBuffer<i32>,
    between: &str,
    refused: &mut Vec<(u32, String)>,
) -> Result<ArrayRef, String> {
    let values = values.as_string::<i32>();
    let mut out = StringBuilder::new();
    let mut text = String::new();
    let mut bytes = 0;
    for (number, group) in ends.windows(2).enumerate() {
        let (start, end) = (group[0] as usize, group[1] as usize);
        let of_values = values.value_offsets()[end] - values.value_offsets()[start];
        let length = of_values as usize + between.len() * (end - start).saturating_sub(1);
        if length > RECORD_BYTES_MAX {
            let why = format!("a text of {length} bytes; at most {RECORD_BYTES_MAX} are allowed");
            refused.push((number as u32, why));
        }
        if start == end || length > RECORD_BYTES_MAX {
            out.append_null();
            continue;
        }
        text.clear();
        for row in start..end {
            if row > start {
                text.push_str(between);
            }
            text.push_str(values.value(row));
        }
        bytes += text.len();
        if bytes > i32::MAX as usize {
            return Err("the joined texts of all groups are more than 2 GiB".into());
        }
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

fn plain(error: ArrowError) -> String {
    super::super::words::plain(&error.to_string())
}
