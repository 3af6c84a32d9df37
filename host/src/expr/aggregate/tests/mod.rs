//! Tables of aggregates, rows and results; mistakes; and the property that partial results may be cut anywhere.

mod mistakes;
mod pieces;
mod values;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::util::display::array_value_to_string;

use super::*;
use crate::batch::Batch;

/// Of any one type, as columns of a pipeline.
fn batch(columns: Vec<(&str, ArrayRef)>) -> Batch {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    let columns = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    Batch {
        times: (0..columns.num_rows() as i64).collect(),
        columns,
        origins: None,
    }
}

/// Six rows; those of group 0 are 0, 2 and 4, those of group 1 are 1, 3 and 5.
fn rows() -> Batch {
    let x: Int64Array = vec![Some(1), Some(2), None, Some(4), Some(2), Some(i64::MAX)].into();
    let f: Float64Array = vec![
        Some(1.5),
        None,
        Some(f64::NAN),
        Some(-2.0),
        Some(8.0),
        Some(0.0),
    ]
    .into();
    let t: StringArray = vec![Some("b"), Some("a"), Some("b"), None, Some("c"), Some("")].into();
    let b: BooleanArray = vec![Some(true), Some(false), None, None, Some(true), Some(true)].into();
    let time: TimestampMicrosecondArray = vec![5_000_000, 4_000_000, 5_000_000, 2, 1, 0].into();
    let bytes: BinaryArray = vec![
        Some(&b"\xff"[..]),
        Some(b""),
        None,
        Some(b""),
        Some(b"\xff"),
        None,
    ]
    .into();
    let price: Decimal128Array =
        vec![Some(150), Some(-1), Some(5), None, Some(1), Some(99_999)].into();
    let huge = 10_i128.pow(37) * 9;
    let huge: Decimal128Array = vec![huge, huge, huge, huge, -huge, huge].into();
    let day: Date32Array = vec![Some(1), Some(0), Some(1), None, None, Some(-1)].into();
    let none: Int64Array = vec![None; 6].into();
    batch(vec![
        ("x", Arc::new(x)),
        ("f", Arc::new(f)),
        ("t", Arc::new(t)),
        ("b", Arc::new(b)),
        ("time", Arc::new(time.with_timezone("UTC"))),
        ("bytes", Arc::new(bytes)),
        (
            "price",
            Arc::new(price.with_precision_and_scale(10, 2).unwrap()),
        ),
        (
            "huge",
            Arc::new(huge.with_precision_and_scale(38, 0).unwrap()),
        ),
        ("day", Arc::new(day)),
        ("none", Arc::new(none)),
        ("Mixed", Arc::new(Int64Array::from(vec![7, 1, 7, 1, 7, 1]))),
    ])
}

fn compiled(sql: &str) -> Aggregation {
    Aggregation::compile(&[("r".to_string(), sql.to_string())], &rows().schema())
        .unwrap_or_else(|errors| panic!("{}", errors[0].1.picture(sql)))
}

/// Results by group as text, `null` for null and `!` for a refused group.
fn results(accumulators: &mut Accumulators, groups: usize) -> Vec<String> {
    let mut refused = Vec::new();
    let (out, kept) = accumulators.evaluate(&mut refused).unwrap();
    let mut texts = vec!["!".to_string(); groups];
    for row in 0..out.num_rows() {
        let group = kept.as_ref().map_or(row, |kept| kept[row] as usize);
        texts[group] = text(out.column(0), row);
    }
    assert_eq!(out.num_rows() + refused.len(), groups);
    assert!(refused.is_sorted_by_key(|(group, _)| *group));
    texts
}

fn text(column: &ArrayRef, row: usize) -> String {
    match column.is_null(row) {
        true => "null".into(),
        false => array_value_to_string(column, row).unwrap(),
    }
}

/// The results of both groups and their type.
#[track_caller]
fn check(sql: &str, expected: [&str; 2], kind: &str) {
    let aggregation = compiled(sql);
    let mut accumulators = aggregation.accumulators();
    let mut refused = Vec::new();
    let (inputs, kept) = aggregation.inputs(&rows(), &mut refused);
    assert!(refused.is_empty() && kept.is_none(), "{sql}: {refused:?}");
    accumulators
        .update(&inputs, &[0, 1, 0, 1, 0, 1], 2)
        .unwrap();
    assert_eq!(results(&mut accumulators, 2), expected, "{sql}");
    let schema = aggregation.schema();
    let (field, shown) = (
        schema.field(0),
        words::type_name(schema.field(0).data_type()),
    );
    assert_eq!(
        (field.name().as_str(), shown.as_str()),
        ("r", kind),
        "{sql}"
    );
}
