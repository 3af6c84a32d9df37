//! Columns as parameters of one statement: an array of each column's values, so that thousands of rows are one message.
//!
//! Three things belong together for every type of column: the types of Postgres it may be written to, the type it travels
//! as, and the values themselves. Invariant: no value is changed or cut on the way: what Postgres cannot hold is refused,
//! here or by Postgres.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;
use tokio_postgres::types::ToSql;

use crate::format::timestamp;

/// 4714-11-24 BC, the first day of Postgres, in microseconds since 1970.
const FIRST_MICROS: i64 = -210_866_803_200_000_000;

/// One parameter: the values of a column.
pub type Parameter = Box<dyn ToSql + Sync + Send>;

/// How a column of some type is written to a column of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Travel {
    /// Type of the parameter: an array of this.
    pub parameter: &'static str,
    /// Whether the value must be cast by name: text becomes another type in no other way.
    pub cast: bool,
}

/// A column's type in a table as Postgres names it, without a length or precision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetType {
    /// `pg_type.typname`, of the base type of a domain; of the elements where it is an array.
    pub name: String,
    pub is_array: bool,
    pub is_enum: bool,
    /// Of `numeric`: precision and scale, where they are limited.
    pub numeric: Option<(i32, i32)>,
}

/// Whether some type of Postgres takes values of `ty`.
pub fn writable(ty: &DataType) -> bool {
    created(ty).is_some()
}

/// The type that a column gets in a table that is made for it.
pub fn created(ty: &DataType) -> Option<String> {
    Some(match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => "bigint".into(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => "bigint".into(),
        DataType::UInt64 => "numeric(20,0)".into(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double precision".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Timestamp(..) => "timestamp with time zone".into(),
        DataType::Date32 => "date".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".into(),
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            format!("numeric({precision},{scale})")
        }
        DataType::List(element) | DataType::LargeList(element) => {
            writable(element.data_type()).then(|| "jsonb".to_owned())?
        }
        DataType::Null => "text".into(),
        _ => return None,
    })
}

/// How values of `ty` get into a column of type `to`; `None`: not without loss.
pub fn travel(ty: &DataType, to: &TargetType) -> Option<Travel> {
    let name = to.name.as_str();
    let travel = |parameter, cast| Some(Travel { parameter, cast });
    let text = || travel("text", true);
    match ty {
        DataType::List(element) | DataType::LargeList(element) => {
            let inner = TargetType {
                is_array: false,
                ..to.clone()
            };
            let json = !to.is_array && matches!(name, "json" | "jsonb");
            let fits = to.is_array && self::travel(element.data_type(), &inner).is_some();
            (json || fits).then(text).flatten()
        }
        _ if to.is_array => None,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match name {
            "text" | "varchar" | "bpchar" | "name" => travel("text", false),
            "citext" | "uuid" | "json" | "jsonb" => text(),
            _ if to.is_enum => text(),
            _ => None,
        },
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32 => matches!(name, "int2" | "int4" | "int8" | "numeric")
            .then(|| travel("bigint", false))
            .flatten(),
        DataType::UInt64 => matches!(name, "numeric" | "int8").then(text).flatten(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => matches!(name, "float8")
            .then(|| travel("double precision", false))
            .flatten(),
        DataType::Boolean => (name == "bool").then(|| travel("boolean", false)).flatten(),
        DataType::Timestamp(..) => matches!(name, "timestamptz" | "timestamp")
            .then(|| travel("timestamp with time zone", false))
            .flatten(),
        DataType::Date32 => (name == "date").then(text).flatten(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            (name == "bytea").then(|| travel("bytea", false)).flatten()
        }
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (i32::from(*precision), i32::from(*scale));
            let holds = |(p, s): (i32, i32)| s >= scale && p - s >= precision - scale;
            (name == "numeric" && to.numeric.is_none_or(holds))
                .then(text)
                .flatten()
        }
        DataType::Null => text(),
        _ => None,
    }
}

/// The values of `column` as the parameter that [`travel`] promised. `Err`: the row that cannot be written, and why.
pub fn parameter(column: &ArrayRef, to: &TargetType) -> Result<Parameter, (usize, String)> {
    let column = &widened(column);
    Ok(match column.data_type() {
        DataType::Utf8 => Box::new(texts(column)?),
        DataType::Int64 => Box::new(
            column
                .as_primitive::<Int64Type>()
                .iter()
                .collect::<Vec<_>>(),
        ),
        DataType::Float64 => Box::new(
            column
                .as_primitive::<Float64Type>()
                .iter()
                .collect::<Vec<_>>(),
        ),
        DataType::Boolean => Box::new(column.as_boolean().iter().collect::<Vec<_>>()),
        DataType::Timestamp(..) => Box::new(times(column)?),
        DataType::Binary => Box::new(
            (column.as_binary::<i32>().iter())
                .map(|bytes| bytes.map(<[u8]>::to_vec))
                .collect::<Vec<_>>(),
        ),
        _ => {
            let value = |row| {
                (!column.is_null(row))
                    .then(|| written(column, row, to))
                    .transpose()
            };
            let all: Result<Vec<Option<String>>, _> = (0..column.len())
                .map(|row| value(row).map_err(|cause| (row, cause)))
                .collect();
            Box::new(all?)
        }
    })
}

