//! Sinks that write files: each row once in what readers of a directory see, through kills, pieces and silence.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use libtest_mimic::Trial;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::data::Data;
use crate::support::running::wait;
use crate::support::{Pipeline, assert_same_rows, binary, read_rows, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("files_of_every_kind_survive_kill_9", kills),
        trial("files_of_scheduled_pieces_are_visible_after_each", pieces),
        trial("a_roll_comes_when_the_input_is_silent", silence),
    ]
}

/// Sinks of every kind, all of the same rows: a reference file, CSV, both kinds of directories.
fn every_kind(data: &Data, more: &str, roll: &str) -> String {
    let sink =
        |name: &str, connector: &str| format!("[sinks.{name}]\nfrom = [\"clicks\"]\n{connector}\n");
    let sinks = [
        sink("reference", "file = { path = \"all.jsonl\" }"),
        sink("table", "file = { path = \"all.csv\" }"),
        sink(
            "rolled",
            &format!("file = {{ dir = \"rolled\", roll = \"{roll}\", roll_bytes = \"64KB\" }}"),
        ),
        sink(
            "history",
            &format!(
                "parquet = {{ dir = \"history\", roll = \"{roll}\", partition_by = [\"action\"] }}"
            ),
        ),
    ];
    data.clicks(more) + &sinks.concat()
}

/// What readers see is what the input holds, in every sink; nothing hidden is left.
fn assert_complete(run: &Pipeline, data: &Data, what: &str) {
    let dir = run.dir.path();
    let expected = read_rows(&data.clicks);
    let reference = run.rows("all.jsonl");
    assert_eq!(reference.len(), expected.len(), "{what}: rows of one file");
    let rolled = files(&dir.join("rolled"));
    let rows = rolled.iter().flat_map(|path| read_rows(path)).collect();
    assert_same_rows(&format!("{what}: rolled"), rows, reference.clone());
    let table = std::fs::read_to_string(dir.join("all.csv")).unwrap();
    let ids = reference.iter().map(|r| r["event_id"].as_str().unwrap());
    let mut ids: Vec<&str> = ids.collect();
    let mut lines = table.lines();
    assert_eq!(
        lines.next(),
        Some("event_id,user_id,product_id,action,timestamp")
    );
    let mut found: Vec<&str> = lines.map(|l| l.split(',').next().unwrap()).collect();
    ids.sort_unstable();
    found.sort_unstable();
    assert!(found == ids, "{what}: rows of the CSV file");
    assert_same_rows(
        &format!("{what}: Parquet"),
        parquet_rows(&dir.join("history")),
        reference,
    );
}

/// Files below `dir`; there must be no hidden one.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with('.'), "{} is left", path.display());
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

/// The rows of Parquet files as JSON, with the column of a directory name back in where they are partitioned by one.
pub fn parquet_rows(dir: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    for path in files(dir) {
        let partition = path.strip_prefix(dir).unwrap().to_str().unwrap();
        let partition = partition
            .rsplit_once('/')
            .and_then(|(p, _)| p.split_once('='));
        let file = File::open(&path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for batch in reader.build().unwrap() {
            for mut row in json(&batch.unwrap()) {
                if let Some((column, value)) = partition {
                    row[column] = value.into();
                }
                all.push(row);
            }
        }
    }
    all
}

fn json(rows: &RecordBatch) -> Vec<Value> {
    (0..rows.num_rows())
        .map(|row| {
            let text = tidemill::format::encode::row_json(rows, row);
            serde_json::from_str(&text).unwrap()
        })
        .collect()
}

/// Kills while rows are staged, written, renamed and rolled forward; between 40 and 400 ms after each start.
fn kills() {
    const KILLS: usize = 25;
    let seed = std::env::var("TIDEMILL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(11);
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 20_000, seed);
    let limit = "limit = { per_second = 3000, per_epoch = 200 }";
    let run = Pipeline::new(2, &every_kind(&data, limit, "120ms"));
    let mut landed = 0;
    for _ in 0..KILLS {
        let mut child = run
            .command(&["--set", "host.checkpoint_every=40ms"])
            .spawn()
            .unwrap();
        if wait(&mut child, Duration::from_millis(rng.random_range(40..400))).is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            landed += 1;
        }
    }
    assert!(
        landed >= KILLS * 9 / 10,
        "only {landed} of {KILLS} kills landed: the run is faster than its limit"
    );
    let rest = ["--set", "sources.clicks.limit.per_second=1000000"];
    let output = run.command(&rest).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_complete(&run, &data, &format!("seed {seed}, {landed} kills"));
    let history = files(&run.dir.path().join("history"));
    assert!(
        history.len() > 8,
        "only {} files: nothing rolled",
        history.len()
    );
    // Finished: nothing to do, and nothing undone.
    run.run();
    assert_complete(&run, &data, "run again");
}

/// Each piece of a scheduled batch is there when its run ends; a pipeline that is edited in between goes on.
fn pieces() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, 12);
    let whole = std::fs::read_to_string(&data.clicks).unwrap();
    let half = whole.len() / 2 + whole[whole.len() / 2..].find('\n').unwrap() + 1;
    let run = Pipeline::new(2, &every_kind(&data, "", "1h"));
    std::fs::write(&data.clicks, &whole[..half]).unwrap();
    let first = run.command(&["--keep-open"]).output().unwrap();
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    assert_complete(&run, &data, "first piece");
    std::fs::write(&data.clicks, &whole).unwrap();
    run.run();
    assert_complete(&run, &data, "both pieces");
    let mut rolls = BTreeMap::new();
    for path in files(&run.dir.path().join("history")) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        *rolls.entry(name).or_insert(0) += 1;
    }
    assert_eq!(rolls.len(), 2, "{rolls:?}");
    // As if the last run had been killed right after its last decision: the next one has nothing to do but this.
    let state = run.dir.path().join("state/sinks/rolled/unfinished");
    let last = files(&run.dir.path().join("rolled")).into_iter().max();
    let last = last.unwrap();
    let name = last.file_name().unwrap().to_str().unwrap();
    std::fs::rename(&last, state.join(format!("{name}.open"))).unwrap();
    run.run();
    assert_complete(&run, &data, "made up for");
}

/// Rows that no others follow are not held back for ever.
fn silence() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 300, 13);
    let run = Pipeline::new(1, &every_kind(&data, "", "1s"));
    let mut host = Command::new(binary())
        .arg("run")
        .arg(run.file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let seen = |name: &str| {
        let found = std::fs::read_dir(run.dir.path().join(name));
        found.is_ok_and(|dir| {
            dir.flatten()
                .any(|e| !e.file_name().to_string_lossy().starts_with('.'))
        })
    };
    while !(seen("history") && seen("rolled")) {
        assert!(Instant::now() < end, "no file became visible");
        assert!(wait(&mut host, Duration::from_millis(20)).is_none());
    }
    host.kill().unwrap();
    host.wait().unwrap();
    run.run();
    assert_complete(&run, &data, "after the silence");
}
