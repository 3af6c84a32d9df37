//! Changes of one step packed in blobs: how they stand in the log.
//!
//! A blob is entries one after the other: `key length u32 LE | value length u32 LE (FFFFFFFF: deleted) | group u16 BE |
//! key | value`, the group being part of the key's length. Invariant: entries ascend strictly by group, then key, within a
//! blob and from one blob of a checkpoint to the next.

use super::file::Fault;
use super::{Change, Delta};
use crate::limits::LOG_BLOB_BYTES_MAX;

const DELETED: u32 = u32::MAX;
const HEADER: usize = 8;

/// Packs the changes of all workers, sorted, in blobs of at most [`LOG_BLOB_BYTES_MAX`] (one larger entry stands alone).
/// Of two changes of one key the later in `deltas` counts.
pub(super) fn pack(
    deltas: &[Delta],
    mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut sorted: Vec<Change> = deltas.iter().flat_map(|d| d.changes.iter()).collect();
    sorted.sort_by(|a, b| (a.group, a.key).cmp(&(b.group, b.key)));
    let mut blob = Vec::with_capacity(LOG_BLOB_BYTES_MAX.min(64 * sorted.len()));
    let mut changes = sorted.iter().peekable();
    while let Some(change) = changes.next() {
        if changes
            .peek()
            .is_some_and(|c| (c.group, c.key) == (change.group, change.key))
        {
            continue;
        }
        if !blob.is_empty() && blob.len() + entry_bytes(change) > LOG_BLOB_BYTES_MAX {
            each(&blob)?;
            blob.clear();
        }
        push(change, &mut blob)?;
    }
    if blob.is_empty() { Ok(()) } else { each(&blob) }
}

fn entry_bytes(change: &Change) -> usize {
    HEADER + 2 + change.key.len() + change.value.map_or(0, <[u8]>::len)
}

fn push(change: &Change, out: &mut Vec<u8>) -> Result<(), Fault> {
    let too_large = |_| Fault("a key or value has 4 GiB or more".into());
    let key_len = u32::try_from(2 + change.key.len()).map_err(too_large)?;
    let value_len = match change.value {
        None => DELETED,
        Some(value) => u32::try_from(value.len()).map_err(too_large)?,
    };
    out.extend_from_slice(&key_len.to_le_bytes());
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(&change.group.to_be_bytes());
    out.extend_from_slice(change.key);
    out.extend_from_slice(change.value.unwrap_or_default());
    Ok(())
}

/// One entry: `group u16 BE | key`, and the value unless the key is deleted.
pub(super) type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

/// The entry at the front of `blob` and what follows it; `None` at the end.
pub(super) fn read(blob: &[u8]) -> Result<Option<(Entry<'_>, &[u8])>, Fault> {
    if blob.is_empty() {
        return Ok(None);
    }
    read_entry(blob)
        .map(Some)
        .ok_or_else(|| Fault("a blob of the log is malformed".into()))
}

fn read_entry(blob: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (key_len, rest) = blob.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    if key.len() < 2 {
        return None;
    }
    match u32::from_le_bytes(*value_len) {
        DELETED => Some(((key, None), rest)),
        len => {
            let (value, rest) = rest.split_at_checked(len as usize)?;
            Some(((key, Some(value)), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Changes;
    use super::*;

    fn delta(build: impl FnOnce(&mut Changes)) -> Delta {
        let mut delta = Delta::default();
        build(&mut delta.changes);
        delta
    }

    #[test]
    fn golden_blob() {
        let deltas = [
            delta(|c| c.put(258, b"b", b"xy")),
            delta(|c| {
                c.delete(1, b"a");
                c.put(258, b"b", b"z");
            }),
        ];
        let mut blobs = Vec::new();
        pack(&deltas, |blob| {
            blobs.push(blob.to_vec());
            Ok(())
        })
        .unwrap();
        let golden: &[u8] = &[
            3, 0, 0, 0, 255, 255, 255, 255, 0, 1, b'a', // deleted
            3, 0, 0, 0, 1, 0, 0, 0, 1, 2, b'b', b'z', // the later of two
        ];
        assert_eq!(blobs, [golden]);
    }

    #[test]
    fn blobs_are_bounded_unless_one_entry_is_larger() {
        let large = vec![7u8; LOG_BLOB_BYTES_MAX + 1];
        let part = vec![8u8; LOG_BLOB_BYTES_MAX / 3];
        let deltas = [delta(|c| {
            c.put(0, b"large", &large);
            (0u8..7).for_each(|i| c.put(1, &[i], &part));
        })];
        let mut lens = Vec::new();
        pack(&deltas, |blob| {
            lens.push(blob.len());
            Ok(())
        })
        .unwrap();
        assert_eq!(lens.len(), 1 + 4);
        assert!(lens[1..].iter().all(|&len| len <= LOG_BLOB_BYTES_MAX));
    }

    #[test]
    fn malformed_blobs_are_told() {
        let mut blob = Vec::new();
        let change = Change {
            group: 3,
            key: b"key",
            value: Some(b"value"),
        };
        push(&change, &mut blob).unwrap();
        for len in 1..blob.len() {
            assert!(read(&blob[..len]).is_err(), "cut at {len}");
        }
        let ((key, value), rest) = read(&blob).unwrap().unwrap();
        assert_eq!((key, value), (&b"\x00\x03key"[..], Some(&b"value"[..])));
        assert!(rest.is_empty());
    }
}
