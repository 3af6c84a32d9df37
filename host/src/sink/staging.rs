//! Rows staged durably until a sink can make them visible: append-only files of a directory of the sink's own.
//!
//! A place in the staged rows is a [`Mark`]: a generation (one file) and a length in it. A checkpoint keeps the mark of its
//! cut; when the directory is opened again with it, whatever lies beyond is cut off. What a sink has done with the rows
//! before a mark it remembers itself, and drops them file by file. A batch stands in one frame (`frame`) as an Arrow IPC
//! stream, so each carries its schema: rows staged before a pipeline was edited are still read as what they are.
//!
//! Invariant: bytes before a synced mark never change; a generation that is not the last one ends in an end frame, so a
//! file that lost its tail is not taken for a short one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use serde::{Deserialize, Serialize};

use super::durable::{create_directory, remove_directory, remove_file, sync_directory};
use crate::error::ConnectorError;
use crate::limits;

mod frame;
mod read;
#[cfg(test)]
mod tests;

pub use read::StagedRows;

/// What a file of staged rows begins with: name and version of the format.
const MAGIC: [u8; 8] = *b"tmstage1";
/// Where the first frame of a file stands.
const START: u64 = MAGIC.len() as u64;
const REMEDY: &str = "the state directory was changed from outside: put the file back from a copy, or start over with \
                      `tidemill reset`";

/// A place in the staged rows; later ones are greater. `Mark { generation, length: end of that file }` and the start of
/// the next generation have the same rows before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    pub generation: u64,
    pub length: u64,
}

impl Mark {
    /// The beginning of a generation.
    pub fn start_of(generation: u64) -> Self {
        Self {
            generation,
            length: START,
        }
    }
}

/// The staged rows of one sink, appended to by all workers.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    tail: Mutex<Tail>,
}

/// The end of the staged rows.
#[derive(Debug)]
struct Tail {
    generation: u64,
    file: Arc<File>,
    /// Bytes given to the operating system.
    written: u64,
    /// Batches that follow them, by input.
    waiting: Vec<(u16, RecordBatch)>,
    waiting_bytes: usize,
    waiting_memory: usize,
    /// Lengths of the earlier generations.
    complete: BTreeMap<u64, u64>,
    /// Complete generations with bytes that may not be on the disk yet.
    unsynced: Vec<(u64, Arc<File>)>,
    /// Files were made since the directory was synced.
    entries_unsynced: bool,
}

impl Staging {
    /// Opens `dir`, making it if need be. `resume` is the mark of the last decided checkpoint, beyond which everything is
    /// cut off; without one this is a first start, and what an earlier state left there is removed.
    pub fn open(dir: &Path, resume: Option<Mark>) -> Result<Self, ConnectorError> {
        let Some(mark) = resume else {
            remove_directory(dir)?;
            create_directory(dir)?;
            let file = create(dir, 0)?;
            return Ok(Self::new(dir, 0, file, START, BTreeMap::new()));
        };
        create_directory(dir)?;
        let mut complete = BTreeMap::new();
        for (generation, length) in generations(dir)? {
            if generation > mark.generation {
                remove_file(&path_of(dir, generation))?;
            } else if generation < mark.generation {
                complete.insert(generation, length);
            }
        }
        let file = reopen(dir, mark)?;
        Ok(Self::new(dir, mark.generation, file, mark.length, complete))
    }

