//! Log lines to stderr, so that stdout is the command's own.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Sets what is logged, in the syntax of `tracing_subscriber::EnvFilter`.
const VARIABLE: &str = "TIDEMILL_LOG";
const DEFAULT: &str = "warn,tidemill=info";

/// Starts logging for the life of the process.
pub fn start() {
    let asked = std::env::var(VARIABLE)
        .ok()
        .filter(|asked| !asked.trim().is_empty());
    let (filter, mistake) = match asked.as_deref().map(EnvFilter::try_new) {
        None => (EnvFilter::new(DEFAULT), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(e)) => (EnvFilter::new(DEFAULT), Some(e)),
    };
    // Fails only if a test has a subscriber already.
    let _ = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(super::terminal::wants_color(io::stderr().is_terminal()))
        .try_init();
    if let Some(e) = mistake {
        tracing::warn!("{VARIABLE} is not understood and left out: {e}");
    }
}
