//! A snapshot taken under load goes on as an undisturbed run would have from its checkpoint.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use libtest_mimic::Trial;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tempfile::TempDir;

use super::{Host, SLOW, files, finish, refused, restore, slow_plugins, snapshot, succeed};
use crate::pipelines::assert_all_plugins;
use crate::support::data::Data;
use crate::support::{Pipeline, assert_same_rows, read_rows, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "snapshot_under_load_restored_in_place_loses_and_doubles_nothing",
            in_place,
        ),
        trial(
            "snapshot_restored_elsewhere_goes_on_with_what_it_holds",
            elsewhere,
        ),
        trial(
            "snapshot_of_a_stopped_pipeline_is_the_same_as_of_a_running_one",
            stopped,
        ),
        trial(
            "restored_files_of_directories_never_meet_those_of_before",
            directories,
        ),
        trial("restored_twice_is_as_good_as_once", twice),
    ]
}

/// Several snapshots while it runs and merges; then the state is lost, and one of them goes on.
fn in_place() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 5);
    let run = slow_plugins(&data);
    let mut host = Host::start(&run);
    let mut last = 0;
    for number in 0..4 {
        let to = dir.path().join(format!("snapshot{number}"));
        let taken = snapshot(&run, &to);
        last = taken["checkpoint"].as_u64().unwrap();
        assert!(taken["keys"].as_u64().unwrap() > 0, "{taken}");
        host.wait_for_checkpoint(&run, last + 5);
    }
    host.kill();
    let longer = run.rows("enriched.jsonl").len();
    std::fs::remove_dir_all(run.dir.path().join("state")).unwrap();
    let said = restore(&run, &dir.path().join("snapshot3"), &[]);
    assert!(
        said.contains(&format!("holds checkpoint {last} of test")),
        "{said}"
    );
    assert!(said.contains("nothing is there twice"), "{said}");
    let host = Host::start(&run);
    host.kill();
    finish(&run);
    assert!(run.rows("enriched.jsonl").len() > longer);
    assert_all_plugins(&run, &data, "restored in place");
}

/// Another directory: output files are not there, which is refused; under another name a sink begins behind the snapshot.
fn elsewhere() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 30_000, 6);
    let text = |sink: &str| {
        format!(
            "{}[steps.all]\nfrom = \"clicks\"\nselect = [\"event_id\", \"user_id\"]\n\
             [sinks.{sink}]\nfrom = [\"all\"]\nfile = {{ path = \"all.jsonl\" }}\n",
            data.clicks(SLOW)
        )
    };
    let first = Pipeline::new(2, &text("out"));
    let host = Host::start(&first);
    let to = dir.path().join("snapshot");
    snapshot(&first, &to);
    host.kill();
    let second = Pipeline::new(2, &text("out"));
    let said = restore(&second, &to, &[]);
    assert!(said.contains("the next start will refuse"), "{said}");
    let said = refused(&second, &["run"], &["--until-end"], 1);
    assert!(
        said.contains("missing, but") && said.contains("give the sink another name"),
        "{said}"
    );
    // Its output begins with what came after the checkpoint.
    let renamed = std::fs::read_to_string(second.file())
        .unwrap()
        .replace("[sinks.out]", "[sinks.more]");
    std::fs::write(second.file(), renamed).unwrap();
    succeed(
        &second,
        &["run"],
        &[
            "--until-end",
            "--set",
            "sources.clicks.limit.per_second=1000000",
        ],
    );
    let rest = second.rows("all.jsonl");
    let whole = read_rows(&data.clicks);
    assert!(
        !rest.is_empty() && rest.len() < whole.len(),
        "{} of {}",
        rest.len(),
        whole.len()
    );
    // What the first run had written by the checkpoint, and the rest, are all there is.
    let before = whole.len() - rest.len();
    let ids = |rows: &[Value]| {
        rows.iter()
            .map(|r| r["event_id"].to_string())
            .collect::<BTreeSet<_>>()
    };
    let (written, rest) = (ids(&first.rows("all.jsonl")[..before]), ids(&rest));
    assert!(written.is_disjoint(&rest));
    assert_eq!(written.len() + rest.len(), whole.len());
}

