//! How a command ends when it does not succeed: an exit code and the words for it.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::terminal;
use crate::admin::ClientError;
use crate::error::{ConnectorError, PluginError, RunError, StateError};
use crate::pipeline::Report;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Bad usage or pipeline: nothing was started. Exit code 2.
    Refused(String),
    /// The mistakes of a pipeline file. Exit code 2.
    Pipeline(Report),
    /// It failed while it ran. Exit code 1.
    Failed(String),
    /// A newer host of the pipeline took over: do not restart. Exit code 3.
    Fenced(String),
    /// It was asked to stop while it still waited to begin, so nothing was begun. Exit code 0.
    StoppedEarly(String),
    /// Whoever read our output does not want more of it, which is fine. Exit code 0.
    OutputClosed,
}

impl Failure {
    /// Says what happened on stderr.
    pub fn report(&self) -> ExitCode {
        let say = |text: &str| format!("error: {text}");
        let (code, text) = match self {
            Self::Refused(text) => (2, say(text)),
            Self::Pipeline(report) => (
                2,
                report.render(terminal::wants_color(io::stderr().is_terminal())),
            ),
            Self::Failed(text) => (1, say(text)),
            Self::Fenced(text) => (3, say(text)),
            Self::StoppedEarly(text) => (0, text.clone()),
            Self::OutputClosed => return ExitCode::SUCCESS,
        };
        // Nothing is left to tell if stderr is closed too.
        let _ = writeln!(io::stderr(), "{}", text.trim_end());
        ExitCode::from(code)
    }
}

impl From<io::Error> for Failure {
    /// An error of our own output.
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("writing the output: {e}")),
        }
    }
}

impl From<PluginError> for Failure {
    fn from(e: PluginError) -> Self {
        match e {
            PluginError::Build { .. } => Self::Failed(e.to_string()),
            e => Self::Refused(e.to_string()),
        }
    }
}

impl From<RunError> for Failure {
    fn from(e: RunError) -> Self {
        match e {
            RunError::Refused(text) => Self::Refused(text),
            RunError::Plugin(e) => e.into(),
            RunError::State(e) => e.into(),
            RunError::Connector(e) => e.into(),
            e => Self::Failed(e.to_string()),
        }
    }
}

impl From<StateError> for Failure {
    fn from(e: StateError) -> Self {
        match e {
            StateError::Store { .. } => Self::Failed(e.to_string()),
            // Found out before anything was started.
            e => Self::Refused(e.to_string()),
        }
    }
}

impl From<ConnectorError> for Failure {
    fn from(e: ConnectorError) -> Self {
        match e {
            ConnectorError::Fenced { .. } => Self::Fenced(e.to_string()),
            e => Self::Failed(e.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        Self::Failed(e.to_string())
    }
}
