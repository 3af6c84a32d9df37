//! The keys of one step at one decided checkpoint, in order: the merged state with the log's newer changes on top.
//!
//! Reads on from where it stands and holds one blob a checkpoint in memory. Invariant: groups and keys ascend strictly,
//! each is given once with the value of that checkpoint.

use super::file::Fault;
use super::merge::Snapshot;
use super::merged::{self, Rows};
use super::newest::Newest;

/// A cursor over keys and values. Starts before the first: call [`advance`](Self::advance).
pub struct Entries {
    merged: Rows<&'static [u8]>,
    newest: Newest,
    /// The newest change has not been given yet.
    changed: bool,
    /// The next merged key and its value, if it was read already.
    ahead: Option<(Vec<u8>, Vec<u8>)>,
    /// `group u16 BE | key`.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Entries {
    pub(super) fn open(snapshot: &Snapshot, step: u16) -> Result<Self, Fault> {
        let mut newest = Newest::open(&snapshot.log, &snapshot.numbers, step)?;
        Ok(Self {
            merged: merged::range(&snapshot.merged, step, 0..u16::MAX)?,
            changed: newest.advance()?,
            newest,
            ahead: None,
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    /// Goes to the next key; false if there is none.
    pub fn advance(&mut self) -> Result<bool, Fault> {
        loop {
            self.look_ahead()?;
            let merged = self.ahead.as_ref().map(|(key, _)| key.as_slice());
            let newer = match (merged, self.changed) {
                (None, false) => return Ok(false),
                (Some(_), false) => false,
                (None, true) => true,
                (Some(key), true) => self.newest.key() <= key,
            };
            if !newer {
                (self.key, self.value) = self.ahead.take().unwrap_or_default();
                return Ok(true);
            }
            if merged == Some(self.newest.key()) {
                self.ahead = None;
            }
            let value = self.newest.value();
            let stays = value.is_some();
            self.value.clear();
            self.value.extend_from_slice(value.unwrap_or_default());
            self.key.clear();
            self.key.extend_from_slice(self.newest.key());
            self.changed = self.newest.advance()?;
            if stays {
                return Ok(true);
            }
        }
    }

    pub fn group(&self) -> u16 {
        match self.key.first_chunk() {
            Some(group) => u16::from_be_bytes(*group),
            None => 0,
        }
    }

    /// The encoded key.
    pub fn key(&self) -> &[u8] {
        self.key.get(2..).unwrap_or_default()
    }

    pub fn value(&self) -> &[u8] {
        &self.value
    }

    fn look_ahead(&mut self) -> Result<(), Fault> {
        if self.ahead.is_some() {
            return Ok(());
        }
        if let Some(row) = self.merged.next() {
            let (key, value) = row?;
            let key = (key.value().get(2..)).filter(|key| key.len() >= 2);
            let key = key.ok_or_else(|| Fault("a stored key is too short".into()))?;
            self.ahead = Some((key.to_vec(), value.value().to_vec()));
        }
        Ok(())
    }
}
