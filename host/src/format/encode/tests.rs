//! What is written, read back by serde_json and by our own decoder.

use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int32Array, Int64Array, ListArray, ListBuilder, StringArray, StringBuilder, StringViewArray,
    TimestampMicrosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Schema};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::format::Decoder as _;
use crate::format::json::JsonDecoder;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field =
        |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(
        Arc::new(schema),
        columns.into_iter().map(|(_, c)| c).collect(),
    )
    .unwrap()
}

#[test]
fn writes_every_type() {
    let utc = |array: TimestampMicrosecondArray| array.with_timezone("UTC");
    let rows = batch(vec![
        (
            "s",
            Arc::new(StringArray::from(vec![
                Some("a\"\\\u{1}\u{8}\u{c}\n\r\t\u{7f}/é😀"),
                None,
            ])),
        ),
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("f", Arc::new(Float64Array::from(vec![Some(0.1), None]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(false), None]))),
        (
            "t",
            Arc::new(utc(TimestampMicrosecondArray::from(vec![
                Some(1_000),
                None,
            ]))),
        ),
        (
            "y",
            Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\xff\x00"), None])),
        ),
        ("na\"me", Arc::new(Int64Array::from(vec![1, 2]))),
    ]);
    assert_eq!(
        row_json(&rows, 0),
        "{\"s\":\"a\\\"\\\\\\u0001\\b\\f\\n\\r\\t\u{7f}/é😀\",\"i\":-9223372036854775808,\"f\":0.1,\"b\":false,\
         \"t\":\"1970-01-01T00:00:00.001Z\",\"y\":\"/wA=\",\"na\\\"me\":1}"
    );
    assert_eq!(
        row_json(&rows, 1),
        r#"{"s":null,"i":null,"f":null,"b":null,"t":null,"y":null,"na\"me":2}"#
    );
}

