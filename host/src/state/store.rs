//! The state directory: opened by one process at a time, it takes checkpoints and gives back the last decided one.
//!
//! Not the place where a step looks up a key (that is [`super::keyed`]). Invariant: what [`Store::load`] and
//! [`Store::segment_ids`] give is the state of exactly one checkpoint, [`Store::latest`].

mod deciding;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::file::{Fault, OpenFile, make_directory, plain};
use super::log::{self, Identity, Log};
use super::merge::{Files, MergeRule, Merger, lock};
use super::merged::{self, Merged};
use super::newest::Newest;
use deciding::Known;

use super::{Delta, FORMAT, Meta, SegmentId, lineage, replace, segments};
use crate::error::StateError;

pub(super) const LOCK_FILE: &str = "lock";
/// How long the state may stay locked by another before that is an error.
const LOCK_WAIT: Duration = Duration::from_secs(1);
pub(super) const LOG_FILE: &str = "log.redb";
pub(super) const MERGED_FILE: &str = "state.redb";

/// Prefixes of names in the log.
pub(super) const STEP: &str = "step/";
const INPUT: &str = "input/";

/// A checkpoint ready to be written.
#[derive(Debug, Default)]
pub struct Prepared {
    /// 0 before the first record, then one more each time.
    pub number: u64,
    pub meta: Meta,
    /// What each step (by its number) changed, one delta a worker.
    pub deltas: Vec<(u16, Vec<Delta>)>,
    /// A bounded run has come to its end.
    pub finished: bool,
}

/// A checkpoint as the log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    pub number: u64,
    pub meta: Meta,
    pub finished: bool,
    /// A transaction outside decided it, or is to.
    pub in_transaction: bool,
}

/// An open state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    identity: Identity,
    incarnation: u64,
    supersedes: Vec<[u8; 16]>,
    names: Mutex<log::Names>,
    known: Mutex<Known>,
    /// Set by the first commit that fails: the files have to be opened anew.
    broken: Mutex<bool>,
    // Dropped in this order: the thread, the files it uses, the lock that keeps others out.
    merger: Merger,
    rule: MergeRule,
    pub(super) files: Arc<Files>,
    _lock: File,
}

/// Takes a key group, a key and its value; an `Err` says why the value cannot be taken and ends the load.
pub type EachKey<'a> = dyn FnMut(u16, &[u8], &[u8]) -> Result<(), String> + 'a;

impl Store {
    /// Opens the state of `pipeline` in `dir`, or makes it (mode 0700).
    ///
    /// # Errors
    /// `InUse` while another process has it open; `Format` for another version; `Unusable` if the directory cannot be
    /// written, is of another pipeline or has another number of key groups; `Store` if its files cannot be read.
    pub fn open(dir: &Path, pipeline: &str, key_groups: u16) -> Result<Self, StateError> {
        Self::open_with(dir, pipeline, key_groups, MergeRule::default(), &plain)
    }

    pub(super) fn open_with(
        dir: &Path,
        pipeline: &str,
        key_groups: u16,
        rule: MergeRule,
        open_file: &OpenFile,
    ) -> Result<Self, StateError> {
        let lock = lock_directory(dir)?;
        replace::refuse_unfinished(dir)?;
        let mut state_id = [0; 16];
        getrandom::fill(&mut state_id)
            .map_err(|e| unusable(dir, format!("no random number: {e}")))?;
        let asked = Identity {
            format: FORMAT,
            state_id,
            pipeline: pipeline.into(),
            key_groups,
        };
        let (files, identity) = open_files(dir, &asked, open_file)?;
        let fault = |fault| store_error(dir, fault);
        let incarnation = files.log.begin_incarnation().map_err(fault)?;
        let read = files.log.read().map_err(fault)?;
        let latest = log::latest(&read).map_err(fault)?;
        let known = Known {
            latest: latest.map(|(_, restored)| restored),
            settled: true,
            undecided: log::undecided(&read).map_err(fault)?,
        };
        let names = log::names(&read).map_err(fault)?;
        let supersedes = log::supersedes(&read).map_err(fault)?;
        lineage::clear(dir).map_err(|e| fault(e.into()))?;
        let files = Arc::new(files);
        let merger = Merger::start(files.clone(), rule).map_err(|e| fault(e.into()))?;
        Ok(Self {
            dir: dir.into(),
            identity,
            incarnation,
            supersedes,
            names: Mutex::new(names),
            known: Mutex::new(known),
            broken: Mutex::new(false),
            merger,
            rule,
            files,
            _lock: lock,
        })
    }

