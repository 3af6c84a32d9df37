//! Arrow columns to the layout of `wit/columns.wit` and back.
//!
//! Into a plugin nothing is copied but bitmaps that do not start on a byte: a lowered column borrows the Arrow buffers.
//! Out of a plugin nothing is trusted: [`lift`] gives an Arrow array or says what is wrong with the column.
//! Invariant: an array made here satisfies all that Arrow demands of it, whatever the plugin returned.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};

use super::wire::{self, Column, ColumnIn, ValueType, Values, ValuesIn, Var, VarIn};

/// The plugin type of an Arrow type; `None` for those that cannot cross.
pub fn value_type(data_type: &DataType) -> Option<ValueType> {
    Some(match data_type {
        DataType::Boolean => ValueType::Boolean,
        DataType::Int64 => ValueType::Int64,
        DataType::Float64 => ValueType::Float64,
        DataType::Timestamp(TimeUnit::Microsecond, _) => ValueType::Timestamp,
        DataType::Utf8 => ValueType::Utf8,
        DataType::Binary => ValueType::Binary,
        _ => return None,
    })
}

/// The Arrow type of a plugin type.
pub fn data_type(ty: ValueType) -> DataType {
    match ty {
        ValueType::Boolean => DataType::Boolean,
        ValueType::Int64 => DataType::Int64,
        ValueType::Float64 => DataType::Float64,
        ValueType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ValueType::Utf8 => DataType::Utf8,
        ValueType::Binary => DataType::Binary,
    }
}

/// A planned column as an Arrow field.
pub fn field(planned: &wire::Field) -> FieldRef {
    Arc::new(Field::new(
        &planned.name,
        data_type(planned.ty),
        planned.nullable,
    ))
}

/// A column whose bitmaps are byte aligned, ready to be borrowed by [`ColumnIn`].
pub struct Lowered<'a> {
    values: LoweredValues<'a>,
    validity: Option<Cow<'a, [u8]>>,
}

enum LoweredValues<'a> {
    Bits(Cow<'a, [u8]>),
    Plain(ValuesIn<'a>),
}

impl Lowered<'_> {
    pub fn column(&self) -> ColumnIn<'_> {
        ColumnIn {
            values: match &self.values {
                LoweredValues::Bits(bits) => ValuesIn::Boolean(bits),
                LoweredValues::Plain(values) => *values,
            },
            validity: self.validity.as_deref(),
        }
    }
}

/// All columns of a batch. Panics if one has a type that cannot cross: `plan.rs` lets none through.
pub fn lower_batch(batch: &RecordBatch) -> Vec<Lowered<'_>> {
    batch.columns().iter().map(|c| lower(c)).collect()
}

/// Panics if the array has a type that cannot cross.
pub fn lower(array: &dyn Array) -> Lowered<'_> {
    let any = array.as_any();
    let values = match array.data_type() {
        DataType::Boolean => LoweredValues::Bits(bits(cast::<BooleanArray>(any).values())),
        DataType::Int64 => LoweredValues::Plain(ValuesIn::Int64(cast::<Int64Array>(any).values())),
        DataType::Float64 => {
            LoweredValues::Plain(ValuesIn::Float64(cast::<Float64Array>(any).values()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => LoweredValues::Plain(ValuesIn::Timestamp(
            cast::<TimestampMicrosecondArray>(any).values(),
        )),
        DataType::Utf8 => {
            let strings = cast::<StringArray>(any);
            LoweredValues::Plain(ValuesIn::Utf8(var(
                strings.value_offsets(),
                strings.value_data(),
            )))
        }
        DataType::Binary => {
            let bytes = cast::<BinaryArray>(any);
            LoweredValues::Plain(ValuesIn::Binary(var(
                bytes.value_offsets(),
                bytes.value_data(),
            )))
        }
        other => panic!("a column of type {other} was let through to a plugin"),
    };
    Lowered {
        values,
        validity: array
            .nulls()
            .filter(|n| n.null_count() > 0)
            .map(|n| bits(n.inner())),
    }
}

fn cast<T: 'static>(any: &dyn std::any::Any) -> &T {
    any.downcast_ref().expect("an array is of its data type")
}

fn var<'a>(offsets: &'a [i32], data: &'a [u8]) -> VarIn<'a> {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    VarIn {
        offsets,
        data: &data[first as usize..last as usize],
    }
}

/// The bits from the first byte on; bits beyond the length are zero, so that equal rows lower to equal bytes.
fn bits(buffer: &BooleanBuffer) -> Cow<'_, [u8]> {
    let len = buffer.len().div_ceil(8);
    if !buffer.offset().is_multiple_of(8) {
        let mut copy = buffer.sliced().as_slice()[..len].to_vec();
        clear_tail(&mut copy, buffer.len());
        return Cow::Owned(copy);
    }
    let start = buffer.offset() / 8;
    let bytes = &buffer.values()[start..start + len];
    match bytes.last() {
        Some(last) if last & !tail_mask(buffer.len()) != 0 => {
            let mut copy = bytes.to_vec();
            clear_tail(&mut copy, buffer.len());
            Cow::Owned(copy)
        }
        _ => Cow::Borrowed(bytes),
    }
}

