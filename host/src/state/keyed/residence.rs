//! Which keys of a hot table are in memory: taking back a stored state, reading back keys that are asked for, evicting
//! those that nobody asks for.
//!
//! Invariants: a key that is not in the table has on disk, merged, exactly what it last had here; a slot leaves the table
//! only if its value was taken by a checkpoint that is merged, or if nothing of its key is stored at all. So what changed
//! since the last merge, and the end of a key, stay; without `complete` a key that is not found is asked for on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::stored::StoredKeys;
use super::{KeyedTable, Life, Value};
use crate::limits::{
    STATE_EVICT_SLOTS, STATE_FILL_PARTS, STATE_FILL_SLICES_AT_START, STATE_SLICE_KEYS,
};
use crate::state::key::key_hash;
use crate::time::NO_ALARM;

#[derive(Debug)]
pub(super) struct Residence {
    /// None: the state is all in memory and stays there.
    pub store: Option<Arc<dyn StoredKeys>>,
    /// Bytes of slots, keys and states.
    budget: usize,
    /// Keys of one read.
    pub slice: usize,
    /// Every key there is, is in the table.
    pub complete: bool,
    /// The first checkpoint since which keys that end stay until they are merged. `None`: they leave at once, for the
    /// table is complete and far from its budget.
    ended_from: Option<u64>,
    /// Keys that ended: the checkpoint that took it, and the slot. Ascending.
    ended: VecDeque<(u64, u32)>,
    /// Slots of keys that are asked for on disk.
    pub unread: Vec<u32>,
    fill: Fill,
    /// Where the next eviction looks.
    hand: usize,
    /// Slots looked at since one was evicted.
    fruitless: usize,
    /// All slots were looked at and none can be evicted before checkpoints from this one on are merged.
    stuck: Option<u64>,
    counts: Counts,
    /// As of when `counts.merged` is.
    counted_below: u64,
}

/// Readings of a hot table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys that were evicted since the start.
    pub evicted: u64,
    /// Keys that were asked for on disk since the start.
    pub read_back: u64,
    /// Keys that were forgotten because nobody touched them, since the start.
    pub forgotten: u64,
    /// Keys on disk as of the last merge.
    pub merged: u64,
}

/// Stored keys that come into the table without being asked for.
#[derive(Debug)]
enum Fill {
    Off,
    /// Behind this key: group and key.
    Behind(Option<(u16, Vec<u8>)>),
}

impl Default for Residence {
    fn default() -> Self {
        Self {
            store: None,
            budget: usize::MAX,
            slice: STATE_SLICE_KEYS,
            complete: true,
            ended_from: None,
            ended: VecDeque::new(),
            unread: Vec::new(),
            fill: Fill::Off,
            hand: 0,
            fruitless: 0,
            stuck: None,
            counts: Counts::default(),
            counted_below: 0,
        }
    }
}

impl Residence {
    pub fn merged_below(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.merged_below())
    }

    pub fn bytes(&self) -> usize {
        self.ended.capacity() * size_of::<(u64, u32)>() + self.unread.capacity() * size_of::<u32>()
    }

    /// A new slot is to be read from disk; false if there is nothing of it.
    pub fn asks_for(&mut self, slot: u32) -> bool {
        if !self.complete {
            self.unread.push(slot);
        }
        !self.complete
    }

    /// The end of a key was taken by checkpoint `number`: whether its slot stays.
    pub fn keep_ended(&mut self, number: u64, slot: u32) -> bool {
        let keeps = self.ended_from.is_some();
        if keeps {
            self.ended.push_back((number, slot));
        }
        keeps
    }

    /// Whether the slot of a key that ended, or never was, is among those that stay.
    pub fn holds_ended(&self, frozen: u64, merged_below: u64) -> bool {
        self.ended_from.is_some() && frozen > 0 && frozen >= merged_below
    }
}

