//! Rows staged, rolled and made visible, through crashes and edits; files read back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Int64Array, ListArray, RecordBatch,
    StringArray, StringViewArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};

use super::*;
use crate::limits;
use crate::pipeline::plan::Existing;
use crate::sink::crashes::{self, Clock, Subject, checkpoint, rows, sink};
use crate::time::MICROS_PER_SECOND;

struct Table {
    dir: tempfile::TempDir,
    clock: Clock,
    partition_by: Vec<String>,
    roll: plan::Roll,
}

fn table(partition_by: &[&str], seconds: i64, bytes: u64) -> Table {
    Table {
        dir: tempfile::tempdir().unwrap(),
        clock: Clock::default(),
        partition_by: partition_by.iter().map(|c| (*c).to_owned()).collect(),
        roll: plan::Roll {
            every: seconds * MICROS_PER_SECOND,
            bytes,
        },
    }
}

impl Table {
    fn connector(&self, existing: Existing) -> SinkConnector {
        SinkConnector::Parquet {
            dir: self.output(),
            existing,
            roll: self.roll,
            partition_by: self.partition_by.clone(),
        }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    fn place(&self) -> Place {
        self.clock.place(&self.dir.path().join("state"))
    }

    fn with(&self, plan: &plan::Sink, resume: Option<&Value>) -> ParquetSink {
        ParquetSink::open(plan, self.place(), resume).unwrap()
    }

    fn sink(&self, resume: Option<&Value>) -> ParquetSink {
        let plan = sink(
            self.connector(Existing::Refuse),
            &[("views", rows([]).schema())],
        );
        self.with(&plan, resume)
    }

    /// What readers of the directory see: rows by the path of their file.
    fn files(&self) -> BTreeMap<String, RecordBatch> {
        let mut all = BTreeMap::new();
        collect(&self.output(), &self.output(), &mut all);
        all
    }

    fn staged_files(&self) -> usize {
        let names = fs::read_dir(self.place().dir).unwrap();
        names
            .filter(|e| e.as_ref().unwrap().path().is_file())
            .count()
    }

    fn made_in(&self) -> PathBuf {
        self.place().dir.join("unfinished")
    }
}

fn collect(top: &Path, dir: &Path, all: &mut BTreeMap<String, RecordBatch>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') {
            continue;
        } else if path.is_dir() {
            collect(top, &path, all);
        } else {
            let relative = path.strip_prefix(top).unwrap();
            all.insert(relative.to_str().unwrap().to_owned(), read(&path));
        }
    }
}

fn read(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Result<Vec<_>, _> = builder.build().unwrap().collect();
    arrow::compute::concat_batches(&schema, &batches.unwrap()).unwrap()
}

fn numbers(rows: &RecordBatch) -> Vec<i64> {
    let column = rows.column_by_name("n").unwrap();
    column.as_primitive::<Int64Type>().values().to_vec()
}

impl Subject for Table {
    fn open(&self, resume: Option<&Value>) -> Box<dyn Sink> {
        Box::new(self.sink(resume))
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn visible(&self) -> Vec<i64> {
        self.files().values().flat_map(numbers).collect()
    }

    fn halfway(&self, _cut: &Value) {
        let hidden = self.made_in();
        let mut found = BTreeMap::new();
        if hidden.is_dir() {
            collect_names(&hidden, &hidden, &mut found);
        }
        if let Some((path, relative)) = found.pop_first() {
            let to = self.output().join(relative.with_extension(""));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(path, to).unwrap();
        }
    }
}

fn collect_names(top: &Path, dir: &Path, all: &mut BTreeMap<PathBuf, PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_names(top, &path, all);
        } else {
            all.insert(path.clone(), path.strip_prefix(top).unwrap().to_owned());
        }
    }
}

#[test]
fn no_crash_loses_or_doubles_a_row() {
    crashes::every_crash(|| table(&[], 2, 1 << 30));
    crashes::every_crash(|| table(&["kind"], 2, 1 << 30));
    crashes::every_crash(|| table(&[], 1_000, 1 << 30));
    // Every checkpoint rolls by size.
    crashes::every_crash(|| table(&["kind"], 1_000, 1));
}

#[test]
fn a_roll_becomes_visible_with_its_decision_and_leaves_nothing_behind() {
    let subject = table(&["kind"], 300, 1 << 30);
    let sink = subject.sink(None);
    sink.write(0, &rows(0..6)).unwrap();
    subject.clock.advance(299);
    assert!(!sink.is_due());
    checkpoint(&sink, false);
    assert!(subject.files().is_empty());
    subject.clock.advance(1);
    assert!(sink.is_due());
    let cut = sink.cut(false).unwrap();
    assert!(!sink.is_due());
    sink.write(0, &rows([100])).unwrap();
    sink.sync(&cut).unwrap();
    assert!(subject.files().is_empty());
    assert_eq!(fs::read_dir(subject.made_in()).unwrap().count(), 3);
    sink.decided(&cut).unwrap();
    let found: Vec<_> = subject
        .files()
        .into_iter()
        .map(|(path, rows)| (path, numbers(&rows)))
        .collect();
    let file = |dir: &str| format!("kind={dir}/test-out-0a1b2c3d-000000.parquet");
    assert_eq!(
        found,
        [
            (file("__HIVE_DEFAULT_PARTITION__"), vec![3]),
            (file("a%2Fb"), vec![0, 4]),
            (file("c"), vec![1, 2, 5]),
        ]
    );
    assert_eq!(
        subject.files()[&file("c")].num_columns(),
        1,
        "`kind` is in the name"
    );
    assert_eq!(fs::read_dir(subject.made_in()).unwrap().count(), 0);
    assert_eq!(subject.staged_files(), 1);
    let cut = checkpoint(&sink, true);
    assert_eq!(subject.visible().len(), 7);
    assert_eq!(sink.rows(), 7);
    // Whoever took the output away finds it not made anew.
    fs::remove_dir_all(subject.output()).unwrap();
    drop(sink);
    subject.sink(Some(&cut));
    assert!(!subject.output().exists());
}

