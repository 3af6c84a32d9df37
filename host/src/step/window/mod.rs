//! Tumbling and sliding windows: rows are accumulated by pane and key; at the end of a window its panes are merged.
//!
//! State: for each pane the groups that changed since the last checkpoint in a table, older ones as segments that are
//! read when a window ends; a start reads none. Emits the results of a window when the watermark reaches its end, in
//! slices of key groups over several epochs if there are many. A row all of whose windows have ended (and whose allowed
//! lateness has passed) goes to the port `late`; one that is late for some of its windows counts in the others. With
//! allowed lateness a window is kept that much longer and its result given anew, whole and with the next `revision`,
//! for each epoch in which late rows changed it.
//!
//! Invariant: between two epochs without slices left every window that ends at or before the watermark has been given,
//! and every pane still needed is in `panes` or in the table.

mod closing;
mod corrections;
mod freezing;
mod frozen;
mod index;
pub mod panes;
mod part;
mod table;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};

use crate::batch::Batch;
use crate::expr::Aggregation;
use crate::limits;
use crate::pipeline::plan;
use crate::state::key::{EncodedKeys, KeyEncoder};
use crate::state::{Delta, SegmentId, Segments};
use crate::step::{Gauges, Output, Restore, Step, StepError, Tick};
use crate::time::{Micros, NO_TIME};
use closing::{Closing, Merger};
use corrections::Corrections;
use frozen::Frozen;
use panes::Panes;
use part::{Part, Source};
use table::Table;

pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";
pub const REVISION: &str = "revision";
const LATE_PORT: usize = 1;

/// The column of a window's start or end.
pub fn bound_field(name: &str) -> Field {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Field::new(name, utc, false)
}

/// 0 for the first result of a window and key, then 1, 2, ...
pub fn revision_field() -> Field {
    Field::new(REVISION, DataType::Int64, false)
}

/// What a window step is made of.
#[derive(Clone)]
pub struct WindowSpec {
    /// Indices of the key columns; none: one group for all rows.
    pub key: Vec<usize>,
    pub key_groups: u16,
    pub input: SchemaRef,
    /// Of the main port.
    pub output: SchemaRef,
    pub window: plan::Window,
}

/// A tumbling or sliding window on one worker.
pub struct Window {
    spec: WindowSpec,
    shape: Panes,
    encoder: KeyEncoder,
    table: Table,
    panes: BTreeMap<Micros, Vec<Part>>,
    /// Windows that are due, in the order of their ends.
    closing: VecDeque<Closing>,
    corrections: Option<Corrections>,
    /// Panes that are in the table, and maybe in `panes`.
    in_table: BTreeSet<Micros>,
    /// Frozen since the last checkpoint.
    fresh: Vec<Arc<Frozen>>,
    /// What the last checkpoint wrote, and under which names.
    written: Vec<(Arc<Frozen>, Vec<SegmentId>)>,
    /// The serial number of the next segments of a checkpoint.
    serial: (u64, u16),
    /// Segments that nothing needs since the last checkpoint.
    dropped: Vec<SegmentId>,
    source: Source,
    /// Those of this worker.
    groups: Range<u16>,
    /// Groups merged in an epoch when windows end.
    slice_rows: usize,
    /// The watermark before this epoch's tick; every window that ends by then is given or in `closing`.
    watermark: Micros,
    late: u64,
}

impl Window {
    /// # Panics
    /// If the window is a session, which is another step.
    pub fn new(spec: WindowSpec) -> Result<Self, StepError> {
        let types: Vec<DataType> = spec
            .key
            .iter()
            .map(|&i| spec.input.field(i).data_type().clone())
            .collect();
        let aggregation = &spec.window.aggregation;
        Ok(Self {
            shape: Panes::new(spec.window.kind).expect("a window of panes"),
            encoder: KeyEncoder::new(&types).map_err(StepError::Failed)?,
            table: Table::new(aggregation),
            panes: BTreeMap::new(),
            closing: VecDeque::new(),
            corrections: (spec.window.allowed_lateness > 0).then(|| Corrections::new(aggregation)),
            in_table: BTreeSet::new(),
            fresh: Vec::new(),
            written: Vec::new(),
            serial: (0, 0),
            dropped: Vec::new(),
            source: Source {
                reader: Arc::new(Nothing),
                states: aggregation.state_schema(),
                key_groups: spec.key_groups,
            },
            groups: 0..spec.key_groups,
            slice_rows: limits::WINDOW_SLICE_ROWS,
            watermark: NO_TIME,
            late: 0,
            spec,
        })
    }

    fn lateness(&self) -> Micros {
        self.spec.window.allowed_lateness
    }

