//! Of all rows of one window the first `n` in an order.
//!
//! Stands behind a window step and reads its results. Keeps the best rows of windows that are not complete yet, in memory
//! and as one segment that each checkpoint in which they changed replaces. Emits a window's rows once the watermark is
//! above them: all workers have given theirs then. Nulls come last in either direction; rows that are equal in every
//! column of the order come in the order of all their columns, so that the result does not depend on arrival.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};

use super::order::{decode, encode};
use super::window::key_columns;
use crate::batch::Batch;
use crate::pipeline::plan;
use crate::state::key::KeyEncoder;
use crate::state::{Delta, Fault, PutSegment, SegmentId, SegmentSource};
use crate::step::{Output, Restore, Step, StepError, Tick};
use crate::time::Micros;

/// `top` on one worker.
pub struct Top {
    spec: plan::Top,
    schema: SchemaRef,
    rows: RowConverter,
    encoder: KeyEncoder,
    /// By window, end first: its rows, best first.
    windows: BTreeMap<(Micros, Micros), Batch>,
    /// The segments that hold `windows` as they were at the last checkpoint.
    stored: Vec<SegmentId>,
    changed: bool,
    groups: Range<u16>,
}

impl Top {
    /// For rows of `schema`.
    pub fn new(spec: plan::Top, schema: SchemaRef, key_groups: u16) -> Result<Self, StepError> {
        let field = |i: usize, descending| {
            let options = SortOptions {
                descending,
                nulls_first: false,
            };
            SortField::new_with_options(schema.field(i).data_type().clone(), options)
        };
        let by = spec.by.iter().map(|&(i, descending)| field(i, descending));
        let rest = (0..schema.fields().len()).map(|i| field(i, false));
        let rows = RowConverter::new(by.chain(rest).collect());
        let types = spec.key().map(|i| schema.field(i).data_type().clone());
        Ok(Self {
            encoder: KeyEncoder::new(&types).map_err(StepError::Failed)?,
            rows: rows.map_err(|e| StepError::Failed(e.to_string()))?,
            schema,
            spec,
            windows: BTreeMap::new(),
            stored: Vec::new(),
            changed: false,
            groups: 0..key_groups,
        })
    }

    /// The best rows of `batch`, best first.
    fn best(&self, batch: &Batch) -> Result<Batch, StepError> {
        let columns = batch.columns.columns();
        let by = self.spec.by.iter().map(|&(i, _)| columns[i].clone());
        let all: Vec<ArrayRef> = by.chain(columns.iter().cloned()).collect();
        let rows = self
            .rows
            .convert_columns(&all)
            .map_err(|e| StepError::Failed(e.to_string()))?;
        let mut order: Vec<u32> = (0..batch.rows() as u32).collect();
        order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        order.truncate(self.spec.n);
        Ok(batch.take(&order))
    }

    fn add(&mut self, window: (Micros, Micros), rows: Batch) -> Result<(), StepError> {
        let all = match self.windows.remove(&window) {
            Some(before) => Batch::concat(&[before, rows]).expect("two batches"),
            None => rows,
        };
        let best = self.best(&all)?;
        self.windows.insert(window, best);
        Ok(())
    }

    fn take_rows(&mut self, batch: &Batch) -> Result<(), StepError> {
        let [starts, ends] = self.spec.key().map(|bound| {
            let times = batch.columns.column(bound);
            times.as_primitive::<TimestampMicrosecondType>().values()
        });
        let mut by_window: BTreeMap<(Micros, Micros), Vec<u32>> = BTreeMap::new();
        for (row, window) in ends.iter().zip(starts).enumerate() {
            by_window
                .entry((*window.0, *window.1))
                .or_default()
                .push(row as u32);
        }
        for (window, rows) in by_window {
            self.add(window, batch.take(&rows))?;
        }
        Ok(())
    }
}

/// The rows of windows that are not complete, on their way into a checkpoint.
struct Pending {
    id: SegmentId,
    rows: Batch,
}

impl SegmentSource for Pending {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        put(self.id, &encode(&self.rows))
    }
}

impl Step for Top {
    fn process(&mut self, _input: usize, batch: Batch, _out: &mut Output) -> Result<(), StepError> {
        self.changed = true;
        self.take_rows(&batch)
    }

    fn tick(&mut self, time: Tick, out: &mut Output) -> Result<(), StepError> {
        while let Some(entry) = self.windows.first_entry() {
            // The results of a window have one time.
            if entry.get().times[0] >= time.watermark {
                break;
            }
            self.changed = true;
            out.push(0, entry.remove());
        }
        Ok(())
    }

    fn freeze(&mut self, checkpoint: u64) -> Result<Delta, StepError> {
        let mut delta = Delta::default();
        if !std::mem::take(&mut self.changed) {
            return Ok(delta);
        }
        delta.dropped.append(&mut self.stored);
        let all: Vec<Batch> = self.windows.values().cloned().collect();
        if let Some(rows) = Batch::concat(&all) {
            let id = SegmentId {
                millis: 0,
                checkpoint,
                serial: 0,
                first: self.groups.start,
                last: self.groups.end - 1,
            };
            delta.segments.push(Box::new(Pending { id, rows }));
            self.stored.push(id);
        }
        Ok(delta)
    }

    fn restore(&mut self, state: &mut dyn Restore) -> Result<(), StepError> {
        self.groups = state.key_groups();
        let reader = state.reader();
        let failed = |e: String| StepError::Failed(format!("rows of windows: {e}"));
        for id in state.segments().map_err(failed)? {
            let bytes = reader.read(&[id]).map_err(failed)?;
            let bytes = bytes.ok_or_else(|| failed(format!("{id:?} is missing")))?;
            let rows = decode(&bytes[0], &self.schema).map_err(failed)?;
            // After a change of workers several have a share in a segment.
            let keys = self
                .encoder
                .encode(&key_columns(&rows, &self.spec.key()), rows.rows());
            let mine = (0..rows.rows() as u32).filter(|&r| state.owns(keys.hash(r as usize)));
            let mine: Vec<u32> = mine.collect();
            self.take_rows(&rows.take(&mine))?;
            self.stored.push(id);
            self.changed = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
