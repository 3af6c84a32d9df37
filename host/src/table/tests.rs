//! Loading, probing and reloading tables.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use tempfile::TempDir;

use super::*;
use crate::pipeline::plan::Format;
use crate::plugin::Tables;

struct File {
    dir: TempDir,
    plan: plan::Table,
}

impl File {
    /// A table `t` with the columns `id` (of `key`), `price` and `name`, which may be null.
    fn new(format: Format, key: DataType, content: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let schema = Schema::new(vec![
            Field::new("id", key, true),
            Field::new("price", DataType::Float64, false),
            Field::new("name", DataType::Utf8, true),
        ]);
        let plan = plan::Table {
            name: "t".into(),
            connector: TableConnector::File {
                path: dir.path().join("t.data"),
            },
            format,
            key: 0,
            paths: schema
                .fields()
                .iter()
                .map(|f| vec![f.name().clone()])
                .collect(),
            schema: Arc::new(schema),
        };
        let file = Self { dir, plan };
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        fs::write(self.path(), content).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("t.data")
    }

    fn load(&self) -> Result<Arc<TableSet>, ConnectorError> {
        TableSet::load(std::slice::from_ref(&self.plan))
    }

    /// The error of loading, without the directory.
    fn error(&self) -> String {
        let error = self.load().unwrap_err().to_string();
        error.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn texts(keys: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(keys.to_vec()))
}

fn prices(tables: &TableSet, keys: &ArrayRef) -> Vec<Option<f64>> {
    let found = tables.get(0, keys, &["price".to_string()]).unwrap();
    found[0].as_primitive::<Float64Type>().iter().collect()
}

#[test]
fn csv_is_found_by_text_and_the_last_of_a_key_wins() {
    let file = File::new(
        Format::Csv,
        DataType::Utf8,
        "name,id,price,other\nA,a,1.5,x\n\"B, b\",b,2,y\n,a,3,z\n",
    );
    let tables = file.load().unwrap();
    let keys = texts(&[Some("b"), Some("a"), None, Some("c"), Some("")]);
    assert_eq!(
        prices(&tables, &keys),
        [Some(2.0), Some(3.0), None, None, None]
    );
    let columns = ["name".to_string(), "id".to_string()];
    let found = tables.get(0, &keys, &columns).unwrap();
    let names: Vec<_> = found[0].as_string::<i32>().iter().collect();
    assert_eq!(names, [Some("B, b"), None, None, None, None]);
    assert_eq!(found[1].null_count(), 3);
}

#[test]
fn json_lines_are_found_by_number() {
    let file = File::new(
        Format::Json,
        DataType::Int64,
        "{\"id\":7,\"price\":1,\"name\":null}\n\n{\"price\":2.5,\"id\":-1}\n",
    );
    let tables = file.load().unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), Some(7), None, Some(0)]));
    assert_eq!(prices(&tables, &keys), [Some(2.5), Some(1.0), None, None]);
}

#[test]
fn compressed_and_parquet_files_are_tables_too() {
    use crate::format::compression::tests::{gzip, zstd};
    let lines = "{\"id\":7,\"price\":1}\n{\"id\":-1,\"price\":2.5}\n";
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), Some(7), None, Some(0)]));
    let found = [Some(2.5), Some(1.0), None, None];
    type Pack = fn(&[u8]) -> Vec<u8>;
    for (name, pack) in [("t.jsonl.gz", gzip as Pack), ("t.jsonl.zst", zstd as Pack)] {
        let mut file = File::new(Format::Json, DataType::Int64, "");
        let path = file.dir.path().join(name);
        file.plan.connector = TableConnector::File { path: path.clone() };
        fs::write(&path, pack(lines.as_bytes())).unwrap();
        let tables = file.load().unwrap();
        assert_eq!(prices(&tables, &keys), found);
        // Broken, then mended: the old rows stay until then.
        fs::write(&path, &pack(lines.as_bytes())[..20]).unwrap();
        let broken = tables.reload_changed();
        assert!(
            broken.errors[0].to_string().contains("cut off"),
            "{:?}",
            broken.errors
        );
        assert_eq!(prices(&tables, &keys), found);
        fs::write(&path, pack(b"{\"id\":7,\"price\":30}\n")).unwrap();
        assert_eq!(tables.reload_changed().changed, ["t"]);
        assert_eq!(prices(&tables, &keys), [None, Some(30.0), None, None]);
    }

    let mut file = File::new(Format::Parquet, DataType::Int64, "");
    let path = file.dir.path().join("t.parquet");
    file.plan.connector = TableConnector::File { path: path.clone() };
    let write = |ids: Vec<Option<i64>>| {
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "price",
                Arc::new(arrow::array::Float32Array::from(vec![2.5, 1.0])),
            ),
            ("id", Arc::new(Int64Array::from(ids))),
            ("name", Arc::new(StringArray::from(vec![None, Some("x")]))),
        ];
        crate::format::parquet::tests::write(&path, columns, 1);
    };
    write(vec![Some(-1), Some(7)]);
    let tables = file.load().unwrap();
    assert_eq!(prices(&tables, &keys), found);
    write(vec![Some(1), None]);
    let error = file.error();
    assert!(error.contains("row 2: the key `id` is null"), "{error}");
    fs::write(&path, "no parquet").unwrap();
    assert!(
        file.error()
            .contains("table t: t.parquet: not a Parquet file"),
        "{}",
        file.error()
    );
}

