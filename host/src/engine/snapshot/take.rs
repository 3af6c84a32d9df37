//! Writes a snapshot: a copy of the state at a decided checkpoint, with all that a start from it needs.
//!
//! The checkpoint is fixed first ([`Source`]), in milliseconds; then it is copied while the engine goes on. Invariant: the
//! directory is a snapshot from the moment its manifest is there, which is written last.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::UNFINISHED;
use super::manifest::{self, DEAD_LETTERS, Entry, FILES, Manifest, copy_hashed};
use crate::crash;
use crate::engine::meta::EngineMeta;
use crate::engine::open::read_meta;
use crate::error::RunError;
use crate::format::timestamp;
use crate::sink::carried::{self, Carried};
use crate::state::reader::Reader;
use crate::state::{FORMAT, View};
use crate::time::Micros;

/// A checkpoint held still: its state, and the files of sinks that belong to it.
pub struct Source {
    view: View,
    meta: EngineMeta,
    /// The state directory.
    state: PathBuf,
    carried: Vec<Carried>,
    inside: Vec<String>,
    /// When the checkpoint was decided.
    as_of: Micros,
    /// A checkpoint after it, of which only a start can tell whether it is true.
    undecided: Option<u64>,
    /// Of a stopped state: keeps others out. After the view, which reads its files.
    reader: Option<Reader>,
}

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    pub dir: PathBuf,
    pub pipeline: String,
    pub state_id: String,
    pub checkpoint: u64,
    pub as_of: String,
    pub keys: u64,
    pub segments: u64,
    pub files: u64,
    pub bytes: u64,
    /// A checkpoint that a stopped pipeline has prepared after this one; only a start can tell whether it is true, and it
    /// is not in the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<u64>,
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub keys: u64,
    /// At least as many as there are.
    pub keys_at_most: u64,
    /// Of keys and values, then of the files read to be hashed.
    pub bytes: u64,
    /// The state is written; its files are being hashed.
    pub hashing: bool,
}

/// Told how far a snapshot is; an `Err` ends it with that cause.
pub type Each<'a> = dyn FnMut(Progress) -> Result<(), String> + 'a;

impl Source {
    /// Holds the checkpoint of `view` still. `state` is the directory of that state; nobody may act on the checkpoint's
    /// decision meanwhile, or on the next one.
    pub fn hold(view: View, state: &Path, as_of: Micros) -> Result<Self, RunError> {
        let meta = read_meta(view.latest().meta.clone())?;
        let mut carried = Vec::new();
        let mut inside = Vec::new();
        let letters = (DEAD_LETTERS, &meta.dead_letters);
        for (name, cut) in (meta.sinks.iter().map(|(n, c)| (n.as_str(), c))).chain([letters]) {
            let files = carried::carried(state, name, cut).map_err(|e| {
                RunError::Refused(format!(
                    "what checkpoint {} needs is not there: {e}",
                    view.latest().number
                ))
            })?;
            if carried::is_one_file(cut) && !files.is_empty() {
                inside.push(name.to_owned());
            }
            carried.extend(files);
        }
        Ok(Self {
            view,
            meta,
            state: state.to_owned(),
            carried,
            inside,
            as_of,
            undecided: None,
            reader: None,
        })
    }

    /// Keeps `reader` open for as long as the checkpoint is held.
    pub fn keep(mut self, reader: Reader) -> Result<Self, RunError> {
        self.undecided = reader.undecided()?;
        self.reader = Some(reader);
        Ok(self)
    }

    /// Writes the snapshot into the directory `to`, which must not exist or be empty. What was written is removed again if
    /// that fails.
    pub fn write(self, to: &Path, each: &mut Each<'_>) -> Result<Taken, RunError> {
        self.refuse_within_state(to)?;
        let made = claim(to)?;
        crash::point("snapshot-begun");
        let written = self.write_files(to, each);
        if written.is_err() {
            // The error says what went wrong; an unfinished snapshot is none, so what cannot be removed does no harm.
            let _ = fs::remove_dir_all(to.join(FILES));
            let _ = fs::remove_file(to.join(UNFINISHED));
            if made {
                let _ = fs::remove_dir(to);
            }
        }
        written
    }

    fn refuse_within_state(&self, to: &Path) -> Result<(), RunError> {
        let state = self.state.canonicalize().unwrap_or(self.state.clone());
        let mut above = to.ancestors().filter_map(|dir| dir.canonicalize().ok());
        match above.next().is_some_and(|dir| dir.starts_with(&state)) {
            true => Err(RunError::Refused(format!(
                "{} lies in the state directory {}: it would be lost with it. Name a directory elsewhere",
                to.display(),
                self.state.display()
            ))),
            false => Ok(()),
        }
    }

