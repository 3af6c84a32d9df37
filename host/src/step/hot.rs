//! What steps with a hot table have in common: taking their state back, keeping within memory, readings.

use crate::state::keyed::KeyedTable;
use crate::step::{Gauges, Restore, StepError, check_memory};

/// Takes back what checkpoints hold of a step's keys.
pub fn restore(table: &mut KeyedTable, state: &mut dyn Restore) -> Result<(), StepError> {
    table.resume_at(state.watermark());
    (table.restore(state.keys(), state.memory())).map_err(StepError::Failed)
}

/// The epoch is over: slots taken in it are void. `what` begins the sentence that refuses to hold more.
pub fn end_epoch(table: &mut KeyedTable, what: &str) -> Result<(), StepError> {
    table.maintain().map_err(StepError::Failed)?;
    check_memory(what, table.bytes())
}

pub fn gauges(table: &KeyedTable) -> Gauges {
    let counts = table.counts();
    Gauges {
        keys: table.keys_estimate(),
        evicted: counts.evicted,
        read_back: counts.read_back,
        forgotten: counts.forgotten,
        state_bytes: table.bytes(),
        ..Gauges::default()
    }
}
