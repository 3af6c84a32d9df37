//! CSV records (RFC 4180) to columns. The header names the columns; fields find theirs by name, in any order.
//!
//! An empty value without quotes is null; where the field cannot be null, a string is empty and any other type refused.
//! Cutting a file into records is [`super::framing`]'s work.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::columns::{Column, Kind, Rows};
use super::{Decoder, check_size, framing, no_timestamp, shown, timestamp};
use crate::time::Micros;

/// Decodes CSV records.
pub struct CsvDecoder {
    rows: Rows,
    /// The column that reads each field of a record.
    readers: Vec<Option<usize>>,
    /// A quoted field without its quotes.
    unquoted: String,
}

impl CsvDecoder {
    /// Errors name a field that the header lacks or has twice.
    pub fn new(
        schema: &SchemaRef,
        paths: &[Vec<String>],
        event_time: Option<usize>,
        header: &[u8],
    ) -> Result<Self, String> {
        let names = header_names(header)?;
        let rows = Rows::new(schema, paths, event_time)?;
        let mut readers = vec![None; names.len()];
        for (column, path) in paths.iter().enumerate() {
            let [name] = path.as_slice() else {
                return Err(format!("`{}`: CSV has no nested fields", path.join(".")));
            };
            let mut places = (0..names.len()).filter(|&i| names[i] == *name);
            let place = places.next().ok_or_else(|| {
                format!(
                    "the header has no column `{name}`; it has {}",
                    shown_names(&names)
                )
            })?;
            if places.next().is_some() {
                return Err(format!("the header has the column `{name}` twice"));
            }
            if readers[place].replace(column).is_some() {
                return Err(format!("the column `{name}` is read by two fields"));
            }
        }
        Ok(Self {
            rows,
            readers,
            unquoted: String::new(),
        })
    }

    fn decode(&mut self, record: &[u8]) -> Result<Micros, String> {
        check_size(record)?;
        let text = utf8(framing::without_return(record))?;
        if text.is_empty() && self.readers.len() != 1 {
            return Err("empty record".to_owned());
        }
        let (rows, readers) = (&mut self.rows, &self.readers);
        let fields = each_field(
            text,
            &mut self.unquoted,
            |index, value, quoted| match readers.get(index) {
                Some(Some(column)) => put(rows.open(*column), value, quoted),
                _ => Ok(()),
            },
        )?;
        if fields != readers.len() {
            return Err(format!(
                "the record has {fields} fields, the header {}",
                readers.len()
            ));
        }
        self.rows.complete()
    }
}

impl Decoder for CsvDecoder {
    fn push(&mut self, record: &[u8]) -> Result<Micros, String> {
        let pushed = self.decode(record);
        if pushed.is_err() {
            self.rows.roll_back();
        }
        pushed
    }

    fn undo(&mut self) {
        self.rows.undo();
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn finish(&mut self) -> RecordBatch {
        self.rows.finish()
    }
}

/// The column names of a header record; a byte order mark before them is ignored.
pub fn header_names(header: &[u8]) -> Result<Vec<String>, String> {
    let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header);
    let text = utf8(framing::without_return(header)).map_err(|e| format!("header: {e}"))?;
    let mut names = Vec::new();
    each_field(text, &mut String::new(), |_, name, _| {
        names.push(name.to_owned());
        Ok(())
    })
    .map_err(|e| format!("header: {e}"))?;
    Ok(names)
}

fn shown_names(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(20).map(|n| shown(n)).collect();
    let more = if names.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    shown.join(", ") + more
}

fn utf8(record: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(record).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to() + 1))
}

/// Calls `each` with index, value and whether it stood in quotes, for every field of `record`; returns how many there
/// are. `unquoted` is room for values that had quotes.
fn each_field(
    record: &str,
    unquoted: &mut String,
    mut each: impl FnMut(usize, &str, bool) -> Result<(), String>,
) -> Result<usize, String> {
    let (mut rest, mut index) = (record, 0);
    loop {
        let tail = match rest.strip_prefix('"') {
            Some(quoted) => {
                let tail = unquote(quoted, unquoted)
                    .ok_or_else(|| format!("field {} has no closing quote", index + 1))?;
                if !tail.is_empty() && !tail.starts_with(',') {
                    return Err(format!(
                        "field {}: {} follows its closing quote, expected a comma",
                        index + 1,
                        shown(tail)
                    ));
                }
                each(index, unquoted, true)?;
                tail
            }
            None => {
                let (value, tail) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                if value.contains('"') {
                    return Err(format!(
                        "field {}: a quote in {}, which does not begin with one",
                        index + 1,
                        shown(value)
                    ));
                }
                each(index, value, false)?;
                tail
            }
        };
        index += 1;
        match tail.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(index),
        }
    }
}

/// Puts the quoted field that `text` begins with into `out`, doubled quotes made single; returns what follows the
/// closing quote.
fn unquote<'t>(text: &'t str, out: &mut String) -> Option<&'t str> {
    out.clear();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        out.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                out.push('"');
                rest = next;
            }
            None => return Some(after),
        }
    }
}

fn put(column: &mut Column, value: &str, quoted: bool) -> Result<(), String> {
    if value.is_empty() && !quoted && (column.nullable() || column.kind() != Kind::Text) {
        return column.put_null();
    }
    let wrong = |column: &Column| {
        format!(
            "{}: expected {}, found {}",
            column.label(),
            column.kind().expected(),
            shown(value)
        )
    };
    match column.kind() {
        Kind::Text => return column.put_text(value),
        Kind::Bytes => return column.put_base64(value),
        Kind::Decimal(..) => return column.put_decimal(value),
        Kind::Date => return column.put_date(value),
        Kind::Int => column.put_number(value.parse().map_err(|_| int_reason(column, value))?),
        Kind::Float => match value.parse::<f64>() {
            Ok(float) if float.is_finite() => column.put_float(float),
            _ => return Err(wrong(column)),
        },
        Kind::Bool => match value {
            "true" => column.put_bool(true),
            "false" => column.put_bool(false),
            _ => return Err(format!("{}: `true` or `false`", wrong(column))),
        },
        Kind::Time => {
            let time = timestamp::parse(value.as_bytes())
                .ok_or_else(|| no_timestamp(column.label(), value))?;
            column.put_number(time);
        }
    }
    Ok(())
}

fn int_reason(column: &Column, value: &str) -> String {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return format!(
            "{}: {} does not fit into 64 bits",
            column.label(),
            shown(value)
        );
    }
    format!(
        "{}: expected an int, found {}",
        column.label(),
        shown(value)
    )
}

#[cfg(test)]
mod tests;
