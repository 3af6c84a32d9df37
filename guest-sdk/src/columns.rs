//! Columns that a plugin adds, built value by value into Arrow's layout.

use crate::Timestamp;
use crate::bindings::{Column, Field, ValueType, Values, VarValues};
use crate::bits::Bits;
use crate::row::ColumnSpec;

/// The columns of an output row, derived with `#[derive(Columns)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no columns",
    note = "derive them: #[derive(Columns)]"
)]
pub trait Columns {
    /// The columns as they grow.
    #[doc(hidden)]
    type Builder: Builder;
    /// Names and types, in the order of the fields.
    const COLUMNS: &'static [ColumnSpec];
    /// Appends a row.
    #[doc(hidden)]
    fn push(self, builder: &mut Self::Builder);
}

/// Columns of equal length under construction.
#[doc(hidden)]
pub trait Builder: Default {
    /// Appends a row that the host will drop.
    fn push_filler(&mut self);
    /// Takes rows back.
    fn truncate(&mut self, len: usize);
    fn finish(self) -> Vec<Column>;
}

/// A type that a field of an output row can have: `bool`, `i64`, `f64`, [`Timestamp`], `String` or `&str`, `Vec<u8>` or
/// `&[u8]`, and `Option` of these.
#[diagnostic::on_unimplemented(
    message = "`{Self}` makes no column",
    note = "columns are made of bool, i64, f64, Timestamp, String, &str, Vec<u8>, &[u8], or Option of these"
)]
pub trait Value: Sized {
    /// The column type that it makes.
    const TYPE: ValueType;
    /// Whether it can be null.
    const NULLABLE: bool;
    #[doc(hidden)]
    type Builder: ValueBuilder;
    #[doc(hidden)]
    fn push(self, builder: &mut Self::Builder);
}

/// One column under construction.
#[doc(hidden)]
pub trait ValueBuilder: Default {
    fn push_filler(&mut self);
    fn truncate(&mut self, len: usize);
    fn finish(self) -> Column;
}

/// No columns: what a pure filter adds.
impl Columns for () {
    type Builder = ();
    const COLUMNS: &'static [ColumnSpec] = &[];
    fn push(self, _: &mut ()) {}
}

impl Builder for () {
    fn push_filler(&mut self) {}
    fn truncate(&mut self, _: usize) {}
    fn finish(self) -> Vec<Column> {
        Vec::new()
    }
}

pub(crate) fn fields(columns: &[ColumnSpec]) -> Vec<Field> {
    let field = |c: &ColumnSpec| Field {
        name: c.name.to_owned(),
        ty: c.ty,
        nullable: c.nullable,
    };
    columns.iter().map(field).collect()
}

fn column(values: Values) -> Column {
    Column {
        values,
        validity: None,
    }
}

macro_rules! plain_value {
    ($($rust:ty, $builder:ident, $stored:ty, $case:ident, $convert:expr;)*) => {$(
        #[doc(hidden)]
        #[derive(Debug, Default)]
        pub struct $builder(Vec<$stored>);

        impl ValueBuilder for $builder {
            fn push_filler(&mut self) {
                self.0.push(Default::default());
            }
            fn truncate(&mut self, len: usize) {
                self.0.truncate(len);
            }
            fn finish(self) -> Column {
                column(Values::$case(self.0))
            }
        }

        impl Value for $rust {
            const TYPE: ValueType = ValueType::$case;
            const NULLABLE: bool = false;
            type Builder = $builder;
            #[inline]
            fn push(self, builder: &mut $builder) {
                builder.0.push($convert(self));
            }
        }
    )*};
}

plain_value! {
    i64, Integers, i64, Int64, std::convert::identity;
    f64, Floats, f64, Float64, std::convert::identity;
    Timestamp, Times, i64, Timestamp, Timestamp::micros;
}

impl ValueBuilder for Bits {
    fn push_filler(&mut self) {
        self.push(false);
    }
    fn truncate(&mut self, len: usize) {
        Bits::truncate(self, len);
    }
    fn finish(self) -> Column {
        column(Values::Boolean(self.into_bytes()))
    }
}

impl Value for bool {
    const TYPE: ValueType = ValueType::Boolean;
    const NULLABLE: bool = false;
    type Builder = Bits;
    #[inline]
    fn push(self, builder: &mut Bits) {
        builder.push(self);
    }
}

