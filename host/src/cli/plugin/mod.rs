//! `tidemill plugin ...`: everything a plugin's author does, from the first file to a swap in a running pipeline.

mod build;
mod history;
mod inspect;
mod new;
mod rollback;
mod swap;
mod test;

use clap::Subcommand;

use super::Failure;

/// Write, build, inspect, test and swap plugins
#[derive(Debug, Subcommand)]
pub enum Command {
    New(new::Arguments),
    Build(build::Arguments),
    Inspect(inspect::Arguments),
    Test(test::Arguments),
    Swap(swap::Arguments),
    Rollback(rollback::Arguments),
    History(history::Arguments),
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::New(arguments) => new::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Swap(arguments) => swap::run(&arguments),
        Command::Rollback(arguments) => rollback::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
    }
}
