//! The routes that look into the state and take snapshots. The guard of the server stands before them as before all others.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path as Segment, Query, State};
use axum::response::{Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::server::{Api, blocking, error};
use crate::engine::inspect;

pub fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/snapshot", post(begin).get(progress))
        .route("/state", get(steps))
        .route("/state/{step}", get(list))
        .route("/state/{step}/key", get(find))
}

/// Asks for a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The directory it is written into, absolute: the host writes it.
    pub dir: PathBuf,
}

#[derive(Deserialize)]
struct KeyQuery {
    key: String,
}

async fn begin(
    State(api): State<Arc<Api>>,
    request: Result<Json<SnapshotRequest>, JsonRejection>,
) -> Response {
    match request {
        Ok(Json(request)) => blocking(move || api.states.begin_snapshot(&request.dir)).await,
        Err(rejected) => error(rejected.status(), &rejected.body_text()),
    }
}

async fn progress(State(api): State<Arc<Api>>) -> Response {
    blocking(move || Ok(api.states.snapshot_state())).await
}

async fn steps(State(api): State<Arc<Api>>) -> Response {
    blocking(move || api.states.state_steps()).await
}

async fn list(
    State(api): State<Arc<Api>>,
    Segment(step): Segment<String>,
    Query(query): Query<inspect::Query>,
) -> Response {
    blocking(move || api.states.state_list(&step, &query)).await
}

async fn find(
    State(api): State<Arc<Api>>,
    Segment(step): Segment<String>,
    Query(query): Query<KeyQuery>,
) -> Response {
    blocking(move || api.states.state_get(&step, &query.key)).await
}
