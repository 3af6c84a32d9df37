//! A state directory that no host runs on, opened to be looked at.
//!
//! Nothing of the state is changed: no incarnation is counted, no checkpoint resolved, nothing merged. Other processes
//! are kept out meanwhile, as by a host.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::file::plain;
use super::log::{self, Identity};
use super::merge::Files;
use super::replace;
use super::store::{LOG_FILE, Store, lock_directory, open_files, store_error, unusable};
use super::view::View;
use super::{FORMAT, Fault};
use crate::error::StateError;

/// A stopped state.
pub struct Reader {
    dir: PathBuf,
    files: Files,
    // Let go after the files are closed.
    _lock: File,
}

impl Reader {
    /// Opens the state of `pipeline` in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(dir: &Path, pipeline: &str) -> Result<Option<Self>, StateError> {
        // Between two states there may be no log for a moment.
        replace::refuse_unfinished(dir)?;
        if !Store::exists(dir) {
            return Ok(None);
        }
        let lock = lock_directory(dir)?;
        replace::refuse_unfinished(dir)?;
        let found = log::identity_at(&dir.join(LOG_FILE)).map_err(|e| store_error(dir, e))?;
        // Whatever it was made with: only a run has to have as many key groups.
        let asked = Identity {
            format: FORMAT,
            pipeline: pipeline.to_owned(),
            ..found
        };
        let (files, _) = open_files(dir, &asked, &plain)?;
        Ok(Some(Self {
            dir: dir.to_owned(),
            files,
            _lock: lock,
        }))
    }

    /// The state at its last decided checkpoint; `None` before checkpoint 0.
    pub fn view(&self) -> Result<Option<View>, StateError> {
        View::of(&self.dir, &self.files)
    }

    /// The number of a checkpoint after the last decided one, which only a start can tell to be true or not.
    pub fn undecided(&self) -> Result<Option<u64>, StateError> {
        let number = || -> Result<Option<u64>, Fault> {
            let undecided = log::undecided(&self.files.log.read()?)?;
            Ok(undecided.map(|checkpoint| checkpoint.number))
        };
        number().map_err(|fault| store_error(&self.dir, fault))
    }

    /// When the state was last written, as far as the file system knows.
    pub fn written_at(&self) -> Result<std::time::SystemTime, StateError> {
        let metadata = std::fs::metadata(self.dir.join(LOG_FILE));
        let modified = metadata.and_then(|m| m.modified());
        modified.map_err(|e| unusable(&self.dir, e.to_string()))
    }
}
