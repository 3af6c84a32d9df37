//! The client of the admin API, for the command line: finds a running host by its state directory.
//!
//! Not a general client: it trusts the address and token files of the state directory and nothing else.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::token;
use crate::engine::control::{Status, Swapped, Version};

/// Reading an answer; a swap compiles a plugin and waits for a checkpoint before it comes.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A connection to the host that runs on a state directory.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    base: String,
    token: String,
    state: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address file, or nobody answers there.
    #[error("no host is running on the state directory {}", .state.display())]
    NotRunning { state: PathBuf },
    #[error("{}: {cause}", .path.display())]
    Io { path: PathBuf, cause: io::Error },
    /// The host did not do it and says why.
    #[error("{0}")]
    Refused(String),
    #[error("the host at {base} did not answer as expected: {cause}")]
    Answer { base: String, cause: String },
}

impl Client {
    /// Reads the files of a state directory; nothing is sent yet.
    pub fn find(state: &Path) -> Result<Self, ClientError> {
        let not_running = || ClientError::NotRunning {
            state: state.to_owned(),
        };
        let path = state.join(token::ADDRESS_FILE);
        let address = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_running()),
            Err(cause) => return Err(ClientError::Io { path, cause }),
        };
        let loopback = address
            .parse()
            .is_ok_and(|a: SocketAddr| a.ip().is_loopback());
        if !loopback {
            let cause = format!("{} names no loopback address", path.display());
            return Err(ClientError::Answer {
                base: address,
                cause,
            });
        }
        let token = token::read(state)
            .map_err(|cause| ClientError::Io {
                path: state.join(token::TOKEN_FILE),
                cause,
            })?
            .ok_or_else(not_running)?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_WAIT))
            .timeout_recv_response(Some(ANSWER_WAIT))
            .proxy(None)
            .build()
            .into();
        Ok(Self {
            agent,
            base: format!("http://{address}"),
            token,
            state: state.to_owned(),
        })
    }

    pub fn status(&self) -> Result<Status, ClientError> {
        self.get("/status")
    }

    pub fn history(&self, step: &str) -> Result<Vec<Version>, ClientError> {
        self.get(&path(step, "history")?)
    }

    /// Sends a component; returns when it is in force.
    pub fn swap(&self, step: &str, file: &str, wasm: &[u8]) -> Result<Swapped, ClientError> {
        let request = self
            .agent
            .post(format!("{}{}", self.base, path(step, "swap")?))
            .query("file", file)
            .header("authorization", format!("Bearer {}", self.token));
        self.answer(request.send(wasm))
    }

    pub fn rollback(&self, step: &str) -> Result<Swapped, ClientError> {
        let request = self
            .agent
            .post(format!("{}{}", self.base, path(step, "rollback")?))
            .header("authorization", format!("Bearer {}", self.token));
        self.answer(request.send_empty())
    }

    /// Asks `path` with the parameters `query`.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let request = self
            .agent
            .get(format!("{}{path}", self.base))
            .query_pairs(query.iter().copied())
            .header("authorization", format!("Bearer {}", self.token));
        self.answer(request.call())
    }

    /// Sends `body` as JSON.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token));
        self.answer(request.send_json(body))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = self
            .agent
            .get(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token));
        self.answer(request.call())
    }

    fn answer<T: DeserializeOwned>(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut response = answer.map_err(|e| self.transport(e))?;
        let unexpected = |e: ureq::Error| self.unexpected(e.to_string());
        let done = response.status().is_success();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        if done {
            return body.read_json().map_err(unexpected);
        }
        let refusal: Refusal = body.read_json().map_err(unexpected)?;
        Err(ClientError::Refused(refusal.error))
    }

    fn transport(&self, e: ureq::Error) -> ClientError {
        match e {
            ureq::Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning {
                    state: self.state.clone(),
                }
            }
            e => self.unexpected(e.to_string()),
        }
    }

    fn unexpected(&self, cause: String) -> ClientError {
        ClientError::Answer {
            base: self.base.clone(),
            cause,
        }
    }
}

/// A step's path; a name that no step can have goes nowhere.
fn path(step: &str, verb: &str) -> Result<String, ClientError> {
    if step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(format!("/steps/{step}/{verb}"));
    }
    Err(ClientError::Refused(format!("`{step}` is not a step name")))
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}
