//! Mistakes as users see them: message, place, help; and what is refused whatever its types.

use super::*;

/// The message, and the mistake with its carets.
#[track_caller]
fn wrong(sql: &str, expected: &str) {
    let error = Predicate::compile(sql, &schema()).expect_err(sql);
    assert_eq!(error.picture(sql), expected, "{sql}");
}

#[track_caller]
fn wrong_item(sql: &str, expected: &str) {
    let error = select(sql).expect_err(sql);
    assert_eq!(error.picture(sql), expected, "{sql}");
}

#[test]
fn mistakes_are_shown_in_place() {
    wrong(
        "amout > 1",
        "there is no column `amout`\n  amout > 1\n  ^^^^^\n  help: did you mean `amount`?",
    );
    wrong(
        "y > 1 and USER_ID = 'ä'",
        "there is no column `USER_ID`\n  y > 1 and USER_ID = 'ä'\n            ^^^^^^^\n  help: did you mean `user_id`?",
    );
    wrong(
        "'ä' = upperr(user_id)",
        "there is no function `upperr`\n  'ä' = upperr(user_id)\n        ^^^^^^\n  help: did you mean `upper`?",
    );
    wrong(
        "user_id > 5",
        "`>` does not work on string and int\n  user_id > 5\n  ^^^^^^^^^^^\n  help: write `cast(... as int)`, or `try_cast(... as int)` for null where it is none",
    );
    wrong(
        "ok and user_id + 1 > 5",
        "`+` does not work on string and int\n  ok and user_id + 1 > 5\n         ^^^^^^^^^^^",
    );
    wrong(
        "upper(amount) = 'A'",
        "`upper` does not take (float)\n  upper(amount) = 'A'\n  ^^^^^^^^^^^^",
    );
    wrong(
        "amount = 'abc'",
        "cannot read 'abc' as float\n  amount = 'abc'\n  ^^^^^^^^^^^^^^",
    );
    wrong(
        "ok and\n  amount",
        "a condition must be true or false, this is float\n    amount\n    ^^^^^^\n  help: compare it with something",
    );
    wrong(
        "y > 1 y",
        "expected the end of the expression, found `y`\n  y > 1 y\n        ^",
    );
    wrong(
        "y > ",
        "expected an expression, found the end\n  y > \n      ^",
    );
    wrong("", "the expression is empty");
    wrong(
        "y > 0 as z",
        "a condition has no name\n  y > 0 as z\n           ^\n  help: leave out `as ...`",
    );
    wrong(
        "sum(y) > 1",
        "`sum` combines many rows; this expression sees one\n  sum(y) > 1\n  ^^^",
    );
    wrong(
        "timestamp < now()",
        "`now` is not allowed: its result would change when records are processed again\n  timestamp < now()\n              ^^^\n  help: use the record's own time",
    );
    wrong(
        "y > $1",
        "parameter `$1` has no value here\n  y > $1\n      ^^",
    );
    wrong(
        "y > 9223372036854775807 + 1",
        "integer overflow: 9223372036854775807 + 1\n  y > 9223372036854775807 + 1\n      ^^^^^^^^^^^^^^^^^^^^^^^",
    );
    wrong("y > 1 / 0", "division by zero\n  y > 1 / 0\n      ^^^^^");
    wrong(
        "y < 9223372036854775808",
        "9223372036854775808 does not fit into an int of 64 bits\n  y < 9223372036854775808\n      ^^^^^^^^^^^^^^^^^^^",
    );
    wrong_item(
        "x + y",
        "this expression needs a name\n  help: write `x + y as name`",
    );
    wrong_item(
        "null as n",
        "a column cannot be of type null\n  null as n\n  ^^^^\n  help: say which type it has: `cast(null as string)`",
    );
    wrong_item(
        "timestamp - timestamp as d",
        "a column cannot be of type interval\n  timestamp - timestamp as d\n  ^^^^^^^^^^^^^^^^^^^^^\n  help: columns are string, int, float, bool, timestamp, date, decimal or bytes",
    );
    wrong_item(
        "right.user",
        "there is no column `right.user`\n  right.user\n  ^^^^^^^^^^\n  help: the columns are user_id, x, y, amount, ok, timestamp, Mixed, left.user, user",
    );
}

#[test]
fn what_is_no_function_of_a_row_is_refused() {
    for sql in [
        "y in (select 1)",
        "exists (select 1)",
        "y > (select 1)",
        "row_number() over () > 1",
        "random() > 0.5",
        "current_date > timestamp",
        "abs(y) over () > 1",
        "y > all (select 1)",
        "distinct y",
        "date_trunc('minute', user_id) > timestamp",
        "user_id between 1 and 2",
        "user_id in (1, 2)",
        "lpad(user_id, y) = 'a'",
        "repeat(user_id, 1000000000) = 'a'",
        "'open",
        "((y > 1)",
        "*",
        "upper(user_id",
    ] {
        let error = Predicate::compile(sql, &schema()).expect_err(sql);
        assert!(
            !error.message.is_empty() && !error.message.contains("Utf8"),
            "{sql}: {error}"
        );
        if let Some(span) = &error.span {
            assert!(sql.is_char_boundary(span.start) && sql.is_char_boundary(span.end));
        }
        let _ = error.picture(sql);
    }
}

#[test]
fn size_and_depth_are_limited() {
    let many = |n: usize| vec!["y <> 1"; n].join(" and ");
    let most = Predicate::compile(&many(limits::EXPRESSION_TERMS_MAX / 2), &schema()).unwrap();
    assert_eq!(most.filter(&rows(), &mut Vec::new()).rows(), 5);
    for sql in [
        many(limits::EXPRESSION_TERMS_MAX),
        many(100_000),
        "(".repeat(10_000),
        "not ".repeat(10_000),
        format!("y{} > 1", " is null".repeat(10_000)),
        format!("{}y > 1", "-(".repeat(700)),
    ] {
        assert!(Predicate::compile(&sql, &schema()).is_err());
    }
}
