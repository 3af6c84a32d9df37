//! A pipeline through its pauses: a run that pauses is dropped, and begins again from the decided checkpoint when a mended
//! plugin is swapped in.
//!
//! Invariant: nothing of a paused run is alive while the next one is opened; what may be asked meanwhile is answered from
//! what the run left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::engine::control::{Control, ControlError, RunState, Status, Swapped, Version};
use crate::engine::handle::{Handle, no_step};
use crate::engine::open::{Options, StartSwap, open};
use crate::engine::run::Running;
use crate::engine::snapshot::Job;
use crate::engine::versions::Versions;
use crate::engine::watermark::Mode;
use crate::error::RunError;
use crate::pipeline::plan::Plan;
use crate::plugin::{Component, Runtime};
use crate::sink::console::ConsoleSink;

/// How often a waiting request looks whether the pipeline has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Answers for a pipeline whether it runs, is paused or has ended.
pub struct Supervisor {
    plan: Plan,
    runtime: Arc<Runtime>,
    options: Options,
    phase: Mutex<Phase>,
    order: Mutex<Option<Order>>,
    snapshot: Job,
    /// Read by those who look into the state.
    looking: RwLock<()>,
}

/// A run under a supervisor.
pub struct Supervised {
    pub running: Running,
    pub consoles: Vec<Arc<ConsoleSink>>,
    /// The decided checkpoint that it began with.
    pub checkpoint: u64,
}

enum Phase {
    Running(Arc<Handle>),
    Still(Box<Still>),
}

/// What a run left when it paused or ended.
struct Still {
    status: Status,
    history: BTreeMap<String, Vec<Version>>,
    since: Duration,
}

/// A version that a paused pipeline is to go on with.
struct Order {
    swap: StartSwap,
    reply: SyncSender<Result<Swapped, ControlError>>,
}

impl Supervisor {
    /// Opens and starts `plan`; `None` if it has run to its end and there is nothing new.
    pub fn start(
        plan: Plan,
        runtime: &Arc<Runtime>,
        options: Options,
    ) -> Result<Option<(Arc<Self>, Supervised)>, RunError> {
        let Some(run) = begin(&plan, runtime, &options)? else {
            return Ok(None);
        };
        let supervisor = Self {
            phase: Mutex::new(Phase::Running(run.running.handle().clone())),
            order: Mutex::default(),
            snapshot: Job::default(),
            looking: RwLock::default(),
            plan,
            runtime: runtime.clone(),
            options,
        };
        Ok(Some((Arc::new(supervisor), run)))
    }

    /// The run, if there is one now. Not to be kept: a paused run is dropped whole.
    pub fn handle(&self) -> Option<Arc<Handle>> {
        match &*self.phase() {
            Phase::Running(handle) => Some(handle.clone()),
            Phase::Still(_) => None,
        }
    }

