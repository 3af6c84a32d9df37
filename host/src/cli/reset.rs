//! `tidemill reset`: forgets what a pipeline has read and kept, so that the next run starts from the beginning; or, with
//! `--to`, moves where its sources go on.

mod to;

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, Over, status, terminal};
use crate::pipeline::{self, spec::Spec};
use crate::plugin::Runtime;
use crate::state::parse_state_id;
use crate::state::store::Store;
use to::To;

/// Forget the state of a pipeline, or move where its sources go on
///
/// Alone, it forgets everything: the next run starts where `start` of each source says. With --to, sources go on
/// elsewhere, and steps that read them give up their state (windows, joins, keys): rows that come again would be counted
/// twice. Steps of other sources keep theirs, plugins stay at the version in force.
///
/// Without --yes it only says what would be done, for each source, step and sink. Output files and topics stay as they
/// are. After a reset without --to a file sink refuses a file from before unless it says existing = "append" or
/// "overwrite"; after --to it goes on behind what it wrote, or begins anew with "overwrite".
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill reset examples/ecommerce/pipeline.toml --yes\n  tidemill reset pipeline.toml --to earliest\n  tidemill reset pipeline.toml --to 2026-01-01T00:00:00Z --yes\n  tidemill reset pipeline.toml --to offsets.json --yes    where offsets.json is { \"clicks\": { \"0\": 1234 } }"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    /// Where sources go on: `earliest`, a time (RFC 3339; Kafka's own timestamps), or a JSON file of offsets by source
    /// and partition, which leaves alone what it does not name
    #[arg(long, value_name = "earliest|TIME|FILE.json")]
    to: Option<To>,
    #[command(flatten)]
    over: Over,
    /// The state whose decisions in Kafka a new one takes the place of, as a refused start names it: output since its last
    /// checkpoint is written again. Only where the state itself is lost; otherwise a reset knows by itself
    #[arg(long, value_name = "STATE_ID", conflicts_with = "to", value_parser = state_id)]
    abandon: Option<[u8; 16]>,
    /// Do it
    #[arg(long)]
    yes: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let overrides = arguments.over.into();
    let spec = pipeline::load(&arguments.pipeline, &overrides).map_err(Failure::Pipeline)?;
    match arguments.to {
        None => forget(&spec, arguments.abandon, arguments.yes),
        Some(to) => go(&spec, &arguments.pipeline, &to, arguments.yes),
    }
}

fn state_id(text: &str) -> Result<[u8; 16], String> {
    parse_state_id(text).ok_or_else(|| "a state id has 32 hexadecimal digits".to_owned())
}

fn forget(spec: &Spec, abandon: Option<[u8; 16]>, yes: bool) -> Result<(), Failure> {
    let state = status::state_dir(spec);
    if !state.exists() && abandon.is_none() {
        return terminal::print(&format!(
            "nothing to reset: there is no state in {}\n",
            state.display()
        ));
    }
    if !yes {
        return terminal::print(&format!(
            "would delete positions, keyed state and checkpoints in {}; run again with --yes to do it\n",
            state.display()
        ));
    }
    Store::reset(&state)?;
    if let Some(id) = abandon {
        Store::supersede(&state, id)?;
    }
    terminal::print(&format!(
        "reset: {} holds no state any more\n",
        state.display()
    ))
}

fn go(spec: &Spec, file: &Path, to: &To, yes: bool) -> Result<(), Failure> {
    let target = to.target()?;
    let runtime = Runtime::new(None)?;
    let plan = pipeline::plan(spec, &runtime).map_err(Failure::Pipeline)?;
    to::carry_out(&plan, file, &target, yes)
}