    /// Whether there is a state in `dir`; nothing is opened or made.
    pub fn exists(dir: &Path) -> bool {
        dir.join(LOG_FILE).exists()
    }

    /// Deletes the state in `dir`, of whatever pipeline or version; the next one made there takes its place. Other files
    /// in the directory stay.
    pub fn reset(dir: &Path) -> Result<(), StateError> {
        let _lock = lock_directory(dir)?;
        // Of a state that cannot be read the id cannot be kept either: its last decision will tell it.
        let past = log::past(&dir.join(LOG_FILE)).unwrap_or_default();
        lineage::add(dir, &past).map_err(|e| unusable(dir, e.to_string()))?;
        // The log goes first: without it nothing of the other file is ever believed.
        for name in replace::STATE_FILES {
            match std::fs::remove_file(dir.join(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(unusable(dir, format!("cannot delete {name}: {e}")));
                }
                _ => {}
            }
        }
        // What sinks staged belongs to checkpoints that are no more.
        let staged = dir.join("sinks");
        match std::fs::remove_dir_all(&staged) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(unusable(
                dir,
                format!("cannot delete {}: {e}", staged.display()),
            )),
            _ => replace::clear_mark(dir).map_err(|e| unusable(dir, e.to_string())),
        }
    }

    /// Random, made with the state: tells a state from another of the same pipeline.
    pub fn state_id(&self) -> [u8; 16] {
        self.identity.state_id
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The states whose decisions this one takes for its own past.
    pub fn supersedes(&self) -> &[[u8; 16]] {
        &self.supersedes
    }

    /// The state made next in `dir`, which has none, takes the place of the state `id`, durably.
    pub fn supersede(dir: &Path, id: [u8; 16]) -> Result<(), StateError> {
        let _lock = lock_directory(dir)?;
        if Self::exists(dir) {
            return Err(unusable(dir, "holds a state: reset it first".into()));
        }
        lineage::add(dir, &[id]).map_err(|e| unusable(dir, e.to_string()))
    }

    /// How often this state was opened, this time included. Grows durably at each open.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub fn key_groups(&self) -> u16 {
        self.identity.key_groups
    }

    /// The last decided checkpoint; `None` before checkpoint 0.
    pub fn latest(&self) -> Option<Restored> {
        lock(&self.known).latest.clone()
    }

    /// The checkpoint after [`latest`](Self::latest) that was prepared and whose transaction may have been committed or
    /// not. Until [`resolve`](Self::resolve) says which, nothing can follow.
    pub fn undecided(&self) -> Option<Restored> {
        lock(&self.known).undecided.clone()
    }

    /// The number of a step, the same for the life of the state; a name not seen before gets a new one, durably.
    pub fn step_id(&self, name: &str) -> Result<u16, StateError> {
        self.number(STEP, name)
    }

    /// The number of a source, the same for the life of the state; a name not seen before gets a new one, durably.
    pub fn input_id(&self, name: &str) -> Result<u16, StateError> {
        self.number(INPUT, name)
    }

    /// Names of the steps that this state has numbers for.
    pub fn steps(&self) -> Vec<String> {
        let names = lock(&self.names);
        let steps = names.by_name.keys().filter_map(|n| n.strip_prefix(STEP));
        steps.map(String::from).collect()
    }

    /// Forgets a step with all its keys and segments, durably. The same name gets a new number. False: there is no such step.
    pub fn drop_step(&self, name: &str) -> Result<bool, StateError> {
        let mut names = lock(&self.names);
        let name = format!("{STEP}{name}");
        let Some(&number) = names.by_name.get(&name) else {
            return Ok(false);
        };
        self.fault(self.files.log.drop_name(&name, number))?;
        names.by_name.remove(&name);
        names.dropped.push(number);
        Ok(true)
    }

    /// Gives every key of a step to `each`: key group, key, value; groups and keys ascend. The first `Err` of `each` ends it.
    pub fn load(&self, step: u16, each: &mut EachKey<'_>) -> Result<(), StateError> {
        self.load_groups(step, 0..self.identity.key_groups, each)
    }

    /// [`load`](Self::load) of the key groups `groups` alone. Several threads may load at once.
    pub fn load_groups(
        &self,
        step: u16,
        groups: Range<u16>,
        each: &mut EachKey<'_>,
    ) -> Result<(), StateError> {
        self.fault(load(&self.files, step, groups, each))
    }

    /// The names of a step's segments that were put and not dropped, ascending.
    pub fn segment_ids(&self, step: u16) -> Result<Vec<SegmentId>, StateError> {
        let snapshot = self.fault(self.files.snapshot())?;
        self.fault(segments::ids(&snapshot, step))
    }

    /// The bytes of segments of decided checkpoints, in the order of `ids`; `None` if one is not there. Several threads
    /// may read at once.
    pub fn segment_bytes(
        &self,
        step: u16,
        ids: &[SegmentId],
    ) -> Result<Option<Vec<Vec<u8>>>, StateError> {
        let snapshot = self.fault(self.files.snapshot())?;
        self.fault(segments::bytes(&snapshot, step, ids))
    }

    /// Moves everything decided from the log into `state.redb` now instead of when it is worthwhile.
    pub fn merge(&self) -> Result<(), StateError> {
        self.fault(self.files.merge(&|| false))
    }

    /// True while what changes is not merged as fast as it comes: then nothing more should be read for a while.
    pub fn behind(&self) -> Arc<AtomicBool> {
        self.files.behind()
    }

    /// Bytes of both files.
    pub fn size_bytes(&self) -> u64 {
        let len = |name| std::fs::metadata(self.dir.join(name)).map_or(0, |m| m.len());
        len(LOG_FILE) + len(MERGED_FILE)
    }

    fn number(&self, prefix: &str, name: &str) -> Result<u16, StateError> {
        let mut names = lock(&self.names);
        let name = format!("{prefix}{name}");
        if let Some(&number) = names.by_name.get(&name) {
            return Ok(number);
        }
        let used = names.by_name.values().chain(&names.dropped);
        let number = 1 + used.max().copied().unwrap_or(0);
        if number == u16::MAX {
            return self.fault(Err(Fault("all numbers of steps are used; reset it".into())));
        }
        self.fault(self.files.log.add_name(&name, number))?;
        names.by_name.insert(name, number);
        Ok(number)
    }

    fn check_whole(&self) -> Result<(), StateError> {
        if let Some(Fault(cause)) = self.merger.failure() {
            let cause =
                format!("merging failed: {cause}; restart to go on from the last checkpoint");
            return self.fault(Err(Fault(cause)));
        }
        if *lock(&self.broken) {
            let cause = "an earlier checkpoint failed; restart to go on from the last one";
            return self.fault(Err(Fault(cause.into())));
        }
        Ok(())
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// A failure of the files, with the directory that they are in.
    pub(super) fn told<T>(&self, result: Result<T, Fault>) -> Result<T, StateError> {
        self.fault(result)
    }

    fn fault<T>(&self, result: Result<T, Fault>) -> Result<T, StateError> {
        result.map_err(|fault| store_error(&self.dir, self.files.explain(fault)))
    }
}

