//! The bytes of a file, compressed or not, read at a place.
//!
//! A compressed file is one stream: reading goes forward, a step back of some bytes is remembered, a longer one starts
//! over. It ends where the file ended when it was opened, whatever is appended later.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::format::compression::{Compression, damage};

/// Bytes skipped at once on the way to a position.
const SKIP_BYTES: usize = 64 << 10;
/// Bytes that can be read again: a line end.
const REMEMBERED_BYTES: usize = 8;

/// An open file.
pub enum Input {
    Plain(File),
    Packed(Packed),
}

/// A compressed file.
pub struct Packed {
    file: Arc<File>,
    compression: Compression,
    /// Bytes of the file, compressed, that are read.
    limit: u64,
    stream: Box<dyn Read + Send>,
    /// Bytes decompressed so far.
    at: u64,
    /// The last of them.
    last: Vec<u8>,
    ended: bool,
}

/// The first bytes of a file, with a cursor of its own.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Input {
    /// `limit`: how many bytes of a compressed file to read.
    pub fn new(file: File, path: &Path, limit: u64) -> io::Result<Self> {
        match Compression::of(path) {
            Compression::None => Ok(Self::Plain(file)),
            compression => Packed::new(Arc::new(file), compression, limit).map(Self::Packed),
        }
    }

    /// Reads what is there from byte `at` of the decompressed stream on; 0 at the end.
    pub fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => read_at(file, buffer, at),
            Self::Packed(packed) => packed.read_at(buffer, at),
        }
    }

    /// The length of the stream: now, of a plain file; once it was read to its end, of a compressed one.
    pub fn len(&self) -> io::Result<Option<u64>> {
        match self {
            Self::Plain(file) => file.metadata().map(|m| Some(m.len())),
            Self::Packed(packed) => Ok(packed.ended.then_some(packed.at)),
        }
    }

    pub fn is_packed(&self) -> bool {
        matches!(self, Self::Packed(_))
    }

    /// What an error in reading says.
    pub fn cause(&self, error: io::Error) -> io::Error {
        match self {
            Self::Plain(_) => error,
            Self::Packed(_) => io::Error::other(damage(&error)),
        }
    }
}

impl Packed {
    fn new(file: Arc<File>, compression: Compression, limit: u64) -> io::Result<Self> {
        let section = Section {
            file: file.clone(),
            at: 0,
            end: limit,
        };
        Ok(Self {
            stream: compression.reader(section)?,
            file,
            compression,
            limit,
            at: 0,
            last: Vec::new(),
            ended: false,
        })
    }

    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if at + (self.last.len() as u64) < self.at {
            *self = Self::new(self.file.clone(), self.compression, self.limit)?;
        }
        let mut room = [0; SKIP_BYTES];
        while self.at < at {
            let skip = (at - self.at).min(SKIP_BYTES as u64) as usize;
            if self.read(&mut room[..skip])? == 0 {
                return Ok(0);
            }
        }
        let again = (self.at - at) as usize;
        let known = again.min(buffer.len());
        let from = self.last.len() - again;
        buffer[..known].copy_from_slice(&self.last[from..from + known]);
        let mut filled = known;
        // Filled as far as the stream goes, so that 0 means its end.
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        Ok(filled)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let read = loop {
            match self.stream.read(buffer) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.ended = read == 0;
        self.at += read as u64;
        self.last
            .extend_from_slice(&buffer[read - read.min(REMEMBERED_BYTES)..read]);
        let excess = self.last.len().saturating_sub(REMEMBERED_BYTES);
        self.last.drain(..excess);
        Ok(read)
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = (buffer.len() as u64).min(self.end.saturating_sub(self.at)) as usize;
        let read = read_at(&self.file, &mut buffer[..want], self.at)?;
        self.at += read as u64;
        Ok(read)
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
