//! The names of segments, and how their bytes come into a checkpoint.
//!
//! A segment is a blob of a step that is written once and dropped once. Its name says what a start needs to know of it
//! without reading it: how far its rows reach in time and whose keys it has. Invariant: within a step no two segments
//! have one name, because workers own disjoint key groups.

use std::fmt;
use std::ops::RangeInclusive;

pub use super::file::Fault;

/// Names a segment within its step; sorts by time, then by checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// Milliseconds since 1970, within 47 bits and a sign (4,459 years either way). What it means is the step's affair:
    /// the start of a pane, a time that the last row is before.
    pub millis: i64,
    /// The checkpoint it comes with (the log keeps it under this number), below 2^34.
    pub checkpoint: u64,
    /// Tells segments of one time, checkpoint and key group apart, such as the sides of a join.
    pub serial: u16,
    /// The first and the last key group of its keys, below 2^15.
    pub first: u16,
    pub last: u16,
}

const SERIAL_SHIFT: u32 = 30;
const CHECKPOINT_SHIFT: u32 = 46;
const TIME_SHIFT: u32 = 80;
const TIME_OFFSET: i64 = 1 << 47;

impl SegmentId {
    /// `milliseconds + 2^47, 48 bits | checkpoint 34 | serial 16 | first 15 | last 15`: orders as the fields do.
    pub fn pack(self) -> u128 {
        debug_assert!(self.checkpoint < 1 << 34 && self.first < 1 << 15 && self.last < 1 << 15);
        let time = (self.millis + TIME_OFFSET).clamp(0, (1 << 48) - 1) as u128;
        time << TIME_SHIFT
            | u128::from(self.checkpoint) << CHECKPOINT_SHIFT
            | u128::from(self.serial) << SERIAL_SHIFT
            | u128::from(self.first) << 15
            | u128::from(self.last)
    }

    pub fn unpack(packed: u128) -> Self {
        let group = |shift: u32| ((packed >> shift) & 0x7FFF) as u16;
        Self {
            millis: (packed >> TIME_SHIFT) as i64 - TIME_OFFSET,
            checkpoint: (packed >> CHECKPOINT_SHIFT) as u64 & ((1 << 34) - 1),
            serial: (packed >> SERIAL_SHIFT) as u16,
            first: group(15),
            last: group(0),
        }
    }

    pub fn groups(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// Takes the segments of a [`SegmentSource`] one by one.
pub type PutSegment<'a> = dyn FnMut(SegmentId, &[u8]) -> Result<(), Fault> + 'a;

/// Gives its segments when a checkpoint is written, on the checkpoint thread.
pub trait SegmentSource: Send + Sync {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault>;
}

impl fmt::Debug for dyn SegmentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentSource")
    }
}

/// A segment that is bytes already.
impl SegmentSource for (SegmentId, Vec<u8>) {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        put(self.0, &self.1)
    }
}

/// The decided segments of one step, as a running operator reads them.
pub trait Segments: Send + Sync {
    /// The bytes of `ids`, in their order; `None` if one of them is not there (yet, or any more). Reading many at once
    /// costs less than one by one.
    fn read(&self, ids: &[SegmentId]) -> Result<Option<Vec<Vec<u8>>>, String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_order_as_their_fields() {
        let id = |millis, checkpoint, serial, first, last| SegmentId {
            millis,
            checkpoint,
            serial,
            first,
            last,
        };
        let all = [
            id(1 - TIME_OFFSET, 0, 0, 0, 0),
            id(-1, (1 << 34) - 1, u16::MAX, 32_767, 32_767),
            id(0, 1, 0, 0, 127),
            id(0, 1, 0, 64, 127),
            id(0, 1, 1, 0, 0),
            id(0, 2, 0, 0, 0),
            id(TIME_OFFSET - 1, 0, 0, 3, 4),
        ];
        assert!(all.is_sorted());
        assert!(all.map(SegmentId::pack).is_sorted());
        assert_eq!(all.map(|i| SegmentId::unpack(i.pack())), all);
    }

    #[test]
    fn golden_name() {
        let id = SegmentId {
            millis: 1,
            checkpoint: 2,
            serial: 3,
            first: 4,
            last: 5,
        };
        assert_eq!(id.pack(), 0x8000_0000_0001_0000_0000_8000_C002_0005);
    }
}
