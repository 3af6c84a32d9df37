//! A look at the state of a pipeline that does not run: who it belongs to and where it stands. Changes nothing: it is not
//! opened as a start opens it, and counts no incarnation.

use std::fs::{File, TryLockError};
use std::path::Path;

use redb::{Builder, ReadableDatabase};

use super::FORMAT;
use super::file::Fault;
use super::log;
use crate::error::StateError;
use crate::limits::LOG_CACHE_BYTES;

/// What the log of a state says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    pub pipeline: String,
    pub state_id: [u8; 16],
    pub key_groups: u16,
    pub incarnation: u64,
    /// The last decided checkpoint; `None` before checkpoint 0.
    pub latest: Option<u64>,
    /// A checkpoint that was prepared and not decided.
    pub undecided: Option<u64>,
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
    let mut builder = Builder::new();
    builder.set_cache_size(LOG_CACHE_BYTES);
    let opened = builder.open_read_only(&path).map_err(|e| fault(e.into()))?;
    let read = opened.begin_read().map_err(|e| fault(e.into()))?;
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
        key_groups: identity.key_groups,
        incarnation: log::get_number(&read, "incarnation").map_err(fault)?,
        latest: latest.map(|(decided, _)| decided.number()),
        undecided: log::undecided(&read)
            .map_err(fault)?
            .map(|open| open.number),
    }))
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
    use crate::state::{Meta, Prepared, Store};

    #[test]
    fn a_state_is_looked_at_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(peek(dir.path()).unwrap(), None);
        let store = Store::open(dir.path(), "shop", 128).unwrap();
        store
            .commit(Prepared {
                number: 0,
                meta: Meta::default(),
                ..Prepared::default()
            })
            .unwrap();
        assert!(matches!(peek(dir.path()), Err(StateError::InUse { .. })));
        let id = store.state_id();
        drop(store);
        for _ in 0..2 {
            let found = peek(dir.path()).unwrap().unwrap();
            let expected = Peeked {
                pipeline: "shop".into(),
                state_id: id,
                key_groups: 128,
                incarnation: 1,
                latest: Some(0),
                undecided: None,
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_state_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log.redb"), "not a database").unwrap();
        assert!(matches!(peek(dir.path()), Err(StateError::Store { .. })));
    }
}