#[test]
fn lists_are_arrays_of_values() {
    let texts = vec![Some(vec![Some("a\"b"), None]), None, Some(vec![])];
    let mut builder = ListBuilder::new(StringBuilder::new());
    texts.into_iter().for_each(|row| builder.append_option(row));
    let floats = vec![Some(vec![Some(0.5), Some(f64::NAN)]), Some(vec![Some(1.0)])];
    let floats = ListArray::from_iter_primitive::<Float64Type, _, _>(floats);
    let times = TimestampMicrosecondArray::from(vec![0, 1_000_000]).with_timezone("UTC");
    let field = Arc::new(Field::new_list_field(times.data_type().clone(), true));
    let ends = OffsetBuffer::from_lengths([1, 1, 0]);
    let times: ArrayRef = Arc::new(ListArray::new(field, ends, Arc::new(times), None));
    let rows = batch(vec![("s", Arc::new(builder.finish())), ("t", times)]);
    assert_eq!(
        row_json(&rows, 0),
        r#"{"s":["a\"b",null],"t":["1970-01-01T00:00:00Z"]}"#
    );
    assert_eq!(
        row_json(&rows, 1),
        r#"{"s":null,"t":["1970-01-01T00:00:01Z"]}"#
    );
    // A slice starts in the middle of its values.
    assert_eq!(row_json(&rows.slice(2, 1), 0), r#"{"s":[],"t":[]}"#);
    let rows = batch(vec![("f", Arc::new(floats))]).slice(1, 1);
    assert_eq!(row_json(&rows, 0), r#"{"f":[1.0]}"#);
}

#[test]
fn floats_keep_their_value_and_only_numbers_are_numbers() {
    let floats = [
        1.0,
        -0.0,
        1e300,
        5e-324,
        f64::MAX,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    let rows = batch(vec![("f", Arc::new(Float64Array::from(floats.to_vec())))]);
    for (row, float) in floats.iter().enumerate() {
        let text = row_json(&rows, row);
        let number = text
            .strip_prefix("{\"f\":")
            .unwrap()
            .strip_suffix('}')
            .unwrap();
        if float.is_finite() {
            assert_eq!(
                number.parse::<f64>().unwrap().to_bits(),
                float.to_bits(),
                "{text}"
            );
            assert!(number.contains(['.', 'e']), "{text} should read as a float");
        } else {
            assert_eq!(number, "null");
        }
    }
}

#[test]
fn writes_types_that_only_expressions_make() {
    let decimal = Decimal128Array::from(vec![1234])
        .with_precision_and_scale(10, 2)
        .unwrap();
    let rows = batch(vec![
        ("i32", Arc::new(Int32Array::from(vec![-1]))),
        ("u64", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("f32", Arc::new(Float32Array::from(vec![0.5]))),
        ("view", Arc::new(StringViewArray::from(vec!["x\n"]))),
        ("seconds", Arc::new(TimestampSecondArray::from(vec![1]))),
        ("date", Arc::new(Date32Array::from(vec![1]))),
        ("decimal", Arc::new(decimal)),
        ("null", Arc::new(arrow::array::NullArray::new(1))),
    ]);
    assert_eq!(
        row_json(&rows, 0),
        r#"{"i32":-1,"u64":18446744073709551615,"f32":0.5,"view":"x\n","seconds":"1970-01-01T00:00:01Z","date":"1970-01-02","decimal":12.34,"null":null}"#
    );
}

#[test]
fn ends_and_lines_and_a_leading_member() {
    let rows = batch(vec![("i", Arc::new(Int64Array::from(vec![1, 22, 3])))]);
    let (mut out, mut ends) = (b"before".to_vec(), Vec::new());
    RowWriter::new(&rows.schema()).write(&rows.slice(1, 2), &mut out, &mut ends);
    assert_eq!(
        (&out[..], &ends[..]),
        (&b"before{\"i\":22}{\"i\":3}"[..], &[14, 21][..])
    );
    let writer = RowWriter::with_leading(&rows.schema(), "step", "a.\"late\"");
    let mut lines = Vec::new();
    writer.write_lines(&rows.slice(0, 1), &mut lines);
    assert_eq!(lines, b"{\"step\":\"a.\\\"late\\\"\",\"i\":1}\n");
    let empty = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(1)),
    );
    assert_eq!(row_json(&empty.unwrap(), 0), "{}");
}

proptest! {
    /// Written, then read by our decoder: the same columns; read by serde_json: the same strings.
    #[test]
    fn reads_back_what_it_wrote(rows in prop::collection::vec((
        prop::option::of(any::<String>()),
        prop::option::of(any::<i64>()),
        prop::option::of(any::<f64>().prop_filter("finite", |f| f.is_finite())),
        prop::option::of(any::<bool>()),
        prop::option::of(-62_167_219_200_000_000i64..=253_402_300_799_999_999),
        prop::option::of(any::<Vec<u8>>()),
    ), 1..20)) {
        let bytes: Vec<Option<&[u8]>> = rows.iter().map(|r| r.5.as_deref()).collect();
        let times: TimestampMicrosecondArray = rows.iter().map(|r| r.4).collect();
        let written = batch(vec![
            ("s", Arc::new(rows.iter().map(|r| r.0.clone()).collect::<StringArray>())),
            ("i", Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>())),
            ("f", Arc::new(rows.iter().map(|r| r.2).collect::<Float64Array>())),
            ("b", Arc::new(rows.iter().map(|r| r.3).collect::<BooleanArray>())),
            ("t", Arc::new(times.with_timezone("UTC"))),
            ("y", Arc::new(BinaryArray::from_opt_vec(bytes))),
        ]);
        let schema = written.schema();
        let paths: Vec<_> = schema.fields().iter().map(|f| vec![f.name().clone()]).collect();
        let mut decoder = JsonDecoder::new(&schema, &paths, None).unwrap();
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        RowWriter::new(&schema).write(&written, &mut out, &mut ends);
        let mut start = 0;
        for (row, end) in rows.iter().zip(ends) {
            let text = &out[start..end];
            let tree: Value = serde_json::from_slice(text).unwrap();
            prop_assert_eq!(tree["s"].as_str(), row.0.as_deref());
            decoder.push(text).map_err(TestCaseError::fail)?;
            start = end;
        }
        prop_assert_eq!(start, out.len());
        prop_assert_eq!(decoder.finish(), written);
    }
}
