//! What the command line asks a running host about its state.

use std::path::Path;

use super::state_routes::SnapshotRequest;
use super::{Client, ClientError};
use crate::engine::inspect::{Found, Listing, Query, StateSteps};
use crate::engine::snapshot::SnapshotState;

impl Client {
    /// Has the host write a snapshot into `dir`, an absolute path; returns as soon as it has begun.
    pub fn begin_snapshot(&self, dir: &Path) -> Result<(), ClientError> {
        self.send(
            "/snapshot",
            &SnapshotRequest {
                dir: dir.to_owned(),
            },
        )
    }

    pub fn snapshot_state(&self) -> Result<SnapshotState, ClientError> {
        self.ask("/snapshot", &[])
    }

    pub fn state_steps(&self) -> Result<StateSteps, ClientError> {
        self.ask("/state", &[])
    }

    pub fn state_list(&self, step: &str, query: &Query) -> Result<Listing, ClientError> {
        let limit = query.limit.map(|limit| limit.to_string());
        let prefix = query.prefix.as_deref().map(|prefix| ("prefix", prefix));
        let limit = limit.as_deref().map(|limit| ("limit", limit));
        let query: Vec<_> = prefix.into_iter().chain(limit).collect();
        self.ask(&path(step)?, &query)
    }

    pub fn state_get(&self, step: &str, key: &str) -> Result<Found, ClientError> {
        self.ask(&format!("{}/key", path(step)?), &[("key", key)])
    }
}

/// A step's path; a name that no step can have goes nowhere. The ranking of a window has a dot.
fn path(step: &str) -> Result<String, ClientError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    match !step.is_empty() && step.bytes().all(allowed) {
        true => Ok(format!("/state/{step}")),
        false => Err(ClientError::Refused(format!("`{step}` is not a step name"))),
    }
}
