//! The HTTP admin API on loopback: what it offers ([`Control`]), its server, its client, its metrics.
//!
//! Knows the engine only through [`Control`]. Nothing here leaves the machine: the server binds 127.0.0.1, and the bearer
//! token is readable by the owner of the state directory alone.

mod client;
mod client_state;
mod metrics;
mod server;
mod state_routes;
mod token;

#[cfg(test)]
pub(crate) mod sample;

pub use crate::engine::control::{
    CheckpointStatus, Control, ControlError, PluginStatus, RunState, SinkStatus, SourceStatus,
    Status, StepStatus, Swapped, Version,
};
pub use client::{Client, ClientError};
pub use server::{Server, serve};
pub use token::{ADDRESS_FILE, TOKEN_FILE};