fn stopped() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 30_000, 7);
    let run = slow_plugins(&data);
    Host::start(&run).kill();
    let to = dir.path().join("snapshot");
    let taken = snapshot(&run, &to);
    finish(&run);
    assert_all_plugins(&run, &data, "undisturbed");
    let said = refused(&run, &["restore"], &[to.to_str().unwrap()], 2);
    assert!(
        said.contains("holds a state: with --replace it goes aside"),
        "{said}"
    );
    let said = restore(&run, &to, &["--replace"]);
    assert!(
        said.contains(&format!("holds checkpoint {} of test", taken["checkpoint"])),
        "{said}"
    );
    assert!(said.contains("the state before is in"), "{said}");
    finish(&run);
    assert_all_plugins(&run, &data, "restored after its end");
}

fn twice() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 30_000, 8);
    let run = slow_plugins(&data);
    let host = Host::start(&run);
    let to = dir.path().join("snapshot");
    snapshot(&run, &to);
    host.kill();
    for _ in 0..3 {
        restore(&run, &to, &["--replace"]);
        Host::start(&run).kill();
    }
    // A snapshot of a restored state is one like any other.
    let again = dir.path().join("again");
    snapshot(&run, &again);
    restore(&run, &again, &["--replace"]);
    finish(&run);
    assert_all_plugins(&run, &data, "restored again and again");
}

/// Files of lines and of Parquet: those numbered before the snapshot and those of the restored state hold each row once.
fn directories() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 9);
    let sinks = "[sinks.rolled]\nfrom = [\"clicks\"]\nfile = { dir = \"rolled\", roll = \"150ms\" }\n\
                 [sinks.history]\nfrom = [\"clicks\"]\nparquet = { dir = \"history\", roll = \"170ms\", partition_by = [\"action\"] }\n";
    let run = Pipeline::new(2, &(data.clicks(SLOW) + sinks));
    let mut host = Host::start(&run);
    host.wait_for_checkpoint(&run, 12);
    let to = dir.path().join("snapshot");
    let taken = snapshot(&run, &to);
    let number = taken["checkpoint"].as_u64().unwrap();
    host.wait_for_checkpoint(&run, number + 12);
    host.kill();
    let said = restore(&run, &to, &["--replace"]);
    let id = &taken["state_id"].as_str().unwrap()[..8];
    for sink in ["rolled", "history"] {
        let out = run.dir.path().join(sink);
        let label = format!("test-{sink}-{id}");
        // As the command says: files from this number on are of after the checkpoint.
        let line = said
            .lines()
            .find(|line| line.contains(&format!("sink {sink}:")))
            .unwrap();
        let from = line
            .split(&format!("remove files {label}-"))
            .nth(1)
            .unwrap_or_else(|| panic!("{line}"));
        let from: u64 = from[..6].parse().unwrap();
        let mut removed = 0;
        for file in files(&out) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let number = name.strip_prefix(&format!("{label}-")).unwrap()[..6]
                .parse::<u64>()
                .unwrap();
            if number >= from {
                std::fs::remove_file(&file).unwrap();
                removed += 1;
            }
        }
        assert!(
            line.contains(&format!("{removed} of the files")),
            "{line}: {removed}"
        );
    }
    finish(&run);
    let expected = read_rows(&data.clicks);
    let rolled = files(&run.dir.path().join("rolled"));
    let rows: Vec<Value> = rolled.iter().flat_map(|path| read_rows(path)).collect();
    let ids = |rows: &[Value]| {
        rows.iter()
            .map(|r| serde_json::json!({ "id": r["event_id"] }))
            .collect::<Vec<_>>()
    };
    assert_same_rows("rolled", ids(&rows), ids(&expected));
    let history = files(&run.dir.path().join("history"));
    let rows: usize = history.iter().map(|path| parquet_rows(path)).sum();
    assert_eq!(rows, expected.len(), "rows of Parquet files");
}

fn parquet_rows(path: &Path) -> usize {
    let file = File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    reader
        .build()
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum()
}
