//! A file whose blocks carry checksums: what the medium gives back is what was written, or an error.
//!
//! redb compares its own page checksums while it repairs a file, not when it reads one; a bit that rots after that would
//! come back as somebody's state. Knows nothing of pages and tables. Invariant: a block is given out only if its checksum
//! is that of its bytes at its place.
//!
//! Layout: groups of one block of checksums and the [`GROUP`] blocks that they are of (`docs/state-format.md`). Only
//! blocks that no durable commit needs are ever written over, so it does no harm that a crash can separate them from their
//! checksums. The one exception is redb's header in block 0: its checksum is in the same sector.

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::FORMAT;

/// What redb reads and writes at a time, or a multiple of it.
const BLOCK: u64 = 4_096;
/// A checksum: xxh3-64 of the block, seeded with its number. 0: the block was never written.
const SUM: u64 = 8;
const GROUP: u64 = BLOCK / SUM;
/// Where the checksum of block 0 would be.
const MAGIC: &[u8; 8] = b"tmpages1";
const REDB_MAGIC: &[u8; 4] = b"redb";
/// The header with its checksum: what a medium writes whole or not at all.
const SECTOR: usize = 512;
const HEADER: usize = SECTOR - SUM as usize;

/// The file below, seen without its checksums.
#[derive(Debug)]
pub(super) struct Checked {
    file: Box<dyn StorageBackend>,
    failed: Failed,
}

/// What failed first. redb says that once; after it, only that something has.
pub(super) type Failed = Arc<OnceLock<String>>;

impl Checked {
    /// `file` is empty, or was written through this. What fails first is told to `failed`.
    pub fn open(file: Box<dyn StorageBackend>, failed: Failed) -> io::Result<Self> {
        if file.len()? > 0 {
            let mut magic = [0; MAGIC.len()];
            file.read(0, &mut magic)?;
            if magic.starts_with(REDB_MAGIC) {
                return Err(invalid(format!(
                    "the file was written by an earlier version of tidemill, before state format 3; this version reads {FORMAT}. \
                     Finish with the version that wrote it, or run `tidemill reset` to begin anew"
                )));
            }
            if magic != *MAGIC {
                return Err(invalid(
                    "the file was not written by tidemill, or its beginning is damaged".into(),
                ));
            }
        }
        Ok(Self { file, failed })
    }

