//! Operators. One file each; adding one touches its file and `pipeline::plan`.
//!
//! A step knows no Kafka, no file, no clock: rows, watermarks and its own state come in, rows, dead letters and state changes go out.

pub mod groups;
pub mod keyed;
pub mod lookup;
pub mod order;
pub mod project;
pub mod transform;

use crate::batch::Batch;
use crate::plugin::Instance;
use crate::state::Delta;
use crate::time::Micros;

/// An operator as one worker runs it.
pub trait Step: Send {
    /// Rows of this epoch from input `input`. Called zero or more times before [`tick`](Self::tick).
    fn process(&mut self, input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError>;

    /// All input of this epoch was processed and event time moves to `time.watermark` (never below the one before).
    fn tick(&mut self, _time: Tick, _out: &mut Output) -> Result<(), StepError> {
        Ok(())
    }

    /// What changed since the last freeze, between two epochs. `checkpoint` and `worker` make segment ids unique.
    fn freeze(&mut self, _checkpoint: u64, _worker: usize) -> Delta {
        Delta::default()
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
    fn worker(&self) -> usize;
    /// The step's watermark at the checkpoint.
    fn watermark(&self) -> Micros;
    /// True for key groups of this worker.
    fn owns(&self, hash: u64) -> bool;
    /// Every key of this worker with its value.
    fn entries(
        &mut self,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), String>;
    /// All segments of the step, of every worker, ascending by id.
    fn segments(&mut self) -> Result<Vec<(u64, Vec<u8>)>, String>;
}

/// Readings of an operator on one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    pub keys: u64,
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