    fn new(
        dir: &Path,
        generation: u64,
        file: File,
        written: u64,
        complete: BTreeMap<u64, u64>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            tail: Mutex::new(Tail {
                generation,
                file: Arc::new(file),
                written,
                waiting: Vec::new(),
                waiting_bytes: 0,
                waiting_memory: 0,
                complete,
                unsynced: Vec::new(),
                entries_unsynced: true,
            }),
        }
    }

    /// Stages `rows` of input `input`. Rows of one call stay together and those of one thread in their order.
    pub fn append(&self, input: usize, rows: &RecordBatch) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let input =
            u16::try_from(input).map_err(|_| failed(&self.dir, "more than 65,536 inputs"))?;
        let bytes = |column: &arrow::array::ArrayRef| {
            let size = column.to_data().get_slice_memory_size();
            size.unwrap_or_else(|_| column.get_array_memory_size())
        };
        let mut tail = self.lock();
        tail.waiting_bytes += rows.columns().iter().map(bytes).sum::<usize>();
        tail.waiting_memory += rows.get_array_memory_size();
        tail.waiting.push((input, rows.clone()));
        if tail.waiting_bytes >= limits::STAGED_BUFFER_BYTES
            || tail.waiting_memory >= limits::STAGED_BUFFER_MEMORY_BYTES
            || tail.waiting.len() >= limits::STAGED_BUFFER_BATCHES
        {
            self.flush(&mut tail)?;
        }
        Ok(())
    }

    /// The end of the rows so far, for a checkpoint to keep. Gives what waits to the operating system: quick. Begins a new
    /// generation by itself where the file has grown large.
    pub fn cut(&self) -> Result<Mark, ConnectorError> {
        let mut tail = self.lock();
        self.flush(&mut tail)?;
        if tail.written >= limits::STAGED_FILE_BYTES {
            return self.next_generation(&mut tail);
        }
        Ok(tail.mark())
    }

    /// Like [`cut`](Self::cut), and the rows that follow begin a new generation, unless this one is still empty: once those
    /// before the mark are dropped, their file is gone.
    pub fn turn(&self) -> Result<Mark, ConnectorError> {
        let mut tail = self.lock();
        self.flush(&mut tail)?;
        if tail.written == START {
            return Ok(tail.mark());
        }
        self.next_generation(&mut tail)
    }

    /// Returns when everything before `mark` (of an earlier [`cut`](Self::cut)) is on the disk. Workers may go on appending.
    pub fn sync(&self, mark: Mark) -> Result<(), ConnectorError> {
        let (files, entries) = {
            let mut tail = self.lock();
            let (mut files, later): (Vec<_>, Vec<_>) = std::mem::take(&mut tail.unsynced)
                .into_iter()
                .partition(|(generation, _)| *generation <= mark.generation);
            tail.unsynced = later;
            if tail.generation <= mark.generation {
                files.push((tail.generation, tail.file.clone()));
            }
            (files, std::mem::take(&mut tail.entries_unsynced))
        };
        for (generation, file) in files {
            let path = || path_of(&self.dir, generation);
            file.sync_data()
                .map_err(|cause| ConnectorError::io(path(), cause))?;
        }
        if entries {
            sync_directory(&self.dir)?;
        }
        Ok(())
    }

    /// The batches from `from` to `to`, both marks of earlier cuts, in the order in which they were appended, with their
    /// inputs. Batches of one input may have been put together. Workers may go on appending.
    pub fn read(&self, from: Mark, to: Mark) -> StagedRows {
        StagedRows::new(&self.dir, from, to)
    }

    /// Removes the files all of whose rows lie before `mark`, the oldest first: whoever finds the oldest gone knows that
    /// nobody needs the others. Not to be called before a decided checkpoint makes sure of that.
    pub fn drop_before(&self, mark: Mark) -> Result<(), ConnectorError> {
        let gone: Vec<u64> = {
            let mut tail = self.lock();
            let kept = tail.complete.split_off(&mark.generation);
            tail.unsynced.retain(|(g, _)| *g >= mark.generation);
            let gone = std::mem::replace(&mut tail.complete, kept);
            gone.into_keys().collect()
        };
        for (index, &generation) in gone.iter().enumerate() {
            remove_file(&path_of(&self.dir, generation))?;
            if index == 0 && gone.len() > 1 {
                sync_directory(&self.dir)?;
            }
        }
        Ok(())
    }

    /// Whether the rows from `from` on are still there.
    pub fn has(&self, from: Mark) -> bool {
        path_of(&self.dir, from.generation).exists()
    }

    /// Compressed bytes of what was staged from `from` on, without the rows still waiting to be written as one piece.
    pub fn bytes_since(&self, from: Mark) -> u64 {
        let tail = self.lock();
        let complete = tail.complete.range(from.generation..);
        let before: u64 = complete
            .map(|(_, length)| length - START.min(*length))
            .sum();
        let here = tail.written - START;
        let skipped = from.length.saturating_sub(START);
        (before + here).saturating_sub(skipped)
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failed write leaves everything as it was, and the next try writes the same bytes to the same place.
    fn flush(&self, tail: &mut Tail) -> Result<(), ConnectorError> {
        if tail.waiting.is_empty() {
            return Ok(());
        }
        let path = path_of(&self.dir, tail.generation);
        let mut bytes = Vec::new();
        for (input, rows) in together(&tail.waiting).map_err(|cause| failed(&path, cause))? {
            frame::write_rows(input, &rows, &mut bytes).map_err(|cause| failed(&path, cause))?;
        }
        tail.write(&path, &bytes)?;
        tail.waiting.clear();
        (tail.waiting_bytes, tail.waiting_memory) = (0, 0);
        Ok(())
    }

    fn next_generation(&self, tail: &mut Tail) -> Result<Mark, ConnectorError> {
        let mut end = Vec::new();
        frame::write_end(&mut end);
        tail.write(&path_of(&self.dir, tail.generation), &end)?;
        let file = Arc::new(create(&self.dir, tail.generation + 1)?);
        let before = std::mem::replace(&mut tail.file, file);
        tail.unsynced.push((tail.generation, before));
        tail.complete.insert(tail.generation, tail.written);
        tail.generation += 1;
        tail.written = START;
        tail.entries_unsynced = true;
        Ok(tail.mark())
    }
}

