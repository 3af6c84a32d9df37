//! Bad input gets a clear answer and loses nothing: what a person reads, and the exit code.

use std::process::Command;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::pipelines::sinks;
use crate::support::data::Data;
use crate::support::{Pipeline, assert_same_rows, binary, plugin, read_rows, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "broken_records_are_dead_letters_and_the_others_pass",
            broken_records,
        ),
        trial("a_record_that_says_stop_stops", stop_rule),
        trial("a_state_directory_has_one_process", state_in_use),
        trial("the_state_of_another_pipeline_is_refused", state_of_another),
        trial("a_foreign_sink_file_is_refused", foreign_sink_file),
        trial(
            "a_changed_step_is_refused_with_the_difference",
            changed_step,
        ),
        trial("mistakes_of_a_file_are_told_at_once", mistakes_at_once),
        trial("usage_errors_exit_2", usage),
        trial(
            "rows_that_wait_beyond_their_limit_stop_the_host",
            waiting_beyond_the_limit,
        ),
    ]
}

fn passing(data: &Data, more: &str) -> String {
    format!(
        "{}[dead_letters]\nfile = {{ path = \"dead.jsonl\" }}\n[steps.all]\nfrom = \"transactions\"\n\
         [sinks.out]\nfrom = [\"all\"]\nfile = {{ path = \"out.jsonl\" }}\n",
        data.transactions(more)
    )
}

/// Each way of being broken, made of a good line.
fn broken(line: &str) -> Vec<Vec<u8>> {
    let with = |from: &str, to: &str| line.replacen(from, to, 1).into_bytes();
    let mut deep = line[..line.len() - 1].to_owned();
    deep.push_str(&format!(",\"x\":{}{}}}", "[".repeat(200), "]".repeat(200)));
    let mut not_utf8 = line.as_bytes().to_vec();
    not_utf8.splice(10..10, [0xff]);
    vec![
        with("\"transaction_id\":\"", "\"transaction_id\":7,\"y\":\""),
        with("\"amount\":", "\"amount\":\"12\",\"z\":"),
        with("\"amount\":", "\"amount\":null,\"z\":"),
        with("\"amount\":", "\"amount\":1e999,\"z\":"),
        with(
            "\"quantity\":",
            "\"quantity\":1000000000000000000000,\"z\":",
        ),
        with("\"timestamp\":\"2026", "\"timestamp\":\"yesterday 2026"),
        with("\"timestamp\":\"2026", "\"timestamp\":\"2126"),
        with("\"amount\":", "\"amont\":"),
        line.as_bytes()[..line.len() / 2].to_vec(),
        format!("{line}}}").into_bytes(),
        Vec::new(),
        b"{}".to_vec(),
        b"null".to_vec(),
        b"[1,2]".to_vec(),
        b"7".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"{".repeat(5_000),
        deep.into_bytes(),
        not_utf8,
    ]
}

fn broken_records() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 4_000, 21);
    let good = std::fs::read_to_string(&data.transactions).unwrap();
    let mut text = Vec::new();
    let mut bad = 0;
    for (i, line) in good.lines().enumerate() {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
        if i % 20 == 0 {
            let ways = broken(line);
            text.extend_from_slice(&ways[bad % ways.len()]);
            text.push(b'\n');
            bad += 1;
        }
    }
    let clean = read_rows(&data.transactions);
    std::fs::write(&data.transactions, text).unwrap();
    let run = Pipeline::new(2, &passing(&data, ""));
    run.run();
    let expected = clean
        .into_iter()
        .map(|mut row| {
            row["timestamp"] =
                crate::support::oracle::shown(row["timestamp"].as_str().unwrap()).into();
            if row.get("product_id").is_none() {
                row["product_id"] = serde_json::Value::Null;
            }
            row
        })
        .collect();
    assert_same_rows("out", run.rows("out.jsonl"), expected);
    let dead = run.rows("dead.jsonl");
    assert_eq!(dead.len(), bad, "one dead letter a broken record");
    for letter in &dead {
        assert_eq!(letter["source"], "transactions", "{letter}");
        assert!(
            letter["reason"].as_str().is_some_and(|r| r.len() > 10),
            "{letter}"
        );
        assert!(
            letter["position"]["line"].is_i64()
                && (letter["raw"].is_string() || letter["raw_base64"].is_string()),
            "{letter}"
        );
    }
}

