//! What each aggregate gives.

use super::*;

#[test]
fn counts() {
    check("count(*)", ["3", "3"], "int");
    check("count()", ["3", "3"], "int");
    check("COUNT(x)", ["2", "3"], "int");
    check("count(none)", ["0", "0"], "int");
    check("count(*) filter (where t = 'b')", ["2", "0"], "int");
    check("count(distinct x)", ["2", "3"], "int");
    check("count(distinct f)", ["3", "2"], "int");
    check("count(distinct t)", ["2", "2"], "int");
    check("count(distinct b)", ["1", "2"], "int");
    check("count(distinct time)", ["2", "3"], "int");
    check("count(distinct bytes)", ["1", "1"], "int");
    check("count(distinct price)", ["3", "2"], "int");
    check("count(distinct day)", ["1", "2"], "int");
    check("count(distinct none)", ["0", "0"], "int");
    check(
        "count(distinct upper(t)) filter (where t <> 'b')",
        ["1", "2"],
        "int",
    );
    check("count(distinct f - f)", ["2", "1"], "int");
    for column in ["x", "f", "t", "b", "time", "bytes", "price", "day"] {
        let exact = compiled(&format!("count(distinct {column})"));
        let sketch = compiled(&format!("approx_distinct({column})"));
        let both = [exact, sketch].map(|aggregation| {
            let mut accumulators = aggregation.accumulators();
            let (inputs, _) = aggregation.inputs(&rows(), &mut Vec::new());
            accumulators.update(&inputs, &[0; 6], 1).unwrap();
            results(&mut accumulators, 1)
        });
        assert_eq!(both[0], both[1], "{column}");
    }
}

#[test]
fn sums_and_means_are_exact() {
    check("sum(x)", ["3", "!"], "int");
    check("sum(x) filter (where x < 3)", ["3", "2"], "int");
    check("sum(none)", ["null", "null"], "int");
    check("sum(f)", ["NaN", "-2.0"], "float");
    check("sum(price)", ["1.56", "999.98"], "decimal(20,2)");
    check(
        "sum(huge)",
        ["90000000000000000000000000000000000000", "!"],
        "decimal(38,0)",
    );
    check("avg(x)", ["1.5", "3.0744573456182584e18"], "float");
    check("mean(f) filter (where f < 8)", ["1.5", "-1.0"], "float");
    check("avg(price)", ["0.520000", "499.990000"], "decimal(14,6)");
    check(
        "avg(price) filter (where x = 2 or b is null)",
        ["0.030000", "-0.010000"],
        "decimal(14,6)",
    );
    check("avg(huge)", ["!", "!"], "decimal(38,4)");
    check("avg(none)", ["null", "null"], "float");
    // Wraps on the way, and comes back.
    check("sum(x - 5)", ["-7", "9223372036854775798"], "int");
    check(
        "sum(case when x is null then 0 else 9223372036854775807 end)",
        ["!", "!"],
        "int",
    );
}

#[test]
fn extremes() {
    check("min(x)", ["1", "2"], "int");
    check("max(x)", ["2", "9223372036854775807"], "int");
    check("min(f)", ["1.5", "-2.0"], "float");
    check("max(f)", ["NaN", "0.0"], "float");
    check("min(t)", ["b", ""], "string");
    check("max(t)", ["c", "a"], "string");
    check("max(b)", ["true", "true"], "bool");
    check("min(b)", ["true", "false"], "bool");
    check(
        "min(time)",
        ["1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00Z"],
        "timestamp",
    );
    check("max(bytes)", ["ff", ""], "bytes");
    check("max(price)", ["1.50", "999.99"], "decimal(10,2)");
    check("min(day)", ["1970-01-02", "1969-12-31"], "date");
    check("max(none)", ["null", "null"], "int");
    check("min(t) filter (where x > 100)", ["null", ""], "string");
}

