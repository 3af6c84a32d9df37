//! The stored value of a key: its state, its alarm and when it is forgotten, as bytes.
//!
//! Knows no step and no file: what the state means is its step's business. Invariant: every value in either file is of this
//! form, whoever wrote it, because the merge reads the times of each (`docs/state-format.md`).

use crate::time::Micros;

/// First byte of a value: what follows it.
const HAS_STATE: u8 = 1;
const HAS_ALARM: u8 = 2;
const HAS_EXPIRY: u8 = 4;

/// The coarsest rounding of an expiry in the index: 2^62 microseconds.
const SHIFT_MAX: u8 = 62;

/// What is known of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Value<'a> {
    pub alarm: Option<Micros>,
    pub expiry: Option<Expiry>,
    pub state: Option<&'a [u8]>,
}

/// When a key is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    pub at: Micros,
    /// The index has `at` rounded up to a multiple of 2^shift microseconds: a key that is touched again soon keeps its
    /// place there.
    pub shift: u8,
}

impl Expiry {
    /// Where the index has it: never before `at`.
    pub fn indexed(self) -> Micros {
        let below = (1 << self.shift) - 1;
        let up = self.at.checked_add(below);
        up.map_or(Micros::MAX, |up| up & !below)
    }
}

impl<'a> Value<'a> {
    /// # Errors
    /// If the bytes are of no value.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let malformed = || "a stored value is malformed".to_string();
        let (&flags, mut rest) = bytes.split_first().ok_or_else(malformed)?;
        if flags & !(HAS_STATE | HAS_ALARM | HAS_EXPIRY) != 0 {
            return Err(malformed());
        }
        let mut value = Self::default();
        if flags & HAS_ALARM != 0 {
            value.alarm = Some(take_time(&mut rest).ok_or_else(malformed)?);
        }
        if flags & HAS_EXPIRY != 0 {
            let (&shift, tail) = rest.split_first().ok_or_else(malformed)?;
            rest = tail;
            let at = take_time(&mut rest).ok_or_else(malformed)?;
            if shift > SHIFT_MAX {
                return Err(malformed());
            }
            value.expiry = Some(Expiry { at, shift });
        }
        value.state = (flags & HAS_STATE != 0).then_some(rest);
        if value.state.is_none() && !rest.is_empty() {
            return Err(malformed());
        }
        Ok(value)
    }

    /// Appends everything but the bytes of the state, which come last.
    pub fn write_header(&self, out: &mut Vec<u8>) {
        out.push(
            u8::from(self.state.is_some()) * HAS_STATE
                + u8::from(self.alarm.is_some()) * HAS_ALARM
                + u8::from(self.expiry.is_some()) * HAS_EXPIRY,
        );
        if let Some(alarm) = self.alarm {
            out.extend_from_slice(&alarm.to_le_bytes());
        }
        if let Some(Expiry { at, shift }) = self.expiry {
            out.push(shift);
            out.extend_from_slice(&at.to_le_bytes());
        }
    }

    /// A value that is a state alone.
    pub fn of_state(state: &[u8]) -> Vec<u8> {
        let mut bytes = vec![HAS_STATE];
        bytes.extend_from_slice(state);
        bytes
    }
}

fn take_time(rest: &mut &[u8]) -> Option<Micros> {
    let (bytes, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(Micros::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.write_header(&mut bytes);
        bytes.extend_from_slice(value.state.unwrap_or_default());
        bytes
    }

    #[test]
    fn golden_bytes() {
        let value = Value {
            alarm: Some(-2),
            expiry: Some(Expiry { at: 258, shift: 3 }),
            state: Some(b"xy"),
        };
        let golden: &[u8] = &[
            7, 254, 255, 255, 255, 255, 255, 255, 255, 3, 2, 1, 0, 0, 0, 0, 0, 0, b'x', b'y',
        ];
        assert_eq!(written(&value), golden);
        assert_eq!(Value::read(golden), Ok(value));
        assert_eq!(Value::of_state(b"xy"), [1, b'x', b'y']);
        for len in [0, 1, 5, 9, 12, 17] {
            assert!(Value::read(&golden[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bytes in [
            &[][..],
            &[8],
            &[0, 1],
            &[2, 0],
            &[4, 63, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(Value::read(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(Value::read(&[0]), Ok(Value::default()));
    }

    #[test]
    fn an_expiry_is_indexed_at_or_after_it() {
        let indexed = |at, shift| Expiry { at, shift }.indexed();
        assert_eq!(
            [indexed(16, 4), indexed(17, 4), indexed(-17, 4)],
            [16, 32, -16]
        );
        assert_eq!(indexed(5, 0), 5);
        assert_eq!(indexed(Micros::MAX - 3, 10), Micros::MAX);
        assert_eq!(indexed(Micros::MIN, 62), Micros::MIN);
    }
}
