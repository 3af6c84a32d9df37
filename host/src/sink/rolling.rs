//! Rows as JSON lines or CSV in files of a directory, each finished after some time or size; exactly once with the
//! checkpoint.
//!
//! The open file has a hidden name and grows with every checkpoint; a restart cuts it back. The cut at which it is due
//! names it as finished: it is synced before that checkpoint is committed and gets its visible name when it is decided.
//! Invariant: a visible file is complete and never changes; no number is given to two visible files of one state.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::{DueAt, claim, entries, publish, visible};
use super::durable::remove_file;
use super::line_file::LineFile;
use super::lines::LineWriter;
use super::{Place, Sink};
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::pipeline::plan::{self, Existing, LineFormat, Roll, SinkConnector};
use crate::time::Micros;

/// A directory of files of lines.
pub struct RollingSink {
    place: Place,
    dir: PathBuf,
    roll: Roll,
    extension: &'static str,
    lines: LineWriter,
    state: Mutex<State>,
    due: DueAt,
    rows: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the open file, or of the next.
    sequence: u64,
    open: Option<Open>,
    /// Finished, but not decided.
    finished: Vec<Open>,
}

/// A file under its hidden name.
#[derive(Debug, Clone)]
struct Open {
    file: Arc<LineFile>,
    visible: PathBuf,
    /// Wall time of its first row.
    since: Micros,
}

/// What a checkpoint keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Cut {
    sequence: u64,
    /// [`LineWriter::kind`] of the open file.
    kind: String,
    open: Option<OpenCut>,
    finished: Vec<OpenCut>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpenCut {
    hidden: PathBuf,
    visible: PathBuf,
    since: Micros,
    /// Of the file itself.
    file: Value,
}

impl RollingSink {
    /// Opens the directory of `sink`, which must have such a connector. `resume` is the last checkpoint's
    /// [`cut`](Sink::cut); without one this is a first start. What that checkpoint finished is made visible, what was
    /// written for later ones is removed.
    pub fn open(
        sink: &plan::Sink,
        place: Place,
        resume: Option<&Value>,
    ) -> Result<Self, ConnectorError> {
        let SinkConnector::Files {
            dir,
            existing,
            format,
            roll,
        } = &sink.connector
        else {
            panic!("sink {} is not a directory of lines", sink.name);
        };
        let opened = Self {
            place,
            dir: dir.clone(),
            roll: *roll,
            extension: match format {
                LineFormat::Json => "jsonl",
                LineFormat::Csv => "csv",
            },
            lines: LineWriter::new(sink, *format),
            state: Mutex::default(),
            due: DueAt::default(),
            rows: AtomicU64::new(0),
        };
        match resume {
            Some(cut) => opened.resume(cut)?,
            None => claim(dir, *existing)?,
        }
        Ok(opened)
    }

    fn resume(&self, cut: &Value) -> Result<(), ConnectorError> {
        let cut = Cut::deserialize(cut).map_err(|cause| {
            let cause = format!(
                "the checkpoint's note on it is of another kind of sink: give the sink another name ({cause})"
            );
            ConnectorError::failed(self.dir.display().to_string(), cause)
        })?;
        self.roll_forward(&cut)?;
        self.remove_orphans(&cut)?;
        let mut state = self.lock();
        state.sequence = cut.sequence;
        let Some(open) = cut.open else {
            return Ok(());
        };
        let open = Open {
            file: Arc::new(reopen(&open)?),
            visible: open.visible,
            since: open.since,
        };
        if cut.kind == self.lines.kind() {
            self.due.set(Some(open.since), &self.roll);
            state.open = Some(open);
        } else {
            // The pipeline was edited: these rows and the next do not belong into one file.
            state.sequence += 1;
            state.finished.push(open);
            self.due.now();
        }
        Ok(())
    }