fn tail_mask(len: usize) -> u8 {
    match len % 8 {
        0 => 0xff,
        used => (1 << used) - 1,
    }
}

fn clear_tail(bytes: &mut [u8], len: usize) {
    if let Some(last) = bytes.last_mut() {
        *last &= tail_mask(len);
    }
}

/// One bit each, least significant first.
pub fn pack(flags: &[bool]) -> Vec<u8> {
    flags
        .chunks(8)
        .map(|eight| {
            eight
                .iter()
                .enumerate()
                .fold(0, |byte, (i, &set)| byte | (u8::from(set) << i))
        })
        .collect()
}

/// `len` flags out of a bitmap of exactly that many bits, rounded up to bytes.
pub fn unpack(what: &str, bits: &[u8], len: usize) -> Result<Vec<bool>, String> {
    expect_bytes(what, bits, len)?;
    Ok((0..len).map(|i| bits[i / 8] >> (i % 8) & 1 == 1).collect())
}

fn expect_bytes(what: &str, bits: &[u8], len: usize) -> Result<(), String> {
    let expected = len.div_ceil(8);
    if bits.len() == expected {
        return Ok(());
    }
    Err(format!(
        "{what} has {} bytes, {len} bits need {expected}",
        bits.len()
    ))
}

/// A column of `rows` rows as an array of `field`'s type, or what is wrong with it.
pub fn lift(column: Column, field: &Field, rows: usize) -> Result<ArrayRef, String> {
    lift_values(column, field.data_type(), rows)
        .and_then(|array| match array.null_count() {
            0 => Ok(array),
            _ if field.is_nullable() => Ok(array),
            nulls => Err(format!("has {nulls} nulls, but was planned without")),
        })
        .map_err(|cause| format!("column `{}`: {cause}", field.name()))
}

/// A column of whatever type it is of.
pub fn lift_any(column: Column, rows: usize) -> Result<ArrayRef, String> {
    let ty = data_type(type_of(&column.values));
    lift_values(column, &ty, rows)
}

/// Rows of a column, if it is of one length at all.
pub fn rows_of(column: &Column) -> usize {
    match &column.values {
        Values::Boolean(bits) => bits.len() * 8,
        Values::Int64(v) | Values::Timestamp(v) => v.len(),
        Values::Float64(v) => v.len(),
        Values::Utf8(v) | Values::Binary(v) => v.offsets.len().saturating_sub(1),
    }
}

fn type_of(values: &Values) -> ValueType {
    match values {
        Values::Boolean(_) => ValueType::Boolean,
        Values::Int64(_) => ValueType::Int64,
        Values::Float64(_) => ValueType::Float64,
        Values::Timestamp(_) => ValueType::Timestamp,
        Values::Utf8(_) => ValueType::Utf8,
        Values::Binary(_) => ValueType::Binary,
    }
}

