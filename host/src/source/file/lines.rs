//! Reads the records of an open file from a position on: lines, or CSV records.

use std::path::{Path, PathBuf};

use super::input::Input;
use super::{PARTITION, POLL_BYTES_MAX};
use crate::error::ConnectorError;
use crate::format::framing::{Framing, without_return};
use crate::limits::RECORD_BYTES_MAX;
use crate::pipeline::plan::Format;
use crate::source::{About, Position, Progress, Record};

/// Bytes asked of the file at once.
const READ_BYTES: usize = 1 << 20;

/// Reads records of an open file from a position on.
pub(super) struct Lines {
    input: Input,
    path: PathBuf,
    framing: Framing,
    /// Where the next record begins, and the lines before it.
    next: Position,
    /// The byte at which a bounded run stops; of a compressed file one that is never reached: it stops at its end.
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
    pub fn new(
        input: Input,
        path: &Path,
        format: Format,
        next: Position,
        end: Option<u64>,
    ) -> Result<Self, ConnectorError> {
        let mut lines = Self {
            input,
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
        lines.behind_open_line = lines.byte_before()?.is_some_and(|b| b != b'\n');
        Ok(lines)
    }

    fn byte_before(&mut self) -> Result<Option<u8>, ConnectorError> {
        let offset = u64::try_from(self.next.offset).unwrap_or(0);
        let Some(before) = offset.checked_sub(1) else {
            return Ok(None);
        };
        let mut byte = [0];
        let got = self.read_at(&mut byte, before)?;
        Ok((got == 1).then_some(byte[0]))
    }

    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, ConnectorError> {
        let got = self.input.read_at(buffer, at);
        got.map_err(|cause| ConnectorError::io(&self.path, self.input.cause(cause)))
    }

    /// Takes the input back, to be read on by another.
    pub fn into_input(self) -> Input {
        self.input
    }

    /// A position is at the start of a line, or where the file ended: otherwise it is another file's.
    pub fn check_start(&mut self) -> Result<(), ConnectorError> {
        if self.behind_open_line {
            self.skip_newline()?;
        }
        Ok(())
    }

    /// Hands over up to `max` records that are there; returns how many.
    pub fn poll(
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

    /// Reading is at an end behind which nothing comes, and bytes without a newline are left.
    fn open_line_counts(&self) -> bool {
        let left = self.scanned as u64 + self.dropped;
        let at = self.next.offset as u64 + left;
        left > 0 && (self.end == Some(at) || self.packed_end() == Some(at))
    }

    /// Where a compressed file ends, once it is known.
    fn packed_end(&self) -> Option<u64> {
        let known = self.input.is_packed().then(|| self.input.len().ok());
        known.flatten().flatten()
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
            about: About::default(),
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
        let got = self.input.read_at(&mut self.buffer[len..], at);
        self.buffer.truncate(len + *got.as_ref().unwrap_or(&0));
        let got = got.map_err(|cause| ConnectorError::io(&self.path, self.input.cause(cause)))?;
        if got == 0 {
            self.check_length(at)?;
        }
        Ok(got)
    }

    /// Nothing was read at `at`: the file must really end there.
    fn check_length(&self, at: u64) -> Result<(), ConnectorError> {
        let needed = match self.input.is_packed() {
            true => at,
            false => self.end.unwrap_or(at),
        };
        let len = self.len()?.unwrap_or(needed);
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
        let got = self.read_at(&mut bytes[..room], at)?;
        let skipped = match &bytes[..got] {
            [b'\r'] if self.end == Some(at + 1) || self.packed_end() == Some(at + 1) => {
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

    pub fn finished(&self) -> bool {
        let last = |end: u64| end.min(self.packed_end().unwrap_or(end));
        self.end
            .is_some_and(|end| self.next.offset as u64 >= last(end))
    }

    fn len(&self) -> Result<Option<u64>, ConnectorError> {
        let len = self.input.len();
        len.map_err(|cause| ConnectorError::io(&self.path, cause))
    }

    pub fn progress(&self) -> Progress {
        let end = match self.input.is_packed() {
            true => self.packed_end(),
            false => self.end.or_else(|| self.len().ok().flatten()),
        };
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
