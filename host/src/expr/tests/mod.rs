//! Tables of expression, rows and result, and the properties of halving.

mod decimals;
mod failures;
mod mistakes;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::*;
use crate::batch::Origins;

const DAY: i64 = 86_400_000_000;
/// 2026-01-01T00:00:00Z.
const NEW_YEAR: i64 = 1_767_225_600_000_000;

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("user_id", DataType::Utf8, true),
        Field::new("x", DataType::Int64, true),
        Field::new("y", DataType::Int64, false),
        Field::new("amount", DataType::Float64, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("timestamp", time, false),
        Field::new("Mixed", DataType::Int64, false),
        Field::new("left.user", DataType::Utf8, true),
        Field::new("user", DataType::Utf8, true),
    ]))
}

/// Six rows; `y` is the row's number - 2, `x` one more and null in row 3.
fn rows() -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![
            Some("ann"),
            Some("Bob"),
            None,
            Some("dora"),
            Some("12"),
            Some("änne"),
        ])),
        Arc::new(Int64Array::from(vec![
            Some(-1),
            Some(0),
            Some(1),
            None,
            Some(3),
            Some(4),
        ])),
        Arc::new(Int64Array::from(vec![-2, -1, 0, 1, 2, 3])),
        Arc::new(Float64Array::from(vec![
            Some(1.5),
            Some(-2.5),
            Some(0.0),
            None,
            Some(100.0),
            Some(1e18),
        ])),
        Arc::new(BooleanArray::from(vec![
            Some(true),
            Some(false),
            None,
            Some(true),
            Some(true),
            Some(false),
        ])),
        Arc::new(
            TimestampMicrosecondArray::from(
                (0..6)
                    .map(|i| NEW_YEAR + i * DAY / 2 + i)
                    .collect::<Vec<_>>(),
            )
            .with_timezone("UTC"),
        ),
        Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0, 1, 2, 3])),
        Arc::new(StringArray::from(vec!["l0", "l1", "l2", "l3", "l4", "l5"])),
        Arc::new(StringArray::from(vec!["u0", "u1", "u2", "u3", "u4", "u5"])),
    ];
    batch(RecordBatch::try_new(schema(), columns).unwrap())
}

fn batch(columns: RecordBatch) -> Batch {
    let rows = columns.num_rows();
    Batch {
        columns,
        times: (0..rows as i64).collect(),
        origins: Some(Origins {
            inputs: (0..rows as u64).map(|i| i % 3).collect(),
            offsets: (0..rows as i64).map(|i| 500 + i).collect(),
        }),
    }
}

fn select(sql: &str) -> Result<Projection, ExprError> {
    Projection::compile(&[sql.to_string()], &schema()).map_err(|mut errors| errors.remove(0).1)
}

/// The rows that pass and those that are refused.
fn filtered(sql: &str) -> (Vec<i64>, Vec<u32>) {
    let predicate =
        Predicate::compile(sql, &schema()).unwrap_or_else(|error| panic!("{}", error.picture(sql)));
    let mut refused = Vec::new();
    let left = predicate.filter(&rows(), &mut refused);
    let origins = left.origins.as_ref().unwrap();
    assert!(
        left.times
            .iter()
            .zip(origins.offsets.iter())
            .all(|(t, o)| t + 500 == *o)
    );
    assert_eq!(left.times.len(), left.rows());
    (
        left.times.to_vec(),
        refused.into_iter().map(|(row, _)| row).collect(),
    )
}

#[track_caller]
fn check_where(sql: &str, passed: &[i64], refused: &[u32]) {
    assert_eq!(filtered(sql), (passed.to_vec(), refused.to_vec()), "{sql}");
}

