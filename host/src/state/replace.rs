//! A copied state takes the place of another: a new identity for the copy, and a mark for as long as a directory is
//! between two states.
//!
//! Invariant: a directory with the mark is not opened by anybody but who goes on with the replacement.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::file::{Fault, RedbFile, plain};
use super::log::{self, CHECKPOINTS, IN_TRANSACTION};
use super::merged::Merged;
use super::store::{LOG_FILE, MERGED_FILE, lock_directory, store_error, unusable};
use super::{FORMAT, Meta, Restored, lineage};
use crate::error::StateError;
use crate::limits::LOG_CACHE_BYTES;

const MARK: &str = "replacing";

/// The files of a state, the one first without which the others are not believed.
pub const STATE_FILES: [&str; 4] = [LOG_FILE, MERGED_FILE, "log.new", "state.new"];

pub type StateId = [u8; 16];

/// How far a replacement is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What is put into the directory, for people.
    pub from: String,
    /// Where within the directory the state before goes, if there is one.
    pub aside: String,
    /// It has gone there: what is in the directory belongs to the new state.
    pub cleared: bool,
}

/// A copied state that nobody else knows of yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub format: u32,
    pub state_id: StateId,
    pub pipeline: String,
    pub key_groups: u16,
    /// States whose decisions it takes for its own past.
    pub supersedes: Vec<StateId>,
    pub latest: Option<Restored>,
}

/// Keeps other processes out of `dir`, made if need be, for as long as the file lives.
pub fn lock(dir: &Path) -> Result<File, StateError> {
    lock_directory(dir)
}

/// The mark in `dir`, if it is between two states.
pub fn mark(dir: &Path) -> Result<Option<Mark>, StateError> {
    let path = dir.join(MARK);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| unusable(dir, format!("cannot read {MARK}: {e}")))?,
    };
    // Whatever it says, it stands there: somebody did not come to the end.
    let mark = serde_json::from_str(&text).map_err(|e| {
        unusable(dir, format!("the file {MARK} in it cannot be read ({e}); run `tidemill reset` to give up what is there"))
    })?;
    Ok(Some(mark))
}

/// Sets the mark, durably.
pub fn set_mark(dir: &Path, mark: &Mark) -> io::Result<()> {
    let beside = dir.join("replacing.new");
    let mut options = File::options();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(&beside)?;
    serde_json::to_writer(&mut file, mark)?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(MARK))?;
    File::open(dir)?.sync_all()
}

/// Takes the mark away, durably.
pub fn clear_mark(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(MARK)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => File::open(dir)?.sync_all(),
    }
}

/// An error if `dir` is between two states.
pub(super) fn refuse_unfinished(dir: &Path) -> Result<(), StateError> {
    let Some(mark) = mark(dir)? else {
        return Ok(());
    };
    let aside = dir.join(&mark.aside);
    let before = match aside.exists() {
        true => format!("; the state before is in {}", aside.display()),
        false => String::new(),
    };
    Err(unusable(
        dir,
        format!(
            "a restore from {} was not finished: run it again (`tidemill restore`), or give up what is there with `tidemill \
             reset`{before}",
            mark.from
        ),
    ))
}

/// What the files of a state in `dir` say; nothing is changed.
pub fn look(dir: &Path) -> Result<Found, StateError> {
    let read = || -> Result<Found, Fault> {
        let file = open(&dir.join(LOG_FILE))?;
        let tx = file.read()?;
        let identity = log::read_identity(&tx)?;
        let known = identity.format == FORMAT;
        let latest = if known { log::latest(&tx)? } else { None };
        Ok(Found {
            format: identity.format,
            state_id: identity.state_id,
            pipeline: identity.pipeline,
            key_groups: identity.key_groups,
            supersedes: log::supersedes(&tx)?,
            latest: latest.map(|(_, restored)| restored),
        })
    };
    read().map_err(|fault| store_error(dir, fault))
}

/// The ids that a reset has left in `dir` for the next state there.
pub fn left_by_reset(dir: &Path) -> Result<Vec<StateId>, StateError> {
    lineage::read(dir).map_err(|e| unusable(dir, e.to_string()))
}

/// Makes the copied state in `dir` a state of its own: with the id `id`, which takes the place of `supersedes`, and with
/// `meta` as what its last checkpoint says.
pub fn rename(
    dir: &Path,
    id: StateId,
    supersedes: &[StateId],
    meta: &Meta,
) -> Result<(), StateError> {
    let write = || -> Result<(), Fault> {
        let file = open(&dir.join(LOG_FILE))?;
        file.write(|tx| {
            log::put_meta(tx, "state_id", &id)?;
            log::put_meta(tx, "supersedes", supersedes.as_flattened())?;
            let mut checkpoints = tx.open_table(CHECKPOINTS)?;
            let (number, flags) = match checkpoints.last()? {
                Some((number, record)) => (number.value(), record.value().first().copied()),
                None => return Err(Fault("there is no checkpoint".into())),
            };
            // Whatever decided it decided it for another state: for this one it is simply true.
            let mut record = vec![flags.unwrap_or_default() & !IN_TRANSACTION];
            serde_json::to_writer(&mut record, meta).map_err(|e| Fault(e.to_string()))?;
            checkpoints.insert(number, record.as_slice())?;
            Ok(())
        })?;
        Merged::rename(&dir.join(MERGED_FILE), &id)
    };
    write().map_err(|fault| store_error(dir, fault))
}

fn open(path: &Path) -> Result<RedbFile, Fault> {
    let never = |_: &_| Err(Fault("there is no state".into()));
    RedbFile::open(path, LOG_CACHE_BYTES, &plain, never)
}
