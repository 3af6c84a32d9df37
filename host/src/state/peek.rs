//! A look at the state of a pipeline that does not run: who it belongs to and where it stands. Changes nothing: it is not
//! opened as a start opens it, and counts no incarnation.

use std::fs::{File, TryLockError};
use std::path::Path;

use redb::WriteTransaction;

use super::file::{Fault, RedbFile};
use super::{FORMAT, Restored, lineage, log, overlay};
use crate::error::StateError;
use crate::limits::LOG_CACHE_BYTES;

/// What the log of a state says.
#[derive(Debug, Clone, PartialEq)]
pub struct Peeked {
    pub pipeline: String,
    pub state_id: [u8; 16],
    /// States whose decisions this one takes for its own past.
    pub supersedes: Vec<[u8; 16]>,
    pub key_groups: u16,
    /// The last decided checkpoint; `None` before checkpoint 0.
    pub latest: Option<Restored>,
    /// A checkpoint that was prepared after it and not decided.
    pub undecided: Option<Restored>,
}

/// Reads the state in `dir`; `None` if there is none.
///
/// # Errors
/// `InUse` while a host has it open; `Format` for another version; `Store` if it cannot be read.
pub fn peek(dir: &Path) -> Result<Option<Peeked>, StateError> {
    let path = dir.join(super::store::LOG_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let fault = |Fault(cause)| StateError::Store {
        dir: dir.into(),
        cause,
    };
    let _lock = shared_lock(dir).map_err(|e| match e {
        TryLockError::WouldBlock => StateError::InUse { dir: dir.into() },
        TryLockError::Error(e) => fault(e.into()),
    })?;
    let never = |_: &WriteTransaction| Err(Fault("it went away while it was looked at".into()));
    let file = RedbFile::open(&path, LOG_CACHE_BYTES, &overlay::open, never).map_err(fault)?;
    let read = file.read().map_err(fault)?;
    let identity = log::read_identity(&read).map_err(fault)?;
    if identity.format != FORMAT {
        return Err(StateError::Format {
            dir: dir.into(),
            found: identity.format,
            expected: FORMAT,
        });
    }
    let latest = log::latest(&read).map_err(fault)?;
    Ok(Some(Peeked {
        pipeline: identity.pipeline,
        state_id: identity.state_id,
        supersedes: log::supersedes(&read).map_err(fault)?,
        key_groups: identity.key_groups,
        latest: latest.map(|(_, restored)| restored),
        undecided: log::undecided(&read).map_err(fault)?,
    }))
}

/// The states whose decisions a state made anew in `dir` would take for its own past.
pub fn supersedes(dir: &Path) -> Result<Vec<[u8; 16]>, StateError> {
    lineage::read(dir).map_err(|cause| StateError::Unusable {
        dir: dir.into(),
        cause: cause.to_string(),
    })
}

/// Keeps hosts out while the state is looked at. They wait for longer than that takes.
fn shared_lock(dir: &Path) -> Result<Option<File>, TryLockError> {
    match File::open(dir.join(super::store::LOCK_FILE)) {
        Ok(file) => {
            file.try_lock_shared()?;
            Ok(Some(file))
        }
        // A state that was copied here: no host has ever had it.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TryLockError::Error(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Prepared, Store};

    fn checkpoint(number: u64) -> Prepared {
        Prepared {
            number,
            ..Prepared::default()
        }
    }

    #[test]
    fn a_state_is_looked_at_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(peek(dir.path()).unwrap(), None);
        let store = Store::open(dir.path(), "shop", 128).unwrap();
        store.commit(checkpoint(0)).unwrap();
        store.prepare(checkpoint(1)).unwrap();
        assert!(matches!(peek(dir.path()), Err(StateError::InUse { .. })));
        let id = store.state_id();
        drop(store);
        let log = || std::fs::read(dir.path().join("log.redb")).unwrap();
        let before = log();
        for _ in 0..2 {
            let found = peek(dir.path()).unwrap().unwrap();
            assert_eq!((found.pipeline.as_str(), found.key_groups), ("shop", 128));
            assert_eq!((found.state_id, found.supersedes), (id, Vec::new()));
            assert_eq!(found.latest.map(|r| r.number), Some(0));
            assert_eq!(found.undecided.map(|r| r.number), Some(1));
        }
        assert!(before == log(), "the log was written");
    }

    #[test]
    fn what_is_no_state_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log.redb"), "not a database").unwrap();
        assert!(matches!(peek(dir.path()), Err(StateError::Store { .. })));
    }
}
