//! CSV records against what becomes of them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::*;
use crate::format::encode::row_json;

fn schema(nullable: bool) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = [
        ("s", DataType::Utf8),
        ("i", DataType::Int64),
        ("f", DataType::Float64),
        ("b", DataType::Boolean),
        ("t", time),
    ];
    let fields = fields.map(|(name, kind)| Field::new(name, kind, nullable));
    Arc::new(Schema::new(fields.to_vec()))
}

fn decoder(header: &str, schema: &SchemaRef) -> Result<CsvDecoder, String> {
    let paths: Vec<_> = schema
        .fields()
        .iter()
        .map(|f| vec![f.name().clone()])
        .collect();
    CsvDecoder::new(schema, &paths, None, header.as_bytes())
}

fn decode(nullable: bool, record: &str) -> Result<String, String> {
    let mut decoder = decoder(
        "\u{feff}i,extra,s,\"f\",b,t\r\n".trim_end_matches('\n'),
        &schema(nullable),
    )?;
    decoder
        .push(record.as_bytes())
        .inspect_err(|_| ())
        .map_err(|e| e.to_string())?;
    Ok(row_json(&decoder.finish(), 0))
}

#[test]
fn accepts() {
    let table = [
        (
            "1,?,x,2.5,true,2026-01-01T00:00:00Z",
            r#"{"s":"x","i":1,"f":2.5,"b":true,"t":"2026-01-01T00:00:00Z"}"#,
        ),
        (
            "-1,\",\",\"a \"\"b\"\",\nc\",1e3,false,\"2026-01-01T00:00:00.5+01:00\"\r",
            r#"{"s":"a \"b\",\nc","i":-1,"f":1000.0,"b":false,"t":"2025-12-31T23:00:00.500Z"}"#,
        ),
        (",,,,,", r#"{"s":null,"i":null,"f":null,"b":null,"t":null}"#),
        (
            ",,\"\",,,",
            r#"{"s":"","i":null,"f":null,"b":null,"t":null}"#,
        ),
    ];
    for (record, row) in table {
        assert_eq!(decode(true, record).as_deref(), Ok(row), "{record:?}");
    }
    let required = decode(false, "1,,,2,true,2026-01-01T00:00:00Z");
    assert!(required.unwrap().starts_with(r#"{"s":"","i":1,"#));
}

#[test]
fn refuses() {
    let table = [
        ("", "empty record"),
        ("1,2", "the record has 2 fields, the header 6"),
        ("1,,x,1,true,,", "the record has 7 fields, the header 6"),
        ("x,,,,,", "field `i`: expected an int, found `x`"),
        ("1.0,,,,,", "field `i`: expected an int, found `1.0`"),
        (" 1,,,,,", "field `i`: expected an int, found ` 1`"),
        (
            "9223372036854775808,,,,,",
            "field `i`: `9223372036854775808` does not fit into 64 bits",
        ),
        (",,,NaN,,", "field `f`: expected a float, found `NaN`"),
        (",,,inf,,", "field `f`: expected a float, found `inf`"),
        (",,,1e400,,", "field `f`: expected a float, found `1e400`"),
        (
            ",,,,yes,",
            "field `b`: expected a bool, found `yes`: `true` or `false`",
        ),
        (
            ",,,,,now",
            "field `t`: `now` is not an RFC 3339 timestamp such as 2026-01-01T00:00:00Z",
        ),
        (",,\"open,,,", "field 3 has no closing quote"),
        (
            ",,\"a\"b,,,",
            "field 3: `b,,,` follows its closing quote, expected a comma",
        ),
        (
            ",,5\" x,,,",
            "field 3: a quote in `5\\\" x`, which does not begin with one",
        ),
    ];
    for (record, reason) in table {
        assert_eq!(decode(true, record), Err(reason.to_owned()), "{record:?}");
    }
    assert_eq!(
        decode(false, ",,x,1,true,2026-01-01T00:00:00Z"),
        Err("field `i`: expected an int, found null (the type `int?` would allow null)".to_owned())
    );
}

#[test]
fn the_header_must_have_every_field_once() {
    let new = |header| decoder(header, &schema(true)).err().unwrap();
    assert_eq!(
        new("s,i,f,b"),
        "the header has no column `t`; it has `s`, `i`, `f`, `b`"
    );
    assert_eq!(new("s,i,f,b,t,i"), "the header has the column `i` twice");
    assert_eq!(new("s,i,f,b,\"t"), "header: field 5 has no closing quote");
    assert!(decoder("t,b,f,i,s", &schema(true)).is_ok());
}

#[test]
fn rows_are_exactly_the_accepted_records() {
    let mut decoder = decoder("s,i,f,b,t", &schema(true)).unwrap();
    for n in 0..20 {
        decoder.push(format!("row {n},{n},,,").as_bytes()).unwrap();
        decoder.push(b"left,1,1,true,never").unwrap_err();
        decoder.push(b"left,1,1").unwrap_err();
        decoder.push(b"undone,1,1,true,").unwrap();
        decoder.undo();
    }
    let batch = decoder.finish();
    assert_eq!(batch.num_rows(), 20);
    for row in 0..20 {
        let expected = format!(r#"{{"s":"row {row}","i":{row},"f":null,"b":null,"t":null}}"#);
        assert_eq!(row_json(&batch, row), expected);
    }
}
