//! Rows to a table of Postgres, exactly once.
//!
//! Follows the decision: rows are staged in the state directory and durable there before a checkpoint is decided. Then one
//! transaction of Postgres writes them and the number of the output into `tidemill_checkpoints` (`ledger`). After a crash
//! that number tells whether the rows of the last decided checkpoint are to be written or are there. A server that is
//! away is waited for; rows that it refuses end the run.
//!
//! Invariant: Postgres has the rows of every decided checkpoint but perhaps the last, which is still staged, and none of a
//! checkpoint that is not decided.

mod columns;
mod connect;
mod fault;
mod insert;
mod ledger;
mod link;
mod table;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::fault::Fault;
use self::ledger::Ledger;
use self::link::{Link, Tried};
use self::table::Wanted;
use super::backoff::{Backoff, Outage};
use super::staging::{Mark, Staging};
use super::{Place, Sink};
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::limits::POSTGRES_STAGED_BYTES_MAX;
use crate::pipeline::plan::{self, STEP_COLUMN, SinkConnector};

pub use self::columns::writable;
pub use self::connect::check_url;

/// Longest time between two looks at whether rows may be staged again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A table of Postgres, written to by all workers.
pub struct PostgresSink {
    place: String,
    staging: Staging,
    /// Names of the inputs, if there are several.
    labels: Vec<String>,
    link: Mutex<Link>,
    outage: Outage,
    progress: Mutex<Progress>,
    changed: Condvar,
    stopped: AtomicBool,
    rows: AtomicU64,
}

/// A part of the output, as a checkpoint keeps it. An empty checkpoint keeps the cut of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cut {
    /// Counts the cuts that differ, from 1; 0: no row yet.
    pub number: u64,
    /// The rows of this number: staged from here...
    pub from: Mark,
    /// ... to here. Those of earlier numbers are in Postgres.
    pub to: Mark,
    /// What the column `step` holds, by input.
    pub labels: Vec<String>,
}

struct Progress {
    /// The last cut that was taken.
    last: Cut,
    /// Number of the last cut whose rows are in Postgres, and where they end.
    written: (u64, Mark),
    /// The checkpoint thread has a cut in hand: what is staged will leave without the workers' help.
    leaving: bool,
}

