//! Where rows go: the seam between the engine and files, Kafka and the console.
//!
//! A checkpoint needs two things of a sink: where its output ended at the cut, quickly, between two epochs; and later,
//! while the next epochs run, the word that everything up to there is durable. A sink whose output becomes visible only
//! by a decided checkpoint (a *follower*) rolls forward when it is told so, and again when it is opened with that
//! checkpoint's cut: a crash may lie between the decision and the telling.

mod backoff;
pub mod carried;
pub mod console;
#[cfg(test)]
pub(crate) mod crashes;
pub mod dead_letters;
mod directory;
mod durable;
pub mod file;
mod line_file;
mod lines;
pub mod parquet;
pub mod postgres;
pub mod rolling;
pub mod staging;
pub mod webhook;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::time::Micros;

/// What a sink that stages or rolls needs of the run it belongs to.
#[derive(Clone)]
pub struct Place {
    /// A directory of its own within the state directory; it need not exist yet.
    pub dir: PathBuf,
    /// For the names of its files: `PIPELINE-SINK-ID`, other for every state, so that files of two states never meet.
    pub label: String,
    /// Wall time.
    pub now: Arc<dyn Fn() -> Micros + Send + Sync>,
}

/// A sink of a pipeline, shared by all workers.
pub trait Sink: Send + Sync {
    /// Takes rows of input `input` (index into the sink's `from`). May block for back-pressure, bounded. The order of calls
    /// of one thread is kept.
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError>;

    /// Between two epochs: the end of the output so far, as it will stand in the checkpoint. `last`: a bounded run has
    /// read everything, so what is held back for a later checkpoint is to become visible with this one.
    fn cut(&self, last: bool) -> Result<Value, ConnectorError>;

    /// Returns when all output up to `cut` is durable. Called on the checkpoint thread while workers go on writing.
    fn sync(&self, cut: &Value) -> Result<(), ConnectorError>;

    /// The checkpoint of `cut` is decided: what became true with it is made visible. Called on the checkpoint thread after
    /// [`sync`](Self::sync) and before the next [`cut`](Self::cut).
    fn decided(&self, _cut: &Value) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// Something held back is due by the clock: a checkpoint is wanted even if no row comes. Asked every epoch.
    fn is_due(&self) -> bool {
        false
    }

    /// Rows written since this process started.
    fn rows(&self) -> u64;

    /// The process ends: waiting for a broker that is away, now or later, fails with [`ConnectorError::Stopped`]. Not part
    /// of a clean stop, which syncs first.
    fn stop(&self) {}
}

impl<S: Sink + ?Sized> Sink for Arc<S> {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        (**self).write(input, batch)
    }

    fn cut(&self, last: bool) -> Result<Value, ConnectorError> {
        (**self).cut(last)
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        (**self).sync(cut)
    }

    fn decided(&self, cut: &Value) -> Result<(), ConnectorError> {
        (**self).decided(cut)
    }

    fn is_due(&self) -> bool {
        (**self).is_due()
    }

    fn rows(&self) -> u64 {
        (**self).rows()
    }

    fn stop(&self) {
        (**self).stop();
    }
}
