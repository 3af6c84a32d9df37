//! A webhook as its receiver meets it: every row once by its id, whatever is killed on the way.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::data::Data;
use crate::support::running::wait;
use crate::support::{Pipeline, read_rows, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("webhook_rows_come_once_by_their_ids_through_kills", kills),
        trial("webhook_certificates_are_checked", certificates),
    ]
}

/// Rows by id, and how often each came.
type Received = Arc<Mutex<HashMap<String, (Value, usize)>>>;

/// A receiver that forgets every seventh request before it has read the rows, or after.
fn receiver() -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let received = Received::default();
    let shared = received.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let received = shared.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let mut requests = 0;
                while let Some(body) = read_body(&mut stream) {
                    requests += 1;
                    if requests % 7 == 3 {
                        return;
                    }
                    keep(&received, &body);
                    let status = if requests % 7 == 5 {
                        "503 Later"
                    } else {
                        "204 None"
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, received)
}

fn keep(received: &Received, body: &[u8]) {
    let rows: Vec<BTreeMap<String, Value>> = serde_json::from_slice(body).unwrap();
    let mut received = received.lock().unwrap();
    for mut row in rows {
        let id = row.remove("_id").unwrap().as_str().unwrap().to_owned();
        let row = serde_json::to_value(row).unwrap();
        let known = received.entry(id).or_insert_with(|| (row.clone(), 0));
        assert_eq!(known.0, row, "one id, two rows");
        known.1 += 1;
    }
}

fn read_body(stream: &mut BufReader<impl Read>) -> Option<Vec<u8>> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn kills() {
    const KILLS: usize = 10;
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 16_000, 31);
    let (url, received) = receiver();
    let run = Pipeline::new(
        2,
        &format!(
            "{}[steps.bought]\nfrom = \"transactions\"\nselect = [\"user_id\", \"amount\"]\n[sinks.hook]\nfrom = [\"bought\"]\n\
             webhook = {{ url = \"{url}\", in_flight = 2, batch = 50 }}\n",
            data.transactions("limit = { per_second = 1000, per_epoch = 50 }")
        ),
    );
    let mut rng = StdRng::seed_from_u64(31);
    for _ in 0..KILLS {
        let mut child = run.command(&[]).spawn().unwrap();
        let patience = Duration::from_millis(rng.random_range(50..300));
        if wait(&mut child, patience).is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    let output = run.command(&["--set", "sources.transactions.limit.per_second=1000000"]);
    let output = { output }.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let received = received.lock().unwrap();
    let again = received.values().filter(|(_, times)| *times > 1).count();
    assert!(
        again > 0,
        "nothing was ever sent twice: the test tests nothing"
    );
    // Purchases of one user and amount are equal rows: only their ids tell them apart.
    let mut rows: Vec<String> = received.values().map(|(row, _)| row.to_string()).collect();
    let mut expected: Vec<String> = read_rows(&data.transactions)
        .iter()
        .map(|row| {
            serde_json::json!({ "amount": row["amount"], "user_id": row["user_id"] }).to_string()
        })
        .collect();
    rows.sort();
    expected.sort();
    assert_eq!(rows.len(), expected.len(), "{again} came more than once");
    assert!(rows == expected, "rows differ");
}

/// A receiver behind a certificate for `localhost` that nobody has signed but itself; its port and the rows.
fn receiver_with_tls(dir: &Path) -> (u16, Received) {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    openssl.args([
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        "key.pem",
        "-out",
        "certificate.pem",
    ]);
    let output = openssl.current_dir(dir).output().expect("openssl starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
    let identity = native_tls::Identity::from_pkcs8(&read("certificate.pem"), &read("key.pem"));
    let acceptor = native_tls::TlsAcceptor::new(identity.unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Received::default();
    let shared = received.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that does not trust the certificate hangs up.
            let Ok(stream) = acceptor.accept(stream.unwrap()) else {
                continue;
            };
            let mut stream = BufReader::new(stream);
            while let Some(body) = read_body(&mut stream) {
                keep(&shared, &body);
                let _ = stream
                    .get_mut()
                    .write_all(b"HTTP/1.1 204 None\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    (port, received)
}

fn certificates() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, 32);
    let (port, received) = receiver_with_tls(dir.path());
    let ca = format!(
        ", ca = \"{}\"",
        dir.path().join("certificate.pem").display()
    );
    let cases = [
        ("localhost", ca.as_str(), true),
        ("127.0.0.1", &ca, false),
        ("localhost", "", false),
    ];
    for (host, ca, trusted) in cases {
        received.lock().unwrap().clear();
        let run = Pipeline::new(
            1,
            &format!(
                "{}[sinks.hook]\nfrom = [\"transactions\"]\nwebhook = {{ url = \"https://{host}:{port}/\"{ca} }}\n",
                data.transactions("")
            ),
        );
        let output = run.command(&[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), trusted, "{host}{ca}: {said}");
        let expected = if trusted { 100 } else { 0 };
        assert_eq!(received.lock().unwrap().len(), expected, "{host}{ca}");
        assert!(trusted || said.contains("`ca`"), "{said}");
    }
}
