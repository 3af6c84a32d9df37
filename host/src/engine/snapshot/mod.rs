//! Copies of a pipeline's state that outlive it: taken while it runs or stands still, put back in place of a state.
//!
//! A snapshot is a directory: `snapshot.json` ([`manifest`]) and, in `state/`, the files of a state directory as far as
//! the checkpoint needs them. Output that readers see is no part of it.

pub mod job;
pub mod manifest;
pub mod restore;
pub mod take;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub use job::{Job, SnapshotState};
pub use manifest::Manifest;
pub use take::{Progress, Source, Taken};

/// In the directory of a snapshot until it is whole.
pub const UNFINISHED: &str = "snapshot.unfinished";

/// Files below `dir`, relative to it, ascending.
fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    walk(dir, &mut |path, is_dir| {
        if !is_dir && let Ok(path) = path.strip_prefix(dir) {
            all.push(path.to_owned());
        }
        Ok(())
    })?;
    all.sort();
    Ok(all)
}

/// Makes the entries of `dir` and of all directories below durable.
fn sync_directories(dir: &Path) -> io::Result<()> {
    walk(dir, &mut |path, is_dir| match is_dir {
        true => File::open(path)?.sync_all(),
        false => Ok(()),
    })?;
    File::open(dir)?.sync_all()
}

fn walk(dir: &Path, each: &mut dyn FnMut(&Path, bool) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        if is_dir {
            walk(&entry.path(), each)?;
        }
        each(&entry.path(), is_dir)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