/// Values as text, `null` for null and `!` for a refused row; then the type.
fn values(sql: &str) -> (String, String) {
    let projection = select(sql).unwrap_or_else(|error| panic!("{}", error.picture(sql)));
    let mut refused = Vec::new();
    let out = projection.apply(&rows(), &mut refused);
    let column = out.columns.column(0);
    let mut texts = vec!["!".to_string(); rows().rows()];
    for (i, &row) in out.times.iter().enumerate() {
        texts[row as usize] = match column.is_null(i) {
            true => "null".into(),
            false => array_value_to_string(column, i).unwrap(),
        };
    }
    assert_eq!(refused.len() + out.rows(), rows().rows());
    assert_eq!(projection.schema().field(0).data_type(), column.data_type());
    (texts.join(" "), words::type_name(column.data_type()))
}

#[track_caller]
fn check(sql: &str, expected: &str, kind: &str) {
    assert_eq!(
        values(sql),
        (expected.to_string(), kind.to_string()),
        "{sql}"
    );
}

#[test]
fn conditions_keep_the_rows_for_which_they_are_true() {
    check_where("y > 0", &[3, 4, 5], &[]);
    check_where("true", &[0, 1, 2, 3, 4, 5], &[]);
    check_where("false", &[], &[]);
    check_where("ok", &[0, 3, 4], &[]);
    check_where("not ok", &[1, 5], &[]);
    check_where("ok is null or user_id is null", &[2], &[]);
    check_where("x between 0 and 3 and user_id is not null", &[1, 4], &[]);
    check_where("user_id in ('ann', '12')", &[0, 4], &[]);
    check_where("user_id not in ('ann', '12')", &[1, 3, 5], &[]);
    check_where("user_id like '%n%'", &[0, 5], &[]);
    check_where("user_id ilike 'b_b'", &[1], &[]);
    check_where("regexp_like(user_id, '^[a-d]')", &[0, 3], &[]);
    check_where("amount > 1 and y >= 2", &[4, 5], &[]);
    check_where("Mixed > 0 and \"Mixed\" < 3", &[3, 4], &[]);
    check_where("left.user = 'l2' or user = 'u4'", &[2, 4], &[]);
    check_where("x = null", &[], &[]);
    check_where("x is distinct from 0", &[0, 2, 3, 4, 5], &[]);
    check_where("x > 0.5", &[2, 4, 5], &[]);
    check_where("length(user_id) = 4 -- a comment", &[3, 5], &[]);
    check_where(
        "user_id like 'a%' and y < 0 or (ok is true and y = 2)",
        &[0, 4],
        &[],
    );
}

#[test]
fn times_compare_with_texts_in_utc() {
    check_where("timestamp >= '2026-01-02T00:00:00Z'", &[2, 3, 4, 5], &[]);
    check_where(
        "timestamp >= '2026-01-02T02:00:00+02:00'",
        &[2, 3, 4, 5],
        &[],
    );
    check_where("timestamp < timestamp '2026-01-01T12:00:00Z'", &[0], &[]);
    check_where(
        "timestamp between '2026-01-01' and '2026-01-02'",
        &[0, 1],
        &[],
    );
    check_where(
        "'9000-01-01T00:00:00Z' > timestamp",
        &[0, 1, 2, 3, 4, 5],
        &[],
    );
    check_where("timestamp in ('2026-01-01T00:00:00.000000Z')", &[0], &[]);
    check_where(
        "timestamp > cast('2026-01-03T00:00:00' as timestamp)",
        &[4, 5],
        &[],
    );
    check_where(
        "timestamp + interval '1 day' > '2026-01-03T12:00:00Z'",
        &[3, 4, 5],
        &[],
    );
    check_where(
        "timestamp > '1500-01-01' and timestamp < '9999-12-31T00:00:00Z'",
        &[0, 1, 2, 3, 4, 5],
        &[],
    );
    check_where("extract(hour from timestamp) = 12", &[1, 3, 5], &[]);
    check_where(
        "date_trunc('day', timestamp) = '2026-01-02T00:00:00Z'",
        &[2, 3],
        &[],
    );
}

