//! The state of one step in memory: what is decided, what may fail, and what must never happen to it.
//!
//! Invariant: a segment is put once and dropped once; workers that share one drop it in the same checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::exchange::{owned, owner};
use crate::state::key::key_group;
use crate::state::stored::{EachChange, EachFound, EachValue, StoredKeys, Timer};
use crate::state::value::Value;
use crate::state::{Delta, Fault, SegmentId, Segments};
use crate::step::Restore;
use crate::time::{Micros, NO_TIME};

type Keys = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

/// The decided state.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub keys: Keys,
    /// Those of the checkpoints below `merged_below`; what later ones changed is in `unmerged`.
    merged: Keys,
    merged_below: u64,
    unmerged: BTreeMap<(u16, Vec<u8>), Option<Vec<u8>>>,
    /// The last checkpoint.
    latest: u64,
    /// Bytes of keys that a step may keep in memory.
    memory: usize,
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
    pub fn new(failing: usize, memory: usize) -> Shared {
        Arc::new(Mutex::new(Self {
            keys: BTreeMap::new(),
            merged: BTreeMap::new(),
            merged_below: 0,
            unmerged: BTreeMap::new(),
            latest: 0,
            memory,
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

/// Writes a checkpoint, all of it or nothing; every other one is merged.
pub(super) fn commit(
    store: &Shared,
    number: u64,
    deltas: &[Delta],
    watermark: Micros,
) -> Result<(), Fault> {
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
            Some(value) => next.keys.insert(name.clone(), value.to_vec()),
            None => next.keys.remove(&name),
        };
        next.unmerged.insert(name, change.value.map(<[u8]>::to_vec));
    }
    next.latest = number;
    if number.is_multiple_of(2) {
        next.unmerged.clear();
        (next.merged, next.merged_below) = (next.keys.clone(), number + 1);
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

/// The keys of one worker.
#[derive(Debug)]
struct Mine {
    store: Shared,
    groups: Range<u16>,
}

impl Mine {
    /// The state, for a read that may fail.
    fn read(&self) -> Result<std::sync::MutexGuard<'_, Memory>, String> {
        let mut state = lock(&self.store);
        state.operate()?;
        Ok(state)
    }
}

impl StoredKeys for Mine {
    fn unmerged(&self, each: &mut EachChange<'_>) -> Result<u64, String> {
        let state = self.read()?.clone();
        for ((group, key), value) in &state.unmerged {
            if self.groups.contains(group) {
                each(key, value.as_deref())?;
            }
        }
        Ok(state.latest)
    }

    fn merged_below(&self) -> u64 {
        lock(&self.store).merged_below
    }

    fn want_merge(&self) {}

    fn read(&self, keys: &[(u16, &[u8])], each: &mut EachFound<'_>) -> Result<(), String> {
        assert!(keys.is_sorted(), "ascending");
        let state = Self::read(self)?.clone();
        for (place, (group, key)) in keys.iter().enumerate() {
            let value = state.merged.get(&(*group, key.to_vec()));
            each(place, value.map(Vec::as_slice))?;
        }
        Ok(())
    }

    fn scan(
        &self,
        after: Option<(u16, &[u8])>,
        max: usize,
        each: &mut EachValue<'_>,
    ) -> Result<bool, String> {
        let state = Self::read(self)?.clone();
        let behind = |name: &(u16, Vec<u8>)| Some((name.0, name.1.as_slice())) > after;
        let mine = |name: &(u16, Vec<u8>)| self.groups.contains(&name.0) && behind(name);
        let mut rows = state.merged.iter().filter(|(name, _)| mine(name));
        for ((_, key), value) in rows.by_ref().take(max) {
            each(key, value)?;
        }
        Ok(rows.next().is_some())
    }

    fn timers(
        &self,
        timer: Timer,
        after: Option<(Micros, &[u8])>,
        until: Micros,
        max: usize,
        each: &mut dyn FnMut(Micros, &[u8]),
    ) -> Result<bool, String> {
        let state = Self::read(self)?.clone();
        let mut rows = Vec::new();
        for ((_, key), value) in (state.merged.iter()).filter(|(n, _)| self.groups.contains(&n.0)) {
            let value = Value::read(value)?;
            let time = match timer {
                Timer::Alarm => value.alarm,
                Timer::Expiry => value.expiry.map(|e| e.indexed()),
            };
            let row = time.map(|time| (time, key.as_slice()));
            rows.extend(row.filter(|row| row.0 <= until && Some(*row) > after));
        }
        rows.sort_unstable();
        rows.iter()
            .take(max)
            .for_each(|(time, key)| each(*time, key));
        Ok(rows.len() > max)
    }

    fn count(&self) -> Result<u64, String> {
        let state = Self::read(self)?;
        let mine = state
            .merged
            .keys()
            .filter(|name| self.groups.contains(&name.0));
        Ok(mine.count() as u64)
    }
}

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

    fn keys(&self) -> Arc<dyn StoredKeys> {
        Arc::new(Mine {
            store: self.store.clone(),
            groups: self.key_groups(),
        })
    }

    fn memory(&self) -> usize {
        lock(&self.store).memory
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
