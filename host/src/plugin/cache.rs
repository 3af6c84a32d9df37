//! Compiled plugins on disk, by digest: a restart does not compile again.
//!
//! Files are written and read by the host alone, in a directory of its own: compiled code is trusted code. A file carries
//! the digest of its content, so that one which a crash or a failing disk has damaged is compiled again, not run.
//! Nothing here fails a load: without the cache it only takes longer.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Component;

const MAGIC: &[u8; 8] = b"TIDECWM1";
const DIGEST_BYTES: usize = 32;

pub struct Cache {
    dir: PathBuf,
    /// Engine version, settings and processor: compiled code is of no use to another.
    engine: u64,
}

impl Cache {
    pub fn open(dir: PathBuf, engine: &Engine) -> std::io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            dir,
            engine: hasher.finish(),
        })
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir
            .join(format!("{digest}-{:016x}.cwasm", self.engine))
    }

    /// The compiled component and its size, if it is there and whole.
    pub fn get(&self, engine: &Engine, digest: &str) -> Option<(Component, usize)> {
        let path = self.path(digest);
        let file = match read_own(&path) {
            Ok(file) => file?,
            Err(cause) => {
                warn!(target: "plugin", "{}: {cause}; the plugin is compiled again", path.display());
                return None;
            }
        };
        let code = &file[MAGIC.len() + DIGEST_BYTES..];
        // SAFETY: the bytes are what `put` of this host wrote: they carry their own digest, come from a file that only
        // this user can write, and the name holds the engine's compatibility hash.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some((component, code.len())),
            Err(cause) => {
                warn!(target: "plugin", "{}: {cause}; the plugin is compiled again", path.display());
                None
            }
        }
    }

    /// Keeps compiled code; what other engines made of the same plugin goes.
    pub fn put(&self, digest: &str, code: &[u8]) {
        let path = self.path(digest);
        let written = self
            .write(&path, code)
            .and_then(|()| self.drop_others(digest, &path));
        if let Err(cause) = written {
            warn!(target: "plugin", "{}: {cause}; the plugin will be compiled again at the next start", path.display());
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        // A temporary file of this crate has mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(code)?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    }

    fn drop_others(&self, digest: &str, keep: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let is_of_plugin = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(digest) && name.ends_with(".cwasm"));
            if is_of_plugin && path != keep {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The file's content if nobody else could have written it; `None` if there is no file.
fn read_own(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause.to_string()),
    };
    let dir = path.parent().map(fs::metadata).transpose();
    let dir_owner = dir.map_err(|e| e.to_string())?.map(|d| d.uid());
    let is_own = meta.is_file()
        && meta.permissions().mode() & 0o022 == 0
        && dir_owner.is_none_or(|owner| owner == meta.uid());
    if !is_own {
        return Err("not a file that this user alone can write".into());
    }
    let file = fs::read(path).map_err(|e| e.to_string())?;
    let is_whole = file.len() > MAGIC.len() + DIGEST_BYTES
        && file.starts_with(MAGIC)
        && Sha256::digest(&file[MAGIC.len() + DIGEST_BYTES..])[..]
            == file[MAGIC.len()..MAGIC.len() + DIGEST_BYTES];
    if !is_whole {
        return Err("damaged".into());
    }
    Ok(Some(file))
}