/// Exit code and what stands on standard error.
fn fails(run: &Pipeline, more: &[&str]) -> (Option<i32>, String) {
    let output = run.command(more).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn stop_rule() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, 22);
    std::fs::write(&data.transactions, "{\"transaction_id\":\n").unwrap();
    let (code, said) = fails(
        &Pipeline::new(1, &passing(&data, "bad_records = \"stop\"")),
        &[],
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("transactions") && said.contains("\"line\":1"),
        "{said}"
    );
}

fn state_in_use() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 23);
    let run = Pipeline::new(1, &passing(&data, "limit = { per_second = 100 }"));
    let mut first = run.command(&[]).spawn().unwrap();
    let lock = run.dir.path().join("state/admin-address");
    let started = std::time::Instant::now();
    while !lock.exists() && started.elapsed() < std::time::Duration::from_secs(30) {
        std::thread::yield_now();
    }
    let (code, said) = fails(&run, &[]);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_ne!(code, Some(0));
    assert!(said.contains("in use"), "{said}");
}

fn state_of_another() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, 24);
    let run = Pipeline::new(1, &passing(&data, ""));
    run.run();
    let text = std::fs::read_to_string(run.file())
        .unwrap()
        .replace("name = \"test\"", "name = \"other\"");
    std::fs::write(run.file(), text).unwrap();
    let (code, said) = fails(&run, &[]);
    assert_ne!(code, Some(0));
    assert!(
        said.contains("test") && said.contains("other"),
        "names both pipelines: {said}"
    );
}

fn foreign_sink_file() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, 25);
    let run = Pipeline::new(1, &passing(&data, ""));
    let out = run.dir.path().join("out.jsonl");
    std::fs::write(&out, "precious\n").unwrap();
    let (code, said) = fails(&run, &[]);
    assert_ne!(code, Some(0));
    assert!(
        said.contains("out.jsonl") && said.contains("existing"),
        "{said}"
    );
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        "precious\n",
        "it was not touched"
    );
}

fn changed_step() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 4_000, 26);
    let run = Pipeline::new(1, &crate::pipelines::all_plugins(&data, "", ""));
    let first = run.command(&["--keep-open"]).output().unwrap();
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    let text = std::fs::read_to_string(run.file()).unwrap();
    let (head, tail) = text.split_once("[steps.anomalies]").unwrap();
    let changed = format!(
        "{head}[steps.anomalies]{}",
        tail.replacen("key = [\"user_id\"]", "key = [\"product_id\"]", 1)
    );
    std::fs::write(run.file(), changed).unwrap();
    let (code, said) = fails(&run, &[]);
    assert_ne!(code, Some(0));
    assert!(
        said.contains("anomalies") && said.contains("--drop-state"),
        "{said}"
    );
}

fn mistakes_at_once() {
    let run = Pipeline::new(
        1,
        "[sources.a]\nfile = { path = \"a.jsonl\" }\nfeilds = { x = \"string\" }\nfields = { x = \"strnig\" }\n\
         [steps.b]\nfrom = \"aa\"\nwindow = { tumbling = \"1m\" }\n",
    );
    let output = Command::new(binary())
        .arg("check")
        .arg(run.file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for expected in [
        "feilds",
        "fields",
        "strnig",
        "string",
        "aa",
        "`aggregate` is missing",
        "pipeline.toml",
    ] {
        assert!(
            said.contains(expected),
            "`{expected}` is missing in:\n{said}"
        );
    }
}

fn usage() {
    for arguments in [
        &["frobnicate"][..],
        &["run"],
        &["run", "there/is/no/file.toml"],
        &["check", "there/is/no/file.toml"],
    ] {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn waiting_beyond_the_limit() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 24);
    let text = format!(
        "{}[steps.sessions]\nfrom = \"clicks\"\nkey = [\"user_id\"]\nlimits = {{ wait = \"1MB\" }}\n\
         plugin = {{ file = \"{}\", config = {{ timeout = \"30m\" }} }}\n{}",
        data.clicks("").replace("\"5m\"", "\"3650d\""),
        plugin("plugins/sessions").display(),
        sinks(&["sessions"]),
    );
    let output = Pipeline::new(2, &text).command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for named in ["step sessions", "`limits.wait` (1 MB)", "`lateness`"] {
        assert!(said.contains(named), "{said}");
    }
}
