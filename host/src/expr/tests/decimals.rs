//! Decimals and dates: types of results, exact values, overflow, and what they compare with.

use arrow::array::{Date32Array, Decimal128Array};

use super::*;

/// `price` decimal(10,2), `big` decimal(38,0), `rate` float, `day` date, `at` timestamp, `n` int; three rows.
fn rows() -> Batch {
    let price = Decimal128Array::from(vec![Some(1_050), Some(-5), None]);
    let nines = 10_i128.pow(38) - 1;
    let big = Decimal128Array::from(vec![nines, 1, -nines]);
    let time = TimestampMicrosecondArray::from(vec![NEW_YEAR, NEW_YEAR + DAY / 2, NEW_YEAR + DAY]);
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        (
            "price",
            Arc::new(price.with_precision_and_scale(10, 2).unwrap()),
            true,
        ),
        (
            "big",
            Arc::new(big.with_precision_and_scale(38, 0).unwrap()),
            false,
        ),
        (
            "rate",
            Arc::new(Float64Array::from(vec![10.5, 1e30, 0.0])),
            false,
        ),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(20_454), Some(20_455), None])),
            true,
        ),
        ("at", Arc::new(time.with_timezone("UTC")), false),
        ("n", Arc::new(Int64Array::from(vec![2, 3, 4])), false),
        (
            "text",
            Arc::new(StringArray::from(vec!["12.345", "x", "2026-02-30"])),
            false,
        ),
    ];
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, column, null)| Field::new(*name, column.data_type().clone(), *null))
        .collect();
    let arrays = columns.into_iter().map(|(_, column, _)| column).collect();
    batch(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap())
}

/// Values as JSON has them, `!` for a refused row; then the type, and the reasons.
fn values(sql: &str) -> (String, String, Vec<String>) {
    let rows = rows();
    let projection = Projection::compile(&[format!("{sql} as x")], &rows.schema())
        .unwrap_or_else(|mut errors| panic!("{sql}: {}", errors.remove(0).1));
    let mut refused = Vec::new();
    let out = projection.apply(&rows, &mut refused);
    let mut texts = vec!["!".to_string(); rows.rows()];
    for (i, &row) in out.times.iter().enumerate() {
        let json = crate::format::encode::row_json(&out.columns, i);
        texts[row as usize] = json[5..json.len() - 1].to_string();
    }
    let kind = words::type_name(out.columns.column(0).data_type());
    let reasons = refused.into_iter().map(|(_, why)| why).collect();
    (texts.join(" "), kind, reasons)
}

#[track_caller]
fn check(sql: &str, expected: &str, kind: &str) {
    let (texts, found, reasons) = values(sql);
    assert_eq!(
        (texts.as_str(), found.as_str()),
        (expected, kind),
        "{sql}: {reasons:?}"
    );
}

#[track_caller]
fn check_where(sql: &str, passed: &[i64], refused: usize) {
    let rows = rows();
    let predicate = Predicate::compile(sql, &rows.schema())
        .unwrap_or_else(|error| panic!("{}", error.picture(sql)));
    let mut failed = Vec::new();
    let left = predicate.filter(&rows, &mut failed);
    assert_eq!(
        (left.times.to_vec(), failed.len()),
        (passed.to_vec(), refused),
        "{sql}: {failed:?}"
    );
}

#[test]
fn decimals_calculate_exactly() {
    check("price", "10.50 -0.05 null", "decimal(10,2)");
    check("price + price", "21.00 -0.10 null", "decimal(11,2)");
    check("price * price", "110.2500 0.0025 null", "decimal(21,4)");
    check("-price", "-10.50 0.05 null", "decimal(10,2)");
    check("abs(price)", "10.50 0.05 null", "decimal(10,2)");
    check("price * n", "21.00 -0.15 null", "decimal(31,2)");
    check("price * 1.1", "11.55 -0.05500000000000001 null", "float");
    check(
        "cast(price as decimal(4,1))",
        "10.5 -0.1 null",
        "decimal(4,1)",
    );
    check(
        "cast(n as decimal(10,2))",
        "2.00 3.00 4.00",
        "decimal(10,2)",
    );
    check("cast(price as float)", "10.5 -0.05 null", "float");
    check(
        "cast(price as string)",
        "\"10.50\" \"-0.05\" null",
        "string",
    );
    check("coalesce(price, 0)", "10.50 -0.05 0.00", "decimal(22,2)");
}

#[test]
fn what_does_not_fit_refuses_the_row() {
    check(
        "cast(price as decimal(3,2))",
        "! -0.05 null",
        "decimal(3,2)",
    );
    check(
        "big + 1",
        "! 2 -99999999999999999999999999999999999998",
        "decimal(38,0)",
    );
    check("big * big", "! 1 !", "decimal(38,0)");
    check("cast(text as decimal(5,3))", "12.345 ! !", "decimal(5,3)");
    check("price / (n - 2)", "! -0.050000 null", "decimal(14,6)");
    let (_, _, reasons) = values("big * big");
    assert!(reasons[0].contains("decimal overflow"), "{reasons:?}");
    let (_, _, reasons) = values("big + 1");
    assert!(reasons[0].contains("decimal overflow"), "{reasons:?}");
}

#[test]
fn decimals_compare_exactly_with_numbers_and_as_floats_with_floats() {
    check_where("price > 10.49", &[0], 0);
    check_where("price = 10.5", &[0], 0);
    check_where("price < 0", &[1], 0);
    check_where("price between -1 and 1", &[1], 0);
    check_where("price in (10.50, 7)", &[0], 0);
    check_where("price >= n", &[0], 0);
    check_where("price = rate", &[0], 0);
    check_where("rate > price", &[1], 0);
    check_where(
        "big = cast('99999999999999999999999999999999999999' as decimal(38,0))",
        &[0],
        0,
    );
}

#[test]
fn dates_are_days() {
    check("day", "\"2026-01-01\" \"2026-01-02\" null", "date");
    check(
        "cast(at as date)",
        "\"2026-01-01\" \"2026-01-01\" \"2026-01-02\"",
        "date",
    );
    check(
        "cast('2026-01-31' as date)",
        "\"2026-01-31\" \"2026-01-31\" \"2026-01-31\"",
        "date",
    );
    check("try_cast(text as date)", "null null null", "date");
    check("cast(text as date)", "! ! !", "date");
    check(
        "cast(day as timestamp)",
        "\"2026-01-01T00:00:00Z\" \"2026-01-02T00:00:00Z\" null",
        "timestamp",
    );
    check(
        "cast(day as string)",
        "\"2026-01-01\" \"2026-01-02\" null",
        "string",
    );
    check(
        "day + interval '1 day'",
        "\"2026-01-02\" \"2026-01-03\" null",
        "date",
    );
    check("extract(day from day)", "1 2 null", "int");
    check_where("day >= '2026-01-02'", &[1], 0);
    check_where("day = date '2026-01-01'", &[0], 0);
    check_where("day between '2026-01-01' and '2026-01-01'", &[0], 0);
    check_where("day in ('2026-01-02', '2026-03-01')", &[1], 0);
    check_where("at > day", &[], 0);
    check_where("at >= day", &[0], 0);
    let error = Predicate::compile("day > text", &rows().schema()).unwrap_err();
    assert!(
        error
            .message
            .contains("`>` does not work on date and string"),
        "{error}"
    );
    let error = Predicate::compile("day > 'x'", &rows().schema()).unwrap_err();
    assert!(error.message.contains("cannot read 'x' as date"), "{error}");
}
