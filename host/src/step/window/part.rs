//! A part of a pane: some of its partial results, in memory or in the state, that are merged when a window ends.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use arrow::datatypes::SchemaRef;

use super::frozen::{Frozen, Rows};
use crate::state::{SegmentId, Segments};
use crate::time::Micros;

/// Groups of one segment, about.
pub const SEGMENT_ROWS: usize = 8_192;

/// Some partial results of one pane, of key groups of this worker (and of others, before a change of workers).
#[derive(Debug, Clone)]
pub enum Part {
    /// In memory: not in a decided checkpoint yet.
    Frozen(Arc<Frozen>),
    /// With the number of groups, which is a guess after a restart.
    Stored { ids: Arc<[SegmentId]>, rows: usize },
    /// Many parts that become one with a checkpoint that may be decided or not.
    Compacting {
        new: Arc<[SegmentId]>,
        old: Arc<[SegmentId]>,
        /// At most so many groups; once they are written, how many they are.
        rows: Arc<AtomicUsize>,
    },
}

impl Part {
    /// Groups in it, about.
    pub fn len(&self, pane: Micros) -> usize {
        match self {
            Self::Frozen(frozen) => {
                let panes = frozen.panes();
                panes
                    .binary_search_by_key(&pane, |p| p.0)
                    .map_or(0, |i| panes[i].1)
            }
            Self::Stored { rows, .. } => *rows,
            Self::Compacting { rows, .. } => rows.load(Relaxed),
        }
    }
}

/// How stored parts are read.
#[derive(Clone)]
pub struct Source {
    pub reader: Arc<dyn Segments>,
    pub states: SchemaRef,
    pub key_groups: u16,
}

impl Source {
    /// The rows of `part` of this pane whose key group is in `groups`, piece by piece.
    pub fn read(
        &self,
        part: &Part,
        pane: Micros,
        groups: &Range<u16>,
    ) -> Result<Vec<Rows>, String> {
        match part {
            Part::Frozen(frozen) => Ok(vec![frozen.rows(pane, groups.clone())]),
            Part::Stored { ids, .. } => {
                let found = self.stored(ids, groups)?;
                found.ok_or_else(|| format!("a segment of {ids:?} is missing"))
            }
            Part::Compacting { new, old, .. } => {
                // The checkpoint that swaps them may be decided between two of these reads.
                for ids in [new, old, new] {
                    if let Some(rows) = self.stored(ids, groups)? {
                        return Ok(rows);
                    }
                }
                Err(format!("a segment of {new:?} or {old:?} is missing"))
            }
        }
    }

    fn stored(&self, ids: &[SegmentId], groups: &Range<u16>) -> Result<Option<Vec<Rows>>, String> {
        let wanted = |id: &&SegmentId| id.first < groups.end && groups.start <= id.last;
        let ids: Vec<SegmentId> = ids.iter().filter(wanted).copied().collect();
        let Some(bytes) = self.reader.read(&ids)? else {
            return Ok(None);
        };
        let decode = |(id, bytes): (&SegmentId, &Vec<u8>)| {
            let rows = Rows::decode(bytes, &self.states).map_err(|e| format!("{id:?}: {e}"))?;
            if groups.start <= id.first && id.last < groups.end {
                return Ok(rows);
            }
            Ok(match rows.in_groups(groups, self.key_groups) {
                Some(kept) => rows.take(&kept),
                None => rows,
            })
        };
        ids.iter()
            .zip(&bytes)
            .map(decode)
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// Ranges of key groups with about [`SEGMENT_ROWS`] groups each, of `rows` that are spread evenly over `groups`.
pub fn ranges(groups: &Range<u16>, rows: usize) -> Vec<Range<u16>> {
    let all = usize::from(groups.end - groups.start);
    let pieces = rows.div_ceil(SEGMENT_ROWS).clamp(1, all.max(1));
    let bound = |i: usize| groups.start + (all * i / pieces) as u16;
    (0..pieces)
        .map(|i| bound(i)..bound(i + 1))
        .filter(|r| !r.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_key_groups_once() {
        for rows in [0, 1, SEGMENT_ROWS, SEGMENT_ROWS + 1, 50 * SEGMENT_ROWS] {
            let found = ranges(&(3..40), rows);
            assert_eq!(found.first().unwrap().start, 3);
            assert_eq!(found.last().unwrap().end, 40);
            assert!(found.windows(2).all(|w| w[0].end == w[1].start));
            assert_eq!(found.len(), rows.div_ceil(SEGMENT_ROWS).clamp(1, 37));
        }
        assert!(ranges(&(3..3), 10).is_empty());
    }
}
