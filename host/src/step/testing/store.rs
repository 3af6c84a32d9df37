//! The state of one step in memory: what is decided, what may fail, and what must never happen to it.
//!
//! Invariant: a segment is put once and dropped once; workers that share one drop it in the same checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::exchange::{owned, owner};
use crate::state::key::key_group;
use crate::state::{Delta, Fault, SegmentId, Segments};
use crate::step::Restore;
use crate::time::{Micros, NO_TIME};

/// The decided state.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub keys: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
    pub segments: BTreeMap<SegmentId, Vec<u8>>,
    /// Segments that were dropped.
    gone: BTreeSet<SegmentId>,
    pub watermark: Micros,
    /// Reads and writes so far, and the one that fails.
    pub operations: usize,
    pub failing: usize,
}

pub(super) type Shared = Arc<Mutex<Memory>>;

pub(super) fn lock(store: &Shared) -> std::sync::MutexGuard<'_, Memory> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    pub fn new(failing: usize) -> Shared {
        Arc::new(Mutex::new(Self {
            keys: BTreeMap::new(),
            segments: BTreeMap::new(),
            gone: BTreeSet::new(),
            watermark: NO_TIME,
            operations: 0,
            failing,
        }))
    }

    fn operate(&mut self) -> Result<(), String> {
        self.operations += 1;
        match self.operations == self.failing + 1 {
            true => Err("injected".into()),
            false => Ok(()),
        }
    }
}

/// Writes a checkpoint, all of it or nothing.
pub(super) fn commit(store: &Shared, deltas: &[Delta], watermark: Micros) -> Result<(), Fault> {
    let mut puts = BTreeMap::new();
    // On its own thread a source of segments reads others, so the store is not locked here.
    for segment in deltas.iter().flat_map(|d| &d.segments) {
        segment.write(&mut |id, bytes| {
            lock(store).operate().map_err(Fault)?;
            let before = puts.insert(id, bytes.to_vec());
            assert!(before.is_none(), "{id:?} is put twice in one checkpoint");
            Ok(())
        })?;
    }
    let mut state = lock(store);
    let mut next = state.clone();
    for change in deltas.iter().flat_map(|d| d.changes.iter()) {
        state.operate().map_err(Fault)?;
        let name = (change.group, change.key.to_vec());
        match change.value {
            Some(value) => next.keys.insert(name, value.to_vec()),
            None => next.keys.remove(&name),
        };
    }
    let mut dropped = BTreeSet::new();
    for delta in deltas {
        let mine: BTreeSet<SegmentId> = delta.dropped.iter().copied().collect();
        assert_eq!(mine.len(), delta.dropped.len(), "a worker drops one twice");
        dropped.extend(mine);
    }
    for id in dropped {
        assert!(next.gone.insert(id), "{id:?} is dropped in two checkpoints");
        assert!(next.segments.remove(&id).is_some(), "{id:?} was never put");
    }
    for (id, bytes) in puts {
        assert!(!next.gone.contains(&id), "{id:?} comes again");
        assert!(
            next.segments.insert(id, bytes).is_none(),
            "{id:?} is put twice"
        );
    }
    (next.watermark, next.operations) = (watermark, state.operations);
    *state = next;
    Ok(())
}

/// The state as one worker takes it back.
pub(super) struct Stored {
    pub store: Shared,
    pub worker: usize,
    pub workers: usize,
    pub key_groups: u16,
}

struct Reader(Shared);

impl Segments for Reader {
    fn read(&self, ids: &[SegmentId]) -> Result<Option<Vec<Vec<u8>>>, String> {
        let mut state = lock(&self.0);
        if !ids.is_empty() {
            state.operate()?;
        }
        Ok(ids
            .iter()
            .map(|id| state.segments.get(id).cloned())
            .collect())
    }
}

impl Restore for Stored {
    fn key_groups(&self) -> Range<u16> {
        owned(self.worker, self.key_groups, self.workers)
    }

    fn watermark(&self) -> Micros {
        lock(&self.store).watermark
    }

    fn owns(&self, hash: u64) -> bool {
        let group = key_group(hash, self.key_groups);
        owner(group, self.key_groups, self.workers) == self.worker
    }

    fn entries(
        &mut self,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mine = self.key_groups();
        let state = lock(&self.store).clone();
        for ((group, key), value) in &state.keys {
            if mine.contains(group) {
                each(key, value)?;
            }
        }
        Ok(())
    }

    fn segments(&mut self) -> Result<Vec<SegmentId>, String> {
        let mine = self.key_groups();
        let ids = lock(&self.store)
            .segments
            .keys()
            .copied()
            .collect::<Vec<_>>();
        let shared = |id: &SegmentId| id.first < mine.end && mine.start <= id.last;
        Ok(ids.into_iter().filter(shared).collect())
    }

    fn reader(&self) -> Arc<dyn Segments> {
        Arc::new(Reader(self.store.clone()))
    }
}
