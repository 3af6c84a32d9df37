//! However rows are cut into partial results, and however these are stored and merged, the results are those of one
//! accumulator over all rows.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use proptest::prelude::*;

use super::*;

const ITEMS: &[&str] = &[
    "count(*)",
    "count(x) filter (where x > 0)",
    "sum(x)",
    "sum(f)",
    "avg(x)",
    "avg(f)",
    "sum(price)",
    "avg(price)",
    "sum(huge)",
    "min(x)",
    "max(f)",
    "min(f)",
    "max(t)",
    "min(bytes)",
    "stddev(x)",
    "var_pop(f)",
    "corr(x, f)",
    "covar_samp(x, f)",
    "bool_and(b)",
    "bit_xor(x)",
    "median(f)",
    "percentile_cont(x, 0.3)",
    "approx_median(f)",
    "approx_percentile_cont(x, 0.9)",
    "approx_distinct(t)",
    "count(distinct x)",
    "count(distinct f)",
    "count(distinct t)",
    "count(distinct b)",
    "count(distinct time)",
    "count(distinct bytes)",
    "count(distinct price) filter (where x <> 1)",
    "first_value(t order by x)",
    "last_value(f order by b desc, x)",
    "first_value(b order by f desc nulls last)",
    "nth_value(x, 2 order by f)",
    "array_agg(t order by x desc)",
    "array_agg(distinct x order by x)",
    "array_agg(time order by f nulls first, t) filter (where x <> 1)",
    "string_agg(t, '|' order by f, x desc)",
    "sum(f) / count(*)",
];

/// A row, and the group and the piece it goes to.
#[derive(Debug, Clone)]
struct Row {
    x: Option<i64>,
    f: Option<f64>,
    t: Option<String>,
    b: Option<bool>,
    group: usize,
    piece: usize,
}

fn row() -> impl Strategy<Value = Row> {
    let floats = prop_oneof![
        8 => (-40i32..40).prop_map(|n| f64::from(n) / 8.0),
        1 => Just(-0.0),
        1 => -100.0..100.0,
    ];
    (
        proptest::option::weighted(0.9, -3i64..9),
        proptest::option::weighted(0.9, floats),
        proptest::option::weighted(0.9, "[ab]{0,2}"),
        proptest::option::weighted(0.9, any::<bool>()),
        0..5usize,
        0..6usize,
    )
        .prop_map(|(x, f, t, b, group, piece)| Row {
            x,
            f,
            t,
            b,
            group,
            piece,
        })
}

fn columns(rows: &[Row]) -> Batch {
    let decimal = |digits, scale, by: i128| -> ArrayRef {
        let values = rows.iter().map(|r| r.x.map(|x| i128::from(x) * by));
        let values: Decimal128Array = values.collect();
        Arc::new(values.with_precision_and_scale(digits, scale).unwrap())
    };
    let time: TimestampMicrosecondArray = rows.iter().map(|r| r.x.map(|x| x * 1_000)).collect();
    let bytes: BinaryArray = rows
        .iter()
        .map(|r| r.t.as_ref().map(String::as_bytes))
        .collect();
    batch(vec![
        (
            "x",
            Arc::new(rows.iter().map(|r| r.x).collect::<Int64Array>()),
        ),
        (
            "f",
            Arc::new(rows.iter().map(|r| r.f).collect::<Float64Array>()),
        ),
        (
            "t",
            Arc::new(rows.iter().map(|r| r.t.clone()).collect::<StringArray>()),
        ),
        (
            "b",
            Arc::new(rows.iter().map(|r| r.b).collect::<BooleanArray>()),
        ),
        ("time", Arc::new(time.with_timezone("UTC"))),
        ("bytes", Arc::new(bytes)),
        ("price", decimal(10, 2, 1)),
        ("huge", decimal(38, 0, 10_i128.pow(36))),
    ])
}

fn items() -> Vec<(String, String)> {
    let named = ITEMS.iter().enumerate();
    named
        .map(|(i, sql)| (format!("r{i}"), sql.to_string()))
        .collect()
}

/// Through the bytes of a stored segment.
fn stored(aggregation: &Aggregation, states: Vec<ArrayRef>) -> Vec<ArrayRef> {
    let states = RecordBatch::try_new(aggregation.state_schema(), states).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &states.schema()).unwrap();
    writer.write(&states).unwrap();
    let bytes = writer.into_inner().unwrap();
    let read = StreamReader::try_new(&bytes[..], None).unwrap().next();
    read.unwrap().unwrap().columns().to_vec()
}

/// Groups of `rows` numbered in the order in which they come, as a piece that knows nothing of the others would.
fn numbered(rows: &[Row]) -> (Vec<usize>, Vec<usize>) {
    let mut seen = Vec::new();
    let groups = rows.iter().map(|row| {
        let known = seen.iter().position(|&group| group == row.group);
        known.unwrap_or_else(|| {
            seen.push(row.group);
            seen.len() - 1
        })
    });
    (groups.collect(), seen)
}