#[test]
fn statistics() {
    check(
        "stddev(x)",
        ["0.7071067811865476", "5.325116328314172e18"],
        "float",
    );
    check("stddev_pop(x)", ["0.5", "4.3479392751109274e18"], "float");
    check("var(x) filter (where x < 5)", ["0.5", "2.0"], "float");
    check(
        "var_pop(price) filter (where price < 100)",
        ["0.48046666666666665", "0.0"],
        "float",
    );
    check("variance(none)", ["null", "null"], "float");
    check(
        "corr(x, Mixed) filter (where x < 5)",
        ["null", "null"],
        "float",
    );
    check(
        "covar_samp(x, f) filter (where f is not null)",
        ["3.25", "9.223372036854776e18"],
        "float",
    );
    check(
        "covar_pop(x, x) filter (where x < 5)",
        ["0.25", "1.0"],
        "float",
    );
    check("median(x)", ["1.5", "4.0"], "float");
    check("median(f)", ["8.0", "-1.0"], "float");
    check("median(price)", ["0.05", "499.99"], "float");
    check("median(none)", ["null", "null"], "float");
    check("percentile_cont(Mixed + 1, 0)", ["8.0", "2.0"], "float");
    check("percentile_cont(x, 0.25)", ["1.25", "3.0"], "float");
    check(
        "percentile_cont(0.25) within group (order by x)",
        ["1.25", "3.0"],
        "float",
    );
    check("approx_median(x)", ["1.5", "4.0"], "float");
    check(
        "approx_percentile_cont(x, 0.75) filter (where x < 5)",
        ["1.75", "3.5"],
        "float",
    );
    check("approx_percentile_cont(f, 1)", ["NaN", "0.0"], "float");
}

#[test]
fn of_bits_and_truth() {
    check("bool_and(b)", ["true", "false"], "bool");
    check("bool_or(b) filter (where x = 2)", ["true", "false"], "bool");
    check("bool_or(b) filter (where x = 3)", ["null", "null"], "bool");
    check("bit_and(Mixed)", ["7", "1"], "int");
    check("bit_or(x) filter (where x < 5)", ["3", "6"], "int");
    check("bit_xor(Mixed)", ["7", "1"], "int");
}

#[test]
fn of_rows_in_order() {
    check("first_value(t order by x)", ["b", "a"], "string");
    check("last_value(t order by x)", ["b", ""], "string");
    check("last_value(t order by x nulls first)", ["c", ""], "string");
    check("first_value(t order by x desc)", ["b", ""], "string");
    check("first_value(x order by time desc)", ["1", "2"], "int");
    check(
        "last_value(price order by Mixed)",
        ["1.50", "null"],
        "decimal(10,2)",
    );
    check(
        "first_value(day order by day desc nulls last)",
        ["1970-01-02", "1970-01-01"],
        "date",
    );
    check(
        "first_value(bytes order by f) filter (where f > 0)",
        ["ff", "null"],
        "bytes",
    );
    check(
        "first_value(b order by t, x desc)",
        ["null", "true"],
        "bool",
    );
    check("nth_value(t, 2 order by x)", ["c", "null"], "string");
    check("nth_value(t, 4 order by x)", ["null", "null"], "string");
    check(
        "array_agg(t order by x desc nulls last, t)",
        ["[c, b, b]", "[, , a]"],
        "list",
    );
    check(
        "array_agg(x order by x)",
        ["[1, 2, ]", "[2, 4, 9223372036854775807]"],
        "list",
    );
    check(
        "array_agg(distinct t order by t desc nulls last)",
        ["[c, b]", "[a, , ]"],
        "list",
    );
    check(
        "array_agg(x order by time) filter (where x = 1)",
        ["[1]", "null"],
        "list",
    );
    check(
        "array_agg(price order by price)",
        ["[0.01, 0.05, 1.50]", "[-0.01, 999.99, ]"],
        "list",
    );
    check("string_agg(t, '-' order by x)", ["b-c-b", "a-"], "string");
    check("string_agg(t, '' order by t desc)", ["cbb", "a"], "string");
    check(
        "string_agg(distinct t, ', ' order by t)",
        ["b, c", ", a"],
        "string",
    );
    check(
        "string_agg(t, ', ' order by x) filter (where x is null)",
        ["b", "null"],
        "string",
    );
}