    /// Ends the snapshot that is being taken and waits for whoever looks into the state: they keep it from being opened
    /// anew. While the guard lives nobody begins.
    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.snapshot.stop();
        let alone = self.looking.write().unwrap_or_else(PoisonError::into_inner);
        // One may have begun between.
        self.snapshot.stop();
        alone
    }

    /// Looks into the state while the guard lives.
    pub fn looks(&self) -> RwLockReadGuard<'_, ()> {
        self.looking.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot that is being taken, or was last.
    pub fn snapshot(&self) -> &Job {
        &self.snapshot
    }

    /// State directory and pipeline.
    pub fn whose(&self) -> (&Path, &str) {
        (&self.plan.host.state, &self.plan.name)
    }

    /// Its topics are on the embedded broker.
    pub fn is_embedded(&self) -> bool {
        self.options.broker.is_some()
    }

    /// Whether a pause is waited out. A bounded run has nobody who would mend it.
    pub fn waits_out_pauses(&self) -> bool {
        self.options.mode == Mode::Streaming
    }

    /// The run is over; `state` says what follows.
    pub fn rest(&self, state: RunState) {
        let handle = match &mut *self.phase() {
            Phase::Running(handle) => handle.clone(),
            Phase::Still(still) => {
                still.status.state = state;
                return;
            }
        };
        let _alone = self.alone();
        let mut status = handle.status();
        status.state = state;
        let plugins = status.steps.iter().filter(|step| step.plugin.is_some());
        let history = plugins
            .filter_map(|step| Some((step.name.clone(), handle.history(&step.name).ok()?)))
            .collect();
        let since = self.options.clock.elapsed();
        *self.phase() = Phase::Still(Box::new(Still {
            status,
            history,
            since,
        }));
    }

    /// Starts the paused pipeline again if somebody has ordered a version for it. One that cannot be started is answered
    /// with the reason, and the pipeline stays paused.
    pub fn resume(&self) -> Option<Supervised> {
        let Order { swap, reply } = lock(&self.order).take()?;
        let (step, to) = (swap.step.clone(), swap.component.digest().to_owned());
        let (from, since) = match &*self.phase() {
            Phase::Still(still) => (still.in_force(&step), still.since),
            Phase::Running(_) => return None,
        };
        let mut options = self.again();
        options.swap = Some(swap);
        let _alone = self.alone();
        let begun = begin(&self.plan, &self.runtime, &options);
        let answer = match begun {
            Ok(Some(run)) => {
                let swapped = Swapped {
                    step,
                    from,
                    to,
                    checkpoint: run.checkpoint,
                    pause_ms: (self.options.clock.elapsed() - since).as_secs_f64() * 1e3,
                };
                *self.phase() = Phase::Running(run.running.handle().clone());
                // The caller may have gone; the version is in force all the same.
                let _ = reply.send(Ok(swapped));
                return Some(run);
            }
            Ok(None) => ControlError::Failed("the pipeline has run to its end".into()),
            Err(error @ (RunError::Refused(_) | RunError::Plugin(_))) => {
                ControlError::Refused(error.to_string())
            }
            Err(error) => ControlError::Failed(format!("the pipeline stays paused: {error}")),
        };
        let _ = reply.send(Err(answer));
        None
    }

    /// Opens and starts the pipeline again from the last decided checkpoint, after [`rest`](Self::rest). `None` if it has run
    /// to its end.
    pub fn restart(&self) -> Result<Option<Supervised>, RunError> {
        let _alone = self.alone();
        let run = begin(&self.plan, &self.runtime, &self.again())?;
        if let Some(run) = &run {
            *self.phase() = Phase::Running(run.running.handle().clone());
        }
        Ok(run)
    }

    fn again(&self) -> Options {
        let mut options = self.options.clone();
        options.again = true;
        options
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        lock(&self.phase)
    }

    /// Asks the paused pipeline to go on with `component` in `step`.
    fn order(
        &self,
        step: &str,
        file: &str,
        component: Arc<Component>,
    ) -> Result<Swapped, ControlError> {
        let (reply, told) = sync_channel(1);
        let swap = StartSwap {
            step: step.to_owned(),
            file: file.to_owned(),
            component,
        };
        {
            let mut order = lock(&self.order);
            if order.is_some() {
                let busy = "another swap of this pipeline is under way; try again when it is done";
                return Err(ControlError::Refused(busy.into()));
            }
            *order = Some(Order { swap, reply });
        }
        loop {
            match told.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if !(self.options.stop)() => {
                    // It runs again without it: who ordered this version may not want it any more when it is paused next.
                    let runs = matches!(&*self.phase(), Phase::Running(_));
                    if runs && lock(&self.order).take().is_some() {
                        let runs = "the pipeline runs again by itself; swap once more";
                        return Err(ControlError::Refused(runs.into()));
                    }
                }
                Err(_) => {
                    let ended =
                        "the pipeline was stopped before the swap; the old version stays in force";
                    return Err(ControlError::Failed(ended.into()));
                }
            }
        }
    }

    /// What `ask` makes of the pipeline at rest; an error if it has no such step with a plugin, or is not paused.
    fn paused<T>(
        &self,
        step: &str,
        still: &Still,
        ask: impl FnOnce(&[Version]) -> T,
    ) -> Result<T, ControlError> {
        let planned = self.plan.steps.iter().any(|s| s.name == step);
        match still.history.get(step) {
            Some(history) => Ok(ask(history)),
            None if planned => Err(ControlError::Refused(format!("step {step} runs no plugin"))),
            None => Err(ControlError::NotFound(no_step(&self.plan, step))),
        }
    }
}

