//! A directory that a sink fills with files: whose it is, and how a finished file appears in it.
//!
//! A file that is not finished has a name that readers of a directory leave out: it begins with `.` and does not end like
//! a finished one. Names carry the label of the sink's state, so whatever begins with it is the sink's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use super::durable::{create_directory, sync_entry};
use crate::error::ConnectorError;
use crate::pipeline::plan::{Existing, Roll};
use crate::time::Micros;

/// Makes `dir` the sink's at its first start. One with files in it is refused unless `existing` says to append.
pub fn claim(dir: &Path, existing: Existing) -> Result<(), ConnectorError> {
    create_directory(dir)?;
    if existing != Existing::Refuse {
        return Ok(());
    }
    let found = entries(dir)?
        .into_iter()
        .find(|name| !name.starts_with('.'));
    match found {
        None => Ok(()),
        Some(name) => Err(ConnectorError::failed(
            dir.display().to_string(),
            format!(
                "not empty (it has `{name}`), and not written by this pipeline: empty it, name another directory, or set \
                 existing = \"append\""
            ),
        )),
    }
}

/// Names in `dir`; none if there is no such directory. Names that are not UTF-8 are shown as far as they are.
pub fn entries(dir: &Path) -> Result<Vec<String>, ConnectorError> {
    let io = |cause| ConnectorError::io(dir, cause);
    let found = match fs::read_dir(dir) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(io)?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        Ok(entry
            .map_err(io)?
            .file_name()
            .to_string_lossy()
            .into_owned())
    };
    found.map(name).collect()
}

/// Gives a finished and synced file its visible name, durably. Both are in directories of one file system.
pub fn publish(hidden: &Path, visible: &Path) -> Result<(), ConnectorError> {
    fs::rename(hidden, visible).map_err(|cause| ConnectorError::io(visible, cause))?;
    sync_entry(visible)
}

/// The name of the file number `sequence` of the sink `label`, as readers see it.
pub fn visible(dir: &Path, label: &str, sequence: u64, extension: &str) -> PathBuf {
    dir.join(format!("{label}-{sequence:06}.{extension}"))
}

/// When what is held back is due by the clock. Asked every epoch, hence without a lock.
#[derive(Debug)]
pub struct DueAt(AtomicI64);

impl Default for DueAt {
    fn default() -> Self {
        Self(AtomicI64::new(Micros::MAX))
    }
}

impl DueAt {
    /// Rows are held back since `since`; `None`: there are none.
    pub fn set(&self, since: Option<Micros>, roll: &Roll) {
        let at = since.map_or(Micros::MAX, |since| since.saturating_add(roll.every));
        self.0.store(at, Ordering::Relaxed);
    }

    pub fn now(&self) {
        self.0.store(Micros::MIN, Ordering::Relaxed);
    }

    pub fn is_past(&self, now: impl Fn() -> Micros) -> bool {
        let at = self.0.load(Ordering::Relaxed);
        at != Micros::MAX && now() >= at
    }
}
