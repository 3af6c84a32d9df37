//! The sink by itself: every type of column, and a crash after each of its calls.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{Int64Type, SchemaRef};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::batch::Batch;
use tidemill::error::ConnectorError;
use tidemill::pipeline::plan::{self, Input, Postgres, SinkConnector, SinkInput, WriteMode};
use tidemill::sink::postgres::PostgresSink;
use tidemill::sink::{Place, Sink};

use super::Test;
use crate::support::postgres::{Database, Server};

pub fn tests() -> Vec<Test> {
    vec![
        ("postgres_takes_every_type_of_column", types),
        ("postgres_tables_made_by_others_take_what_fits", other_types),
        (
            "postgres_sink_that_crashes_after_any_call_writes_once",
            crashes,
        ),
        ("postgres_older_and_newer_copies_are_refused", copies),
        ("postgres_later_rows_of_a_key_win_in_thousands", many_rows),
    ]
}

fn postgres(database: &Database, key: &[&str], create: bool) -> Postgres {
    Postgres {
        url: database.url(),
        place: "database".into(),
        table: vec!["t".into()],
        key: key.iter().map(|k| (*k).to_owned()).collect(),
        mode: if key.is_empty() {
            WriteMode::Insert
        } else {
            WriteMode::Upsert
        },
        create,
        ca: None,
    }
}

fn open(
    dir: &Path,
    postgres: &Postgres,
    schema: &SchemaRef,
    resume: Option<&Value>,
) -> Result<PostgresSink, ConnectorError> {
    let plan = plan::Sink {
        name: "s".into(),
        inputs: vec![SinkInput {
            label: "rows".into(),
            input: Input::Source(0),
            schema: schema.clone(),
        }],
        connector: SinkConnector::Postgres(postgres.clone()),
    };
    let place = Place {
        dir: dir.join("sinks/s"),
        label: "p-s".into(),
        now: Arc::new(|| 0),
    };
    PostgresSink::open("p", &["state".to_owned()], &place, &plan, resume, &|| false)
}

fn batch(columns: Vec<(&str, ArrayRef, bool)>) -> Batch {
    let columns = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    Batch {
        times: vec![0; columns.num_rows()].into(),
        columns,
        origins: None,
    }
}

/// What the engine does with a checkpoint.
fn checkpoint(sink: &PostgresSink) -> Value {
    let cut = sink.cut(false).unwrap();
    sink.sync(&cut).unwrap();
    sink.decided(&cut).unwrap_or_else(|error| panic!("{error}"));
    cut
}

fn write_all(database: &Database, create: bool, rows: &Batch) {
    let dir = TempDir::new().unwrap();
    let sink = open(
        dir.path(),
        &postgres(database, &[], create),
        &rows.schema(),
        None,
    );
    let sink = sink.unwrap_or_else(|error| panic!("{error}"));
    sink.write(0, rows).unwrap();
    checkpoint(&sink);
}

fn every_type() -> Batch {
    let utc =
        |micros: Vec<Option<i64>>| TimestampMicrosecondArray::from(micros).with_timezone("UTC");
    let lists = [Some(vec![Some(1), None]), None];
    let decimals = Decimal128Array::from(vec![Some(-1_205), None]).with_precision_and_scale(10, 2);
    batch(vec![
        (
            "text",
            Arc::new(StringArray::from(vec![Some("a'\"\\ü"), None])),
            true,
        ),
        (
            "number",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            true,
        ),
        (
            "unsigned",
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
            true,
        ),
        (
            "float",
            Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), None])),
            true,
        ),
        (
            "truth",
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            true,
        ),
        ("at", Arc::new(utc(vec![Some(-1), None])), true),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])),
            true,
        ),
        ("money", Arc::new(decimals.unwrap()), true),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(-1), None])),
            true,
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)),
            true,
        ),
    ])
}

