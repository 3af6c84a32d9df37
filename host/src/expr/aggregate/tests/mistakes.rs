//! Mistakes as users see them: message, place, help.

use super::*;

#[track_caller]
fn wrong(sql: &str, expected: &str) {
    let items = [("r".to_string(), sql.to_string())];
    let errors = Aggregation::compile(&items, &rows().schema()).expect_err(sql);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].1.picture(sql), expected, "{sql}");
}

#[test]
fn mistakes_are_shown_in_place() {
    wrong(
        "summ(x)",
        "there is no function `summ`\n  summ(x)\n  ^^^^\n  help: did you mean `sum`?",
    );
    wrong(
        "sum(y)",
        "there is no column `y`\n  sum(y)\n      ^\n  help: did you mean `x`?",
    );
    wrong("sum(t)", "`sum` does not take (string)\n  sum(t)\n  ^^^^^");
    wrong(
        "1 + sum(x, f)",
        "`sum` does not take (int, float)\n  1 + sum(x, f)\n      ^^^^^^^^",
    );
    wrong(
        "sum(count(*))",
        "`count` stands inside `sum`\n  sum(count(*))\n      ^^^^^\n  help: compute the inner one in a window step of its own",
    );
    wrong(
        "x / count(*)",
        "`x` stands outside an aggregate: a window has many rows\n  x / count(*)\n  ^\n  help: write `max(x)`, or add it to `key`",
    );
    wrong(
        "upper(t)",
        "`t` stands outside an aggregate: a window has many rows\n  upper(t)\n        ^\n  help: write `max(t)`, or add it to `key`",
    );
    wrong(
        "1",
        "there is no aggregate in this expression\n  1\n  ^\n  help: write `count(*)`, `sum(...)`, `max(...)` or another one",
    );
    wrong(
        "sum(x) as total",
        "an aggregate has its name in front of the `=`\n  sum(x) as total\n            ^^^^^\n  help: leave out `as ...`",
    );
    wrong(
        "sum(x) over ()",
        "`over` is not supported: the window is that of the step\n  sum(x) over ()\n  ^^^\n  help: leave out `over (...)`",
    );
    wrong(
        "length(distinct t) + count(*)",
        "`length` takes no `distinct` and no order: it sees one row\n  length(distinct t) + count(*)\n  ^^^^^^",
    );
    wrong(
        "sum(distinct x)",
        "`sum` does not take `distinct`\n  sum(distinct x)\n  ^^^\n  help: `count`, `array_agg` and `string_agg` do",
    );
    wrong(
        "count(distinct x, f)",
        "`count(distinct ...)` takes one argument\n  count(distinct x, f)\n  ^^^^^\n  help: join several as text: `count(distinct a || ' ' || b)`",
    );
    wrong(
        "count(*) + first_value(x)",
        "`first_value` needs an `order by`: its result would depend on the order in which records arrive\n  count(*) + first_value(x)\n             ^^^^^^^^^^^\n  help: write `first_value(... order by ...)`",
    );
    wrong(
        "array_agg(x)",
        "`array_agg` needs an `order by`: its result would depend on the order in which records arrive\n  array_agg(x)\n  ^^^^^^^^^\n  help: write `array_agg(... order by ...)`",
    );
    wrong(
        "any_value(x)",
        "`any_value` depends on the order in which records arrive\n  any_value(x)\n  ^^^^^^^^^\n  help: write `min(...)`, or `first_value(... order by ...)`",
    );
    wrong(
        "sum(x order by x)",
        "`sum` takes no `order by`: its result does not depend on an order\n  sum(x order by x)\n  ^^^",
    );
    wrong(
        "first_value(x order by t) ignore nulls",
        "`first_value` does not take `ignore nulls` or `respect nulls`\n  first_value(x order by t) ignore nulls\n  ^^^^^^^^^^^\n  help: write `filter (where ... is not null)`",
    );
    wrong(
        "array_agg(distinct x order by t)",
        "`array_agg(distinct ...)` is ordered by its own values\n  array_agg(distinct x order by t)\n                                ^\n  help: write the argument again behind `order by`, and nothing else",
    );
    wrong(
        "approx_percentile_cont(x, 95)",
        "the fraction must be a number from 0 to 1\n  approx_percentile_cont(x, 95)\n                            ^^\n  help: 0.95 is the value below which 95 % of all values lie",
    );
    wrong(
        "percentile_cont(x, f)",
        "the fraction must be a number from 0 to 1\n  percentile_cont(x, f)\n                     ^\n  help: 0.95 is the value below which 95 % of all values lie",
    );
    wrong(
        "percentile_cont(0.5) within group (order by x desc)",
        "`within group` takes ascending order only\n  percentile_cont(0.5) within group (order by x desc)\n  ^^^^^^^^^^^^^^^\n  help: leave out `desc` and write 1 - fraction",
    );
    wrong(
        "string_agg(t, t order by x)",
        "what stands between the texts must be a plain text\n  string_agg(t, t order by x)\n                ^\n  help: write `string_agg(x, ', ' order by ...)`",
    );
    wrong(
        "nth_value(t, 0 order by x)",
        "the place must be a plain number from 1\n  nth_value(t, 0 order by x)\n               ^",
    );
    wrong(
        "sum(x) filter (where x)",
        "a condition must be true or false, this is int\n  sum(x) filter (where x)\n                       ^\n  help: compare it with something",
    );
    wrong(
        "count(*) filter (where count(*) > 1)",
        "`count` stands inside `count`\n  count(*) filter (where count(*) > 1)\n                         ^^^^^\n  help: compute the inner one in a window step of its own",
    );
    wrong(
        "sum(x) + 't'",
        "`+` does not work on int and string\n  sum(x) + 't'\n  ^^^^^^^^^^^^",
    );
    wrong(
        "upper(sum(x))",
        "`upper` does not take (int)\n  upper(sum(x))\n  ^^^^^^^^^^^",
    );
    wrong("sum(1 / 0)", "division by zero\n  sum(1 / 0)\n      ^^^^^");
    wrong(
        "sum((select 1))",
        "a query inside an expression is not supported\n  sum((select 1))\n       ^^^^^^^^\n  help: use a lookup or a join step",
    );
    wrong(
        "max(null)",
        "`max` does not take (null)\n  max(null)\n  ^^^^^^^^",
    );
    wrong(
        "sum(now())",
        "`now` is not allowed: its result would change when records are processed again\n  sum(now())\n      ^^^\n  help: use the record's own time",
    );
    wrong("sum(x", "expected ), found the end\n  sum(x\n       ^");
    wrong(
        "avg(t > 5)",
        "`>` does not work on string and int\n  avg(t > 5)\n      ^^^^^\n  help: write `cast(... as int)`, or `try_cast(... as int)` for null where it is none",
    );
    wrong(
        "max(time - time)",
        "`max` does not take (interval)\n  max(time - time)\n  ^^^^^^^^^^^^^^^",
    );
}

#[test]
fn every_item_has_its_own_errors() {
    let items = [
        ("a", "sum(y)"),
        ("b", "count(*)"),
        ("b", "max(x)"),
        ("c", "count(*) + 't'"),
    ];
    let items = items.map(|(name, sql)| (name.to_string(), sql.to_string()));
    let errors = Aggregation::compile(&items, &rows().schema()).unwrap_err();
    let places: Vec<usize> = errors.iter().map(|(i, _)| *i).collect();
    assert_eq!(places, [0, 2, 3]);
    assert!(errors[1].1.message.contains("two columns are named `b`"));
}
