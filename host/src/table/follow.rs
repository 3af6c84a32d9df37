//! Follows a topic in the background: a thread a table, which puts a new snapshot in place of the last whenever records
//! have come. Who looks rows up takes the newest between two epochs.
//!
//! Invariant: the thread ends with its table. What goes wrong here leaves the last rows as they are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::{Changelog, Connect, Snapshot, State};
use crate::error::ConnectorError;
use crate::pipeline::plan;

/// How long a poll waits for a record, and so how long the end of a table takes.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// A snapshot is made when this many times the work of the last one has passed: at most a tenth of the time is work.
const WORK_SHARE: u32 = 10;
/// After a failure the topic is opened again this much later.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A table's topic being followed.
pub(super) struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The topic as far as it has been read, with the rows that it gave.
pub(super) struct Followed {
    log: Box<dyn Changelog>,
    changes: Changes,
}

/// Records that could not become rows.
pub(super) type Broken = Arc<AtomicU64>;

impl Followed {
    /// Reads the topic up to where it ended when it was opened. Errors of single records are told and counted.
    pub fn open(
        plan: &plan::Table,
        connect: &Connect,
        broken: &Broken,
        stop: &dyn Fn() -> bool,
    ) -> Result<(Self, Arc<Snapshot>), ConnectorError> {
        let place = format!("table {}", plan.name);
        let failed = |cause: String| ConnectorError::failed(&place, cause);
        let mut this = Self {
            log: connect(plan, stop)?,
            changes: Changes::new(plan).map_err(failed)?,
        };
        while !this.log.is_complete() {
            if stop() {
                return Err(ConnectorError::Stopped { place });
            }
            this.poll(plan, broken)?;
            if this.changes.is_large() {
                this.publish(plan, broken)?;
            }
        }
        let snapshot = this.publish(plan, broken)?;
        Ok((this, snapshot))
    }

    fn poll(&mut self, plan: &plan::Table, broken: &Broken) -> Result<(), ConnectorError> {
        let changes = &mut self.changes;
        self.log.poll(POLL_WAIT, &mut |change| {
            if let Err(reason) = changes.push(change.key, change.value) {
                broken.fetch_add(1, Relaxed);
                tracing::warn!(
                    "table {}: the record at partition {} offset {} changes nothing: {reason}",
                    plan.name,
                    change.partition,
                    change.offset
                );
            }
        })
    }

    fn publish(
        &mut self,
        plan: &plan::Table,
        broken: &Broken,
    ) -> Result<Arc<Snapshot>, ConnectorError> {
        let published = self.changes.publish();
        let published = published
            .map_err(|cause| ConnectorError::failed(format!("table {}", plan.name), cause))?;
        if published.keyless > 0 {
            broken.fetch_add(published.keyless as u64, Relaxed);
            tracing::warn!(
                "table {}: {} record(s) without a value for the key `{}` change nothing",
                plan.name,
                published.keyless,
                plan.schema.field(plan.key).name()
            );
        }
        Ok(published.snapshot)
    }
}

impl Follower {
    /// Goes on from `followed`; new snapshots go into `state`.
    pub fn start(
        plan: plan::Table,
        followed: Followed,
        connect: Arc<Connect>,
        broken: Broken,
        state: Arc<Mutex<State>>,
    ) -> Result<Self, ConnectorError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let name = plan.name.clone();
        let thread = std::thread::Builder::new()
            .name(format!("table-{name}"))
            .spawn(move || {
                let table = Table {
                    plan,
                    connect,
                    broken,
                    state,
                    stop: stopped,
                };
                table.follow(followed);
            });
        let thread =
            thread.map_err(|cause| ConnectorError::failed(format!("table {name}"), cause))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has been told; the rows stay what they were.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Follower")
    }
}

/// What the thread has.
struct Table {
    plan: plan::Table,
    connect: Arc<Connect>,
    broken: Broken,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Table {
    fn follow(&self, followed: Followed) {
        let mut current = Some(followed);
        while !self.stop.load(Relaxed) {
            let ended = match current.take() {
                Some(followed) => self.follow_one(followed),
                None => self.reopen().map(|followed| current = Some(followed)),
            };
            if let Err(error) = ended
                && !self.stop.load(Relaxed)
            {
                tracing::warn!(
                    %error,
                    "a table cannot follow its topic; its old rows stay, and it is opened again in {} s",
                    AGAIN_AFTER.as_secs()
                );
                std::thread::park_timeout(AGAIN_AFTER);
            }
        }
    }

    /// Returns with the first failure, or when the table ends.
    fn follow_one(&self, mut followed: Followed) -> Result<(), ConnectorError> {
        let (mut last, mut work) = (Instant::now(), Duration::ZERO);
        while !self.stop.load(Relaxed) {
            followed.poll(&self.plan, &self.broken)?;
            if followed.changes.is_changed() && last.elapsed() >= work * WORK_SHARE {
                let began = Instant::now();
                self.put(followed.publish(&self.plan, &self.broken)?);
                last = Instant::now();
                work = last - began;
            }
        }
        Ok(())
    }

    fn reopen(&self) -> Result<Followed, ConnectorError> {
        let stop = || self.stop.load(Relaxed);
        let (followed, snapshot) = Followed::open(&self.plan, &*self.connect, &self.broken, &stop)?;
        self.put(snapshot);
        tracing::info!(table = self.plan.name, "follows its topic again");
        Ok(followed)
    }

    fn put(&self, snapshot: Arc<Snapshot>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.snapshot = snapshot;
    }
}
