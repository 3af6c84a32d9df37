//! The server of the admin API: a thread of its own with a small async runtime; the engine notices nothing of it.
//!
//! Invariant: no request reaches a route before its Host and Origin were found to be ours (a page in a browser could
//! otherwise reach it by another name) and, but for `/healthz`, its bearer token to be right.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path as Segment, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::{metrics, state_routes, token};
use crate::engine::control::{Control, ControlError, RunState};
use crate::engine::states::StateControl;
use crate::limits::PLUGIN_BYTES_MAX;

/// How long a stop waits for requests that are being answered.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// A running admin API; dropping it stops the server and removes the address file.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    address_file: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.address_file);
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Offers `control` on 127.0.0.1. `state` is the state directory, already locked by this process: it gets the token and
/// address files. `port` 0: the system chooses.
pub fn serve<C>(control: Arc<C>, state: &Path, port: u16) -> io::Result<Server>
where
    C: Control + StateControl + 'static,
{
    let token = token::ensure(state)?;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| {
        let remedy = "set [host] admin = { port = N } to a free port, or to 0 for any";
        io::Error::new(
            e.kind(),
            format!("admin API on 127.0.0.1:{port}: {e}; {remedy}"),
        )
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let router = routes(Arc::new(Api {
        states: control.clone(),
        control,
        token,
        port: address.port(),
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || run(runtime, listener, router, stopped))?;
    let address_file = state.join(token::ADDRESS_FILE);
    let server = Server {
        address,
        address_file,
        stop: Some(stop),
        thread: Some(thread),
    };
    token::replace(&server.address_file, &address.to_string(), 0o600)?;
    Ok(server)
}

fn run(
    runtime: tokio::runtime::Runtime,
    listener: std::net::TcpListener,
    router: Router,
    stopped: oneshot::Receiver<()>,
) {
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (begin, begun) = oneshot::channel();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async {
            let _ = stopped.await;
            let _ = begin.send(());
        });
        let overdue = async {
            let _ = begun.await;
            tokio::time::sleep(STOP_WAIT).await;
        };
        tokio::select! {
            served = async { serving.await } => served,
            () = overdue => Ok(()),
        }
    });
    if let Err(e) = served {
        tracing::error!("the admin API ended: {e}");
    }
    // A swap under way does not hold up the stop: the engine lets it end in an error.
    runtime.shutdown_background();
}

pub(super) struct Api {
    control: Arc<dyn Control>,
    pub(super) states: Arc<dyn StateControl>,
    token: String,
    port: u16,
}

fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/status", get(status))
        .route("/metrics", get(prometheus))
        .route("/steps/{step}/swap", post(swap))
        .route("/steps/{step}/rollback", post(rollback))
        .route("/steps/{step}/history", get(history))
        .merge(state_routes::routes())
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path wants another method",
            )
        })
        .layer(DefaultBodyLimit::max(PLUGIN_BYTES_MAX))
        .layer(from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let Some(host) = only(headers, header::HOST).filter(|host| is_ours(host, api.port)) else {
        return error(
            StatusCode::FORBIDDEN,
            "Host is not this server's loopback address",
        );
    };
    let origin_is_ours = match headers.contains_key(header::ORIGIN) {
        true => only(headers, header::ORIGIN).is_some_and(|o| o == format!("http://{host}")),
        false => true,
    };
    if !origin_is_ours {
        return error(
            StatusCode::FORBIDDEN,
            "requests from other origins are not answered",
        );
    }
    let open = request.uri().path() == "/healthz" && request.method() == Method::GET;
    if !open && !knows_token(headers, &api.token) {
        let mut answer = error(
            StatusCode::UNAUTHORIZED,
            "send `Authorization: Bearer TOKEN` with the token in STATE/admin-token",
        );
        answer.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            header::HeaderValue::from_static("Bearer"),
        );
        return answer;
    }
    next.run(request).await
}

/// The value of a header that stands there exactly once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_ours(host: &str, port: u16) -> bool {
    host.rsplit_once(':').is_some_and(|(name, p)| {
        p == port.to_string() && (name == "127.0.0.1" || name.eq_ignore_ascii_case("localhost"))
    })
}

fn knows_token(headers: &HeaderMap, token: &str) -> bool {
    only(headers, header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .is_some_and(|(scheme, given)| {
            scheme.eq_ignore_ascii_case("bearer")
                && token::equal(given.as_bytes(), token.as_bytes())
        })
}

pub(super) fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

async fn healthz(State(api): State<Arc<Api>>) -> Response {
    let state = api.control.status().state;
    let code = match state {
        RunState::Paused(_) | RunState::Restarting(_) => StatusCode::SERVICE_UNAVAILABLE,
        RunState::Running | RunState::Finished => StatusCode::OK,
    };
    // The reason of a pause may quote records: only who knows the token reads it.
    let word = match state {
        RunState::Running => "running",
        RunState::Paused(_) => "paused",
        RunState::Restarting(_) => "restarting",
        RunState::Finished => "finished",
    };
    (code, Json(json!({ "state": word }))).into_response()
}

async fn status(State(api): State<Arc<Api>>) -> Response {
    Json(api.control.status()).into_response()
}

async fn prometheus(State(api): State<Arc<Api>>) -> Response {
    let text = metrics::render(&api.control.status());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

#[derive(Deserialize)]
struct SwapQuery {
    /// What the caller named the file, for the history.
    file: Option<String>,
}

async fn swap(
    State(api): State<Arc<Api>>,
    Segment(step): Segment<String>,
    Query(query): Query<SwapQuery>,
    wasm: Result<Bytes, BytesRejection>,
) -> Response {
    let wasm = match wasm {
        Ok(wasm) => wasm,
        Err(rejected) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let text = format!("a plugin may have at most {PLUGIN_BYTES_MAX} bytes");
            return error(StatusCode::PAYLOAD_TOO_LARGE, &text);
        }
        Err(rejected) => return error(rejected.status(), &rejected.body_text()),
    };
    let file = query.file.unwrap_or_else(|| "upload".into());
    blocking(move || api.control.swap(&step, &file, wasm.to_vec())).await
}

async fn rollback(State(api): State<Arc<Api>>, Segment(step): Segment<String>) -> Response {
    blocking(move || api.control.rollback(&step)).await
}

async fn history(State(api): State<Arc<Api>>, Segment(step): Segment<String>) -> Response {
    blocking(move || api.control.history(&step)).await
}

/// Runs a call into the engine that may wait for checkpoints.
pub(super) async fn blocking<T, F>(call: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce() -> Result<T, ControlError> + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(e)) => error(code(&e), &e.to_string()),
        Err(_) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed; see the host's log",
        ),
    }
}

fn code(e: &ControlError) -> StatusCode {
    match e {
        ControlError::Refused(_) => StatusCode::CONFLICT,
        ControlError::NotFound(_) => StatusCode::NOT_FOUND,
        ControlError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
