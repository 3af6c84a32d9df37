//! A pipeline that this process runs: opened, started, reachable through the admin API, and brought to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::admin::{self, Server};
use crate::cli::{Failure, terminal};
use crate::engine::clock::SystemClock;
use crate::engine::control::{Control, RunState, Status};
use crate::engine::embedded::embed;
use crate::engine::open::Options;
use crate::engine::supervisor::{Supervised, Supervisor};
use crate::engine::watermark::Mode;
use crate::error::{ConnectorError, RunError};
use crate::kafka::EmbeddedBroker;
use crate::pipeline::plan::Plan;
use crate::plugin::Runtime;
use crate::sink::console::ConsoleSink;

/// How often a waiting main thread looks around.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A clean stop waits this long for its last checkpoint; a broker that is away could hold it up for ever.
const STOP_MAX: Duration = Duration::from_secs(30);

/// The first wait before a dropped run is begun again, and the longest that the waits double to.
const BEGIN_AGAIN_MIN: Duration = Duration::from_millis(100);
const BEGIN_AGAIN_MAX: Duration = Duration::from_secs(10);
/// So many runs in a row that decide nothing are worth an alarm.
const TRIES_BEFORE_ALARM: u32 = 3;

/// Ctrl-C and SIGTERM: the first asks for a clean stop, the second ends the process at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    asked: Arc<AtomicU32>,
}

/// A running pipeline and what belongs to it.
pub struct Session {
    supervisor: Arc<Supervisor>,
    /// None while the pipeline is paused, and at the end.
    run: Option<Supervised>,
    stop: Stop,
    /// The last decided checkpoint when the run began, its own first one included: where Kafka decides, a start makes one.
    began_with: u64,
    /// Runs in a row that have decided nothing after that, and starts that came to no run.
    stuck: u32,
    /// Where the pipeline's topics are, if on the embedded broker.
    pub broker: Option<Arc<EmbeddedBroker>>,
    _admin: Server,
}

impl Stop {
    /// Listens to the signals of this process.
    pub fn listen() -> Result<Self, Failure> {
        let stop = Self::default();
        let heard = stop.clone();
        ctrlc::set_handler(move || {
            if heard.asked.fetch_add(1, Relaxed) > 0 {
                std::process::exit(130);
            }
            terminal::progress(
                "stopping: finishing the epoch and its checkpoint (once more to end at once)",
            );
        })
        .map_err(|e| Failure::Failed(format!("cannot listen to signals: {e}")))?;
        // A file at the limit of its size is an error of the write, as a full disk is, and not the end of the process.
        // SAFETY: no handler is installed, the signal is only ignored.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(stop)
    }

    pub fn is_asked(&self) -> bool {
        self.asked.load(Relaxed) > 0
    }

    /// As a signal would.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Relaxed);
    }
}

impl Session {
    /// Opens and starts `plan`; `None` if it has run to its end and there is nothing new.
    pub fn start(
        mut plan: Plan,
        runtime: &Arc<Runtime>,
        mode: Mode,
        drop_steps: Vec<String>,
        stop: Stop,
    ) -> Result<Option<Self>, Failure> {
        let state: PathBuf = plan.host.state.clone();
        let broker = embed(&mut plan)?;
        tell_delivery(&plan);
        let port = plan.host.admin_port;
        let asked = stop.clone();
        let options = Options {
            mode,
            drop_steps,
            clock: Arc::new(SystemClock::default()),
            stop: Arc::new(move || asked.is_asked()),
            broker: broker.clone(),
            again: false,
            swap: None,
        };
        let Some((supervisor, run)) = first_run(&plan, runtime, options, &stop)? else {
            return Ok(None);
        };
        let admin = admin::serve(supervisor.clone(), &state, port).map_err(|e| {
            Failure::Failed(format!(
                "the admin API cannot listen on 127.0.0.1:{port}: {e}"
            ))
        })?;
        Ok(Some(Self {
            supervisor,
            began_with: run.checkpoint,
            run: Some(run),
            stop,
            stuck: 0,
            broker,
            _admin: admin,
        }))
    }

    /// Answers for the pipeline, paused or not.
    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    pub fn status(&self) -> Status {
        self.supervisor.status()
    }

    /// Of the run that there is now.
    pub fn consoles(&self) -> &[Arc<ConsoleSink>] {
        self.run.as_ref().map_or(&[], |run| &run.consoles)
    }

