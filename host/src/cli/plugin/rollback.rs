//! `tidemill plugin rollback`: back to the version before.

use std::path::PathBuf;

use clap::Args;

use super::swap::report;
use crate::cli::Failure;
use crate::cli::status::Host;

/// Change a step's plugin back to the version before
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidemill plugin rollback examples/ecommerce/pipeline.toml anomalies"
)]
pub struct Arguments {
    /// The pipeline file that the host runs
    pipeline: PathBuf,
    /// The step whose plugin is changed back
    step: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let host = Host::of(&arguments.pipeline)?;
    let swapped = host.ask(|client| client.rollback(&arguments.step))?;
    report(&swapped, arguments.json)
}
