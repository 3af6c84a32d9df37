//! `tidemill plugin test`: the native tests of a plugin crate.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Failure;
use crate::plugin::build;

/// Run the native tests of a plugin crate
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidemill plugin test plugins/anomaly")]
pub struct Arguments {
    /// Directory of the plugin crate
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Passed on to `cargo test`
    #[arg(last = true, value_name = "ARGUMENT")]
    cargo: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let status = build::test(&arguments.dir, &arguments.cargo)?;
    if status.success() {
        return Ok(());
    }
    let dir = arguments.dir.display();
    Err(Failure::Failed(format!(
        "the tests of the plugin in {dir} did not pass ({status})"
    )))
}