impl KeyedTable {
    /// Takes back a stored state into a table that is empty: what is not merged comes into memory, and of the rest as much
    /// as a start has time for. From now on the table holds about `budget` bytes; what it may evict is on disk.
    ///
    /// # Errors
    /// If the state cannot be read, or is not of this table's layout.
    pub fn restore(&mut self, store: Arc<dyn StoredKeys>, budget: usize) -> Result<(), String> {
        let mut ended = Vec::new();
        let latest = store.unmerged(&mut |key, value| {
            match value {
                Some(value) => drop(self.load(key, value)?),
                None => ended.push(self.insert_clean(key_hash(key), key)),
            }
            Ok(())
        })?;
        for slot in self.slots.iter_mut().filter(|s| s.life != Life::Free) {
            slot.frozen = latest;
        }
        self.residence = Residence {
            counts: Counts {
                merged: store.count()?,
                ..Counts::default()
            },
            store: Some(store),
            budget,
            slice: self.residence.slice,
            complete: false,
            ended_from: Some(0),
            ended: ended.into_iter().map(|slot| (latest, slot)).collect(),
            fill: Fill::Behind(None),
            ..Residence::default()
        };
        self.fill(self.residence.slice * STATE_FILL_SLICES_AT_START)
    }

    /// Reads the keys that [`slot`](Self::slot) did not find from disk, all in one go.
    ///
    /// # Errors
    /// If the disk cannot be read.
    #[inline]
    pub fn read_back(&mut self) -> Result<(), String> {
        if self.residence.unread.is_empty() {
            return Ok(());
        }
        self.read_unread(|_, _| ())
    }

    /// Gives `found` each slot that was to be read, and whether its key is stored.
    pub(super) fn read_unread(
        &mut self,
        mut found: impl FnMut(&mut Self, (u32, bool)),
    ) -> Result<(), String> {
        let mut unread = std::mem::take(&mut self.residence.unread);
        let Some(store) = self.residence.store.clone() else {
            return Ok(());
        };
        self.residence.counts.read_back += unread.len() as u64;
        // In the order of the disk, so that neighbours share what is read.
        let order = |&slot: &u32| (self.group(slot), self.key(slot));
        unread.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        for slots in unread.chunks(self.residence.slice) {
            let keys: Vec<_> = (slots.iter().map(|s| self.key(*s).to_vec())).collect();
            let keys: Vec<_> = (slots.iter().zip(&keys))
                .map(|(slot, key)| (self.group(*slot), key.as_slice()))
                .collect();
            store.read(&keys, &mut |place, value| {
                let slot = slots[place];
                if let Some(value) = value {
                    let value = Value::read(value)?;
                    self.states.accepts(value.state)?;
                    self.fill_slot(slot, &value);
                } else {
                    // The next freeze looks at it: a key that was only asked for does not stay.
                    self.mark_dirty(slot);
                }
                found(self, (slot, value.is_some()));
                Ok(())
            })?;
        }
        unread.clear();
        self.residence.unread = unread;
        Ok(())
    }