fn lift_values(column: Column, expected: &DataType, rows: usize) -> Result<ArrayRef, String> {
    let found = data_type(type_of(&column.values));
    if found != *expected {
        return Err(format!("is of type {found}, planned was {expected}"));
    }
    let nulls = validity(column.validity, rows)?;
    Ok(match column.values {
        Values::Boolean(packed) => {
            expect_bytes("its values", &packed, rows)?;
            let values = BooleanBuffer::new(Buffer::from_vec(packed), 0, rows);
            Arc::new(BooleanArray::new(values, nulls))
        }
        Values::Int64(v) => Arc::new(Int64Array::new(scalars(v, rows)?, nulls)),
        Values::Float64(v) => Arc::new(Float64Array::new(scalars(v, rows)?, nulls)),
        Values::Timestamp(v) => {
            Arc::new(TimestampMicrosecondArray::new(scalars(v, rows)?, nulls).with_timezone("UTC"))
        }
        Values::Utf8(v) => {
            let (offsets, data) = offsets(v, rows)?;
            Arc::new(
                StringArray::try_new(offsets, data, nulls)
                    .map_err(|e| format!("is not UTF-8: {e}"))?,
            )
        }
        Values::Binary(v) => {
            let (offsets, data) = offsets(v, rows)?;
            Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(|e| e.to_string())?)
        }
    })
}

fn validity(bits: Option<Vec<u8>>, rows: usize) -> Result<Option<NullBuffer>, String> {
    let Some(bits) = bits else { return Ok(None) };
    expect_bytes("its validity", &bits, rows)?;
    let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, rows));
    Ok(Some(nulls).filter(|n| n.null_count() > 0))
}

fn scalars<T: arrow::datatypes::ArrowNativeType>(
    values: Vec<T>,
    rows: usize,
) -> Result<ScalarBuffer<T>, String> {
    if values.len() != rows {
        return Err(format!("has {} values for {rows} rows", values.len()));
    }
    Ok(values.into())
}

fn offsets(values: Var, rows: usize) -> Result<(OffsetBuffer<i32>, Buffer), String> {
    let (offsets, data) = check_var(values, rows)?;
    Ok((OffsetBuffer::new(offsets.into()), Buffer::from_vec(data)))
}

/// Offsets from 0 on and the data they span, once they are known to be `count` ascending ranges within the data.
pub fn check_var(values: Var, count: usize) -> Result<(Vec<i32>, Vec<u8>), String> {
    let Var {
        mut offsets,
        mut data,
    } = values;
    if offsets.len() != count + 1 {
        return Err(format!(
            "has {} offsets, {count} values need {}",
            offsets.len(),
            count + 1
        ));
    }
    if let Some(i) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(format!("its offsets fall from value {i} to the next"));
    }
    let first = offsets[0];
    let span = i64::from(offsets[count]) - i64::from(first);
    if first < 0 || span > data.len() as i64 {
        return Err(format!(
            "its offsets {first}..{} are not within its {} bytes",
            offsets[count],
            data.len()
        ));
    }
    data.truncate(span as usize);
    if first != 0 {
        offsets.iter_mut().for_each(|o| *o -= first);
    }
    Ok((offsets, data))
}

/// An array as the host hands it back from a call of the plugin.
pub fn copy_out(array: &dyn Array) -> Result<Column, String> {
    if value_type(array.data_type()).is_none() {
        return Err(format!(
            "type {} cannot be given to a plugin",
            array.data_type()
        ));
    }
    let lowered = lower(array);
    let column = lowered.column();
    Ok(Column {
        values: match column.values {
            ValuesIn::Boolean(v) => Values::Boolean(v.to_vec()),
            ValuesIn::Int64(v) => Values::Int64(v.to_vec()),
            ValuesIn::Float64(v) => Values::Float64(v.to_vec()),
            ValuesIn::Timestamp(v) => Values::Timestamp(v.to_vec()),
            ValuesIn::Utf8(v) => Values::Utf8(copy_var(v)),
            ValuesIn::Binary(v) => Values::Binary(copy_var(v)),
        },
        validity: column.validity.map(<[u8]>::to_vec),
    })
}

fn copy_var(v: VarIn<'_>) -> Var {
    Var {
        offsets: v.offsets.to_vec(),
        data: v.data.to_vec(),
    }
}

#[cfg(test)]
#[path = "tests/columns.rs"]
mod tests;