impl Tail {
    fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            length: self.written,
        }
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ConnectorError> {
        self.file
            .write_all_at(bytes, self.written)
            .map_err(|cause| ConnectorError::io(path, cause))?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Neighbours of one input and schema as one batch: thin epochs give many thin batches.
fn together(waiting: &[(u16, RecordBatch)]) -> Result<Vec<(u16, RecordBatch)>, String> {
    let alike = |a: &(u16, RecordBatch), b: &(u16, RecordBatch)| {
        a.0 == b.0 && a.1.schema_ref() == b.1.schema_ref()
    };
    let join = |run: &[(u16, RecordBatch)]| match run {
        [one] => Ok(one.clone()),
        run => {
            let batches = run.iter().map(|(_, rows)| rows);
            let rows = concat_batches(run[0].1.schema_ref(), batches);
            rows.map(|rows| (run[0].0, rows)).map_err(|e| e.to_string())
        }
    };
    waiting.chunk_by(alike).map(join).collect()
}

pub(super) fn path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation:010}.rows"))
}

/// The generations in `dir` and the lengths of their files.
pub(super) fn generations(dir: &Path) -> Result<Vec<(u64, u64)>, ConnectorError> {
    let io = |cause| ConnectorError::io(dir, cause);
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".rows"));
        if let Some(generation) = number.and_then(|n| n.parse().ok()) {
            all.push((generation, entry.metadata().map_err(io)?.len()));
        }
    }
    all.sort_unstable();
    Ok(all)
}

fn create(dir: &Path, generation: u64) -> Result<File, ConnectorError> {
    let path = path_of(dir, generation);
    let io = |cause| ConnectorError::io(&path, cause);
    let mut options = OpenOptions::new();
    // Rows may be confidential, like all in the state directory.
    options.read(true).write(true).create(true).truncate(true);
    options.mode(0o600);
    let file = options.open(&path).map_err(io)?;
    file.write_all_at(&MAGIC, 0).map_err(io)?;
    Ok(file)
}

/// The file of `mark`, cut back to it.
fn reopen(dir: &Path, mark: Mark) -> Result<File, ConnectorError> {
    if mark.length <= START {
        // Nothing in it counts, and it may never have reached the disk.
        return create(dir, mark.generation);
    }
    let path = path_of(dir, mark.generation);
    let io = |cause| ConnectorError::io(&path, cause);
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let file = opened.map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => failed(
            &path,
            format!("missing, but the last checkpoint has rows in it; {REMEDY}"),
        ),
        _ => io(cause),
    })?;
    let found = file.metadata().map_err(io)?.len();
    if found < mark.length {
        return Err(failed(
            &path,
            format!(
                "{found} bytes long, but {} were staged by the last checkpoint; {REMEDY}",
                mark.length
            ),
        ));
    }
    if found > mark.length {
        file.set_len(mark.length).map_err(io)?;
        file.sync_all().map_err(io)?;
    }
    Ok(file)
}

fn failed(path: &Path, cause: impl ToString) -> ConnectorError {
    ConnectorError::failed(path.display().to_string(), cause)
}
