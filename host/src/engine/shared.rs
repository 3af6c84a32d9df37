//! What the workers of a run have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use crate::engine::checkpoint::Frozen;
use crate::engine::clock::Clock;
use crate::engine::coordinator::{Coordinator, Decision, Report};
use crate::engine::exchange::Exchange;
use crate::engine::metrics::Metrics;
use crate::engine::rate::RateLimit;
use crate::engine::rendezvous::{Broken, Rendezvous};
use crate::error::RunError;
use crate::kafka::{EmbeddedBroker, TransactionalProducer};
use crate::pipeline::plan::Plan;
use crate::sink::Sink;
use crate::sink::dead_letters::DeadLetters;
use crate::source::Source;
use crate::state::Delta;
use crate::table::TableSet;

pub struct Shared {
    pub plan: Plan,
    pub clock: Arc<dyn Clock>,
    pub sources: Vec<Box<dyn Source>>,
    pub sinks: Vec<Box<dyn Sink>>,
    pub dead_letters: Box<dyn DeadLetters>,
    /// Decides the checkpoints, if Kafka does.
    pub transaction: Option<Arc<TransactionalProducer>>,
    pub tables: Arc<TableSet>,
    pub metrics: Metrics,
    pub rates: Vec<RateLimit>,
    /// By step and input; none where rows stay with their worker.
    pub exchanges: Vec<Vec<Exchange>>,
    /// Numbers of the steps and sources in the state.
    pub step_ids: Vec<u16>,
    pub source_ids: Vec<u16>,
    /// True while the state is written more slowly than it changes.
    pub behind: Arc<AtomicBool>,
    meeting: Rendezvous<Report, Decision>,
    frozen: Rendezvous<Vec<Delta>, Result<(), ()>>,
    coordinator: Mutex<Coordinator>,
    failure: Mutex<Option<RunError>>,
    /// A source has more to read than the run began with.
    grown: OnceLock<String>,
    decided: Mutex<Decided>,
    /// Held from the decision of a checkpoint until every sink has acted on it.
    settling: Mutex<()>,
    checkpoints: SyncSender<Job>,
    /// The embedded broker outlives all that talk to it: fields are dropped in their order.
    _broker: Option<Arc<EmbeddedBroker>>,
    /// Monotonic microseconds at which the workers began to stand still for the last checkpoint.
    standing: AtomicU64,
}

/// What the checkpoint thread is told.
pub enum Job {
    Commit(Box<Frozen>),
    /// No checkpoint will follow.
    End,
}

/// The last decided checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decided {
    pub number: u64,
    pub at: Duration,
}

/// The parts that [`Shared::new`] cannot make itself.
pub struct Parts {
    pub plan: Plan,
    pub clock: Arc<dyn Clock>,
    pub sources: Vec<Box<dyn Source>>,
    pub sinks: Vec<Box<dyn Sink>>,
    pub dead_letters: Box<dyn DeadLetters>,
    pub transaction: Option<Arc<TransactionalProducer>>,
    pub tables: Arc<TableSet>,
    pub step_ids: Vec<u16>,
    pub source_ids: Vec<u16>,
    pub behind: Arc<AtomicBool>,
    pub coordinator: Coordinator,
    pub decided: u64,
    pub broker: Option<Arc<EmbeddedBroker>>,
}

impl Shared {
    /// The shared part and the queue on which frozen checkpoints leave.
    pub fn new(parts: Parts) -> (Self, Receiver<Job>) {
        let (workers, now) = (parts.plan.host.workers, parts.clock.elapsed());
        let exchanges = |s: &crate::pipeline::plan::Step| {
            let new = |_| Exchange::new(workers, parts.plan.host.key_groups);
            s.keys.iter().flatten().map(new).collect()
        };
        // One place for a checkpoint, as none is prepared before the last one is decided, and one for the end.
        let (checkpoints, queue) = sync_channel(2);
        let shared = Self {
            metrics: Metrics::new(&parts.plan),
            rates: parts
                .plan
                .sources
                .iter()
                .map(|s| RateLimit::new(s.limit.per_second, now))
                .collect(),
            exchanges: parts.plan.steps.iter().map(exchanges).collect(),
            meeting: Rendezvous::new(workers),
            frozen: Rendezvous::new(workers),
            coordinator: Mutex::new(parts.coordinator),
            failure: Mutex::default(),
            grown: OnceLock::new(),
            decided: Mutex::new(Decided {
                number: parts.decided,
                at: now,
            }),
            settling: Mutex::default(),
            checkpoints,
            standing: AtomicU64::new(0),
            plan: parts.plan,
            clock: parts.clock,
            sources: parts.sources,
            sinks: parts.sinks,
            dead_letters: parts.dead_letters,
            transaction: parts.transaction,
            tables: parts.tables,
            step_ids: parts.step_ids,
            source_ids: parts.source_ids,
            behind: parts.behind,
            _broker: parts.broker,
        };
        (shared, queue)
    }

