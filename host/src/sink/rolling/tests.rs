//! Files that grow, finish and appear, through crashes and edits.

use std::fs;

use super::*;
use crate::pipeline::plan::Existing;
use crate::sink::crashes::{self, Clock, Subject, checkpoint, rows, sink};
use crate::time::MICROS_PER_SECOND;

struct Lines {
    dir: tempfile::TempDir,
    clock: Clock,
    format: LineFormat,
    roll: Roll,
}

fn lines(format: LineFormat, seconds: i64, bytes: u64) -> Lines {
    Lines {
        dir: tempfile::tempdir().unwrap(),
        clock: Clock::default(),
        format,
        roll: Roll {
            every: seconds * MICROS_PER_SECOND,
            bytes,
        },
    }
}

impl Lines {
    fn plan(&self, existing: Existing) -> plan::Sink {
        let connector = SinkConnector::Files {
            dir: self.output(),
            existing,
            format: self.format,
            roll: self.roll,
        };
        sink(connector, &[("views", rows([]).schema())])
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output/deep")
    }

    fn start(&self, existing: Existing) -> Result<RollingSink, String> {
        let place = self.clock.place(&self.dir.path().join("state"));
        RollingSink::open(&self.plan(existing), place, None).map_err(|e| e.to_string())
    }

    fn resume(&self, cut: &Value) -> RollingSink {
        let place = self.clock.place(&self.dir.path().join("state"));
        RollingSink::open(&self.plan(Existing::Refuse), place, Some(cut)).unwrap()
    }

    /// Names of the files in the directory, hidden ones included, in order.
    fn names(&self) -> Vec<String> {
        names(&self.output())
    }

    /// Names of the files that are not finished.
    fn unfinished(&self) -> Vec<String> {
        names(&self.dir.path().join("state/sinks/out/unfinished"))
    }
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_str().unwrap().to_owned()
    };
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

