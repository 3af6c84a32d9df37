//! Segments: blobs of a step that are written once and dropped once, such as the panes of a window.
//!
//! Unlike keys they are never changed, so the log has for each only that it came or that it went.

use std::collections::BTreeMap;

use redb::ReadTransaction;

use super::file::Fault;
use super::log::{SEGMENT_DROPPED, SEGMENT_PUT, SEGMENTS};
use super::merge::Snapshot;
use super::merged;

/// What the log says last of each segment: the checkpoint it was put in, or `None` if it was dropped.
pub(super) type Fates = BTreeMap<(u16, u64), Option<u64>>;

/// All segments of a step, ascending by id.
pub(super) fn all(snapshot: &Snapshot, step: u16) -> Result<Vec<(u64, Vec<u8>)>, Fault> {
    let mut segments = BTreeMap::new();
    for row in merged::segments(&snapshot.merged, step)? {
        let (id, bytes) = row?;
        segments.insert(id.value().1, bytes.value().to_vec());
    }
    let fates = fates(&snapshot.log, &snapshot.numbers, &[step])?;
    for ((_, id), fate) in fates {
        match fate {
            Some(number) => segments.insert(id, read(&snapshot.log, number, (step, id))?),
            None => segments.remove(&id),
        };
    }
    Ok(segments.into_iter().collect())
}

/// What became of the segments of `steps` in the checkpoints `numbers`, given in ascending order.
pub(super) fn fates(log: &ReadTransaction, numbers: &[u64], steps: &[u16]) -> Result<Fates, Fault> {
    let table = log.open_table(SEGMENTS)?;
    let mut fates = Fates::new();
    for &number in numbers {
        for &step in steps {
            for row in table.range((number, step, 0)..=(number, step, u64::MAX))? {
                let (key, value) = row?;
                let id = (step, key.value().2);
                match value.value().first() {
                    Some(&SEGMENT_PUT) => fates.insert(id, Some(number)),
                    Some(&SEGMENT_DROPPED) => fates.insert(id, None),
                    _ => return Err(malformed(id)),
                };
            }
        }
    }
    Ok(fates)
}

/// The bytes of a segment that checkpoint `number` put.
pub(super) fn read(
    log: &ReadTransaction,
    number: u64,
    (step, id): (u16, u64),
) -> Result<Vec<u8>, Fault> {
    let table = log.open_table(SEGMENTS)?;
    let row = table.get((number, step, id))?;
    let bytes = row.as_ref().and_then(|row| row.value().split_first());
    match bytes {
        Some((&SEGMENT_PUT, bytes)) => Ok(bytes.to_vec()),
        _ => Err(malformed((step, id))),
    }
}

fn malformed((step, id): (u16, u64)) -> Fault {
    Fault(format!(
        "segment {id} of step number {step} is malformed in the log"
    ))
}
