//! Rows as Parquet files in a directory, exactly once with the checkpoint.
//!
//! A Parquet file cannot grow, so rows are staged (`staging`) until a *roll* is due at a cut. Then everything staged
//! becomes files that are made apart (`directory`), synced before that checkpoint is committed, and visible when it is
//! decided; only after that the staged rows leave. A start makes up for a crash in between from the rows that are still
//! staged: it writes the files that are not visible yet, under the same names.
//! Invariant: as long as a roll's staged rows are there, its visible files are a subset of what they give; once they are
//! gone, all of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::columns::Columns;
use self::files::{Files, Written};
use super::directory::{DueAt, Workshop, claim, publish};
use super::durable::create_parents;
use super::staging::{Mark, Staging};
use super::{Place, Sink};
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::pipeline::plan::{self, SinkConnector};
use crate::time::Micros;

mod columns;
mod files;
mod hive;
#[cfg(test)]
mod tests;

/// A directory of Parquet files.
pub struct ParquetSink {
    place: Place,
    dir: PathBuf,
    workshop: Workshop,
    roll: plan::Roll,
    layout: Layout,
    columns: Columns,
    staging: Staging,
    state: Mutex<State>,
    due: DueAt,
    rows: AtomicU64,
}

/// How rows become files. It is kept with them: rows staged before the pipeline was edited stay what they were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Layout {
    partition_by: Vec<String>,
    /// Names and types.
    columns: Vec<String>,
}

struct State {
    /// Number of the next roll.
    sequence: u64,
    /// Where the rows begin that are not part of a roll.
    from: Mark,
    /// Wall time of the first of them.
    since: Option<Micros>,
    /// Rolls that are not decided.
    rolls: Vec<Roll>,
    /// Their files, once written.
    written: Vec<Written>,
}

/// Staged rows that become files together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Roll {
    pub sequence: u64,
    pub from: Mark,
    pub to: Mark,
    layout: Layout,
}

/// What a checkpoint keeps.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cut {
    pub staged: Mark,
    pub from: Mark,
    pub since: Option<Micros>,
    pub sequence: u64,
    layout: Layout,
    pub rolls: Vec<Roll>,
}

impl ParquetSink {
    /// Opens the directory of `sink`, which must have a Parquet connector. `resume` is the last checkpoint's
    /// [`cut`](Sink::cut); without one this is a first start. What that checkpoint made true becomes visible, what was
    /// written for later ones is removed.
    pub fn open(
        sink: &plan::Sink,
        place: Place,
        resume: Option<&Value>,
    ) -> Result<Self, ConnectorError> {
        let SinkConnector::Parquet {
            dir,
            existing,
            roll,
            partition_by,
        } = &sink.connector
        else {
            panic!("sink {} is not Parquet", sink.name);
        };
        let columns = Columns::new(sink);
        let layout = Layout {
            partition_by: partition_by.clone(),
            columns: columns.names_and_types(),
        };
        let cut = resume.map(|cut| read_cut(cut, dir)).transpose()?;
        if cut.is_none() {
            claim(dir, *existing)?;
        }
        let opened = Self {
            staging: Staging::open(&place.dir, cut.as_ref().map(|cut| cut.staged))?,
            workshop: Workshop::new(dir, &place),
            place,
            dir: dir.clone(),
            roll: *roll,
            layout,
            columns,
            state: Mutex::new(State {
                sequence: 0,
                from: Mark::start_of(0),
                since: None,
                rolls: Vec::new(),
                written: Vec::new(),
            }),
            due: DueAt::default(),
            rows: AtomicU64::new(0),
        };
        opened.workshop.clear(None)?;
        if let Some(cut) = cut {
            opened.resume(cut)?;
        }
        Ok(opened)
    }

    fn resume(&self, cut: Cut) -> Result<(), ConnectorError> {
        for roll in &cut.rolls {
            self.roll_forward(roll)?;
        }
        self.staging.drop_before(cut.from)?;
        let mut state = self.lock();
        state.sequence = cut.sequence;
        state.from = cut.from;
        state.since = cut.since;
        if cut.since.is_some() && cut.layout != self.layout {
            // The pipeline was edited: rows staged before and rows that follow do not belong into one file.
            let to = self.staging.turn()?;
            state.roll(to, cut.layout);
            self.due.now();
        } else {
            self.due.set(cut.since, &self.roll);
        }
        Ok(())
    }

