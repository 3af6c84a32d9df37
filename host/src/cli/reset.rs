//! `tidemill reset`: forgets what a pipeline has read and kept, so that the next run starts from the beginning.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, status, terminal};
use crate::pipeline::{self, Overrides};
use crate::state::store::Store;

/// Forget the state of a pipeline: the next run starts from the beginning
///
/// Without --yes it only says what would be deleted. Output files and topics stay as they are: a file sink refuses a file
/// from before unless it says existing = "append" or "overwrite".
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidemill reset examples/ecommerce/pipeline.toml --yes")]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    /// Delete it
    #[arg(long)]
    yes: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let spec =
        pipeline::load(&arguments.pipeline, &Overrides::default()).map_err(Failure::Pipeline)?;
    let state = status::state_dir(&spec);
    if !state.exists() {
        return terminal::print(&format!(
            "nothing to reset: there is no state in {}\n",
            state.display()
        ));
    }
    if !arguments.yes {
        return terminal::print(&format!(
            "would delete positions, keyed state and checkpoints in {}; run again with --yes to do it\n",
            state.display()
        ));
    }
    Store::reset(&state)?;
    terminal::print(&format!(
        "reset: {} holds no state any more\n",
        state.display()
    ))
}
