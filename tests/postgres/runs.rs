//! Whole pipelines into a table: the binary, killed and started again, the server likewise.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use super::Test;
use crate::support::data::Data;
use crate::support::postgres::{Database, Server, quoted};
use crate::support::running::wait;
use crate::support::{Pipeline, read_rows};

pub fn tests() -> Vec<Test> {
    vec![
        ("postgres_has_the_last_row_of_each_key", last_rows),
        ("postgres_tells_the_inputs_of_a_sink_apart", several_inputs),
        (
            "postgres_kills_of_host_and_server_lose_and_double_nothing",
            kills,
        ),
        ("postgres_tables_that_do_not_fit_are_refused", wrong_tables),
        ("postgres_row_that_is_refused_is_named", refused_row),
        ("postgres_of_another_state_is_refused", another_state),
        ("postgres_goes_on_with_a_restored_state", restored),
        ("postgres_that_is_away_is_waited_for", away),
        (
            "postgres_that_is_away_does_not_hold_up_a_stop",
            stop_while_away,
        ),
        (
            "postgres_certificates_are_checked_as_sslmode_says",
            certificates,
        ),
    ]
}

const TRANSACTIONS: &str =
    "select = [\"transaction_id\", \"user_id\", \"quantity\", \"amount\", \"timestamp\"]\n";

/// A pipeline of the data's transactions into a table; `limit` slows the source, `more` goes into the sink.
fn pipeline(data: &Data, limit: &str, more: &str) -> Pipeline {
    let steps = format!("[steps.bought]\nfrom = \"transactions\"\n{TRANSACTIONS}");
    let sink = format!(
        "[sinks.table]\nfrom = [\"bought\"]\npostgres = {{ url = \"${{env:TEST_DATABASE}}\", {more} }}\n"
    );
    Pipeline::new(2, &format!("{}{steps}{sink}", data.transactions(limit)))
}

fn command(run: &Pipeline, url: &str) -> Command {
    let mut command = run.command(&[]);
    command.env("TEST_DATABASE", url);
    command
}

fn output(run: &Pipeline, database: &Database) -> Output {
    command(run, &database.url())
        .output()
        .expect("the binary starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeed(run: &Pipeline, database: &Database) {
    let output = output(run, database);
    assert!(output.status.success(), "{}", said(&output));
}

/// Rows of the table as the source has them: id, user, quantity, amount, time.
fn table(database: &Database, name: &str) -> Vec<Vec<String>> {
    database.query(&format!(
        "SELECT transaction_id, user_id, quantity, amount::text, \
         to_char(\"timestamp\" AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM {name} ORDER BY 1, 2"
    ))
}

fn expected(data: &Data) -> Vec<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |row: &Value| {
        let amount = row["amount"].as_f64().unwrap().to_string();
        let [id, user, quantity, time] =
            ["transaction_id", "user_id", "quantity", "timestamp"].map(|k| text(&row[k]));
        vec![id, user, quantity, amount, time]
    };
    let mut rows: Vec<_> = read_rows(&data.transactions).iter().map(row).collect();
    rows.sort();
    rows
}

fn last_rows() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 8_000, 21);
    let database = Server::get().database();
    let run = pipeline(
        &data,
        "",
        "table = \"latest\", key = [\"user_id\"], create = true",
    );
    succeed(&run, &database);
    let mut last = BTreeMap::new();
    for row in read_rows(&data.transactions) {
        last.insert(
            row["user_id"].as_str().unwrap().to_owned(),
            row["transaction_id"].as_str().unwrap().to_owned(),
        );
    }
    let got: BTreeMap<String, String> = (table(&database, "latest").into_iter())
        .map(|mut row| (row.remove(1), row.remove(0)))
        .collect();
    assert_eq!(got, last);
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'latest'::regclass AND contype = 'p'";
    assert_eq!(database.column(key), ["PRIMARY KEY (user_id)"]);
    // A finished run has nothing to do, and does nothing.
    succeed(&run, &database);
    assert_eq!(
        database.column("SELECT checkpoint > 0 FROM tidemill_checkpoints"),
        ["t"]
    );
}