#[test]
fn errors_name_table_file_line_and_column() {
    let check = |format, content: &str, parts: &[&str]| {
        let error = File::new(format, DataType::Utf8, content).error();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    };
    check(
        Format::Csv,
        "id,price,name\na,1,A\nb,x,B\n",
        &["table t", "t.data", "line 3", "price"],
    );
    check(Format::Csv, "id,price,name\n,1,A\n", &["line 2", "id"]);
    check(Format::Csv, "id,name\na,A\n", &["line 1", "price"]);
    check(Format::Csv, "", &["table t", "empty"]);
    check(
        Format::Json,
        "{\"id\":\"a\",\"price\":1}\n{\"id\":null,\"price\":1}\n",
        &["line 2", "id"],
    );
    check(
        Format::Json,
        "{\"id\":\"a\",\"price\":\"1\"}\n",
        &["line 1", "price"],
    );
}

#[test]
fn a_missing_file_and_a_key_of_a_wrong_type_are_refused() {
    let file = File::new(Format::Csv, DataType::Utf8, "");
    fs::remove_file(file.path()).unwrap();
    assert!(file.error().starts_with("t.data: "), "{}", file.error());
    let file = File::new(Format::Csv, DataType::Float64, "id,price,name\n1,1,A\n");
    assert!(
        file.error()
            .ends_with("the key `id` is float; a key is string or int")
    );
}

#[test]
fn a_changed_file_is_read_again_and_a_broken_one_told_once() {
    let file = File::new(Format::Csv, DataType::Utf8, "id,price,name\na,1,A\n");
    let tables = file.load().unwrap();
    let key = texts(&[Some("a")]);
    let old = tables.snapshot(0);

    let nothing = tables.reload_changed();
    assert!(nothing.changed.is_empty() && nothing.errors.is_empty());

    file.write("id,price,name\na,20,A\n");
    assert_eq!(tables.reload_changed().changed, ["t"]);
    assert_eq!(prices(&tables, &key), [Some(20.0)]);
    assert_eq!(
        old.rows().column(1).as_primitive::<Float64Type>().value(0),
        1.0
    );

    file.write("id,price,name\na,broken,A\n");
    let broken = tables.reload_changed();
    assert!(broken.changed.is_empty());
    assert!(broken.errors[0].to_string().contains("line 2"));
    assert!(tables.reload_changed().errors.is_empty());
    assert_eq!(prices(&tables, &key), [Some(20.0)]);

    // Replaced by a file of the same length: another inode.
    let other = file.dir.path().join("other");
    fs::write(&other, "id,price,name\na,300000,A\n").unwrap();
    fs::rename(&other, file.path()).unwrap();
    assert_eq!(tables.reload_changed().changed, ["t"]);
    assert_eq!(prices(&tables, &key), [Some(300_000.0)]);
}

#[test]
fn plugins_get_clear_answers() {
    let file = File::new(Format::Csv, DataType::Utf8, "id,price,name\na,1,A\n");
    let tables = file.load().unwrap();
    assert_eq!(tables.table("t"), Ok(0));
    assert_eq!(
        tables.table("u").unwrap_err(),
        "the pipeline has no table `u`; its tables: t"
    );
    let key = texts(&[Some("a")]);
    assert_eq!(
        tables.get(0, &key, &["cost".to_string()]).unwrap_err(),
        "table `t` has no column `cost`; it has id, price, name"
    );
    assert!(tables.get(1, &key, &[]).is_err());
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(
        tables
            .get(0, &number, &[])
            .unwrap_err()
            .contains("looked up with int")
    );
}