    /// The watermark has passed the last window of this pane, and its allowed lateness.
    fn is_over(&self, pane: Micros) -> bool {
        self.shape.last_end(pane).saturating_add(self.lateness()) <= self.watermark
    }

    fn aggregation(&self) -> &Aggregation {
        &self.spec.window.aggregation
    }

    /// Takes rows none of which is late into the table, or into that of the corrections.
    fn accumulate(
        &mut self,
        batch: &Batch,
        out: &mut Output,
        correct: bool,
    ) -> Result<(), StepError> {
        let mut refused = Vec::new();
        let (inputs, kept) = self.aggregation().inputs(batch, &mut refused);
        for (row, reason) in refused {
            out.refuse(reason, batch.take(&[row]));
        }
        let taken;
        let batch = match kept {
            Some(kept) => {
                taken = batch.take(&kept);
                &taken
            }
            None => batch,
        };
        let columns = key_columns(batch, &self.spec.key);
        let keys = self.encoder.encode(&columns, batch.rows());
        let (table, in_table) = match &mut self.corrections {
            Some(corrections) if correct => (&mut corrections.table, None),
            _ => (&mut self.table, Some(&mut self.in_table)),
        };
        fill(table, in_table, keys, &batch.times, self.shape);
        table.update(&inputs).map_err(StepError::Failed)
    }

    /// Rows whose keys are too long for the state are refused, late ones go to their port; the others stay.
    fn admitted(&mut self, batch: Batch, out: &mut Output) -> Batch {
        let is_late = |&t: &Micros| self.is_over(self.shape.pane(t));
        // If the earliest row is not late, none is.
        let batch = if batch.times.iter().min().is_some_and(is_late) {
            let rows = 0..batch.rows() as u32;
            let (late, timely): (Vec<u32>, Vec<u32>) =
                rows.partition(|&r| is_late(&batch.times[r as usize]));
            self.late += late.len() as u64;
            out.push(LATE_PORT, batch.take(&late));
            batch.take(&timely)
        } else {
            batch
        };
        let columns = key_columns(&batch, &self.spec.key);
        let long: Vec<u32> = self
            .encoder
            .encode(&columns, batch.rows())
            .too_long()
            .map(|row| row as u32)
            .collect();
        if long.is_empty() {
            return batch;
        }
        for &row in &long {
            let reason = format!("its key is longer than {} bytes", limits::KEY_BYTES_MAX);
            out.refuse(reason, batch.take(&[row]));
        }
        let others: Vec<u32> = (0..batch.rows() as u32)
            .filter(|r| !long.contains(r))
            .collect();
        batch.take(&others)
    }

    /// Moves the table to the parts of its panes.
    fn rotate(&mut self) -> Result<(), StepError> {
        if self.table.is_empty() {
            return Ok(());
        }
        let frozen = self
            .table
            .freeze(self.spec.key_groups)
            .map_err(StepError::Failed)?;
        self.in_table.clear();
        self.add(frozen);
        Ok(())
    }

    fn add(&mut self, frozen: Arc<Frozen>) {
        for (pane, _) in frozen.panes() {
            let parts = self.panes.entry(*pane).or_default();
            parts.push(Part::Frozen(frozen.clone()));
        }
        self.fresh.push(frozen);
    }

    /// Queues the windows that end by `until` and were not due before.
    fn queue(&mut self, until: Micros) -> Result<(), StepError> {
        let (shape, after) = (self.shape, self.watermark);
        // Windows end at multiples of `every`: mostly none does, and then no pane needs to be looked at.
        if until.div_euclid(shape.every) == after.div_euclid(shape.every) {
            return Ok(());
        }
        let open = until.saturating_sub(shape.every);
        let known = self.panes.range(..=open).map(|(pane, _)| *pane);
        let due: BTreeSet<Micros> = known
            .chain(self.in_table.range(..=open).copied())
            .flat_map(|pane| shape.ends(pane, after, until))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.rotate()?;
        let slice = self.slice_rows;
        for end in due {
            let panes = self.panes.range(shape.of_window(end));
            let parts = panes.flat_map(|(pane, parts)| parts.iter().map(|p| (*pane, p.clone())));
            let bounds = (end.saturating_sub(shape.size), end);
            self.closing.push_back(Closing::new(
                bounds,
                parts.collect(),
                self.groups.clone(),
                slice,
            ));
        }
        Ok(())
    }