fn types() {
    let database = Server::get().database();
    write_all(&database, true, &every_type());
    let types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum";
    let expected = [
        "text",
        "bigint",
        "numeric(20,0)",
        "double precision",
        "boolean",
        "timestamp with time zone",
        "bytea",
        "numeric(10,2)",
        "date",
        "jsonb",
    ];
    assert_eq!(database.column(types), expected);
    let rows = "SELECT text, number, \"unsigned\", \"float\", truth, at AT TIME ZONE 'UTC', bytes, money, day, list FROM t ORDER BY text";
    let first = [
        "a'\"\\ü",
        "-9223372036854775808",
        "18446744073709551615",
        "-Infinity",
        "t",
        "1969-12-31 23:59:59.999999",
        "\\x00ff",
        "-12.05",
        "1969-12-31",
        "[1, null]",
    ];
    assert_eq!(database.query(rows), [first, ["null"; 10]]);
}

fn other_types() {
    let database = Server::get().database();
    database.query(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN small AS int CHECK (VALUE < 100); \
         CREATE TABLE t (id serial, kind mood, code varchar(3), key uuid, doc jsonb, n small, amount numeric, at timestamp, \
         list int[])",
    );
    let rows = |code: &'static str, n| {
        batch(vec![
            ("kind", Arc::new(StringArray::from(vec!["bad"])), false),
            ("code", Arc::new(StringArray::from(vec![code])), false),
            (
                "key",
                Arc::new(StringArray::from(vec![
                    "00000000-0000-0000-0000-00000000000a",
                ])),
                false,
            ),
            (
                "doc",
                Arc::new(StringArray::from(vec!["{\"a\": [1]}"])),
                false,
            ),
            ("n", Arc::new(Int64Array::from(vec![n])), false),
            ("amount", Arc::new(Int64Array::from(vec![7])), false),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")),
                false,
            ),
            (
                "list",
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(
                    vec![Some(1), None],
                )])),
                false,
            ),
        ])
    };
    write_all(&database, false, &rows("abc", 99));
    let expected = [
        "1",
        "bad",
        "abc",
        "00000000-0000-0000-0000-00000000000a",
        "{\"a\": [1]}",
        "99",
        "7",
        "1970-01-01 00:00:00",
        "{1,NULL}",
    ];
    assert_eq!(database.query("SELECT * FROM t"), [expected]);
    // Nothing is cut or bent to fit.
    for (rows, expected) in [
        (rows("abcd", 1), "too long"),
        (rows("abc", 100), "violates check constraint"),
    ] {
        let database = Server::get().database();
        database.query("CREATE DOMAIN small AS int CHECK (VALUE < 100); CREATE TYPE mood AS ENUM ('bad'); \
            CREATE TABLE t (kind mood, code varchar(3), key uuid, doc jsonb, n small, amount numeric, at timestamp, list int[])");
        let dir = TempDir::new().unwrap();
        let sink = open(
            dir.path(),
            &postgres(&database, &[], false),
            &rows.schema(),
            None,
        )
        .unwrap();
        sink.write(0, &rows).unwrap();
        let cut = sink.cut(false).unwrap();
        sink.sync(&cut).unwrap();
        let error = sink.decided(&cut).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("the row is {\"kind\":\"bad\""),
            "{error}"
        );
    }
}

fn numbers(range: std::ops::Range<i64>) -> Batch {
    batch(vec![(
        "n",
        Arc::new(Int64Array::from(range.collect::<Vec<_>>())),
        false,
    )])
}