    /// Does what [`decided`](Sink::decided) does, if it was not done.
    fn roll_forward(&self, cut: &Cut) -> Result<(), ConnectorError> {
        for finished in cut.finished.iter().filter(|f| f.hidden.exists()) {
            reopen(finished)?;
            publish(&finished.hidden, &finished.visible)?;
        }
        Ok(())
    }

    /// Removes the sink's own hidden files that the checkpoint does not know.
    fn remove_orphans(&self, cut: &Cut) -> Result<(), ConnectorError> {
        let prefix = format!(".{}-", self.place.label);
        let known = cut.open.as_ref().map(|open| open.hidden.as_path());
        for name in entries(&self.dir)? {
            let path = self.dir.join(&name);
            if name.starts_with(&prefix) && Some(path.as_path()) != known {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// The open file; begins one if there is none.
    fn open_file(&self) -> Result<Arc<LineFile>, ConnectorError> {
        let mut state = self.lock();
        if let Some(open) = &state.open {
            return Ok(open.file.clone());
        }
        let (dir, label) = (&self.dir, &self.place.label);
        let visible = visible(dir, label, state.sequence, self.extension);
        let file = LineFile::open(&hidden(&visible), Existing::Overwrite, None)?;
        self.lines.begin(&file)?;
        let (file, since) = (Arc::new(file), (self.place.now)());
        self.due.set(Some(since), &self.roll);
        state.open = Some(Open {
            file: file.clone(),
            visible,
            since,
        });
        Ok(file)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for RollingSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        if batch.rows() == 0 {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(batch.rows() * 128);
        self.lines.write(input, batch, &mut lines);
        self.open_file()?.append(&lines)?;
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, last: bool) -> Result<Value, ConnectorError> {
        let mut state = self.lock();
        let now = (self.place.now)();
        let due = |open: &Open| last || self.roll.is_due(open.since, now, open.file.length());
        if let Some(finished) = state.open.take_if(|open| due(open)) {
            state.finished.push(finished);
            state.sequence += 1;
        }
        self.due
            .set(state.open.as_ref().map(|o| o.since), &self.roll);
        let cut = Cut {
            sequence: state.sequence,
            kind: self.lines.kind(),
            open: state.open.as_ref().map(Open::cut).transpose()?,
            finished: state
                .finished
                .iter()
                .map(Open::cut)
                .collect::<Result<_, _>>()?,
        };
        serde_json::to_value(cut)
            .map_err(|cause| ConnectorError::failed(self.dir.display().to_string(), cause))
    }

    fn sync(&self, _cut: &Value) -> Result<(), ConnectorError> {
        let files: Vec<_> = {
            let state = self.lock();
            state.finished.iter().chain(&state.open).cloned().collect()
        };
        files.iter().try_for_each(|open| open.file.sync())
    }

    fn decided(&self, cut: &Value) -> Result<(), ConnectorError> {
        let named = cut["finished"].as_array().map_or(0, Vec::len);
        let finished: Vec<_> = {
            let mut state = self.lock();
            let named = named.min(state.finished.len());
            state.finished.drain(..named).collect()
        };
        finished
            .iter()
            .try_for_each(|f| publish(f.file.path(), &f.visible))
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn is_due(&self) -> bool {
        self.due.is_past(&*self.place.now)
    }
}

impl Open {
    fn cut(&self) -> Result<OpenCut, ConnectorError> {
        Ok(OpenCut {
            hidden: self.file.path().to_owned(),
            visible: self.visible.clone(),
            since: self.since,
            file: self.file.cut()?,
        })
    }
}

/// The file of a cut, cut back to it.
fn reopen(cut: &OpenCut) -> Result<LineFile, ConnectorError> {
    LineFile::open(&cut.hidden, Existing::Refuse, Some(&cut.file))
}

/// What a file is called until it is finished.
fn hidden(visible: &Path) -> PathBuf {
    let name = visible.file_name().unwrap_or_default().to_string_lossy();
    visible.with_file_name(format!(".{name}.open"))
}

#[cfg(test)]
mod tests;