    /// Gives results of the windows that are due, a slice at least and as much as an epoch should.
    fn close(&mut self, out: &mut Output) -> Result<(), StepError> {
        let mut rows = 0;
        while let Some(closing) = self.closing.front_mut() {
            // Corrections need the first results to be out.
            if rows >= self.slice_rows && self.corrections.is_none() {
                return Ok(());
            }
            let slice = closing.next();
            let mut merger = Merger::new(&self.source, &self.spec.window.aggregation);
            rows += merger.add(&closing.parts, &slice).map_err(failed)?;
            let first = |_: &[u8]| 0;
            let window = closing::Window {
                start: closing.start,
                end: closing.end,
                encoder: &self.encoder,
                schema: &self.spec.output,
                revision: self.spec.window.revisions.then_some(&first),
            };
            merger.finish(&window, out)?;
            if closing.is_done() {
                self.closing.pop_front();
            }
        }
        Ok(())
    }

    /// Forgets panes whose windows are all over.
    fn forget(&mut self) {
        while let Some((&pane, _)) = self.panes.first_key_value()
            && self.is_over(pane)
        {
            let parts = self.panes.remove(&pane).unwrap_or_default();
            let stored = parts.iter().flat_map(freezing::stored);
            self.dropped.extend(stored);
        }
        let over = self.watermark.saturating_sub(self.lateness());
        if let Some(corrections) = &mut self.corrections {
            corrections.forget(over);
        }
    }
}

impl Step for Window {
    fn process(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        let batch = self.admitted(batch, out);
        if batch.rows() == 0 {
            return Ok(());
        }
        if self.corrections.is_none() {
            return self.accumulate(&batch, out, false);
        }
        let corrects = |row: &u32| {
            let pane = self.shape.pane(batch.times[*row as usize]);
            self.shape.first_end(pane) <= self.watermark
        };
        let (late, timely): (Vec<u32>, Vec<u32>) = (0..batch.rows() as u32).partition(corrects);
        for (rows, correct) in [(timely, false), (late, true)] {
            if !rows.is_empty() {
                self.accumulate(&batch.take(&rows), out, correct)?;
            }
        }
        Ok(())
    }

    fn tick(&mut self, time: Tick, out: &mut Output) -> Result<(), StepError> {
        self.correct(out)?;
        self.queue(time.watermark)?;
        self.watermark = time.watermark;
        self.close(out)?;
        if self.closing.is_empty() {
            self.forget();
        }
        self.check_memory()
    }

    fn done(&self) -> Option<Micros> {
        Some(match self.closing.front() {
            Some(closing) => closing.end - 1,
            None => self.watermark,
        })
    }

    fn freeze(&mut self, checkpoint: u64) -> Result<Delta, StepError> {
        self.delta(checkpoint)
    }

    fn restore(&mut self, state: &mut dyn Restore) -> Result<(), StepError> {
        self.take_back(state)
    }

    fn gauges(&self) -> Gauges {
        let written = self.written.iter().map(|(frozen, _)| frozen);
        let frozen: usize = self.fresh.iter().chain(written).map(|f| f.bytes()).sum();
        let corrections = self.corrections.as_ref().map_or(0, Corrections::bytes);
        Gauges {
            keys: self.table.groups() as u64,
            state_bytes: self.table.bytes() + frozen + corrections,
            late: self.late,
            ..Gauges::default()
        }
    }
}

impl Window {
    fn check_memory(&self) -> Result<(), StepError> {
        let what = "what changed in its windows since the last checkpoint takes";
        crate::step::check_memory(what, self.gauges().state_bytes)
    }
}

/// Tells `table` the pane and key of each row.
fn fill(
    table: &mut Table,
    mut in_table: Option<&mut BTreeSet<Micros>>,
    keys: &EncodedKeys,
    times: &[Micros],
    shape: Panes,
) {
    table.begin();
    let mut pane = shape.pane(times.first().copied().unwrap_or(0));
    let mut is_new = true;
    for (row, &time) in times.iter().enumerate() {
        // Neighbours mostly share a pane, and a division costs as much as a probe of the table.
        if time < pane || time - pane >= shape.every {
            pane = shape.pane(time);
            is_new = true;
        }
        if std::mem::take(&mut is_new)
            && let Some(in_table) = &mut in_table
        {
            in_table.insert(pane);
        }
        table.row(keys.hash(row), pane, keys.key(row));
    }
}

pub(super) fn key_columns(batch: &Batch, key: &[usize]) -> Vec<ArrayRef> {
    key.iter()
        .map(|&i| batch.columns.column(i).clone())
        .collect()
}

fn failed(cause: String) -> StepError {
    StepError::Failed(format!("reading the state of a window: {cause}"))
}

/// Before a state is taken back.
pub(super) struct Nothing;

impl Segments for Nothing {
    fn read(&self, ids: &[SegmentId]) -> Result<Option<Vec<Vec<u8>>>, String> {
        Ok(ids.is_empty().then(Vec::new))
    }
}
