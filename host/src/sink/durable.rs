//! Names on the disk: directories made, and entries that survive a power cut.
//!
//! A file's bytes are synced by whoever holds it; this is about the directory that names it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::error::ConnectorError;

/// Creates the directories above `path`, each durable in the one above it.
pub fn create_parents(path: &Path) -> Result<(), ConnectorError> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => create_directory(parent),
        None => Ok(()),
    }
}

/// Creates `dir` and the directories above it, each durable in the one above it.
pub fn create_directory(dir: &Path) -> Result<(), ConnectorError> {
    if dir.is_dir() {
        return Ok(());
    }
    create_parents(dir)?;
    match fs::create_dir(dir) {
        // Another thread may have been faster; a file in the way has this kind, too.
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => {
            Err(ConnectorError::io(dir, cause))
        }
        _ => sync_entry(dir),
    }
}

/// Makes the entry of `path` in its directory durable.
pub fn sync_entry(path: &Path) -> Result<(), ConnectorError> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync_directory(parent)
}

/// Makes the entries of `dir` durable.
pub fn sync_directory(dir: &Path) -> Result<(), ConnectorError> {
    File::open(dir)
        .and_then(|directory| directory.sync_all())
        .map_err(|cause| ConnectorError::io(dir, cause))
}

/// Removes a file; one that is gone already will do.
pub fn remove_file(path: &Path) -> Result<(), ConnectorError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(ConnectorError::io(path, cause))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with all in it; one that is gone already will do.
pub fn remove_directory(dir: &Path) -> Result<(), ConnectorError> {
    match fs::remove_dir_all(dir) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(ConnectorError::io(dir, cause))
        }
        _ => Ok(()),
    }
}