    /// Waits to the end; calls `each` every `every` until then, and once more when a run is over. A pipeline without end
    /// waits out its pauses.
    pub fn watch(
        &mut self,
        every: Duration,
        each: &mut dyn FnMut(&Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut pace = Pace {
            every,
            shown: Instant::now(),
            each,
        };
        loop {
            match self.watch_run(&mut pace)? {
                Err(RunError::Paused(why))
                    if self.supervisor.waits_out_pauses() && !self.stop.is_asked() =>
                {
                    self.wait_for_plugin(why, &mut pace)?;
                }
                Err(error)
                    if error.is_disk_full()
                        && self.supervisor.waits_out_pauses()
                        && !self.stop.is_asked() =>
                {
                    self.wait_for_room(error, &mut pace)?;
                }
                Err(error) if error.is_doubt() && !self.stop.is_asked() => {
                    self.begin_again(error, &mut pace)?;
                }
                // It ended at a checkpoint, as was asked for.
                Err(RunError::Grown(_)) => {
                    self.supervisor.rest(RunState::Finished);
                    return Ok(());
                }
                ended => {
                    self.supervisor.rest(RunState::Finished);
                    return ended.map_err(Failure::from);
                }
            }
            if self.run.is_none() {
                return Ok(());
            }
        }
    }

    /// To the end of the run that there is; how it ended.
    fn watch_run(&mut self, pace: &mut Pace<'_>) -> Result<Result<(), RunError>, Failure> {
        let mut told = None;
        while let Some(run) = self.run.as_ref().filter(|run| !run.running.is_over()) {
            let handle = run.running.handle();
            if self.stop.is_asked() && told.is_none() {
                told = Some(Instant::now());
                handle.stop();
            }
            if told.is_some_and(|at| at.elapsed() > STOP_MAX) {
                handle.give_up();
            }
            pace.look(self)?;
        }
        // What came since the last look: of a short run, all of it.
        let shown = (pace.each)(self);
        let ended = self.run.take().map_or(Ok(()), |run| run.running.join());
        shown.map(|()| ended)
    }

    /// Drops the run, as a crash would, and goes on from the last decided checkpoint; again and again, with longer and longer
    /// waits, until that is possible.
    fn begin_again(&mut self, error: RunError, pace: &mut Pace<'_>) -> Result<(), Failure> {
        let decided = self.count_stuck();
        let mut why = error;
        while self.run.is_none() && !self.stop.is_asked() {
            let tries = self.stuck;
            tracing::warn!(
                checkpoint = decided,
                "{why}; going on from the last decided checkpoint"
            );
            tell_stuck(tries);
            self.supervisor.rest(RunState::Restarting(why.to_string()));
            let until = Instant::now() + wait_after(tries);
            while Instant::now() < until && !self.stop.is_asked() {
                pace.look(self)?;
            }
            match self.restart() {
                Ok(Some(run)) => self.begin(run),
                Ok(None) => return Ok(()),
                Err(error) if error.is_doubt() => {
                    self.stuck += 1;
                    why = error;
                }
                Err(error) if error.is_disk_full() && self.supervisor.waits_out_pauses() => {
                    return self.wait_for_room(error, pace);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Drops the run, as a crash would, and tries now and then whether there is room on the disk again. A write that failed is
    /// never repeated: what is on the disk is read anew.
    fn wait_for_room(&mut self, error: RunError, pace: &mut Pace<'_>) -> Result<(), Failure> {
        let decided = self.count_stuck();
        let (mut why, mut tries) = (error, 0);
        while self.run.is_none() && !self.stop.is_asked() {
            let reason = format!(
                "disk full: {why}. Make room there; it goes on by itself from checkpoint {decided}"
            );
            if tries == 0 {
                tracing::error!("the pipeline is paused: {reason}");
            }
            self.supervisor.rest(RunState::Paused(reason));
            let until = Instant::now() + wait_after(self.stuck + tries);
            tries += 1;
            while self.run.is_none() && Instant::now() < until && !self.stop.is_asked() {
                // A version that is swapped in meanwhile is tried with.
                if let Some(run) = self.supervisor.resume() {
                    self.begin(run);
                }
                pace.look(self)?;
            }
            if self.run.is_some() || self.stop.is_asked() {
                return Ok(());
            }
            match self.restart() {
                Ok(Some(run)) => self.begin(run),
                Ok(None) => return Ok(()),
                Err(error) if error.is_disk_full() || error.is_doubt() => why = error,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn begin(&mut self, run: Supervised) {
        self.began_with = run.checkpoint;
        self.run = Some(run);
    }

    /// Counts whether the run that was dropped has come anywhere; returns the last decided checkpoint.
    fn count_stuck(&mut self) -> u64 {
        let decided = self.status().checkpoint.number;
        self.stuck = match decided > self.began_with {
            true => 0,
            false => self.stuck + 1,
        };
        decided
    }

    /// A run from the last decided checkpoint; `None` if there is nothing to do any more. A stop that is asked for meanwhile
    /// leaves nothing to do: nothing was begun.
    fn restart(&self) -> Result<Option<Supervised>, RunError> {
        match self.supervisor.restart() {
            Err(RunError::Connector(ConnectorError::Stopped { .. })) if self.stop.is_asked() => {
                Ok(None)
            }
            restarted => restarted,
        }
    }

    /// Stands still until a plugin is swapped in with which the pipeline starts again, or a stop is asked for.
    fn wait_for_plugin(&mut self, why: String, pace: &mut Pace<'_>) -> Result<(), Failure> {
        tracing::error!(
            "the pipeline is paused: {why}. What came after the last checkpoint is dropped and will be read again. It goes on \
             when a plugin is swapped in (`tidemill plugin swap PIPELINE STEP FILE`; the same file tries again)"
        );
        self.supervisor.rest(RunState::Paused(why));
        while self.run.is_none() && !self.stop.is_asked() {
            if let Some(run) = self.supervisor.resume() {
                self.begin(run);
            }
            pace.look(self)?;
        }
        Ok(())
    }
}

/// The first run of the process. What a broker that goes away leaves in doubt is found out when it is back, as later.
fn first_run(
    plan: &Plan,
    runtime: &Arc<Runtime>,
    options: Options,
    stop: &Stop,
) -> Result<Option<(Arc<Supervisor>, Supervised)>, Failure> {
    let mut tries = 0;
    loop {
        match Supervisor::start(plan.clone(), runtime, options.clone()) {
            Err(RunError::Connector(waiting @ ConnectorError::Stopped { .. }))
                if stop.is_asked() =>
            {
                return Err(Failure::StoppedEarly(format!(
                    "{waiting}; nothing was begun"
                )));
            }
            Err(error) if error.is_doubt() && !stop.is_asked() => {
                tracing::warn!("{error}; starting again");
                tell_stuck(tries);
                let until = Instant::now() + wait_after(tries);
                while Instant::now() < until && !stop.is_asked() {
                    std::thread::sleep(LOOK_EVERY);
                }
                tries += 1;
            }
            started => return Ok(started?),
        }
    }
}

/// How long a run that is dropped waits to be begun again, after so many that came nowhere.
fn wait_after(tries: u32) -> Duration {
    (BEGIN_AGAIN_MIN * 2_u32.saturating_pow(tries)).min(BEGIN_AGAIN_MAX)
}

fn tell_stuck(tries: u32) {
    if tries >= TRIES_BEFORE_ALARM {
        tracing::error!(
            "{tries} times in a row no checkpoint was decided; look at the brokers (`tidemill doctor PIPELINE`)"
        );
    }
}

/// Says once what readers of the output may count on.
fn tell_delivery(plan: &Plan) {
    let said = match (plan.transactional(), plan.kafka_output()) {
        (Some(_), _) => {
            "output to Kafka is exactly once for readers with isolation.level=read_committed; others see rows of checkpoints \
             that were taken back"
        }
        (None, Some(_)) => {
            "output to Kafka is at least once: what was written after the last checkpoint is written again after a crash"
        }
        (None, None) => return,
    };
    tracing::info!("{said}");
}

/// What is shown while a pipeline is watched.
struct Pace<'a> {
    every: Duration,
    shown: Instant,
    each: &'a mut dyn FnMut(&Session) -> Result<(), Failure>,
}

impl Pace<'_> {
    /// Shows the session if it is time, and waits a little.
    fn look(&mut self, session: &Session) -> Result<(), Failure> {
        if self.shown.elapsed() >= self.every {
            self.shown = Instant::now();
            (self.each)(session)?;
        }
        std::thread::sleep(LOOK_EVERY);
        Ok(())
    }
}