fn several_inputs() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, 22);
    let database = Server::get().database();
    database.query(
        "CREATE TABLE both_steps (step varchar(10), transaction_id text, user_id text, note text)",
    );
    let run = Pipeline::new(
        1,
        &format!(
            "{}[steps.ids]\nfrom = \"transactions\"\nselect = [\"transaction_id\"]\n[steps.users]\nfrom = \"transactions\"\n\
             select = [\"user_id\"]\n[sinks.table]\nfrom = [\"ids\", \"users\"]\n\
             postgres = {{ url = \"${{env:TEST_DATABASE}}\", table = \"public.both_steps\" }}\n",
            data.transactions("")
        ),
    );
    succeed(&run, &database);
    let counted = "SELECT step, count(*), count(transaction_id), count(user_id), count(note) FROM both_steps GROUP BY 1 ORDER BY 1";
    assert_eq!(
        database.query(counted),
        [
            ["ids", "500", "500", "0", "0"],
            ["users", "500", "0", "500", "0"]
        ]
    );
}

/// Inserts without a key: whatever is written twice stands there twice.
fn kills() {
    const KILLS: usize = 30;
    let seed = std::env::var("TIDEMILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(23);
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 80_000, seed);
    let server = Server::prepare();
    server.up();
    let database = server.database();
    let run = pipeline(
        &data,
        "limit = { per_second = 3000, per_epoch = 100 }",
        "table = \"bought\", create = true",
    );
    let mut landed = 0;
    for round in 0..KILLS {
        let mut child = command(&run, &database.url())
            .args(["--set", "host.checkpoint_every=20ms"])
            .spawn()
            .unwrap();
        if round % 6 == 3 {
            wait(&mut child, Duration::from_millis(rng.random_range(20..200)));
            server.crash();
            server.up();
        }
        let patience = Duration::from_millis(rng.random_range(40..400));
        if wait(&mut child, patience).is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            landed += 1;
        }
    }
    assert!(
        landed >= KILLS * 9 / 10,
        "only {landed} of {KILLS} kills landed"
    );
    let output = command(&run, &database.url())
        .args(["--set", "sources.transactions.limit.per_second=1000000"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let (got, expected) = (table(&database, "bought"), expected(&data));
    assert_eq!(
        got.len(),
        expected.len(),
        "rows after {landed} kills, seed {seed}"
    );
    assert!(
        got == expected,
        "rows differ after {landed} kills, seed {seed}"
    );
}

fn wrong_tables() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, 24);
    let columns = "transaction_id text, user_id text, quantity bigint, amount double precision";
    let cases = [
        ("", "table = \"none\"", "there is no table none"),
        (
            "CREATE TABLE Wide (x int)",
            "table = \"Wide\"",
            "there is no table Wide",
        ),
        (
            &format!("CREATE TABLE t ({columns})"),
            "table = \"t\"",
            "no column \"timestamp\", which the rows have as timestamp with time zone",
        ),
        (
            &format!("CREATE TABLE t ({columns}, timestamp text)"),
            "table = \"t\"",
            "column \"timestamp\" of table \"t\" is of type text, the rows have timestamp with time zone",
        ),
        (
            &format!("CREATE TABLE t ({columns}, timestamp timestamptz)"),
            "table = \"t\", key = [\"user_id\"]",
            "no unique index on (\"user_id\")",
        ),
        (
            &format!(
                "CREATE TABLE t ({columns}, timestamp timestamptz); CREATE UNIQUE INDEX ON t (user_id) WHERE amount > 0"
            ),
            "table = \"t\", key = [\"user_id\"]",
            "no unique index on (\"user_id\")",
        ),
        (
            &format!("CREATE TABLE t ({columns}, timestamp timestamptz, kind text NOT NULL)"),
            "table = \"t\"",
            "column \"kind\" of table \"t\" is NOT NULL without a default",
        ),
        (
            "CREATE TABLE t (transaction_id text, user_id text, quantity bigint, timestamp timestamptz, amount float8 GENERATED ALWAYS AS (1) STORED)",
            "table = \"t\"",
            "is generated",
        ),
        (
            "CREATE ROLE reader LOGIN; CREATE TABLE t (x int)",
            "table = \"u\", create = true",
            "permission denied",
        ),
    ];
    for (sql, sink, expected) in cases {
        let database = Server::get().database();
        database.query(sql);
        let run = pipeline(&data, "", sink);
        let url = match expected {
            "permission denied" => database.url().replace("app@", "reader@"),
            _ => database.url(),
        };
        let output = command(&run, &url).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "no {expected:?} in {said}");
        assert!(said.contains("sink table (database test_"), "{said}");
    }
}

