//! Numbers the groups of a window: a group is a pane and a key.
//!
//! Invariant: groups are numbered 0.. in the order in which they were first seen, and never forgotten until all are.

use hashbrown::HashTable;

use crate::time::Micros;

/// Spreads panes over the hash table: keys recur in every pane.
const PANE_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Groups by pane and encoded key.
#[derive(Debug, Default)]
pub struct GroupIndex {
    table: HashTable<u32>,
    pub keys: Keys,
    panes: Vec<Micros>,
}

/// Keys one after the other, with their hashes.
#[derive(Debug)]
pub struct Keys {
    pub hashes: Vec<u64>,
    /// Key `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    pub offsets: Vec<i32>,
    pub bytes: Vec<u8>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            hashes: Vec::new(),
            offsets: vec![0],
            bytes: Vec::new(),
        }
    }
}

impl Keys {
    pub fn get(&self, group: usize) -> &[u8] {
        &self.bytes[self.offsets[group] as usize..self.offsets[group + 1] as usize]
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    fn push(&mut self, hash: u64, key: &[u8]) {
        self.hashes.push(hash);
        self.bytes.extend_from_slice(key);
        self.offsets.push(self.bytes.len() as i32);
    }
}

impl GroupIndex {
    /// The group of this pane and key, new or known; `hash` is the key's own.
    pub fn group(&mut self, hash: u64, pane: Micros, key: &[u8]) -> usize {
        let mixed = mix(hash, pane);
        let (keys, panes) = (&mut self.keys, &mut self.panes);
        let same = |&group: &u32| {
            let group = group as usize;
            keys.hashes[group] == hash && panes[group] == pane && keys.get(group) == key
        };
        if let Some(&group) = self.table.find(mixed, same) {
            return group as usize;
        }
        let group = keys.len();
        keys.push(hash, key);
        panes.push(pane);
        let rehash = |&group: &u32| mix(keys.hashes[group as usize], panes[group as usize]);
        self.table.insert_unique(mixed, group as u32, rehash);
        group
    }

    /// The group of this pane and key, if there is one.
    pub fn find(&self, hash: u64, pane: Micros, key: &[u8]) -> Option<usize> {
        let same = |&group: &u32| {
            let group = group as usize;
            self.keys.hashes[group] == hash
                && self.panes[group] == pane
                && self.keys.get(group) == key
        };
        self.table.find(mix(hash, pane), same).map(|&g| g as usize)
    }

    pub fn len(&self) -> usize {
        self.panes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.panes.is_empty()
    }

    /// Memory, bytes.
    pub fn bytes(&self) -> usize {
        self.table.allocation_size()
            + self.keys.bytes.capacity()
            + self.keys.offsets.capacity() * 4
            + (self.keys.hashes.capacity() + self.panes.capacity()) * 8
    }

    /// Keys and panes of all groups; the index is empty again.
    pub fn take(&mut self) -> (Keys, Vec<Micros>) {
        self.table.clear();
        (
            std::mem::take(&mut self.keys),
            std::mem::take(&mut self.panes),
        )
    }
}

fn mix(hash: u64, pane: Micros) -> u64 {
    hash ^ (pane as u64).wrapping_mul(PANE_FACTOR)
}
