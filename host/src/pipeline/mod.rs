//! The pipeline file: `spec` is the file as plain structs, `check` finds all mistakes at once with their positions, `plan`
//! is what the engine runs.
//!
//! From text to plan: `tree` (TOML with positions) -> `parse` (keys and notations) -> `spec` -> `resolve` (names, types,
//! expressions, plugins) -> `plan`. Each stage goes on after a mistake.

pub mod check;
mod describe;
mod diagnostics;
mod diagram;
mod explain;
mod generated;
mod parse;
pub mod plan;
mod quoted;
mod read;
mod remote;
mod resolve;
mod secrets;
pub mod spec;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod values;

pub use check::{Overrides, check, load, plan};
pub use describe::{describe, goes_on, sink_place, source_identity};
pub use diagnostics::{Diagnostic, Place, Report};
pub use diagram::diagram;
pub use explain::explain;
pub use text::{Span, Spanned, Text, Texts};
pub use values::{clock, duration, show_duration, time};
