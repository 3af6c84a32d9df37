//! `tidemill plugin history`: the versions that ran in a step.

use std::path::PathBuf;

use clap::Args;

use crate::admin::Version;
use crate::cli::status::Host;
use crate::cli::table::{self, Align};
use crate::cli::{Failure, screen, terminal};

/// List the versions of a step's plugin
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidemill plugin history examples/ecommerce/pipeline.toml anomalies"
)]
pub struct Arguments {
    /// The pipeline file that the host runs
    pipeline: PathBuf,
    /// The step whose plugin is asked about
    step: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let host = Host::of(&arguments.pipeline)?;
    let versions = host.ask(|client| client.history(&arguments.step))?;
    if arguments.json {
        return terminal::print_json(&versions);
    }
    terminal::print(&describe(&versions, terminal::width()))
}

fn describe(versions: &[Version], width: Option<usize>) -> String {
    let head = [
        ("", Align::Left),
        ("digest", Align::Left),
        ("since checkpoint", Align::Right),
        ("at", Align::Left),
        ("file", Align::Left),
    ];
    let row = |v: &Version| {
        vec![
            if v.in_force {
                "*".into()
            } else {
                String::new()
            },
            table::short(&v.digest),
            table::thousands(v.since_checkpoint),
            screen::time(v.at),
            terminal::escape(&v.file),
        ]
    };
    table::render(&head, &versions.iter().map(row).collect::<Vec<_>>(), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_force_is_marked() {
        let version = |digest: &str, since_checkpoint, in_force| Version {
            digest: digest.repeat(32),
            file: "anomaly.wasm".into(),
            since_checkpoint,
            at: 1_767_225_600_000_000,
            in_force,
        };
        let versions = [version("ab", 0, false), version("cd", 41, true)];
        insta::assert_snapshot!(describe(&versions, None), @r"
           digest        since checkpoint  at                    file
           abababababab                 0  2026-01-01T00:00:00Z  anomaly.wasm
        *  cdcdcdcdcdcd                41  2026-01-01T00:00:00Z  anomaly.wasm
        ");
    }
}
