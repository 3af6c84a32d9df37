//! The hot table of one step on one worker: key -> state and alarm, in memory as far as its budget goes.
//!
//! Not durable: [`KeyedTable::freeze`] gives what changed, the store keeps it. Knows no columns, no plugin and no clock.
//! Invariants: slot numbers stay valid until the next [`freeze`](KeyedTable::freeze) or
//! [`maintain`](KeyedTable::maintain); every slot that changed since the last freeze is in `dirty`; a slot that changed
//! since the last merge stays, so that the value of a key that is not here is the one in `state.redb`.

mod due;
mod residence;
mod states;
#[cfg(test)]
mod tests;

use hashbrown::HashTable;

use super::Changes;
use super::alarms::Alarms;
use super::key::{key_group, key_hash};
use super::value::{Expiry, Value};
use crate::plugin::StateLayout;
use crate::time::{Micros, NO_ALARM};
use due::{Round, Ttl};
pub use residence::Counts;
use residence::Residence;
use states::States;

/// Key bytes of freed slots above which the key buffer is rewritten, if they are also half of it.
const KEY_GARBAGE_BYTES_MIN: usize = 1 << 20;
/// Slots whose keys and states are fetched from memory at one time.
const FETCHED_AHEAD: usize = 64;
/// Memory of a slot besides its key and state: itself, its alarm, its places in the index and in a step's table of groups.
const SLOT_BYTES: usize = size_of::<Slot>() + 16 + 8 + 8;

/// Keyed state of one step on one worker.
///
/// ```
/// use tidemill::plugin::StateLayout;
/// use tidemill::state::key::key_hash;
/// use tidemill::state::keyed::KeyedTable;
///
/// let mut table = KeyedTable::new(StateLayout::Fixed(1), 128);
/// let slot = table.slot(key_hash(b"k"), b"k");
/// table.read_back().unwrap();
/// table.words_mut(slot)[0] = 7;
/// assert_eq!(table.freeze(1).len(), 1);
/// assert_eq!(table.freeze(2).len(), 0);
/// ```
#[derive(Debug)]
pub struct KeyedTable {
    key_groups: u16,
    index: HashTable<u32>,
    slots: Vec<Slot>,
    alarms: Alarms,
    ttl: Option<Ttl>,
    /// Keys of all slots, one after the other, with gaps where slots were freed.
    keys: Vec<u8>,
    key_garbage: usize,
    states: States,
    /// Slots to look at in the next freeze.
    dirty: Vec<u32>,
    /// Bytes of a changed key and its value, at the last freeze.
    frozen_bytes: usize,
    free: Vec<u32>,
    round: Round,
    residence: Residence,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    key_start: usize,
    /// The checkpoint that last took the slot's value or its end; 0: none since the key came into the table.
    frozen: u64,
    key_len: u32,
    /// Has a state.
    present: bool,
    dirty: bool,
    /// An earlier freeze or the store has this key: its end must be told.
    stored: bool,
    life: Life,
}

/// Whether a slot is in use and, if so, whether it was since eviction last came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Free,
    Cold,
    Warm,
}

impl KeyedTable {
    /// An empty table of a state that is all in memory, until [`restore`](Self::restore) says otherwise.
    pub fn new(layout: StateLayout, key_groups: u16) -> Self {
        Self {
            key_groups,
            index: HashTable::new(),
            slots: Vec::new(),
            alarms: Alarms::default(),
            ttl: None,
            keys: Vec::new(),
            key_garbage: 0,
            states: States::new(layout),
            dirty: Vec::new(),
            frozen_bytes: 0,
            free: Vec::new(),
            round: Round::default(),
            residence: Residence::default(),
        }
    }

    /// The slot of a key, made (without state or alarm) if there is none. `hash` is the [`key_hash`] of `key`. What the
    /// slot has is known after [`read_back`](Self::read_back), one for all keys of a batch.
    #[inline]
    pub fn slot(&mut self, hash: u64, key: &[u8]) -> u32 {
        match self.find(hash, key) {
            Some(slot) => {
                let s = &mut self.slots[slot as usize];
                if s.life != Life::Warm {
                    s.life = Life::Warm;
                }
                slot
            }
            None => self.insert(hash, key),
        }
    }

