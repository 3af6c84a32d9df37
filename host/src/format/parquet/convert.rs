//! Rows of a Parquet file to the types of the fields; what does not fit refuses its row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions,
    TimestampMicrosecondArray, UInt32Array, make_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};

use super::{Fields, Piece, RefusedRow};
use crate::format::encode::row_json;
use crate::format::type_name;

/// Whether a column of type `to` can hold what one of type `from` has; single values may still not fit.
pub(super) fn holds(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Date64, Decimal128, Dictionary, FixedSizeBinary,
        Float64, Int64, LargeBinary, Timestamp, Utf8,
    };
    if let Dictionary(_, values) = from {
        return holds(values, to);
    }
    match to {
        Utf8 => from.is_string(),
        Int64 => from.is_integer(),
        Float64 => from.is_floating() || from.is_integer(),
        Boolean => *from == Boolean,
        Timestamp(..) => matches!(from, Timestamp(..)),
        Date32 => matches!(from, Date32 | Date64),
        Binary => matches!(from, Binary | LargeBinary | BinaryView | FixedSizeBinary(_)),
        Decimal128(_, scale) => match from {
            DataType::Decimal32(_, s)
            | DataType::Decimal64(_, s)
            | Decimal128(_, s)
            | DataType::Decimal256(_, s) => s <= scale,
            other => other.is_integer(),
        },
        _ => false,
    }
}

/// `rows` of the file, before which `first` stand.
pub(super) fn piece(fields: &Fields, rows: &RecordBatch, first: i64) -> Result<Piece, String> {
    let mut refused = BTreeMap::new();
    let mut columns = Vec::with_capacity(fields.places.len());
    for (field, place) in fields.schema.fields().iter().zip(&fields.places) {
        let found = column(rows, place)?;
        let typed = typed(&found, field.data_type())?;
        refuse(field, &found, &typed, &mut refused);
        columns.push(typed);
    }
    let count = rows.num_rows();
    let kept: Vec<u32> = (0..count as u32)
        .filter(|row| !refused.contains_key(row))
        .collect();
    let numbers = kept.iter().map(|&row| first + i64::from(row) + 1).collect();
    let refused = refused.into_iter().map(|(row, reason)| RefusedRow {
        number: first + i64::from(row) + 1,
        reason,
        raw: row_json(rows, row as usize),
    });
    Ok(Piece {
        refused: refused.collect(),
        rows: select(fields, columns, kept, count)?,
        numbers,
        next: first + count as i64,
    })
}

/// The rows `kept` of `count`; a null in any other is not looked at.
fn select(
    fields: &Fields,
    columns: Vec<ArrayRef>,
    kept: Vec<u32>,
    count: usize,
) -> Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let whole = |schema, columns| {
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(|e| e.to_string())
    };
    if kept.len() == count {
        return whole(fields.schema.clone(), columns);
    }
    let nullable = fields
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true));
    let lenient = arrow::datatypes::Schema::new(nullable.collect::<Vec<_>>());
    let all = whole(Arc::new(lenient), columns)?;
    let left = take_record_batch(&all, &UInt32Array::from(kept)).map_err(|e| e.to_string())?;
    // The rows that had nulls where none may be are gone.
    let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
    RecordBatch::try_new_with_options(fields.schema.clone(), left.columns().to_vec(), &options)
        .map_err(|e| e.to_string())
}

/// The column that `place` leads to; null where a struct on the way is.
fn column(rows: &RecordBatch, place: &[String]) -> Result<ArrayRef, String> {
    let gone = || format!("the column `{}` is not in the rows read", place.join("."));
    let (root, way) = place.split_first().ok_or_else(gone)?;
    let mut found = rows.column_by_name(root).ok_or_else(gone)?.clone();
    for name in way {
        let outer = found.as_struct_opt().ok_or_else(gone)?;
        let inner = outer.column_by_name(name).ok_or_else(gone)?;
        let nulls = NullBuffer::union(outer.nulls(), inner.logical_nulls().as_ref());
        // A dictionary's nulls may be in its values: as plain values they are in one place.
        let plain = match inner.data_type() {
            DataType::Dictionary(_, values) => cast(inner, values)?,
            _ => inner.clone(),
        };
        let data = plain.to_data().into_builder().nulls(nulls).build();
        found = make_array(data.map_err(|e| e.to_string())?);
    }
    Ok(found)
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    cast_with_options(array, to, &options).map_err(|e| e.to_string())
}

/// Values in the type `to`; null where one does not fit.
fn typed(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    match (array.data_type(), to) {
        (from, to) if from == to => Ok(array.clone()),
        (DataType::Dictionary(_, values), to) => typed(&cast(array, values)?, to),
        (DataType::Timestamp(unit, _), DataType::Timestamp(..)) => {
            let numbers = cast(array, &DataType::Int64)?;
            Ok(Arc::new(in_micros(numbers.as_primitive(), *unit)))
        }
        _ => cast(array, to),
    }
}

/// Times beyond what microseconds can say are null; parts of a microsecond are cut off.
fn in_micros(times: &Int64Array, unit: TimeUnit) -> TimestampMicrosecondArray {
    let micros: Int64Array = match unit {
        TimeUnit::Second => times.unary_opt::<_, Int64Type>(|t| t.checked_mul(1_000_000)),
        TimeUnit::Millisecond => times.unary_opt::<_, Int64Type>(|t| t.checked_mul(1_000)),
        TimeUnit::Microsecond => times.clone(),
        TimeUnit::Nanosecond => times.unary::<_, Int64Type>(|t| t.div_euclid(1_000)),
    };
    let (_, values, nulls) = micros.into_parts();
    TimestampMicrosecondArray::new(values, nulls).with_timezone("UTC")
}

/// Notes the rows at which `typed` lacks a value that `found` has, or that the field must have.
fn refuse(field: &Field, found: &ArrayRef, typed: &ArrayRef, refused: &mut BTreeMap<u32, String>) {
    let had = found.logical_nulls();
    let had_nulls = had.as_ref().map_or(0, NullBuffer::null_count);
    if typed.null_count() == had_nulls && (had_nulls == 0 || field.is_nullable()) {
        return;
    }
    let (name, kind) = (field.name(), type_name(field.data_type()));
    for row in (0..typed.len()).filter(|&row| typed.is_null(row)) {
        let was_null = had.as_ref().is_some_and(|nulls| nulls.is_null(row));
        let reason = match was_null {
            true if field.is_nullable() => continue,
            true => format!(
                "field `{name}`: expected a value of type {kind}, found null (the type `{kind}?` would allow null)"
            ),
            false => format!("field `{name}`: the value does not fit into the type {kind}"),
        };
        refused.entry(row as u32).or_insert(reason);
    }
}