fn close(a: &ArrayRef, b: &ArrayRef, row: usize) -> bool {
    match a.data_type() {
        DataType::Float64 if a.is_valid(row) && b.is_valid(row) => {
            let [a, b] = [a, b].map(|c| c.as_primitive::<Float64Type>().value(row));
            (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(1.0)
        }
        _ => text(a, row) == text(b, row),
    }
}

/// Segments of the pieces, merged in the order of `merged` into one accumulator.
fn in_pieces(aggregation: &Aggregation, rows: &[Row], merged: &[usize]) -> Accumulators {
    let mut whole = aggregation.accumulators();
    for &piece in merged {
        let rows: Vec<Row> = rows.iter().filter(|r| r.piece == piece).cloned().collect();
        let (groups, seen) = numbered(&rows);
        let mut part = aggregation.accumulators();
        // Several batches a piece, so that updates add up, too.
        for (rows, groups) in rows.chunks(7).zip(groups.chunks(7)) {
            let (inputs, kept) = aggregation.inputs(&columns(rows), &mut Vec::new());
            assert!(kept.is_none());
            part.update(&inputs, groups, seen.len()).unwrap();
        }
        let states = stored(aggregation, part.state().unwrap());
        whole.merge(&states, &seen, 5).unwrap();
    }
    whole
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pieces_merge_to_the_whole(
        rows in proptest::collection::vec(row(), 0..120),
        merged in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let aggregation = Aggregation::compile(&items(), &columns(&[]).schema()).unwrap();
        let mut one = aggregation.accumulators();
        let groups: Vec<usize> = rows.iter().map(|row| row.group).collect();
        let (inputs, _) = aggregation.inputs(&columns(&rows), &mut Vec::new());
        one.update(&inputs, &groups, 5).unwrap();
        let mut refused = [Vec::new(), Vec::new()];
        let (expected, expected_kept) = one.evaluate(&mut refused[0]).unwrap();

        let mut pieces = in_pieces(&aggregation, &rows, &merged);
        // A merged accumulator can be stored once more.
        let again = stored(&aggregation, pieces.state().unwrap());
        prop_assert_eq!(again[0].len(), 5);
        pieces.merge(&again, &[0, 1, 2, 3, 4], 5).unwrap();
        let (found, kept) = pieces.evaluate(&mut refused[1]).unwrap();
        prop_assert_eq!(kept, expected_kept);
        prop_assert_eq!(&refused[0], &refused[1]);
        for (sql, (a, b)) in ITEMS.iter().zip(expected.columns().iter().zip(found.columns())) {
            for row in 0..expected.num_rows() {
                prop_assert!(close(a, b, row), "{}: {} is not {}", sql, text(b, row), text(a, row));
            }
        }
    }
}

/// Enough values to leave the exact part of sketches.
#[test]
fn sketches_merge_exactly_and_stay_close() {
    let value = |i: u64| ((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 - 3e6;
    let sqls = [
        "approx_percentile_cont(f, 0.95)",
        "percentile_cont(f, 0.95)",
        "approx_distinct(f)",
        "count(distinct f)",
    ];
    let items: Vec<_> = sqls
        .iter()
        .map(|sql| (sql.to_string(), sql.to_string()))
        .collect();
    let values: Vec<f64> = (0..20_000).map(value).collect();
    let all = batch(vec![("f", Arc::new(Float64Array::from(values)))]);
    let aggregation = Aggregation::compile(&items, &all.schema()).unwrap();
    let found = [20_000, 4_096, 100].map(|rows| {
        let mut whole = aggregation.accumulators();
        for start in (0..20_000).step_by(rows).rev() {
            let piece = all.slice(start, rows.min(20_000 - start));
            let (inputs, _) = aggregation.inputs(&piece, &mut Vec::new());
            let mut part = aggregation.accumulators();
            part.update(&inputs, &vec![0; inputs.rows()], 1).unwrap();
            whole.merge(&part.state().unwrap(), &[0], 1).unwrap();
        }
        whole.evaluate(&mut Vec::new()).unwrap().0
    });
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
    let number = |i: usize| text(found[0].column(i), 0).parse::<f64>().unwrap();
    assert!(
        (number(0) / number(1) - 1.0).abs() < 0.006,
        "{} {}",
        number(0),
        number(1)
    );
    assert!(
        (number(2) / number(3) - 1.0).abs() < 0.03,
        "{} {}",
        number(2),
        number(3)
    );
}

#[test]
fn states_of_another_shape_are_refused() {
    let aggregation = compiled("avg(x)");
    let other = compiled("avg(f)").accumulators().state().unwrap();
    let mut accumulators = aggregation.accumulators();
    let error = accumulators.merge(&other, &[], 0).unwrap_err();
    assert!(
        error.contains("`avg(x)`") && error.contains("Decimal128"),
        "{error}"
    );
    assert!(accumulators.merge(&[], &[], 0).is_err());
}

#[test]
fn accumulators_are_empty_after_their_results() {
    let aggregation = Aggregation::compile(&items(), &columns(&[]).schema()).unwrap();
    let row = Row {
        x: Some(1),
        f: Some(2.0),
        t: Some("a".into()),
        b: None,
        group: 0,
        piece: 0,
    };
    let (inputs, _) = aggregation.inputs(&columns(&[row]), &mut Vec::new());
    let mut accumulators = aggregation.accumulators();
    let run = |accumulators: &mut Accumulators| {
        accumulators.update(&inputs, &[1], 2).unwrap();
        accumulators.evaluate(&mut Vec::new()).unwrap().0
    };
    let first = run(&mut accumulators);
    assert!(
        accumulators
            .state()
            .unwrap()
            .iter()
            .all(|column| column.is_empty())
    );
    assert_eq!(run(&mut accumulators), first);
    accumulators.update(&inputs, &[0], 1).unwrap();
    assert!(accumulators.bytes() > 0);
    assert_eq!(accumulators.state().unwrap()[0].len(), 1);
    let (none, _) = accumulators.evaluate(&mut Vec::new()).unwrap();
    assert_eq!(none.num_rows(), 0);
}
