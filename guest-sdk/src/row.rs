//! Typed rows over the columns of a call. Each column is bound once a call (type, length, UTF-8); reading a row then costs
//! one indexed load a field and allocates nothing.

use crate::Timestamp;
use crate::bindings::{self, Column, ValueType, Values, VarValues};
use crate::bits::is_set;

/// The column that every row has: its event time.
pub const EVENT_TIME: &str = "_time";

/// A row type, derived with `#[derive(Row)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no row type",
    note = "derive it: #[derive(Row)]"
)]
pub trait Row<'a>: Sized {
    /// The bound columns.
    #[doc(hidden)]
    type Reader;
    /// The columns read from the input, in the order of the fields.
    const COLUMNS: &'static [ColumnSpec];
    /// The tables joined to the row.
    const LOOKUPS: &'static [LookupSpec];
    /// Binds the columns of a call.
    #[doc(hidden)]
    fn bind(source: Source<'a>) -> Result<Self::Reader, String>;
    /// The row at an index below the number of rows bound.
    #[doc(hidden)]
    fn get(reader: &Self::Reader, row: usize) -> Self;
}

/// A type that a field of a row can have: `bool`, `i64`, `f64`, [`Timestamp`], `&str`, `&[u8]`, and `Option` of these.
#[diagnostic::on_unimplemented(
    message = "a column cannot be read as `{Self}`",
    note = "columns are read as bool, i64, f64, Timestamp, &'a str, &'a [u8], or Option of these"
)]
pub trait Field<'a>: Sized {
    /// The column type that it reads.
    const TYPE: ValueType;
    /// Whether it can hold a null.
    const NULLABLE: bool;
    #[doc(hidden)]
    type Reader: Copy;
    #[doc(hidden)]
    fn bind(column: &'a Column, rows: usize) -> Result<Self::Reader, String>;
    #[doc(hidden)]
    fn get(reader: Self::Reader, row: usize) -> Self;
}

/// Name and type of a column that a plugin reads or adds.
#[derive(Clone, Copy, Debug)]
pub struct ColumnSpec {
    /// The column's name.
    pub name: &'static str,
    /// Its type.
    pub ty: ValueType,
    /// Whether it may hold nulls.
    pub nullable: bool,
}

/// A table joined to each row through one of its columns.
#[derive(Clone, Copy, Debug)]
pub struct LookupSpec {
    /// The name of the field, by which `setup` can name the table.
    pub field: &'static str,
    /// The column whose value is the key.
    pub on: &'static str,
    /// The table, unless `setup` names another; may be empty.
    pub table: &'static str,
    /// The columns read from the table.
    pub columns: &'static [ColumnSpec],
}

/// What a row is read from: the columns of the call and those found in tables.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub rows: usize,
    pub columns: &'a [Column],
    pub found: &'a [Vec<Column>],
}

impl<'a> Source<'a> {
    /// Binds the column at an index of `COLUMNS`.
    pub fn field<F: Field<'a>>(&self, index: usize, name: &str) -> Result<F::Reader, String> {
        let column = self
            .columns
            .get(index)
            .ok_or_else(|| format!("column `{name}` was not sent"))?;
        F::bind(column, self.rows).map_err(|reason| format!("column `{name}` {reason}"))
    }

    /// Binds the table at an index of `LOOKUPS`.
    pub fn lookup<R: Row<'a>>(&self, index: usize) -> Result<R::Reader, String> {
        let columns = self.found.get(index).ok_or("a lookup was not made")?;
        R::bind(Source {
            rows: self.rows,
            columns,
            found: &[],
        })
    }
}

/// The name that pipeline files give a type.
pub(crate) fn type_name(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Boolean => "bool",
        ValueType::Int64 => "int",
        ValueType::Float64 => "float",
        ValueType::Timestamp => "timestamp",
        ValueType::Utf8 => "string",
        ValueType::Binary => "bytes",
    }
}

fn rust_name(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Boolean => "bool",
        ValueType::Int64 => "i64",
        ValueType::Float64 => "f64",
        ValueType::Timestamp => "Timestamp",
        ValueType::Utf8 => "&str",
        ValueType::Binary => "&[u8]",
    }
}

pub(crate) fn value_type(values: &Values) -> ValueType {
    match values {
        Values::Boolean(_) => ValueType::Boolean,
        Values::Int64(_) => ValueType::Int64,
        Values::Float64(_) => ValueType::Float64,
        Values::Timestamp(_) => ValueType::Timestamp,
        Values::Utf8(_) => ValueType::Utf8,
        Values::Binary(_) => ValueType::Binary,
    }
}

