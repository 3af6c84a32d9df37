//! Rows that a webhook's receiver rejects for good: dead letters of the sink's own.
//!
//! They cannot be among the pipeline's dead letters: those belong to a checkpoint, and a rejection comes after the cut of
//! the checkpoint that waits for it. Invariant: a row counts as done only once it is on the disk here; after a crash it may
//! stand here twice.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::error::ConnectorError;
use crate::pipeline::plan::Existing;
use crate::sink::dead_letters::{DeadLetter, Place, Raw};
use crate::sink::line_file::LineFile;

/// `STATE/rejected/NAME.jsonl`
pub struct Rejects {
    sink: String,
    file: LineFile,
    path: String,
    count: AtomicU64,
}

impl Rejects {
    /// Goes on with what is there.
    pub fn open(sink: &str, state: &Path) -> Result<Self, ConnectorError> {
        let path = state.join("rejected").join(format!("{sink}.jsonl"));
        Ok(Self {
            sink: sink.to_owned(),
            file: LineFile::open(&path, Existing::Append, None)?,
            path: path.display().to_string(),
            count: AtomicU64::new(0),
        })
    }

    /// Returns when the row and the reason are on the disk.
    pub fn keep(&self, row: &[u8], reason: &str) -> Result<(), ConnectorError> {
        let letter = DeadLetter {
            place: Place::Sink(self.sink.clone()),
            position: Value::Null,
            reason: reason.to_owned(),
            raw: Raw::Row(String::from_utf8_lossy(row).into_owned()),
            plugin: None,
            key: None,
        };
        self.file.append((letter.to_json() + "\n").as_bytes())?;
        self.file.cut()?;
        self.file.sync()?;
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(
                "sink {}: the receiver rejects rows ({reason}); {count} so far in {}",
                self.sink,
                self.path
            );
        }
        Ok(())
    }
}
