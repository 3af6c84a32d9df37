//! A redb file, made, opened and written in the one way this project does.
//!
//! Knows no tables. Invariants: a file under its final name is complete (it is made beside and renamed); every
//! transaction is Immediate, two-phase and with quick repair, so that a commit that returned survives a power cut and
//! opening after a crash takes milliseconds.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, StorageBackend, WriteTransaction,
};

use super::checked::{Checked, Failed};

/// Why a file could not be read or written, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub String);

macro_rules! fault_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })*
    };
}
fault_from!(
    DatabaseError,
    io::Error,
    redb::CommitError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

/// What a database reads and writes a file through: [`plain`], or a test's faulty twin of it.
pub(super) type OpenFile =
    dyn Fn(File) -> Result<Box<dyn StorageBackend>, DatabaseError> + Send + Sync;

pub(super) fn plain(file: File) -> Result<Box<dyn StorageBackend>, DatabaseError> {
    Ok(Box::new(FileBackend::new(file)?))
}

#[derive(Debug)]
pub(super) struct RedbFile {
    db: Database,
    failed: Failed,
}

impl RedbFile {
    /// Opens `path`. If there is no such file, makes it with what `first` writes, all of it or nothing.
    pub fn open(
        path: &Path,
        cache_bytes: usize,
        open_file: &OpenFile,
        first: impl FnOnce(&WriteTransaction) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        if !path.try_exists()? {
            let beside = path.with_extension("new");
            let file = options().truncate(true).create(true).open(&beside)?;
            let made = Self::on(&builder, open_file(file)?)?;
            made.write(first)?;
            drop(made);
            fs::rename(&beside, path)?;
            sync_directory(path)?;
        }
        Self::on(&builder, open_file(options().open(path)?)?)
    }

    fn on(builder: &Builder, file: Box<dyn StorageBackend>) -> Result<Self, Fault> {
        let failed = Failed::default();
        let db = builder.create_with_backend(Checked::open(file, failed.clone())?)?;
        Ok(Self { db, failed })
    }

    /// What failed first in the file, if anything has: later failures do not tell.
    pub fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Runs `body` in one transaction. If this returns `Ok`, what it wrote is durable; if `Err`, all of it or nothing is
    /// there after the next open.
    pub fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut tx = self.db.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        tx.set_two_phase_commit(true);
        tx.set_quick_repair(true);
        let result = body(&tx)?;
        tx.commit()?;
        Ok(result)
    }

    pub fn read(&self) -> Result<ReadTransaction, Fault> {
        use redb::ReadableDatabase;
        Ok(self.db.begin_read()?)
    }
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes `dir` and those above it (mode 0700), each durable in the one above it.
pub fn make_directory(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_directory(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        // Another process may have been faster; a file in the way has this kind, too.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
        _ => sync_directory(dir),
    }
}

/// A rename is durable once its directory is.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