/// Compares what a plugin reads with the columns that the step's input has.
pub(crate) fn check(reads: &[ColumnSpec], input: &[bindings::Field]) -> Result<(), String> {
    for spec in reads {
        let wanted = rust_name(spec.ty);
        let (found, nullable) = if spec.name == EVENT_TIME {
            (ValueType::Timestamp, false)
        } else {
            let field = input.iter().find(|field| field.name == spec.name).ok_or_else(|| {
                let names: Vec<_> = input.iter().map(|field| field.name.as_str()).collect();
                format!(
                    "the input has no column `{}`, which the plugin reads as {wanted} ({}); it has: {}",
                    spec.name,
                    type_name(spec.ty),
                    names.join(", ")
                )
            })?;
            (field.ty, field.nullable)
        };
        if found != spec.ty {
            return Err(format!(
                "column `{}` is a {}, the plugin reads it as {wanted} ({})",
                spec.name,
                type_name(found),
                type_name(spec.ty)
            ));
        }
        if nullable && !spec.nullable {
            return Err(format!(
                "column `{}` may be null, the plugin reads it as {wanted}: declare the field as Option<{wanted}>, or the \
                 column as `{}` without `?`",
                spec.name,
                type_name(spec.ty)
            ));
        }
    }
    Ok(())
}

fn wrong_type<T>(found: &Values, wanted: ValueType) -> Result<T, String> {
    Err(format!(
        "is a {}, not a {}",
        type_name(value_type(found)),
        type_name(wanted)
    ))
}

fn short() -> String {
    "is shorter than the batch".to_owned()
}

macro_rules! plain_field {
    ($($rust:ty, $stored:ty, $case:ident, $convert:expr;)*) => {$(
        impl<'a> Field<'a> for $rust {
            const TYPE: ValueType = ValueType::$case;
            const NULLABLE: bool = false;
            type Reader = &'a [$stored];
            fn bind(column: &'a Column, rows: usize) -> Result<Self::Reader, String> {
                match &column.values {
                    Values::$case(values) => values.get(..rows).ok_or_else(short),
                    other => wrong_type(other, Self::TYPE),
                }
            }
            #[inline(always)]
            fn get(reader: Self::Reader, row: usize) -> Self {
                $convert(reader[row])
            }
        }
    )*};
}

plain_field! {
    i64, i64, Int64, std::convert::identity;
    f64, f64, Float64, std::convert::identity;
    Timestamp, i64, Timestamp, Timestamp;
}

impl<'a> Field<'a> for bool {
    const TYPE: ValueType = ValueType::Boolean;
    const NULLABLE: bool = false;
    type Reader = &'a [u8];
    fn bind(column: &'a Column, rows: usize) -> Result<Self::Reader, String> {
        match &column.values {
            Values::Boolean(bits) => bits.get(..rows.div_ceil(8)).ok_or_else(short),
            other => wrong_type(other, Self::TYPE),
        }
    }
    #[inline(always)]
    fn get(reader: Self::Reader, row: usize) -> Self {
        reader[row >> 3] >> (row & 7) & 1 == 1
    }
}

/// Offsets of rows + 1 values and the offset that stands for the first byte.
fn offsets(values: &VarValues, rows: usize) -> Result<(&[i32], i32), String> {
    let offsets = values.offsets.get(..=rows).ok_or_else(short)?;
    Ok((offsets, offsets[0]))
}

#[inline(always)]
fn span(offsets: &[i32], first: i32, row: usize) -> std::ops::Range<usize> {
    (offsets[row] - first) as usize..(offsets[row + 1] - first) as usize
}

impl<'a> Field<'a> for &'a str {
    const TYPE: ValueType = ValueType::Utf8;
    const NULLABLE: bool = false;
    /// The text of the whole column is checked once; a row then takes a slice of it.
    type Reader = (&'a [i32], i32, &'a str);
    fn bind(column: &'a Column, rows: usize) -> Result<Self::Reader, String> {
        match &column.values {
            Values::Utf8(values) => {
                let (offsets, first) = offsets(values, rows)?;
                let text =
                    std::str::from_utf8(&values.data).map_err(|_| "is not UTF-8".to_owned())?;
                Ok((offsets, first, text))
            }
            other => wrong_type(other, Self::TYPE),
        }
    }
    #[inline(always)]
    fn get((offsets, first, text): Self::Reader, row: usize) -> Self {
        &text[span(offsets, first, row)]
    }
}

impl<'a> Field<'a> for &'a [u8] {
    const TYPE: ValueType = ValueType::Binary;
    const NULLABLE: bool = false;
    type Reader = (&'a [i32], i32, &'a [u8]);
    fn bind(column: &'a Column, rows: usize) -> Result<Self::Reader, String> {
        match &column.values {
            Values::Binary(values) => {
                let (offsets, first) = offsets(values, rows)?;
                Ok((offsets, first, &values.data))
            }
            other => wrong_type(other, Self::TYPE),
        }
    }
    #[inline(always)]
    fn get((offsets, first, data): Self::Reader, row: usize) -> Self {
        &data[span(offsets, first, row)]
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    const TYPE: ValueType = T::TYPE;
    const NULLABLE: bool = true;
    type Reader = (T::Reader, Option<&'a [u8]>);
    fn bind(column: &'a Column, rows: usize) -> Result<Self::Reader, String> {
        let validity = match &column.validity {
            Some(bits) => Some(bits.get(..rows.div_ceil(8)).ok_or_else(short)?),
            None => None,
        };
        Ok((T::bind(column, rows)?, validity))
    }
    #[inline(always)]
    fn get((values, validity): Self::Reader, row: usize) -> Self {
        is_set(validity, row).then(|| T::get(values, row))
    }
}
