//! A file as a source: one partition whose records are lines (JSON, text) or CSV records.
//!
//! Positions are bytes. Bounded, it ends where the file ended at start, and a last line without newline is a record;
//! otherwise it follows the file as it grows, and such a line waits for its newline.
//!
//! A compressed file (`.gz`, `.zst`) is read as it was when it was opened, bounded or not; positions are bytes of the
//! decompressed stream, and a restart decompresses from the beginning to get there. How long that stream is is known only
//! at its end, so a bounded run is told a number instead: beyond all positions, one for each compressed length.
//! Invariant: reading on from any record's `next` gives exactly the records behind it, with the same line numbers.

mod input;
mod lines;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Partition, Position, Progress, Reader, Record, Source};
use crate::error::ConnectorError;
use crate::format::compression::Compression;
use crate::limits::RECORD_BYTES_MAX;
use crate::pipeline::plan::{self, Format, SourceConnector};
use input::Input;
use lines::Lines;

/// Bytes handed over by one poll before it returns early: keeps an epoch of large records small.
const POLL_BYTES_MAX: u64 = 32 << 20;
const PARTITION: u32 = 0;

/// Decompressed bytes that no file has: what is left of 64 bits is room for its compressed length.
const PACKED_END: i64 = i64::MAX;

/// A file, JSON lines, text or CSV.
pub struct FileSource {
    path: PathBuf,
    format: Format,
    header: OnceLock<Vec<u8>>,
    /// A compressed file that was read to where it goes on, for the reader to come.
    ready: Mutex<Option<Input>>,
}

/// The end of a bounded run over a compressed file of `bytes` bytes. Its own inverse.
fn end_of_packed(bytes: i64) -> i64 {
    PACKED_END - bytes
}

impl FileSource {
    /// `source` must have a file connector; anything else is a mistake of the caller.
    pub fn new(source: &plan::Source) -> Self {
        let SourceConnector::File { path } = &source.connector else {
            panic!("source {} is not a file", source.name);
        };
        Self::of(path, source.format)
    }

    fn of(path: &Path, format: Format) -> Self {
        Self {
            path: path.to_owned(),
            format,
            header: OnceLock::new(),
            ready: Mutex::default(),
        }
    }

    fn open(&self) -> Result<(File, u64), ConnectorError> {
        let io = |cause| ConnectorError::io(&self.path, cause);
        let file = File::open(&self.path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(self.failed("not a regular file; a file source reads one file, in order"));
        }
        Ok((file, metadata.len()))
    }

    fn input(&self, file: File, limit: u64) -> Result<Input, ConnectorError> {
        Input::new(file, &self.path, limit).map_err(|cause| ConnectorError::io(&self.path, cause))
    }

    fn lines(
        &self,
        input: Input,
        from: Position,
        end: Option<u64>,
    ) -> Result<Lines, ConnectorError> {
        Lines::new(input, &self.path, self.format, from, end)
    }

    fn too_short(&self, len: u64, needed: u64) -> ConnectorError {
        self.failed(format!(
            "{len} bytes long, but the checkpoint has seen {needed}: the file was cut or replaced. Put the old one \
             back, or start over with `tidemill reset`"
        ))
    }

    /// Where a compressed file of now `len` bytes begins and ends.
    fn packed(
        &self,
        file: File,
        len: u64,
        start: Position,
        end: Option<i64>,
        bounded: bool,
    ) -> Result<Partition, ConnectorError> {
        // The end of an earlier start is a position, where nothing was left, or says how long the file was.
        let fixed = end.filter(|&end| end < PACKED_END / 2);
        let limit = match (end, fixed) {
            (Some(end), None) => end_of_packed(end) as u64,
            _ => len,
        };
        if len < limit {
            return Err(self.too_short(len, limit));
        }
        let mut lines = self.lines(self.input(file, limit)?, start, None)?;
        lines.check_start()?;
        let mut input = lines.into_input();
        let mut byte = [0];
        let at = start.offset.max(0) as u64;
        let got = input.read_at(&mut byte, at);
        let got = got.map_err(|cause| ConnectorError::io(&self.path, input.cause(cause)))?;
        let known = input.len().ok().flatten();
        if let Some(decompressed) = known.filter(|&decompressed| decompressed < at) {
            return Err(self.too_short(decompressed, at));
        }
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(input);
        let end = fixed.unwrap_or(match got {
            0 => start.offset,
            _ => end_of_packed(limit as i64),
        });
        Ok(Partition {
            id: PARTITION,
            start,
            end: bounded.then_some(end),
        })
    }

