//! Rows at which an expression fails while the others go on.

use super::*;

#[test]
fn rows_that_fail_are_refused_and_the_others_go_on() {
    check("100 / y as s", "-50 -100 ! 100 50 33", "int");
    check("100 % y as s", "0 0 ! 0 0 1", "int");
    check(
        "amount / y as s",
        "-0.75 2.5 NaN null 50.0 3.333333333333333e17",
        "float",
    );
    check("Mixed + 1 as s", "-9223372036854775807 ! 1 2 3 4", "int");
    check("Mixed - 1 as s", "! 9223372036854775806 -1 0 1 2", "int");
    check("Mixed * 2 as s", "! ! 0 2 4 6", "int");
    check("-Mixed as s", "! -9223372036854775807 0 -1 -2 -3", "int");
    check(
        "-(-Mixed) as s",
        "-9223372036854775808 9223372036854775807 0 1 2 3",
        "int",
    );
    check("abs(Mixed) as s", "! 9223372036854775807 0 1 2 3", "int");
    check(
        "Mixed / -1 as s",
        "! -9223372036854775807 0 -1 -2 -3",
        "int",
    );
    check(
        "length(user_id) * 1000000000 as s",
        "3000000000 3000000000 null 4000000000 2000000000 4000000000",
        "int",
    );
    check("cast(user_id as int) as s", "! ! null ! 12 !", "int");
    check(
        "cast(amount * 100 as int) as s",
        "150 -250 0 null 10000 !",
        "int",
    );
    check("-amount as s", "-1.5 2.5 -0.0 null -100.0 -1e18", "float");
    check(
        "case when y <> 0 then 100 / y else 0 end as s",
        "-50 -100 0 100 50 33",
        "int",
    );
}

/// None of these may stop the process, whatever DataFusion makes of it.
#[test]
fn extreme_arguments_refuse_rows_at_most() {
    let long = "x".repeat(100_000);
    for sql in [
        "substr(user_id, Mixed) as s",
        "substr(user_id, Mixed, Mixed) as s",
        "left(user_id, Mixed) as s",
        "right(user_id, Mixed) as s",
        "lpad(user_id, 10000, 'ab') as s",
        "repeat(user_id, 10000) as s",
        "split_part(user_id, 'n', Mixed) as s",
        "chr(Mixed) as s",
        "power(Mixed, Mixed) as s",
        "factorial(Mixed) as s",
        "gcd(Mixed, y) as s",
        "lcm(Mixed, y) as s",
        "round(amount, Mixed) as s",
        "to_timestamp_micros(Mixed) as s",
        "to_timestamp_seconds(Mixed) as s",
        "date_trunc('year', to_timestamp_micros(Mixed)) as s",
        "extract(year from to_timestamp_micros(Mixed)) as s",
        "timestamp + interval '999999 years' as s",
        "date_bin(interval '1 day', timestamp, to_timestamp_micros(Mixed)) as s",
        "regexp_like(user_id, user_id || '(') as s",
        "Mixed << Mixed as s",
        "sqrt(amount) as s",
        "to_hex(Mixed) as s",
        "translate(user_id, 'a', '') as s",
        &format!("cast('{long}' || user_id as int) as s"),
    ] {
        let projection = select(sql).unwrap_or_else(|error| panic!("{}", error.picture(sql)));
        let mut refused = Vec::new();
        let out = projection.apply(&rows(), &mut refused);
        assert_eq!(out.rows() + refused.len(), rows().rows(), "{sql}");
        let most = sql.len() + 300;
        assert!(
            refused.iter().all(|(_, reason)| reason.len() < most),
            "{sql}"
        );
    }
}

#[test]
fn reasons_name_the_expression_and_the_cause() {
    let reason = |sql: &str| {
        let mut refused = Vec::new();
        select(sql).unwrap().apply(&rows(), &mut refused);
        refused.remove(0).1
    };
    assert_eq!(reason("100 / y as s"), "`100 / y`: division by zero");
    assert_eq!(
        reason("Mixed - 1 as s"),
        "`Mixed - 1`: integer overflow: -9223372036854775808 - 1"
    );
    assert_eq!(
        reason("cast(user_id as int) as s"),
        "`CAST(user_id AS INT)`: cannot read 'ann' as int"
    );
}
