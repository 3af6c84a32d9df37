//! The pipeline file: `spec` is the file as plain structs, `check` finds all mistakes at once with their positions, `plan`
//! turns a checked file into what the engine runs.

pub mod check;
pub mod plan;
pub mod spec;