/// Rows that the keys do not tell apart come in the order of their values, however they arrive.
#[test]
fn ties_do_not_depend_on_arrival() {
    for sql in [
        "first_value(t order by Mixed)",
        "last_value(x order by Mixed)",
        "array_agg(f order by Mixed desc)",
        "nth_value(f, 2 order by Mixed)",
        "string_agg(t, ',' order by Mixed)",
        "max(f)",
        "min(f)",
    ] {
        let aggregation = compiled(sql);
        let orders = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 3, 0, 5, 4, 1]];
        let found = orders.map(|order| {
            let mut accumulators = aggregation.accumulators();
            let (inputs, _) = aggregation.inputs(&rows().take(&order), &mut Vec::new());
            let groups = order.map(|row| row as usize % 2);
            accumulators.update(&inputs, &groups, 2).unwrap();
            results(&mut accumulators, 2)
        });
        assert_eq!(found[0], found[1], "{sql}");
        assert_eq!(found[0], found[2], "{sql}");
    }
}

#[test]
fn expressions_around_aggregates_are_checked() {
    check("sum(f) / count(*)", ["NaN", "-0.6666666666666666"], "float");
    check("max(x) / count(*)", ["0", "3074457345618258602"], "int");
    check("max(x) + 1", ["3", "!"], "int");
    check("10 / (count(*) - count(x))", ["10", "!"], "int");
    check("coalesce(sum(none), 0) + count(*)", ["3", "3"], "int");
    check(
        "upper(max(t)) || '-' || cast(count(*) as string)",
        ["C-3", "A-3"],
        "string",
    );
    check(
        "case when count(t) = 3 then 'full' end",
        ["full", "null"],
        "string",
    );
    check(
        "max(time) - interval '1 second' > min(time)",
        ["true", "true"],
        "bool",
    );
    check("(sum(x))", ["3", "!"], "int");
    check("max(length(t) + Mixed)", ["8", "2"], "int");
    let aggregation = compiled("sum(x) / (count(*) - count(x))");
    let mut accumulators = aggregation.accumulators();
    let (inputs, _) = aggregation.inputs(&rows(), &mut Vec::new());
    accumulators
        .update(&inputs, &[0, 1, 2, 1, 3, 1], 5)
        .unwrap();
    let mut refused = Vec::new();
    let (out, kept) = accumulators.evaluate(&mut refused).unwrap();
    // Group 2 has only a null, group 4 no rows at all: their sum is null.
    assert_eq!((out.num_rows(), kept), (2, Some(vec![2, 4])));
    let reasons: Vec<_> = refused.iter().map(|(g, why)| (*g, why.as_str())).collect();
    let division = "`sum(x) / (count(*) - count(x))`: division by zero";
    let sum = "`sum(x)`: the sum 9223372036854775813 does not fit into an int of 64 bits";
    assert_eq!(reasons, [(0, division), (1, sum), (3, division)]);
}

#[test]
fn rows_at_which_an_argument_fails_are_refused() {
    let aggregation = compiled("count(100 / (x - 2)) + sum(Mixed) filter (where 10 / (x - 1) > 4)");
    let mut refused = vec![(9, "earlier".to_string())];
    let (inputs, kept) = aggregation.inputs(&rows(), &mut refused);
    assert_eq!(kept, Some(vec![2, 3, 5]));
    assert_eq!(inputs.rows(), 3);
    let failed: Vec<u32> = refused.iter().map(|(row, _)| *row).collect();
    assert_eq!(failed, [9, 0, 1, 4]);
    assert_eq!(refused[2].1, "`100 / (x - 2)`: division by zero");
    let mut accumulators = aggregation.accumulators();
    accumulators.update(&inputs, &[0, 0, 0], 1).unwrap();
    assert_eq!(results(&mut accumulators, 1), ["null"]);

    // A filter guards its argument, and its own parts one another.
    check(
        "sum(100 / (x - 4)) filter (where x <> 4)",
        ["-83", "-50"],
        "int",
    );
    check(
        "count(*) filter (where x <> 4 and 100 / (x - 4) < -40)",
        ["1", "1"],
        "int",
    );
}

