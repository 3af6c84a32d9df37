//! Tables of aggregates, rows and results.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::util::display::array_value_to_string;

use super::*;
use crate::batch::Batch;

fn batch(columns: Vec<(&str, ArrayRef)>) -> Batch {
    let columns = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    Batch {
        times: (0..columns.num_rows() as i64).collect(),
        columns,
        origins: None,
    }
}

fn rows() -> Batch {
    let ints: Int64Array = vec![Some(1), Some(2), None, Some(4), Some(2), Some(i64::MAX)].into();
    let floats: Float64Array = vec![
        Some(1.5),
        None,
        Some(f64::NAN),
        Some(-2.0),
        Some(8.0),
        Some(0.0),
    ]
    .into();
    let texts: StringArray =
        vec![Some("b"), Some("a"), Some("b"), None, Some("c"), Some("")].into();
    batch(vec![
        ("x", Arc::new(ints)),
        ("f", Arc::new(floats)),
        ("t", Arc::new(texts)),
    ])
}

/// The results of groups 0 (rows 0, 2, 4) and 1 (rows 1, 3, 5), `!` if refused.
#[track_caller]
fn check(sql: &str, expected: [&str; 2]) {
    let items = [("r".to_string(), sql.to_string())];
    let aggregation = Aggregation::compile(&items, &rows().schema())
        .unwrap_or_else(|errors| panic!("{}", errors[0].1.picture(sql)));
    let mut accumulators = aggregation.accumulators();
    let mut refused = Vec::new();
    let (inputs, kept) = aggregation.inputs(&rows(), &mut refused);
    assert!(refused.is_empty() && kept.is_none());
    accumulators
        .update(&inputs, &[0, 1, 0, 1, 0, 1], 2)
        .unwrap();
    let (out, groups) = accumulators.evaluate(&mut refused).unwrap();
    let mut texts = ["!".to_string(), "!".to_string()];
    for row in 0..out.num_rows() {
        let group = groups.as_ref().map_or(row, |g| g[row] as usize);
        let column = out.column(0);
        texts[group] = match column.is_null(row) {
            true => "null".into(),
            false => array_value_to_string(column, row).unwrap(),
        };
    }
    assert_eq!(texts, expected, "{sql}");
}

#[test]
fn counts_sums_and_extremes() {
    check("count(*)", ["3", "3"]);
    check("count(x)", ["2", "3"]);
    check("sum(x)", ["3", "!"]);
    check("sum(f)", ["NaN", "-2.0"]);
    check("avg(x)", ["1.5", "3.0744573456182584e18"]);
    check("min(x)", ["1", "2"]);
    check("max(f)", ["NaN", "0.0"]);
    check("min(f)", ["1.5", "-2.0"]);
    check("max(t)", ["c", "a"]);
    check("sum(x) filter (where x < 3)", ["3", "2"]);
    check("sum(100 / (x - 4)) filter (where x <> 4)", ["-83", "-50"]);
    check("max(x) / count(*)", ["0", "3074457345618258602"]);
    check("count(distinct x)", ["2", "3"]);
    check("count(distinct f)", ["3", "2"]);
    check("count(distinct t)", ["2", "2"]);
    check("approx_distinct(f)", ["3", "2"]);
    check("median(x)", ["1.5", "4.0"]);
    check("approx_percentile_cont(f, 0.5)", ["8.0", "-1.0"]);
    check("first_value(t order by x)", ["b", "a"]);
    check("last_value(t order by x)", ["b", ""]);
    check(
        "array_agg(t order by x desc nulls last, t)",
        ["[c, b, b]", "[, , a]"],
    );
    check("string_agg(t, '-' order by x)", ["b-c-b", "a-"]);
    check("nth_value(t, 2 order by x)", ["c", "null"]);
    check("10 / (count(*) - count(x))", ["10", "!"]);
}
