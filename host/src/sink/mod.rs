//! Where rows go: the seam between the engine and files, Kafka and the console.
//!
//! A checkpoint needs two things of a sink: where its output ended at the cut, quickly, between two epochs; and later,
//! while the next epochs run, the word that everything up to there is durable.

pub mod console;
pub mod dead_letters;
pub mod file;
mod line_file;

use serde_json::Value;

use crate::batch::Batch;
use crate::error::ConnectorError;

/// A sink of a pipeline, shared by all workers.
pub trait Sink: Send + Sync {
    /// Takes rows of input `input` (index into the sink's `from`). May block for back-pressure, bounded. The order of calls
    /// of one thread is kept.
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError>;

    /// Between two epochs: the end of the output so far, as it will stand in the checkpoint.
    fn cut(&self) -> Result<Value, ConnectorError>;

    /// Returns when all output up to `cut` is durable. Called on the checkpoint thread while workers go on writing.
    fn sync(&self, cut: &Value) -> Result<(), ConnectorError>;

    /// Rows written since this process started.
    fn rows(&self) -> u64;

    /// The process ends: waiting for a broker that is away, now or later, fails with [`ConnectorError::Stopped`]. Not part
    /// of a clean stop, which syncs first.
    fn stop(&self) {}
}

impl<S: Sink + ?Sized> Sink for std::sync::Arc<S> {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        (**self).write(input, batch)
    }

    fn cut(&self) -> Result<Value, ConnectorError> {
        (**self).cut()
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        (**self).sync(cut)
    }

    fn rows(&self) -> u64 {
        (**self).rows()
    }

    fn stop(&self) {
        (**self).stop();
    }
}
