//! The admin API over real HTTP, with an engine that only notes what it was asked.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;
use crate::admin::{ADDRESS_FILE, Client, ClientError, TOKEN_FILE, sample};
use crate::engine::control::{Status, Swapped, Version};
use crate::engine::inspect::{Found, Listing, Query, StateSteps};
use crate::engine::snapshot::SnapshotState;

#[derive(Default)]
struct Noted {
    state: Mutex<Option<RunState>>,
    swaps: Mutex<Vec<(String, String, Vec<u8>)>>,
}

impl Noted {
    fn swapped(step: &str) -> Swapped {
        Swapped {
            step: step.into(),
            from: "aa".into(),
            to: "bb".into(),
            checkpoint: 7,
            pause_ms: 1.5,
        }
    }
}

impl Control for Noted {
    fn status(&self) -> Status {
        let mut status = sample::status();
        if let Some(state) = self.state.lock().unwrap().clone() {
            status.state = state;
        }
        status
    }

    fn swap(&self, step: &str, file: &str, wasm: Vec<u8>) -> Result<Swapped, ControlError> {
        match step {
            "sessions" => {
                self.swaps
                    .lock()
                    .unwrap()
                    .push((step.into(), file.into(), wasm));
                Ok(Self::swapped(step))
            }
            "other" => Err(ControlError::Refused(
                "state version 2, in force is 1".into(),
            )),
            "panics" => panic!("on purpose"),
            _ => Err(ControlError::NotFound(format!("no step `{step}`"))),
        }
    }

    fn rollback(&self, step: &str) -> Result<Swapped, ControlError> {
        match step {
            "sessions" => Ok(Self::swapped(step)),
            _ => Err(ControlError::Failed("the state cannot be read".into())),
        }
    }

    fn history(&self, _: &str) -> Result<Vec<Version>, ControlError> {
        Ok(vec![Version {
            digest: "aa".into(),
            file: "sessions.wasm".into(),
            since_checkpoint: 0,
            at: 1_767_225_600_000_000,
            in_force: true,
        }])
    }
}

impl StateControl for Noted {
    fn begin_snapshot(&self, to: &Path) -> Result<(), ControlError> {
        let text = format!("{} holds a snapshot", to.display());
        Err(ControlError::Refused(text))
    }

    fn snapshot_state(&self) -> SnapshotState {
        SnapshotState::Failed("the disk is full".into())
    }

    fn state_steps(&self) -> Result<StateSteps, ControlError> {
        Ok(StateSteps {
            pipeline: "shop".into(),
            checkpoint: 7,
            steps: Vec::new(),
        })
    }

    fn state_list(&self, step: &str, query: &Query) -> Result<Listing, ControlError> {
        let text = format!("no step {step} for {query:?}");
        Err(ControlError::NotFound(text))
    }

    fn state_get(&self, step: &str, key: &str) -> Result<Found, ControlError> {
        Err(ControlError::NotFound(format!("no key {key} in {step}")))
    }
}

struct Host {
    state: TempDir,
    control: Arc<Noted>,
    server: Server,
}

fn host() -> Host {
    let state = tempfile::tempdir().unwrap();
    let control = Arc::new(Noted::default());
    let server = serve(control.clone(), state.path(), 0).unwrap();
    Host {
        state,
        control,
        server,
    }
}

