//! Golden bytes of the key encoding, and its properties: round trip, order, one key one encoding.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray, UInt16Array,
};
use arrow::datatypes::TimeUnit;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn array<A: Array + 'static>(array: A) -> ArrayRef {
    Arc::new(array)
}

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn check_golden(column: ArrayRef, expected: &[&str]) {
    let mut encoder = KeyEncoder::new(&[column.data_type().clone()]).unwrap();
    let keys = encoder.encode(std::slice::from_ref(&column), column.len());
    let found: Vec<String> = (0..keys.len()).map(|row| hex(keys.key(row))).collect();
    assert_eq!(found, expected, "{}", column.data_type());
}

#[test]
fn golden_encodings() {
    let strings = vec![Some("u1"), Some(""), None, Some("a\0b")];
    check_golden(
        array(StringArray::from(strings)),
        &["0175310000", "010000", "00", "016100ff620000"],
    );
    check_golden(
        array(BinaryArray::from_vec(vec![b"\xff\x00"])),
        &["01ff00ff0000"],
    );
    check_golden(
        array(Int64Array::from(vec![0, -1, i64::MAX])),
        &[
            "018000000000000000",
            "017fffffffffffffff",
            "01ffffffffffffffff",
        ],
    );
    check_golden(array(Int32Array::from(vec![1])), &["018000000000000001"]);
    check_golden(array(UInt16Array::from(vec![258])), &["010000000000000102"]);
    check_golden(array(Date32Array::from(vec![-1])), &["017fffffffffffffff"]);
    check_golden(
        array(BooleanArray::from(vec![false, true])),
        &["0100", "0101"],
    );
    let other_nan = f64::from_bits(0xfff8_0000_0000_0001);
    check_golden(
        array(Float64Array::from(vec![
            0.0,
            -0.0,
            1.5,
            -1.5,
            f64::NAN,
            other_nan,
        ])),
        &[
            "018000000000000000",
            "018000000000000000",
            "01bff8000000000000",
            "014007ffffffffffff",
            "01fff8000000000000",
            "01fff8000000000000",
        ],
    );
    let decimals = Decimal128Array::from(vec![1, -1]).with_precision_and_scale(10, 2);
    check_golden(
        array(decimals.unwrap()),
        &[
            "0180000000000000000000000000000001",
            "017fffffffffffffffffffffffffffffff",
        ],
    );
    check_golden(
        array(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")),
        &["018000000000000001"],
    );
}

/// Hash and key group decide where a key's state is: they are part of the disk format.
#[test]
fn golden_hashes_and_groups() {
    let mut encoder = KeyEncoder::new(&[DataType::Utf8]).unwrap();
    let column = array(StringArray::from(vec![
        Some("user_1"),
        Some("user_2"),
        None,
    ]));
    let keys = encoder.encode(&[column], 3);
    let hashes: Vec<String> = keys.hashes().iter().map(|h| format!("{h:016x}")).collect();
    assert_eq!(hashes, GOLDEN_HASHES);
    let groups: Vec<u16> = keys.hashes().iter().map(|&h| key_group(h, 128)).collect();
    assert_eq!(groups, GOLDEN_GROUPS);
}
const GOLDEN_HASHES: [&str; 3] = ["83a794caa4568fb4", "03184074e972a0e2", "c44bdff4074eecdb"];
const GOLDEN_GROUPS: [u16; 3] = [52, 98, 91];

#[test]
fn types_that_cannot_be_keys_are_named() {
    let list = DataType::new_list(DataType::Int64, true);
    let error = KeyEncoder::new(&[list]).unwrap_err();
    assert!(error.contains("cannot be a key"), "{error}");
}

#[test]
fn a_key_is_shown_as_json() {
    let columns: Vec<ArrayRef> = vec![
        array(StringArray::from(vec!["a\0é"])),
        array(Int64Array::from(vec![-7])),
        array(TimestampMicrosecondArray::from(vec![1_700_000_000_123_456]).with_timezone("UTC")),
        array(BooleanArray::from(vec![true])),
        array(Float64Array::from(vec![f64::INFINITY])),
        array(BinaryArray::from_vec(vec![b"\xff\x00"])),
        array(Date32Array::from(vec![19_000])),
        array(StringArray::from(vec![None::<&str>])),
    ];
    let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
    let mut encoder = KeyEncoder::new(&types).unwrap();
    let key = encoder.encode(&columns, 1).key(0).to_vec();
    let expected = [
        json!("a\0é"),
        json!(-7),
        json!("2023-11-14T22:13:20.123456Z"),
        json!(true),
        json!(null),
        json!("/wA="),
        json!("2022-01-08"),
        json!(null),
    ];
    assert_eq!(encoder.decode(&key).unwrap(), expected);
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    let mut encoder = KeyEncoder::new(&[DataType::Utf8, DataType::Int64]).unwrap();
    let columns = [
        array(StringArray::from(vec!["a\0b"])),
        array(Int64Array::from(vec![1])),
    ];
    let key = encoder.encode(&columns, 1).key(0).to_vec();
    for len in 0..key.len() {
        assert!(encoder.decode(&key[..len]).is_err(), "cut at {len}");
    }
    let longer = [&key[..], &[0]].concat();
    assert!(encoder.decode(&longer).is_err());
    assert!(encoder.decode(&[2]).is_err());
    assert!(encoder.decode(&[1, 0xff, 0, 0, 0]).is_err(), "not UTF-8");
}

#[test]
fn long_keys_are_found() {
    let long = "x".repeat(KEY_BYTES_MAX);
    let fits = "x".repeat(KEY_BYTES_MAX - 3);
    let mut encoder = KeyEncoder::new(&[DataType::Utf8]).unwrap();
    let column = array(StringArray::from(vec!["a", &long, &fits, "b"]));
    let keys = encoder.encode(&[column], 4);
    assert_eq!(keys.too_long().collect::<Vec<_>>(), [1]);
}

/// A row of key columns: string, int, float, bool, timestamp, bytes.
type Row = (
    Option<String>,
    Option<i64>,
    Option<f64>,
    Option<bool>,
    Option<i64>,
    Option<Vec<u8>>,
);

fn row() -> impl Strategy<Value = Row> {
    let float = prop_oneof![
        any::<f64>(),
        Just(0.0),
        Just(-0.0),
        Just(f64::NAN),
        Just(-f64::NAN),
        Just(f64::NEG_INFINITY)
    ];
    // Few and short values, so that rows are often equal in some columns and one a prefix of the other.
    (
        prop::option::of("[a\0b\u{1}]{0,3}"),
        prop::option::of(prop_oneof![-2i64..2, any::<i64>()]),
        prop::option::of(float),
        any::<Option<bool>>(),
        prop::option::of(-1i64..1),
        prop::option::of(prop::collection::vec(
            prop_oneof![Just(0u8), Just(255), Just(1)],
            0..3,
        )),
    )
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    let times = rows
        .iter()
        .map(|r| r.4)
        .collect::<TimestampMicrosecondArray>();
    vec![
        array(rows.iter().map(|r| r.0.as_deref()).collect::<StringArray>()),
        array(rows.iter().map(|r| r.1).collect::<Int64Array>()),
        array(rows.iter().map(|r| r.2).collect::<Float64Array>()),
        array(rows.iter().map(|r| r.3).collect::<BooleanArray>()),
        array(times.with_timezone("UTC")),
        array(rows.iter().map(|r| r.5.as_deref()).collect::<BinaryArray>()),
    ]
}

/// The order the encoding promises: nulls first, floats with one zero, NaN last.
fn compare(a: &Row, b: &Row) -> Ordering {
    let float = |v: Option<f64>| v.map(|v| if v.is_nan() { f64::NAN } else { v + 0.0 });
    let by_float = match (float(a.2), float(b.2)) {
        (Some(x), Some(y)) => x.total_cmp(&y),
        (x, y) => x.is_some().cmp(&y.is_some()),
    };
    (a.0.as_ref()
        .map(String::as_bytes)
        .cmp(&b.0.as_ref().map(String::as_bytes)))
    .then(a.1.cmp(&b.1))
    .then(by_float)
    .then(a.3.cmp(&b.3))
    .then(a.4.cmp(&b.4))
    .then(a.5.cmp(&b.5))
}

fn encoder() -> KeyEncoder {
    use DataType::*;
    KeyEncoder::new(&[Utf8, Int64, Float64, Boolean, utc(), Binary]).unwrap()
}

proptest! {
    /// Bytes order as rows do; in particular they are equal exactly if the rows are, wherever the columns' boundaries lie.
    #[test]
    fn order_and_equality(rows in prop::collection::vec(row(), 2..12)) {
        let mut encoder = encoder();
        let keys = encoder.encode(&columns(&rows), rows.len());
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate() {
                prop_assert_eq!(keys.key(i).cmp(keys.key(j)), compare(a, b), "{:?} {:?}", a, b);
            }
        }
    }

    #[test]
    fn round_trip(rows in prop::collection::vec(row(), 1..12)) {
        let mut encoder = encoder();
        let columns = columns(&rows);
        let keys = encoder.encode(&columns, rows.len());
        let keys: Vec<Vec<u8>> = (0..rows.len()).map(|row| keys.key(row).to_vec()).collect();
        let decoded = encoder.decode_columns(keys.iter().map(Vec::as_slice)).unwrap();
        for (i, (found, expected)) in decoded.iter().zip(&columns).enumerate() {
            if i != 2 {
                prop_assert_eq!(found, expected);
            }
        }
        // Floats come back as one zero and one NaN: encoded anew they are the same keys.
        let again = encoder.encode(&decoded, rows.len());
        for (row, key) in keys.iter().enumerate() {
            prop_assert_eq!(again.key(row), key.as_slice());
        }
    }

    /// The path for one string column gives what the general path gives.
    #[test]
    fn one_string_column(values in prop::collection::vec(prop::option::of("[a\0b]{0,4}"), 0..20), skip in 0usize..5) {
        let skip = skip.min(values.len());
        let column = array(values.iter().map(Option::as_deref).collect::<StringArray>());
        let column = column.slice(skip, values.len() - skip);
        let mut encoder = KeyEncoder::new(&[DataType::Utf8]).unwrap();
        let keys = encoder.encode(std::slice::from_ref(&column), column.len());
        for row in 0..column.len() {
            let mut expected = Vec::new();
            View::new(Kind::Bytes, &KeyColumn::new(&DataType::Utf8).unwrap().stored(&column)).push(row, &mut expected);
            prop_assert_eq!(keys.key(row), expected.as_slice());
            prop_assert_eq!(keys.hash(row), key_hash(&expected));
        }
    }
}
