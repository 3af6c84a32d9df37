//! `tidemill snapshot`: a copy of a pipeline's state that outlives it, while it runs or stands still.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::status::state_dir;
use super::{Failure, table, terminal};
use crate::admin::{Client, ClientError};
use crate::engine::snapshot::{Progress, SnapshotState, Taken};
use crate::engine::states;
use crate::error::StateError;
use crate::pipeline::{self, Overrides};

/// How often a running host is asked how far it is, and how often that is told.
const ASK_EVERY: Duration = Duration::from_millis(50);
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Copy the state of a pipeline, at its last decided checkpoint
///
/// The pipeline may run: it goes on meanwhile, and its host writes the copy. DIR must be empty or not exist; it holds a
/// snapshot once its file snapshot.json is there. It has all that a start needs of the state directory: keyed state,
/// positions, plugins, rows that are not visible yet, dead letters. What readers see of the output is not in it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill snapshot pipeline.toml /backup/shop-2026-01-01\n  tidemill restore pipeline.toml /backup/shop-2026-01-01"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    /// Where to: a directory that is empty or not there yet, on another disk than the state
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let spec =
        pipeline::load(&arguments.pipeline, &Overrides::default()).map_err(Failure::Pipeline)?;
    let name = spec.name.as_ref().map_or("", |name| name.value.as_str());
    let state = state_dir(&spec);
    let dir = std::path::absolute(&arguments.dir)
        .map_err(|e| Failure::Refused(format!("{}: {e}", arguments.dir.display())))?;
    let taken = match ask_host(&state, &dir)? {
        Some(taken) => taken,
        None => by_ourselves(&state, name, &dir)?,
    };
    report(&arguments.pipeline, &taken, arguments.json)
}

/// Has the host that runs on `state` do it; `None` if there is none.
fn ask_host(state: &Path, dir: &Path) -> Result<Option<Taken>, Failure> {
    let client = match Client::find(state) {
        Err(ClientError::NotRunning { .. }) => return Ok(None),
        client => client?,
    };
    match client.begin_snapshot(dir) {
        Err(ClientError::NotRunning { .. }) => return Ok(None),
        begun => begun?,
    }
    let mut said = Said::default();
    loop {
        match client.snapshot_state()? {
            SnapshotState::Done(taken) => return Ok(Some(taken)),
            SnapshotState::Failed(why) => return Err(Failure::Failed(why)),
            SnapshotState::None => {
                let gone = "the host was started anew meanwhile: no snapshot was taken";
                return Err(Failure::Failed(gone.into()));
            }
            SnapshotState::Waiting => said.wait(),
            SnapshotState::Running(progress) => said.progress(&progress),
        }
        std::thread::sleep(ASK_EVERY);
    }
}

fn by_ourselves(state: &Path, name: &str, dir: &Path) -> Result<Taken, Failure> {
    let source = states::stopped(state, name).map_err(|e| match e {
        crate::error::RunError::State(StateError::InUse { .. }) => Failure::Refused(format!(
            "a host runs on {} but cannot be asked (it is just starting or stopping): try again",
            state.display()
        )),
        e => e.into(),
    })?;
    let mut said = Said::default();
    let mut each = |progress| {
        said.progress(&progress);
        Ok(())
    };
    Ok(source.write(dir, &mut each)?)
}

/// What was told of a snapshot under way.
struct Said {
    at: Instant,
}

impl Default for Said {
    fn default() -> Self {
        Self { at: Instant::now() }
    }
}

impl Said {
    fn wait(&mut self) {
        self.tell(|| "waiting for the sinks to take over the last checkpoint".into());
    }

    fn progress(&mut self, progress: &Progress) {
        self.tell(|| match progress.hashing {
            true => format!("{} of checksums", table::bytes(progress.bytes)),
            false => format!(
                "{} of at most {} keys, {}",
                table::thousands(progress.keys),
                table::thousands(progress.keys_at_most),
                table::bytes(progress.bytes)
            ),
        });
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.at.elapsed() >= TELL_EVERY {
            self.at = Instant::now();
            terminal::progress(&line());
        }
    }
}

fn report(pipeline: &Path, taken: &Taken, json: bool) -> Result<(), Failure> {
    if json {
        return terminal::print_json(taken);
    }
    let undecided = match taken.undecided {
        Some(number) => format!(
            "checkpoint {number}, which was prepared after it, is not in it: only a start can tell whether that is true\n"
        ),
        None => String::new(),
    };
    terminal::print(&format!(
        "{}: checkpoint {} of {}, as of {}: {} keys, {} segments, {} files, {}\n\
         {undecided}put it back with: tidemill restore {} {}",
        taken.dir.display(),
        taken.checkpoint,
        taken.pipeline,
        taken.as_of,
        table::thousands(taken.keys),
        table::thousands(taken.segments),
        table::thousands(taken.files),
        table::bytes(taken.bytes),
        pipeline.display(),
        taken.dir.display()
    ))
}