/// Other widths of a kind as the one that travels; none of these casts loses a value.
fn widened(column: &ArrayRef) -> ArrayRef {
    let wide = match column.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Int8 | DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        _ => return column.clone(),
    };
    cast(column, &wide).unwrap_or_else(|_| column.clone())
}

fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>, (usize, String)> {
    let own = |(row, text): (usize, Option<&str>)| match text {
        // Postgres says only that some byte is wrong.
        Some(text) if text.contains('\0') => Err((row, NUL.to_owned())),
        text => Ok(text.map(str::to_owned)),
    };
    column
        .as_string::<i32>()
        .iter()
        .enumerate()
        .map(own)
        .collect()
}

const NUL: &str = "a text has the character U+0000, which Postgres cannot store: take it out with replace(column, chr(0), '')";

fn times(column: &ArrayRef) -> Result<Vec<Option<SystemTime>>, (usize, String)> {
    let times = column.as_primitive_opt::<TimestampMicrosecondType>();
    let times = times.ok_or((0, "a time in nanoseconds".to_owned()))?;
    let own = |(row, micros): (usize, Option<i64>)| {
        micros
            .map(|micros| {
                let distance = Duration::from_micros(micros.unsigned_abs());
                match micros {
                    ..FIRST_MICROS => {
                        let cause = "a time before the first one that Postgres knows";
                        Err((row, cause.to_owned()))
                    }
                    FIRST_MICROS..0 => Ok(UNIX_EPOCH - distance),
                    0.. => Ok(UNIX_EPOCH + distance),
                }
            })
            .transpose()
    };
    times.iter().enumerate().map(own).collect()
}

/// A value that travels as text.
fn written(column: &ArrayRef, row: usize, to: &TargetType) -> Result<String, String> {
    match column.data_type() {
        DataType::UInt64 => Ok(column.as_primitive::<UInt64Type>().value(row).to_string()),
        DataType::Decimal128(..) => Ok(decimal(column.as_primitive(), row)),
        DataType::List(_) | DataType::LargeList(_) if to.is_array => array_literal(column, row, to),
        DataType::List(_) | DataType::LargeList(_) => {
            let text = json(column, row)?.to_string();
            match text.contains("\\u0000") {
                true => Err(NUL.to_owned()),
                false => Ok(text),
            }
        }
        _ => shown(column, row),
    }
}

fn decimal(column: &Decimal128Array, row: usize) -> String {
    column.value_as_string(row)
}

/// Dates and whatever else Arrow writes as Postgres reads it.
fn shown(column: &ArrayRef, row: usize) -> Result<String, String> {
    let options = FormatOptions::new();
    let texts = ArrayFormatter::try_new(column, &options).map_err(|e| e.to_string())?;
    texts.value(row).try_to_string().map_err(|e| e.to_string())
}

/// The elements of the list at `row`.
fn elements(column: &ArrayRef, row: usize) -> Result<ArrayRef, String> {
    match column.data_type() {
        DataType::List(_) => Ok(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Ok(column.as_list::<i64>().value(row)),
        other => Err(format!("{other} is no list")),
    }
}

/// `{a,"b",NULL}`; every element in quotes, as that is always right.
fn array_literal(column: &ArrayRef, row: usize, to: &TargetType) -> Result<String, String> {
    let elements = widened(&elements(column, row)?);
    let inner = TargetType {
        is_array: false,
        ..to.clone()
    };
    let mut text = String::from("{");
    for element in 0..elements.len() {
        if element > 0 {
            text.push(',');
        }
        if elements.is_null(element) {
            text += "NULL";
            continue;
        }
        let plain = plain(&elements, element, &inner)?;
        if plain.contains('\0') {
            return Err(NUL.to_owned());
        }
        text.push('"');
        for c in plain.chars() {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('"');
    }
    text.push('}');
    Ok(text)
}

/// A single value as text that Postgres reads.
fn plain(column: &ArrayRef, row: usize, to: &TargetType) -> Result<String, String> {
    Ok(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let mut text = Vec::new();
            let times = column.as_primitive::<TimestampMicrosecondType>();
            timestamp::write(times.value(row), &mut text);
            String::from_utf8_lossy(&text).into_owned()
        }
        DataType::Binary => {
            let hex = column.as_binary::<i32>().value(row).iter();
            format!("\\x{}", hex.map(|b| format!("{b:02x}")).collect::<String>())
        }
        DataType::Float64 => match column.as_primitive::<Float64Type>().value(row) {
            x if x.is_nan() => "NaN".into(),
            x if x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
            x => x.to_string(),
        },
        _ => written(column, row, to)?,
    })
}

