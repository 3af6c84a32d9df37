//! Files of many types against the fields they are read into.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, Date64Array, Decimal128Array, DictionaryArray, Float32Array,
    Int16Array, Int32Array, Int64Array, StringArray, StringViewArray, StructArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int32Type, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::format::encode::row_json;

/// Writes `columns` with `group` rows in a row group.
pub(crate) fn write(path: &Path, columns: Vec<(&str, ArrayRef)>, group: usize) {
    let field =
        |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    let rows = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema(fields: &[(&str, DataType, bool)]) -> (SchemaRef, Vec<Vec<String>>) {
    let arrow = fields
        .iter()
        .map(|(name, ty, null)| Field::new(name.rsplit('.').next().unwrap(), ty.clone(), *null));
    let paths = fields
        .iter()
        .map(|(name, ..)| name.split('.').map(str::to_owned).collect());
    (
        Arc::new(Schema::new(arrow.collect::<Vec<_>>())),
        paths.collect(),
    )
}

fn open(
    columns: Vec<(&str, ArrayRef)>,
    group: usize,
    fields: &[(&str, DataType, bool)],
) -> Result<ParquetFile, Unreadable> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    write(&path, columns, group);
    let (schema, paths) = schema(fields);
    ParquetFile::open(File::open(&path).unwrap(), &schema, &paths)
}

/// Each row as JSON or, after `!`, why it is refused, from row `from` on, `max` at once.
fn rows(file: &ParquetFile, from: i64, max: usize) -> Vec<String> {
    let mut found = HashMap::new();
    let mut rows = file.read(from).unwrap();
    let mut next = from;
    while let Some(piece) = rows.next(max).unwrap() {
        assert!(piece.next - next <= max as i64 && piece.next > next);
        next = piece.next;
        for (i, number) in piece.numbers.iter().enumerate() {
            found.insert(*number, row_json(&piece.rows, i));
        }
        for row in piece.refused {
            found.insert(row.number, format!("!{}", row.reason));
        }
    }
    assert_eq!(next, file.rows());
    (from + 1..=next)
        .map(|n| found.remove(&n).unwrap())
        .collect()
}

#[test]
fn types_are_widened_and_times_are_micros() {
    let struct_of = |name: &str, column: ArrayRef| -> ArrayRef {
        let field = Field::new(name, column.data_type().clone(), true);
        Arc::new(StructArray::new(
            vec![field].into(),
            vec![column],
            Some(vec![true, false].into()),
        ))
    };
    let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None].into_iter().collect();
    let money = Decimal128Array::from(vec![150, -25])
        .with_precision_and_scale(8, 2)
        .unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int32Array::from(vec![Some(-7), None]))),
        ("u", Arc::new(UInt64Array::from(vec![1, u64::MAX]))),
        ("f", Arc::new(Float32Array::from(vec![0.5, 2.0]))),
        ("whole", Arc::new(Int16Array::from(vec![3, 4]))),
        ("dict", Arc::new(dictionary)),
        (
            "view",
            Arc::new(StringViewArray::from(vec![
                "long enough to be out of line",
                "",
            ])),
        ),
        (
            "bytes",
            Arc::new(BinaryViewArray::from(vec![b"\x00\xff".as_slice(), b""])),
        ),
        (
            "ms",
            Arc::new(TimestampMillisecondArray::from(vec![1_500, -1])),
        ),
        (
            "ns",
            Arc::new(TimestampNanosecondArray::from(vec![1_999, -1]).with_timezone("+02:00")),
        ),
        ("day", Arc::new(Date64Array::from(vec![86_400_000, 0]))),
        ("money", Arc::new(money)),
        (
            "address",
            struct_of("city", Arc::new(StringArray::from(vec!["Ulm", "hidden"]))),
        ),
        ("a.b", Arc::new(Int64Array::from(vec![1, 2]))),
    ];
    let fields = [
        ("i", DataType::Int64, true),
        ("f", DataType::Float64, false),
        ("whole", DataType::Float64, false),
        ("dict", DataType::Utf8, true),
        ("view", DataType::Utf8, false),
        ("bytes", DataType::Binary, false),
        ("ms", time(), false),
        ("ns", time(), false),
        ("day", DataType::Date32, false),
        ("money", DataType::Decimal128(12, 3), false),
        ("address.city", DataType::Utf8, true),
        ("a.b", DataType::Int64, false),
    ];
    let file = open(columns.clone(), 10, &fields).unwrap();
    assert_eq!(
        rows(&file, 0, 100),
        [
            r#"{"i":-7,"f":0.5,"whole":3.0,"dict":"x","view":"long enough to be out of line","bytes":"AP8=","ms":"1970-01-01T00:00:01.500Z","ns":"1970-01-01T00:00:00.000001Z","day":"1970-01-02","money":1.500,"city":"Ulm","b":1}"#,
            r#"{"i":null,"f":2.0,"whole":4.0,"dict":null,"view":"","bytes":"","ms":"1969-12-31T23:59:59.999Z","ns":"1969-12-31T23:59:59.999999Z","day":"1970-01-01","money":-0.250,"city":null,"b":2}"#,
        ]
    );
    let strict = [
        ("i", DataType::Int64, false),
        ("u", DataType::Int64, true),
        ("money", DataType::Decimal128(3, 2), false),
    ];
    let file = open(columns, 10, &strict).unwrap();
    let found = rows(&file, 0, 100);
    assert_eq!(found[0], r#"{"i":-7,"u":1,"money":1.50}"#);
    assert!(
        found[1].starts_with("!field `i`: expected a value of type int, found null"),
        "{}",
        found[1]
    );
}