/// Values of varying length: text or bytes.
#[doc(hidden)]
#[derive(Debug)]
pub struct Varying<const TEXT: bool> {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl<const TEXT: bool> Default for Varying<TEXT> {
    fn default() -> Self {
        Varying {
            offsets: vec![0],
            data: Vec::new(),
        }
    }
}

impl<const TEXT: bool> Varying<TEXT> {
    #[inline]
    fn push(&mut self, value: &[u8]) {
        append(&mut self.data, value);
        let end = i32::try_from(self.data.len()).expect("a column of a call holds less than 2 GiB");
        self.offsets.push(end);
    }
}

impl<const TEXT: bool> ValueBuilder for Varying<TEXT> {
    fn push_filler(&mut self) {
        self.push(&[]);
    }
    fn truncate(&mut self, len: usize) {
        if len + 1 < self.offsets.len() {
            self.offsets.truncate(len + 1);
            self.data.truncate(self.offsets[len] as usize);
        }
    }
    fn finish(self) -> Column {
        let values = VarValues {
            offsets: self.offsets,
            data: self.data,
        };
        column(if TEXT {
            Values::Utf8(values)
        } else {
            Values::Binary(values)
        })
    }
}

/// Appends bytes. Up to 16 go as one or two words: a copy of varying length is a call out of the compiled code, and for a
/// short text that call costs more than the rest of the row. What a word carries beyond the value is cut off again.
#[inline]
fn append(data: &mut Vec<u8>, value: &[u8]) {
    let (start, len) = (data.len(), value.len());
    if len > 16 {
        data.extend_from_slice(value);
        return;
    }
    if let (Some(first), Some(last)) = (value.first_chunk::<8>(), value.last_chunk::<8>()) {
        data.extend_from_slice(first);
        let last = u64::from_le_bytes(*last)
            .checked_shr(8 * (16 - len) as u32)
            .unwrap_or(0);
        data.extend_from_slice(&last.to_le_bytes());
    } else if let (Some(first), Some(last)) = (value.first_chunk::<4>(), value.last_chunk::<4>()) {
        let first = u64::from(u32::from_le_bytes(*first));
        let last = u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
        data.extend_from_slice(&(first | last).to_le_bytes());
    } else {
        for &byte in value {
            data.push(byte);
        }
    }
    data.truncate(start + len);
}

macro_rules! varying_value {
    ($($rust:ty, $text:literal, $case:ident;)*) => {$(
        impl Value for $rust {
            const TYPE: ValueType = ValueType::$case;
            const NULLABLE: bool = false;
            type Builder = Varying<$text>;
            #[inline]
            fn push(self, builder: &mut Varying<$text>) {
                builder.push(self.as_ref());
            }
        }
    )*};
}

varying_value! {
    &str, true, Utf8;
    String, true, Utf8;
    &[u8], false, Binary;
    Vec<u8>, false, Binary;
}

/// A column that may hold nulls. The mask is made at the first null: most calls have none, and an absent mask is free.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Nullable<B> {
    values: B,
    len: usize,
    validity: Option<Bits>,
}

impl<B: ValueBuilder> Nullable<B> {
    fn push_null(&mut self) {
        self.values.push_filler();
        self.validity
            .get_or_insert_with(|| Bits::repeat(true, self.len))
            .push(false);
        self.len += 1;
    }
}

impl<B: ValueBuilder> ValueBuilder for Nullable<B> {
    fn push_filler(&mut self) {
        self.push_null();
    }
    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.len = self.len.min(len);
        if let Some(bits) = &mut self.validity {
            bits.truncate(len);
        }
    }
    fn finish(self) -> Column {
        let validity = self.validity.filter(|bits| !bits.all());
        Column {
            validity: validity.map(Bits::into_bytes),
            ..self.values.finish()
        }
    }
}

impl<T: Value> Value for Option<T> {
    const TYPE: ValueType = T::TYPE;
    const NULLABLE: bool = true;
    type Builder = Nullable<T::Builder>;
    #[inline]
    fn push(self, builder: &mut Self::Builder) {
        match self {
            None => builder.push_null(),
            Some(value) => {
                value.push(&mut builder.values);
                if let Some(bits) = &mut builder.validity {
                    bits.push(true);
                }
                builder.len += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_come_out_as_they_went_in() {
        let text = "abcdefghijklmnopqrstuvwxyz";
        let mut builder = Varying::<true>::default();
        for len in 0..=text.len() {
            builder.push(&text.as_bytes()[..len]);
        }
        for len in 0..=text.len() {
            let (from, to) = (
                builder.offsets[len] as usize,
                builder.offsets[len + 1] as usize,
            );
            assert_eq!(&builder.data[from..to], &text.as_bytes()[..len]);
        }
    }

    #[test]
    fn a_mask_is_made_only_where_there_are_nulls() {
        let mut builder = Nullable::<Integers>::default();
        (0..9).for_each(|n| Some(n).push(&mut builder));
        None::<i64>.push(&mut builder);
        builder.truncate(9);
        assert_eq!(builder.finish().validity, None);

        let mut builder = Nullable::<Integers>::default();
        (0..10).for_each(|n| (n % 3 != 0).then_some(n).push(&mut builder));
        assert_eq!(builder.finish().validity, Some(vec![0b1011_0110, 0b01]));
    }
}
