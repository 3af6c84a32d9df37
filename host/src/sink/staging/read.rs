//! Staged rows read back, from one mark to another.
//!
//! Reads only what a cut has given to the operating system, so it may run beside workers that append.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;

use super::frame::{self, Frame};
use super::{MAGIC, Mark, REMEDY, START, failed, path_of};
use crate::error::ConnectorError;

/// Batches with their inputs, in the order in which they were appended. Ends after the first error.
#[derive(Debug)]
pub struct StagedRows {
    dir: PathBuf,
    at: Mark,
    to: Mark,
    file: Option<Open>,
}

#[derive(Debug)]
struct Open {
    reader: BufReader<File>,
    /// Where the part to be read ends: the mark, or the end of the file.
    end: u64,
}

impl StagedRows {
    pub(super) fn new(dir: &Path, from: Mark, to: Mark) -> Self {
        Self {
            dir: dir.to_owned(),
            at: from,
            to,
            file: None,
        }
    }

    fn step(&mut self) -> Result<Option<(usize, RecordBatch)>, ConnectorError> {
        while self.at < self.to {
            let path = path_of(&self.dir, self.at.generation);
            let mut open = match self.file.take() {
                Some(open) => open,
                None => self.open(&path)?,
            };
            let left = open.end.saturating_sub(self.at.length);
            let (frame, length) = frame::read(&mut open.reader, left).map_err(|cause| {
                let place = self.at.length;
                failed(&path, format!("damaged at byte {place}: {cause}; {REMEDY}"))
            })?;
            match frame {
                Frame::Rows { input, rows } => {
                    self.at.length += length;
                    self.file = Some(open);
                    return Ok(Some((input, rows)));
                }
                Frame::End => self.at = Mark::start_of(self.at.generation + 1),
            }
        }
        Ok(None)
    }

    fn open(&self, path: &Path) -> Result<Open, ConnectorError> {
        let io = |cause| ConnectorError::io(path, cause);
        let mut file = File::open(path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => failed(path, format!("missing; {REMEDY}")),
            _ => io(cause),
        })?;
        let length = file.metadata().map_err(io)?.len();
        let mut magic = [0; START as usize];
        if length < START || file.read_exact(&mut magic).is_err() || magic != MAGIC {
            let cause = format!("no file of staged rows of this version; {REMEDY}");
            return Err(failed(path, cause));
        }
        let from = self.at.length.max(START);
        file.seek(SeekFrom::Start(from)).map_err(io)?;
        let end = match self.at.generation == self.to.generation {
            true => self.to.length,
            false => length,
        };
        Ok(Open {
            reader: BufReader::with_capacity(1 << 16, file),
            end,
        })
    }
}

impl Iterator for StagedRows {
    type Item = Result<(usize, RecordBatch), ConnectorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if next.is_err() {
            self.at = self.to;
        }
        next.transpose()
    }
}
