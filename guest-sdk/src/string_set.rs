//! A small set of strings in one piece of memory, made to be part of a state: read and written as one run of bytes.
//!
//! Not for large sets: finding a string walks over all of them, as reading and writing the state does anyway.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// Distinct strings of a key, such as the products of a session. In a state it is some five times cheaper than a
/// `BTreeSet<String>`, which takes an allocation a string whenever the state is read.
///
/// ```
/// # use tidemill_guest::StringSet;
/// let mut products = StringSet::default();
/// assert!(products.insert("cup"));
/// assert!(products.insert("pan"));
/// assert!(!products.insert("cup"), "it is there already");
/// assert_eq!(products.iter().collect::<Vec<_>>(), ["cup", "pan"]);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StringSet {
    /// Of each string its length, little-endian in four bytes, and its bytes; in the order of insertion.
    bytes: Vec<u8>,
    len: usize,
}

const LENGTH_BYTES: usize = size_of::<u32>();

impl StringSet {
    /// Adds a string; false if it is there already.
    ///
    /// # Panics
    /// If the string is longer than 4 GiB.
    pub fn insert(&mut self, string: &str) -> bool {
        if self.contains(string) {
            return false;
        }
        let length = u32::try_from(string.len()).expect("strings of a set are below 4 GiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(string.as_bytes());
        self.len += 1;
        true
    }

    /// Whether the string is there.
    pub fn contains(&self, string: &str) -> bool {
        self.strings().any(|known| known == string.as_bytes())
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The strings in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.strings()
            .map(|bytes| str::from_utf8(bytes).expect("only strings were added"))
    }

    fn strings(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (string, after) = split(rest)?;
            rest = after;
            Some(string)
        })
    }
}

/// The first string and what follows it; `None` at the end and where the bytes are not those of a set.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

impl fmt::Debug for StringSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for StringSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for StringSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Bytes)
    }
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = StringSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a set of strings")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<StringSet, E> {
        let (mut rest, mut len) = (bytes, 0);
        while !rest.is_empty() {
            let (_, after) = split(rest).ok_or_else(|| E::custom("a set of strings is cut off"))?;
            (rest, len) = (after, len + 1);
        }
        Ok(StringSet {
            bytes: bytes.to_vec(),
            len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_comes_back_from_its_state() {
        let mut set = StringSet::default();
        for string in ["", "ä", "cup", "", "cup"] {
            set.insert(string);
        }
        let state = rmp_serde::to_vec(&set).unwrap();
        let back: StringSet = rmp_serde::from_slice(&state).unwrap();
        assert_eq!((back.len(), &back), (3, &set));
        assert!(back.contains("ä") && !back.contains("a"));
    }

    #[test]
    fn bytes_that_are_no_set_are_refused() {
        for bytes in [&[1][..], &[2, 0, 0, 0, b'a']] {
            let mut state = Vec::new();
            rmp_serde::encode::write(&mut state, &Wrapped(bytes)).unwrap();
            assert!(rmp_serde::from_slice::<StringSet>(&state).is_err());
        }
    }

    struct Wrapped<'a>(&'a [u8]);

    impl Serialize for Wrapped<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }
}
