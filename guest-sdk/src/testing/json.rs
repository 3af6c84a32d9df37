//! Rows as JSON objects on one side, columns on the other.

use crate::bindings::{Column, ValueType, Values, VarValues};
use crate::bits::{Bits, is_set};
use crate::row::type_name;
use serde_json::{Value, json};

/// Builds a column. Timestamps are microseconds, bytes are lists of numbers; a null or absent value is null.
pub(crate) fn column(ty: ValueType, values: &[&Value]) -> Result<Column, String> {
    let mut validity = Bits::default();
    values
        .iter()
        .for_each(|value| validity.push(!value.is_null()));
    let wrong = |value: &Value| format!("{value} is not a {}", type_name(ty));
    let integers = || {
        values
            .iter()
            .map(|value| integer(value).ok_or_else(|| wrong(value)))
    };
    let built = match ty {
        ValueType::Boolean => {
            let mut bits = Bits::default();
            for value in values {
                bits.push(if value.is_null() {
                    false
                } else {
                    value.as_bool().ok_or_else(|| wrong(value))?
                });
            }
            Values::Boolean(bits.into_bytes())
        }
        ValueType::Int64 => Values::Int64(integers().collect::<Result<_, _>>()?),
        ValueType::Timestamp => Values::Timestamp(integers().collect::<Result<_, _>>()?),
        ValueType::Float64 => {
            let float = |value: &&Value| match value {
                Value::Null => Ok(0.0),
                value => value.as_f64().ok_or_else(|| wrong(value)),
            };
            Values::Float64(values.iter().map(float).collect::<Result<_, _>>()?)
        }
        ValueType::Utf8 | ValueType::Binary => {
            let mut built = VarValues {
                offsets: vec![0],
                data: Vec::new(),
            };
            for value in values {
                built
                    .data
                    .extend(bytes(ty, value).ok_or_else(|| wrong(value))?);
                built.offsets.push(built.data.len() as i32);
            }
            if ty == ValueType::Utf8 {
                Values::Utf8(built)
            } else {
                Values::Binary(built)
            }
        }
    };
    let validity = (!validity.all()).then(|| validity.into_bytes());
    Ok(Column {
        values: built,
        validity,
    })
}

fn integer(value: &Value) -> Option<i64> {
    if value.is_null() {
        Some(0)
    } else {
        value.as_i64()
    }
}

fn bytes(ty: ValueType, value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(text) if ty == ValueType::Utf8 => Some(text.clone().into_bytes()),
        Value::Array(items) if ty == ValueType::Binary => items
            .iter()
            .map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok()))
            .collect(),
        _ => None,
    }
}

/// How many values a column has room for; bits are counted in whole bytes.
pub(crate) fn capacity(column: &Column) -> usize {
    match &column.values {
        Values::Boolean(bits) => bits.len() * 8,
        Values::Int64(values) | Values::Timestamp(values) => values.len(),
        Values::Float64(values) => values.len(),
        Values::Utf8(values) | Values::Binary(values) => values.offsets.len() - 1,
    }
}

/// The value at a row.
pub(crate) fn value(column: &Column, row: usize) -> Value {
    if !is_set(column.validity.as_deref(), row) {
        return Value::Null;
    }
    let slice = |values: &VarValues| {
        let at = |i: usize| (values.offsets[i] - values.offsets[0]) as usize;
        values.data[at(row)..at(row + 1)].to_vec()
    };
    match &column.values {
        Values::Boolean(bits) => json!(is_set(Some(bits), row)),
        Values::Int64(values) | Values::Timestamp(values) => json!(values[row]),
        Values::Float64(values) => json!(values[row]),
        Values::Utf8(values) => {
            json!(String::from_utf8(slice(values)).expect("a text column is UTF-8"))
        }
        Values::Binary(values) => json!(slice(values)),
    }
}
