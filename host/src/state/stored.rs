//! The keys of one step on one worker as they lie on disk: what a hot table begins with, reads back and is woken by.
//!
//! Not where they are written (that is a checkpoint, and then the merge). Invariant: what is given of a key that no
//! unmerged checkpoint changed is its value; of others it may be an older one, so whoever asks keeps those by himself.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::file::Fault;
use super::merge::lock;
use super::merged;
use super::newest::Newest;
use super::store::Store;
pub use super::timers::Timer;
use super::timers::{self, Upcoming};
use crate::time::Micros;

/// Takes a key and its newest change (`None`: it ended); an `Err` ends the reading.
pub type EachChange<'a> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), String> + 'a;
/// Takes a key and its value; an `Err` ends the reading.
pub type EachValue<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), String> + 'a;
/// Takes the place of a key among those asked for, and its value if there is one.
pub type EachFound<'a> = dyn FnMut(usize, Option<&[u8]>) -> Result<(), String> + 'a;

/// Stored keys of one step in the key groups of one worker. Every call may wait for the disk.
pub trait StoredKeys: Debug + Send + Sync {
    /// What the decided checkpoints changed that are not merged: each key once, with its newest change. Returns the number
    /// of the last of them, 0 if there is none.
    fn unmerged(&self, each: &mut EachChange<'_>) -> Result<u64, String>;
    /// Checkpoints below this one are merged, for every later call.
    fn merged_below(&self) -> u64;
    /// Somebody waits for the merge of what is decided.
    fn want_merge(&self);
    /// The merged values of `keys` (group and key, ascending), in their order.
    fn read(&self, keys: &[(u16, &[u8])], each: &mut EachFound<'_>) -> Result<(), String>;
    /// At most `max` merged keys behind `after` (group and key), ascending. True: there are more.
    fn scan(
        &self,
        after: Option<(u16, &[u8])>,
        max: usize,
        each: &mut EachValue<'_>,
    ) -> Result<bool, String>;
    /// At most `max` merged keys with a time behind `after` (time and key) and at or before `until`, ascending by time and
    /// key. True: there are more.
    fn timers(
        &self,
        timer: Timer,
        after: Option<(Micros, &[u8])>,
        until: Micros,
        max: usize,
        each: &mut dyn FnMut(Micros, &[u8]),
    ) -> Result<bool, String>;
    /// How many keys are merged.
    fn count(&self) -> Result<u64, String>;
}

/// Keys of a step in a [`Store`].
#[derive(Debug)]
struct StepKeys {
    store: Arc<Store>,
    step: u16,
    groups: Range<u16>,
    /// By kind.
    upcoming: [Mutex<Upcoming>; 2],
}

impl Store {
    /// The keys of a step in the key groups `groups`, for the hot table of the worker that has them.
    pub fn keys(self: &Arc<Self>, step: u16, groups: Range<u16>) -> Arc<dyn StoredKeys> {
        Arc::new(StepKeys {
            store: self.clone(),
            step,
            groups,
            upcoming: Default::default(),
        })
    }
}

impl StepKeys {
    fn told<T>(&self, result: Result<T, Fault>) -> Result<T, String> {
        self.store.told(result).map_err(|e| e.to_string())
    }

    fn each_unmerged(&self, each: &mut EachChange<'_>) -> Result<u64, Fault> {
        let snapshot = self.store.files().snapshot()?;
        let mut newest = Newest::open(&snapshot.log, &snapshot.numbers, self.step)?;
        while newest.advance()? {
            let (group, key) = newest.key().split_at(2);
            let group = u16::from_be_bytes([group[0], group[1]]);
            if group >= self.groups.end {
                break;
            }
            if group >= self.groups.start {
                each(key, newest.value()).map_err(|cause| self.cannot_load(key, &cause))?;
            }
        }
        Ok(snapshot.numbers.last().copied().unwrap_or(0))
    }

    fn cannot_load(&self, key: &[u8], cause: &str) -> Fault {
        let step = self.step;
        Fault(format!(
            "key {key:02x?} of step number {step} cannot be loaded: {cause}"
        ))
    }
}

impl StoredKeys for StepKeys {
    fn unmerged(&self, each: &mut EachChange<'_>) -> Result<u64, String> {
        self.told(self.each_unmerged(each))
    }

    fn merged_below(&self) -> u64 {
        self.store.files().merged_below()
    }

    fn want_merge(&self) {
        self.store.files().want_merge();
    }

    fn read(&self, keys: &[(u16, &[u8])], each: &mut EachFound<'_>) -> Result<(), String> {
        // A transaction each time: one that is held keeps the pages that a merge replaces.
        let read = || {
            let tx = self.store.files().merged.read()?;
            merged::get(&tx, self.step, keys, &mut |place, value| {
                each(place, value).map_err(|cause| self.cannot_load(keys[place].1, &cause))
            })
        };
        let mut read = read;
        self.told(read())
    }

    fn scan(
        &self,
        after: Option<(u16, &[u8])>,
        max: usize,
        each: &mut EachValue<'_>,
    ) -> Result<bool, String> {
        let mut scan = || {
            let tx = self.store.files().merged.read()?;
            let rows = merged::range_after(&tx, self.step, self.groups.clone(), after)?;
            for (number, row) in rows.enumerate() {
                if number == max {
                    return Ok(true);
                }
                let (key, value) = row?;
                let key = &key.value()[merged::PREFIX..];
                each(key, value.value()).map_err(|cause| self.cannot_load(key, &cause))?;
            }
            Ok(false)
        };
        self.told(scan())
    }

    fn timers(
        &self,
        timer: Timer,
        after: Option<(Micros, &[u8])>,
        until: Micros,
        max: usize,
        each: &mut dyn FnMut(Micros, &[u8]),
    ) -> Result<bool, String> {
        // Before the transaction begins: what is merged meanwhile is looked at again.
        let merged_below = self.merged_below();
        let mut upcoming = lock(&self.upcoming[timer as usize]);
        upcoming.refresh(&self.groups, merged_below, after);
        let due = upcoming.due(&self.groups, until);
        if due.is_empty() {
            return Ok(false);
        }
        let (mut left, mut more) = (max, false);
        let mut some = |time, key: &[u8]| {
            more = left == 0;
            if !more {
                left -= 1;
                each(time, key);
            }
            !more
        };
        let mut scan = || {
            let tx = self.store.files().merged.read()?;
            let kind = (self.step, timer);
            timers::scan(
                &tx,
                kind,
                &mut due.iter().copied(),
                (after, until),
                &mut some,
            )
        };
        let nexts = self.told(scan())?;
        upcoming.learn(&self.groups, nexts);
        Ok(more)
    }

    fn count(&self) -> Result<u64, String> {
        let count = || merged::count(&self.store.files().merged.read()?, self.step, &self.groups);
        self.told(count())
    }
}
