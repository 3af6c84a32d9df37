//! Calls that succeed, and calls whose results are lies.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;

use super::guests::{batch, kept, new, rows, transform, with_tables};
use crate::plugin::{Outcome, PortRows, Tables};

fn called(mode: &str, x: impl IntoIterator<Item = i64>) -> Outcome {
    let batch = rows(x);
    let mut instance = transform(mode, &batch).unwrap();
    instance.transform(&batch).unwrap()
}

#[test]
fn extended_rows_are_all_rows_but_the_refused() {
    assert_eq!(kept(&called("double", 1..4), 0), [(0, 2), (1, 4), (2, 6)]);
    let outcome = called("refuse odd", 1..6);
    assert_eq!(kept(&outcome, 0), [(1, 4), (3, 8)]);
    let refused: Vec<_> = outcome
        .refused
        .iter()
        .map(|(row, why)| (*row, why.as_str()))
        .collect();
    assert_eq!(refused, [(0, "odd"), (2, "odd"), (4, "odd")]);
    assert!(outcome.failed.is_empty());
}

#[test]
fn selected_rows_keep_their_indices() {
    assert_eq!(kept(&called("even", 1..6), 0), [(1, 4), (3, 8)]);
    let none = called("even", [1, 3]);
    assert!(none.ports[0].is_empty(), "an empty selection is no rows");
}

#[test]
fn new_rows_name_their_origins_and_times() {
    let outcome = called("new rows", [7, 8]);
    assert_eq!(new(&outcome, 0), [(0, 7), (0, 7), (1, 8), (1, 8)]);
    let PortRows::New { times, .. } = &outcome.ports[0][0] else {
        panic!("{outcome:?}");
    };
    assert_eq!(times.as_deref(), Some(&[0, 3_600, 1, 3_601][..]));
}

#[test]
fn no_rows_are_no_call() {
    let outcome = called("always panic", []);
    assert!(outcome.failed.is_empty() && outcome.ports[0].is_empty());
}

#[test]
fn the_event_time_is_a_column() {
    let outcome = called("time", [5, 6, 7]);
    let PortRows::Kept { added, .. } = &outcome.ports[0][0] else {
        panic!("{outcome:?}");
    };
    let times = added[0].as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.values().as_ref(), [0, 1, 2]);
}