    /// Frees memory that is over the budget, or fills what is left of it with what is still on disk, a little at a time.
    /// Between two batches, as often as there are some. Slot numbers taken before are void.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn maintain(&mut self) -> Result<(), String> {
        if self.residence.store.is_none() {
            return Ok(());
        }
        self.release_ended();
        self.count_merged();
        if self.used_bytes() > self.residence.budget {
            self.evict();
            Ok(())
        } else {
            self.fill(self.residence.slice.div_ceil(STATE_FILL_PARTS))
        }
    }

    /// Since the start, and on disk.
    pub fn counts(&self) -> Counts {
        self.residence.counts
    }

    /// So many keys were forgotten because nobody touched them.
    pub fn count_forgotten(&mut self, keys: u64) {
        self.residence.counts.forgotten += keys;
    }

    /// The keys there are: counted while all are in memory, else those that were on disk after the last merge, or those in
    /// memory if that is more.
    pub fn keys_estimate(&self) -> u64 {
        let residence = &self.residence;
        let here = self.len().saturating_sub(residence.ended.len()) as u64;
        match residence.complete {
            true => here,
            false => here.max(residence.counts.merged),
        }
    }

    /// The table is nearer to its budget than it may be without knowing which keys ended since the last merge.
    pub(super) fn keep_ended_from(&mut self, number: u64) {
        let near = self.used_bytes() > self.residence.budget / 2;
        let residence = &mut self.residence;
        if residence.store.is_some() && residence.ended_from.is_none() && near {
            residence.ended_from = Some(number);
        }
    }

    fn count_merged(&mut self) {
        let residence = &mut self.residence;
        let Some(store) = residence.store.as_ref().filter(|_| !residence.complete) else {
            return;
        };
        let merged_below = store.merged_below();
        // A count that cannot be read is no reason to stop: what needs the disk will say so.
        if let (true, Ok(merged)) = (residence.counted_below < merged_below, store.count()) {
            residence.counts.merged = merged;
            residence.counted_below = merged_below;
        }
    }

    /// Keys whose end is merged leave.
    fn release_ended(&mut self) {
        let merged_below = self.residence.merged_below();
        while let Some(&(number, slot)) = self.residence.ended.front() {
            if number >= merged_below {
                return;
            }
            self.residence.ended.pop_front();
            let s = self.slots[slot as usize];
            let came_again = s.life == Life::Free || s.frozen != number || s.dirty || s.stored;
            if !came_again {
                self.release(slot);
            }
        }
    }

    /// Second chance: a slot that was used since the hand last came by stays for another turn.
    fn evict(&mut self) {
        let merged_below = self.residence.merged_below();
        if !self.may_evict(merged_below) {
            return;
        }
        let enough = self.residence.budget - self.residence.budget / 32;
        let most = STATE_EVICT_SLOTS
            .max(self.slots.len() / 8)
            .min(2 * self.slots.len());
        for _ in 0..most {
            let slot = self.residence.hand % self.slots.len();
            self.residence.hand = slot + 1;
            self.residence.fruitless += 1;
            if self.slots[slot].life == Life::Warm {
                self.slots[slot].life = Life::Cold;
            } else if self.is_spare(slot as u32, merged_below) {
                self.release(slot as u32);
                self.residence.complete = false;
                self.residence.fill = Fill::Off;
                self.residence.fruitless = 0;
                self.residence.counts.evicted += 1;
                if self.used_bytes() <= enough {
                    return;
                }
            }
        }
        if self.residence.fruitless > 2 * self.slots.len() {
            self.residence.stuck = Some(merged_below);
            self.want_merge();
        }
    }

    /// Not before all ends of keys that the table no longer knows are merged; not again where nothing was found.
    fn may_evict(&mut self, merged_below: u64) -> bool {
        let residence = &self.residence;
        if residence.complete && residence.ended_from.is_none_or(|from| merged_below < from) {
            self.want_merge();
            return false;
        }
        if residence.stuck.is_some_and(|stuck| stuck >= merged_below) {
            return false;
        }
        self.residence.stuck = None;
        !self.slots.is_empty()
    }

    /// Whether disk has exactly what the slot has, and its alarm will be found there.
    fn is_spare(&self, slot: u32, merged_below: u64) -> bool {
        let s = &self.slots[slot as usize];
        let alarm = self.alarm(slot);
        s.life == Life::Cold
            && !s.dirty
            && s.stored
            && s.frozen < merged_below
            && (alarm == NO_ALARM || Some(alarm) > self.round.taken)
    }

    fn want_merge(&self) {
        if let Some(store) = &self.residence.store {
            store.want_merge();
        }
    }

    /// Takes up to `max` more stored keys into memory, while there is room; at the last one the table is complete.
    fn fill(&mut self, max: usize) -> Result<(), String> {
        let Fill::Behind(place) = std::mem::replace(&mut self.residence.fill, Fill::Off) else {
            return Ok(());
        };
        let room = self.residence.budget / 4 * 3;
        let (Some(store), true) = (self.residence.store.clone(), self.used_bytes() < room) else {
            return Ok(());
        };
        let after = place.as_ref().map(|(group, key)| (*group, key.as_slice()));
        let mut last = None;
        let more = store.scan(after, max, &mut |key, value| {
            let hash = key_hash(key);
            // What is here is as new or newer.
            if self.find(hash, key).is_none() {
                self.load(key, value)?;
            }
            last = Some(key.to_vec());
            Ok(())
        })?;
        match last.filter(|_| more) {
            Some(key) => {
                let group = crate::state::key::key_group(key_hash(&key), self.key_groups);
                self.residence.fill = Fill::Behind(Some((group, key)));
            }
            None => {
                self.residence.complete = true;
                if self.used_bytes() <= self.residence.budget / 2 {
                    self.residence.ended_from = None;
                }
            }
        }
        Ok(())
    }
}
