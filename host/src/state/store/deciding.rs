//! How a checkpoint becomes the true one: by the log's own commit, or by a transaction outside whose outcome comes later.
//!
//! Invariants: one checkpoint at a time is undecided, and none follows it; after a write that failed none is tried again.

use std::sync::MutexGuard;

use super::{Fault, Prepared, Restored, Store};
use crate::error::StateError;
use crate::state::merge::lock;

/// What is known of the last two checkpoints.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The last decided one.
    pub latest: Option<Restored>,
    /// That it is decided stands in the log, too.
    pub settled: bool,
    /// The one prepared after it.
    pub undecided: Option<Restored>,
}

impl Store {
    /// Writes a checkpoint and decides it: when this returns `Ok` it is durable and [`latest`](Self::latest).
    ///
    /// # Errors
    /// Any error is final: drop this store and everything in memory, open anew and go on from `latest`, which is then
    /// this checkpoint or the one before. A failure of the merge in the background is told here, too.
    pub fn commit(&self, prepared: Prepared) -> Result<(), StateError> {
        let mut known = self.next(&prepared)?;
        self.written(self.files.log.commit(&prepared).map(drop))?;
        self.written(self.files.look_behind(&self.rule))?;
        known.latest = Some(restored(prepared, false));
        known.settled = true;
        drop(known);
        self.merger.decided();
        Ok(())
    }

    /// Writes a checkpoint that a transaction outside decides: when this returns `Ok` it is durable and
    /// [`undecided`](Self::undecided).
    ///
    /// # Errors
    /// As of [`commit`](Self::commit).
    pub fn prepare(&self, prepared: Prepared) -> Result<(), StateError> {
        let mut known = self.next(&prepared)?;
        self.written(self.files.log.prepare(&prepared))?;
        self.written(self.files.look_behind(&self.rule))?;
        known.settled = true;
        known.undecided = Some(restored(prepared, true));
        Ok(())
    }

    /// The transaction of the undecided checkpoint is committed: it is [`latest`](Self::latest). Writes nothing: the next
    /// checkpoint does, or [`settle`](Self::settle).
    pub fn decide(&self) {
        let mut known = lock(&self.known);
        if let Some(decided) = known.undecided.take() {
            known.latest = Some(decided);
            known.settled = false;
        }
        drop(known);
        self.merger.decided();
    }

    /// Makes durable what [`decide`](Self::decide) said, if no later checkpoint has.
    pub fn settle(&self) -> Result<(), StateError> {
        self.check_whole()?;
        let mut known = lock(&self.known);
        if let Some(latest) = known.latest.as_ref().filter(|_| !known.settled) {
            let number = latest.number;
            self.written(self.files.log.decide(number))?;
            known.settled = true;
            drop(known);
            // Only what the log calls decided is merged, and perhaps nothing follows that would look again.
            self.merger.decided();
        }
        Ok(())
    }

    /// The outcome of the transaction of the undecided checkpoint, learnt at a start: keeps it or takes it back, durably.
    pub fn resolve(&self, committed: bool) -> Result<(), StateError> {
        if committed {
            self.decide();
            return self.settle();
        }
        let mut known = lock(&self.known);
        if let Some(number) = known.undecided.as_ref().map(|u| u.number) {
            self.written(self.files.log.drop_undecided(number))?;
            known.undecided = None;
        }
        Ok(())
    }

    /// Fails unless `prepared` is the checkpoint that is due.
    fn next(&self, prepared: &Prepared) -> Result<MutexGuard<'_, Known>, StateError> {
        self.check_whole()?;
        let known = lock(&self.known);
        let number = prepared.number;
        let expected = known.latest.as_ref().map_or(0, |l| l.number + 1);
        let wrong = match &known.undecided {
            Some(open) => Some(format!(
                "checkpoint {number} follows while {} is not decided",
                open.number
            )),
            None if number != expected => {
                Some(format!("checkpoint {number} follows, {expected} was due"))
            }
            None => None,
        };
        match wrong {
            Some(cause) => self.fault(Err(Fault(cause))),
            None => Ok(known),
        }
    }

    /// After a write that failed nothing more is written: what is on disk is known only by opening it anew.
    fn written(&self, result: Result<(), Fault>) -> Result<(), StateError> {
        if result.is_err() {
            *lock(&self.broken) = true;
        }
        self.fault(result)
    }
}

pub(super) fn restored(prepared: Prepared, in_transaction: bool) -> Restored {
    Restored {
        number: prepared.number,
        meta: prepared.meta,
        finished: prepared.finished,
        in_transaction,
    }
}
