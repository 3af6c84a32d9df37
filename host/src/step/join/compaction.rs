//! How the rows of a bucket come into a checkpoint: what is fresh as a segment, and many segments as one.
//!
//! A bucket that is open for long is written with every checkpoint; a start should not have to read a segment for each.
//! Invariant: a compaction puts its segment and drops those it is made of in one checkpoint.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::side::Side;
use crate::batch::Batch;
use crate::state::{Delta, Fault, PutSegment, SegmentId, SegmentSource, Segments};
use crate::step::order::{decode, encode};
use crate::time::{MICROS_PER_MS, Micros};

/// The side that a segment is of: the lowest bit of its serial number.
pub fn side_of(id: SegmentId) -> usize {
    usize::from(id.serial & 1)
}

/// How often its rows were written again: the other bits. Only segments of one level become one, so that a row is
/// written as often as the number of segments has digits.
fn level(id: &SegmentId) -> u16 {
    id.serial >> 1
}

/// What a freeze of one side needs to know.
pub struct Freeze<'a> {
    pub checkpoint: u64,
    /// Key groups of this worker.
    pub groups: &'a Range<u16>,
    /// Length of a bucket.
    pub width: Micros,
    pub reader: &'a Arc<dyn Segments>,
    /// Segments of a bucket that become one.
    pub segments_max: usize,
}

impl Freeze<'_> {
    /// Adds what changed in the buckets of side `number`.
    pub fn side(&self, number: u16, side: &mut Side, delta: &mut Delta) {
        let schema = side.schema.clone();
        for (bucket_number, bucket) in &mut side.buckets {
            let id = |serial| SegmentId {
                millis: bucket_number * (self.width / MICROS_PER_MS),
                checkpoint: self.checkpoint,
                serial,
                first: self.groups.start,
                last: self.groups.end - 1,
            };
            // All of them are decided: this checkpoint's come below. What other workers read stays as it is.
            let own =
                |s: &SegmentId| self.groups.contains(&s.first) && self.groups.contains(&s.last);
            let segments = bucket.segments.iter().filter(|s| own(s));
            for level in crowded(segments.map(level), self.segments_max) {
                let here = |s: &mut SegmentId| own(s) && self::level(s) == level;
                let old: Vec<SegmentId> = bucket.segments.extract_if(.., here).collect();
                let new = id(number | (level + 1) << 1);
                bucket.segments.push(new);
                delta.dropped.extend(&old);
                delta.segments.push(Box::new(Compaction {
                    new,
                    old,
                    reader: self.reader.clone(),
                    schema: schema.clone(),
                }));
            }
            if !bucket.fresh.is_empty() {
                let id = id(number);
                bucket.segments.push(id);
                let rows = std::mem::take(&mut bucket.fresh);
                delta.segments.push(Box::new(FreshRows { id, rows }));
            }
        }
    }
}

/// The levels with at least `most` segments, the highest first: what comes up from below waits for the next time.
fn crowded(levels: impl Iterator<Item = u16>, most: usize) -> Vec<u16> {
    let mut counts = BTreeMap::new();
    levels.for_each(|level| *counts.entry(level).or_insert(0) += 1);
    let crowded = counts.into_iter().rev().filter(|(_, n)| *n >= most);
    crowded.map(|(level, _)| level).collect()
}

/// Rows of one bucket on their way into a checkpoint.
struct FreshRows {
    id: SegmentId,
    rows: Vec<Batch>,
}

impl SegmentSource for FreshRows {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        match Batch::concat(&self.rows) {
            Some(rows) => put(self.id, &encode(&rows)),
            None => Ok(()),
        }
    }
}

/// Segments of one bucket that become one.
struct Compaction {
    new: SegmentId,
    old: Vec<SegmentId>,
    reader: Arc<dyn Segments>,
    schema: arrow::datatypes::SchemaRef,
}

impl SegmentSource for Compaction {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        let found = self.reader.read(&self.old).map_err(Fault)?;
        let found = found.ok_or_else(|| Fault(format!("one of {:?} is missing", self.old)))?;
        let rows = found.iter().map(|bytes| decode(bytes, &self.schema));
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(Fault)?;
        match Batch::concat(&rows) {
            Some(rows) => put(self.new, &encode(&rows)),
            None => Ok(()),
        }
    }
}