/// Where the process ends, and what is there afterwards once the rest has been written again.
fn crashes() {
    let schema = numbers(0..0).schema();
    for stage in ["write", "cut", "sync", "commit", "decided"] {
        let database = Server::get().database();
        let (dir, postgres) = (TempDir::new().unwrap(), postgres(&database, &[], true));
        let sink = open(dir.path(), &postgres, &schema, None).unwrap();
        let start = checkpoint(&sink);
        sink.write(0, &numbers(0..3)).unwrap();
        let before = checkpoint(&sink);
        assert_eq!(checkpoint(&sink), before, "nothing new is the same cut");
        assert_ne!(start, before);
        sink.write(0, &numbers(3..6)).unwrap();
        let mut resume = before;
        if stage != "write" {
            let cut = sink.cut(false).unwrap();
            if stage != "cut" {
                sink.sync(&cut).unwrap();
            }
            if stage == "decided" {
                sink.decided(&cut).unwrap();
            }
            if matches!(stage, "commit" | "decided") {
                resume = cut;
            }
        }
        let decided = matches!(stage, "commit" | "decided");
        // Written after the cut, never part of a checkpoint.
        sink.write(0, &numbers(90..99)).unwrap();
        drop(sink);
        let sink = open(dir.path(), &postgres, &schema, Some(&resume)).unwrap();
        let there = if decided { "6" } else { "3" };
        assert_eq!(
            database.column("SELECT count(*) FROM t"),
            [there],
            "after {stage}"
        );
        if !decided {
            sink.write(0, &numbers(3..6)).unwrap();
        }
        sink.write(0, &numbers(6..9)).unwrap();
        checkpoint(&sink);
        let all: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        assert_eq!(
            database.column("SELECT n FROM t ORDER BY n"),
            all,
            "after {stage}"
        );
    }
}

fn copies() {
    let database = Server::get().database();
    let schema = numbers(0..0).schema();
    let (dir, postgres) = (TempDir::new().unwrap(), postgres(&database, &[], true));
    let sink = open(dir.path(), &postgres, &schema, None).unwrap();
    let mut cuts = vec![checkpoint(&sink)];
    for round in 0..3 {
        sink.write(0, &numbers(round..round + 1)).unwrap();
        cuts.push(checkpoint(&sink));
    }
    drop(sink);
    let refused = |resume: Option<&Value>| {
        let opened = open(dir.path(), &postgres, &schema, resume);
        opened.err().expect("refused").to_string()
    };
    let error = refused(Some(&cuts[1]));
    assert!(
        error.contains("ahead of the state directory: at output 3, the state at 1"),
        "{error}"
    );
    database.query("UPDATE tidemill_checkpoints SET checkpoint = 1");
    let sink = open(dir.path(), &postgres, &schema, Some(&cuts[1])).unwrap();
    sink.write(0, &numbers(7..8)).unwrap();
    let next = checkpoint(&sink);
    drop(sink);
    database.query("DELETE FROM tidemill_checkpoints");
    let error = refused(Some(&next));
    assert!(
        error.contains("behind the state directory: at output 0, the state at 2"),
        "{error}"
    );
    let error = refused(Some(&serde_json::json!({ "length": 5 })));
    assert!(error.contains("give it another name"), "{error}");
}

/// 50,000 rows of 20,000 keys in one checkpoint, keys that only Postgres holds for equal among them.
fn many_rows() {
    let database = Server::get().database();
    database.query("CREATE TABLE t (k char(8) UNIQUE, v bigint)");
    let keys: Vec<String> = (0..50_000)
        .map(|i| match i {
            49_000 => "k7".into(),
            // As char(8) the same as `k7`.
            49_001 => "k7 ".into(),
            i => format!("k{}", i % 20_000),
        })
        .collect();
    let values: Vec<i64> = (0..50_000).collect();
    let rows = batch(vec![
        ("k", Arc::new(StringArray::from(keys)), false),
        ("v", Arc::new(Int64Array::from(values)), false),
    ]);
    let dir = TempDir::new().unwrap();
    let sink = open(
        dir.path(),
        &postgres(&database, &["k"], false),
        &rows.schema(),
        None,
    )
    .unwrap();
    for start in (0..50_000).step_by(1_000) {
        sink.write(0, &rows.slice(start, 1_000)).unwrap();
    }
    checkpoint(&sink);
    let summary = "SELECT count(*), min(v), max(v), max(v) FILTER (WHERE k = 'k7') FROM t";
    assert_eq!(
        database.query(summary),
        [["20000", "29000", "49999", "49001"]]
    );
}
