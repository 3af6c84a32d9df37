//! Segments in the two files: which there are, and their bytes.
//!
//! Unlike keys they are never changed, so the log has for each only that it came or that it went.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadTransaction;

use super::SegmentId;
use super::file::Fault;
use super::log::{SEGMENT_DROPPED, SEGMENT_PUT, SEGMENTS};
use super::merge::Snapshot;
use super::merged;

/// What the log says last of each segment: the checkpoint it was put in, or `None` if it was dropped.
pub(super) type Fates = BTreeMap<(u16, u128), Option<u64>>;

/// The names of a step's segments, ascending.
pub(super) fn ids(snapshot: &Snapshot, step: u16) -> Result<Vec<SegmentId>, Fault> {
    let mut ids = BTreeSet::new();
    for row in merged::segments(&snapshot.merged, step)? {
        ids.insert(row?.0.value().1);
    }
    for ((_, id), fate) in fates(&snapshot.log, &snapshot.numbers, &[step])? {
        match fate {
            Some(_) => ids.insert(id),
            None => ids.remove(&id),
        };
    }
    Ok(ids.into_iter().map(SegmentId::unpack).collect())
}

/// The bytes of `ids`; `None` if one is not there.
pub(super) fn bytes(
    snapshot: &Snapshot,
    step: u16,
    ids: &[SegmentId],
) -> Result<Option<Vec<Vec<u8>>>, Fault> {
    let log = snapshot.log.open_table(SEGMENTS)?;
    let merged = merged::segment_table(&snapshot.merged)?;
    let one = |id: &SegmentId| {
        let key = (step, id.pack());
        // A segment stands in the log under the checkpoint it came with, until it is merged.
        if let Some(row) = log.get((id.checkpoint, step, key.1))?
            && let Some((&SEGMENT_PUT, bytes)) = row.value().split_first()
        {
            return Ok(Some(bytes.to_vec()));
        }
        Ok(merged.get(key)?.map(|row| row.value().to_vec()))
    };
    ids.iter().map(one).collect()
}

/// What became of the segments of `steps` in the checkpoints `numbers`, given in ascending order.
pub(super) fn fates(log: &ReadTransaction, numbers: &[u64], steps: &[u16]) -> Result<Fates, Fault> {
    let table = log.open_table(SEGMENTS)?;
    let mut fates = Fates::new();
    for &number in numbers {
        for &step in steps {
            for row in table.range((number, step, 0)..=(number, step, u128::MAX))? {
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
    (step, id): (u16, u128),
) -> Result<Vec<u8>, Fault> {
    let table = log.open_table(SEGMENTS)?;
    let row = table.get((number, step, id))?;
    let bytes = row.as_ref().and_then(|row| row.value().split_first());
    match bytes {
        Some((&SEGMENT_PUT, bytes)) => Ok(bytes.to_vec()),
        _ => Err(malformed((step, id))),
    }
}

fn malformed((step, id): (u16, u128)) -> Fault {
    Fault(format!(
        "{:?} of step number {step} is malformed in the log",
        SegmentId::unpack(id)
    ))
}
