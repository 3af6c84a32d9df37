//! MessagePack as JSON, for people to read: the states that plugins keep as documents of their own.
//!
//! Bytes come from plugins: nothing is trusted to end where it should, and depth is bounded. What JSON cannot say becomes
//! text: bytes base64, keys that are no text their JSON, floats that are no numbers their names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::limits::JSON_DEPTH_MAX;

/// The one document that `bytes` hold; `None` if they hold something else.
pub fn to_json(bytes: &[u8]) -> Option<Value> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(JSON_DEPTH_MAX)?;
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        let [marker] = self.take()?;
        Some(match marker {
            0x00..=0x7F => marker.into(),
            0xE0..=0xFF => (marker as i8).into(),
            0x80..=0x8F => self.map(usize::from(marker & 0x0F), depth)?,
            0x90..=0x9F => self.array(usize::from(marker & 0x0F), depth)?,
            0xA0..=0xBF => self.text(usize::from(marker & 0x1F))?,
            0xC0 => Value::Null,
            0xC1 => return None,
            0xC2 => false.into(),
            0xC3 => true.into(),
            0xC4..=0xC6 => {
                let length = self.length(marker - 0xC4)?;
                self.bytes(length)?
            }
            0xC7..=0xC9 => {
                let length = self.length(marker - 0xC7)?;
                self.extension(length)?
            }
            0xCA => float(f64::from(f32::from_be_bytes(self.take()?))),
            0xCB => float(f64::from_be_bytes(self.take()?)),
            0xCC => u8::from_be_bytes(self.take()?).into(),
            0xCD => u16::from_be_bytes(self.take()?).into(),
            0xCE => u32::from_be_bytes(self.take()?).into(),
            0xCF => u64::from_be_bytes(self.take()?).into(),
            0xD0 => i8::from_be_bytes(self.take()?).into(),
            0xD1 => i16::from_be_bytes(self.take()?).into(),
            0xD2 => i32::from_be_bytes(self.take()?).into(),
            0xD3 => i64::from_be_bytes(self.take()?).into(),
            0xD4..=0xD8 => self.extension(1 << (marker - 0xD4))?,
            0xD9..=0xDB => {
                let length = self.length(marker - 0xD9)?;
                self.text(length)?
            }
            0xDC | 0xDD => {
                let length = self.length(marker - 0xDC + 1)?;
                self.array(length, depth)?
            }
            0xDE | 0xDF => {
                let length = self.length(marker - 0xDE + 1)?;
                self.map(length, depth)?
            }
        })
    }

    /// A length of 1, 2 or 4 bytes.
    fn length(&mut self, size: u8) -> Option<usize> {
        match size {
            0 => self.take().map(|b| usize::from(u8::from_be_bytes(b))),
            1 => self.take().map(|b| usize::from(u16::from_be_bytes(b))),
            _ => usize::try_from(u32::from_be_bytes(self.take()?)).ok(),
        }
    }

    fn map(&mut self, length: usize, depth: usize) -> Option<Value> {
        let mut map = Map::new();
        for _ in 0..length {
            let key = match self.value(depth)? {
                Value::String(text) => text,
                other => other.to_string(),
            };
            map.insert(key, self.value(depth)?);
        }
        Some(Value::Object(map))
    }

    fn array(&mut self, length: usize, depth: usize) -> Option<Value> {
        (0..length).map(|_| self.value(depth)).collect()
    }

    fn text(&mut self, length: usize) -> Option<Value> {
        let text = std::str::from_utf8(self.slice(length)?).ok()?;
        Some(text.into())
    }

    fn bytes(&mut self, length: usize) -> Option<Value> {
        Some(STANDARD.encode(self.slice(length)?).into())
    }

    fn extension(&mut self, length: usize) -> Option<Value> {
        let kind = i8::from_be_bytes(self.take()?);
        Some(json!({ "extension": kind, "bytes": self.bytes(length)? }))
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(slice)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}

fn float(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => value.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let long = "x".repeat(40);
        let mut text = vec![0xD9, 40];
        text.extend(long.as_bytes());
        for (bytes, expected) in [
            (&[0x07][..], json!(7)),
            (&[0xFF], json!(-1)),
            (&[0xC0], json!(null)),
            (&[0xC3], json!(true)),
            (&[0xCC, 200], json!(200)),
            (&[0xCD, 1, 0], json!(256)),
            (&[0xCE, 0, 1, 0, 0], json!(65_536)),
            (
                &[0xCF, 255, 255, 255, 255, 255, 255, 255, 255],
                json!(u64::MAX),
            ),
            (&[0xD0, 0x80], json!(-128)),
            (&[0xD1, 0xFF, 0], json!(-256)),
            (&[0xD2, 0xFF, 0xFF, 0, 0], json!(-65_536)),
            (&[0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0], json!(i64::MIN)),
            (&[0xCA, 0x3F, 0xC0, 0, 0], json!(1.5)),
            (&[0xCB, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0], json!(1.5)),
            (&[0xCB, 0x7F, 0xF8, 0, 0, 0, 0, 0, 0], json!("NaN")),
            (&[0xA2, b'a', b'b'], json!("ab")),
            (&text, json!(long)),
            (&[0xDA, 0, 1, b'a'], json!("a")),
            (&[0xC4, 2, 0, 1], json!("AAE=")),
            (&[0x92, 1, 0xA1, b'a'], json!([1, "a"])),
            (&[0xDC, 0, 1, 5], json!([5])),
            (&[0x82, 0xA1, b'a', 1, 2, 0x90], json!({ "a": 1, "2": [] })),
            (&[0xDE, 0, 1, 0xA1, b'a', 0xC2], json!({ "a": false })),
            (&[0xD4, 5, 1], json!({ "extension": 5, "bytes": "AQ==" })),
            (&[0xC7, 1, 5, 1], json!({ "extension": 5, "bytes": "AQ==" })),
        ] {
            assert_eq!(to_json(bytes), Some(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_no_document_is_none() {
        let deep = vec![0x91; JSON_DEPTH_MAX + 1];
        for bytes in [
            &[][..],
            &[0xC1],
            &[0xCC],
            &[0x92, 1],
            &[0xA2, b'a'],
            &[0xA1, 0xFF],
            &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xDF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
            &[1, 2],
            &deep,
        ] {
            assert_eq!(to_json(bytes), None, "{bytes:02x?}");
        }
    }
}
