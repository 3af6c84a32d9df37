//! `tidemill check`: all mistakes of a pipeline file at once, or what it will do.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Over, terminal};
use crate::pipeline;
use crate::plugin::Runtime;

/// Check a pipeline file and show what it would run
///
/// Starts nothing: files are read and plugins configured. Every mistake is reported at once. Exit code 2 if there is one.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill check examples/ecommerce/pipeline.toml\n  tidemill check pipeline.toml --explain\n  tidemill check pipeline.toml --diagram > pipeline.mmd"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    #[command(flatten)]
    over: Over,
    /// Print a Mermaid flowchart of sources, tables, steps and sinks, and nothing else
    #[arg(long)]
    diagram: bool,
    /// Tell of each step how rows move between workers, what it keeps, what it waits for and which columns it reads
    #[arg(long, conflicts_with = "diagram")]
    explain: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let overrides = arguments.over.into();
    let runtime = Runtime::new(None)?;
    let (plan, warnings) =
        pipeline::check(&arguments.pipeline, &overrides, &runtime).map_err(Failure::Pipeline)?;
    terminal::print(&match (arguments.diagram, arguments.explain) {
        (true, _) => pipeline::diagram(&plan),
        (_, true) => pipeline::explain(&plan),
        _ => pipeline::describe(&plan),
    })?;
    let text = warnings.render(terminal::wants_color(terminal::stderr_is_terminal()));
    terminal::progress(text.trim_end());
    Ok(())
}
