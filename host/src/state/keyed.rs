//! The hot table of one step on one worker: key -> state and alarm, all in memory.
//!
//! Not durable: [`KeyedTable::freeze`] gives what changed, the store keeps it. Knows no columns, no plugin and no clock.
//! Invariants: slot numbers stay valid from one freeze to the next; every slot that changed since the last freeze is in
//! `dirty` once; after a freeze each slot in use has a state or an alarm.

#[cfg(test)]
mod tests;

use hashbrown::HashTable;

use super::Changes;
use super::alarms::Alarms;
use super::key::{key_group, key_hash};
use crate::plugin::StateLayout;
use crate::time::{Micros, NO_ALARM};

/// First byte of a value: what follows it.
const HAS_STATE: u8 = 1;
const HAS_ALARM: u8 = 2;

/// Key bytes of freed slots above which the key buffer is rewritten, if they are also half of it.
const KEY_GARBAGE_BYTES_MIN: usize = 1 << 20;

/// Keyed state of one step on one worker.
///
/// ```
/// use tidemill::plugin::StateLayout;
/// use tidemill::state::key::key_hash;
/// use tidemill::state::keyed::KeyedTable;
///
/// let mut table = KeyedTable::new(StateLayout::Fixed(1), 128);
/// let slot = table.slot(key_hash(b"k"), b"k");
/// table.words_mut(slot)[0] = 7;
/// assert_eq!(table.freeze().len(), 1);
/// assert_eq!(table.freeze().len(), 0);
/// ```
#[derive(Debug)]
pub struct KeyedTable {
    key_groups: u16,
    index: HashTable<u32>,
    slots: Vec<Slot>,
    alarms: Alarms,
    /// Keys of all slots, one after the other, with gaps where slots were freed.
    keys: Vec<u8>,
    key_garbage: usize,
    states: States,
    /// Slots to look at in the next freeze.
    dirty: Vec<u32>,
    free: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    key_start: usize,
    key_len: u32,
    /// Has a state.
    present: bool,
    dirty: bool,
    /// An earlier freeze or the store has this key: its end must be told.
    stored: bool,
    used: bool,
}

/// The states of all slots, by layout.
#[derive(Debug)]
enum States {
    None,
    /// `width` words a slot; zeros without a state.
    Fixed {
        width: usize,
        words: Vec<u64>,
    },
    /// Empty without a state. `bytes` is the capacity of all blobs.
    Blob {
        blobs: Vec<Vec<u8>>,
        bytes: usize,
    },
}