#[test]
fn values_that_do_not_fit_refuse_their_row() {
    let seconds = TimestampSecondArray::from(vec![0, i64::MAX, 1]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("u", Arc::new(UInt64Array::from(vec![1, 2, u64::MAX]))),
        ("at", Arc::new(seconds)),
    ];
    let fields = [("u", DataType::Int64, true), ("at", time(), true)];
    let found = rows(&open(columns, 10, &fields).unwrap(), 0, 2);
    assert_eq!(found[0], r#"{"u":1,"at":"1970-01-01T00:00:00Z"}"#);
    assert_eq!(
        found[1],
        "!field `at`: the value does not fit into the type timestamp"
    );
    assert_eq!(
        found[2],
        "!field `u`: the value does not fit into the type int"
    );
}

#[test]
fn reading_goes_on_at_any_row() {
    let column = || {
        vec![(
            "n",
            Arc::new(Int64Array::from_iter_values(0..100)) as ArrayRef,
        )]
    };
    let fields = [("n", DataType::Int64, false)];
    for group in [7, 50, 1_000] {
        let file = open(column(), group, &fields).unwrap();
        assert_eq!(file.rows(), 100);
        for from in [0, 1, 6, 7, 8, 49, 50, 99, 100] {
            let expected: Vec<_> = (from..100).map(|n| format!("{{\"n\":{n}}}")).collect();
            assert_eq!(
                rows(&file, from, 13),
                expected,
                "group {group}, from {from}"
            );
        }
    }
    let none = open(
        vec![("n", Arc::new(Int64Array::from(Vec::<i64>::new())))],
        5,
        &fields,
    )
    .unwrap();
    assert!(rows(&none, 0, 5).is_empty());
}

#[test]
fn fields_that_the_file_cannot_fill_are_named() {
    let columns = || -> Vec<(&str, ArrayRef)> {
        vec![
            ("id", Arc::new(StringArray::from(vec!["a"]))),
            ("n", Arc::new(Int64Array::from(vec![1]))),
            ("at", Arc::new(TimestampSecondArray::from(vec![1]))),
        ]
    };
    let fields = [
        ("id", DataType::Int64, false),
        ("nn", DataType::Int64, true),
        ("n", DataType::Utf8, false),
        ("at", DataType::Date32, false),
        ("n.x", DataType::Int64, false),
    ];
    let Err(Unreadable::Fields(wrong)) = open(columns(), 5, &fields) else {
        panic!("accepted");
    };
    let expected = [
        (
            0,
            "column `id` of the file is string, which a field of type int cannot hold",
        ),
        (1, "the file has no column `nn`; it has `id`, `n`, `at`"),
        (
            2,
            "column `n` of the file is int, which a field of type string cannot hold",
        ),
        (
            3,
            "column `at` of the file is timestamp, which a field of type date cannot hold",
        ),
        (4, "the file has no column `n.x`; it has `id`, `n`, `at`"),
    ];
    assert_eq!(wrong, expected.map(|(i, why)| (i, why.to_owned())));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let (schema, paths) = schema(&[("id", DataType::Utf8, false)]);
    for content in [
        &b""[..],
        b"PAR1",
        b"not parquet at all, but long enough",
        b"PAR1aaaaaaaaPAR1",
    ] {
        std::fs::write(&path, content).unwrap();
        let opened = ParquetFile::open(File::open(&path).unwrap(), &schema, &paths);
        assert!(matches!(opened, Err(Unreadable::File(_))));
    }
    // Damaged pages are an error where they are read.
    write(&path, columns(), 5);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4..40].fill(0xee);
    std::fs::write(&path, bytes).unwrap();
    if let Ok(file) = ParquetFile::open(File::open(&path).unwrap(), &schema, &paths) {
        assert!(
            file.read(0)
                .and_then(|mut rows| rows.next(10).map(|_| ()))
                .is_err()
        );
    }
}