pub(super) fn store_error(dir: &Path, Fault(cause): Fault) -> StateError {
    StateError::Store {
        dir: dir.into(),
        cause,
    }
}

pub(super) fn unusable(dir: &Path, cause: String) -> StateError {
    StateError::Unusable {
        dir: dir.into(),
        cause,
    }
}

/// Makes the directory if need be and keeps other processes out as long as the file returned is open.
pub(super) fn lock_directory(dir: &Path) -> Result<File, StateError> {
    let cannot = |e: std::io::Error| {
        unusable(
            dir,
            format!(
                "cannot be written ({e}); it must be a directory that this user may write, see [host] state"
            ),
        )
    };
    make_directory(dir).map_err(cannot)?;
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(dir.join(LOCK_FILE)).map_err(cannot)?;
    // A host that was just killed, or a child between its fork and exec, lets go of the lock a moment later.
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_WAIT / 100);
            }
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse { dir: dir.into() }),
            Err(TryLockError::Error(e)) => {
                return Err(unusable(dir, format!("cannot be locked: {e}")));
            }
        }
    }
}

/// Opens both files, or makes them, and checks that they belong together and to who asks.
pub(super) fn open_files(
    dir: &Path,
    asked: &Identity,
    open_file: &OpenFile,
) -> Result<(Files, Identity), StateError> {
    let fault = |fault| store_error(dir, fault);
    let [log_path, merged_path] = [LOG_FILE, MERGED_FILE].map(|name| dir.join(name));
    if merged_path.exists() && !log_path.exists() {
        let cause = "log.redb is missing beside state.redb; restore it, or run `tidemill reset` to begin anew";
        return Err(unusable(dir, cause.into()));
    }
    let past = lineage::read(dir).map_err(|e| unusable(dir, e.to_string()))?;
    let log = Log::open(&log_path, open_file, asked, &past).map_err(fault)?;
    let read = log.read().map_err(fault)?;
    let identity = log::read_identity(&read).map_err(fault)?;
    check_identity(dir, &identity, asked)?;
    let trimmed_below = log::trimmed_below(&read).map_err(fault)?;
    if trimmed_below > 0 && !merged_path.exists() {
        let cause = "state.redb is missing beside log.redb; restore it, or run `tidemill reset` to begin anew";
        return Err(unusable(dir, cause.into()));
    }
    let merged = Merged::open(&merged_path, open_file, &identity).map_err(fault)?;
    let merged_read = merged.read().map_err(fault)?;
    let same_state = log::read_identity(&merged_read).map_err(fault)? == identity;
    let merged_below = merged::merged_below(&merged_read).map_err(fault)?;
    let decided_below = log::latest(&read)
        .map_err(fault)?
        .map_or(0, |(decided, _)| decided.number() + 1);
    if !same_state || merged_below < trimmed_below || merged_below > decided_below {
        let cause = "log.redb and state.redb do not belong together (one of them was restored alone?); restore both, or run `tidemill reset` to begin anew";
        return Err(unusable(dir, cause.into()));
    }
    drop((read, merged_read));
    Ok((Files::new(log, merged, merged_below), identity))
}