    fn heard<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.failed.get_or_init(|| error.to_string());
        }
        result
    }

    fn check(&self, blocks: Range<u64>, bytes: &[u8]) -> io::Result<()> {
        let mut sums = vec![0; ((blocks.end - blocks.start) * SUM) as usize];
        self.file.read(sum_at(blocks.start), &mut sums)?;
        let sums = sums.as_chunks::<{ SUM as usize }>().0;
        for ((number, bytes), sum) in blocks.zip(bytes.chunks(BLOCK as usize)).zip(sums) {
            let whole = match u64::from_le_bytes(*sum) {
                0 => bytes.iter().all(|&byte| byte == 0),
                sum => sum == checksum(number, bytes),
            };
            if !whole {
                return Err(damaged(number));
            }
        }
        Ok(())
    }

    fn read_header(&self, out: &mut [u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        self.file.read(place(0), &mut sector)?;
        let (header, sum) = sector.split_at(HEADER);
        let never_written = sector == [0; SECTOR];
        if !never_written && sum != checksum(0, header).to_le_bytes() {
            return Err(damaged(0));
        }
        out.copy_from_slice(&header[..out.len()]);
        Ok(())
    }

    fn write_header(&self, data: &[u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        sector[..data.len()].copy_from_slice(data);
        let sum = checksum(0, &sector[..HEADER]);
        sector[HEADER..].copy_from_slice(&sum.to_le_bytes());
        self.file.write(place(0), &sector)
    }

    /// Blocks that are cut off have no checksums any more: where the file grows again, it is as new.
    fn forget_from(&self, end: u64) -> io::Result<()> {
        let in_group = end % GROUP;
        if in_group == 0 {
            return Ok(());
        }
        let none = vec![0; ((GROUP - in_group) * SUM) as usize];
        self.file.write(sum_at(end), &none)
    }
}

impl Checked {
    fn blocks_len(&self) -> io::Result<u64> {
        let blocks = self.file.len()? / BLOCK;
        let (groups, rest) = (blocks / (GROUP + 1), blocks % (GROUP + 1));
        Ok((groups * GROUP + rest.saturating_sub(1)) * BLOCK)
    }

    fn read_blocks(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if is_header(offset, out.len()) {
            return self.read_header(out);
        }
        for (blocks, bytes) in runs(offset, out.len())? {
            let out = &mut out[bytes];
            self.file.read(place(blocks.start), out)?;
            self.check(blocks, out)?;
        }
        Ok(())
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK) {
            return Err(unaligned(len, 0));
        }
        let (before, end) = (self.blocks_len()?, len / BLOCK);
        if len < before {
            self.forget_from(end)?;
        }
        let sums = end.div_ceil(GROUP);
        self.file.set_len((end + sums) * BLOCK)?;
        if before == 0 && len > 0 {
            self.file.write(0, MAGIC)?;
        }
        Ok(())
    }

    fn write_blocks(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if is_header(offset, data.len()) {
            return self.write_header(data);
        }
        for (blocks, bytes) in runs(offset, data.len())? {
            let data = &data[bytes];
            let sums = blocks.clone().zip(data.chunks(BLOCK as usize));
            let sums: Vec<u8> = sums
                .flat_map(|(number, block)| checksum(number, block).to_le_bytes())
                .collect();
            self.file.write(place(blocks.start), data)?;
            self.file.write(sum_at(blocks.start), &sums)?;
        }
        Ok(())
    }
}

impl StorageBackend for Checked {
    fn len(&self) -> io::Result<u64> {
        self.heard(self.blocks_len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.heard(self.read_blocks(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.heard(self.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.heard(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.heard(self.write_blocks(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn is_header(offset: u64, len: usize) -> bool {
    offset == 0 && len <= HEADER
}

/// Where a block is in the file.
fn place(block: u64) -> u64 {
    (block + block / GROUP + 1) * BLOCK
}

/// Where its checksum is.
fn sum_at(block: u64) -> u64 {
    block / GROUP * (GROUP + 1) * BLOCK + block % GROUP * SUM
}

/// Never 0, which stands for a block that was never written.
fn checksum(number: u64, block: &[u8]) -> u64 {
    xxh3_64_with_seed(block, number).max(1)
}

/// What lies at `offset`, cut where groups end: the blocks, and which of the bytes they are.
fn runs(offset: u64, len: usize) -> io::Result<impl Iterator<Item = (Range<u64>, Range<usize>)>> {
    let end = offset + len as u64;
    if offset == 0 || !offset.is_multiple_of(BLOCK) || !end.is_multiple_of(BLOCK) {
        return Err(unaligned(offset, len));
    }
    let (first, end) = (offset / BLOCK, end / BLOCK);
    let mut next = first;
    Ok(std::iter::from_fn(move || {
        let blocks = next..end.min((next / GROUP + 1) * GROUP);
        next = blocks.end;
        let byte = |block| ((block - first) * BLOCK) as usize;
        let bytes = byte(blocks.start)..byte(blocks.end);
        (!blocks.is_empty()).then_some((blocks, bytes))
    }))
}

fn damaged(block: u64) -> io::Error {
    invalid(format!(
        "block {block} of the file is damaged: its checksum differs, the disk gave back other bytes than were written. \
         Restore a snapshot (`tidemill restore`), or give the state up with `tidemill reset`"
    ))
}

fn invalid(cause: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

fn unaligned(offset: u64, len: usize) -> io::Error {
    invalid(format!(
        "{len} bytes at {offset} are no whole blocks of {BLOCK} bytes"
    ))
}