/// A value as JSON, as the JSON sinks write it.
fn json(column: &ArrayRef, row: usize) -> Result<Value, String> {
    let column = &widened(column);
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::List(_) | DataType::LargeList(_) => {
            let elements = elements(column, row)?;
            let all: Result<_, String> = (0..elements.len()).map(|i| json(&elements, i)).collect();
            Value::Array(all?)
        }
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        _ => {
            let text = TargetType {
                name: "text".into(),
                is_array: false,
                is_enum: false,
                numeric: None,
            };
            plain(column, row, &text)?.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, ListArray, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn target(name: &str) -> TargetType {
        TargetType {
            name: name.trim_end_matches("[]").into(),
            is_array: name.ends_with("[]"),
            is_enum: name == "mood",
            numeric: None,
        }
    }

    #[test]
    fn where_columns_may_be_written_to() {
        let list = |ty| DataType::List(Arc::new(arrow::datatypes::Field::new("item", ty, true)));
        let cases = [
            (
                DataType::Utf8,
                "text varchar bpchar uuid jsonb mood",
                "int8 bool date bytea text[]",
            ),
            (
                DataType::Int64,
                "int8 int4 int2 numeric",
                "text float8 bool int8[]",
            ),
            (DataType::Float64, "float8", "float4 numeric int8 text"),
            (DataType::Boolean, "bool", "int8 text"),
            (
                DataType::Timestamp(TimeUnit::Microsecond, None),
                "timestamptz timestamp",
                "date text int8",
            ),
            (DataType::Date32, "date", "timestamptz text"),
            (DataType::Binary, "bytea", "text"),
            (DataType::Decimal128(10, 2), "numeric", "float8 int8 text"),
            (
                list(DataType::Utf8),
                "jsonb json text[] uuid[]",
                "text int8[]",
            ),
            (list(DataType::Int64), "jsonb int8[] int4[]", "int8 text[]"),
        ];
        for (ty, good, bad) in cases {
            for name in good.split(' ') {
                assert!(travel(&ty, &target(name)).is_some(), "{ty} to {name}");
            }
            for name in bad.split(' ') {
                assert!(travel(&ty, &target(name)).is_none(), "{ty} to {name}");
            }
            assert!(writable(&ty));
        }
        let numeric = |limit| TargetType {
            numeric: Some(limit),
            ..target("numeric")
        };
        let decimal = DataType::Decimal128(10, 2);
        for (limit, fits) in [
            ((10, 2), true),
            ((12, 4), true),
            ((10, 1), false),
            ((11, 4), false),
        ] {
            assert_eq!(
                travel(&decimal, &numeric(limit)).is_some(),
                fits,
                "{limit:?}"
            );
        }
    }

    #[test]
    fn values_that_postgres_cannot_hold_are_named_by_their_row() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b\0"]));
        let Err((row, cause)) = parameter(&text, &target("text")) else {
            panic!("a text with U+0000 passes");
        };
        assert!(row == 1 && cause.contains("U+0000"));
        let early: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, FIRST_MICROS - 1]));
        assert_eq!(
            parameter(&early, &target("timestamptz")).err().map(|e| e.0),
            Some(1)
        );
    }

    #[test]
    fn lists_and_what_travels_as_text() {
        let numbers = [Some(vec![Some(1), None, Some(3)]), Some(vec![])];
        let numbers: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(numbers));
        assert_eq!(
            written(&numbers, 0, &target("jsonb")).unwrap(),
            "[1,null,3]"
        );
        assert_eq!(
            written(&numbers, 0, &target("int8[]")).unwrap(),
            r#"{"1",NULL,"3"}"#
        );
        assert_eq!(written(&numbers, 1, &target("int8[]")).unwrap(), "{}");
        let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        builder.append_value([Some("a\"\\,b"), Some("NULL")]);
        let texts: ArrayRef = Arc::new(builder.finish());
        assert_eq!(
            written(&texts, 0, &target("text[]")).unwrap(),
            r#"{"a\"\\,b","NULL"}"#
        );
        assert_eq!(
            written(&texts, 0, &target("jsonb")).unwrap(),
            r#"["a\"\\,b","NULL"]"#
        );
        let day: ArrayRef = Arc::new(Date32Array::from(vec![20_454]));
        assert_eq!(written(&day, 0, &target("date")).unwrap(), "2026-01-01");
        let money = Decimal128Array::from(vec![-1_205])
            .with_precision_and_scale(10, 2)
            .unwrap();
        let money: ArrayRef = Arc::new(money);
        assert_eq!(written(&money, 0, &target("numeric")).unwrap(), "-12.05");
    }
}
