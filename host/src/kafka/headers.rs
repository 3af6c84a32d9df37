//! A record's headers as the text of a JSON object.
//!
//! A value is a string; null where it is null, `{"base64": …}` where it is not UTF-8, an array of all its values, in
//! order, where a name stands more than once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::format::encode::write_text;

/// Name and value; a name that is not UTF-8 is shown with replacement characters.
pub(super) type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Appends the object.
pub(super) fn write(headers: &[Header<'_>], out: &mut Vec<u8>) {
    out.push(b'{');
    let mut written = 0;
    for (at, (name, _)) in headers.iter().enumerate() {
        if headers[..at].iter().any(|(before, _)| before == name) {
            continue;
        }
        if written > 0 {
            out.push(b',');
        }
        written += 1;
        write_text(&String::from_utf8_lossy(name), out);
        out.push(b':');
        let mut values = headers[at..]
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v);
        match (values.next(), values.next()) {
            (Some(only), None) => write_value(*only, out),
            _ => write_values(headers[at..].iter().filter(|(n, _)| n == name), out),
        }
    }
    out.push(b'}');
}

fn write_values<'a>(values: impl Iterator<Item = &'a Header<'a>>, out: &mut Vec<u8>) {
    for (at, (_, value)) in values.enumerate() {
        out.push(if at == 0 { b'[' } else { b',' });
        write_value(*value, out);
    }
    out.push(b']');
}

fn write_value(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.extend_from_slice(b"null"),
        Some((_, Ok(text))) => write_text(text, out),
        Some((bytes, Err(_))) => {
            out.extend_from_slice(b"{\"base64\":");
            write_text(&STANDARD.encode(bytes), out);
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_an_object() {
        let check = |headers: &[Header<'_>], expected: &str| {
            let mut out = Vec::new();
            write(headers, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(&[], "{}");
        check(
            &[(b"a", Some(b"x\"")), (b"b", None), (b"c", Some(b"\xff"))],
            r#"{"a":"x\"","b":null,"c":{"base64":"/w=="}}"#,
        );
        check(
            &[
                (b"a", Some(b"1")),
                (b"b", Some(b"")),
                (b"a", None),
                (b"a", Some(b"1")),
            ],
            r#"{"a":["1",null,"1"],"b":""}"#,
        );
    }
}