    /// Does what [`decided`](Sink::decided) does, as far as it was not done.
    fn roll_forward(&self, roll: &Roll) -> Result<(), ConnectorError> {
        if !self.staging.has(roll.from) {
            return Ok(());
        }
        let mut missing = self.files(roll)?;
        missing.leave_visible = true;
        for written in missing.write(|| self.staging.read(roll.from, roll.to))? {
            make_visible(&written)?;
        }
        self.workshop.clear(None)?;
        self.staging.drop_before(roll.to)
    }

    fn files(&self, roll: &Roll) -> Result<Files, ConnectorError> {
        Ok(Files {
            dir: self.dir.clone(),
            made_in: self.workshop.path()?.to_owned(),
            label: self.place.label.clone(),
            sequence: roll.sequence,
            partition_by: roll.layout.partition_by.clone(),
            leave_visible: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everything staged before `to` becomes files.
    fn roll(&mut self, to: Mark, layout: Layout) {
        self.rolls.push(Roll {
            sequence: self.sequence,
            from: self.from,
            to,
            layout,
        });
        self.sequence += 1;
        self.from = to;
        self.since = None;
    }
}

impl Sink for ParquetSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        if batch.rows() == 0 {
            return Ok(());
        }
        let rows = self.columns.of(input, &batch.columns)?;
        {
            let mut state = self.lock();
            if state.since.is_none() {
                state.since = Some((self.place.now)());
                self.due.set(state.since, &self.roll);
            }
        }
        self.staging.append(0, &rows)?;
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, last: bool) -> Result<Value, ConnectorError> {
        let mut state = self.lock();
        let mut staged = self.staging.cut()?;
        if let Some(since) = state.since {
            let bytes = self.staging.bytes_since(state.from);
            if last || self.roll.is_due(since, (self.place.now)(), bytes) {
                staged = self.staging.turn()?;
                state.roll(staged, self.layout.clone());
            }
        }
        self.due.set(state.since, &self.roll);
        let cut = Cut {
            staged,
            from: state.from,
            since: state.since,
            sequence: state.sequence,
            layout: self.layout.clone(),
            rolls: state.rolls.clone(),
        };
        serde_json::to_value(cut).map_err(|cause| failed(&self.dir, cause))
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        let cut = read_cut(cut, &self.dir)?;
        self.staging.sync(cut.staged)?;
        let mut all = Vec::new();
        for roll in &cut.rolls {
            all.extend(
                self.files(roll)?
                    .write(|| self.staging.read(roll.from, roll.to))?,
            );
        }
        self.lock().written = all;
        Ok(())
    }

    fn decided(&self, cut: &Value) -> Result<(), ConnectorError> {
        let cut = read_cut(cut, &self.dir)?;
        let Some(last) = cut.rolls.last() else {
            return Ok(());
        };
        let written = std::mem::take(&mut self.lock().written);
        written.iter().try_for_each(make_visible)?;
        self.workshop.clear(None)?;
        self.staging.drop_before(last.to)?;
        self.lock().rolls.retain(|roll| !cut.rolls.contains(roll));
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn is_due(&self) -> bool {
        self.due.is_past(&*self.place.now)
    }
}

fn make_visible(written: &Written) -> Result<(), ConnectorError> {
    create_parents(&written.visible)?;
    publish(&written.hidden, &written.visible)
}

fn read_cut(cut: &Value, dir: &Path) -> Result<Cut, ConnectorError> {
    Cut::deserialize(cut).map_err(|cause| {
        failed(
            dir,
            format!(
                "the checkpoint's note on it is of another kind of sink: give the sink another name ({cause})"
            ),
        )
    })
}

fn failed(dir: &Path, cause: impl ToString) -> ConnectorError {
    ConnectorError::failed(dir.display().to_string(), cause)
}
