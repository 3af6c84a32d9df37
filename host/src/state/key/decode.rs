//! Encoded keys back to columns, and to JSON for people.
//!
//! Bytes may come from disk: everything is checked, nothing is trusted to end where it should.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder,
    Int64Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{END, ESCAPED_ZERO, KeyEncoder, Kind, NULL, PRESENT, exact_cast};

impl KeyEncoder {
    /// The key's columns as JSON values: timestamps RFC 3339 UTC, bytes base64, decimals as text, non-finite floats null.
    /// `Err` if the bytes are not a key of these types.
    pub fn decode(&self, key: &[u8]) -> Result<Vec<Value>, String> {
        let columns = self.decode_stored(std::iter::once(key))?;
        (self.columns.iter().zip(columns))
            .map(|(column, stored)| json(&column.data_type, column.kind, &stored))
            .collect()
    }

    /// The key columns of `keys`, one row a key, in the types the encoder was made for. `Err` if one is not such a key.
    pub fn decode_columns<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, String> {
        let stored = self.decode_stored(keys)?;
        (self.columns.iter().zip(&stored))
            .map(|(column, array)| exact_cast(array, &column.data_type))
            .collect()
    }

    fn decode_stored<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, String> {
        let mut builders: Vec<Builder> =
            self.columns.iter().map(|c| Builder::new(c.kind)).collect();
        for key in keys {
            let mut rest = key;
            for builder in &mut builders {
                builder.read(&mut rest).ok_or_else(|| not_a_key(key))?;
            }
            if !rest.is_empty() {
                return Err(not_a_key(key));
            }
        }
        Ok(builders.into_iter().map(Builder::finish).collect())
    }
}

fn not_a_key(key: &[u8]) -> String {
    let shown = &key[..key.len().min(64)];
    format!("{shown:02x?} is not a key of the step's key columns")
}

enum Builder {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Unsigned(UInt64Builder),
    Float(Float64Builder),
    Decimal(Decimal128Builder, DataType),
    /// The second is room to take escapes out.
    Bytes(BinaryBuilder, Vec<u8>),
}

impl Builder {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Builder::Bool(BooleanBuilder::new()),
            Kind::Int => Builder::Int(Int64Builder::new()),
            Kind::Unsigned => Builder::Unsigned(UInt64Builder::new()),
            Kind::Float => Builder::Float(Float64Builder::new()),
            Kind::Decimal(..) => Builder::Decimal(Decimal128Builder::new(), kind.stored_type()),
            Kind::Bytes => Builder::Bytes(BinaryBuilder::new(), Vec::new()),
        }
    }

    /// Reads one value off the front of `rest`; `None` if it is not there.
    fn read(&mut self, rest: &mut &[u8]) -> Option<()> {
        match take(rest)? {
            [NULL] => self.append_null(),
            [PRESENT] => self.append_value(rest)?,
            _ => return None,
        }
        Some(())
    }

    fn append_null(&mut self) {
        match self {
            Builder::Bool(b) => b.append_null(),
            Builder::Int(b) => b.append_null(),
            Builder::Unsigned(b) => b.append_null(),
            Builder::Float(b) => b.append_null(),
            Builder::Decimal(b, _) => b.append_null(),
            Builder::Bytes(b, _) => b.append_null(),
        }
    }

    fn append_value(&mut self, rest: &mut &[u8]) -> Option<()> {
        match self {
            Builder::Bool(b) => match take(rest)? {
                [0] => b.append_value(false),
                [1] => b.append_value(true),
                _ => return None,
            },
            Builder::Int(b) => b.append_value((u64::from_be_bytes(take(rest)?) ^ (1 << 63)) as i64),
            Builder::Unsigned(b) => b.append_value(u64::from_be_bytes(take(rest)?)),
            Builder::Float(b) => b.append_value(unordered(u64::from_be_bytes(take(rest)?))),
            Builder::Decimal(b, _) => {
                b.append_value((u128::from_be_bytes(take(rest)?) ^ (1 << 127)) as i128)
            }
            Builder::Bytes(b, unescaped) => {
                unescaped.clear();
                take_escaped(rest, unescaped)?;
                b.append_value(unescaped);
            }
        }
        Some(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Bool(mut b) => Arc::new(b.finish()),
            Builder::Int(mut b) => Arc::new(b.finish()),
            Builder::Unsigned(mut b) => Arc::new(b.finish()),
            Builder::Float(mut b) => Arc::new(b.finish()),
            Builder::Decimal(mut b, data_type) => Arc::new(b.finish().with_data_type(data_type)),
            Builder::Bytes(mut b, _) => Arc::new(b.finish()),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (value, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*value)
}

fn take_escaped(rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    loop {
        let zero = rest.iter().position(|&b| b == 0)?;
        out.extend_from_slice(&rest[..zero]);
        *rest = &rest[zero..];
        match take(rest)? {
            END => return Some(()),
            ESCAPED_ZERO => out.push(0),
            _ => return None,
        }
    }
}

fn unordered(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 {
        bits ^ (1 << 63)
    } else {
        !bits
    })
}

/// The only value of `stored`, a column of one row whose type in the step is `data_type`.
fn json(data_type: &DataType, kind: Kind, stored: &ArrayRef) -> Result<Value, String> {
    if stored.is_null(0) {
        return Ok(Value::Null);
    }
    Ok(match (data_type, kind) {
        (DataType::Timestamp(unit, _), _) => {
            // Without its zone, which is UTC always, a timestamp needs no zone database to be shown.
            let time = exact_cast(stored, &DataType::Timestamp(*unit, None))?;
            text(&time).map_or_else(
                |_| Value::from(stored.as_primitive::<Int64Type>().value(0)),
                |t| Value::from(t + "Z"),
            )
        }
        (DataType::Date32, _) => Value::from(text(&exact_cast(stored, data_type)?)?),
        (DataType::Utf8 | DataType::LargeUtf8, _) => {
            Value::from(text(&exact_cast(stored, &DataType::Utf8)?)?)
        }
        (_, Kind::Bool) => Value::from(stored.as_boolean().value(0)),
        (_, Kind::Int) => Value::from(stored.as_primitive::<Int64Type>().value(0)),
        (_, Kind::Unsigned) => Value::from(stored.as_primitive::<UInt64Type>().value(0)),
        (_, Kind::Float) => Value::from(stored.as_primitive::<Float64Type>().value(0)),
        (_, Kind::Decimal(..)) => Value::from(text(stored)?),
        (_, Kind::Bytes) => Value::from(STANDARD.encode(stored.as_binary::<i32>().value(0))),
    })
}

fn text(array: &ArrayRef) -> Result<String, String> {
    let formatter =
        ArrayFormatter::try_new(array, &FormatOptions::default()).map_err(|e| e.to_string())?;
    formatter
        .value(0)
        .try_to_string()
        .map_err(|e| e.to_string())
}