fn check_identity(dir: &Path, found: &Identity, asked: &Identity) -> Result<(), StateError> {
    if found.format != asked.format {
        return Err(StateError::Format {
            dir: dir.into(),
            found: found.format,
            expected: asked.format,
        });
    }
    if found.pipeline != asked.pipeline {
        return Err(unusable(
            dir,
            format!(
                "holds the state of pipeline `{}`, not of `{}`; give this pipeline another [host] state",
                found.pipeline, asked.pipeline
            ),
        ));
    }
    if found.key_groups != asked.key_groups {
        return Err(unusable(
            dir,
            format!(
                "was made with key_groups = {}, which is fixed for its life; asked for were {}. Set it back, or give the state up with `tidemill reset`",
                found.key_groups, asked.key_groups
            ),
        ));
    }
    Ok(())
}

/// The merged state with the log's newer changes on top, in key order.
fn load(files: &Files, step: u16, groups: Range<u16>, each: &mut EachKey<'_>) -> Result<(), Fault> {
    let mut give = |key: &[u8], value: Option<&[u8]>| -> Result<(), Fault> {
        let (group, key) =
            (key.split_first_chunk()).ok_or(Fault("a stored key is too short".into()))?;
        let group = u16::from_be_bytes(*group);
        match value {
            Some(value) if groups.contains(&group) => each(group, key, value).map_err(|cause| {
                Fault(format!(
                    "key {key:02x?} of step number {step} cannot be loaded: {cause}"
                ))
            }),
            _ => Ok(()),
        }
    };
    let snapshot = files.snapshot()?;
    let mut newest = Newest::open(&snapshot.log, &snapshot.numbers, step)?;
    let mut more = newest.advance()?;
    for row in merged::range(&snapshot.merged, step, groups.clone())? {
        let (key, value) = row?;
        let key = &key.value()[2..];
        while more && newest.key() < key {
            give(newest.key(), newest.value())?;
            more = newest.advance()?;
        }
        if more && newest.key() == key {
            give(key, newest.value())?;
            more = newest.advance()?;
        } else {
            give(key, Some(value.value()))?;
        }
    }
    while more {
        give(newest.key(), newest.value())?;
        more = newest.advance()?;
    }
    Ok(())
}
