//! `tidemill run`: a pipeline, for ever or to the end of its input.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::session::{Session, Stop};
use super::{Failure, Over, screen, status, terminal};
use crate::engine::control::Status;
use crate::engine::watermark::Mode;
use crate::pipeline::{self, load};
use crate::plugin::Runtime;

/// How often console sinks are shown.
const SHOW_EVERY: Duration = Duration::from_secs(2);

/// Run a pipeline
///
/// Goes on from the last checkpoint in the state directory. Ctrl-C and SIGTERM finish the epoch, commit and exit 0.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill run examples/ecommerce/pipeline.toml --brokers localhost:9092\n  tidemill run batch.toml --until-end --summary summary.json"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    #[command(flatten)]
    over: Over,
    /// Read every source to where it ends now, let all alarms fire, commit, and exit
    #[arg(long)]
    until_end: bool,
    /// Stop at the end of the input, but leave event time where it is: the next run goes on
    #[arg(long)]
    keep_open: bool,
    /// Give up the state of a step that was changed or removed (STEP.top: only what its `top` has not ranked yet)
    #[arg(long, value_name = "STEP")]
    drop_state: Vec<String>,
    /// Write counts as JSON at the end
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let overrides = arguments.over.into();
    let mode = match (arguments.until_end, arguments.keep_open) {
        (_, true) => Mode::KeepOpen,
        (true, false) => Mode::UntilEnd,
        (false, false) => Mode::Streaming,
    };
    let started = Instant::now();
    let spec = load(&arguments.pipeline, &overrides).map_err(Failure::Pipeline)?;
    let runtime = Runtime::new(Some(status::state_dir(&spec).join("cache")))?;
    let plan = pipeline::plan(&spec, &runtime).map_err(Failure::Pipeline)?;
    let (name, summary) = (plan.name.clone(), arguments.summary);
    let stop = Stop::listen()?;
    let Some(mut session) = Session::start(plan, &runtime, mode, arguments.drop_state, stop)?
    else {
        terminal::progress(&format!(
            "{name}: nothing to do, its input was read to the end before"
        ));
        return summary.map_or(Ok(()), |path| {
            write(&path, &json!({ "sources": {}, "steps": {}, "sinks": {} }))
        });
    };
    terminal::progress(&format!(
        "{name}: running; `tidemill status {}` tells more",
        arguments.pipeline.display()
    ));
    let result = session.watch(SHOW_EVERY, &mut show);
    if let Some(path) = summary {
        write(&path, &summarize(session.status(), started))?;
    }
    result?;
    terminal::progress(screen::summary(&session.status()).trim_end());
    Ok(())
}

fn show(session: &Session) -> Result<(), Failure> {
    for console in session.consoles() {
        terminal::print(&console.render())?;
    }
    Ok(())
}

fn summarize(status: Status, started: Instant) -> Value {
    let named =
        |entries: Vec<(String, Value)>| Value::Object(entries.into_iter().collect::<Map<_, _>>());
    let steps = status.steps.into_iter().map(|s| {
        let counts = json!({ "rows_in": s.rows_in, "rows_out": s.rows_out, "late": s.late, "dead_letters": s.dead_letters });
        (s.name, counts)
    });
    let sources = status.sources.into_iter().map(|s| {
        let lost = json!({ "records": s.lost.records, "unknown": s.lost.unknown });
        let counts = json!({ "records_in": s.records_in, "bad": s.bad, "lost": lost });
        (s.name, counts)
    });
    json!({
        "sources": named(sources.collect()),
        "steps": named(steps.collect()),
        "sinks": named(status.sinks.into_iter().map(|s| (s.name, json!({ "records_out": s.records_out }))).collect()),
        "dead_letters": status.dead_letters,
        "epochs": status.epoch,
        "checkpoints": status.checkpoint.count,
        "wall_seconds": started.elapsed().as_secs_f64(),
        "cpu_seconds": cpu_seconds(),
        "max_resident_bytes": usage().ru_maxrss * 1024,
    })
}

fn usage() -> libc::rusage {
    // SAFETY: all-zero bytes are a valid rusage, which getrusage fills for this process.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}

fn cpu_seconds() -> f64 {
    let usage = usage();
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn write(path: &Path, summary: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(summary).expect("plain data") + "\n";
    std::fs::write(path, text).map_err(|e| Failure::Failed(format!("{}: {e}", path.display())))
}
