//! What the outside may ask of a pipeline's state: a snapshot, and what is in it. The seam beside [`super::control`].
//!
//! Answers are of the last decided checkpoint, whether the pipeline runs or is paused; the engine is never waited for and
//! never waits.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::control::ControlError;
use crate::engine::handle::Handle;
use crate::engine::inspect::{self, Found, Listing, Query, StateSteps};
use crate::engine::snapshot::take::micros;
use crate::engine::snapshot::{SnapshotState, Source};
use crate::engine::supervisor::Supervisor;
use crate::error::{RunError, StateError};
use crate::state::View;
use crate::state::reader::Reader;

/// How often it is looked whether sinks have acted on a checkpoint.
const LOOK: Duration = Duration::from_millis(2);

/// A pipeline's state as its operators see it.
pub trait StateControl: Send + Sync {
    /// Begins to write a snapshot into the directory `to`, an absolute path; [`snapshot_state`](Self::snapshot_state) tells
    /// what becomes of it.
    fn begin_snapshot(&self, to: &Path) -> Result<(), ControlError>;

    fn snapshot_state(&self) -> SnapshotState;

    /// The steps that keep something. Reads the whole state.
    fn state_steps(&self) -> Result<StateSteps, ControlError>;

    /// Keys of a step, or its segments.
    fn state_list(&self, step: &str, query: &Query) -> Result<Listing, ControlError>;

    /// What a step keeps of `key`, as it is written on a command line.
    fn state_get(&self, step: &str, key: &str) -> Result<Found, ControlError>;
}

impl StateControl for Supervisor {
    fn begin_snapshot(&self, to: &Path) -> Result<(), ControlError> {
        if !to.is_absolute() {
            let text = format!("{} is no absolute path", to.display());
            return Err(ControlError::Refused(text));
        }
        if self.is_embedded() {
            let text = "the pipeline runs on the embedded broker, which forgets all records at exit: a state of it is of no use";
            return Err(ControlError::Refused(text.into()));
        }
        let _looks = self.looks();
        match self.handle() {
            Some(handle) => self
                .snapshot()
                .begin(to, Box::new(move |stop| running(handle, stop))),
            None => {
                let (state, pipeline) = self.whose();
                let (state, pipeline) = (state.to_owned(), pipeline.to_owned());
                self.snapshot()
                    .begin(to, Box::new(move |_| stopped(&state, &pipeline)))
            }
        }
    }

    fn snapshot_state(&self) -> SnapshotState {
        self.snapshot().state()
    }

    fn state_steps(&self) -> Result<StateSteps, ControlError> {
        self.look(inspect::steps)
    }

    fn state_list(&self, step: &str, query: &Query) -> Result<Listing, ControlError> {
        self.look(|view| inspect::list(view, step, query))
    }

    fn state_get(&self, step: &str, key: &str) -> Result<Found, ControlError> {
        self.look(|view| inspect::get(view, step, key))
    }
}

impl Supervisor {
    /// What `ask` makes of the state at its last decided checkpoint.
    fn look<T>(
        &self,
        ask: impl FnOnce(&View) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let failed = |e: StateError| ControlError::Failed(e.to_string());
        let _looks = self.looks();
        if let Some(store) = self.handle().and_then(|handle| handle.store().upgrade()) {
            let view = store.view().map_err(failed)?;
            // A run that ends meanwhile is not held up: the answer is an error then.
            drop(store);
            return ask(&view.ok_or_else(none_yet)?);
        }
        let (state, pipeline) = self.whose();
        let reader = Reader::open(state, pipeline)
            .map_err(failed)?
            .ok_or_else(none_yet)?;
        let view = reader.view().map_err(failed)?.ok_or_else(none_yet)?;
        ask(&view)
    }
}

fn none_yet() -> ControlError {
    ControlError::NotFound("there is no checkpoint yet".into())
}

/// Holds the last decided checkpoint of a run still, on which all sinks have acted.
fn running(handle: Arc<Handle>, stop: &dyn Fn() -> bool) -> Result<Source, RunError> {
    let shared = handle.shared().clone();
    let over = || RunError::Refused("the run has ended; take it again".into());
    let _settled = loop {
        if stop() || handle.has_ended() {
            return Err(over());
        }
        match shared.try_settled() {
            Some(settled) => break settled,
            // A database that is away may take its time.
            None => std::thread::sleep(LOOK),
        }
    };
    let store = handle.store().upgrade().ok_or_else(over)?;
    // What Kafka has decided may not stand in the log yet.
    store.settle()?;
    let view = store
        .view()?
        .ok_or_else(|| RunError::Refused("there is no checkpoint yet".into()))?;
    let decided = shared.last_decided();
    let age = shared.clock.elapsed().saturating_sub(decided.at);
    let as_of = shared.clock.now() - i64::try_from(age.as_micros()).unwrap_or_default();
    Source::hold(view, &shared.plan.host.state, as_of)
}

/// Holds the last decided checkpoint of a state still that no run has open.
pub fn stopped(state: &Path, pipeline: &str) -> Result<Source, RunError> {
    let none = || RunError::Refused(format!("there is no state in {}", state.display()));
    let reader = Reader::open(state, pipeline)?.ok_or_else(none)?;
    let as_of = reader.written_at().unwrap_or(SystemTime::UNIX_EPOCH);
    let view = reader.view()?.ok_or_else(none)?;
    Source::hold(view, state, micros(as_of))?.keep(reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::meta::EngineMeta;
    use crate::engine::snapshot::restore::{Request, restore};
    use crate::state::store::Prepared;
    use crate::state::{Meta, Store};

    fn checkpoint(number: u64) -> Prepared {
        let engine = serde_json::to_value(EngineMeta::default()).unwrap();
        Prepared {
            number,
            meta: Meta { engine },
            ..Prepared::default()
        }
    }

    /// The way out of a state and a decision that do not belong together: its last certain checkpoint, as a new state.
    #[test]
    fn an_undecided_checkpoint_is_left_out_and_the_restored_one_owes_nothing_to_kafka() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let store = Store::open(&state, "test", 8).unwrap();
        store.prepare(checkpoint(0)).unwrap();
        store.decide();
        store.prepare(checkpoint(1)).unwrap();
        let id = store.state_id();
        drop(store);
        let to = dir.path().join("snapshot");
        let taken = stopped(&state, "test")
            .unwrap()
            .write(&to, &mut |_| Ok(()))
            .unwrap();
        assert_eq!((taken.checkpoint, taken.undecided), (0, Some(1)));
        let request = Request {
            pipeline: "test",
            state: &state,
            from: &to,
            replace: true,
            abandons: &[[7; 16]],
        };
        restore(&request, &mut |_| {}).unwrap();
        let store = Store::open(&state, "test", 8).unwrap();
        assert_eq!(store.undecided(), None);
        let latest = store.latest().unwrap();
        assert!(latest.number == 0 && !latest.in_transaction);
        assert_ne!(store.state_id(), id);
        assert!(store.supersedes().contains(&id) && store.supersedes().contains(&[7; 16]));
        // One lineage after the other: nothing is forgotten.
        let second = store.state_id();
        drop(store);
        restore(&request, &mut |_| {}).unwrap();
        let store = Store::open(&state, "test", 8).unwrap();
        assert!(store.supersedes().contains(&id) && store.supersedes().contains(&second));
        assert_eq!(store.latest().unwrap().number, 0);
    }
}
