//! A view of a state written into fresh files: everything merged, in key order, nothing of the log but its last record.
//!
//! What `state.redb` derives from keys (its later tables) is made by the same code that a merge runs. Invariant: a table
//! that this file does not know is refused, never left out.

use std::path::Path;

use redb::{ReadTransaction, ReadableTable, TableHandle, WriteTransaction};

use super::file::{Fault, RedbFile, plain};
use super::log::{self, CHANGES, CHECKPOINTS, DROPPED, META, NAMES, SEGMENTS, UNMERGED};
use super::merged::{self, Merged};
use super::store::{LOG_FILE, MERGED_FILE};
use super::view::View;
use super::{Changes, Entries};
use crate::error::StateError;
use crate::limits::{LOG_CACHE_BYTES, MERGE_SLICE_BYTES, MERGE_SLICE_KEYS};

/// Tables whose rows are copied, or merged into the fresh `state.redb`.
const LOG_TABLES: [&str; 7] = [
    "changes",
    "segments",
    "unmerged",
    "checkpoints",
    "names",
    "dropped",
    "meta",
];
/// `timers` and `counts` follow from the keys: writing these makes them.
const MERGED_TABLES: [&str; 5] = ["meta", "state", "segments", "timers", "counts"];

/// How much was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub keys: u64,
    pub segments: u64,
    /// Of keys, values and segments.
    pub bytes: u64,
}

impl View {
    /// Keys and changes that [`copy`](Self::copy) has to read: at least as many as it will write.
    pub fn keys_at_most(&self) -> Result<u64, StateError> {
        let count = || -> Result<u64, Fault> {
            let unmerged = log::unmerged(&self.snapshot.log)?;
            Ok(merged::entries(&self.snapshot.merged)? + unmerged.keys)
        };
        self.fault(count())
    }

    /// Writes the state into the directory `to`, which has none, durably but for the directory's own entries. `each` is
    /// told how far it is, now and then; its `Err` ends the copy with that cause.
    pub fn copy(
        &self,
        to: &Path,
        each: &mut dyn FnMut(Copied) -> Result<(), String>,
    ) -> Result<Copied, StateError> {
        self.fault(self.copy_files(to, each))
    }

    fn copy_files(
        &self,
        to: &Path,
        each: &mut dyn FnMut(Copied) -> Result<(), String>,
    ) -> Result<Copied, Fault> {
        know_all(&self.snapshot.log, LOG_FILE, &LOG_TABLES)?;
        know_all(&self.snapshot.merged, MERGED_FILE, &MERGED_TABLES)?;
        let decided = (self.snapshot.latest).ok_or_else(|| Fault("no checkpoint".into()))?;
        let merged = Merged::open(&to.join(MERGED_FILE), &plain, &self.identity)?;
        let mut copied = Copied::default();
        for (_, step) in self.steps() {
            self.copy_keys(step, &merged, &mut copied, each)?;
            self.copy_segments(step, &merged, &mut copied, each)?;
        }
        merged.finish(decided, &[])?;
        drop(merged);
        let first = |tx: &WriteTransaction| self.copy_log(tx, decided.number());
        drop(RedbFile::open(
            &to.join(LOG_FILE),
            LOG_CACHE_BYTES,
            &plain,
            first,
        )?);
        Ok(copied)
    }

    fn copy_keys(
        &self,
        step: u16,
        to: &Merged,
        copied: &mut Copied,
        each: &mut dyn FnMut(Copied) -> Result<(), String>,
    ) -> Result<(), Fault> {
        let mut entries = Entries::open(&self.snapshot, step)?;
        loop {
            let mut slice = Changes::default();
            while slice.len() < MERGE_SLICE_KEYS
                && slice.bytes() < MERGE_SLICE_BYTES
                && entries.advance()?
            {
                slice.put(entries.group(), entries.key(), entries.value());
            }
            if slice.is_empty() {
                return Ok(());
            }
            to.apply(step, &slice)?;
            copied.keys += slice.len() as u64;
            copied.bytes += slice.bytes() as u64;
            each(*copied).map_err(Fault)?;
        }
    }

    fn copy_segments(
        &self,
        step: u16,
        to: &Merged,
        copied: &mut Copied,
        each: &mut dyn FnMut(Copied) -> Result<(), String>,
    ) -> Result<(), Fault> {
        let mut ids = super::segments::ids(&self.snapshot, step)?
            .into_iter()
            .peekable();
        while ids.peek().is_some() {
            let (mut slice, mut bytes) = (Vec::new(), 0);
            while bytes < MERGE_SLICE_BYTES
                && slice.len() < MERGE_SLICE_KEYS
                && let Some(id) = ids.next()
            {
                let read = super::segments::bytes(&self.snapshot, step, &[id])?;
                let segment = (read.and_then(|mut all| all.pop()))
                    .ok_or_else(|| Fault(format!("segment {:032x} is missing", id.pack())))?;
                bytes += segment.len();
                slice.push(((step, id.pack()), Some(segment)));
            }
            to.apply_segments(&slice)?;
            copied.segments += slice.len() as u64;
            copied.bytes += bytes as u64;
            each(*copied).map_err(Fault)?;
        }
        Ok(())
    }

    /// A log as if everything had been merged: names, identity and the record of the last decided checkpoint.
    fn copy_log(&self, tx: &WriteTransaction, number: u64) -> Result<(), Fault> {
        let from = &self.snapshot.log;
        tx.open_table(CHANGES)?;
        tx.open_table(SEGMENTS)?;
        tx.open_table(UNMERGED)?;
        let mut meta = tx.open_table(META)?;
        for row in from.open_table(META)?.iter()? {
            let (name, value) = row?;
            meta.insert(name.value(), value.value())?;
        }
        // `merged_below` of the other file says the same: nothing is left here to merge.
        meta.insert("trimmed_below", &(number + 1).to_le_bytes()[..])?;
        let mut names = tx.open_table(NAMES)?;
        for row in from.open_table(NAMES)?.iter()? {
            let (name, number) = row?;
            names.insert(name.value(), number.value())?;
        }
        let mut dropped = tx.open_table(DROPPED)?;
        for row in from.open_table(DROPPED)?.iter()? {
            dropped.insert(row?.0.value(), ())?;
        }
        let records = from.open_table(CHECKPOINTS)?;
        let record = (records.get(number)?)
            .ok_or_else(|| Fault(format!("the record of checkpoint {number} is missing")))?;
        tx.open_table(CHECKPOINTS)?.insert(number, record.value())?;
        Ok(())
    }
}

fn know_all(tx: &ReadTransaction, file: &str, known: &[&str]) -> Result<(), Fault> {
    for table in tx.list_tables()? {
        if !known.contains(&table.name()) {
            return Err(Fault(format!(
                "{file} has a table `{}`, which a snapshot of this version would leave out",
                table.name()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