    /// The slot of a key that is in the table.
    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same = |&slot: &u32| {
            let s = &self.slots[slot as usize];
            s.hash == hash && self.key(slot) == key
        };
        self.index.find(spread(hash), same).copied()
    }

    #[inline]
    pub fn key(&self, slot: u32) -> &[u8] {
        let s = &self.slots[slot as usize];
        &self.keys[s.key_start..s.key_start + s.key_len as usize]
    }

    pub fn group(&self, slot: u32) -> u16 {
        key_group(self.slots[slot as usize].hash, self.key_groups)
    }

    /// Whether the slot has a state.
    #[inline]
    pub fn present(&self, slot: u32) -> bool {
        self.slots[slot as usize].present
    }

    /// The state of a slot in layout `Fixed`: zeros if it has none. Empty in other layouts.
    #[inline]
    pub fn words(&self, slot: u32) -> &[u64] {
        match &self.states {
            States::Fixed { width, words } => &words[slot as usize * width..][..*width],
            _ => &[],
        }
    }

    /// The words to write to: from now on the slot has a state, and it changed.
    #[inline]
    pub fn words_mut(&mut self, slot: u32) -> &mut [u64] {
        self.slots[slot as usize].present = true;
        self.mark_dirty(slot);
        match &mut self.states {
            States::Fixed { width, words } => &mut words[slot as usize * *width..][..*width],
            _ => &mut [],
        }
    }

    /// The state of a slot in layout `Blob`, empty if it has none.
    #[inline]
    pub fn blob(&self, slot: u32) -> &[u8] {
        match &self.states {
            States::Blob { blobs, .. } => &blobs[slot as usize],
            _ => &[],
        }
    }

    /// A new state in layout `Blob`; empty bytes are no state.
    pub fn set_blob(&mut self, slot: u32, state: &[u8]) {
        self.mark_dirty(slot);
        if matches!(self.states, States::Blob { .. }) {
            self.states.set_blob(slot, state);
            self.slots[slot as usize].present = !state.is_empty();
        }
    }

    /// Takes the state away; the alarm stays.
    pub fn clear_state(&mut self, slot: u32) {
        self.mark_dirty(slot);
        self.slots[slot as usize].present = false;
        self.states.clear(slot);
    }

    #[inline]
    pub fn alarm(&self, slot: u32) -> Micros {
        self.alarms.get(slot)
    }

    /// [`NO_ALARM`] takes the alarm away.
    #[inline]
    pub fn set_alarm(&mut self, slot: u32, alarm: Micros) {
        if self.alarms.get(slot) != alarm {
            self.mark_dirty(slot);
        }
        self.alarms.set(slot, alarm);
    }

    /// Neither state nor alarm: the key ends with the next freeze.
    pub fn forget(&mut self, slot: u32) {
        self.clear_state(slot);
        self.set_alarm(slot, NO_ALARM);
        if let Some(ttl) = &mut self.ttl {
            ttl.hot.set(slot, NO_ALARM);
        }
    }

    #[inline]
    pub fn mark_dirty(&mut self, slot: u32) {
        let s = &mut self.slots[slot as usize];
        if !s.dirty {
            s.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Keys in the table; until they leave it those that ended count.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Memory held, in bytes, as the allocator was asked for it.
    pub fn bytes(&self) -> usize {
        self.index.allocation_size()
            + self.slots.capacity() * size_of::<Slot>()
            + (self.dirty.capacity() + self.free.capacity()) * size_of::<u32>()
            + self.keys.capacity()
            + self.alarms.bytes()
            + self.ttl.as_ref().map_or(0, |ttl| ttl.hot.bytes())
            + self.states.bytes()
            + self.residence.bytes()
    }

    /// What changed since the last freeze, for checkpoint `number`, and frees the slots of keys that ended, as soon as
    /// nothing older of them lies on disk. Slot numbers taken before are void.
    pub fn freeze(&mut self, number: u64) -> Changes {
        self.keep_ended_from(number);
        let merged_below = self.residence.merged_below();
        let mut dirty = std::mem::take(&mut self.dirty);
        // In the order of memory, which knows what comes next: half the time of a copy in the order of the rows.
        dirty.sort_unstable();
        let mut changes = Changes::with_capacity(dirty.len(), dirty.len() * self.frozen_bytes);
        let mut value = Vec::new();
        for (place, &slot) in dirty.iter().enumerate() {
            if place % FETCHED_AHEAD == 0 {
                self.fetch(&dirty[place..dirty.len().min(place + FETCHED_AHEAD)]);
            }
            let index = slot as usize;
            // Twice in the list, or read back since it was put there.
            if !std::mem::take(&mut self.slots[index].dirty) {
                continue;
            }
            if self.is_live(slot) {
                value.clear();
                self.write_value(slot, &mut value);
                changes.put(self.group(slot), self.key(slot), &value);
                self.slots[index].stored = true;
                self.slots[index].frozen = number;
                continue;
            }
            if let Some(ttl) = &mut self.ttl {
                ttl.hot.set(slot, NO_ALARM);
            }
            if std::mem::take(&mut self.slots[index].stored) {
                changes.delete(self.group(slot), self.key(slot));
                self.slots[index].frozen = number;
                if !self.residence.keep_ended(number, slot) {
                    self.release(slot);
                }
            } else if !self
                .residence
                .holds_ended(self.slots[index].frozen, merged_below)
            {
                self.release(slot);
            }
        }
        dirty.clear();
        self.dirty = dirty;
        self.frozen_bytes = changes.bytes().div_ceil(changes.len().max(1));
        self.collect_key_garbage();
        changes
    }

    /// Puts a stored key and value into the table. `Err` if the value is not of this layout or the key is there already.
    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<u32, String> {
        let hash = key_hash(key);
        if self.find(hash, key).is_some() {
            return Err("the key is stored twice".into());
        }
        let value = Value::read(value)?;
        self.states.accepts(value.state)?;
        let slot = self.insert_clean(hash, key);
        self.fill_slot(slot, &value);
        Ok(slot)
    }

    /// Gives an empty slot what is stored of its key; the state was [accepted](States::accepts).
    fn fill_slot(&mut self, slot: u32, value: &Value<'_>) {
        let s = &mut self.slots[slot as usize];
        s.stored = true;
        s.present = value.state.is_some();
        self.states.load(slot, value.state.unwrap_or_default());
        self.alarms.set(slot, value.alarm.unwrap_or(NO_ALARM));
        if let (Some(ttl), Some(expiry)) = (&mut self.ttl, value.expiry) {
            ttl.hot.set(slot, expiry.at);
        }
    }

    fn insert(&mut self, hash: u64, key: &[u8]) -> u32 {
        let slot = self.insert_clean(hash, key);
        self.slots[slot as usize].life = Life::Warm;
        if !self.residence.asks_for(slot) {
            // The next freeze looks at it: a key that was only asked for does not stay.
            self.mark_dirty(slot);
        }
        slot
    }

    fn insert_clean(&mut self, hash: u64, key: &[u8]) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| self.push_slot());
        let index = slot as usize;
        let room = self.slots[index].key_len as usize;
        let key_start = if key.len() <= room {
            self.key_garbage -= key.len();
            self.slots[index].key_start
        } else {
            self.keys.len()
        };
        self.keys
            .resize(self.keys.len().max(key_start + key.len()), 0);
        self.keys[key_start..key_start + key.len()].copy_from_slice(key);
        self.slots[index] = Slot {
            hash,
            key_start,
            key_len: u32::try_from(key.len()).expect("keys are below KEY_BYTES_MAX"),
            life: Life::Cold,
            ..Slot::FREE
        };
        let slots = &self.slots;
        self.index
            .insert_unique(spread(hash), slot, |&s| spread(slots[s as usize].hash));
        slot
    }

    fn push_slot(&mut self) -> u32 {
        let slot = u32::try_from(self.slots.len()).expect("memory ends before slot numbers do");
        self.slots.push(Slot::FREE);
        self.alarms.push_slot();
        if let Some(ttl) = &mut self.ttl {
            ttl.hot.push_slot();
        }
        self.states.push_slot();
        slot
    }

    /// Frees a slot. It keeps the room of its key for the next one.
    fn release(&mut self, slot: u32) {
        let hash = self.slots[slot as usize].hash;
        if let Ok(entry) = self.index.find_entry(spread(hash), |&s| s == slot) {
            entry.remove();
        }
        self.states.clear(slot);
        self.alarms.set(slot, NO_ALARM);
        if let Some(ttl) = &mut self.ttl {
            ttl.hot.set(slot, NO_ALARM);
        }
        let s = &mut self.slots[slot as usize];
        s.life = Life::Free;
        self.key_garbage += s.key_len as usize;
        self.free.push(slot);
    }

    /// Has something to remember.
    fn is_live(&self, slot: u32) -> bool {
        self.present(slot) || self.alarm(slot) != NO_ALARM
    }

    /// What the slots in use take, their keys and states included: this is held against the budget. Buffers keep what they
    /// grew to, but it is used again before they grow further.
    fn used_bytes(&self) -> usize {
        let slots = self.index.len();
        let ttl = self.ttl.as_ref();
        slots * (SLOT_BYTES + if ttl.is_some() { 16 } else { 0 })
            + (self.keys.len() - self.key_garbage)
            + self.alarms.queue_bytes()
            + ttl.map_or(0, |ttl| ttl.hot.queue_bytes())
            + self.states.used_bytes(slots)
    }

    /// Has the caches load what these slots have: they wait for memory once together, not each by itself.
    fn fetch(&self, slots: &[u32]) {
        let first = |slot: &u32| {
            let key = self.keys.get(self.slots[*slot as usize].key_start);
            key.copied().unwrap_or(0) ^ self.blob(*slot).first().copied().unwrap_or(0)
        };
        std::hint::black_box(slots.iter().map(first).fold(0, |all, byte| all ^ byte));
    }

    fn collect_key_garbage(&mut self) {
        if self.key_garbage < KEY_GARBAGE_BYTES_MIN || self.key_garbage * 2 < self.keys.len() {
            return;
        }
        let mut keys = Vec::with_capacity(self.keys.len() - self.key_garbage);
        for s in &mut self.slots {
            let start = keys.len();
            if s.life != Life::Free {
                keys.extend_from_slice(&self.keys[s.key_start..][..s.key_len as usize]);
            } else {
                s.key_len = 0;
            }
            s.key_start = start;
        }
        self.keys = keys;
        self.key_garbage = 0;
    }

    fn write_value(&self, slot: u32, out: &mut Vec<u8>) {
        let alarm = self.alarm(slot);
        let expiry = (self.ttl.as_ref()).map(|ttl| (ttl.hot.get(slot), ttl.shift));
        let value = Value {
            alarm: (alarm != NO_ALARM).then_some(alarm),
            expiry: expiry
                .filter(|(at, _)| *at != NO_ALARM)
                .map(|(at, shift)| Expiry { at, shift }),
            state: self.present(slot).then_some(&[]),
        };
        value.write_header(out);
        if value.state.is_some() {
            out.extend(self.words(slot).iter().flat_map(|w| w.to_le_bytes()));
            out.extend_from_slice(self.blob(slot));
        }
    }
}

impl Slot {
    const FREE: Self = Self {
        hash: 0,
        key_start: 0,
        frozen: 0,
        key_len: 0,
        present: false,
        dirty: false,
        stored: false,
        life: Life::Free,
    };
}

/// The index goes by a hash's low bits, which keys of one worker's key groups share: it gets the high ones there.
#[inline]
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}
