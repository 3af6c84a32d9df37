//! Where a record ends in a stream of bytes: at a newline, which in CSV must stand outside quotes.
//!
//! Knows no file. Invariant: it looks at each byte once, so a record may come in pieces of any size.

use crate::pipeline::plan::Format;

/// Looks for the end of one record after the other.
#[derive(Debug, Clone)]
pub struct Framing {
    format: Format,
    csv: Csv,
    newlines: i64,
}

/// Where in a CSV record the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Csv {
    FieldStart,
    Field,
    Quoted,
    /// Behind a quote in a quoted field: its end, or half of a doubled quote.
    Quote,
}

impl Framing {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            csv: Csv::FieldStart,
            newlines: 0,
        }
    }

    /// The index of the newline that ends the record of which `bytes` is the next piece; the piece after it is a new
    /// record's. `None`: the record goes on behind `bytes`.
    #[inline]
    pub fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.format {
            Format::Csv => self.csv_end(bytes),
            _ => memchr::memchr(b'\n', bytes),
        }
    }

    /// Newlines inside the record so far; counts from 0 again.
    pub fn take_newlines(&mut self) -> i64 {
        std::mem::take(&mut self.newlines)
    }

    /// The input ended within a record: what follows is a new one.
    pub fn reset(&mut self) {
        self.csv = Csv::FieldStart;
    }

    fn csv_end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, &byte) in bytes.iter().enumerate() {
            self.csv = match (self.csv, byte) {
                (Csv::Quoted, b'"') => Csv::Quote,
                (Csv::Quoted, b'\n') => {
                    self.newlines += 1;
                    Csv::Quoted
                }
                (Csv::Quoted, _) => Csv::Quoted,
                (_, b'\n') => {
                    self.csv = Csv::FieldStart;
                    return Some(index);
                }
                (Csv::FieldStart, b'"') | (Csv::Quote, b'"') => Csv::Quoted,
                (_, b',') => Csv::FieldStart,
                _ => Csv::Field,
            };
        }
        None
    }
}

/// The records of a whole input with the 1-based line each begins on, line ends (`\n` or `\r\n`) taken off. Input without
/// a last newline ends with a record; behind a last newline there is none.
pub fn split(format: Format, input: &[u8]) -> impl Iterator<Item = (i64, &[u8])> {
    let mut framing = Framing::new(format);
    let (mut rest, mut line) = (input, 1);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (record, next) = match framing.end(rest) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        let first_line = line;
        line += 1 + framing.take_newlines();
        rest = next;
        Some((first_line, without_return(record)))
    })
}

/// The record without the `\r` of a line end `\r\n`.
#[inline]
pub fn without_return(record: &[u8]) -> &[u8] {
    record.strip_suffix(b"\r").unwrap_or(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(format: Format, input: &str, expected: &[(i64, &str)]) {
        let got: Vec<_> = split(format, input.as_bytes())
            .map(|(line, r)| (line, std::str::from_utf8(r).unwrap()))
            .collect();
        assert_eq!(got, expected, "{input:?}");
    }

    #[test]
    fn lines_end_at_every_newline() {
        check(Format::Json, "", &[]);
        check(Format::Json, "a\nb\n", &[(1, "a"), (2, "b")]);
        check(Format::Json, "a\r\n\r\nb", &[(1, "a"), (2, ""), (3, "b")]);
        check(Format::Json, "\"\n\"\n", &[(1, "\""), (2, "\"")]);
    }

    #[test]
    fn csv_records_end_outside_quotes() {
        check(Format::Csv, "a,b\n1,2\n", &[(1, "a,b"), (2, "1,2")]);
        check(
            Format::Csv,
            "a\n\"x\ny\"\r\nz\n",
            &[(1, "a"), (2, "\"x\ny\""), (4, "z")],
        );
        check(
            Format::Csv,
            "\"a\"\"\nb\",\"\"\nc",
            &[(1, "\"a\"\"\nb\",\"\""), (3, "c")],
        );
        // A quote inside an unquoted field opens nothing, so that one bad record does not swallow the rest.
        check(Format::Csv, "5\" x\nb\n", &[(1, "5\" x"), (2, "b")]);
        check(Format::Csv, "\"open\nb\n", &[(1, "\"open\nb\n")]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(input in "[a,\"\n\r]{0,60}", cut in 0usize..60) {
            let bytes = input.as_bytes();
            let cut = cut.min(bytes.len());
            let mut whole = Framing::new(Format::Csv);
            let mut pieces = Framing::new(Format::Csv);
            let expected = whole.end(bytes);
            let got = pieces.end(&bytes[..cut]).or_else(|| pieces.end(&bytes[cut..]).map(|e| e + cut));
            prop_assert_eq!(got, expected);
            prop_assert_eq!(pieces.take_newlines(), whole.take_newlines());
        }
    }
}
