//! A file as a source: one partition whose records are lines (JSON) or CSV records.
//!
//! Positions are bytes. Bounded, it ends where the file ended at start, and a last line without newline is a record;
//! otherwise it follows the file as it grows, and such a line waits for its newline.
//! Invariant: reading on from any record's `next` gives exactly the records behind it, with the same line numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Partition, Position, Progress, Reader, Record, Source};
use crate::error::ConnectorError;
use crate::format::framing::{Framing, without_return};
use crate::limits::RECORD_BYTES_MAX;
use crate::pipeline::plan::{self, Format, SourceConnector};

/// Bytes asked of the file at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes handed over by one poll before it returns early: keeps an epoch of large records small.
const POLL_BYTES_MAX: u64 = 32 << 20;
const PARTITION: u32 = 0;

/// A file, JSON lines or CSV.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    format: Format,
    header: OnceLock<Vec<u8>>,
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

    fn failed(&self, cause: impl ToString) -> ConnectorError {
        ConnectorError::failed(self.path.display().to_string(), cause)
    }

    /// Reads the header of a CSV file; returns the position behind it.
    fn read_header(&self) -> Result<Position, ConnectorError> {
        let start = Position {
            offset: 0,
            record: 0,
        };
        if self.format == Format::Json {
            return Ok(start);
        }
        let (file, len) = self.open()?;
        let mut lines = Lines::new(file, &self.path, self.format, start, Some(len));
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
        let end = bounded.then(|| ends.get(&PARTITION).copied().unwrap_or(len as i64));
        let needed = start.offset.max(end.unwrap_or(0));
        if (len as i64) < needed {
            return Err(self.failed(format!(
                "{len} bytes long, but the checkpoint has seen {needed}: the file was cut or replaced. Put the old one \
                 back, or start over with `tidemill reset`"
            )));
        }
        Lines::new(file, &self.path, self.format, start, None).check_start()?;
        Ok(vec![Partition {
            id: PARTITION,
            start,
            end,
        }])
    }

    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError> {
        let mut readers = Vec::new();
        for partition in partitions {
            let (file, _) = self.open()?;
            let end = partition.end.map(|end| end.max(0) as u64);
            readers.push(Lines::new(
                file,
                &self.path,
                self.format,
                partition.start,
                end,
            ));
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

/// Reads records of an open file from a position on.
struct Lines {
    file: File,
    path: PathBuf,
    framing: Framing,
    /// Where the next record begins, and the lines before it.
    next: Position,
    /// The byte at which a bounded run stops.
    end: Option<u64>,
    /// Bytes of the file from `next` on; only `buffer[begin..]` is unread.
    buffer: Vec<u8>,
    begin: usize,
    /// How many of the unread bytes the framing has looked at without finding the record's end.
    scanned: usize,
    /// Bytes of an overlong record that were looked at but not kept.
    dropped: u64,
    /// The position is where a file ended without newline: that newline, once there, belongs to the record before.
    behind_open_line: bool,
    /// The last read found nothing more.
    at_end: bool,
}

impl Lines {
    fn new(file: File, path: &Path, format: Format, next: Position, end: Option<u64>) -> Self {
        let mut lines = Self {
            file,
            path: path.to_owned(),
            framing: Framing::new(format),
            next,
            end,
            buffer: Vec::new(),
            begin: 0,
            scanned: 0,
            dropped: 0,
            behind_open_line: false,
            at_end: false,
        };
        lines.behind_open_line = lines.byte_before().is_some_and(|b| b != b'\n');
        lines
    }

    fn byte_before(&self) -> Option<u8> {
        let before = u64::try_from(self.next.offset).ok()?.checked_sub(1)?;
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, before).ok()?;
        Some(byte[0])
    }

    /// A position is at the start of a line, or where the file ended: otherwise it is another file's.
    fn check_start(&mut self) -> Result<(), ConnectorError> {
        if self.behind_open_line {
            self.skip_newline()?;
        }
        Ok(())
    }

    /// Hands over up to `max` records that are there; returns how many.
    fn poll(
        &mut self,
        max: usize,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<usize, ConnectorError> {
        self.at_end = false;
        if self.behind_open_line && !self.skip_newline()? {
            return Ok(0);
        }
        let first = self.next.offset;
        let mut count = 0;
        while count < max && self.next.offset - first < POLL_BYTES_MAX as i64 {
            let unread = &self.buffer[self.begin + self.scanned..];
            match self.framing.end(unread) {
                Some(end) => {
                    let end = self.scanned + end;
                    self.hand_over(end, 1, each);
                    count += 1;
                }
                None => {
                    self.scanned = self.buffer.len() - self.begin;
                    if self.read_more()? == 0 {
                        if self.open_line_counts() {
                            self.hand_over(self.scanned, 0, each);
                            count += 1;
                        }
                        self.at_end = true;
                        break;
                    }
                }
            }
        }
        Ok(count)
    }

    /// A bounded run is at its end, and bytes without a newline are left.
    fn open_line_counts(&self) -> bool {
        let left = self.scanned as u64 + self.dropped;
        left > 0 && self.end == Some(self.next.offset as u64 + left)
    }

    /// Hands over the record of `len` bytes at the front of the buffer and goes on behind it and its `newline`.
    fn hand_over(&mut self, len: usize, newline: usize, each: &mut dyn FnMut(Record<'_>)) {
        let mut record = &self.buffer[self.begin..self.begin + len];
        if self.dropped > 0 {
            record = &record[..RECORD_BYTES_MAX + 1];
        } else {
            record = without_return(record);
            record = &record[..record.len().min(RECORD_BYTES_MAX + 1)];
        }
        let number = self.next.record + 1;
        self.next = Position {
            offset: self.next.offset + (len + newline) as i64 + self.dropped as i64,
            record: number + self.framing.take_newlines(),
        };
        each(Record {
            partition: PARTITION,
            number,
            next: self.next,
            value: Some(record),
        });
        self.begin += len + newline;
        self.scanned = 0;
        self.dropped = 0;
        self.behind_open_line = newline == 0;
        if newline == 0 {
            self.framing.reset();
        }
    }

    /// Reads on behind the buffer; 0 at the end. What was scanned of an overlong record is dropped first.
    fn read_more(&mut self) -> Result<usize, ConnectorError> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let keep = RECORD_BYTES_MAX + 1;
        if self.scanned > keep + READ_BYTES {
            self.dropped += (self.scanned - keep) as u64;
            self.buffer.truncate(keep);
            self.scanned = keep;
        }
        let at = self.next.offset as u64 + self.buffer.len() as u64 + self.dropped;
        let want = match self.end {
            Some(end) => READ_BYTES.min(end.saturating_sub(at) as usize),
            None => READ_BYTES,
        };
        let len = self.buffer.len();
        self.buffer.resize(len + want, 0);
        let got = read_at(&self.file, &mut self.buffer[len..], at);
        self.buffer.truncate(len + *got.as_ref().unwrap_or(&0));
        let got = got.map_err(|cause| ConnectorError::io(&self.path, cause))?;
        if got == 0 {
            self.check_length(at)?;
        }
        Ok(got)
    }

    /// Nothing was read at `at`: the file must really end there.
    fn check_length(&self, at: u64) -> Result<(), ConnectorError> {
        let needed = self.end.unwrap_or(at);
        let len = self.len()?;
        if len >= needed {
            return Ok(());
        }
        Err(self.failed(format!(
            "{len} bytes long, but {needed} were there before: the file was cut while it was read"
        )))
    }

    /// Goes past the newline of the line that the position stands behind; false while it is not there.
    fn skip_newline(&mut self) -> Result<bool, ConnectorError> {
        let mut bytes = [0; 2];
        let at = self.next.offset as u64;
        let room = self.end.map_or(2, |end| end.saturating_sub(at).min(2)) as usize;
        let got = read_at(&self.file, &mut bytes[..room], at)
            .map_err(|cause| ConnectorError::io(&self.path, cause))?;
        let skipped = match &bytes[..got] {
            [b'\r'] if self.end == Some(at + 1) => {
                self.next.offset += 1;
                return Ok(true);
            }
            [] | [b'\r'] => {
                self.at_end = true;
                return Ok(false);
            }
            [b'\n', ..] => 1,
            [b'\r', b'\n'] => 2,
            _ => {
                return Err(self.failed(format!(
                    "byte {at}, where reading is to go on, is in the middle of a line: the last line was continued, or \
                     the file replaced. Put the old one back, or start over with `tidemill reset`"
                )));
            }
        };
        self.next.offset += skipped;
        self.buffer.clear();
        self.begin = 0;
        self.behind_open_line = false;
        Ok(true)
    }

    fn finished(&self) -> bool {
        self.end.is_some_and(|end| self.next.offset as u64 >= end)
    }

    fn len(&self) -> Result<u64, ConnectorError> {
        let metadata = self.file.metadata();
        metadata
            .map(|m| m.len())
            .map_err(|cause| ConnectorError::io(&self.path, cause))
    }

    fn progress(&self) -> Progress {
        let end = self.end.or_else(|| self.len().ok());
        let lag = end.map(|end| end.saturating_sub(self.next.offset as u64));
        Progress {
            partition: PARTITION,
            next: self.next,
            caught_up: self.at_end || lag == Some(0),
            finished: self.finished(),
            lag,
        }
    }

    fn failed(&self, cause: impl ToString) -> ConnectorError {
        ConnectorError::failed(self.path.display().to_string(), cause)
    }
}

/// Reads what is there, interrupted or not; 0 at the end.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
