//! Moves decided changes from the log into the merged state, in the background.
//!
//! Never on the way of a checkpoint: that writes the log alone. Invariants: only decided checkpoints are merged; changes
//! leave the log after they are durable in `state.redb`; a merge cut off anywhere is simply done again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use redb::ReadTransaction;

use super::file::Fault;
use super::log::{self, Decided, Log};
use super::merged::{self, Merged};
use super::newest::Newest;
use super::{Changes, segments};
use crate::limits::{
    MERGE_BEHIND, MERGE_CHECKPOINTS_MAX, MERGE_KEYS_MIN, MERGE_SLICE_BYTES, MERGE_SLICE_KEYS,
    MERGE_UNMERGED_BYTES_MAX, MERGE_UNMERGED_KEYS_MAX,
};

/// When a merge is worth its writes. A changed key drags a whole leaf of the B-tree with it, and keys that change in
/// many checkpoints are merged once: so a merge waits for as many as there are. The maxima bound what a restart reads
/// and what hot tables cannot evict.
#[derive(Debug, Clone, Copy)]
pub(super) struct MergeRule {
    pub keys_min: u64,
    pub keys_max: u64,
    pub bytes_max: u64,
    pub checkpoints_max: u64,
}

impl Default for MergeRule {
    fn default() -> Self {
        Self {
            keys_min: MERGE_KEYS_MIN,
            keys_max: MERGE_UNMERGED_KEYS_MAX,
            bytes_max: MERGE_UNMERGED_BYTES_MAX,
            checkpoints_max: MERGE_CHECKPOINTS_MAX,
        }
    }
}

impl MergeRule {
    fn is_due(&self, unmerged: log::Unmerged, merged_keys: u64) -> bool {
        unmerged.keys >= self.keys_min.max(merged_keys).min(self.keys_max)
            || unmerged.bytes >= self.bytes_max
            || unmerged.checkpoints >= self.checkpoints_max
    }

    /// Merges do not keep up with what changes.
    fn is_behind(&self, unmerged: log::Unmerged) -> bool {
        unmerged.bytes >= self.bytes_max.saturating_mul(MERGE_BEHIND)
    }
}

/// The two files together.
#[derive(Debug)]
pub(super) struct Files {
    pub log: Log,
    pub merged: Merged,
    /// Held while both files are looked at as one, and while a merge writes.
    gate: Mutex<()>,
    /// One merge at a time.
    merging: Mutex<()>,
    /// Checkpoints below this one are merged, durably.
    merged_below: AtomicU64,
    /// A hot table has no room before the next merge.
    wanted: AtomicBool,
    /// Merges do not keep up.
    behind: Arc<AtomicBool>,
}

/// Both files as of one moment: the last decided checkpoint then.
pub(super) struct Snapshot {
    pub log: ReadTransaction,
    pub merged: ReadTransaction,
    /// The decided checkpoints that only the log has, ascending.
    pub numbers: Vec<u64>,
    pub latest: Option<Decided>,
}

impl Files {
    pub fn new(log: Log, merged: Merged, merged_below: u64) -> Self {
        Self {
            log,
            merged,
            gate: Mutex::new(()),
            merging: Mutex::new(()),
            merged_below: AtomicU64::new(merged_below),
            wanted: AtomicBool::new(false),
            behind: Arc::default(),
        }
    }

    /// Checkpoints below this one are in every transaction that `merged` gives from now on.
    pub fn merged_below(&self) -> u64 {
        self.merged_below.load(Ordering::Acquire)
    }

    /// The next decided checkpoint is followed by a merge, whether it is worth its writes or not.
    pub fn want_merge(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    pub fn snapshot(&self) -> Result<Snapshot, Fault> {
        let _gate = lock(&self.gate);
        // A merge that began earlier wrote of checkpoints decided before this moment, and none of it has left the log.
        let log = self.log.read()?;
        let merged = self.merged.read()?;
        let latest = log::latest(&log)?.map(|(decided, _)| decided);
        let numbers = match latest {
            Some(to) => log::unmerged_numbers(&log, merged::merged_below(&merged)?, to)?,
            None => Vec::new(),
        };
        Ok(Snapshot {
            log,
            merged,
            numbers,
            latest,
        })
    }

    /// A failure with the one that it follows: a disk that is full, of which another thread heard first, is waited out.
    pub fn explain(&self, Fault(cause): Fault) -> Fault {
        let first = self.log.failed().or_else(|| self.merged.failed());
        match first.filter(|first| !cause.contains(*first)) {
            Some(first) => Fault(format!("{cause} (before that: {first})")),
            None => Fault(cause),
        }
    }

    /// Keeps merges from writing while the value lives.
    #[cfg(test)]
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        lock(&self.merging)
    }

    /// Whether enough waits in the log.
    pub fn merge_is_due(&self, rule: &MergeRule) -> Result<bool, Fault> {
        let unmerged = log::unmerged(&self.log.read()?)?;
        let wanted = self.wanted.swap(false, Ordering::AcqRel);
        Ok(wanted || rule.is_due(unmerged, merged::entries(&self.merged.read()?)?))
    }

    /// True while merges do not keep up with what changes.
    pub fn behind(&self) -> Arc<AtomicBool> {
        self.behind.clone()
    }

