//! Records and rows that were refused, with the reason: written beside the output, never lost.
//!
//! Invariant: a dead letter is one JSON object a line, `{ source or step, position, reason, raw }`, whatever the record
//! was; it is part of a checkpoint like the output.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use serde_json::{Map, Value};

use super::line_file::LineFile;
use crate::error::ConnectorError;
use crate::limits::DEAD_LETTER_RAW_BYTES_MAX;
use crate::pipeline::plan::Existing;

/// A refused record, row or alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    pub place: Place,
    /// As [`crate::source::Source::describe`] gives it; null where the row's origin is not known any more.
    pub position: Value,
    /// A sentence for people.
    pub reason: String,
    pub raw: Raw,
    /// Digest of the plugin that failed.
    pub plugin: Option<String>,
    /// The key of an alarm that failed.
    pub key: Option<Value>,
}

/// Where it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Source(String),
    Step(String),
    Sink(String),
}

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// The record as it came.
    Bytes(Vec<u8>),
    /// A row as the text of a JSON object, see [`crate::format::encode::row_json`].
    Row(String),
    /// An alarm has neither.
    None,
}

/// Where dead letters go, shared by all workers.
pub trait DeadLetters: Send + Sync {
    fn write(&self, letters: &[DeadLetter]) -> Result<(), ConnectorError>;

    /// As [`crate::sink::Sink::cut`].
    fn cut(&self) -> Result<Value, ConnectorError>;

    /// As [`crate::sink::Sink::sync`].
    fn sync(&self, cut: &Value) -> Result<(), ConnectorError>;

    /// Letters written since this process started.
    fn count(&self) -> u64;

    /// As [`crate::sink::Sink::stop`].
    fn stop(&self) {}
}

impl DeadLetter {
    /// The letter as a JSON object without a newline. `raw` is cut to [`DEAD_LETTER_RAW_BYTES_MAX`], and then
    /// `raw_bytes` tells how long it was.
    pub fn to_json(&self) -> String {
        let mut letter = Map::new();
        let (kind, name) = match &self.place {
            Place::Source(name) => ("source", name),
            Place::Step(name) => ("step", name),
            Place::Sink(name) => ("sink", name),
        };
        letter.insert(kind.to_owned(), name.as_str().into());
        letter.insert("position".to_owned(), self.position.clone());
        letter.insert("reason".to_owned(), self.reason.as_str().into());
        self.insert_raw(&mut letter);
        if let Some(plugin) = &self.plugin {
            letter.insert("plugin".to_owned(), plugin.as_str().into());
        }
        if let Some(key) = &self.key {
            letter.insert("key".to_owned(), key.clone());
        }
        Value::Object(letter).to_string()
    }

    fn insert_raw(&self, letter: &mut Map<String, Value>) {
        let (bytes, text) = match &self.raw {
            Raw::Bytes(bytes) => (bytes.as_slice(), std::str::from_utf8(bytes).ok()),
            Raw::Row(row) => (row.as_bytes(), Some(row.as_str())),
            Raw::None => return,
        };
        match text {
            Some(text) => {
                let end = text.floor_char_boundary(DEAD_LETTER_RAW_BYTES_MAX);
                letter.insert("raw".to_owned(), text[..end].into());
            }
            None => {
                let kept = &bytes[..bytes.len().min(DEAD_LETTER_RAW_BYTES_MAX)];
                let text = base64::engine::general_purpose::STANDARD.encode(kept);
                letter.insert("raw_base64".to_owned(), text.into());
            }
        }
        if bytes.len() > DEAD_LETTER_RAW_BYTES_MAX {
            letter.insert("raw_bytes".to_owned(), bytes.len().into());
        }
    }
}

/// Dead letters as JSON lines in a file, exactly once with the checkpoint.
#[derive(Debug)]
pub struct FileDeadLetters {
    file: LineFile,
    count: AtomicU64,
}

impl FileDeadLetters {
    /// Opens the file; `resume` is the last checkpoint's [`cut`](DeadLetters::cut). At a first start letters are
    /// appended to what is there: nobody wants to lose those of an earlier life of the pipeline.
    pub fn open(path: &Path, resume: Option<&Value>) -> Result<Self, ConnectorError> {
        Ok(Self {
            file: LineFile::open(path, Existing::Append, resume)?,
            count: AtomicU64::new(0),
        })
    }
}

impl DeadLetters for FileDeadLetters {
    fn write(&self, letters: &[DeadLetter]) -> Result<(), ConnectorError> {
        let lines: String = letters.iter().map(|l| l.to_json() + "\n").collect();
        self.file.append(lines.as_bytes())?;
        self.count
            .fetch_add(letters.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self) -> Result<Value, ConnectorError> {
        self.file.cut()
    }

    fn sync(&self, _cut: &Value) -> Result<(), ConnectorError> {
        self.file.sync()
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
