//! The snapshot that a host takes while it runs: one at a time, on a thread of its own.
//!
//! Whoever asks gets to know how far it is, and what became of the last one. Invariant: when [`Job::stop`] returns, no
//! snapshot of this host reads the state any more, so that it can be opened anew.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Serialize};

use super::{Progress, Source, Taken};
use crate::engine::control::ControlError;
use crate::error::RunError;

/// The last snapshot that was asked for. JSON: `"none"`, `{ "running": … }`, `{ "done": … }` or `{ "failed": reason }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// Of this host, since its start.
    #[default]
    None,
    /// Not before the sinks have acted on the checkpoint that will be copied.
    Waiting,
    Running(Progress),
    Done(Taken),
    Failed(String),
}

/// Takes snapshots.
#[derive(Debug, Default)]
pub struct Job {
    state: Arc<Mutex<SnapshotState>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Holds a checkpoint still, as soon as that is possible; `true` from what it is given ends the waiting.
pub type Hold = Box<dyn FnOnce(&dyn Fn() -> bool) -> Result<Source, RunError> + Send>;

impl Job {
    pub fn state(&self) -> SnapshotState {
        lock(&self.state).clone()
    }

    /// Begins to write the snapshot of what `hold` gives into the directory `to`.
    ///
    /// # Errors
    /// `Refused` while another one is taken.
    pub fn begin(&self, to: &Path, hold: Hold) -> Result<(), ControlError> {
        let mut thread = lock(&self.thread);
        if thread.as_ref().is_some_and(|t| !t.is_finished()) {
            let busy =
                "another snapshot of this pipeline is being taken; try again when it is done";
            return Err(ControlError::Refused(busy.into()));
        }
        self.stop.store(false, Relaxed);
        *lock(&self.state) = SnapshotState::Waiting;
        let (state, stop, to) = (self.state.clone(), self.stop.clone(), to.to_owned());
        let spawned = thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || run(hold, &to, &state, &stop));
        *thread =
            Some(spawned.map_err(|e| ControlError::Failed(format!("cannot start a thread: {e}")))?);
        Ok(())
    }

    /// Ends the snapshot that is being taken, if there is one, and waits for that.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there has been printed; the snapshot is unfinished.
            let _ = thread.join();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(hold: Hold, to: &Path, state: &Mutex<SnapshotState>, stop: &AtomicBool) {
    let ended = "the run that it was taken of has ended; take it again";
    let mut each = |progress| {
        *lock(state) = SnapshotState::Running(progress);
        match stop.load(Relaxed) {
            true => Err(ended.into()),
            false => Ok(()),
        }
    };
    let taken = hold(&|| stop.load(Relaxed)).and_then(|source| source.write(to, &mut each));
    let outcome = match taken {
        Ok(taken) => {
            tracing::info!(checkpoint = taken.checkpoint, dir = %to.display(), "snapshot taken");
            SnapshotState::Done(taken)
        }
        Err(error) => {
            tracing::warn!(dir = %to.display(), %error, "no snapshot was taken");
            SnapshotState::Failed(error.to_string())
        }
    };
    *lock(state) = outcome;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
