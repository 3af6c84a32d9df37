//! A file that grows by whole lines and can be cut back to where a checkpoint ended: what file sinks and dead letters
//! are made of.
//!
//! Invariant: bytes up to the length of a synced cut never change; only bytes beyond the last checkpoint's cut are ever
//! taken away, and only from the very file (device and inode) that the cut names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::durable::{create_parents, sync_entry};
use crate::error::ConnectorError;
use crate::pipeline::plan::Existing;

/// Bytes collected before they are given to the operating system.
const BUFFER_BYTES: usize = 1 << 20;

/// A file of lines, shared by all workers.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    file: File,
    identity: Identity,
    tail: Mutex<Tail>,
}

/// Device and inode: the file itself, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    dev: u64,
    ino: u64,
}

/// The end of the file as the sink knows it.
#[derive(Debug)]
struct Tail {
    /// Bytes given to the operating system.
    written: u64,
    /// Lines that follow them.
    buffer: Vec<u8>,
}

/// What a checkpoint keeps of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cut {
    pub path: PathBuf,
    pub dev: u64,
    pub ino: u64,
    pub length: u64,
}

impl LineFile {
    /// Opens `path` for lines. At a first start (`resume` is `None`) `existing` says what becomes of a file that is not
    /// empty; afterwards `resume`, the last checkpoint's cut, must be of this file, which is cut back to it.
    pub fn open(
        path: &Path,
        existing: Existing,
        resume: Option<&Value>,
    ) -> Result<Self, ConnectorError> {
        match resume {
            Some(cut) => Self::reopen(path, cut),
            None => Self::start(path, existing),
        }
    }

