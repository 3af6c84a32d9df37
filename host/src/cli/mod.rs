//! The command line. One command a file: its arguments, then a call into the library.
//!
//! Invariant: whatever ends a command goes through [`Failure`] to an exit code; no command exits by itself.

mod carried;
mod check;
mod demo;
mod doctor;
mod example;
mod failure;
mod generate;
mod logging;
mod over;
mod pace;
mod plugin;
mod reset;
mod restore;
mod run;
mod screen;
mod session;
mod snapshot;
mod state;
mod status;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;
use over::Over;

/// Processes streams of records with plugins that change while it runs.
#[derive(Debug, Parser)]
#[command(
    name = "tidemill",
    version,
    arg_required_else_help = true,
    after_help = "TIDEMILL_LOG sets what is logged, for example TIDEMILL_LOG=debug.\nExit codes: 0 done, 1 failed while running, 2 bad usage or pipeline (nothing was started), 3 fenced by a newer host."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Run(run::Arguments),
    Check(check::Arguments),
    Doctor(doctor::Arguments),
    Generate(generate::Arguments),
    #[command(subcommand)]
    Plugin(plugin::Command),
    Status(status::Arguments),
    Reset(reset::Arguments),
    Snapshot(snapshot::Arguments),
    Restore(restore::Arguments),
    #[command(subcommand)]
    State(state::Command),
}

/// Runs the command that this process was called with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start();
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Plugin(command) => plugin::run(command),
        Command::Status(arguments) => status::run(arguments),
        Command::Reset(arguments) => reset::run(arguments),
        Command::Snapshot(arguments) => snapshot::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::State(command) => state::run(command),
    }
}

#[cfg(test)]
mod tests;