#[test]
fn conjuncts_guard_those_behind_them() {
    check_where("y <> 0 and 100 / y > 40", &[3, 4], &[]);
    check_where("(y <> 0 and (100 / y > 40 and x is not null))", &[4], &[]);
    check_where("100 / y > 40 and y <> 0", &[3, 4], &[2]);
    check_where(
        "y > -2 and 100 / y > 40 and 1 / (y - 1) >= 1",
        &[4],
        &[2, 3],
    );
    check_where(
        "case when y <> 0 then 100 / y > 40 else false end",
        &[3, 4],
        &[],
    );
    check_where("y = 0 or 100 / y > 40", &[2, 3, 4], &[]);
    check_where("cast(user_id as int) > 0", &[4], &[0, 1, 3, 5]);
    check_where("try_cast(user_id as int) > 0", &[4], &[]);
}

#[test]
fn values_have_the_types_of_a_pipeline() {
    check("x", "-1 0 1 null 3 4", "int");
    check("x + y as s", "-3 -1 1 null 5 7", "int");
    check("amount * y as s", "-3.0 2.5 0.0 null 200.0 3e18", "float");
    check("length(user_id) as n", "3 3 null 4 2 4", "int");
    check("cast(y as int) as n", "-2 -1 0 1 2 3", "int");
    check(
        "cast(amount as int) as n",
        "1 -2 0 null 100 1000000000000000000",
        "int",
    );
    check(
        "cast(y as float) as n",
        "-2.0 -1.0 0.0 1.0 2.0 3.0",
        "float",
    );
    check("upper(user_id) as u", "ANN BOB null DORA 12 ÄNNE", "string");
    check(
        "UPPER(substr(user_id, 1, 1)) as u",
        "A B null D 1 Ä",
        "string",
    );
    check(
        "user_id || '-' || y as u",
        "ann--2 Bob--1 null dora-1 12-2 änne-3",
        "string",
    );
    check("cast(y as varchar) as u", "-2 -1 0 1 2 3", "string");
    check("coalesce(x, -7) as c", "-1 0 1 -7 3 4", "int");
    check("nullif(x, 1) as c", "-1 0 null null 3 4", "int");
    check(
        "case when y > 1 then 'big' when y < 0 then 'neg' else 'mid' end as c",
        "neg neg mid mid big big",
        "string",
    );
    check(
        "case ok when true then 1 else 0 end as c",
        "1 0 0 1 1 0",
        "int",
    );
    check("y >= 1 as c", "false false false true true true", "bool");
    check("extract(day from timestamp) as d", "1 1 2 2 3 3", "int");
    check("1 as weight", "1 1 1 1 1 1", "int");
    check("abs(y) as a", "2 1 0 1 2 3", "int");
    check("position('n' in user_id) as p", "2 0 null 0 0 2", "int");
    check(
        "-9223372036854775808 as least",
        &["-9223372036854775808"; 6].join(" "),
        "int",
    );
    let day = "2026-01-01T00:00:00Z 2026-01-01T00:00:00Z 2026-01-02T00:00:00Z 2026-01-02T00:00:00Z 2026-01-03T00:00:00Z 2026-01-03T00:00:00Z";
    check("date_trunc('day', timestamp) as day", day, "timestamp");
    check(
        "to_timestamp_seconds(0) as t",
        &["1970-01-01T00:00:00Z"; 6].join(" "),
        "timestamp",
    );
}

#[test]
fn select_lists_give_names_and_all_their_errors() {
    let items = |items: &[&str]| {
        let items: Vec<String> = items.iter().map(|i| i.to_string()).collect();
        Projection::compile(&items, &schema())
    };
    let names = |projection: Projection| {
        let schema = projection.schema();
        schema
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(
            items(&[
                "left.user",
                "Mixed",
                "y + 1 as \"Next Y\"",
                "x as Z",
                "timestamp"
            ])
            .unwrap()
        ),
        ["user", "Mixed", "Next Y", "Z", "timestamp"]
    );
    assert_eq!(names(items(&["*", "y + 1 as next"]).unwrap()).len(), 10);
    let errors = items(&["y", "z", "x as y", "*"]).unwrap_err();
    assert_eq!(errors[0].0, 1);
    assert_eq!(errors[1].0, 2);
    assert_eq!(
        errors[1].1.to_string(),
        "two columns are named `y` (`y` has this name already; give one of them another with `as`)"
    );
    assert_eq!(errors[2].0, 3);
    let plain = select("y").unwrap();
    assert!(!plain.schema().field(0).is_nullable());
}

