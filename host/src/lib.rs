//! Tidemill's engine as a library: what the `tidemill` binary runs and what tests drive.
//!
//! Direction of knowledge (right may use left, and whoever needs to know of it the plan of `pipeline::plan`): `error, limits,
//! batch, time` <- `format, expr, state, plugin, table` <- `step` <- `pipeline` <- `source, sink, kafka` <- `engine` <- `admin,
//! doctor` <- `cli`.

pub mod batch;
pub mod crash;
pub mod error;
pub mod limits;
pub mod time;

pub mod expr;
pub mod format;
pub mod plugin;
pub mod state;
pub mod table;

pub mod step;

pub mod pipeline;

pub mod kafka;
pub mod sink;
pub mod source;

pub mod engine;

pub mod doctor;

pub mod admin;
pub mod cli;
pub mod testing;
