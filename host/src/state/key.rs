//! Keys as bytes: one documented encoding (`docs/state-format.md`), its hash and the key group that follows from it.
//!
//! Not a hash table and no state. Invariant: two rows have the same bytes exactly if all their key columns are equal
//! (null equals null, `-0.0` equals `0.0`, every NaN equals every other), and bytes order as the columns do. It is a disk
//! format: a change of a single byte raises [`super::FORMAT`].

mod decode;
#[cfg(test)]
mod tests;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, PrimitiveArray};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::KEY_BYTES_MAX;

const NULL: u8 = 0;
const PRESENT: u8 = 1;
/// A zero byte inside a string is written as `00 FF`; the string ends with `00 00`.
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xFF];
const END: [u8; 2] = [0x00, 0x00];

/// Encodes the key columns of a batch, one key a row, into buffers it keeps.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, StringArray};
/// # use arrow::datatypes::DataType;
/// # use tidemill::state::key::KeyEncoder;
/// let mut encoder = KeyEncoder::new(&[DataType::Utf8]).unwrap();
/// let column: ArrayRef = Arc::new(StringArray::from(vec!["ab"]));
/// assert_eq!(encoder.encode(&[column], 1).key(0), [1, b'a', b'b', 0, 0]);
/// ```
#[derive(Debug)]
pub struct KeyEncoder {
    columns: Vec<KeyColumn>,
    keys: EncodedKeys,
}

/// One key a row and its xxh3-64 hash.
#[derive(Debug)]
pub struct EncodedKeys {
    bytes: Vec<u8>,
    /// Key `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    offsets: Vec<usize>,
    hashes: Vec<u64>,
}

/// The key group of a hash: the unit that moves between workers.
pub fn key_group(hash: u64, key_groups: u16) -> u16 {
    (hash % u64::from(key_groups)) as u16
}

/// Hash of an encoded key: xxh3-64, seed 0.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

#[derive(Debug, Clone)]
struct KeyColumn {
    /// Type of the column as the step has it.
    data_type: DataType,
    kind: Kind,
}

/// How the values of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Unsigned,
    Float,
    Decimal(u8, i8),
    Bytes,
}

impl KeyEncoder {
    /// An encoder for key columns of these types. `Err` names the type that cannot be a key.
    pub fn new(types: &[DataType]) -> Result<Self, String> {
        let columns = types.iter().map(KeyColumn::new).collect::<Result<_, _>>()?;
        Ok(Self {
            columns,
            keys: EncodedKeys::new(),
        })
    }

    /// The keys of `rows` rows, valid until the next call.
    ///
    /// # Panics
    /// If the number, length or types of `columns` are not those the encoder was made for.
    pub fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> &EncodedKeys {
        assert_eq!(columns.len(), self.columns.len(), "key columns");
        let arrays: Vec<ArrayRef> = (self.columns.iter().zip(columns))
            .map(|(column, array)| {
                assert_eq!(array.len(), rows, "rows of a key column");
                column.stored(array)
            })
            .collect();
        self.keys.clear(rows);
        if let (
            [array],
            [
                KeyColumn {
                    kind: Kind::Bytes, ..
                },
            ],
        ) = (&arrays[..], &self.columns[..])
        {
            self.keys.push_bytes_column(array.as_binary::<i32>());
        } else {
            let views: Vec<View> = (self.columns.iter().zip(&arrays))
                .map(|(column, array)| View::new(column.kind, array))
                .collect();
            for row in 0..rows {
                for view in &views {
                    view.push(row, &mut self.keys.bytes);
                }
                self.keys.end_key();
            }
        }
        &self.keys
    }
}

impl EncodedKeys {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            offsets: vec![0],
            hashes: Vec::new(),
        }
    }

    /// Number of keys: the rows encoded last.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    pub fn key(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row]..self.offsets[row + 1]]
    }

    pub fn hash(&self, row: usize) -> u64 {
        self.hashes[row]
    }

    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Rows whose key is longer than [`KEY_BYTES_MAX`]: a step refuses them before it asks for state.
    pub fn too_long(&self) -> impl Iterator<Item = usize> {
        // One long key makes the whole buffer long: the common batch is cleared by one comparison.
        let rows = if self.bytes.len() > KEY_BYTES_MAX {
            self.len()
        } else {
            0
        };
        (0..rows).filter(|&row| self.offsets[row + 1] - self.offsets[row] > KEY_BYTES_MAX)
    }

    fn clear(&mut self, rows: usize) {
        self.bytes.clear();
        self.offsets.clear();
        self.offsets.reserve(rows + 1);
        self.offsets.push(0);
        self.hashes.clear();
        self.hashes.reserve(rows);
    }

    fn end_key(&mut self) {
        let start = *self.offsets.last().expect("offsets start with 0");
        self.hashes.push(key_hash(&self.bytes[start..]));
        self.offsets.push(self.bytes.len());
    }

    /// The usual key, one string: looks for zero bytes once a batch instead of once a value.
    fn push_bytes_column(&mut self, array: &BinaryArray) {
        let offsets = array.value_offsets();
        let data = &array.value_data()[offsets[0] as usize..offsets[array.len()] as usize];
        let escape = data.contains(&0);
        self.bytes.reserve(data.len() + 3 * array.len());
        for row in 0..array.len() {
            if array.is_null(row) {
                self.bytes.push(NULL);
            } else if escape {
                self.bytes.push(PRESENT);
                push_escaped(array.value(row), &mut self.bytes);
            } else {
                self.bytes.push(PRESENT);
                self.bytes.extend_from_slice(array.value(row));
                self.bytes.extend_from_slice(&END);
            }
            self.end_key();
        }
    }
}