fn refused_row() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 4_000, 25);
    let database = Server::get().database();
    database.query(
        "CREATE TABLE bought (transaction_id text PRIMARY KEY CHECK (transaction_id <> 't0000700'), user_id text, \
         quantity int, amount float8, timestamp timestamptz)",
    );
    let run = pipeline(&data, "", "table = \"bought\"");
    let failed = output(&run, &database);
    let text = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    for part in [
        "check constraint",
        "SQLSTATE 23514",
        "the row is {\"transaction_id\":\"t0000700\"",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    // What was decided is staged: once the table takes the row, nothing is missing.
    database.query("ALTER TABLE bought DROP CONSTRAINT bought_transaction_id_check");
    succeed(&run, &database);
    assert_eq!(database.column("SELECT count(*) FROM bought"), ["1000"]);
}

fn another_state() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, 26);
    let database = Server::get().database();
    let more = "table = \"bought\", create = true";
    succeed(&pipeline(&data, "", more), &database);
    let second = pipeline(&data, "", more);
    let refused = output(&second, &database);
    let text = said(&refused);
    assert!(
        !refused.status.success() && text.contains("another state directory"),
        "{text}"
    );
    let remedy = "DELETE FROM tidemill_checkpoints WHERE pipeline = 'test' AND sink = 'table'";
    assert!(text.contains(remedy), "{text}");
    assert_eq!(database.column("SELECT count(*) FROM bought"), ["100"]);
    database.query(remedy);
    succeed(&second, &database);
    assert_eq!(database.column("SELECT count(*) FROM bought"), ["200"]);
}

fn away() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 4_000, 27);
    let server = Server::prepare();
    server.up();
    let database = server.database();
    server.crash();
    let run = pipeline(
        &data,
        "limit = { per_second = 1000, per_epoch = 50 }",
        "table = \"bought\", create = true",
    );
    let mut child = command(&run, &database.url()).spawn().unwrap();
    assert!(
        wait(&mut child, Duration::from_millis(700)).is_none(),
        "it does not wait"
    );
    server.up();
    assert!(
        wait(&mut child, Duration::from_millis(600)).is_none(),
        "it is faster than its limit"
    );
    server.crash();
    assert!(
        wait(&mut child, Duration::from_millis(700)).is_none(),
        "it does not wait"
    );
    server.up();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(table(&database, "bought"), expected(&data));
}

/// Once while it waits at its start, once in the middle: what was decided is staged, and the next run writes it.
fn stop_while_away() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 8_000, 29);
    let server = Server::prepare();
    server.up();
    let database = server.database();
    server.crash();
    let run = pipeline(
        &data,
        "limit = { per_second = 1000, per_epoch = 50 }",
        "table = \"bought\", create = true",
    );
    for started in [false, true] {
        if started {
            server.up();
        }
        let mut child = command(&run, &database.url()).spawn().unwrap();
        assert!(
            wait(&mut child, Duration::from_millis(500)).is_none(),
            "it does not wait"
        );
        if started {
            server.crash();
            assert!(
                wait(&mut child, Duration::from_millis(300)).is_none(),
                "it does not wait"
            );
        }
        // SAFETY: a signal to a process that this test started and has not waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        let ended = wait(&mut child, Duration::from_secs(60));
        assert!(ended.is_some(), "SIGTERM is not heard, started: {started}");
    }
    server.up();
    succeed(&run, &database);
    assert_eq!(table(&database, "bought"), expected(&data));
}