    fn start(path: &Path, existing: Existing) -> Result<Self, ConnectorError> {
        let io = |cause| ConnectorError::io(path, cause);
        create_parents(path)?;
        let file = open_options().create(true).open(path).map_err(io)?;
        let length = regular_length(path, &file)?;
        if length > 0 && existing == Existing::Refuse {
            return Err(failed(
                path,
                "not empty, and not written by this pipeline: remove it, name another file, or set existing = \"append\" \
                 or \"overwrite\"",
            ));
        }
        let mut opened = Self::new(path, file, length)?;
        match existing {
            Existing::Refuse => {}
            Existing::Append => opened.end_last_line(length).map_err(io)?,
            Existing::Overwrite => {
                opened.file.set_len(0).map_err(io)?;
                opened
                    .tail
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner)
                    .written = 0;
            }
        }
        opened.file.sync_all().map_err(io)?;
        sync_entry(path)?;
        Ok(opened)
    }

    fn reopen(path: &Path, cut: &Value) -> Result<Self, ConnectorError> {
        const REMEDY: &str = "Put the file back, give the sink another name to begin a new file, or start over with `tidemill reset`";
        let cut: Cut = Cut::deserialize(cut).map_err(|cause| {
            failed(
                path,
                format!("the checkpoint's note on it is of another kind of sink: give the sink another name ({cause})"),
            )
        })?;
        let length = cut.length;
        let file = open_options().open(path).map_err(|cause| {
            if cause.kind() != io::ErrorKind::NotFound {
                return ConnectorError::io(path, cause);
            }
            let before = cut.path.display();
            failed(
                path,
                format!("missing, but {length} bytes of output are in it (as {before}) by the last checkpoint. {REMEDY}"),
            )
        })?;
        let found = regular_length(path, &file)?;
        let opened = Self::new(path, file, length)?;
        if opened.identity
            != (Identity {
                dev: cut.dev,
                ino: cut.ino,
            })
        {
            return Err(failed(
                path,
                format!(
                    "another file than the one this pipeline wrote {length} bytes to (same name, other inode). {REMEDY}"
                ),
            ));
        }
        if found < length {
            return Err(failed(
                path,
                format!(
                    "{found} bytes long, but {length} were written by the last checkpoint: it was cut. {REMEDY}"
                ),
            ));
        }
        if found > length {
            // Written after the checkpoint by a run that ended there: those rows come again.
            let io = |cause| ConnectorError::io(path, cause);
            opened.file.set_len(length).map_err(io)?;
            opened.file.sync_all().map_err(io)?;
        }
        Ok(opened)
    }

    fn new(path: &Path, file: File, written: u64) -> Result<Self, ConnectorError> {
        let metadata = file
            .metadata()
            .map_err(|cause| ConnectorError::io(path, cause))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            identity: Identity {
                dev: metadata.dev(),
                ino: metadata.ino(),
            },
            tail: Mutex::new(Tail {
                written,
                buffer: Vec::with_capacity(BUFFER_BYTES),
            }),
        })
    }

    /// A file that somebody else began may lack its last newline.
    fn end_last_line(&mut self, length: u64) -> io::Result<()> {
        let mut last = [b'\n'];
        if length > 0 {
            self.file.read_exact_at(&mut last, length - 1)?;
        }
        if last != *b"\n" {
            self.file.write_all_at(b"\n", length)?;
            self.tail
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .written += 1;
        }
        Ok(())
    }

    /// Writes `header`, a whole line, into an empty file; any other must begin with it.
    pub fn begin_with(&self, header: &[u8]) -> Result<(), ConnectorError> {
        if self.length() == 0 {
            return self.append(header);
        }
        let mut found = vec![0; header.len()];
        let read = self.file.read_exact_at(&mut found, 0);
        if read.is_ok() && found == header {
            return Ok(());
        }
        let columns = String::from_utf8_lossy(header);
        Err(failed(
            &self.path,
            format!(
                "its first line is not `{}`, so rows of these columns do not belong into it: name another file",
                columns.trim_end()
            ),
        ))
    }

    /// Bytes of the file, those not given to the operating system yet included.
    pub fn length(&self) -> u64 {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.written + tail.buffer.len() as u64
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines. Lines of one call stay together.
    pub fn append(&self, lines: &[u8]) -> Result<(), ConnectorError> {
        debug_assert!(lines.is_empty() || lines.ends_with(b"\n"));
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.buffer.len() + lines.len() > BUFFER_BYTES {
            self.flush(&mut tail)?;
        }
        tail.buffer.extend_from_slice(lines);
        Ok(())
    }

    /// Gives all lines to the operating system; returns what a checkpoint must keep to cut the file back to here.
    pub fn cut(&self) -> Result<Value, ConnectorError> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush(&mut tail)?;
        let cut = Cut {
            path: self.path.clone(),
            dev: self.identity.dev,
            ino: self.identity.ino,
            length: tail.written,
        };
        serde_json::to_value(cut).map_err(|cause| failed(&self.path, cause))
    }

    /// Returns when everything up to the last cut is on the disk.
    pub fn sync(&self) -> Result<(), ConnectorError> {
        self.file
            .sync_data()
            .map_err(|cause| ConnectorError::io(&self.path, cause))
    }

    /// A failed write leaves the buffer as it was, and the next try writes the same bytes to the same place.
    fn flush(&self, tail: &mut Tail) -> Result<(), ConnectorError> {
        self.file
            .write_all_at(&tail.buffer, tail.written)
            .map_err(|cause| ConnectorError::io(&self.path, cause))?;
        tail.written += tail.buffer.len() as u64;
        tail.buffer.clear();
        Ok(())
    }
}

fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

fn regular_length(path: &Path, file: &File) -> Result<u64, ConnectorError> {
    let metadata = file
        .metadata()
        .map_err(|cause| ConnectorError::io(path, cause))?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(failed(
        path,
        "not a regular file: what a crash leaves in it could not be cut off",
    ))
}

fn failed(path: &Path, cause: impl ToString) -> ConnectorError {
    ConnectorError::failed(path.display().to_string(), cause)
}

#[cfg(test)]
mod tests;
