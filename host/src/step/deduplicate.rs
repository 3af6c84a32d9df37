//! The first row of a key to arrive passes; rows whose event time is at most `within` after its are dropped.
//!
//! State: for each key the event time of the row that passed, with an alarm when nothing on time can fall within its
//! reach any more. A row beyond the reach passes and counts as first again; dropped rows do not extend it. A row below the
//! watermark goes to the port `late`: what it repeats may be forgotten.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::window::key_columns;
use crate::batch::Batch;
use crate::limits;
use crate::plugin::StateLayout;
use crate::state::Delta;
use crate::state::key::KeyEncoder;
use crate::state::keyed::KeyedTable;
use crate::step::{Gauges, Output, Restore, Step, StepError, Tick, hot};
use crate::time::{Micros, NO_TIME};

const LATE_PORT: usize = 1;

/// `deduplicate` on one worker.
pub struct Deduplicate {
    key: Arc<[usize]>,
    within: Micros,
    encoder: KeyEncoder,
    /// One word a key: the time of the row that passed.
    table: KeyedTable,
    due: Vec<u32>,
    /// Of the rows of a batch.
    slots: Vec<u32>,
    /// The watermark before this epoch's tick.
    watermark: Micros,
    late: u64,
}

impl Deduplicate {
    /// `key`: indices of the columns of `input` that make a row the same; `within` in microseconds.
    pub fn new(
        key: &[usize],
        within: Micros,
        input: &SchemaRef,
        key_groups: u16,
    ) -> Result<Self, StepError> {
        let types: Vec<_> = key
            .iter()
            .map(|&i| input.field(i).data_type().clone())
            .collect();
        Ok(Self {
            key: key.into(),
            within,
            encoder: KeyEncoder::new(&types).map_err(StepError::Failed)?,
            table: KeyedTable::new(StateLayout::Fixed(1), key_groups),
            due: Vec::new(),
            slots: Vec::new(),
            watermark: NO_TIME,
            late: 0,
        })
    }
}

impl Step for Deduplicate {
    fn process(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        let keys = self
            .encoder
            .encode(&key_columns(&batch, &self.key), batch.rows());
        let long: Vec<usize> = keys.too_long().collect();
        let (mut passed, mut late) = (Vec::new(), Vec::new());
        self.slots.clear();
        for (row, &time) in batch.times.iter().enumerate() {
            let no_slot = time < self.watermark || long.contains(&row);
            self.slots.push(match no_slot {
                true => u32::MAX,
                false => self.table.slot(keys.hash(row), keys.key(row)),
            });
        }
        self.table.read_back().map_err(StepError::Failed)?;
        for (row, &time) in batch.times.iter().enumerate() {
            if time < self.watermark {
                late.push(row as u32);
                continue;
            }
            if long.contains(&row) {
                let reason = format!("its key is longer than {} bytes", limits::KEY_BYTES_MAX);
                out.refuse(reason, batch.take(&[row as u32]));
                continue;
            }
            let slot = self.slots[row];
            let first = self.table.words(slot)[0] as Micros;
            if self.table.present(slot) && time.saturating_sub(first) <= self.within {
                continue;
            }
            self.table.words_mut(slot)[0] = time as u64;
            // From the next microsecond on every row that is on time lies beyond the reach.
            let end = time.saturating_add(self.within).saturating_add(1);
            self.table.set_alarm(slot, end);
            passed.push(row as u32);
        }
        self.late += late.len() as u64;
        for (port, rows) in [(0, passed), (LATE_PORT, late)] {
            match rows.len() {
                0 => {}
                n if n == batch.rows() => out.push(port, batch.clone()),
                _ => out.push(port, batch.take(&rows)),
            }
        }
        Ok(())
    }

    fn tick(&mut self, time: Tick, _out: &mut Output) -> Result<(), StepError> {
        self.table.ring(time.watermark);
        while (self.table.next_due(&mut self.due)).map_err(StepError::Failed)? {
            for slot in self.due.drain(..) {
                self.table.forget(slot);
            }
        }
        self.watermark = time.watermark;
        hot::end_epoch(&mut self.table, "the keys it has seen take")
    }

    fn freeze(&mut self, checkpoint: u64) -> Result<Delta, StepError> {
        Ok(Delta {
            changes: self.table.freeze(checkpoint),
            ..Delta::default()
        })
    }

    fn restore(&mut self, state: &mut dyn Restore) -> Result<(), StepError> {
        self.watermark = state.watermark();
        hot::restore(&mut self.table, state)
    }

    fn gauges(&self) -> Gauges {
        Gauges {
            late: self.late,
            ..hot::gauges(&self.table)
        }
    }
}

#[cfg(test)]
mod tests;
