//! Decimals, dates, and ways to values through objects and arrays.

use super::*;

#[test]
fn decimals_are_exact_and_dates_are_days() {
    let text = |record: &str| {
        let mut decoder = all_types();
        decoder.push(record.as_bytes())?;
        Ok::<_, String>(row_json(&decoder.finish(), 0))
    };
    let row = text(r#"{"s":"x","d":1234.5,"day":"2024-02-29"}"#).unwrap();
    assert!(row.contains(r#""d":1234.50,"day":"2024-02-29""#), "{row}");
    assert!(
        text(r#"{"s":"x","d":-1.2e3}"#)
            .unwrap()
            .contains(r#""d":-1200.00"#)
    );
    assert!(text(r#"{"s":"x","d":0}"#).unwrap().contains(r#""d":0.00"#));
    let wrong = [
        (
            r#""d":1.005"#,
            "field `d`: `1.005` has more than 2 digits behind the point (decimal(6,2))",
        ),
        (
            r#""d":10000"#,
            "field `d`: `10000` has more than 4 digits before the point (decimal(6,2))",
        ),
        (
            r#""d":"1.00""#,
            "field `d`: expected a decimal as a number, found a string",
        ),
        (
            r#""day":"2026-02-30""#,
            "field `day`: `2026-02-30` is not a date such as 2026-01-31",
        ),
        (
            r#""day":20000"#,
            "field `day`: expected a date as a string such as 2026-01-31, found a number",
        ),
    ];
    for (member, reason) in wrong {
        refused(format!("{{\"s\":\"x\",{member}}}").as_bytes(), reason);
    }
}

#[test]
fn paths_go_through_objects_and_arrays() {
    accepted(
        r#"{"s":"x","items":[{"sku":"a","n":1},{"prices":[7,8]},{"sku":"c"}]}"#,
        json!({"s": "x", "sku": "a", "0": 7}),
    );
    // By number in an array, by name in an object.
    accepted(
        r#"{"s":"x","items":{"0":{"sku":"a"}}}"#,
        json!({"s": "x", "sku": "a"}),
    );
    for items in [
        "[]",
        "[null]",
        "[[]]",
        "null",
        "7",
        r#"[{"sku":null}]"#,
        r#"[1,{"prices":[]}]"#,
    ] {
        accepted(
            &format!("{{\"s\":\"x\",\"items\":{items}}}"),
            json!({"s": "x"}),
        );
    }
    refused(
        br#"{"s":"x","items":[{"sku":1}]}"#,
        "field `sku` (`items.0.sku`): expected a string, found a number",
    );
    refused(
        br#"{"s":"x","items":[1}"#,
        "not JSON: expected `,` or `]` at byte 20",
    );
    let mut required = decoder_of(&[("address.city", DataType::Utf8, false)]);
    for absent in [
        "{}",
        r#"{"address":null}"#,
        r#"{"address":{}}"#,
        r#"{"address":"Ulm"}"#,
    ] {
        let reason = required.push(absent.as_bytes()).unwrap_err();
        assert!(
            reason.starts_with("field `city` (`address.city`) is missing"),
            "{reason}"
        );
    }
    let reason = required.push(br#"{"address":{"city":null}}"#).unwrap_err();
    assert!(reason.contains("found null"), "{reason}");
}
