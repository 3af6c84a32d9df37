//! A disk in memory that remembers what was written in which order, and shows what a power cut could have left of it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;

use redb::{DatabaseError, StorageBackend};

use super::*;

/// What a medium writes whole or not at all.
const SECTOR: usize = 512;

/// Contents by inode, which a file keeps when it is renamed.
pub type Contents = BTreeMap<u64, Vec<u8>>;

#[derive(Debug, Clone)]
pub enum Operation {
    Write { file: u64, at: usize, data: Vec<u8> },
    SetLen { file: u64, len: usize },
    Sync { file: u64 },
}

#[derive(Debug)]
pub struct Disk {
    contents: Mutex<Contents>,
    journal: Mutex<Vec<Operation>>,
}

impl Disk {
    pub fn new(contents: Contents) -> Arc<Self> {
        Arc::new(Self {
            contents: Mutex::new(contents),
            journal: Mutex::default(),
        })
    }

    pub fn contents(&self) -> Contents {
        lock(&self.contents).clone()
    }

    /// What was changed so far, in order.
    pub fn journal(&self) -> Vec<Operation> {
        lock(&self.journal).clone()
    }

    pub fn changes(&self) -> usize {
        lock(&self.journal).len()
    }

    /// The store in `dir` on this disk; the files in `dir` itself only have the names.
    pub fn open(self: &Arc<Self>, dir: &Path) -> Result<Store, StateError> {
        let disk = self.clone();
        let open_file = move |file: File| -> Result<Box<dyn StorageBackend>, DatabaseError> {
            let number = file.metadata().map_err(redb::StorageError::from)?.ino();
            lock(&disk.contents).entry(number).or_default();
            let disk = disk.clone();
            Ok(Box::new(OnDisk { disk, number }))
        };
        Store::open_with(dir, "test", KEY_GROUPS, NEVER, &open_file)
    }

    fn change(&self, operation: Operation) -> io::Result<()> {
        apply(&mut lock(&self.contents), &operation);
        lock(&self.journal).push(operation);
        Ok(())
    }
}

/// One file of a disk.
#[derive(Debug)]
struct OnDisk {
    disk: Arc<Disk>,
    number: u64,
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.disk.contents)[&self.number].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let contents = lock(&self.disk.contents);
        let from = offset as usize;
        let found = contents[&self.number].get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change(Operation::SetLen {
            file: self.number,
            len: len as usize,
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change(Operation::Sync { file: self.number })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.change(Operation::Write {
            file: self.number,
            at: offset as usize,
            data: data.to_vec(),
        })
    }
}

fn apply(contents: &mut Contents, operation: &Operation) {
    match operation {
        Operation::SetLen { file, len } => {
            contents.entry(*file).or_default().resize(*len, 0);
        }
        Operation::Write { file, at, data } => {
            write(contents.entry(*file).or_default(), *at, data);
        }
        Operation::Sync { .. } => {}
    }
}

/// What lies beyond the end is not written.
fn write(file: &mut [u8], at: usize, data: &[u8]) {
    if let Some(place) = file.get_mut(at..at + data.len()) {
        place.copy_from_slice(data);
    }
}

/// How a power cut treats what was not synced.
#[derive(Debug, Clone, Copy)]
pub enum Unsynced {
    Kept,
    Lost,
    /// Each sector, and each new length, by the toss of a coin.
    Torn,
}

/// What a power cut after `operations` leaves of a disk that had `base` before them.
pub fn after_power_cut(
    base: &Contents,
    operations: &[Operation],
    unsynced: Unsynced,
    rng: &mut StdRng,
) -> Contents {
    let mut contents = base.clone();
    let mut pending: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        match operation {
            Operation::Sync { file } => {
                for operation in pending.remove(file).unwrap_or_default() {
                    apply(&mut contents, operation);
                }
            }
            Operation::Write { file, .. } | Operation::SetLen { file, .. } => {
                pending.entry(*file).or_default().push(operation);
            }
        }
    }
    for operation in pending.into_values().flatten() {
        match (unsynced, operation) {
            (Unsynced::Lost, _) => {}
            (Unsynced::Torn, Operation::Write { file, at, data }) => {
                let file = contents.entry(*file).or_default();
                // Sectors of the file, not of the write.
                let (mut from, end) = (*at, at + data.len());
                while from < end {
                    let to = end.min((from / SECTOR + 1) * SECTOR);
                    if rng.random() {
                        write(file, from, &data[from - at..to - at]);
                    }
                    from = to;
                }
            }
            (Unsynced::Torn, _) if rng.random() => {}
            (Unsynced::Torn | Unsynced::Kept, operation) => apply(&mut contents, operation),
        }
    }
    contents
}
