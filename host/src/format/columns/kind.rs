//! The types that a column of a record can have, and what a reason calls them.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Field, TimeUnit};

/// What a column holds, in the words of the pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Time,
    Bytes,
    /// Precision and scale.
    Decimal(u8, i8),
    Date,
}

impl Kind {
    pub fn of(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Utf8 => Self::Text,
            DataType::Int64 => Self::Int,
            DataType::Float64 => Self::Float,
            DataType::Boolean => Self::Bool,
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => {
                Self::Time
            }
            DataType::Binary => Self::Bytes,
            DataType::Decimal128(precision, scale) => Self::Decimal(*precision, *scale),
            DataType::Date32 => Self::Date,
            _ => return None,
        })
    }

    /// The type's name in a pipeline file.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Text => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Time => "timestamp",
            Self::Bytes => "bytes",
            Self::Date => "date",
            Self::Decimal(precision, scale) => {
                return Cow::Owned(format!("decimal({precision},{scale})"));
            }
        })
    }

    /// What a reason says was expected.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Int => "an int",
            Self::Float => "a float",
            Self::Bool => "a bool",
            Self::Time => "a timestamp as an RFC 3339 string",
            Self::Bytes => "bytes as a base64 string",
            Self::Decimal(..) => "a decimal as a number",
            Self::Date => "a date as a string such as 2026-01-31",
        }
    }
}
