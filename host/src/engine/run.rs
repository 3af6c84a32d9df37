//! The threads of a run: workers, the checkpoint thread, and how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::engine::checkpoint::Checkpointer;
use crate::engine::handle::Handle;
use crate::engine::open::Engine;
use crate::engine::shared::{Job, Shared};
use crate::engine::worker::Worker;
use crate::error::RunError;
use crate::limits;

/// Without a checkpoint for so long, what the last one became is made durable by itself.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// A pipeline that runs.
pub struct Running {
    handle: Arc<Handle>,
    workers: Vec<JoinHandle<()>>,
    checkpoints: JoinHandle<Checkpointer>,
    /// The checkpoint thread was told that none will follow.
    ending: AtomicBool,
}

impl Engine {
    /// Starts the threads.
    pub fn start(self) -> Result<Running, RunError> {
        let shared = self.shared;
        let store = self.checkpointer.watch_store();
        let handle = Handle::new(shared.clone(), store, self.runtime, self.versions);
        let handle = Arc::new(handle);
        let (queue, checkpointer, of) = (self.queue, self.checkpointer, shared.clone());
        let checkpoints = spawn("checkpoint".into(), move || {
            commit_all(checkpointer, &queue, &of)
        })?;
        let start = |w: Worker| spawn(format!("worker-{}", w.index), move || work(w));
        let workers = self
            .workers
            .into_iter()
            .map(start)
            .collect::<Result<_, _>>()?;
        Ok(Running {
            handle,
            workers,
            checkpoints,
            ending: AtomicBool::new(false),
        })
    }
}

impl Running {
    /// For the admin API and the screen.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// The workers are done, and the last checkpoint is decided or given up.
    pub fn is_over(&self) -> bool {
        let worked = self.workers.iter().all(JoinHandle::is_finished);
        if worked && !self.ending.swap(true, Relaxed) {
            self.handle.shared().end_checkpoints();
        }
        worked && self.checkpoints.is_finished()
    }

    /// Waits for the end, by itself or after [`Handle::stop`]; the state is closed when this returns.
    pub fn join(self) -> Result<(), RunError> {
        let shared = self.handle.shared().clone();
        for worker in self.workers {
            // A panic has been reported through `Shared` already.
            let _ = worker.join();
        }
        if !self.ending.into_inner() {
            shared.end_checkpoints();
        }
        let closed = self.checkpoints.join();
        self.handle.ended();
        if let Some(error) = shared.failure() {
            return Err(error);
        }
        closed
            .map_err(|_| RunError::Worker("the checkpoint thread panicked; see the log".into()))?;
        match shared.grown() {
            Some(what) => Err(RunError::Grown(what.to_owned())),
            None => Ok(()),
        }
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    Builder::new()
        .name(name.clone())
        .stack_size(limits::STACK_BYTES)
        .spawn(work)
        .map_err(|e| RunError::Worker(format!("cannot start thread {name}: {e}")))
}

/// Runs a worker.
fn work(worker: Worker) {
    let name = format!("worker {}", worker.index);
    let _watch = Watch(worker.shared.clone(), name);
    worker.run();
}

/// A panic of a thread that has one ends the run instead of leaving the others waiting.
struct Watch(Arc<Shared>, String);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = format!("{} panicked; its message is above", self.1);
            self.0.fail(RunError::Worker(what));
        }
    }
}

fn commit_all(
    mut checkpointer: Checkpointer,
    queue: &Receiver<Job>,
    shared: &Arc<Shared>,
) -> Checkpointer {
    let _watch = Watch(shared.clone(), "the checkpoint thread".into());
    loop {
        let done = match queue.recv_timeout(SETTLE_AFTER) {
            Ok(Job::Commit(frozen)) => checkpointer.commit(*frozen, shared),
            Err(RecvTimeoutError::Timeout) => checkpointer.idle(shared),
            Ok(Job::End) | Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Err(error) = done {
            shared.fail(error);
            return checkpointer;
        }
    }
    if let Err(error) = checkpointer.settle() {
        shared.fail(error);
    }
    checkpointer
}
