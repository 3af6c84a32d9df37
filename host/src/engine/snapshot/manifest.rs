//! What a snapshot says of itself: whose it is, of which checkpoint, and the checksum of every file.
//!
//! Invariant: a directory with a manifest holds a whole snapshot, for it is written last.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::RunError;
use crate::limits::MANIFEST_BYTES_MAX;

/// Version of this file and of how the others lie beside it. Another one is refused.
pub const FORMAT: u32 = 1;
pub const FILE: &str = "snapshot.json";
/// The directory of the files, relative to the snapshot's. A snapshot is no state directory, so none is opened as one.
pub const FILES: &str = "state";

/// No sink's name.
pub const DEAD_LETTERS: &str = "dead letters";

/// A snapshot, as told by its file `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub pipeline: String,
    /// The state it was taken of, hex.
    pub state_id: String,
    pub state_format: u32,
    pub checkpoint: u64,
    /// When that checkpoint was decided, as far as it is known: RFC 3339.
    pub as_of: String,
    pub taken_at: String,
    /// Version of the program that took it.
    pub tidemill: String,
    pub keys: u64,
    pub segments: u64,
    pub files: Vec<Entry>,
    /// Of whom a file that grows lies in the state directory: sinks, [`DEAD_LETTERS`].
    pub inside: Vec<String>,
    /// SHA-256 of this document with an empty digest.
    pub digest: String,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to `state/`, with `/`.
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Writes it into the snapshot `dir`, durably: from then on that is one.
    pub fn write(mut self, dir: &Path) -> io::Result<Self> {
        self.digest = self.own_digest();
        let beside = dir.join("snapshot.json.new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(&self.text())?;
        file.sync_all()?;
        fs::rename(&beside, dir.join(FILE))?;
        File::open(dir)?.sync_all()?;
        Ok(self)
    }

    /// Reads that of the snapshot `dir`.
    ///
    /// # Errors
    /// `Refused` says what is wrong: none there, unfinished, changed, of another format.
    pub fn read(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join(FILE);
        let refused = |cause: String| RunError::Refused(format!("{}: {cause}", dir.display()));
        let changed = |cause: &dyn std::fmt::Display| {
            refused(format!(
                "{FILE} was changed or damaged: {cause}; take another snapshot"
            ))
        };
        let text = match fs::metadata(&path) {
            Ok(m) if m.len() > MANIFEST_BYTES_MAX => Err(changed(&"too long")),
            Ok(_) => fs::read(&path).map_err(|e| refused(format!("cannot read {FILE}: {e}"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(refused(absent(dir))),
            Err(e) => Err(refused(format!("cannot read {FILE}: {e}"))),
        }?;
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| changed(&e))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(refused(format!(
                    "a snapshot of format {format}, this version reads {FORMAT}: restore it with the version that took it"
                )));
            }
            None => return Err(changed(&"it has no format")),
        }
        let manifest: Self = serde_json::from_value(value).map_err(|e| changed(&e))?;
        if manifest.digest != manifest.own_digest() {
            return Err(changed(&"its digest is another"));
        }
        match manifest.files.iter().find(|file| !file.is_within()) {
            Some(file) => Err(changed(&format!(
                "it names a file outside, `{}`",
                file.path
            ))),
            None => Ok(manifest),
        }
    }

    fn own_digest(&self) -> String {
        let blank = Self {
            digest: String::new(),
            ..self.clone()
        };
        hex(&Sha256::digest(blank.text()))
    }

    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("plain data");
        text.push(b'\n');
        text
    }
}

impl Entry {
    fn is_within(&self) -> bool {
        let path = Path::new(&self.path);
        let normal = |c| matches!(c, Component::Normal(_));
        !self.path.is_empty() && path.components().all(normal)
    }
}

fn absent(dir: &Path) -> String {
    match dir.join(super::UNFINISHED).exists() {
        true => {
            "an unfinished snapshot: whoever wrote it ended before it was whole. Take another one"
                .into()
        }
        false if dir.is_dir() => format!("no snapshot: it has no {FILE}"),
        false => "no snapshot: there is no such directory".into(),
    }
}

/// Copies `from` to its end into `to`, and returns length and SHA-256. `each` is told how many bytes a piece has.
pub fn copy_hashed(
    from: &mut impl Read,
    to: &mut impl Write,
    each: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok((length, hex(&hash.finalize()))),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        hash.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        length += read as u64;
        each(read as u64)?;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            pipeline: "shop".into(),
            state_id: "00".repeat(16),
            state_format: 2,
            checkpoint: 7,
            as_of: "2026-01-01T00:00:00Z".into(),
            taken_at: "2026-01-01T00:00:01Z".into(),
            tidemill: "0.1.0".into(),
            keys: 3,
            segments: 0,
            files: vec![Entry {
                path: "sinks/out/0000000000.rows".into(),
                bytes: 8,
                sha256: "ab".into(),
            }],
            inside: vec![DEAD_LETTERS.into()],
            digest: String::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let written = manifest().write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), written);
        assert_eq!(written.bytes(), 8);
    }

    #[test]
    fn what_is_no_whole_manifest_is_refused() {
        let refused = |dir: &Path, part: &str| {
            let error = Manifest::read(dir).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        let dir = tempfile::tempdir().unwrap();
        refused(&dir.path().join("none"), "there is no such directory");
        refused(dir.path(), "it has no snapshot.json");
        fs::write(dir.path().join(super::super::UNFINISHED), "").unwrap();
        refused(dir.path(), "an unfinished snapshot");
        manifest().write(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        for (from, to, part) in [
            (
                "\"checkpoint\": 7",
                "\"checkpoint\": 8",
                "its digest is another",
            ),
            ("\"format\": 1", "\"format\": 9", "a snapshot of format 9"),
            ("\"format\": 1", "\"fermat\": 1", "it has no format"),
            ("{", "[", "changed or damaged"),
        ] {
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            refused(dir.path(), part);
        }
        for path in ["../log.redb", "/etc/passwd", ""] {
            let mut outside = manifest();
            outside.files[0].path = path.into();
            outside.write(dir.path()).unwrap();
            refused(dir.path(), "it names a file outside");
        }
    }
}