fn certificates() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, 28);
    let server = Server::get();
    let ca = quoted(&server.certificate());
    let cases = [
        ("localhost", "sslmode=verify-full", Some(&ca), None),
        (
            "localhost",
            "sslmode=verify-full",
            None,
            Some("certificate"),
        ),
        (
            "127.0.0.1",
            "sslmode=verify-full",
            Some(&ca),
            Some("certificate"),
        ),
        ("127.0.0.1", "sslmode=verify-ca", Some(&ca), None),
        ("127.0.0.1", "sslmode=require", None, None),
        ("127.0.0.1", "", None, None),
    ];
    for (host, options, ca, refused) in cases {
        let database = server.database();
        database.query(
            "CREATE VIEW encrypted AS SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        );
        database.query(
            "CREATE TABLE bought (transaction_id text, user_id text, quantity bigint, amount float8, timestamp timestamptz); \
             CREATE FUNCTION was_encrypted() RETURNS bool LANGUAGE sql AS 'SELECT ssl FROM encrypted'; \
             ALTER TABLE bought ADD COLUMN ssl bool DEFAULT was_encrypted()",
        );
        let ca = ca.map_or(String::new(), |ca| format!(", ca = {ca}"));
        let run = pipeline(&data, "", &format!("table = \"bought\"{ca}"));
        let output = command(&run, &database.url_by_name(host, options))
            .output()
            .unwrap();
        match refused {
            None => {
                assert!(
                    output.status.success(),
                    "{host} {options}: {}",
                    said(&output)
                );
                assert_eq!(
                    database.query("SELECT ssl, count(*) FROM bought GROUP BY 1"),
                    [["t", "100"]]
                );
            }
            Some(part) => {
                let text = said(&output);
                assert_eq!(output.status.code(), Some(1), "{host} {options}: {text}");
                assert!(text.contains(part), "{text}");
            }
        }
    }
}

/// Rows after the snapshot come again: with a key they take the place of those there, without one they are doubled and no
/// others are.
fn restored() {
    for (keyed, more) in [
        (
            true,
            "table = \"bought\", key = [\"transaction_id\"], create = true",
        ),
        (false, "table = \"bought\", create = true"),
    ] {
        let dir = TempDir::new().unwrap();
        let data = Data::write(dir.path(), 20_000, 23);
        let database = Server::get().database();
        let run = pipeline(
            &data,
            "limit = { per_second = 3000, per_epoch = 100 }",
            more,
        );
        let count = || -> usize {
            let rows = database.column("SELECT count(*)::text FROM bought");
            rows[0].parse().unwrap()
        };
        let to = dir.path().join("snapshot");
        let ours = |words: &str, more: &[&str]| {
            let mut command = Command::new(crate::support::binary());
            command.arg(words).arg(run.file()).args(more);
            let output = command
                .env("TEST_DATABASE", database.url())
                .output()
                .unwrap();
            assert!(output.status.success(), "{words}: {}", said(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        let mut child = command(&run, &database.url()).spawn().unwrap();
        wait(&mut child, Duration::from_millis(700));
        child.kill().unwrap();
        child.wait().unwrap();
        ours("snapshot", &[to.to_str().unwrap()]);
        succeed_quickly(&run, &database);
        let whole = expected(&data);
        assert_eq!(table(&database, "bought"), whole);
        // What the checkpoint does not cover.
        let shown = ours("restore", &[to.to_str().unwrap(), "--replace"]);
        assert!(shown.contains("rows of outputs above"), "{shown}");
        let before = count();
        succeed_quickly(&run, &database);
        if keyed {
            assert_eq!(table(&database, "bought"), whole);
        } else {
            let mut distinct = table(&database, "bought");
            assert!(
                count() > before && count() < 2 * whole.len(),
                "{} of {}",
                count(),
                whole.len()
            );
            distinct.dedup();
            assert_eq!(distinct, whole);
        }
        // Once more from the same snapshot: another id has written meanwhile, and it is known.
        ours("restore", &[to.to_str().unwrap(), "--replace"]);
        succeed_quickly(&run, &database);
    }
}

fn succeed_quickly(run: &Pipeline, database: &Database) {
    let mut command = command(run, &database.url());
    command.args(["--set", "sources.transactions.limit.per_second=1000000"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
