//! Columns to JSON: one object a row, every column in it, into one buffer with the end of each row noted.
//!
//! Nulls are null, times RFC 3339 in UTC, floats the shortest text that reads back the same (null if not finite), bytes
//! base64, decimals numbers with all digits of their scale, dates `2026-01-31`, lists arrays of their values by the same
//! rules. Types that no record has (they come from expressions) are written as a number or as Arrow's text for them.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, SchemaRef, TimeUnit,
    TimestampMicrosecondType, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{decimal, timestamp};

/// Writes rows of one schema as JSON objects, or as arrays.
#[derive(Debug, Clone)]
pub struct RowWriter {
    /// What stands before each column's value: `{"name":` or `,"name":`.
    prefixes: Vec<Vec<u8>>,
    /// What every row begins with: `{`, or a whole member.
    opening: Vec<u8>,
    closing: u8,
}

/// A column made ready: its values by type.
pub(super) struct Values {
    nulls: Option<NullBuffer>,
    typed: Typed,
}

enum Typed {
    Text(arrow::array::StringArray),
    Int(arrow::array::Int64Array),
    Unsigned(arrow::array::UInt64Array),
    Float(arrow::array::Float64Array),
    Bool(arrow::array::BooleanArray),
    Time(arrow::array::TimestampMicrosecondArray),
    Bytes(arrow::array::BinaryArray),
    /// Where each row's values start and end, and all values.
    List(OffsetBuffer<i32>, Box<Values>),
    Decimal(arrow::array::Decimal128Array, i8),
    Date(arrow::array::Date32Array),
    Other(ArrayRef),
}

impl RowWriter {
    pub fn new(schema: &SchemaRef) -> Self {
        Self::opened(schema, b"{".to_vec())
    }

    /// Each row begins with the member `name` of the text `value`: the column `step` of a sink with several inputs.
    pub fn with_leading(schema: &SchemaRef, name: &str, value: &str) -> Self {
        let mut opening = b"{".to_vec();
        write_text(name, &mut opening);
        opening.push(b':');
        write_text(value, &mut opening);
        Self::opened(schema, opening)
    }

    /// Each row is an array of its values.
    pub fn arrays(schema: &SchemaRef) -> Self {
        let columns = schema.fields().len();
        let prefixes = (0..columns).map(|column| if column == 0 { vec![] } else { vec![b','] });
        Self {
            prefixes: prefixes.collect(),
            opening: vec![b'['],
            closing: b']',
        }
    }

    fn opened(schema: &SchemaRef, opening: Vec<u8>) -> Self {
        let mut prefixes = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let mut prefix = Vec::new();
            if !prefixes.is_empty() || opening.len() > 1 {
                prefix.push(b',');
            }
            write_text(field.name(), &mut prefix);
            prefix.push(b':');
            prefixes.push(prefix);
        }
        Self {
            prefixes,
            opening,
            closing: b'}',
        }
    }

    /// Appends the rows to `out`, without newlines; `ends` gets where in `out` each ends.
    pub fn write(&self, columns: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        self.write_rows(columns, out, |out| ends.push(out.len()));
    }

    /// Appends the rows to `out`, a newline after each.
    pub fn write_lines(&self, columns: &RecordBatch, out: &mut Vec<u8>) {
        self.write_rows(columns, out, |out| out.push(b'\n'));
    }

    fn write_rows(
        &self,
        columns: &RecordBatch,
        out: &mut Vec<u8>,
        mut end: impl FnMut(&mut Vec<u8>),
    ) {
        assert_eq!(columns.num_columns(), self.prefixes.len());
        let values: Vec<_> = columns.columns().iter().map(Values::new).collect();
        for row in 0..columns.num_rows() {
            out.extend_from_slice(&self.opening);
            for (prefix, values) in self.prefixes.iter().zip(&values) {
                out.extend_from_slice(prefix);
                values.write(row, out);
            }
            out.push(self.closing);
            end(out);
        }
    }
}

