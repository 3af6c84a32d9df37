//! Positions inside a TOML string: from the text it stands for back to the text of the file.
//!
//! Knows nothing of what the string holds (SQL, mostly). Any offset gives a span within the literal.

use std::ops::Range;

use super::text::{Span, Texts};

/// The part of the file that `decoded`, a byte range of the string's value, came from. `literal` is the string as
/// written, with its quotes (or without any: an override).
pub fn within(texts: &Texts, literal: Span, decoded: Range<usize>) -> Span {
    let raw = texts.slice(literal);
    let base = texts.clamp(literal).start;
    let from = raw_offset(raw, decoded.start, Side::Start);
    let to = raw_offset(raw, decoded.end, Side::End).max(from);
    Span::new(literal.text, base + from..base + to)
}

/// A range starts at the character that it begins with, behind escaped line breaks, and ends right behind its last.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Start,
    End,
}

/// Where byte `decoded` of the value stands in the literal `raw`.
fn raw_offset(raw: &str, decoded: usize, side: Side) -> usize {
    let (open, close, escapes) = delimiters(raw);
    let body = &raw[open..raw.len() - close];
    let at = if escapes {
        escaped_offset(body, decoded, side)
    } else {
        decoded.min(body.len())
    };
    open + at
}

/// Bytes of the opening and the closing delimiter, and whether backslashes escape.
fn delimiters(raw: &str) -> (usize, usize, bool) {
    let escapes = raw.starts_with('"');
    for quote in ["\"\"\"", "'''"] {
        if raw.len() >= 6 && raw.starts_with(quote) && raw.ends_with(quote) {
            // A line break right after the opening is not part of the value.
            let newline = match &raw[3..] {
                rest if rest.starts_with("\r\n") => 2,
                rest if rest.starts_with('\n') => 1,
                _ => 0,
            };
            return (3 + newline, 3, escapes);
        }
    }
    for quote in ['"', '\''] {
        if raw.len() >= 2 && raw.starts_with(quote) && raw.ends_with(quote) {
            return (1, 1, escapes);
        }
    }
    (0, 0, false)
}

/// The offset in `body`, which has escapes, of byte `decoded` of its value.
fn escaped_offset(body: &str, decoded: usize, side: Side) -> usize {
    let mut value = 0;
    let mut at = 0;
    while at < body.len() {
        let (raw, bytes) = piece(&body[at..]);
        if value >= decoded && (side == Side::End || bytes > 0) {
            break;
        }
        value += bytes;
        at += raw;
    }
    at.min(body.len())
}

/// Length in the literal of the character that `rest` starts with, and its length in the value.
fn piece(rest: &str) -> (usize, usize) {
    let mut chars = rest.chars();
    let first = chars.next().map_or(1, char::len_utf8);
    if !rest.starts_with('\\') {
        return (first, first);
    }
    match chars.next() {
        Some('x') => hex(rest, 2),
        Some('u') => hex(rest, 4),
        Some('U') => hex(rest, 8),
        // A line break that is escaped goes, with all the white space after it.
        Some(c) if c.is_whitespace() => {
            let white = rest[1..].len() - rest[1..].trim_start().len();
            (1 + white, 0)
        }
        Some(c) => (1 + c.len_utf8(), 1),
        None => (1, 1),
    }
}

fn hex(rest: &str, digits: usize) -> (usize, usize) {
    let code = rest
        .get(2..2 + digits)
        .and_then(|h| u32::from_str_radix(h, 16).ok())
        .and_then(char::from_u32);
    ((2 + digits).min(rest.len()), code.map_or(1, char::len_utf8))
}

#[cfg(test)]
mod tests {
    use super::super::text::Text;
    use super::*;

    /// `raw` holds `mark` once; the value's range of what follows `find` must lead back to it.
    fn check(raw: &str, value: &str, find: &str, expected: &str) {
        let mut texts = Texts::default();
        texts.add(Text::new("p", format!("x = {raw}")));
        let start = value.find(find).unwrap();
        let literal = Span::new(0, 4..4 + raw.len());
        let span = within(&texts, literal, start..start + find.len());
        assert_eq!(texts.slice(span), expected, "{raw}");
    }

    #[test]
    fn positions_survive_quotes_and_escapes() {
        check("\"a + b\"", "a + b", "b", "b");
        check("'a + b'", "a + b", "b", "b");
        check(r#""a = \"x\" + b""#, "a = \"x\" + b", "b", "b");
        check(r#""\u00fc\U0001F600\x41 + b""#, "ü😀A + b", "b", "b");
        check(r#""\u00fc""#, "ü", "ü", r"\u00fc");
        check("\"\"\"\na +\n b\"\"\"", "a +\n b", "b", "b");
        check("'''\na +\n b'''", "a +\n b", "b", "b");
        check("\"\"\"a + \\\n   b\"\"\"", "a + b", "b", "b");
        check("a + b", "a + b", "b", "b");
    }

    #[test]
    fn no_offset_leads_out_of_the_literal() {
        for raw in ["\"ab\"", "\"\\", "\"\\u12\"", "'", "", "\"\"\"\"\"\""] {
            let mut texts = Texts::default();
            texts.add(Text::new("p", raw));
            for offset in 0..9 {
                let span = within(&texts, Span::new(0, 0..raw.len()), offset..offset + 3);
                assert!(span.range().end <= raw.len(), "{raw} {offset}");
            }
        }
    }
}
