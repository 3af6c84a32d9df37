//! A pipeline that this process runs: opened, started, reachable through the admin API, and brought to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::admin::{self, Server};
use crate::cli::{Failure, terminal};
use crate::engine::clock::SystemClock;
use crate::engine::control::{Control, Status};
use crate::engine::embedded::{embed, has_kafka_sink};
use crate::engine::handle::Handle;
use crate::engine::open::{Options, open};
use crate::engine::run::Running;
use crate::engine::watermark::Mode;
use crate::kafka::EmbeddedBroker;
use crate::pipeline::plan::{Delivery, Plan};
use crate::plugin::Runtime;
use crate::sink::console::ConsoleSink;

/// How often a waiting main thread looks around.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A clean stop waits this long for its last checkpoint; a broker that is away could hold it up for ever.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Ctrl-C and SIGTERM: the first asks for a clean stop, the second ends the process at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    asked: Arc<AtomicU32>,
}

/// A running pipeline and what belongs to it.
pub struct Session {
    running: Running,
    stop: Stop,
    pub consoles: Vec<Arc<ConsoleSink>>,
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
        if has_kafka_sink(&plan) && plan.host.delivery == Delivery::Default {
            tracing::warn!(
                "output to Kafka is at least once: what was written after the last checkpoint is written again after a crash"
            );
        }
        let port = plan.host.admin_port;
        let asked = stop.clone();
        let options = Options {
            mode,
            drop_steps,
            clock: Arc::new(SystemClock::default()),
            stop: Arc::new(move || asked.is_asked()),
            broker: broker.clone(),
        };
        let Some(mut engine) = open(plan, runtime, &options)? else {
            return Ok(None);
        };
        let consoles = std::mem::take(&mut engine.consoles);
        let running = engine.start()?;
        let admin = admin::serve(running.handle().clone(), &state, port).map_err(|e| {
            Failure::Failed(format!(
                "the admin API cannot listen on 127.0.0.1:{port}: {e}"
            ))
        })?;
        Ok(Some(Self {
            running,
            stop,
            consoles,
            broker,
            _admin: admin,
        }))
    }

    pub fn handle(&self) -> &Arc<Handle> {
        self.running.handle()
    }

    pub fn status(&self) -> Status {
        self.handle().status()
    }

    /// Waits to the end; calls `each` every `every` until then.
    pub fn watch(
        self,
        every: Duration,
        each: &mut dyn FnMut(&Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut shown = Instant::now();
        let mut told = None;
        while !self.running.is_over() {
            if self.stop.is_asked() && told.is_none() {
                told = Some(Instant::now());
                self.handle().stop();
            }
            if told.is_some_and(|at| at.elapsed() > STOP_MAX) {
                self.handle().give_up();
            }
            if shown.elapsed() >= every {
                shown = Instant::now();
                each(&self)?;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.running.join().map_err(Failure::from)
    }
}