#[test]
fn nothing_is_copied_when_every_row_passes() {
    let input = rows();
    let same = |a: &ArrayRef, b: &ArrayRef| Arc::ptr_eq(a, b);
    let mut refused = Vec::new();
    let passed = Predicate::compile("y > -100 and length(user) = 2", &schema())
        .unwrap()
        .filter(&input, &mut refused);
    assert!(same(passed.columns.column(0), input.columns.column(0)));
    assert!(passed.times.ptr_eq(&input.times));
    let items = ["y".to_string(), "x as z".to_string()];
    let projected = Projection::compile(&items, &schema())
        .unwrap()
        .apply(&input, &mut refused);
    assert!(projected.times.ptr_eq(&input.times));
    let buffer = |array: &ArrayRef| array.as_primitive::<Int64Type>().values().inner().as_ptr();
    assert_eq!(
        buffer(projected.columns.column(0)),
        buffer(input.columns.column(2))
    );
    assert_eq!(
        buffer(projected.columns.column(1)),
        buffer(input.columns.column(1))
    );
}

#[test]
fn an_empty_batch_stays_one() {
    let empty = rows().slice(0, 0);
    let mut refused = Vec::new();
    let left = Predicate::compile("100 / y > 1", &schema())
        .unwrap()
        .filter(&empty, &mut refused);
    assert_eq!(left.rows(), 0);
    let out = select("100 / y as s").unwrap().apply(&empty, &mut refused);
    assert_eq!(
        (out.rows(), out.schema().field(0).name().as_str()),
        (0, "s")
    );
    assert!(refused.is_empty());
}

proptest! {
    /// Halving finds exactly the failing rows; the others keep their order, values, times and origins.
    #[test]
    fn exactly_the_failing_rows_are_refused(divisors in proptest::collection::vec(-2i64..3, 0..200)) {
        let schema = Arc::new(Schema::new(vec![Field::new("y", DataType::Int64, false)]));
        let column: ArrayRef = Arc::new(Int64Array::from(divisors.clone()));
        let input = batch(RecordBatch::try_new(schema.clone(), vec![column]).unwrap());
        let zero: Vec<u32> = (0..divisors.len() as u32).filter(|&i| divisors[i as usize] == 0).collect();
        let indices = |refused: &[(u32, String)]| refused.iter().map(|(row, _)| *row).collect::<Vec<_>>();

        let mut refused = Vec::new();
        let items = ["100 / y as s".to_string(), "y".to_string()];
        let out = Projection::compile(&items, &schema).unwrap().apply(&input, &mut refused);
        prop_assert_eq!(indices(&refused), zero.clone());
        let kept: Vec<i64> = (0..divisors.len() as i64).filter(|&i| divisors[i as usize] != 0).collect();
        prop_assert_eq!(out.times.to_vec(), kept.clone());
        let offsets: Vec<i64> = kept.iter().map(|i| 500 + i).collect();
        prop_assert_eq!(out.origins.unwrap().offsets.to_vec(), offsets);
        let shares: Vec<i64> = kept.iter().map(|&i| 100 / divisors[i as usize]).collect();
        prop_assert_eq!(out.columns.column(0).as_primitive::<Int64Type>().values().to_vec(), shares);

        // Rows refused by different conjuncts come in one order, with rows already dropped in between.
        refused.clear();
        let predicate = Predicate::compile("100 / (y + 1) > -1000 and y <> 2 and 100 / y > 0", &schema).unwrap();
        let out = predicate.filter(&input, &mut refused);
        let bad: Vec<u32> = (0..divisors.len() as u32).filter(|&i| [0, -1].contains(&divisors[i as usize])).collect();
        prop_assert_eq!(indices(&refused), bad);
        let kept: Vec<i64> = (0..divisors.len() as i64).filter(|&i| divisors[i as usize] == 1).collect();
        prop_assert_eq!(out.times.to_vec(), kept);
    }
}