impl Subject for Lines {
    fn open(&self, resume: Option<&Value>) -> Box<dyn Sink> {
        Box::new(match resume {
            Some(cut) => self.resume(cut),
            None => self.start(Existing::Refuse).unwrap(),
        })
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn visible(&self) -> Vec<i64> {
        let mut all = Vec::new();
        for name in self.names() {
            let text = fs::read_to_string(self.output().join(&name)).unwrap();
            let numbers = text.lines().filter_map(|line| match self.format {
                LineFormat::Json => line.strip_prefix("{\"n\":")?.split(',').next(),
                LineFormat::Csv => line.split(',').next().filter(|n| *n != "n"),
            });
            all.extend(numbers.map(|n| n.parse::<i64>().unwrap()));
        }
        all
    }

    fn halfway(&self, cut: &Value) {
        for file in cut["finished"].as_array().unwrap() {
            let name = file["name"].as_str().unwrap();
            let open = self.dir.path().join("state/sinks/out/unfinished");
            let open = open.join(format!("{name}.open"));
            fs::rename(open, self.output().join(name)).unwrap();
        }
    }
}

#[test]
fn no_crash_loses_or_doubles_a_row() {
    every(LineFormat::Json, 2, 1 << 20);
    every(LineFormat::Csv, 1_000, 200);
    every(LineFormat::Csv, 1, 1 << 20);
}

fn every(format: LineFormat, seconds: i64, bytes: u64) {
    crashes::every_crash(|| lines(format, seconds, bytes));
}

#[test]
fn a_file_appears_with_the_decision_after_its_time() {
    let subject = lines(LineFormat::Csv, 60, 1 << 20);
    let sink = subject.start(Existing::Refuse).unwrap();
    assert_eq!(subject.names(), [""; 0]);
    subject.clock.advance(1_000);
    assert!(!sink.is_due(), "nothing is held back");
    sink.write(0, &rows([1])).unwrap();
    sink.write(0, &rows([])).unwrap();
    subject.clock.advance(59);
    checkpoint(&sink, false);
    assert_eq!(subject.unfinished(), ["test-out-0a1b2c3d-000000.csv.open"]);
    assert!(subject.names().is_empty() && !sink.is_due());
    subject.clock.advance(1);
    assert!(sink.is_due());
    let cut = sink.cut(false).unwrap();
    sink.sync(&cut).unwrap();
    assert!(!sink.is_due());
    sink.write(0, &rows([2])).unwrap();
    assert!(subject.visible().is_empty());
    sink.decided(&cut).unwrap();
    assert_eq!(subject.unfinished(), ["test-out-0a1b2c3d-000001.csv.open"]);
    assert_eq!(subject.names(), ["test-out-0a1b2c3d-000000.csv"]);
    assert_eq!(subject.visible(), [1]);
    let text = fs::read_to_string(subject.output().join(&subject.names()[0])).unwrap();
    assert_eq!(text, "n,kind\n1,c\n");
    checkpoint(&sink, true);
    assert_eq!(subject.visible(), [1, 2]);
    assert_eq!(subject.names().len(), 2);
}

#[test]
fn a_restart_keeps_the_time_of_the_first_row_and_drops_what_nobody_decided() {
    let subject = lines(LineFormat::Json, 60, 1 << 20);
    let sink = subject.start(Existing::Refuse).unwrap();
    sink.write(0, &rows([1])).unwrap();
    let cut = checkpoint(&sink, false);
    subject.clock.advance(60);
    sink.write(0, &rows([2])).unwrap();
    sink.cut(false).unwrap();
    sink.write(0, &rows([3])).unwrap();
    drop(sink);
    assert_eq!(subject.unfinished().len(), 2);
    let sink = subject.resume(&cut);
    assert_eq!(
        subject.unfinished(),
        ["test-out-0a1b2c3d-000000.jsonl.open"]
    );
    assert!(sink.is_due());
    checkpoint(&sink, false);
    assert_eq!(subject.visible(), [1]);
}

#[test]
fn rows_of_an_edited_pipeline_begin_a_file() {
    let mut subject = lines(LineFormat::Json, 60, 1 << 20);
    let sink = subject.start(Existing::Refuse).unwrap();
    sink.write(0, &rows([1])).unwrap();
    let cut = checkpoint(&sink, false);
    drop(sink);
    subject.format = LineFormat::Csv;
    let sink = subject.resume(&cut);
    assert!(sink.is_due());
    sink.write(0, &rows([2])).unwrap();
    checkpoint(&sink, true);
    assert_eq!(
        subject.names(),
        [
            "test-out-0a1b2c3d-000000.jsonl",
            "test-out-0a1b2c3d-000001.csv"
        ]
    );
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let subject = lines(LineFormat::Json, 60, 1 << 20);
    fs::create_dir_all(subject.output()).unwrap();
    fs::write(subject.output().join(".gitkeep"), "").unwrap();
    assert!(subject.start(Existing::Refuse).is_ok());
    fs::write(subject.output().join("theirs"), "").unwrap();
    let error = subject.start(Existing::Refuse).err().unwrap();
    assert!(error.contains("not empty (it has `theirs`)"), "{error}");
    assert!(subject.start(Existing::Append).is_ok());
    let place = subject.clock.place(subject.dir.path());
    let foreign = serde_json::json!({ "length": 3 });
    let plan = subject.plan(Existing::Refuse);
    let error = RollingSink::open(&plan, place, Some(&foreign))
        .err()
        .unwrap();
    assert!(error.to_string().contains("give the sink another name"));
}

/// As where output and state are on two file systems, and when a deployment moves as a whole.
#[test]
fn files_are_made_within_the_directory_where_no_rename_leads_to_it() {
    let subject = lines(LineFormat::Json, 1, 1 << 20);
    let sink = subject.start(Existing::Refuse).unwrap();
    sink.write(0, &rows([1])).unwrap();
    let cut = checkpoint(&sink, false);
    drop(sink);
    let apart = subject.dir.path().join("state/sinks/out/unfinished");
    let within = subject.output().join(".test-out-0a1b2c3d");
    fs::rename(&apart, &within).unwrap();
    let sink = subject.resume(&cut);
    assert!(within.is_dir());
    checkpoint(&sink, true);
    assert_eq!(subject.names(), ["test-out-0a1b2c3d-000000.jsonl"]);
    let cut = checkpoint(&sink, true);
    drop(sink);
    subject.resume(&cut);
    assert_eq!(subject.names(), ["test-out-0a1b2c3d-000000.jsonl"]);
}