/// Row `row` of `batch` as the text of a JSON object.
pub fn row_json(batch: &RecordBatch, row: usize) -> String {
    let mut out = Vec::new();
    RowWriter::new(&batch.schema()).write(&batch.slice(row, 1), &mut out, &mut Vec::new());
    String::from_utf8(out).expect("JSON is written from UTF-8 strings")
}

/// Appends `text` as a JSON string.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if ESCAPED[byte as usize] {
            out.extend_from_slice(&bytes[plain..index]);
            write_escape(byte, out);
            plain = index + 1;
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// The bytes that a JSON string cannot hold as they are.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

#[cold]
fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

impl Values {
    pub fn new(column: &ArrayRef) -> Self {
        // Other widths of the same kind become the one that records have; none of these casts can lose a value.
        let wide = match column.data_type() {
            DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
            DataType::LargeBinary | DataType::BinaryView => Some(DataType::Binary),
            DataType::Int8 | DataType::Int16 | DataType::Int32 => Some(DataType::Int64),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Some(DataType::Int64),
            DataType::Float16 | DataType::Float32 => Some(DataType::Float64),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                Some(DataType::Decimal128(*precision, *scale))
            }
            DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone) => {
                Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
            }
            _ => None,
        };
        let widened = wide.and_then(|to| cast(column, &to).ok());
        let column = widened.as_ref().unwrap_or(column);
        Self {
            nulls: column.logical_nulls(),
            typed: Typed::new(column),
        }
    }

    /// Appends the value of `row` as JSON.
    #[inline]
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.typed {
            Typed::Text(texts) => write_text(texts.value(row), out),
            Typed::Int(ints) => {
                out.extend_from_slice(itoa::Buffer::new().format(ints.value(row)).as_bytes());
            }
            Typed::Unsigned(ints) => {
                out.extend_from_slice(itoa::Buffer::new().format(ints.value(row)).as_bytes());
            }
            Typed::Float(floats) => write_float(floats.value(row), out),
            Typed::Bool(bits) => {
                let text: &[u8] = if bits.value(row) { b"true" } else { b"false" };
                out.extend_from_slice(text);
            }
            Typed::Time(times) => {
                out.push(b'"');
                timestamp::write(times.value(row), out);
                out.push(b'"');
            }
            Typed::Bytes(bytes) => write_base64(bytes.value(row), out),
            Typed::List(ends, values) => {
                out.push(b'[');
                for at in ends[row]..ends[row + 1] {
                    if at > ends[row] {
                        out.push(b',');
                    }
                    values.write(at as usize, out);
                }
                out.push(b']');
            }
            Typed::Decimal(values, scale) => decimal::write(values.value(row), *scale, out),
            Typed::Date(days) => {
                out.push(b'"');
                timestamp::write_date(days.value(row), out);
                out.push(b'"');
            }
            Typed::Other(array) => write_other(array, row, out),
        }
    }
}

impl Typed {
    fn new(column: &ArrayRef) -> Self {
        match column.data_type() {
            DataType::Utf8 => Self::Text(column.as_string().clone()),
            DataType::Int64 => Self::Int(column.as_primitive::<Int64Type>().clone()),
            DataType::UInt64 => Self::Unsigned(column.as_primitive::<UInt64Type>().clone()),
            DataType::Float64 => Self::Float(column.as_primitive::<Float64Type>().clone()),
            DataType::Boolean => Self::Bool(column.as_boolean().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Time(column.as_primitive::<TimestampMicrosecondType>().clone())
            }
            DataType::Binary => Self::Bytes(column.as_binary().clone()),
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                let values = Values::new(lists.values());
                Self::List(lists.offsets().clone(), Box::new(values))
            }
            DataType::Decimal128(_, scale) => {
                Self::Decimal(column.as_primitive::<Decimal128Type>().clone(), *scale)
            }
            DataType::Date32 => Self::Date(column.as_primitive::<Date32Type>().clone()),
            _ => Self::Other(column.clone()),
        }
    }
}

fn write_float(float: f64, out: &mut Vec<u8>) {
    if float.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(float).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn write_other(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    let options = FormatOptions::new().with_display_error(true);
    match ArrayFormatter::try_new(array, &options) {
        Ok(texts) => write_text(&texts.value(row).to_string(), out),
        Err(_) => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests;