impl Control for Supervisor {
    fn status(&self) -> Status {
        match &*self.phase() {
            Phase::Running(handle) => handle.status(),
            Phase::Still(still) => still.status.clone(),
        }
    }

    fn swap(&self, step: &str, file: &str, wasm: Vec<u8>) -> Result<Swapped, ControlError> {
        if let Some(handle) = self.handle() {
            return handle.swap(step, file, wasm);
        }
        if let Phase::Still(still) = &*self.phase() {
            still.check_paused()?;
            self.paused(step, still, |_| ())?;
        }
        let new = self
            .runtime
            .load(file, &wasm)
            .map_err(|e| ControlError::Refused(e.to_string()))?;
        self.order(step, file, new)
    }

    fn rollback(&self, step: &str) -> Result<Swapped, ControlError> {
        if let Some(handle) = self.handle() {
            return handle.rollback(step);
        }
        let mut before = None;
        if let Phase::Still(still) = &*self.phase() {
            still.check_paused()?;
            let now = still.in_force(step);
            before = self.paused(step, still, |history| {
                let other = history.iter().rev().find(|v| v.digest != now);
                other.map(|v| (v.digest.clone(), v.file.clone()))
            })?;
        }
        let (digest, file) = before.ok_or_else(|| {
            ControlError::Refused(format!(
                "step {step} has run no other version that it could go back to"
            ))
        })?;
        let failed = |e: &dyn std::fmt::Display| ControlError::Failed(e.to_string());
        let versions = Versions::open(&self.plan.host.state).map_err(|e| failed(&e))?;
        let wasm = versions.read(&digest).map_err(|e| failed(&e))?;
        let name = format!("version {digest} of step {step}");
        let old = self.runtime.load(&name, &wasm).map_err(|e| failed(&e))?;
        self.order(step, &file, old)
    }

    fn history(&self, step: &str) -> Result<Vec<Version>, ControlError> {
        match &*self.phase() {
            Phase::Running(handle) => handle.history(step),
            Phase::Still(still) => self.paused(step, still, <[Version]>::to_vec),
        }
    }
}

impl Still {
    fn in_force(&self, step: &str) -> String {
        let versions = self.history.get(step).map_or(&[][..], Vec::as_slice);
        versions
            .last()
            .map_or_else(String::new, |v| v.digest.clone())
    }

    fn check_paused(&self) -> Result<(), ControlError> {
        match self.status.state {
            RunState::Paused(_) => Ok(()),
            RunState::Restarting(_) => Err(ControlError::Failed(
                "the pipeline is starting again; ask once more when it runs".into(),
            )),
            _ => Err(ControlError::Failed("the pipeline has ended".into())),
        }
    }
}

fn begin(
    plan: &Plan,
    runtime: &Arc<Runtime>,
    options: &Options,
) -> Result<Option<Supervised>, RunError> {
    let Some(mut engine) = open(plan.clone(), runtime, options)? else {
        return Ok(None);
    };
    let consoles = std::mem::take(&mut engine.consoles);
    let checkpoint = engine.shared.last_decided().number;
    let running = engine.start()?;
    Ok(Some(Supervised {
        running,
        consoles,
        checkpoint,
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
