//! `tidemill state get`: what a step keeps of one key.

use std::path::PathBuf;

use clap::Args;

use super::{answer, cell, kept, key_words};
use crate::cli::{Failure, terminal};
use crate::engine::inspect::{self, Found};

/// Show what a step keeps of one key
///
/// Of the last decided checkpoint, as `state list`. A fixed layout of a plugin is 64-bit words, which the plugin does not
/// name: each is shown as integer or float, whichever is likelier, and as both with --json.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill state get pipeline.toml sessions u17\n  tidemill state get pipeline.toml pairs '[\"u17\", 4]' --json"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    /// The step that keeps something of the key
    step: String,
    /// JSON: a value, or an array of one for each key column; plain text where the key is one column that is no number
    #[arg(allow_hyphen_values = true)]
    key: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (step, key) = (&arguments.step, &arguments.key);
    let found = answer(
        &arguments.pipeline,
        |client| client.state_get(step, key),
        |view| inspect::get(view, step, key),
    )?;
    match arguments.json {
        true => terminal::print_json(&found),
        false => terminal::print(&describe(&found)),
    }
}

fn describe(found: &Found) -> String {
    let key: Vec<String> = found.entry.key.iter().map(cell).collect();
    let alarm = match &found.entry.kept.alarm {
        Some(alarm) => format!("\n  alarm  {alarm}"),
        None => String::new(),
    };
    let forgotten = match &found.entry.kept.forgotten {
        Some(at) => format!("\n  forgotten at {at}"),
        None => String::new(),
    };
    format!(
        "{}, checkpoint {}\n  key    {} ({}){alarm}{forgotten}\n  state  {}",
        terminal::escape(&found.step),
        found.checkpoint,
        key.join(", "),
        key_words(&found.key),
        kept(&found.entry.kept)
    )
}
