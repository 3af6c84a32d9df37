//! Columns to CSV (RFC 4180): a first line with the names, then a line a row, all ended by a newline.
//!
//! Null is empty, an empty string `""`. Values are those of the JSON encoding without its quotes: times RFC 3339 in UTC,
//! bytes base64, floats that are not finite null; what is a list or an object there is that text here.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};

use super::encode::Values;

/// Writes rows of one table as CSV.
#[derive(Debug, Clone)]
pub struct CsvWriter {
    header: Vec<u8>,
    /// What every row begins with, ready for each input: a value and its comma.
    leading: Vec<Vec<u8>>,
}

/// A column made ready.
enum Cells {
    /// As they are.
    Text(StringArray),
    Json(Values),
}

impl CsvWriter {
    /// `leading`: a column in front of those of `schema`, and its value for each input.
    pub fn new(schema: &SchemaRef, leading: Option<(&str, &[String])>) -> Self {
        let names = schema.fields().iter().map(|f| f.name().as_str());
        let mut header = Vec::new();
        for (at, name) in leading
            .iter()
            .map(|(name, _)| *name)
            .chain(names)
            .enumerate()
        {
            if at > 0 {
                header.push(b',');
            }
            write_cell(name.as_bytes(), &mut header);
        }
        header.push(b'\n');
        let values = leading.map_or(&[] as &[String], |(_, values)| values);
        let cell = |value: &String| {
            let mut cell = Vec::new();
            write_cell(value.as_bytes(), &mut cell);
            cell.push(b',');
            cell
        };
        Self {
            header,
            leading: values.iter().map(cell).collect(),
        }
    }

    /// The first line of a file.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Appends the rows of input `input` to `out`.
    pub fn write(&self, input: usize, columns: &RecordBatch, out: &mut Vec<u8>) {
        let cells: Vec<_> = columns.columns().iter().map(Cells::new).collect();
        let leading = self.leading.get(input).map_or(&[] as &[u8], Vec::as_slice);
        let mut json = Vec::new();
        for row in 0..columns.num_rows() {
            out.extend_from_slice(leading);
            for (at, cells) in cells.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                cells.write(row, &mut json, out);
            }
            out.push(b'\n');
        }
    }
}

impl Cells {
    fn new(column: &ArrayRef) -> Self {
        if column.data_type().is_string()
            && let Ok(text) = cast(column, &DataType::Utf8)
        {
            return Self::Text(text.as_string().clone());
        }
        Self::Json(Values::new(column))
    }

    /// `json` is room to work in.
    fn write(&self, row: usize, json: &mut Vec<u8>, out: &mut Vec<u8>) {
        match self {
            Self::Text(texts) if texts.is_null(row) => {}
            Self::Text(texts) => write_cell(texts.value(row).as_bytes(), out),
            Self::Json(values) => {
                json.clear();
                values.write(row, json);
                match json.as_slice() {
                    b"null" => {}
                    [b'"', text @ .., b'"'] => write_cell(text, out),
                    text => write_cell(text, out),
                }
            }
        }
    }
}

