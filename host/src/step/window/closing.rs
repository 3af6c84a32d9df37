//! Merging the parts of a window into its results, a slice of key groups at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;

use super::frozen::Rows;
use super::index::GroupIndex;
use super::part::{Part, Source};
use crate::batch::Batch;
use crate::expr::{Accumulators, Aggregation};
use crate::state::key::{KeyEncoder, key_hash};
use crate::step::transform::record_batch;
use crate::step::{Output, Refused, StepError};
use crate::time::{MICROS_PER_MS, Micros};

/// The parts of the panes of a window, as they were when it was due: later rows do not belong to it.
#[derive(Debug)]
pub struct Closing {
    pub start: Micros,
    pub end: Micros,
    pub parts: Vec<(Micros, Part)>,
    /// Key groups that are not done yet.
    pub left: Range<u16>,
    /// Key groups of one slice.
    pub stride: u16,
}

impl Closing {
    /// `rows` is about how many groups its parts have; a slice shall merge about `slice` of them.
    pub fn new(
        (start, end): (Micros, Micros),
        parts: Vec<(Micros, Part)>,
        groups: Range<u16>,
        slice: usize,
    ) -> Self {
        let rows: usize = parts.iter().map(|(pane, part)| part.len(*pane)).sum();
        let all = usize::from(groups.end - groups.start);
        let stride = (all * slice / rows.max(1)).clamp(1, all.max(1)) as u16;
        Self {
            start,
            end,
            parts,
            left: groups,
            stride,
        }
    }

    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// The next slice: its key groups.
    pub fn next(&mut self) -> Range<u16> {
        let end = self
            .left
            .start
            .saturating_add(self.stride)
            .min(self.left.end);
        let slice = self.left.start..end;
        self.left.start = end;
        slice
    }
}

/// Groups being put together from parts.
pub struct Merger<'a> {
    source: &'a Source,
    index: GroupIndex,
    accumulators: Accumulators,
}

impl<'a> Merger<'a> {
    pub fn new(source: &'a Source, aggregation: &Aggregation) -> Self {
        Self {
            source,
            index: GroupIndex::default(),
            accumulators: aggregation.accumulators(),
        }
    }

    /// Adds the groups of `parts` in these key groups; returns how many rows that were.
    pub fn add(&mut self, parts: &[(Micros, Part)], groups: &Range<u16>) -> Result<usize, String> {
        let mut rows = 0;
        for (pane, part) in parts {
            for piece in self.source.read(part, *pane, groups)? {
                rows += piece.len();
                self.merge(&piece)?;
            }
        }
        Ok(rows)
    }

    /// Adds rows; returns their groups' numbers.
    pub fn merge(&mut self, rows: &Rows) -> Result<(), String> {
        if rows.len() == 0 {
            return Ok(());
        }
        let number = |row: usize| {
            let key = rows.keys.value(row);
            self.index.group(key_hash(key), 0, key)
        };
        let numbers: Vec<usize> = (0..rows.len()).map(number).collect();
        self.accumulators
            .merge(&rows.states, &numbers, self.index.len())
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.index.find(key_hash(key), 0, key).is_some()
    }

    /// Everything added, as rows of partial results.
    pub fn into_rows(mut self) -> Result<Rows, String> {
        let states = self.accumulators.state()?;
        let (keys, _) = self.index.take();
        let keys = BinaryArray::from_iter_values((0..keys.len()).map(|i| keys.get(i)));
        Ok(Rows { keys, states })
    }

    /// The results, as rows of a window; groups whose result cannot be represented are refused.
    pub fn finish(mut self, window: &Window<'_>, out: &mut Output) -> Result<(), StepError> {
        if self.index.is_empty() {
            return Ok(());
        }
        let mut refused = Vec::new();
        let (results, kept) = self
            .accumulators
            .evaluate(&mut refused)
            .map_err(StepError::Failed)?;
        let (keys, _) = self.index.take();
        for (group, reason) in refused {
            let key = window.encoder.decode(keys.get(group as usize));
            out.refused.push(Refused {
                reason: format!(
                    "its window that ends at {}: {reason}",
                    crate::format::timestamp::show(window.end)
                ),
                row: None,
                key: key.ok().map(serde_json::Value::Array),
                plugin: None,
            });
        }
        let all = || 0..keys.len();
        let groups: Vec<usize> = match &kept {
            Some(kept) => kept.iter().map(|&g| g as usize).collect(),
            None => all().collect(),
        };
        let mut columns = window
            .encoder
            .decode_columns(groups.iter().map(|&g| keys.get(g)))
            .map_err(StepError::Failed)?;
        let bound = |at: Micros| {
            let times =
                TimestampMicrosecondArray::from_value(at, groups.len()).with_timezone("UTC");
            Arc::new(times) as ArrayRef
        };
        columns.extend([bound(window.start), bound(window.end)]);
        columns.extend(results.columns().iter().cloned());
        if let Some(revision) = &window.revision {
            let revisions = groups.iter().map(|&g| revision(keys.get(g)));
            columns.push(Arc::new(Int64Array::from_iter_values(revisions)));
        }
        let time = window.end - MICROS_PER_MS;
        let batch = Batch {
            columns: record_batch(window.schema, columns, groups.len()),
            times: vec![time; groups.len()].into(),
            origins: None,
        };
        out.push(0, batch);
        Ok(())
    }
}

/// What the rows of a window's results have besides the results.
pub struct Window<'a> {
    pub start: Micros,
    pub end: Micros,
    pub encoder: &'a KeyEncoder,
    pub schema: &'a SchemaRef,
    /// The revision of a key's result, where results have one.
    pub revision: Option<&'a dyn Fn(&[u8]) -> i64>,
}

/// The rows whose keys `wanted` has.
pub fn only(rows: &Rows, wanted: &dyn Fn(&[u8]) -> bool) -> Rows {
    let kept: Vec<u32> = (0..rows.len() as u32)
        .filter(|&row| wanted(rows.keys.value(row as usize)))
        .collect();
    if kept.len() == rows.len() {
        return rows.clone();
    }
    rows.take(&kept)
}