/// Against a map filled in the order of the file.
#[test]
fn any_keys_are_found_as_in_a_map() {
    use proptest::prelude::*;
    let row = ("[ab]{0,3}", -5.0..5.0f64);
    let probes = proptest::collection::vec(proptest::option::of("[ab]{0,3}"), 0..40);
    proptest!(|(rows in proptest::collection::vec(row, 0..60), probes in probes)| {
        let fields = vec![Field::new("id", DataType::Utf8, false), Field::new("price", DataType::Float64, false)];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|(key, _)| Some(key.as_str())).collect::<StringArray>()),
            Arc::new(rows.iter().map(|(_, price)| Some(*price)).collect::<arrow::array::Float64Array>()),
        ];
        let batch = arrow::array::RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let map: std::collections::HashMap<_, _> = rows.iter().cloned().collect();
        let snapshot = Snapshot::new("t", batch, 0).unwrap();
        let keys: ArrayRef = Arc::new(probes.iter().map(|p| p.as_deref()).collect::<StringArray>());
        let found = snapshot.gather(1, &snapshot.probe(&keys).unwrap());
        let found: Vec<_> = found.as_primitive::<Float64Type>().iter().collect();
        let expected: Vec<_> = probes.iter().map(|p| map.get(p.as_ref()?).copied()).collect();
        prop_assert_eq!(found, expected);
    });
}

/// A topic whose records the test puts in; an error once it is told to fail.
#[derive(Default)]
struct Topic {
    records: Vec<(&'static str, Option<&'static str>)>,
    opened: usize,
    fail: bool,
}

struct FakeLog {
    topic: Arc<Mutex<Topic>>,
    next: usize,
    first_end: usize,
}

impl Changelog for FakeLog {
    fn poll(
        &mut self,
        wait: Duration,
        each: &mut dyn FnMut(Change<'_>),
    ) -> Result<(), ConnectorError> {
        let records: Vec<_> = {
            let topic = self.topic.lock().unwrap();
            if topic.fail {
                return Err(ConnectorError::failed("topic t", "gone"));
            }
            topic
                .records
                .iter()
                .skip(self.next)
                .take(2)
                .copied()
                .collect()
        };
        if records.is_empty() {
            std::thread::sleep(wait.min(Duration::from_millis(1)));
        }
        for (key, value) in records {
            each(Change {
                key: Some(key.as_bytes()),
                value: value.map(str::as_bytes),
                partition: 0,
                offset: self.next as i64,
            });
            self.next += 1;
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.next >= self.first_end
    }
}

#[test]
fn a_topic_is_read_to_its_end_then_followed_and_keeps_its_rows_when_it_fails() {
    let topic = Arc::new(Mutex::new(Topic::default()));
    topic.lock().unwrap().records = vec![
        ("1", Some("{\"id\":\"a\",\"price\":1}")),
        ("2", Some("{\"id\":\"b\",\"price\":2}")),
        ("2", Some("{\"id\":\"b\",\"price\":\"x\"}")),
        ("3", Some("{\"id\":\"c\",\"price\":3}")),
        ("1", None),
    ];
    let of = topic.clone();
    let connect: Arc<Connect> = Arc::new(move |_, _| {
        let mut topic = of.lock().unwrap();
        topic.opened += 1;
        Ok(Box::new(FakeLog {
            first_end: topic.records.len(),
            topic: of.clone(),
            next: 0,
        }))
    });
    let mut plan = File::new(Format::Json, DataType::Utf8, "").plan;
    let cluster = plan::Cluster {
        brokers: plan::Brokers::Embedded,
        properties: Default::default(),
    };
    let topic_name = "t".into();
    plan.connector = TableConnector::Kafka {
        cluster,
        topic: topic_name,
    };
    let tables = TableSet::open(&[plan], &connect, &|| false).unwrap();
    let keys = texts(&[Some("a"), Some("b"), Some("c"), None]);
    assert_eq!(prices(&tables, &keys), [None, Some(2.0), Some(3.0), None]);
    assert_eq!(tables.counts(), [("t", 2, 1)]);
    assert!(tables.reload_changed().changed.is_empty(), "no file");

    topic
        .lock()
        .unwrap()
        .records
        .push(("2", Some("{\"id\":\"b\",\"price\":20}")));
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while prices(&tables, &keys)[1] != Some(20.0) {
        assert!(std::time::Instant::now() < until, "followed");
        std::thread::yield_now();
    }
    topic.lock().unwrap().fail = true;
    assert_eq!(prices(&tables, &keys), [None, Some(20.0), Some(3.0), None]);
    drop(tables);
    assert_eq!(topic.lock().unwrap().opened, 1);
}
