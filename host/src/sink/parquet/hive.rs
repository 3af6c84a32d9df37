//! Values as names of directories, `column=value`, as Hive began it and Spark, DuckDB and Polars read it.
//!
//! Null and the empty string are `__HIVE_DEFAULT_PARTITION__`: Hive and Spark write both so, and read neither from an
//! empty name.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::PARTITION_NAME_BYTES_MAX;

const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A column whose values name directories.
pub struct PartitionColumn {
    name: String,
    values: StringArray,
}

impl PartitionColumn {
    /// Column `at` of `rows`, which is a string, a whole number, a bool or a date.
    pub fn new(rows: &RecordBatch, at: usize) -> Result<Self, String> {
        let values = cast(rows.column(at), &DataType::Utf8).map_err(|e| e.to_string())?;
        Ok(Self {
            name: encode(rows.schema_ref().field(at).name()),
            values: values.as_string().clone(),
        })
    }

    /// Appends `/column=value` of a row; without the slash if it is the first.
    pub fn write(&self, row: usize, path: &mut String) {
        if !path.is_empty() {
            path.push('/');
        }
        let start = path.len();
        path.push_str(&self.name);
        path.push('=');
        match self.values.is_valid(row).then(|| self.values.value(row)) {
            None | Some("") => path.push_str(NULL),
            Some(value) => path.push_str(&encode(value)),
        }
        if path.len() - start > PARTITION_NAME_BYTES_MAX {
            shorten(path, start, self.values.value(row));
        }
    }
}

/// Too long for a file system: the beginning stays, and a hash that keeps different values apart.
fn shorten(path: &mut String, start: usize, value: &str) {
    let mut end = start + PARTITION_NAME_BYTES_MAX - 17;
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    path.truncate(end);
    let _ = write!(path, "~{:016x}", xxh3_64(value.as_bytes()));
}

/// Percent-encodes all of ASCII but letters, digits and `_-.~`. Other characters stay: Spark decodes byte by byte.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_ascii_alphanumeric() || !char.is_ascii() || matches!(char, '_' | '-' | '.' | '~')
        {
            out.push(char);
        } else {
            let _ = write!(out, "%{:02X}", char as u32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Date32Array, Int64Array};

    use super::*;

    fn names(column: ArrayRef) -> Vec<String> {
        let rows = RecordBatch::try_from_iter_with_nullable([("a b", column, true)]).unwrap();
        let column = PartitionColumn::new(&rows, 0).unwrap();
        let name = |row| {
            let mut path = String::new();
            column.write(row, &mut path);
            path.strip_prefix("a%20b=").unwrap().to_owned()
        };
        (0..rows.num_rows()).map(name).collect()
    }

    #[test]
    fn values_are_names_that_every_reader_decodes() {
        let texts = [
            ("books", "books"),
            ("a/b=c", "a%2Fb%3Dc"),
            ("100%", "100%25"),
            ("a b+c", "a%20b%2Bc"),
            ("..", ".."),
            ("Bücher", "Bücher"),
            ("line\n\0", "line%0A%00"),
            ("", NULL),
        ];
        let column: StringArray = texts.iter().map(|(text, _)| Some(*text)).collect();
        let expected: Vec<_> = texts.iter().map(|(_, name)| *name).collect();
        assert_eq!(names(Arc::new(column)), expected);
        assert_eq!(
            names(Arc::new(StringArray::from(vec![None::<&str>]))),
            [NULL]
        );
        assert_eq!(names(Arc::new(Int64Array::from(vec![-5]))), ["-5"]);
        assert_eq!(names(Arc::new(BooleanArray::from(vec![true]))), ["true"]);
        assert_eq!(names(Arc::new(Date32Array::from(vec![1]))), ["1970-01-02"]);
    }

    #[test]
    fn long_values_are_cut_and_stay_apart() {
        let long = |last: char| format!("{}{last}", "ü".repeat(300));
        let column = StringArray::from(vec![long('a'), long('b')]);
        let names = names(Arc::new(column));
        assert!(names.iter().all(|n| n.len() <= 255 && n.starts_with("üüü")));
        assert_ne!(names[0], names[1]);
    }
}