impl Host {
    fn token(&self) -> String {
        fs::read_to_string(self.state.path().join(TOKEN_FILE))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Status code and body of a request with exactly these headers.
    fn raw(&self, request: &str, headers: &[String], body: &[u8]) -> (u16, String) {
        let mut socket = TcpStream::connect(self.server.address()).unwrap();
        let mut head = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            head.push_str(&format!("{header}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        socket.write_all(head.as_bytes()).unwrap();
        // The server may answer and close before it has read a large body.
        let _ = socket.write_all(body);
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        let code = answer
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{answer:?}"));
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (code.parse().unwrap(), body.to_owned())
    }

    fn host_header(&self) -> String {
        format!("Host: {}", self.server.address())
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token())
    }
}

const ROUTES: [&str; 5] = [
    "GET /status",
    "GET /metrics",
    "POST /steps/sessions/swap",
    "POST /steps/sessions/rollback",
    "GET /steps/sessions/history",
];

#[test]
fn every_route_but_healthz_wants_the_token() {
    let host = host();
    let wrong = "0".repeat(64);
    for route in ROUTES
        .into_iter()
        .chain(["GET /nowhere", "PUT /status", "POST /healthz"])
    {
        for authorization in [
            vec![],
            vec![format!("Authorization: Bearer {wrong}")],
            vec![format!("Authorization: Basic {}", host.token())],
            vec![format!("Authorization: {}", host.token())],
            vec![host.bearer(), host.bearer()],
        ] {
            let headers = [vec![host.host_header()], authorization].concat();
            let (code, body) = host.raw(route, &headers, b"");
            assert_eq!(code, 401, "{route} {headers:?}: {body}");
            assert!(body.contains("admin-token"), "{body}");
        }
    }
    assert!(host.control.swaps.lock().unwrap().is_empty());
    assert_eq!(host.raw("GET /healthz", &[host.host_header()], b"").0, 200);
}

#[test]
fn every_route_with_the_token_answers() {
    let host = host();
    for route in ROUTES {
        let (code, body) = host.raw(route, &[host.host_header(), host.bearer()], b"wasm");
        assert_eq!(code, 200, "{route}: {body}");
    }
}

#[test]
fn another_host_or_origin_is_refused_before_anything_else() {
    let host = host();
    let port = host.server.address().port();
    for route in ROUTES.into_iter().chain(["GET /healthz"]) {
        for headers in [
            vec![],
            vec!["Host: evil.example".to_owned()],
            vec![format!("Host: evil.example:{port}")],
            vec!["Host: 127.0.0.1".to_owned()],
            vec![format!("Host: 127.0.0.1:{}", port ^ 1)],
            vec![host.host_header(), "Origin: http://evil.example".into()],
            vec![host.host_header(), "Origin: null".into()],
            vec![
                host.host_header(),
                format!("Origin: https://127.0.0.1:{port}"),
            ],
        ] {
            let headers = [headers, vec![host.bearer()]].concat();
            let (code, body) = host.raw(route, &headers, b"");
            // A request without Host never gets as far as our check.
            assert!(
                code == 403 || (headers.len() == 1 && code == 400),
                "{headers:?}: {code} {body}"
            );
        }
    }
    for name in ["127.0.0.1", "localhost", "LocalHost"] {
        let headers = [
            format!("Host: {name}:{port}"),
            format!("Origin: http://{name}:{port}"),
            host.bearer(),
        ];
        assert_eq!(host.raw("GET /status", &headers, b"").0, 200, "{name}");
    }
}

#[test]
fn what_is_not_there_is_said_as_json() {
    let host = host();
    let headers = [host.host_header(), host.bearer()];
    for (request, code) in [
        ("GET /nowhere", 404),
        ("GET /steps/sessions/swap", 405),
        ("DELETE /status", 405),
    ] {
        let (got, body) = host.raw(request, &headers, b"");
        assert_eq!(got, code, "{request}");
        assert!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"].is_string());
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let host = host();
    let (code, body) = host.raw(
        "POST /steps/sessions/swap",
        &[host.host_header(), host.bearer()],
        &vec![0; PLUGIN_BYTES_MAX + 1],
    );
    assert_eq!(code, 413, "{body}");
    assert!(host.control.swaps.lock().unwrap().is_empty());
}

#[test]
fn healthz_says_when_the_pipeline_is_paused_but_not_why() {
    let host = host();
    *host.control.state.lock().unwrap() = Some(RunState::Paused("user-17 broke it".into()));
    let (code, body) = host.raw("GET /healthz", &[host.host_header()], b"");
    assert_eq!((code, body.as_str()), (503, r#"{"state":"paused"}"#));
}

#[test]
fn the_client_finds_the_host_and_gets_what_the_engine_says() {
    let host = host();
    let client = Client::find(host.state.path()).unwrap();
    assert_eq!(client.status().unwrap(), sample::status());
    let swapped = client
        .swap("sessions", "my plug&in.wasm", b"\0asm")
        .unwrap();
    assert_eq!(swapped, Noted::swapped("sessions"));
    let expected = (
        "sessions".into(),
        "my plug&in.wasm".into(),
        b"\0asm".to_vec(),
    );
    assert_eq!(*host.control.swaps.lock().unwrap(), [expected]);
    assert_eq!(client.rollback("sessions").unwrap(), swapped);
    assert!(client.history("sessions").unwrap()[0].in_force);
}

#[test]
fn refusals_reach_the_client_in_words() {
    let host = host();
    let client = Client::find(host.state.path()).unwrap();
    for (step, text) in [
        ("other", "state version 2, in force is 1"),
        ("nowhere", "no step `nowhere`"),
        ("panics", "the request failed; see the host's log"),
        ("../status", "`../status` is not a step name"),
    ] {
        let refused = client.swap(step, "x.wasm", b"").unwrap_err();
        assert!(matches!(refused, ClientError::Refused(_)), "{refused:?}");
        assert_eq!(refused.to_string(), text);
    }
    let failed = client.rollback("other").unwrap_err();
    assert_eq!(failed.to_string(), "the state cannot be read");
}

#[test]
fn the_files_are_for_their_owner_and_the_address_goes_with_the_server() {
    let host = host();
    let address = host.state.path().join(ADDRESS_FILE);
    let mode = |file| {
        fs::metadata(host.state.path().join(file))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode(TOKEN_FILE) & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(&address).unwrap().trim(),
        host.server.address().to_string()
    );
    let token = host.token();
    let Host { state, server, .. } = host;
    let was = server.address();
    drop(server);
    assert!(!address.exists());
    let gone = Client::find(state.path()).unwrap_err();
    assert!(matches!(gone, ClientError::NotRunning { .. }), "{gone:?}");

    // What a killed host leaves behind.
    fs::write(&address, was.to_string()).unwrap();
    let dead = Client::find(state.path()).unwrap().status().unwrap_err();
    assert!(matches!(dead, ClientError::NotRunning { .. }), "{dead:?}");

    // The next host has the same token.
    let _server = serve(Arc::new(Noted::default()), state.path(), 0).unwrap();
    assert_eq!(
        fs::read_to_string(state.path().join(TOKEN_FILE))
            .unwrap()
            .trim(),
        token
    );
}

#[test]
fn an_address_elsewhere_is_not_called() {
    let host = host();
    fs::write(host.state.path().join(ADDRESS_FILE), "192.0.2.1:80").unwrap();
    assert!(matches!(
        Client::find(host.state.path()),
        Err(ClientError::Answer { .. })
    ));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let host = host();
    let state = tempfile::tempdir().unwrap();
    let port = host.server.address().port();
    let taken = serve(Arc::new(Noted::default()), state.path(), port).unwrap_err();
    assert!(
        taken.to_string().contains(&format!("127.0.0.1:{port}")),
        "{taken}"
    );
    assert!(
        taken.to_string().contains("admin = { port = N }"),
        "{taken}"
    );
}
