//! A pipeline under a test's thumb: one thread, a clock that is moved by hand, crashes wherever the test wants one.
//!
//! The same engine as a real run, turned epoch by epoch. A crash is a [`Driver`] that is dropped: what was not decided is
//! gone, what files hold beyond the last checkpoint stays, as after `kill -9`.
//!
//! ```no_run
//! # use std::{path::Path, time::Duration};
//! # use tidemill::testing::{Driver, Driven};
//! let mut driver = Driver::open(Path::new("pipeline.toml"), &[]).unwrap().expect("something to do");
//! driver.epoch().unwrap();
//! driver.advance(Duration::from_secs(1)); // a checkpoint is due
//! driver.epoch().unwrap();
//! drop(driver); // crash
//! let mut again = Driver::open(Path::new("pipeline.toml"), &[]).unwrap().expect("something to do");
//! again.run_to_end().unwrap();
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::clock::ManualClock;
use crate::engine::open::{Engine, Options, open};
use crate::engine::shared::Job;
use crate::engine::watermark::Mode;
use crate::engine::worker::Stop;
use crate::error::RunError;
use crate::pipeline::{Overrides, load, plan};
use crate::plugin::Runtime;
use crate::step::Gauges;
use crate::time::Micros;

/// Wall time at which a driver's clock starts: 2026-02-01T00:00:00Z, after the generators' first records.
pub const START: Micros = 1_769_904_000_000_000;

/// A bounded run of a pipeline, one worker, epoch by epoch.
pub struct Driver {
    engine: Engine,
    clock: Arc<ManualClock>,
}

/// What became of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// There is more to do.
    On,
    /// The run has ended and its last checkpoint is decided.
    Ended,
}

impl Driver {
    /// Opens the pipeline file with `--set` style overrides; `None` if it has run to its end already.
    pub fn open(file: &Path, set: &[(&str, &str)]) -> Result<Option<Self>, RunError> {
        let refused = |r: crate::pipeline::Report| RunError::Refused(r.to_string());
        let given = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let overrides = Overrides {
            set: given.chain([("host.workers".into(), "1".into())]).collect(),
            brokers: None,
        };
        let spec = load(file, &overrides).map_err(refused)?;
        let runtime = Runtime::new(Some(spec.dir.join("plugin-cache")))?;
        let planned = plan(&spec, &runtime).map_err(refused)?;
        let clock = Arc::new(ManualClock::new(START));
        let options = Options {
            mode: Mode::UntilEnd,
            drop_steps: Vec::new(),
            clock: clock.clone(),
            stop: Arc::new(|| false),
            broker: None,
            again: false,
            swap: None,
        };
        Ok(open(planned, &runtime, &options)?.map(|engine| Self { engine, clock }))
    }

    /// One epoch, and the checkpoint if one was due.
    pub fn epoch(&mut self) -> Result<Driven, RunError> {
        let worker = &mut self.engine.workers[0];
        let more = worker.epoch().map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::Broken => self
                .engine
                .shared
                .failure()
                .unwrap_or(RunError::Worker("stopped".into())),
        })?;
        while let Ok(Job::Commit(frozen)) = self.engine.queue.try_recv() {
            self.engine
                .checkpointer
                .commit(*frozen, &self.engine.shared)?;
        }
        Ok(if more { Driven::On } else { Driven::Ended })
    }

    /// Epochs to the end of the input and of time.
    pub fn run_to_end(&mut self) -> Result<(), RunError> {
        while self.epoch()? == Driven::On {}
        Ok(())
    }

    /// Moves the clock; a checkpoint is due when `checkpoint_every` has passed.
    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// What each step holds at the end of the last epoch, in the order of the plan.
    pub fn gauges(&self) -> Vec<(&str, Gauges)> {
        let shared = &self.engine.shared;
        let steps = shared.plan.steps.iter().zip(&shared.metrics.steps);
        steps
            .map(|(step, metrics)| (step.name.as_str(), metrics.gauges()))
            .collect()
    }

    /// The number of the last decided checkpoint.
    pub fn checkpoint(&self) -> u64 {
        self.engine.shared.last_decided().number
    }
}