#[test]
fn aggregates_and_arguments_are_kept_once() {
    let items = [
        ("a", "sum(x) / count(*)"),
        ("b", "Sum(x)"),
        ("c", "avg(x) + count(*)"),
        ("d", "max(f) filter (where t = 'a')"),
    ];
    let items = items.map(|(name, sql)| (name.to_string(), sql.to_string()));
    let aggregation = Aggregation::compile(&items, &rows().schema()).unwrap();
    assert_eq!(
        (aggregation.calls.len(), aggregation.expressions.len()),
        (4, 2)
    );
    assert_eq!(aggregation.columns(), [0, 1, 2]);
    let schema = aggregation.schema();
    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    let same = Aggregation::compile(&items[1..2], &rows().schema()).unwrap();
    assert_eq!(
        same.signature().to_string(),
        r#"[{"aggregate":"sum(x)","of":["Int64"],"version":1}]"#
    );
}

#[test]
fn what_is_too_long_is_refused_with_its_group() {
    let run = |sql: &str, rows: Batch, groups: &[usize]| {
        let items = [("r".to_string(), sql.to_string())];
        let aggregation = Aggregation::compile(&items, &rows.schema()).unwrap();
        let mut accumulators = aggregation.accumulators();
        let (inputs, _) = aggregation.inputs(&rows, &mut Vec::new());
        accumulators.update(&inputs, groups, 2).unwrap();
        let mut refused = Vec::new();
        let (out, kept) = accumulators.evaluate(&mut refused).unwrap();
        assert_eq!((out.num_rows(), kept), (1, Some(vec![0])));
        refused.remove(0)
    };
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20); 18]));
    let mut groups = vec![1; 18];
    groups[0] = 0;
    assert_eq!(
        run("string_agg(t, ',' order by t)", batch(vec![("t", long)]), &groups),
        (1, "`string_agg(t, ',' ORDER BY t)`: a text of 17825808 bytes; at most 16777216 are allowed".into())
    );
    let many = (1 << 20) + 2;
    let mut groups = vec![1; many];
    groups[0] = 0;
    let ints: ArrayRef = Arc::new(Int64Array::from_iter_values(0..many as i64));
    assert_eq!(
        run("array_agg(x order by x)", batch(vec![("x", ints)]), &groups),
        (
            1,
            "`array_agg(x ORDER BY x)`: a list of 1048577 values; at most 1048576 are allowed"
                .into()
        )
    );
}

#[test]
fn accumulators_move_between_threads() {
    fn sends<T: Send>(_: &T) {}
    let aggregation = compiled("count(*)");
    sends(&aggregation);
    sends(&aggregation.accumulators());
}

#[test]
fn names_with_dots_and_odd_texts_stand_around_too() {
    let x: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let t: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let rows = batch(vec![("left.x", x), ("count", t)]);
    let items = [
        ("a", "sum(left.x) + count(1)"),
        (
            "b",
            "string_agg(count, '''\"\n' order by left.x desc) || '.'",
        ),
        ("c", "-sum(left.x)"),
    ];
    let items = items.map(|(name, sql)| (name.to_string(), sql.to_string()));
    let aggregation = Aggregation::compile(&items, &rows.schema()).unwrap();
    let mut accumulators = aggregation.accumulators();
    let (inputs, _) = aggregation.inputs(&rows, &mut Vec::new());
    accumulators.update(&inputs, &[0, 0], 1).unwrap();
    let (out, _) = accumulators.evaluate(&mut Vec::new()).unwrap();
    let found: Vec<_> = out.columns().iter().map(|c| text(c, 0)).collect();
    assert_eq!(found, ["5", "b'\"\na.", "-3"]);
}

#[test]
fn without_items_there_are_groups_still() {
    let aggregation = Aggregation::compile(&[], &rows().schema()).unwrap();
    let mut accumulators = aggregation.accumulators();
    let (inputs, kept) = aggregation.inputs(&rows(), &mut Vec::new());
    assert!(kept.is_none() && aggregation.columns().is_empty());
    accumulators
        .update(&inputs, &[0, 1, 0, 1, 0, 2], 3)
        .unwrap();
    assert!(accumulators.state().unwrap().is_empty());
    accumulators.merge(&[], &[2, 1, 0], 3).unwrap();
    let (out, kept) = accumulators.evaluate(&mut Vec::new()).unwrap();
    assert_eq!((out.num_rows(), kept), (3, None));
}