impl KeyColumn {
    fn new(data_type: &DataType) -> Result<Self, String> {
        use DataType::*;
        let kind = match data_type {
            Boolean => Kind::Bool,
            Int8 | Int16 | Int32 | Int64 | Date32 | Timestamp(_, _) => Kind::Int,
            UInt8 | UInt16 | UInt32 | UInt64 => Kind::Unsigned,
            Float32 | Float64 => Kind::Float,
            Decimal128(precision, scale) => Kind::Decimal(*precision, *scale),
            Utf8 | LargeUtf8 | Binary | LargeBinary => Kind::Bytes,
            _ => return Err(format!("a column of type {data_type} cannot be a key")),
        };
        let stored = kind.stored_type();
        if !can_cast_types(data_type, &stored) || !can_cast_types(&stored, data_type) {
            return Err(format!("a column of type {data_type} cannot be a key"));
        }
        Ok(Self {
            data_type: data_type.clone(),
            kind,
        })
    }

    /// The column in the one type its kind is written from; free for strings, timestamps and 64-bit numbers.
    fn stored(&self, array: &ArrayRef) -> ArrayRef {
        assert_eq!(array.data_type(), &self.data_type, "type of a key column");
        exact_cast(array, &self.kind.stored_type()).expect("checked when the encoder was made")
    }
}

impl Kind {
    fn stored_type(self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int => DataType::Int64,
            Kind::Unsigned => DataType::UInt64,
            Kind::Float => DataType::Float64,
            Kind::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
            Kind::Bytes => DataType::Binary,
        }
    }
}

/// A cast that fails rather than make a null of what does not fit.
fn exact_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, to, &options).map_err(|e| e.to_string())
}

/// A column as the row loop reads it.
enum View<'a> {
    Bool(&'a BooleanArray),
    Int(&'a PrimitiveArray<Int64Type>),
    Unsigned(&'a PrimitiveArray<UInt64Type>),
    Float(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>),
    Bytes(&'a BinaryArray),
}

impl<'a> View<'a> {
    fn new(kind: Kind, array: &'a ArrayRef) -> Self {
        match kind {
            Kind::Bool => View::Bool(array.as_boolean()),
            Kind::Int => View::Int(array.as_primitive()),
            Kind::Unsigned => View::Unsigned(array.as_primitive()),
            Kind::Float => View::Float(array.as_primitive()),
            Kind::Decimal(..) => View::Decimal(array.as_primitive()),
            Kind::Bytes => View::Bytes(array.as_binary()),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            View::Bool(a) => a.is_null(row),
            View::Int(a) => a.is_null(row),
            View::Unsigned(a) => a.is_null(row),
            View::Float(a) => a.is_null(row),
            View::Decimal(a) => a.is_null(row),
            View::Bytes(a) => a.is_null(row),
        }
    }

    fn push(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return out.push(NULL);
        }
        out.push(PRESENT);
        match self {
            View::Bool(a) => out.push(u8::from(a.value(row))),
            View::Int(a) => out.extend_from_slice(&flip_int(a.value(row)).to_be_bytes()),
            View::Unsigned(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
            View::Float(a) => out.extend_from_slice(&order_float(a.value(row)).to_be_bytes()),
            View::Decimal(a) => out.extend_from_slice(&flip_decimal(a.value(row)).to_be_bytes()),
            View::Bytes(a) => push_escaped(a.value(row), out),
        }
    }
}

fn push_escaped(value: &[u8], out: &mut Vec<u8>) {
    let mut parts = value.split(|&b| b == 0);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&ESCAPED_ZERO);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&END);
}

/// With the sign bit flipped, big-endian bytes order as the numbers do.
pub(super) fn flip_int(value: i64) -> u64 {
    (value as u64) ^ (1 << 63)
}

fn flip_decimal(value: i128) -> u128 {
    (value as u128) ^ (1 << 127)
}

/// IEEE 754 total order as an unsigned number, of one zero and one NaN.
fn order_float(value: f64) -> u64 {
    let value = match value {
        v if v.is_nan() => f64::NAN,
        // Matches both zeros.
        0.0 => 0.0,
        v => v,
    };
    let bits = value.to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | (1 << 63)
    }
}
