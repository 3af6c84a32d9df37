//! Operators. One file each; adding one touches its file and `pipeline::plan`.
//!
//! A step knows no Kafka, no file, no clock: rows, watermarks and its own state come in, rows, dead letters and state changes go out.

pub mod deduplicate;
pub mod groups;
mod hot;
pub mod join;
pub mod keyed;
pub mod lookup;
pub mod order;
pub mod project;
pub mod session;
#[cfg(test)]
mod testing;
pub mod top;
pub mod transform;
pub mod window;

use std::ops::Range;
use std::sync::Arc;

use crate::batch::Batch;
use crate::plugin::Instance;
use crate::state::stored::StoredKeys;
use crate::state::{Delta, SegmentId, Segments};
use crate::time::Micros;

/// An operator as one worker runs it.
pub trait Step: Send {
    /// Rows of this epoch from input `input`. Called zero or more times before [`tick`](Self::tick).
    fn process(&mut self, input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError>;

    /// All input of this epoch was processed and event time moves to `time.watermark` (never below the one before).
    fn tick(&mut self, _time: Tick, _out: &mut Output) -> Result<(), StepError> {
        Ok(())
    }

    /// What changed since the last freeze, between two epochs, for this checkpoint.
    fn freeze(&mut self, _checkpoint: u64) -> Result<Delta, StepError> {
        Ok(Delta::default())
    }

    /// How far the results of ticks have been given: all of windows that end by then. `None`: each tick gives all of
    /// its results. A step that gives them in slices is ticked on, epoch after epoch, with or without new rows; no
    /// checkpoint falls between the slices.
    fn done(&self) -> Option<Micros> {
        None
    }

    /// Takes back what checkpoints hold. Called once, before any row.
    fn restore(&mut self, _state: &mut dyn Restore) -> Result<(), StepError> {
        Ok(())
    }

    /// Goes on with another version of the plugin, between two epochs.
    fn swap(&mut self, _instance: Instance) {}

    /// What the operator has to tell of itself, for status and limits.
    fn gauges(&self) -> Gauges {
        Gauges::default()
    }
}

/// How far time is at the end of an epoch, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    pub watermark: Micros,
    /// Wall time, for processing-time alarms.
    pub now: Micros,
}

/// The decided state of one step, as one worker may read it.
pub trait Restore {
    /// The key groups of this worker.
    fn key_groups(&self) -> Range<u16>;
    /// The step's watermark at the checkpoint.
    fn watermark(&self) -> Micros;
    /// True for key groups of this worker.
    fn owns(&self, hash: u64) -> bool;
    /// The keys of this worker: a hot table is restored from them and reads them back.
    fn keys(&self) -> Arc<dyn StoredKeys>;
    /// Bytes of them that may stay in memory on this worker.
    fn memory(&self) -> usize;
    /// Every key of this worker with its value, read now.
    fn entries(
        &mut self,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), String>;
    /// The names of the step's segments that may hold keys of this worker, ascending.
    fn segments(&mut self) -> Result<Vec<SegmentId>, String>;
    /// Reads them, now and while the pipeline runs.
    fn reader(&self) -> Arc<dyn Segments>;
}

/// Readings of an operator on one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Keys with state, estimated where not all are in memory.
    pub keys: u64,
    /// Keys that were evicted from memory since the start.
    pub evicted: u64,
    /// Keys that were asked for on disk since the start.
    pub read_back: u64,
    /// Keys that were forgotten after `state_ttl` since the start.
    pub forgotten: u64,
    /// Keyed state in memory.
    pub state_bytes: usize,
    /// Rows that wait for the watermark.
    pub waiting_bytes: usize,
    /// Time spent inside the plugin.
    pub plugin_nanos: u64,
    pub late: u64,
}

/// What a step gives in an epoch.
#[derive(Debug, Default)]
pub struct Output {
    /// Batches by port, in the order of the step's ports.
    pub ports: Vec<Vec<Batch>>,
    pub refused: Vec<Refused>,
}

/// A row that a step could not process, on its way to the dead letters.
#[derive(Debug, Clone)]
pub struct Refused {
    pub reason: String,
    /// The one row, for its origin and its JSON; `None` for an alarm.
    pub row: Option<Batch>,
    /// The key, as JSON, of an alarm that failed.
    pub key: Option<serde_json::Value>,
    /// Digest of the plugin that failed, if it was one.
    pub plugin: Option<String>,
}

/// Refuses to hold more state in memory than a worker may; `what` begins the sentence.
pub fn check_memory(what: &str, bytes: usize) -> Result<(), StepError> {
    let most = crate::limits::STATE_MEMORY_BYTES_MAX;
    if bytes <= most {
        return Ok(());
    }
    Err(StepError::Failed(format!(
        "{what} {} MB in memory on one worker, more than the {} MB a worker may use; use more workers, or keep less a key",
        bytes >> 20,
        most >> 20
    )))
}

/// A step cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The pipeline pauses: somebody has to look.
    #[error("{0}")]
    Paused(String),
    #[error("{0}")]
    Failed(String),
}

impl Output {
    pub fn new(ports: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| Vec::new()).collect(),
            refused: Vec::new(),
        }
    }

    /// Rows for port `port`; empty batches are left out.
    pub fn push(&mut self, port: usize, batch: Batch) {
        if batch.rows() > 0 {
            self.ports[port].push(batch);
        }
    }

    pub fn refuse(&mut self, reason: impl Into<String>, row: Batch) {
        debug_assert_eq!(row.rows(), 1);
        self.refused.push(Refused {
            reason: reason.into(),
            row: Some(row),
            key: None,
            plugin: None,
        });
    }
}
