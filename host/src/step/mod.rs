//! Operators. One file each; adding one touches its file and `pipeline::plan`.
//!
//! A step knows no Kafka, no file, no clock: rows, watermarks and its own state come in, rows, dead letters and state changes go out.

pub mod lookup;
pub mod project;

use crate::batch::Batch;
use crate::time::Micros;

/// An operator as one worker runs it.
pub trait Step: Send {
    /// Rows of this epoch from input `input`. Called zero or more times before [`tick`](Self::tick).
    fn process(&mut self, input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError>;

    /// All input of this epoch was processed and the step's watermark is now `watermark` (never below the one before).
    fn tick(&mut self, _watermark: Micros, _out: &mut Output) -> Result<(), StepError> {
        Ok(())
    }
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