/// A value, in quotes where it would not be read back as it is.
fn write_cell(text: &[u8], out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b'"' | b',' | b'\n' | b'\r');
    let edge = |b: Option<&u8>| b.is_some_and(|b| *b == b' ');
    if !text.is_empty() && !text.iter().any(special) && !edge(text.first()) && !edge(text.last()) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
        ListBuilder, StringBuilder, TimestampMicrosecondArray,
    };

    use super::*;
    use crate::format::{decoder, framing};
    use crate::pipeline::plan::Format;

    fn written(writer: &CsvWriter, columns: &RecordBatch) -> String {
        let mut out = writer.header().to_vec();
        writer.write(0, columns, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn one(column: ArrayRef) -> Vec<String> {
        let before: ArrayRef = Arc::new(Int64Array::from(vec![0; column.len()]));
        let columns =
            RecordBatch::try_from_iter_with_nullable([("k", before, false), ("v", column, true)]);
        let columns = columns.unwrap();
        let text = written(&CsvWriter::new(&columns.schema(), None), &columns);
        let lines = text.lines().skip(1);
        lines
            .map(|l| l.strip_prefix("0,").unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_type_as_a_reader_of_csv_expects_it() {
        assert_eq!(
            one(Arc::new(StringArray::from(vec![
                Some("a"),
                None,
                Some(""),
                Some("a,b"),
                Some("say \"hi\""),
                Some(" a"),
                Some("null"),
            ]))),
            [
                "a",
                "",
                "\"\"",
                "\"a,b\"",
                "\"say \"\"hi\"\"\"",
                "\" a\"",
                "null"
            ]
        );
        let floats = vec![Some(2.5), None, Some(f64::NAN), Some(1e300)];
        assert_eq!(
            one(Arc::new(Float64Array::from(floats))),
            ["2.5", "", "", "1e+300"]
        );
        assert_eq!(
            one(Arc::new(Int64Array::from(vec![Some(-7), None]))),
            ["-7", ""]
        );
        let bools = BooleanArray::from(vec![Some(true), Some(false), None]);
        assert_eq!(one(Arc::new(bools)), ["true", "false", ""]);
        let times = TimestampMicrosecondArray::from(vec![Some(1_500_000), None]);
        assert_eq!(
            one(Arc::new(times.with_timezone("UTC"))),
            ["1970-01-01T00:00:01.500Z", ""]
        );
        let bytes = BinaryArray::from(vec![b"abc".as_slice(), b""]);
        assert_eq!(one(Arc::new(bytes)), ["YWJj", "\"\""]);
        assert_eq!(
            one(Arc::new(Date32Array::from(vec![Some(1)]))),
            ["1970-01-02"]
        );
        let decimals = Decimal128Array::from(vec![Some(12_345), None]);
        let decimals = decimals.with_precision_and_scale(10, 2).unwrap();
        assert_eq!(one(Arc::new(decimals)), ["123.45", ""]);
        let mut list = ListBuilder::new(StringBuilder::new());
        list.append_value([Some("a"), None]);
        list.append_null();
        assert_eq!(one(Arc::new(list.finish())).last().unwrap(), "");
    }

    #[test]
    fn names_and_the_leading_column_are_quoted_like_values() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let columns = RecordBatch::try_from_iter([("sum(a, b)", column)]).unwrap();
        let labels = ["views".to_owned(), "views.late".to_owned()];
        let writer = CsvWriter::new(&columns.schema(), Some(("step", &labels)));
        assert_eq!(writer.header(), b"step,\"sum(a, b)\"\n");
        let mut out = Vec::new();
        writer.write(1, &columns, &mut out);
        writer.write(0, &columns, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "views.late,1\nviews,1\n");
    }

    /// What is written is what this project's own reader reads.
    #[test]
    fn rows_are_read_back() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![
            Some("two\nlines, \"quoted\""),
            None,
            Some(""),
            Some("ü"),
        ]));
        let time = TimestampMicrosecondArray::from(vec![Some(0), Some(-1), None, Some(7)]);
        let time: ArrayRef = Arc::new(time.with_timezone("UTC"));
        let columns =
            RecordBatch::try_from_iter_with_nullable([("text", text, true), ("at", time, true)])
                .unwrap();
        let file = written(&CsvWriter::new(&columns.schema(), None), &columns);
        let mut records = framing::split(Format::Csv, file.as_bytes()).map(|(_, record)| record);
        let header = records.next().unwrap();
        let paths = [vec!["text".to_owned()], vec!["at".to_owned()]];
        let mut decoder =
            decoder(Format::Csv, &columns.schema(), &paths, None, Some(header)).unwrap();
        records.for_each(|record| assert!(decoder.push(record).is_ok()));
        assert_eq!(decoder.finish(), columns);
    }
}