#[test]
fn types_are_those_that_readers_of_parquet_know() {
    let subject = table(&[], 300, 1 << 30);
    let times = TimestampMillisecondArray::from(vec![Some(1_500), None]);
    let decimals = Decimal128Array::from(vec![Some(12_345), None]);
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("at", Arc::new(times), true),
        (
            "price",
            Arc::new(decimals.with_precision_and_scale(10, 2).unwrap()),
            true,
        ),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(1), None])),
            true,
        ),
        ("tags", Arc::new(list), true),
        (
            "text",
            Arc::new(StringViewArray::from(vec!["a", "b"])),
            false,
        ),
    ];
    let columns = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let input = ("views", columns.schema());
    let plan = sink(
        subject.connector(Existing::Refuse),
        &[input.clone(), ("late", input.1)],
    );
    let sink = subject.with(&plan, None);
    let batch = Batch {
        columns: columns.clone(),
        times: vec![0, 0].into(),
        origins: None,
    };
    sink.write(1, &batch).unwrap();
    checkpoint(&sink, true);
    let path = subject.output().join("test-out-0a1b2c3d-000000.parquet");
    let found = read(&path);
    let types: Vec<_> = found
        .schema()
        .fields()
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    assert_eq!(types[0], DataType::Utf8);
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(
        types[1..4],
        [utc, DataType::Decimal128(10, 2), DataType::Date32]
    );
    assert_eq!(types[5], DataType::Utf8);
    assert_eq!(found.column(0).as_string::<i32>().value(1), "late");
    assert!(found.column(1).is_null(1) && found.column(4).is_null(1));
    let tags = found.column(4).as_list::<i32>().value(0);
    assert_eq!(
        tags.as_primitive::<Int64Type>(),
        &Int64Array::from(vec![Some(1), None])
    );
    // What is in the file itself, Arrow's own notes aside.
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mut text = Vec::new();
    let schema = builder.parquet_schema().root_schema();
    ::parquet::schema::printer::print_schema(&mut text, schema);
    let text = String::from_utf8(text).unwrap();
    for part in [
        "REQUIRED BYTE_ARRAY step (STRING)",
        "OPTIONAL INT64 at (TIMESTAMP(MICROS,true))",
        "(DECIMAL(10,2))",
        "OPTIONAL INT32 day (DATE)",
        "tags (LIST)",
        "OPTIONAL INT64 element",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn rows_staged_before_the_pipeline_was_edited_stay_what_they_were() {
    let mut subject = table(&["kind"], 300, 1 << 30);
    let first = subject.sink(None);
    first.write(0, &rows(0..2)).unwrap();
    let cut = checkpoint(&first, false);
    drop(first);
    subject.partition_by = Vec::new();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let other = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let plan = sink(
        subject.connector(Existing::Refuse),
        &[("views", other.schema())],
    );
    let second = subject.with(&plan, Some(&cut));
    assert!(second.is_due());
    let batch = Batch {
        columns: other,
        times: vec![0].into(),
        origins: None,
    };
    second.write(0, &batch).unwrap();
    checkpoint(&second, true);
    let paths: Vec<_> = subject.files().into_keys().collect();
    assert_eq!(
        paths,
        [
            "kind=a%2Fb/test-out-0a1b2c3d-000000.parquet",
            "kind=c/test-out-0a1b2c3d-000000.parquet",
            "test-out-0a1b2c3d-000001.parquet",
        ]
    );
    assert_eq!(subject.staged_files(), 1);
}

#[test]
fn more_partitions_than_files_may_be_open() {
    let subject = table(&["kind"], 300, 1 << 30);
    let sink = subject.sink(None);
    let partitions = limits::PARQUET_OPEN_FILES_MAX + 50;
    let kinds: ArrayRef = Arc::new(
        (0..partitions * 2)
            .map(|n| Some((n % partitions).to_string()))
            .collect::<StringArray>(),
    );
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..partitions as i64 * 2));
    let columns = [("n", n, false), ("kind", kinds, true)];
    let columns = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let batch = Batch {
        times: vec![0; columns.num_rows()].into(),
        columns,
        origins: None,
    };
    sink.write(0, &batch).unwrap();
    checkpoint(&sink, true);
    let files = subject.files();
    assert_eq!(files.len(), partitions);
    assert!(files.values().all(|rows| rows.num_rows() == 2));
}

#[test]
fn a_directory_or_checkpoint_of_somebody_else_is_refused() {
    let subject = table(&[], 300, 1 << 30);
    fs::create_dir_all(subject.output()).unwrap();
    fs::write(subject.output().join("theirs.parquet"), "").unwrap();
    let open = |existing, resume: Option<&Value>| {
        let plan = sink(subject.connector(existing), &[("views", rows([]).schema())]);
        let opened = ParquetSink::open(&plan, subject.place(), resume);
        opened.map(drop).map_err(|e| e.to_string())
    };
    let error = open(Existing::Refuse, None).unwrap_err();
    assert!(
        error.contains("not empty (it has `theirs.parquet`)"),
        "{error}"
    );
    assert_eq!(open(Existing::Append, None), Ok(()));
    let foreign = serde_json::json!({ "length": 3 });
    let error = open(Existing::Append, Some(&foreign)).unwrap_err();
    assert!(error.contains("give the sink another name"), "{error}");
}
