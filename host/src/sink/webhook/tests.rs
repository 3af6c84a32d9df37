//! A receiver on this machine that does what it is told: fails, waits, rejects, hangs up.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::batch::Origins;
use crate::pipeline::plan::{Input as PlanInput, OnReject, SinkInput, Webhook};

/// What the receiver does with one request.
#[derive(Debug, Clone, Copy)]
enum Does {
    Answer(&'static str),
    /// Closes the connection after having read the request.
    HangUp,
    /// Closes it in the middle of an answer.
    HangUpHalfway,
    /// Answers only once the test lets it.
    Wait,
}

const OK: Does = Does::Answer("200 OK\r\n\r\n");

struct Receiver {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    go: mpsc::Sender<()>,
}

#[derive(Debug, Clone)]
struct Request {
    headers: Vec<String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ String| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        let line = self.headers.iter().find(|line| of(line))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    fn rows(&self) -> Vec<serde_json::Value> {
        match serde_json::from_str(&self.body).unwrap() {
            serde_json::Value::Array(rows) => rows,
            row => vec![row],
        }
    }
}

impl Receiver {
    /// Does `script` with the first requests and answers the others by `rest`. Ends with the test process.
    fn start(script: Vec<Does>, rest: impl Fn(&Request) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/rows/s3cret", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (go, wait) = mpsc::channel();
        let shared = Arc::new((seen.clone(), Mutex::new(wait), rest));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, script) = (shared.clone(), script.clone());
                thread::spawn(move || {
                    let (seen, wait, rest) = &*shared;
                    let mut stream = BufReader::new(stream.unwrap());
                    while let Some(request) = read_request(&mut stream) {
                        let mut seen = seen.lock().unwrap();
                        let does = script.get(seen.len()).copied();
                        seen.push(request.clone());
                        drop(seen);
                        let does = does.unwrap_or_else(|| rest(&request));
                        if !answer(stream.get_mut(), does, wait) {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, seen, go }
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// All rows of all requests, in the order they came.
    fn rows(&self) -> Vec<serde_json::Value> {
        self.seen().iter().flat_map(Request::rows).collect()
    }

    fn wait_for_requests(&self, requests: usize) {
        while self.seen.lock().unwrap().len() < requests {
            thread::yield_now();
        }
    }
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => headers.push(line.to_owned()),
        }
    }
    let request = Request {
        headers,
        body: String::new(),
    };
    let length = request.header("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    Some(Request { body, ..request })
}

/// Whether the connection stays open.
fn answer(stream: &mut TcpStream, does: Does, wait: &Mutex<mpsc::Receiver<()>>) -> bool {
    let text = match does {
        Does::Answer(text) => text,
        Does::HangUp => return false,
        Does::HangUpHalfway => {
            let _ = stream.write_all(b"HTTP/1.1 200 O");
            return false;
        }
        Does::Wait => {
            let _ = wait.lock().unwrap().recv();
            "200 OK\r\n\r\n"
        }
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let text = format!(
        "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).is_ok()
}

fn webhook(url: &str) -> Webhook {
    Webhook {
        url: url.to_owned(),
        headers: vec![("Authorization".into(), "Bearer t0psecret".into())],
        batch: 4,
        in_flight: 1,
        timeout: Duration::from_secs(30),
        ca: None,
        on_reject: OnReject::Stop,
    }
}

fn batch(values: std::ops::Range<i64>) -> Batch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let values: Vec<i64> = values.collect();
    let column = Arc::new(Int64Array::from(values.clone()));
    Batch {
        columns: RecordBatch::try_new(schema, vec![column]).unwrap(),
        times: values.into(),
        origins: None,
    }
}

fn plan_of(webhook: Webhook) -> plan::Sink {
    plan::Sink {
        name: "hook".to_owned(),
        inputs: vec![SinkInput {
            label: "views".to_owned(),
            input: PlanInput::Source(0),
            schema: batch(0..0).schema(),
        }],
        connector: SinkConnector::Webhook(webhook),
    }
}

fn open(webhook: Webhook) -> WebhookSink {
    WebhookSink::open("p", Path::new("/nowhere"), &plan_of(webhook)).unwrap()
}

fn numbers(rows: &[serde_json::Value]) -> Vec<i64> {
    rows.iter().map(|row| row["n"].as_i64().unwrap()).collect()
}

#[test]
fn rows_come_in_order_in_requests_of_the_size_asked_for() {
    let receiver = Receiver::start(vec![Does::Wait], |_| OK);
    let sink = open(webhook(&receiver.url));
    sink.write(0, &batch(0..1)).unwrap();
    receiver.wait_for_requests(1);
    sink.write(0, &batch(1..10)).unwrap();
    let cut = sink.cut(false).unwrap();
    receiver.go.send(()).unwrap();
    sink.sync(&cut).unwrap();
    assert_eq!(numbers(&receiver.rows()), (0..10).collect::<Vec<_>>());
    let sizes: Vec<_> = receiver.seen().iter().map(|r| r.rows().len()).collect();
    assert_eq!(sizes, [1, 4, 4, 1]);
    let first = &receiver.seen()[0];
    assert_eq!(first.header("authorization"), Some("Bearer t0psecret"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    let ids: HashSet<_> = receiver.rows().iter().map(|r| r["_id"].clone()).collect();
    assert_eq!((ids.len(), sink.rows()), (10, 10));
}

#[test]
fn a_single_row_is_the_body_and_its_id_the_header() {
    let receiver = Receiver::start(vec![], |_| OK);
    let sink = open(Webhook {
        batch: 1,
        ..webhook(&receiver.url)
    });
    sink.write(0, &batch(7..9)).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    let seen = receiver.seen();
    assert_eq!(seen[0].body, r#"{"n":7}"#);
    // The definition of an id is for ever: receivers keep them.
    assert_eq!(
        seen[0].header("idempotency-key"),
        Some("45f6626c6e5a2ad068ce29be2f0e68de")
    );
    assert_ne!(
        seen[0].header("idempotency-key"),
        seen[1].header("idempotency-key")
    );
}

#[test]
fn what_may_pass_is_tried_again_with_the_same_key_until_it_succeeds() {
    let script = vec![
        Does::Answer("503 Away\r\n\r\n"),
        Does::HangUp,
        Does::Answer("429 Slow\r\nretry-after: 0\r\n\r\n"),
        Does::HangUpHalfway,
        Does::Answer("500 Oh\r\n\r\n<html>"),
    ];
    let receiver = Receiver::start(script, |_| OK);
    let sink = open(webhook(&receiver.url));
    sink.write(0, &batch(0..4)).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    let seen = receiver.seen();
    let keys: HashSet<_> = seen.iter().map(|r| r.header("idempotency-key")).collect();
    assert_eq!((seen.len(), keys.len()), (6, 1));
    assert!(seen.iter().all(|r| r.body == seen[0].body));
}

#[test]
fn a_slow_receiver_is_waited_for_up_to_the_timeout_and_asked_again() {
    let receiver = Receiver::start(vec![Does::Wait], |_| OK);
    let sink = open(Webhook {
        timeout: Duration::from_millis(200),
        ..webhook(&receiver.url)
    });
    sink.write(0, &batch(0..1)).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    // On a busy machine even a quick answer may come too late.
    assert!(receiver.seen().len() >= 2);
    let ids: HashSet<_> = receiver
        .rows()
        .iter()
        .map(|r| r["_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn a_rejected_row_ends_the_run_and_shows_no_secret() {
    let cases = [
        (
            "400 Bad\r\n\r\nno field of Bearer t0psecret at rows/s3cret",
            "400: no field",
        ),
        ("401 No\r\n\r\nt0psecret", "credentials"),
        ("302 There\r\nlocation: /s3cret\r\n\r\n", "redirects"),
        ("404 None\r\n\r\n", "`url`"),
    ];
    for (answer, expected) in cases {
        let receiver = Receiver::start(vec![], move |_| Does::Answer(answer));
        let sink = open(webhook(&receiver.url));
        sink.write(0, &batch(0..3)).unwrap();
        let error = sink.sync(&json!({ "rows": 3 })).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(
            error.starts_with("sink hook (webhook at http://127.0.0.1:"),
            "{error}"
        );
        assert!(
            !error.contains("s3cret") && !error.contains("t0psecret"),
            "{error}"
        );
        assert!(sink.write(0, &batch(3..4)).is_err());
    }
}

#[test]
fn rows_that_are_rejected_are_kept_and_the_others_delivered() {
    let receiver = Receiver::start(vec![], |request| {
        let bad = numbers(&request.rows()).iter().any(|n| n % 5 == 2);
        if bad {
            Does::Answer("422 No\r\n\r\nfives and two")
        } else {
            OK
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let plan = plan_of(Webhook {
        on_reject: OnReject::DeadLetter,
        ..webhook(&receiver.url)
    });
    let sink = WebhookSink::open("p", dir.path(), &plan).unwrap();
    sink.write(0, &batch(0..11)).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    let letters = std::fs::read_to_string(dir.path().join("rejected/hook.jsonl")).unwrap();
    let expected = |n| {
        format!(
            "{{\"sink\":\"hook\",\"position\":null,\"reason\":\"it answers with status 422: fives and two\",\
             \"raw\":\"{{\\\"n\\\":{n}}}\"}}\n"
        )
    };
    assert_eq!(letters, expected(2) + &expected(7));
    let delivered: HashSet<i64> = (receiver.seen().iter().map(Request::rows))
        .map(|rows| numbers(&rows))
        .filter(|rows| rows.iter().all(|n| n % 5 != 2))
        .flatten()
        .collect();
    assert_eq!(delivered, HashSet::from([0, 1, 3, 4, 5, 6, 8, 9, 10]));
}

#[test]
fn after_a_crash_rows_come_again_with_the_ids_they_had() {
    let receiver = Receiver::start(vec![], |_| OK);
    let sink = open(webhook(&receiver.url));
    sink.write(0, &batch(0..3)).unwrap();
    let cut = sink.cut(false).unwrap();
    sink.sync(&cut).unwrap();
    sink.write(0, &batch(3..6)).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    drop(sink);
    // The second cut was never decided: its rows come again, in other batches.
    let sink = open(Webhook {
        in_flight: 3,
        ..webhook(&receiver.url)
    });
    let mut again = batch(3..6);
    sink.write(0, &again.slice(0, 2)).unwrap();
    sink.write(0, &again.slice(2, 1)).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    let by_id: HashSet<String> = receiver.rows().iter().map(|r| r.to_string()).collect();
    assert_eq!((receiver.rows().len(), by_id.len()), (9, 6));
    // Equal rows of different records are told apart.
    again.origins = Some(Origins {
        inputs: vec![1, 1, 1].into(),
        offsets: vec![5, 6, 7].into(),
    });
    sink.write(0, &again).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    let by_id: HashSet<String> = receiver.rows().iter().map(|r| r.to_string()).collect();
    assert_eq!(by_id.len(), 9);
}

#[test]
fn a_receiver_that_is_away_is_waited_for_until_the_sink_is_stopped() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let sink = Arc::new(open(webhook(&url)));
    sink.write(0, &batch(0..3)).unwrap();
    let waiter = {
        let sink = sink.clone();
        thread::spawn(move || sink.sync(&json!({ "rows": 3 })))
    };
    sink.stop();
    let ended = waiter.join().unwrap();
    assert!(
        matches!(ended, Err(ConnectorError::Stopped { .. })),
        "{ended:?}"
    );
}
