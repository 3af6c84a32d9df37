//! `tidemill plugin swap`: another version of a step's plugin, while the pipeline runs.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::admin::Swapped;
use crate::cli::status::Host;
use crate::cli::{Failure, table, terminal};
use crate::limits::PLUGIN_BYTES_MAX;

/// Change the plugin of a step in a running pipeline
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidemill plugin swap examples/ecommerce/pipeline.toml anomalies my-plugin.wasm"
)]
pub struct Arguments {
    /// The pipeline file that the host runs
    pipeline: PathBuf,
    /// The step whose plugin is changed
    step: String,
    /// The component, as `tidemill plugin build` writes it
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = arguments.file.display().to_string();
    let unreadable = |e| Failure::Refused(format!("{file}: {e}"));
    let bytes = fs::metadata(&arguments.file).map_err(unreadable)?.len();
    if bytes > PLUGIN_BYTES_MAX as u64 {
        return Err(Failure::Refused(format!(
            "{file}: {bytes} bytes; a plugin may have at most {PLUGIN_BYTES_MAX}"
        )));
    }
    let wasm = fs::read(&arguments.file).map_err(unreadable)?;
    let host = Host::of(&arguments.pipeline)?;
    let swapped = host.ask(|client| client.swap(&arguments.step, &file, &wasm))?;
    report(&swapped, arguments.json)
}

/// Says what is in force now.
pub fn report(swapped: &Swapped, json: bool) -> Result<(), Failure> {
    if json {
        return terminal::print_json(swapped);
    }
    terminal::print(&format!(
        "step {}: {} is in force since checkpoint {}, in place of {}; the pipeline paused {:.1} ms",
        swapped.step,
        table::short(&swapped.to),
        swapped.checkpoint,
        table::short(&swapped.from),
        swapped.pause_ms
    ))
}
