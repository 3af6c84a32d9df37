//! DataFusion's positions and messages in the words of the pipeline file: bytes of the text, and the types `string`,
//! `int`, `float`, `bool`, `timestamp`, `bytes`, `date`, `decimal(p,s)`.

use std::ops::Range;

use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::ast::{
    Expr as Sql, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
};
use datafusion_sql::sqlparser::tokenizer::Span;

/// A reason quotes at most this much of a row.
const REASON_CHARS_MAX: usize = 200;

/// Columns of `Span` count characters from 1; line 0 means that nothing is known.
pub(super) fn bytes(sql: &str, span: Span) -> Option<Range<usize>> {
    let start = offset(sql, span.start.line, span.start.column)?;
    let end = offset(sql, span.end.line, span.end.column)?;
    (start <= end).then_some(start..end)
}

fn offset(sql: &str, line: u64, column: u64) -> Option<usize> {
    let (line, column) = (
        line.checked_sub(1)? as usize,
        column.checked_sub(1)? as usize,
    );
    let text = sql.split('\n').nth(line)?;
    let start = text.as_ptr() as usize - sql.as_ptr() as usize;
    let within = text
        .char_indices()
        .nth(column)
        .map_or(text.len(), |(i, _)| i);
    Some(start + within)
}

/// The word or sign that starts at this place.
pub(super) fn token_at(sql: &str, line: u64, column: u64) -> Option<Range<usize>> {
    let start = offset(sql, line, column)?;
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    let length: usize = sql[start..]
        .chars()
        .take_while(word)
        .map(char::len_utf8)
        .sum();
    let first = sql[start..].chars().next().map_or(0, char::len_utf8);
    Some(start..start + length.max(first))
}

/// A parser's message and its place: it stands only in the text, as ` at Line: 1, Column: 14`.
pub(super) fn syntax(message: &str) -> (String, Option<(u64, u64)>) {
    let message = message.trim_start_matches("sql parser error: ");
    let (text, place) = match message.rsplit_once(" at Line: ") {
        Some((text, place)) => (text, place.split_once(", Column: ")),
        None => (message, None),
    };
    let place = place.and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
    let mut text = text
        .replace("Expected:", "expected")
        .replace("found: EOF", "found the end");
    text = text.replace("found: ", "found ");
    (text, place)
}

/// The name closest to `name`, if one is close enough to be meant.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    names
        .map(|n| (strsim::damerau_levenshtein(&wanted, &n.to_lowercase()), n))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= (wanted.chars().count() / 3).max(1))
        .map(|(_, n)| n)
}

/// `data_type` as users write it.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        t if t.is_string() => "string".into(),
        DataType::Dictionary(_, value) => type_name(value),
        t if t.is_integer() => "int".into(),
        t if t.is_floating() => "float".into(),
        DataType::Boolean => "bool".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::Null => "null".into(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            format!("decimal({p},{s})")
        }
        t if t.is_decimal() => "decimal of more than 38 digits".into(),
        t if t.is_binary() => "bytes".into(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "list".into(),
        other => other.to_string().to_lowercase(),
    }
}

/// The type in which a pipeline holds values of `data_type`.
pub(super) fn column_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        t if t.is_string() => DataType::Utf8,
        DataType::Dictionary(_, value) => return column_type(value),
        t if t.is_integer() => DataType::Int64,
        t if t.is_floating() => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        DataType::Timestamp(..) => timestamp(),
        t if t.is_binary() => DataType::Binary,
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            DataType::Decimal128(*p, *s)
        }
        _ => return None,
    })
}

/// The one type of times.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The arguments of a call, if all are plain expressions.
pub(super) fn arguments(call: &Function) -> Option<Vec<&Sql>> {
    let FunctionArguments::List(list) = &call.args else {
        return None;
    };
    let plain = |argument| match argument {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// Why a row failed.
pub(super) fn failure(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => "division by zero".into(),
            ArrowError::ArithmeticOverflow(text) => {
                let text = text.trim_start_matches("Overflow happened on: ");
                let kind = match text.split(' ').any(is_wide) {
                    true => "decimal",
                    false => "integer",
                };
                format!("{kind} overflow: {}", plain(text))
            }
            ArrowError::CastError(text) | ArrowError::ParseError(text) => plain(text),
            other => plain(&other.to_string()),
        },
        other => plain(&other.strip_backtrace()),
    }
}

/// A number that no int holds: without its point, an operand of an overflowing decimal is one.
fn is_wide(word: &str) -> bool {
    word.parse::<i128>().is_ok() && word.parse::<i64>().is_err()
}

/// `cause` no longer than a reason should be: it may quote a value of any size.
pub(super) fn cut(mut cause: String) -> String {
    if let Some((end, _)) = cause.char_indices().nth(REASON_CHARS_MAX) {
        cause.truncate(end);
        cause.push('…');
    }
    cause
}

/// `message` without DataFusion's prefixes and with our names of types.
pub(super) fn plain(message: &str) -> String {
    const PREFIXES: &[&str] = &[
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "This feature is not implemented: ",
        "External error: ",
        "Schema error: ",
        "Internal error: ",
    ];
    // The cause stands last in a chain of contexts.
    let mut text = message
        .rsplit("caused by\n")
        .next()
        .unwrap_or(message)
        .trim();
    while let Some(rest) = PREFIXES.iter().find_map(|p| text.strip_prefix(p)) {
        text = rest;
    }
    let text = text
        .split(". This issue was likely caused")
        .next()
        .unwrap_or(text);
    let text = text.split(" No function matches").next().unwrap_or(text);
    let text = types_renamed(text.lines().next().unwrap_or(text));
    unreadable(&text).unwrap_or(text)
}

fn unreadable(text: &str) -> Option<String> {
    let (value, rest) = text
        .strip_prefix("Cannot cast string ")?
        .split_once(" to value of ")?;
    Some(format!(
        "cannot read {value} as {}",
        rest.strip_suffix(" type")?
    ))
}

fn types_renamed(text: &str) -> String {
    const TYPES: &[(&str, &str)] = &[
        ("Timestamp(µs, \"UTC\")", "timestamp"),
        ("Timestamp(Microsecond, Some(\"UTC\"))", "timestamp"),
        ("Timestamp(ns)", "timestamp"),
        ("LargeUtf8", "string"),
        ("Utf8View", "string"),
        ("Utf8", "string"),
        ("UInt64", "int"),
        ("Int64", "int"),
        ("UInt32", "int"),
        ("Int32", "int"),
        ("Float64", "float"),
        ("Float32", "float"),
        ("Boolean", "bool"),
        ("Date32", "date"),
        ("Binary", "bytes"),
    ];
    TYPES.iter().fold(text.to_string(), |text, (theirs, ours)| {
        text.replace(theirs, ours)
    })
}