/// A column of each type with a null in every third row but the first.
fn every_type(rows: usize) -> Vec<(&'static str, ArrayRef)> {
    let some = |i: usize| (i == 0 || !i.is_multiple_of(3)).then_some(i);
    let all = || (0..rows).map(some);
    let text = |i: usize| format!("é{i}").repeat(i % 4);
    vec![
        (
            "b",
            Arc::new(
                all()
                    .map(|i| i.map(|i| i.is_multiple_of(2)))
                    .collect::<BooleanArray>(),
            ),
        ),
        (
            "i",
            Arc::new(
                all()
                    .map(|i| i.map(|i| i as i64 - 5))
                    .collect::<Int64Array>(),
            ),
        ),
        (
            "f",
            Arc::new(
                all()
                    .map(|i| i.map(|i| i as f64 / 3.0))
                    .collect::<Float64Array>(),
            ),
        ),
        (
            "t",
            Arc::new(
                all()
                    .map(|i| i.map(|i| i as i64 * 1_000))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ),
        (
            "s",
            Arc::new(all().map(|i| i.map(text)).collect::<StringArray>()),
        ),
        (
            "d",
            Arc::new(
                all()
                    .map(|i| i.map(|i| vec![0xff; i % 5]))
                    .collect::<BinaryArray>(),
            ),
        ),
        ("n", Arc::new((0..rows as i64).collect::<Int64Array>())),
    ]
}

#[test]
fn columns_of_every_type_come_back_as_they_went_sliced_or_not() {
    let whole = batch(every_type(40));
    let mut echo = transform("echo", &whole).unwrap();
    for (start, len) in [
        (0, 40),
        (0, 1),
        (1, 39),
        (3, 8),
        (8, 16),
        (7, 9),
        (5, 0),
        (39, 1),
    ] {
        let slice = whole.slice(start, len);
        let outcome = echo.transform(&slice).unwrap();
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        let Some(PortRows::Kept { rows, added }) = outcome.ports[0].first() else {
            assert_eq!(len, 0);
            continue;
        };
        assert_eq!(*rows, (0..len as u32).collect::<Vec<_>>());
        for (column, echoed) in slice.columns.columns().iter().zip(added) {
            assert_eq!(column, echoed, "{start}..{}", start + len);
        }
    }
}

/// Prices of the even products; the handle is 7.
struct Prices;

impl Tables for Prices {
    fn table(&self, name: &str) -> Result<u32, String> {
        (name == "products")
            .then_some(7)
            .ok_or_else(|| format!("no table `{name}`"))
    }

    fn get(
        &self,
        handle: u32,
        keys: &ArrayRef,
        columns: &[String],
    ) -> Result<Vec<ArrayRef>, String> {
        assert_eq!((handle, columns), (7, &["price".to_string()][..]));
        let keys = keys.as_primitive::<arrow::datatypes::Int64Type>();
        let price = |key: Option<i64>| key.filter(|k| k % 2 == 0).map(|k| k as f64 / 4.0);
        Ok(vec![Arc::new(
            keys.iter().map(price).collect::<Float64Array>(),
        )])
    }
}

#[test]
fn tables_are_looked_into_once_a_call() {
    let batch = rows([1, 2, 4]);
    let mut instance = with_tables("table", &batch, Arc::new(Prices));
    let outcome = instance.transform(&batch).unwrap();
    let PortRows::Kept { added, .. } = &outcome.ports[0][0] else {
        panic!("{outcome:?}");
    };
    let expected = Float64Array::from(vec![None, Some(0.5), Some(1.0)]);
    assert_eq!(added[0].as_ref(), &expected as &dyn Array);
}

#[test]
fn offsets_need_not_start_at_zero() {
    let text = |outcome: Outcome| match &outcome.ports[0][0] {
        PortRows::Kept { added, .. } => added[0].clone(),
        PortRows::New { .. } => panic!("{outcome:?}"),
    };
    let expected: ArrayRef = Arc::new(StringArray::from(vec!["é1", "é22"]));
    assert_eq!(&text(called("text", [1, 22])), &expected);
    assert_eq!(&text(called("offsets from 5", [1, 22])), &expected);
}

#[test]
fn a_lie_fails_the_rows_and_names_itself() {
    let cases = [
        ("lie ports", "it returned 0 ports, planned were 1"),
        (
            "lie columns",
            "port `main`: it returned 2 columns, planned were 1",
        ),
        ("lie length", "column `y`: has 2 values for 1 rows"),
        (
            "lie type",
            "column `y`: is of type Timestamp(µs, \"UTC\"), planned was Int64",
        ),
        (
            "lie nulls",
            "column `y`: has 1 nulls, but was planned without",
        ),
        (
            "lie validity",
            "column `y`: its validity has 0 bytes, 1 bits need 1",
        ),
        (
            "lie bits",
            "column `b`: its values has 2 bytes, 1 bits need 1",
        ),
        ("lie index", "it selected row 1, the call had 1"),
        (
            "lie order",
            "the selected rows are not ascending: 0 after 1",
        ),
        (
            "lie twice selected",
            "the selected rows are not ascending: 0 after 0",
        ),
        ("lie refused outside", "it refused row 1, the call had 1"),
        ("lie refused twice", "it refused row 0 twice"),
        (
            "lie refused and selected",
            "row 0 was both refused and selected",
        ),
        (
            "lie rows on input port",
            "it returned new rows, planned were input rows",
        ),
        ("lie utf8", "column `s`: is not UTF-8"),
        ("lie utf8 boundary", "column `s`: is not UTF-8"),
        (
            "lie offsets fall",
            "column `s`: its offsets fall from value 0 to the next",
        ),
        ("lie offsets beyond", "are not within its 3 bytes"),
        (
            "lie offsets count",
            "column `s`: has 1 offsets, 1 values need 2",
        ),
        ("lie offsets negative", "are not within its 3 bytes"),
        (
            "new rows lie origin",
            "a new row has the origin 1, the call had 1 rows and 0 groups",
        ),
        ("new rows lie origins", "2 new rows have 1 origins"),
        ("new rows lie times", "2 new rows have 3 times"),
        (
            "new rows lie port",
            "it returned input rows, planned were new rows",
        ),
        ("handle", "there is no counter 99: the plugin has 1"),
    ];
    for (mode, expected) in cases {
        for n in [1, 3] {
            let outcome = called(mode, 1..=n);
            assert_eq!(outcome.failed.len(), n as usize, "{mode}");
            assert!(
                outcome.ports[0].is_empty() && outcome.refused.is_empty(),
                "{mode}"
            );
            let cause = &outcome.failed[0].1;
            assert!(
                cause.contains(expected),
                "{mode}: {cause} lacks {expected:?}"
            );
        }
    }
}