    pub fn coordinator(&self) -> MutexGuard<'_, Coordinator> {
        self.coordinator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// All workers meet at the start of an epoch's work.
    pub fn meet(&self, worker: usize, report: Report) -> Result<Decision, Broken> {
        self.meeting.meet(worker, report, |reports| {
            self.metrics.epochs.fetch_add(1, Relaxed);
            let mut coordinator = self.coordinator();
            if self.sinks.iter().any(|s| s.is_due()) {
                coordinator.want_checkpoint();
            }
            if let Some(what) = self.sources.iter().find_map(|s| s.grown()) {
                self.grown.get_or_init(|| what);
                coordinator.stop();
            }
            coordinator.hold_all(self.behind.load(Relaxed));
            coordinator.decide(reports, self.clock.elapsed(), self.clock.now())
        })
    }

    /// Another worker has its records already and waits.
    pub fn is_awaited(&self) -> bool {
        self.meeting.is_awaited()
    }

    /// All workers hand in what they froze; the last one cuts the sinks and sends the checkpoint off.
    pub fn freeze(
        &self,
        worker: usize,
        number: u64,
        decision: &Decision,
        deltas: Vec<Delta>,
    ) -> Result<(), Broken> {
        let mut failed = None;
        let result = self.frozen.meet(worker, deltas, |all| {
            let at = self.clock.elapsed();
            self.standing.store(at.as_micros() as u64, Relaxed);
            match self.cut(number, decision, all, at) {
                Ok(frozen) => self
                    .checkpoints
                    .send(Job::Commit(Box::new(frozen)))
                    .map_err(drop),
                Err(error) => {
                    failed = Some(error);
                    Err(())
                }
            }
        })?;
        // Not while the meeting is held: to fail is to break it up.
        if let Some(error) = failed {
            self.fail(error);
        }
        result.map_err(|()| Broken)
    }

    /// The workers go on after a freeze.
    pub fn resumed(&self) {
        let stood =
            (self.clock.elapsed().as_micros() as u64).saturating_sub(self.standing.load(Relaxed));
        self.metrics.pause_micros.store(stood, Relaxed);
    }

    fn cut(
        &self,
        number: u64,
        decision: &Decision,
        all: Vec<Vec<Delta>>,
        at: Duration,
    ) -> Result<Frozen, RunError> {
        let swap = decision.swap.clone();
        let (mut meta, last) = {
            let mut coordinator = self.coordinator();
            let meta = coordinator.prepare(number, swap.as_deref(), at, decision.now);
            (meta, coordinator.has_read_all())
        };
        for (sink, plan) in self.sinks.iter().zip(&self.plan.sinks) {
            meta.sinks.insert(plan.name.clone(), sink.cut(last)?);
        }
        meta.dead_letters = self.dead_letters.cut()?;
        if let Some(transaction) = &self.transaction {
            transaction.hold();
        }
        let mut workers: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
        let of_step = |&id: &u16| (id, workers.iter_mut().filter_map(Iterator::next).collect());
        let deltas: Vec<(u16, Vec<Delta>)> = self.step_ids.iter().map(of_step).collect();
        Ok(Frozen {
            number,
            meta,
            deltas,
            swap,
            frozen_at: at,
        })
    }

    /// Checkpoint `number` is true.
    pub fn decided(&self, number: u64) {
        *self.decided.lock().unwrap_or_else(PoisonError::into_inner) = Decided {
            number,
            at: self.clock.elapsed(),
        };
        self.coordinator().decided();
    }

    pub fn last_decided(&self) -> Decided {
        *self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While the guard lives no checkpoint is decided, and every sink has acted on the last one.
    pub fn settled(&self) -> MutexGuard<'_, ()> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`settled`](Self::settled), unless sinks are acting on a checkpoint just now.
    pub fn try_settled(&self) -> Option<MutexGuard<'_, ()>> {
        match self.settling.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The run ends because of `error`; the first one counts.
    pub fn fail(&self, error: RunError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.give_up_output();
        self.break_up();
    }

    /// Whoever waits for a sink waits no longer: the run ends without its output.
    pub fn give_up_output(&self) {
        self.sinks.iter().for_each(|s| s.stop());
        self.dead_letters.stop();
        if let Some(transaction) = &self.transaction {
            transaction.stop();
        }
    }

    pub fn failure(&self) -> Option<RunError> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Why the run has ended although nobody asked it to: it is to be opened again.
    pub fn grown(&self) -> Option<&str> {
        self.grown.get().map(String::as_str)
    }

    pub fn has_failed(&self) -> bool {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// The workers are done: the checkpoint thread may end.
    pub fn end_checkpoints(&self) {
        // It may have ended already, after a failure.
        let _ = self.checkpoints.send(Job::End);
    }

    fn break_up(&self) {
        self.meeting.break_up();
        self.frozen.break_up();
        self.exchanges.iter().flatten().for_each(Exchange::break_up);
    }
}