impl PostgresSink {
    /// Opens the sink, waiting for the server until `stop` says otherwise: checks the table, and brings Postgres to
    /// `resume`, the cut of the last decided checkpoint. `state_ids` name the state, then those that it was restored from.
    /// Errors say what does not fit and what to do.
    pub fn open(
        pipeline: &str,
        state_ids: &[String],
        place: &Place,
        sink: &plan::Sink,
        resume: Option<&Value>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, ConnectorError> {
        let SinkConnector::Postgres(postgres) = &sink.connector else {
            panic!("sink {} is not Postgres", sink.name);
        };
        let shown = format!("sink {} ({})", sink.name, postgres.place);
        let failed = |cause: String| ConnectorError::failed(&shown, cause);
        let resume = resume
            .map(|cut| read_cut(cut).map_err(failed))
            .transpose()?;
        let staging = Staging::open(&place.dir, resume.as_ref().map(|cut| cut.to))?;
        let several = sink.inputs.len() > 1;
        let wanted = Wanted {
            schemas: sink
                .inputs
                .iter()
                .map(|input| input.schema.clone())
                .collect(),
            step: several.then_some(STEP_COLUMN),
            key: match postgres.mode {
                plan::WriteMode::Insert => Vec::new(),
                plan::WriteMode::Upsert => postgres.key.clone(),
            },
        };
        let ledger = Ledger {
            pipeline: pipeline.to_owned(),
            sink: sink.name.clone(),
            state_id: state_ids.first().cloned().unwrap_or_default(),
            // A state that begins anew has written nothing: what is there is not its own.
            supersedes: match &resume {
                Some(_) => state_ids.iter().skip(1).cloned().collect(),
                None => Vec::new(),
            },
        };
        let application = format!("tidemill {pipeline}/{}", sink.name);
        let link = Link::new(postgres, wanted, ledger, &application).map_err(failed)?;
        let labels = match several {
            true => sink
                .inputs
                .iter()
                .map(|input| input.label.clone())
                .collect(),
            false => Vec::new(),
        };
        let last = match resume {
            Some(cut) => cut,
            None => {
                let start = staging.cut()?;
                let (from, to) = (start, start);
                Cut {
                    number: 0,
                    from,
                    to,
                    labels: labels.clone(),
                }
            }
        };
        let this = Self {
            outage: Outage::new(shown.clone()),
            place: shown,
            labels,
            link: Mutex::new(link),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            progress: Mutex::new(Progress {
                written: (last.number, last.to),
                last: last.clone(),
                leaving: false,
            }),
            staging,
        };
        this.settle(&last, stop)?;
        this.staging.drop_before(last.to)?;
        Ok(this)
    }

    /// Brings Postgres to `cut`, however long it takes.
    fn settle(&self, cut: &Cut, stop: &dyn Fn() -> bool) -> Result<(), ConnectorError> {
        let stop = || stop() || self.stopped.load(Ordering::Relaxed);
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let mut backoff = Backoff::default();
        loop {
            match link.settle(cut, &self.staging, &stop) {
                Tried::Done => {
                    self.outage.over();
                    return Ok(());
                }
                Tried::Stopped => return Err(self.stopped()),
                Tried::Fault(Fault::Away(cause)) => {
                    self.outage.lost(&cause);
                    if !link.pause(backoff.next(), &stop) {
                        return Err(self.stopped());
                    }
                }
                Tried::Fault(Fault::Failed(cause) | Fault::Rows(cause)) => {
                    return Err(ConnectorError::failed(&self.place, cause));
                }
            }
        }
    }

    fn read_cut(&self, cut: &Value) -> Result<Cut, ConnectorError> {
        read_cut(cut).map_err(|cause| ConnectorError::failed(&self.place, cause))
    }

    fn stopped(&self) -> ConnectorError {
        ConnectorError::Stopped {
            place: self.place.clone(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while Postgres is far behind. Only what leaves without the workers' help is waited for.
    fn wait_for_room(&self) -> Result<(), ConnectorError> {
        let mut progress = self.progress();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(self.stopped());
            }
            let staged = self.staging.bytes_since(progress.written.1);
            if !progress.leaving || staged < POSTGRES_STAGED_BYTES_MAX {
                return Ok(());
            }
            let waited = self.changed.wait_timeout(progress, LOOK_AGAIN);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn read_cut(cut: &Value) -> Result<Cut, String> {
    Cut::deserialize(cut).map_err(|cause| {
        format!(
            "the checkpoint's note on this sink is none of a Postgres sink: {cause}. If the sink was another kind before, give \
             it another name"
        )
    })
}

impl Sink for PostgresSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        self.wait_for_room()?;
        self.staging.append(input, &batch.columns)?;
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, _last: bool) -> Result<Value, ConnectorError> {
        let to = self.staging.cut()?;
        let mut progress = self.progress();
        if to != progress.last.to {
            progress.last = Cut {
                number: progress.last.number + 1,
                from: progress.last.to,
                to,
                labels: self.labels.clone(),
            };
        }
        serde_json::to_value(&progress.last)
            .map_err(|cause| ConnectorError::failed(&self.place, cause))
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        let cut = self.read_cut(cut)?;
        self.progress().leaving = true;
        self.staging.sync(cut.to)
    }

    fn decided(&self, cut: &Value) -> Result<(), ConnectorError> {
        let cut = self.read_cut(cut)?;
        if cut.number != self.progress().written.0 {
            self.settle(&cut, &|| false)?;
            self.staging.drop_before(cut.to)?;
        }
        let mut progress = self.progress();
        progress.written = (cut.number, cut.to);
        progress.leaving = false;
        self.changed.notify_all();
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }
}
