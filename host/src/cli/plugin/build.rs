//! `tidemill plugin build`: a plugin crate to a component.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Failure, terminal};
use crate::plugin::build;

/// Compile a plugin crate to a Wasm component
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidemill plugin build plugins/anomaly --out anomaly.wasm")]
pub struct Arguments {
    /// Directory of the plugin crate
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// File to write [default: DIR/PACKAGE.wasm]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let built = build::build(
        &arguments.dir,
        arguments.out.as_deref(),
        &mut terminal::progress,
    )?;
    terminal::print(&built.path.display().to_string())
}
