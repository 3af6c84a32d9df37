//! A directory that a sink fills with files: whose it is, where files are made, and how a finished one appears in it.
//!
//! Readers take whatever is in the directory, and not all of them leave hidden files out. So files are made elsewhere, in
//! the state directory, and renamed when they are finished; where no rename leads from there (another file system or
//! mount), in a hidden directory within.
//! Nothing here is remembered by its full path: a deployment may be moved as a whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Place;
use super::durable::{create_directory, remove_directory, remove_file, sync_entry};
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

/// Where the files of a directory are made.
#[derive(Debug)]
pub struct Workshop {
    /// The directory that is filled.
    dir: PathBuf,
    /// In the state directory.
    apart: PathBuf,
    /// Within the directory that is filled.
    within: PathBuf,
    chosen: OnceLock<PathBuf>,
}

impl Workshop {
    /// The workshop of `dir`. Makes nothing yet.
    pub fn new(dir: &Path, place: &Place) -> Self {
        Self {
            dir: dir.to_owned(),
            apart: place.dir.join("unfinished"),
            within: dir.join(format!(".{}", place.label)),
            chosen: OnceLock::new(),
        }
    }

    /// Where new files are made: a directory from which they can be renamed.
    pub fn path(&self) -> Result<&Path, ConnectorError> {
        if let Some(chosen) = self.chosen.get() {
            return Ok(chosen);
        }
        create_directory(&self.dir)?;
        create_directory(&self.apart)?;
        let apart = self.leads_to_directory()?;
        let chosen = if apart { &self.apart } else { &self.within };
        create_directory(chosen)?;
        Ok(self.chosen.get_or_init(|| chosen.clone()))
    }

    /// Tries it: that two directories are of one device does not tell.
    fn leads_to_directory(&self) -> Result<bool, ConnectorError> {
        let from = self.apart.join("probe");
        let to = self.within.with_extension("probe");
        File::create(&from).map_err(|cause| ConnectorError::io(&from, cause))?;
        let renamed = fs::rename(&from, &to).is_ok();
        remove_file(if renamed { &to } else { &from })?;
        Ok(renamed)
    }

    /// Where the unfinished file of this name is, or would be expected.
    pub fn locate(&self, name: &str) -> PathBuf {
        let within = self.within.join(name);
        match within.exists() {
            true => within,
            false => self.apart.join(name),
        }
    }

    /// Takes the place within the directory away if it is empty: readers may see it. No file may be begun meanwhile.
    pub fn tidy(&self) {
        // Not empty, or not there: both will do.
        let _ = fs::remove_dir(&self.within);
    }

    /// Removes everything in it but the file `keep`.
    pub fn clear(&self, keep: Option<&Path>) -> Result<(), ConnectorError> {
        for dir in [&self.apart, &self.within] {
            for name in entries(dir)? {
                let path = dir.join(name);
                if path.is_dir() {
                    remove_directory(&path)?;
                } else if Some(path.as_path()) != keep {
                    remove_file(&path)?;
                }
            }
        }
        self.tidy();
        Ok(())
    }
}

/// Names in `dir`; none if there is no such directory. Names that are not UTF-8 are shown as far as they are.
fn entries(dir: &Path) -> Result<Vec<String>, ConnectorError> {
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

/// Gives a finished and synced file its visible name, durably. Where no rename leads there (a restore puts what is
/// unfinished into the state directory), a copy beside gets the name.
pub fn publish(hidden: &Path, visible: &Path) -> Result<(), ConnectorError> {
    let renamed = match fs::rename(hidden, visible) {
        Err(cause) if cause.kind() == io::ErrorKind::CrossesDevices => copy(hidden, visible),
        renamed => renamed,
    };
    renamed.map_err(|cause| ConnectorError::io(visible, cause))?;
    sync_entry(visible)
}

/// A crash leaves the one or the other, or both: then the next start does it again.
fn copy(hidden: &Path, visible: &Path) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(visible.file_name().unwrap_or_default());
    name.push(".tmp");
    let beside = visible.with_file_name(name);
    fs::copy(hidden, &beside)?;
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, visible)?;
    fs::remove_file(hidden)
}

/// The name of file number `sequence` of the sink `label`, as readers see it.
pub fn file_name(label: &str, sequence: u64, extension: &str) -> String {
    format!("{label}-{sequence:06}.{extension}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_no_rename_leads_from_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (hidden, visible) = (dir.path().join("a.open"), dir.path().join("a.jsonl"));
        // Also over what a crash between copy and removal has left.
        for _ in 0..2 {
            fs::write(&hidden, "rows").unwrap();
            copy(&hidden, &visible).unwrap();
            assert_eq!(entries(dir.path()).unwrap(), ["a.jsonl"]);
            assert_eq!(fs::read_to_string(&visible).unwrap(), "rows");
        }
    }
}