    fn failed(&self, cause: impl ToString) -> ConnectorError {
        ConnectorError::failed(self.path.display().to_string(), cause)
    }

    /// Reads the header of a CSV file; returns the position behind it.
    fn read_header(&self) -> Result<Position, ConnectorError> {
        let start = Position {
            offset: 0,
            record: 0,
        };
        if self.format != Format::Csv {
            return Ok(start);
        }
        let (file, len) = self.open()?;
        let mut lines = self.lines(self.input(file, len)?, start, Some(len))?;
        let (mut header, mut next) = (None, start);
        lines.poll(1, &mut |record| {
            header = record.value.map(<[u8]>::to_vec);
            next = record.next;
        })?;
        let header = header.ok_or_else(|| {
            self.failed("empty, but a CSV file begins with a header that names its columns")
        })?;
        if header.len() > RECORD_BYTES_MAX {
            return Err(self.failed(format!(
                "the header is longer than {RECORD_BYTES_MAX} bytes"
            )));
        }
        self.header.get_or_init(|| header);
        Ok(next)
    }
}

impl Source for FileSource {
    fn partitions(
        &self,
        resume: &BTreeMap<u32, Position>,
        ends: &BTreeMap<u32, i64>,
        bounded: bool,
        _stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Partition>, ConnectorError> {
        let first = self.read_header()?;
        let (file, len) = self.open()?;
        let start = resume.get(&PARTITION).copied().unwrap_or(first);
        if Compression::of(&self.path) != Compression::None {
            let end = ends.get(&PARTITION).copied();
            return Ok(vec![self.packed(file, len, start, end, bounded)?]);
        }
        let end = bounded.then(|| ends.get(&PARTITION).copied().unwrap_or(len as i64));
        let needed = start.offset.max(end.unwrap_or(0));
        if (len as i64) < needed {
            return Err(self.too_short(len, needed as u64));
        }
        let input = self.input(file, len)?;
        self.lines(input, start, None)?.check_start()?;
        Ok(vec![Partition {
            id: PARTITION,
            start,
            end,
        }])
    }

    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError> {
        let mut readers = Vec::new();
        for partition in partitions {
            let ready = self
                .ready
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let input = match ready {
                Some(input) => input,
                None => {
                    let (file, len) = self.open()?;
                    self.input(file, len)?
                }
            };
            let end = partition.end.map(|end| end.max(0) as u64);
            readers.push(self.lines(input, partition.start, end)?);
        }
        Ok(Box::new(FileReader {
            files: readers,
            paused: false,
        }))
    }

    fn header(&self) -> Option<Vec<u8>> {
        self.header.get().cloned()
    }

    fn describe(&self, _partition: u32, number: i64) -> Value {
        json!({ "file": self.path.display().to_string(), "line": number })
    }
}

/// The one partition, or none for a worker that has no part of it.
struct FileReader {
    files: Vec<Lines>,
    paused: bool,
}

impl Reader for FileReader {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), ConnectorError> {
        let Some(lines) = self.files.first_mut().filter(|_| !self.paused) else {
            std::thread::sleep(wait);
            return Ok(());
        };
        if lines.poll(max, each)? == 0 && !lines.finished() && !wait.is_zero() {
            // A file cannot tell when it grows: look again once.
            std::thread::sleep(wait);
            lines.poll(max, each)?;
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[u32]) {
        self.paused = partitions.contains(&PARTITION);
    }

    fn progress(&self) -> Vec<Progress> {
        self.files.iter().map(Lines::progress).collect()
    }
}

#[cfg(test)]
mod tests;
