//! The key columns of a step: from a checkpoint's signature, to and from what people write.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::timestamp;
use crate::state::key::KeyEncoder;

/// A key column as the pipeline file would write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
}

pub struct KeyColumns {
    columns: Vec<Column>,
    /// `None`: of a type that this version does not know.
    types: Option<Vec<DataType>>,
}

impl KeyColumns {
    /// `signature`: names and types of the columns.
    pub fn new(signature: &[Value]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let column = |column: &Value| Column {
            name: text(&column["name"]),
            ty: text(&column["type"]),
        };
        let columns: Vec<Column> = signature.iter().map(column).collect();
        Self {
            types: columns.iter().map(|c| data_type(&c.ty)).collect(),
            columns,
        }
    }

    pub fn columns(&self) -> Vec<Column> {
        self.columns.clone()
    }

    /// The columns of an encoded key; a key that cannot be told is one text, its bytes in base64.
    pub fn decode(&self, key: &[u8]) -> Vec<Value> {
        let encoder = self.types.as_ref().map(|types| KeyEncoder::new(types));
        match encoder {
            Some(Ok(encoder)) => encoder.decode(key).unwrap_or_else(|_| bytes(key)),
            _ => bytes(key),
        }
    }

    /// The encoded key that `text` names: JSON, a value or an array of one for each column; or plain text, where there is
    /// one column that is no number.
    pub fn parse(&self, text: &str) -> Result<Vec<u8>, String> {
        let types = self.types()?;
        let values = self.values(text)?;
        let mut arrays = Vec::new();
        for ((column, ty), value) in self.columns.iter().zip(types).zip(&values) {
            let array = array(ty, value).map_err(|why| {
                format!(
                    "{value} is no {} for key column {}: {why}",
                    column.ty, column.name
                )
            })?;
            arrays.push(array);
        }
        let mut encoder = KeyEncoder::new(types)?;
        Ok(encoder.encode(&arrays, 1).key(0).to_vec())
    }

    /// What encoded keys begin with whose first column is a text that begins with `text`.
    pub fn prefix(&self, text: &str) -> Result<Vec<u8>, String> {
        let Some([DataType::Utf8, ..]) = self.types.as_deref() else {
            return Err(format!(
                "a prefix wants a text as first key column; its key is {}",
                self.shown()
            ));
        };
        let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let mut encoder = KeyEncoder::new(&[DataType::Utf8])?;
        let mut key = encoder.encode(&[column], 1).key(0).to_vec();
        // Without the two bytes that end a text.
        key.truncate(key.len() - 2);
        Ok(key)
    }

    fn types(&self) -> Result<&[DataType], String> {
        let unknown = || {
            format!(
                "its key {} is of types that keys cannot be given in",
                self.shown()
            )
        };
        self.types.as_deref().ok_or_else(unknown)
    }

    fn values(&self, text: &str) -> Result<Vec<Value>, String> {
        let wrong = |why: &str| {
            let example: Vec<&str> = self.columns.iter().map(|c| example(&c.ty)).collect();
            let example = example.join(", ");
            format!(
                "{why}; its key is {}, written as JSON: '[{example}]'",
                self.shown()
            )
        };
        let json = serde_json::from_str(text);
        match (json, &self.columns[..]) {
            (Ok(Value::Array(values)), columns) if values.len() == columns.len() => Ok(values),
            (Ok(Value::Array(values)), columns) => Err(wrong(&format!(
                "{} values for {} key columns",
                values.len(),
                columns.len()
            ))),
            (Ok(value @ (Value::String(_) | Value::Null)), [_]) => Ok(vec![value]),
            // Digits may be a text all the same.
            (_, [column]) if column.ty == "string" => Ok(vec![text.into()]),
            (Ok(value), [_]) => Ok(vec![value]),
            (Err(_), [_]) => Ok(vec![text.into()]),
            (_, columns) => Err(wrong(&format!(
                "one value for {} key columns",
                columns.len()
            ))),
        }
    }

    fn shown(&self) -> String {
        let columns = self.columns.iter().map(|c| format!("{} {}", c.name, c.ty));
        format!("({})", columns.collect::<Vec<_>>().join(", "))
    }
}

fn bytes(key: &[u8]) -> Vec<Value> {
    vec![Value::from(STANDARD.encode(key))]
}

/// The type of a name that a signature has.
fn data_type(name: &str) -> Option<DataType> {
    Some(match name {
        "string" => DataType::Utf8,
        "int" => DataType::Int64,
        "float" => DataType::Float64,
        "bool" => DataType::Boolean,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "bytes" => DataType::Binary,
        "date" => DataType::Date32,
        other => match other
            .strip_prefix("decimal(")
            .and_then(|o| o.strip_suffix(')'))
        {
            Some(digits) => {
                let (precision, scale) = digits.split_once(',')?;
                DataType::Decimal128(precision.parse().ok()?, scale.parse().ok()?)
            }
            None => other.parse().ok()?,
        },
    })
}

fn example(ty: &str) -> &'static str {
    match ty {
        "string" => "\"text\"",
        "int" => "1",
        "float" => "1.5",
        "bool" => "true",
        "timestamp" => "\"2026-01-01T00:00:00Z\"",
        "bytes" => "\"base64\"",
        "date" => "\"2026-01-01\"",
        _ => "\"1.50\"",
    }
}

