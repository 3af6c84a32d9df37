//! The state at its last decided checkpoint, for those who look at it from outside while the engine goes on.
//!
//! Holds a read transaction of each file: checkpoints and merges go on meanwhile and what they write is not seen. Pages
//! that they replace stay allocated until the view is dropped, so it is not to be kept longer than it is used. Reading
//! fails once the store that it is of is closed.

use std::path::{Path, PathBuf};

pub use super::entries::Entries;
use super::log::{self, Identity, Names};
use super::merge::{Files, Snapshot};
use super::store::{STEP, Store, store_error};
use super::{Fault, Restored, SegmentId, segments};
use crate::error::StateError;

/// A state at one decided checkpoint.
pub struct View {
    dir: PathBuf,
    pub(super) snapshot: Snapshot,
    pub(super) identity: Identity,
    pub(super) names: Names,
    latest: Restored,
}

/// What a step keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepSize {
    pub keys: u64,
    /// Of keys and values.
    pub key_bytes: u64,
    pub segments: u64,
    pub segment_bytes: u64,
}

impl Store {
    /// The state as of now; `None` before checkpoint 0. Takes no time that grows with the state.
    pub fn view(&self) -> Result<Option<View>, StateError> {
        View::of(self.dir(), &self.files)
    }
}

impl View {
    pub(super) fn of(dir: &Path, files: &Files) -> Result<Option<Self>, StateError> {
        let open = || -> Result<Option<Self>, Fault> {
            let snapshot = files.snapshot()?;
            let Some((_, latest)) = log::latest(&snapshot.log)? else {
                return Ok(None);
            };
            Ok(Some(Self {
                dir: dir.to_owned(),
                identity: log::read_identity(&snapshot.log)?,
                names: log::names(&snapshot.log)?,
                latest,
                snapshot,
            }))
        };
        open().map_err(|fault| store_error(dir, fault))
    }

    /// The checkpoint.
    pub fn latest(&self) -> &Restored {
        &self.latest
    }

    pub fn pipeline(&self) -> &str {
        &self.identity.pipeline
    }

    pub fn state_id(&self) -> [u8; 16] {
        self.identity.state_id
    }

    pub fn key_groups(&self) -> u16 {
        self.identity.key_groups
    }

    /// Names of the steps that the state has numbers for, with these numbers; by name.
    pub fn steps(&self) -> impl Iterator<Item = (&str, u16)> {
        let names = self.names.by_name.iter();
        names.filter_map(|(name, number)| Some((name.strip_prefix(STEP)?, *number)))
    }

    /// The keys of a step with their values, ascending.
    pub fn entries(&self, step: u16) -> Result<Entries, StateError> {
        self.fault(Entries::open(&self.snapshot, step))
    }

    /// The value of one key; looks through the changes that are not merged yet.
    pub fn get(&self, step: u16, group: u16, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let mut entries = self.entries(step)?;
        while self.fault(entries.advance())? {
            match (entries.group(), entries.key()).cmp(&(group, key)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(entries.value().to_vec())),
                std::cmp::Ordering::Greater => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The names of a step's segments, ascending.
    pub fn segment_ids(&self, step: u16) -> Result<Vec<SegmentId>, StateError> {
        self.fault(segments::ids(&self.snapshot, step))
    }

    /// The bytes of a segment of [`segment_ids`](Self::segment_ids).
    pub fn segment(&self, step: u16, id: SegmentId) -> Result<Vec<u8>, StateError> {
        let found = self.fault(segments::bytes(&self.snapshot, step, &[id]))?;
        let bytes = found.and_then(|mut all| all.pop());
        let missing = || Fault(format!("segment {:032x} is not there", id.pack()));
        self.fault(bytes.ok_or_else(missing))
    }

    /// Counts what a step keeps; reads all of it.
    pub fn size(&self, step: u16) -> Result<StepSize, StateError> {
        let mut size = StepSize::default();
        let mut entries = self.entries(step)?;
        while self.fault(entries.advance())? {
            size.keys += 1;
            size.key_bytes += (entries.key().len() + entries.value().len()) as u64;
        }
        for id in self.segment_ids(step)? {
            size.segments += 1;
            size.segment_bytes += self.segment(step, id)?.len() as u64;
        }
        Ok(size)
    }

    pub(super) fn fault<T>(&self, result: Result<T, Fault>) -> Result<T, StateError> {
        result.map_err(|fault| store_error(&self.dir, fault))
    }
}
