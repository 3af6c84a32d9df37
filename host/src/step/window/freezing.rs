//! How the panes of a window come into a checkpoint and back: names of segments, compaction, restart.
//!
//! Invariant: the segments of a decided checkpoint hold each group's partial results of each pane exactly once in all:
//! a compaction puts its segment and drops those it is made of in one checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::closing::Merger;
use super::frozen::Frozen;
use super::part::{Part, SEGMENT_ROWS, Source, ranges};
use super::{Window, failed};
use crate::expr::Aggregation;
use crate::limits::PANE_PARTS_MAX;
use crate::state::{Changes, Delta, Fault, PutSegment, SegmentId, SegmentSource};
use crate::step::{Restore, StepError};
use crate::time::{MICROS_PER_MS, Micros};

/// The segments that a part is, or may become.
pub(super) fn stored(part: &Part) -> Vec<SegmentId> {
    match part {
        Part::Frozen(_) => Vec::new(),
        Part::Stored { ids, .. } => ids.to_vec(),
        Part::Compacting { new, .. } => new.to_vec(),
    }
}

/// A frozen table on its way into a checkpoint.
struct FrozenSegments {
    frozen: Arc<Frozen>,
    ids: Vec<SegmentId>,
}

impl SegmentSource for FrozenSegments {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        for id in &self.ids {
            let rows = self
                .frozen
                .rows(id.millis * MICROS_PER_MS, id.first..id.last + 1);
            put(*id, &rows.encode())?;
        }
        Ok(())
    }
}

/// Parts of one pane that become one.
struct Compaction {
    pane: Micros,
    old: Part,
    new: Arc<[SegmentId]>,
    /// How many groups were written.
    rows: Arc<AtomicUsize>,
    source: Source,
    aggregation: Aggregation,
}

impl SegmentSource for Compaction {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        let old = [(self.pane, self.old.clone())];
        let mut written = 0;
        for id in self.new.iter() {
            let mut merger = Merger::new(&self.source, &self.aggregation);
            merger.add(&old, &(id.first..id.last + 1)).map_err(Fault)?;
            let rows = merger.into_rows().map_err(Fault)?;
            written += rows.len();
            put(*id, &rows.encode())?;
        }
        self.rows.store(written, Relaxed);
        Ok(())
    }
}

impl Window {
    pub(super) fn delta(&mut self, checkpoint: u64) -> Result<Delta, StepError> {
        debug_assert!(
            self.closing.is_empty(),
            "no checkpoint falls between slices"
        );
        self.rotate()?;
        let mut delta = Delta::default();
        // The checkpoint before is decided: what it compacted is there.
        for parts in self.panes.values_mut() {
            for part in parts {
                if let Part::Compacting { new, rows, .. } = part {
                    *part = Part::Stored {
                        ids: new.clone(),
                        rows: rows.load(Relaxed),
                    };
                }
            }
        }
        self.settle();
        self.compact(checkpoint, &mut delta)?;
        self.write_fresh(checkpoint, &mut delta)?;
        delta.dropped.append(&mut self.dropped);
        let mut changes = Changes::default();
        if let Some(corrections) = &mut self.corrections {
            corrections.freeze(self.spec.key_groups, &mut changes);
        }
        delta.changes = changes;
        Ok(delta)
    }

    /// Parts that went into the checkpoint before are read from the state from now on.
    fn settle(&mut self) {
        for (frozen, ids) in self.written.drain(..) {
            let mut by_pane: BTreeMap<Micros, Vec<SegmentId>> = BTreeMap::new();
            for id in ids {
                by_pane
                    .entry(id.millis * MICROS_PER_MS)
                    .or_default()
                    .push(id);
            }
            for (pane, ids) in by_pane {
                let Some(parts) = self.panes.get_mut(&pane) else {
                    // Over in the meantime.
                    self.dropped.extend(ids);
                    continue;
                };
                let same = |p: &&mut Part| matches!(p, Part::Frozen(f) if Arc::ptr_eq(f, &frozen));
                if let Some(part) = parts.iter_mut().find(same) {
                    *part = Part::Stored {
                        rows: part.len(pane),
                        ids: ids.into(),
                    };
                }
            }
        }
    }