    fn write_files(&self, to: &Path, each: &mut Each<'_>) -> Result<Taken, RunError> {
        let files = to.join(FILES);
        make_dir(&files).map_err(|e| failed(&files, &e))?;
        let mut progress = Progress {
            keys_at_most: self.view.keys_at_most()?,
            ..Progress::default()
        };
        each(progress).map_err(RunError::Refused)?;
        let mut tell = |copied: crate::state::Copied| {
            progress.keys = copied.keys;
            progress.bytes = copied.bytes;
            each(progress)
        };
        let copied = self.view.copy(&files, &mut tell)?;
        crash::point("snapshot-copied");
        for carried in &self.carried {
            copy_carried(carried, &files)?;
        }
        self.copy_plugins(&files)?;
        progress = Progress {
            hashing: true,
            bytes: 0,
            ..progress
        };
        let entries = hash_all(&files, &mut |bytes| {
            progress.bytes += bytes;
            each(progress)
        })?;
        super::sync_directories(&files).map_err(|e| failed(&files, &e))?;
        let manifest = Manifest {
            format: manifest::FORMAT,
            pipeline: self.view.pipeline().to_owned(),
            state_id: super::hex(&self.view.state_id()),
            state_format: FORMAT,
            checkpoint: self.view.latest().number,
            as_of: timestamp::show(self.as_of),
            taken_at: timestamp::show(micros(SystemTime::now())),
            tidemill: env!("CARGO_PKG_VERSION").into(),
            keys: copied.keys,
            segments: copied.segments,
            files: entries,
            inside: self.inside.clone(),
            digest: String::new(),
        };
        crash::point("snapshot-hashed");
        let manifest = manifest.write(to).map_err(|e| failed(to, &e))?;
        crash::point("snapshot-whole");
        finish(to).map_err(|e| failed(to, &e))?;
        Ok(Taken {
            dir: to.to_owned(),
            bytes: manifest.bytes(),
            files: manifest.files.len() as u64,
            pipeline: manifest.pipeline,
            state_id: manifest.state_id,
            checkpoint: manifest.checkpoint,
            as_of: manifest.as_of,
            keys: manifest.keys,
            segments: manifest.segments,
            undecided: self.undecided,
        })
    }

    /// The versions that the checkpoint names; those in force must be there.
    fn copy_plugins(&self, files: &Path) -> Result<(), RunError> {
        let plugins = self.meta.steps.values().filter_map(|s| s.plugin.as_ref());
        // With whether a start needs it.
        let mut wanted = BTreeMap::new();
        for plugin in plugins {
            let before = plugin.history.iter().map(|v| v.digest.as_str());
            for digest in before.chain([plugin.from_file.as_str()]) {
                wanted.entry(digest).or_insert(false);
            }
            wanted.insert(plugin.digest.as_str(), true);
        }
        for (digest, needed) in wanted.into_iter().filter(|(digest, _)| !digest.is_empty()) {
            let name = Path::new("plugins").join(format!("{digest}.wasm"));
            let from = self.state.join(&name);
            match fs::read(&from) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && !needed => {}
                Err(e) => return Err(failed(&from, &e)),
                Ok(bytes) => {
                    let length = bytes.len() as u64;
                    write_file(&files.join(&name), &mut bytes.as_slice(), length)?;
                }
            }
        }
        Ok(())
    }
}

/// Makes `to` ready to be written to; true if it was not there.
fn claim(to: &Path) -> Result<bool, RunError> {
    let made = match DirBuilder::new().mode(0o700).create(to) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && to.is_dir() => {
            let mut found = fs::read_dir(to).map_err(|e| failed(to, &e))?;
            if found.next().is_some() {
                return Err(RunError::Refused(taken_already(to)));
            }
            false
        }
        Err(e) => return Err(failed(to, &e)),
    };
    File::create(to.join(UNFINISHED)).map_err(|e| failed(to, &e))?;
    Ok(made)
}

fn taken_already(to: &Path) -> String {
    let what = if to.join(manifest::FILE).exists() {
        "holds a snapshot"
    } else if to.join(UNFINISHED).exists() {
        "holds an unfinished snapshot, which can be removed"
    } else {
        "is not empty"
    };
    format!(
        "{} {what}: name a directory that is empty or not there yet",
        to.display()
    )
}

fn copy_carried(carried: &Carried, files: &Path) -> Result<(), RunError> {
    let path = files.join(&carried.name);
    let mut from = (&carried.file).take(carried.length);
    write_file(&path, &mut from, carried.length)
}

/// Writes a file with all of `from`, which has `length` bytes, and the directories above it.
fn write_file(path: &Path, from: &mut dyn Read, length: u64) -> Result<(), RunError> {
    let mut write = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let written = io::copy(from, &mut file)?;
        if written != length {
            return Err(io::Error::other(format!(
                "{written} of {length} bytes were there"
            )));
        }
        file.sync_all()
    };
    write().map_err(|e| failed(path, &e))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Every file below `files`, by path.
fn hash_all(
    files: &Path,
    each: &mut dyn FnMut(u64) -> Result<(), String>,
) -> Result<Vec<Entry>, RunError> {
    let mut entries = Vec::new();
    for path in super::files_below(files).map_err(|e| failed(files, &e))? {
        let mut hash = || -> io::Result<(u64, String)> {
            let mut tell = |bytes| each(bytes).map_err(io::Error::other);
            copy_hashed(
                &mut File::open(files.join(&path))?,
                &mut io::sink(),
                &mut tell,
            )
        };
        let (bytes, sha256) = hash().map_err(|e| failed(&path, &e))?;
        entries.push(Entry {
            path: path.display().to_string(),
            bytes,
            sha256,
        });
    }
    Ok(entries)
}

/// The mark of an unfinished one goes, and the directory's own name is durable.
fn finish(to: &Path) -> io::Result<()> {
    fs::remove_file(to.join(UNFINISHED))?;
    File::open(to)?.sync_all()?;
    match to.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn failed(path: &Path, cause: &io::Error) -> RunError {
    RunError::Connector(crate::error::ConnectorError::failed(
        path.display().to_string(),
        cause,
    ))
}

/// `time` as microseconds since 1970.
pub fn micros(time: SystemTime) -> Micros {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}
