//! Rows as JSON lines or CSV in files of a directory, each finished after some time or size; exactly once with the
//! checkpoint.
//!
//! The open file is made apart (`directory`) and grows with every checkpoint; a restart cuts it back. The cut at which it
//! is due names it as finished: it is synced before that checkpoint is committed and moves into the directory when it is
//! decided. Invariant: a file of the directory is complete and never changes; no two of one state get the same number.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::{DueAt, Workshop, claim, file_name, publish};
use super::durable::create_directory;
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
    workshop: Workshop,
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

/// A file that is not in the directory yet.
#[derive(Debug, Clone)]
struct Open {
    file: Arc<LineFile>,
    /// What it will be called there.
    name: String,
    /// Wall time of its first row.
    since: Micros,
}

/// What a checkpoint keeps.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cut {
    pub sequence: u64,
    /// [`LineWriter::kind`] of the open file.
    pub kind: String,
    pub open: Option<OpenCut>,
    pub finished: Vec<OpenCut>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OpenCut {
    pub name: String,
    pub since: Micros,
    /// Of the file itself.
    pub file: Value,
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
            workshop: Workshop::new(dir, &place),
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
            None => {
                claim(dir, *existing)?;
                opened.workshop.clear(None)?;
            }
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
        let known = cut.open.as_ref().map(|open| self.unfinished(open));
        self.workshop.clear(known.as_deref())?;
        let mut state = self.lock();
        state.sequence = cut.sequence;
        let Some(open) = cut.open else {
            return Ok(());
        };
        let open = Open {
            file: Arc::new(self.reopen(&open)?),
            name: open.name,
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

    /// Does what [`decided`](Sink::decided) does, as far as it was not done: then the file is in the workshop.
    fn roll_forward(&self, cut: &Cut) -> Result<(), ConnectorError> {
        for finished in &cut.finished {
            let path = self.unfinished(finished);
            if path.exists() {
                self.reopen(finished)?;
                create_directory(&self.dir)?;
                publish(&path, &self.dir.join(&finished.name))?;
            }
        }
        Ok(())
    }

    /// Where the file of a cut is, or was.
    fn unfinished(&self, cut: &OpenCut) -> PathBuf {
        self.workshop.locate(&unfinished_name(&cut.name))
    }

    /// The file of a cut, cut back to it.
    fn reopen(&self, cut: &OpenCut) -> Result<LineFile, ConnectorError> {
        LineFile::open(&self.unfinished(cut), Existing::Refuse, Some(&cut.file))
    }

    /// The open file; begins one if there is none.
    fn open_file(&self) -> Result<Arc<LineFile>, ConnectorError> {
        let mut state = self.lock();
        if let Some(open) = &state.open {
            return Ok(open.file.clone());
        }
        let name = file_name(&self.place.label, state.sequence, self.extension);
        let path = self.workshop.path()?.join(unfinished_name(&name));
        let file = LineFile::open(&path, Existing::Overwrite, None)?;
        self.lines.begin(&file)?;
        let (file, since) = (Arc::new(file), (self.place.now)());
        self.due.set(Some(since), &self.roll);
        state.open = Some(Open {
            file: file.clone(),
            name,
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
            .try_for_each(|f| publish(f.file.path(), &self.dir.join(&f.name)))?;
        let state = self.lock();
        if state.open.is_none() && state.finished.is_empty() {
            self.workshop.tidy();
        }
        Ok(())
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
            name: self.name.clone(),
            since: self.since,
            file: self.file.cut()?,
        })
    }
}

/// What a file is called until it is finished: no reader takes it for one of its kind.
pub(super) fn unfinished_name(name: &str) -> String {
    format!("{name}.open")
}

#[cfg(test)]
mod tests;
