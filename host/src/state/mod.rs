//! Keyed state: hot values in memory, checkpoints in two redb files (`docs/state-format.md`).
//!
//! Knows no rows, no plugins and no clock: keys, values and segments are bytes here. [`keyed::KeyedTable`] is what a step
//! works on, [`store::Store`] is what survives; the only files of the project that name redb are in this folder.

mod alarms;
mod blob;
mod checked;
mod copy;
mod entries;
mod file;
pub mod key;
pub mod keyed;
mod lineage;
mod log;
mod merge;
mod merged;
mod newest;
mod overlay;
pub mod peek;
pub mod reader;
pub mod replace;
mod segment;
mod segments;
pub mod store;
pub mod stored;
mod timers;
pub mod value;
mod view;

use serde::{Deserialize, Serialize};

pub use copy::Copied;
pub use file::make_directory;
pub use lineage::{parse as parse_state_id, shown as show_state_id};
pub use segment::{Fault, PutSegment, SegmentId, SegmentSource, Segments};
pub use store::{Prepared, Restored, Store};
pub use view::{Entries, StepSize, View};

/// Version of everything `docs/state-format.md` describes. Another one on disk is refused.
pub const FORMAT: u32 = 3;

/// What one step changed on one worker since the last checkpoint.
#[derive(Debug, Default)]
pub struct Delta {
    pub changes: Changes,
    /// What writes the new segments, later and on another thread: freezing does not wait for it.
    pub segments: Vec<Box<dyn SegmentSource>>,
    /// Segments that nothing needs any more.
    pub dropped: Vec<SegmentId>,
}

/// Changed keys with their new values, packed one after the other so that freezing costs a copy and no allocation a key.
#[derive(Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    entries: Vec<Packed>,
}

#[derive(Debug, Clone, Copy)]
struct Packed {
    start: usize,
    key: u32,
    /// `u32::MAX`: the key is deleted.
    value: u32,
    group: u16,
}

const DELETED: u32 = u32::MAX;

/// One changed key. `value` is `None` if the key is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    pub group: u16,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl Changes {
    /// Room for so many keys and bytes, so that nothing is moved while they come.
    pub fn with_capacity(keys: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(keys),
        }
    }

    pub fn put(&mut self, group: u16, key: &[u8], value: &[u8]) {
        self.push(group, key, value.len() as u32);
        self.bytes.extend_from_slice(value);
    }

    pub fn delete(&mut self, group: u16, key: &[u8]) {
        self.push(group, key, DELETED);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.entries.iter().map(|e| self.change(e))
    }

    fn push(&mut self, group: u16, key: &[u8], value: u32) {
        self.entries.push(Packed {
            start: self.bytes.len(),
            key: key.len() as u32,
            value,
            group,
        });
        self.bytes.extend_from_slice(key);
    }

    fn change(&self, e: &Packed) -> Change<'_> {
        let value = e.start + e.key as usize;
        Change {
            group: e.group,
            key: &self.bytes[e.start..value],
            value: (e.value != DELETED).then(|| &self.bytes[value..value + e.value as usize]),
        }
    }
}

/// Where a sink's output, a source's reading and the event time stood at a checkpoint: all of it but the keyed state.
/// Written as JSON beside the state changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Free for the engine: positions, watermarks, ends, sink cuts, plugin digests, signatures.
    pub engine: serde_json::Value,
}