impl KeyedTable {
    pub fn new(layout: StateLayout, key_groups: u16) -> Self {
        Self {
            key_groups,
            index: HashTable::new(),
            slots: Vec::new(),
            alarms: Alarms::default(),
            keys: Vec::new(),
            key_garbage: 0,
            states: States::new(layout),
            dirty: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The slot of a key, made (without state or alarm) if there is none. `hash` is the [`key_hash`] of `key`.
    #[inline]
    pub fn slot(&mut self, hash: u64, key: &[u8]) -> u32 {
        match self.find(hash, key) {
            Some(slot) => slot,
            None => self.insert(hash, key),
        }
    }

    /// The slot of a key that is in the table.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
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
        if let States::Blob { blobs, bytes } = &mut self.states {
            let blob = &mut blobs[slot as usize];
            *bytes -= blob.capacity();
            replace(blob, state);
            *bytes += blob.capacity();
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

    /// Neither state nor alarm: the slot is free after the next freeze.
    pub fn forget(&mut self, slot: u32) {
        self.clear_state(slot);
        self.set_alarm(slot, NO_ALARM);
    }

    #[inline]
    pub fn mark_dirty(&mut self, slot: u32) {
        let s = &mut self.slots[slot as usize];
        if !s.dirty {
            s.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Fills `out` with the slots whose alarm is at or before `until`, in order of alarm, then key. The alarms stay: set
    /// new ones, or the same slots are due again.
    pub fn due(&mut self, until: Micros, out: &mut Vec<u32>) {
        out.clear();
        self.alarms.due(until, out);
        let order = |&slot: &u32| (self.alarms.get(slot), self.key(slot));
        out.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
    }

    /// The earliest alarm.
    pub fn next_alarm(&mut self) -> Option<Micros> {
        self.alarms.next()
    }

    /// Keys in the table; until the next freeze those that are without state and alarm count.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Slots in use, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, s)| s.used)
            .map(|(slot, _)| slot)
    }

    /// Memory held, in bytes, as the allocator was asked for it.
    pub fn bytes(&self) -> usize {
        self.index.allocation_size()
            + self.slots.capacity() * size_of::<Slot>()
            + (self.dirty.capacity() + self.free.capacity()) * size_of::<u32>()
            + self.keys.capacity()
            + self.alarms.bytes()
            + self.states.bytes()
    }

    /// What changed since the last freeze, and frees the slots of keys that ended. Slot numbers taken before are void.
    pub fn freeze(&mut self) -> Changes {
        let mut changes = Changes::default();
        let mut value = Vec::new();
        for slot in std::mem::take(&mut self.dirty) {
            let index = slot as usize;
            self.slots[index].dirty = false;
            if self.present(slot) || self.alarm(slot) != NO_ALARM {
                value.clear();
                self.write_value(slot, &mut value);
                changes.put(self.group(slot), self.key(slot), &value);
                self.slots[index].stored = true;
            } else {
                if self.slots[index].stored {
                    changes.delete(self.group(slot), self.key(slot));
                }
                self.release(slot);
            }
        }
        self.collect_key_garbage();
        changes
    }

    /// Puts back a key and value that an earlier [`freeze`](Self::freeze) gave. `Err` if the value is not of this layout
    /// or the key is there already.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (alarm, state) = read_value(value)?;
        self.states.accepts(state)?;
        let hash = key_hash(key);
        if self.find(hash, key).is_some() {
            return Err("the key is stored twice".into());
        }
        let slot = self.insert_clean(hash, key);
        self.slots[slot as usize].stored = true;
        self.slots[slot as usize].present = state.is_some();
        self.states.load(slot, state.unwrap_or_default());
        self.alarms.set(slot, alarm.unwrap_or(NO_ALARM));
        Ok(())
    }

    fn insert(&mut self, hash: u64, key: &[u8]) -> u32 {
        let slot = self.insert_clean(hash, key);
        // The next freeze looks at it: a key that was only asked for does not stay.
        self.mark_dirty(slot);
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
            present: false,
            dirty: false,
            stored: false,
            used: true,
        };
        let slots = &self.slots;
        self.index
            .insert_unique(spread(hash), slot, |&s| spread(slots[s as usize].hash));
        slot
    }

    fn push_slot(&mut self) -> u32 {
        let slot = u32::try_from(self.slots.len()).expect("memory ends before slot numbers do");
        self.slots.push(Slot {
            hash: 0,
            key_start: 0,
            key_len: 0,
            present: false,
            dirty: false,
            stored: false,
            used: false,
        });
        self.alarms.push_slot();
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
        let s = &mut self.slots[slot as usize];
        s.used = false;
        self.key_garbage += s.key_len as usize;
        self.free.push(slot);
    }

    fn collect_key_garbage(&mut self) {
        if self.key_garbage < KEY_GARBAGE_BYTES_MIN || self.key_garbage * 2 < self.keys.len() {
            return;
        }
        let mut keys = Vec::with_capacity(self.keys.len() - self.key_garbage);
        for s in &mut self.slots {
            let start = keys.len();
            if s.used {
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
        let present = self.present(slot);
        out.push(u8::from(present) * HAS_STATE + u8::from(alarm != NO_ALARM) * HAS_ALARM);
        if alarm != NO_ALARM {
            out.extend_from_slice(&alarm.to_le_bytes());
        }
        if present {
            out.extend(self.words(slot).iter().flat_map(|w| w.to_le_bytes()));
            out.extend_from_slice(self.blob(slot));
        }
    }
}

/// The index goes by a hash's low bits, which keys of one worker's key groups share: it gets the high ones there.
#[inline]
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

/// Alarm and state of a stored value.
pub fn read_value(value: &[u8]) -> Result<(Option<Micros>, Option<&[u8]>), String> {
    let malformed = || "a stored value is malformed".to_string();
    let (&flags, mut rest) = value.split_first().ok_or_else(malformed)?;
    if flags & !(HAS_STATE | HAS_ALARM) != 0 {
        return Err(malformed());
    }
    let mut alarm = None;
    if flags & HAS_ALARM != 0 {
        let (bytes, tail) = rest.split_first_chunk().ok_or_else(malformed)?;
        alarm = Some(Micros::from_le_bytes(*bytes));
        rest = tail;
    }
    let state = (flags & HAS_STATE != 0).then_some(rest);
    if state.is_none() && !rest.is_empty() {
        return Err(malformed());
    }
    Ok((alarm, state))
}

/// Keeps the allocation while the new state fits and does not leave most of it unused.
fn replace(blob: &mut Vec<u8>, state: &[u8]) {
    let wasteful = blob.capacity() > 256 && state.len() < blob.capacity() / 4;
    if state.len() > blob.capacity() || wasteful {
        // An eighth to grow: a state that grows a little at each update is not moved at each.
        *blob = Vec::with_capacity(state.len() + state.len() / 8);
    }
    blob.clear();
    blob.extend_from_slice(state);
}

impl States {
    fn new(layout: StateLayout) -> Self {
        match layout {
            StateLayout::None => States::None,
            StateLayout::Fixed(width) => States::Fixed {
                width: width as usize,
                words: Vec::new(),
            },
            StateLayout::Blob => States::Blob {
                blobs: Vec::new(),
                bytes: 0,
            },
        }
    }

    fn push_slot(&mut self) {
        match self {
            States::None => {}
            States::Fixed { width, words } => words.resize(words.len() + *width, 0),
            States::Blob { blobs, .. } => blobs.push(Vec::new()),
        }
    }

    fn clear(&mut self, slot: u32) {
        match self {
            States::None => {}
            States::Fixed { width, words } => words[slot as usize * *width..][..*width].fill(0),
            States::Blob { blobs, bytes } => {
                *bytes -= blobs[slot as usize].capacity();
                blobs[slot as usize] = Vec::new();
            }
        }
    }

    fn accepts(&self, state: Option<&[u8]>) -> Result<(), String> {
        let found = state.map(<[u8]>::len);
        let fits = match (self, found) {
            (_, None) => true,
            (States::None, Some(len)) => len == 0,
            (States::Fixed { width, .. }, Some(len)) => len == 8 * width,
            (States::Blob { .. }, Some(len)) => len > 0,
        };
        let found = found.unwrap_or(0);
        fits.then_some(()).ok_or_else(|| match self {
            States::Fixed { width, .. } => {
                format!("a stored state has {found} bytes, the layout has {width} words of 8")
            }
            _ => format!("a stored state has {found} bytes, the layout does not allow that"),
        })
    }

    /// `state` was [accepted](Self::accepts), or is empty for none.
    fn load(&mut self, slot: u32, state: &[u8]) {
        match self {
            States::None => {}
            States::Fixed { width, words } => {
                let slot_words = &mut words[slot as usize * *width..][..*width];
                for (word, bytes) in slot_words.iter_mut().zip(state.as_chunks().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
            }
            States::Blob { blobs, bytes } => {
                blobs[slot as usize] = state.to_vec();
                *bytes += state.len();
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            States::None => 0,
            States::Fixed { words, .. } => words.capacity() * 8,
            States::Blob { blobs, bytes } => blobs.capacity() * size_of::<Vec<u8>>() + bytes,
        }
    }
}