/// A column of one row.
fn array(ty: &DataType, value: &Value) -> Result<ArrayRef, String> {
    let text = match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    };
    let needs = |what: &str| format!("write {what}");
    let null = value.is_null();
    Ok(match ty {
        _ if null => arrow::array::new_null_array(ty, 1),
        DataType::Utf8 => {
            let text = text.ok_or_else(|| needs("a text in quotes"))?;
            Arc::new(StringArray::from(vec![text]))
        }
        DataType::Boolean => {
            let value = value.as_bool().ok_or_else(|| needs("true or false"))?;
            Arc::new(BooleanArray::from(vec![value]))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let time = text.and_then(|t| timestamp::parse(t.as_bytes()));
            let time = time.ok_or_else(|| needs("a time such as \"2026-01-01T00:00:00Z\""))?;
            Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC"))
        }
        DataType::Date32 => {
            let days = text.and_then(|t| timestamp::parse_date(t.as_bytes()));
            let days = days.ok_or_else(|| needs("a date such as \"2026-01-01\""))?;
            Arc::new(Date32Array::from(vec![days]))
        }
        DataType::Binary => {
            let bytes = text.and_then(|t| STANDARD.decode(t).ok());
            let bytes = bytes.ok_or_else(|| needs("base64"))?;
            Arc::new(BinaryArray::from(vec![bytes.as_slice()]))
        }
        _ => {
            let number = text.map_or_else(|| value.to_string(), str::to_owned);
            let number: ArrayRef = Arc::new(StringArray::from(vec![number]));
            let exact = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            cast_with_options(&number, ty, &exact).map_err(|e| e.to_string())?
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns(types: &[&str]) -> KeyColumns {
        let column = |(i, ty): (usize, &&str)| json!({ "name": format!("k{i}"), "type": ty });
        KeyColumns::new(&types.iter().enumerate().map(column).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for (types, text, expected) in [
            (&["string"][..], "u1", json!(["u1"])),
            (&["string"], "17", json!(["17"])),
            (&["string"], "true", json!(["true"])),
            (&["string"], "\"u 1\"", json!(["u 1"])),
            (&["string"], "[\"u1\"]", json!(["u1"])),
            (&["string"], "null", json!([null])),
            (&["string"], "{\"a\":1}", json!(["{\"a\":1}"])),
            (&["int"], "-17", json!([-17])),
            (&["float"], "1.5", json!([1.5])),
            (&["float"], "2", json!([2.0])),
            (&["bool"], "true", json!([true])),
            (
                &["timestamp"],
                "2026-01-01T00:00:00Z",
                json!(["2026-01-01T00:00:00Z"]),
            ),
            (
                &["timestamp"],
                "\"2026-01-01T01:00:00+01:00\"",
                json!(["2026-01-01T00:00:00Z"]),
            ),
            (&["date"], "2026-02-03", json!(["2026-02-03"])),
            (&["bytes"], "\"AAE=\"", json!(["AAE="])),
            (&["decimal(10,2)"], "\"12.50\"", json!(["12.50"])),
            (&["decimal(10,2)"], "12.5", json!(["12.50"])),
            (&["Int32"], "7", json!([7])),
            (&["string", "int"], "[\"u1\", 7]", json!(["u1", 7])),
            (
                &["string", "timestamp"],
                "[null, \"2026-01-01T00:00:00Z\"]",
                json!([null, "2026-01-01T00:00:00Z"]),
            ),
            (&[], "[]", json!([])),
        ] {
            let columns = columns(types);
            let key = columns
                .parse(text)
                .unwrap_or_else(|e| panic!("{types:?} {text}: {e}"));
            assert_eq!(
                Value::Array(columns.decode(&key)),
                expected,
                "{types:?} {text}"
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_an_example() {
        for (types, text, part) in [
            (&["int"][..], "u1", "is no int for key column k0"),
            (&["int"], "1.5", "is no int for key column k0"),
            (&["bool"], "1", "write true or false"),
            (&["timestamp"], "now", "write a time such as"),
            (&["date"], "7", "write a date such as"),
            (&["bytes"], "\"%\"", "write base64"),
            (&["string"], "[1]", "write a text in quotes"),
            (&["string"], "[]", "0 values for 1 key columns"),
            (
                &["string", "int"],
                "u1",
                "its key is (k0 string, k1 int), written as JSON: '[\"text\", 1]'",
            ),
            (&["string", "int"], "[\"u1\"]", "1 values for 2 key columns"),
            (&["no such type"], "1", "types that keys cannot be given in"),
        ] {
            let error = columns(types).parse(text).unwrap_err();
            assert!(error.contains(part), "{types:?} {text}: {error}");
        }
    }

    #[test]
    fn prefixes_are_of_texts() {
        let two = columns(&["string", "int"]);
        let key = two.parse("[\"u1\", 7]").unwrap();
        assert!(key.starts_with(&two.prefix("u").unwrap()));
        assert!(key.starts_with(&two.prefix("").unwrap()));
        assert!(!key.starts_with(&two.prefix("u2").unwrap()));
        assert!(columns(&["int"]).prefix("1").is_err());
    }

    #[test]
    fn bytes_that_are_no_key_are_shown_as_they_are() {
        assert_eq!(columns(&["int"]).decode(&[1, 2]), [json!("AQI=")]);
        assert_eq!(columns(&["no such type"]).decode(&[1, 2]), [json!("AQI=")]);
    }
}