    /// Looks whether merges keep up: after something was written, and after a merge.
    pub fn look_behind(&self, rule: &MergeRule) -> Result<(), Fault> {
        let behind = rule.is_behind(log::unmerged(&self.log.read()?)?);
        self.behind.store(behind, Ordering::Relaxed);
        Ok(())
    }

    /// Merges every decided checkpoint; gives up between two slices when `stop` says so.
    pub fn merge(&self, stop: &dyn Fn() -> bool) -> Result<(), Fault> {
        let _one = lock(&self.merging);
        // Without a look into what is merged: pages that a slice frees are the room of the next.
        let Snapshot {
            log,
            numbers,
            latest,
            ..
        } = self.snapshot()?;
        let Some(to) = latest else {
            return Ok(());
        };
        let names = log::names(&log)?;
        let steps: Vec<u16> = (names.by_name.iter())
            .filter(|(name, _)| name.starts_with(super::store::STEP))
            .map(|(_, &number)| number)
            .collect();
        for &step in &steps {
            self.merge_step(&log, &numbers, step, stop)?;
        }
        self.merge_segments(&log, &numbers, &steps, stop)?;
        if !stop() {
            let gate = lock(&self.gate);
            self.merged.finish(to, &names.dropped)?;
            (self.merged_below).store(to.number() + 1, Ordering::Release);
            // A checkpoint that is being written has the log, and may want both files for what it compacts. Who finds both
            // finished and not trimmed passes over what is merged.
            drop(gate);
            self.log.trim(to)?;
        }
        Ok(())
    }

    fn merge_step(
        &self,
        log: &ReadTransaction,
        numbers: &[u64],
        step: u16,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Fault> {
        let mut newest = Newest::open(log, numbers, step)?;
        loop {
            let slice = next_slice(&mut newest)?;
            if slice.is_empty() || stop() {
                return Ok(());
            }
            let _gate = lock(&self.gate);
            self.merged.apply(step, &slice)?;
        }
    }

    fn merge_segments(
        &self,
        log: &ReadTransaction,
        numbers: &[u64],
        steps: &[u16],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Fault> {
        let fates = segments::fates(log, numbers, steps)?;
        let mut fates = fates.into_iter();
        loop {
            let mut slice = Vec::new();
            let mut bytes = 0;
            while bytes < MERGE_SLICE_BYTES && slice.len() < MERGE_SLICE_KEYS {
                let Some((id, fate)) = fates.next() else {
                    break;
                };
                let put = fate.map(|number| segments::read(log, number, id));
                let put = put.transpose()?;
                bytes += put.as_ref().map_or(0, Vec::len);
                slice.push((id, put));
            }
            if slice.is_empty() || stop() {
                return Ok(());
            }
            let _gate = lock(&self.gate);
            self.merged.apply_segments(&slice)?;
        }
    }
}

/// The next changes, as many as one transaction takes without writing a page twice.
fn next_slice(newest: &mut Newest) -> Result<Changes, Fault> {
    let mut slice = Changes::default();
    while slice.len() < MERGE_SLICE_KEYS && slice.bytes() < MERGE_SLICE_BYTES && newest.advance()? {
        let (group, key) = newest.key().split_at(2);
        let group = u16::from_be_bytes([group[0], group[1]]);
        match newest.value() {
            Some(value) => slice.put(group, key, value),
            None => slice.delete(group, key),
        }
    }
    Ok(slice)
}

/// The thread that merges. It ends with this value.
#[derive(Debug)]
pub(super) struct Merger {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Signal {
    decided: bool,
    stop: bool,
    failure: Option<Fault>,
}

impl Merger {
    pub fn start(files: Arc<Files>, rule: MergeRule) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("state-merge".into()).spawn({
            let shared = shared.clone();
            move || shared.run(&files, &rule)
        })?;
        let thread = Some(thread);
        Ok(Self { shared, thread })
    }

    /// A checkpoint was decided: the merge looks whether it has enough to do.
    pub fn decided(&self) {
        lock(&self.shared.signal).decided = true;
        self.shared.changed.notify_one();
    }

    /// Why the merge stopped, if it did. It does not start again: the process has to.
    pub fn failure(&self) -> Option<Fault> {
        let failure = lock(&self.shared.signal).failure.clone();
        failure.or_else(|| {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            ended.then(|| Fault("the thread that merges the log into state.redb ended".into()))
        })
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        lock(&self.shared.signal).stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; everything decided is in the log still.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, files: &Files, rule: &MergeRule) {
        let stop = || lock(&self.signal).stop;
        loop {
            // Not before the first new checkpoint: a restart has the machine to itself while it loads.
            self.wait();
            if stop() {
                return;
            }
            let merged = match files.merge_is_due(rule) {
                Ok(true) => files.merge(&stop).and_then(|()| files.look_behind(rule)),
                Ok(false) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = merged {
                lock(&self.signal).failure = Some(fault);
                return;
            }
        }
    }

    fn wait(&self) {
        let idle = |signal: &mut Signal| !signal.decided && !signal.stop;
        let signal = lock(&self.signal);
        let mut signal =
            (self.changed.wait_while(signal, idle)).unwrap_or_else(PoisonError::into_inner);
        signal.decided = false;
    }
}

/// What these locks guard is whole at every moment, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
