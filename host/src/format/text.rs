//! Plain text: a record is one string, whatever is in it.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::columns::{Kind, Rows};
use super::{Decoder, check_size};
use crate::time::Micros;

/// Puts each record into the one column.
pub struct TextDecoder {
    rows: Rows,
}

impl TextDecoder {
    /// Errors name the fields, unless there is exactly one and it is a string.
    pub fn new(schema: &SchemaRef, paths: &[Vec<String>]) -> Result<Self, String> {
        let mut rows = Rows::new(schema, paths, None)?;
        match schema.fields().len() {
            1 if rows.open(0).kind() == Kind::Text => Ok(Self { rows }),
            _ => Err("text has one field, a string: the whole record".into()),
        }
    }
}

impl Decoder for TextDecoder {
    fn push(&mut self, record: &[u8]) -> Result<Micros, String> {
        check_size(record)?;
        let text = std::str::from_utf8(record)
            .map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to() + 1))?;
        self.rows.open(0).put_text(text)?;
        self.rows.complete()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn decoder(types: &[DataType]) -> Result<TextDecoder, String> {
        let fields = types.iter().map(|t| Field::new("line", t.clone(), false));
        let paths = vec![vec!["line".to_owned()]; types.len()];
        TextDecoder::new(&Arc::new(Schema::new(fields.collect::<Vec<_>>())), &paths)
    }

    #[test]
    fn a_record_is_a_string() {
        let mut decoder = decoder(&[DataType::Utf8]).unwrap();
        for record in ["", "{\"not\": json", "é\ttab"] {
            decoder.push(record.as_bytes()).unwrap();
        }
        assert_eq!(decoder.push(b"ab\xff").unwrap_err(), "not UTF-8 at byte 3");
        decoder.push(b"undone").unwrap();
        decoder.undo();
        let rows = decoder.finish();
        let texts: Vec<_> = rows.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(texts, ["", "{\"not\": json", "é\ttab"]);
    }

    #[test]
    fn other_fields_are_refused() {
        assert!(decoder(&[DataType::Int64]).is_err());
        assert!(decoder(&[]).is_err());
        assert!(decoder(&[DataType::Utf8, DataType::Utf8]).is_err());
    }
}