    fn write_fresh(&mut self, checkpoint: u64, delta: &mut Delta) -> Result<(), StepError> {
        for frozen in std::mem::take(&mut self.fresh) {
            if !frozen
                .panes()
                .iter()
                .any(|(pane, _)| self.panes.contains_key(pane))
            {
                continue;
            }
            let serial = self.next_serial(checkpoint)?;
            let mut ids = Vec::new();
            for (pane, rows) in frozen.panes() {
                if self.panes.contains_key(pane) {
                    ids.extend(names(
                        *pane,
                        checkpoint,
                        serial,
                        ranges(&self.groups, *rows),
                    ));
                }
            }
            delta.segments.push(Box::new(FrozenSegments {
                frozen: frozen.clone(),
                ids: ids.clone(),
            }));
            self.written.push((frozen, ids));
        }
        Ok(())
    }

    /// Panes of many stored parts become one part each. What other workers still read stays as it is.
    fn compact(&mut self, checkpoint: u64, delta: &mut Delta) -> Result<(), StepError> {
        let mine = self.groups.clone();
        let own = |ids: &[SegmentId]| {
            ids.iter()
                .all(|id| mine.start <= id.first && id.last < mine.end)
        };
        let mut due = Vec::new();
        for (pane, parts) in &self.panes {
            let many = |part: &&Part| matches!(part, Part::Stored { ids, .. } if own(ids));
            if parts.iter().filter(many).count() >= PANE_PARTS_MAX {
                due.push(*pane);
            }
        }
        for pane in due {
            let serial = self.next_serial(checkpoint)?;
            let parts = self.panes.get_mut(&pane).expect("it was there");
            let own = |p: &mut Part| matches!(p, Part::Stored { ids, .. } if own(ids));
            let taken: Vec<Part> = parts.extract_if(.., own).collect();
            // As if no two of them had a group in common: a segment is too small rather than too large.
            let most = taken.iter().map(|p| p.len(pane)).sum();
            let old: Vec<SegmentId> = taken.iter().flat_map(stored).collect();
            let ranges = ranges(&mine, most);
            let new: Arc<[SegmentId]> = names(pane, checkpoint, serial, ranges).collect();
            let rows = Arc::new(AtomicUsize::new(most));
            parts.push(Part::Compacting {
                new: new.clone(),
                old: old.clone().into(),
                rows: rows.clone(),
            });
            delta.dropped.extend(&old);
            delta.segments.push(Box::new(Compaction {
                pane,
                old: Part::Stored {
                    ids: old.into(),
                    rows: most,
                },
                new,
                rows,
                source: self.source.clone(),
                aggregation: self.spec.window.aggregation.clone(),
            }));
        }
        Ok(())
    }

    /// Tells the segments of one pane and checkpoint apart.
    fn next_serial(&mut self, checkpoint: u64) -> Result<u16, StepError> {
        if self.serial.0 != checkpoint {
            self.serial = (checkpoint, 0);
        }
        let serial = self.serial.1;
        self.serial.1 = serial.checked_add(1).ok_or_else(|| {
            StepError::Failed(format!(
                "its windows changed {} times since the last checkpoint; lower `checkpoint_every` or \
                 `allowed_lateness`, or use longer windows",
                u16::MAX
            ))
        })?;
        Ok(serial)
    }

    pub(super) fn take_back(&mut self, state: &mut dyn Restore) -> Result<(), StepError> {
        self.groups = state.key_groups();
        self.watermark = state.watermark();
        self.source.reader = state.reader();
        let mut parts: BTreeMap<(Micros, u64, u16), Vec<SegmentId>> = BTreeMap::new();
        for id in state.segments().map_err(failed)? {
            let pane = id.millis * MICROS_PER_MS;
            parts
                .entry((pane, id.checkpoint, id.serial))
                .or_default()
                .push(id);
        }
        for ((pane, ..), ids) in parts {
            self.panes.entry(pane).or_default().push(Part::Stored {
                rows: ids.len() * SEGMENT_ROWS,
                ids: ids.into(),
            });
        }
        let Some(corrections) = &mut self.corrections else {
            return Ok(());
        };
        state
            .entries(&mut |key, value| corrections.load(key, value))
            .map_err(StepError::Failed)
    }
}

fn names(
    pane: Micros,
    checkpoint: u64,
    serial: u16,
    ranges: Vec<std::ops::Range<u16>>,
) -> impl Iterator<Item = SegmentId> {
    ranges.into_iter().map(move |range| SegmentId {
        millis: pane / MICROS_PER_MS,
        checkpoint,
        serial,
        first: range.start,
        last: range.end - 1,
    })
}
