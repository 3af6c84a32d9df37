//! A file that is only looked at: redb writes while it opens one, and what it writes stays in memory here.
//!
//! Invariant: the file below is never written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{DatabaseError, StorageBackend};

use super::file::plain;

const BLOCK: u64 = 4_096;

/// The file below, with what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Box<dyn StorageBackend>,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    len: u64,
    /// Bytes of the file below that still count: those behind were cut off.
    below: u64,
    /// By number; each whole.
    blocks: BTreeMap<u64, Vec<u8>>,
}

/// Opens a file as [`super::file::OpenFile`] wants it.
pub(super) fn open(file: File) -> Result<Box<dyn StorageBackend>, DatabaseError> {
    let below = plain(file)?;
    let len = below.len()?;
    let over = Over {
        len,
        below: len,
        blocks: BTreeMap::new(),
    };
    Ok(Box::new(Overlay {
        below,
        over: Mutex::new(over),
    }))
}

impl Overlay {
    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is now, zeros where nothing was ever written.
    fn block(&self, over: &Over, number: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = over.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK as usize];
        let start = number * BLOCK;
        let there = over.below.saturating_sub(start).min(BLOCK) as usize;
        if there > 0 {
            self.below.read(start, &mut block[..there])?;
        }
        Ok(block)
    }
}

/// The pieces of `offset..offset + len` that lie in one block each: its number, the place in it, the place in the whole.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let end = offset + len as u64;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |number| {
        let start = (number * BLOCK).max(offset);
        let stop = ((number + 1) * BLOCK).min(end);
        let within = |at: u64| (at - number * BLOCK) as usize;
        let whole = |at: u64| (at - offset) as usize;
        (
            number,
            within(start)..within(stop),
            whole(start)..whole(stop),
        )
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        if offset
            .checked_add(out.len() as u64)
            .is_none_or(|end| end > over.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, whole) in pieces(offset, out.len()) {
            out[whole].copy_from_slice(&self.block(&over, number)?[within]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        if len < over.len {
            // What is cut off must be zeros if the file grows again.
            if !len.is_multiple_of(BLOCK) {
                let mut last = self.block(&over, len / BLOCK)?;
                last[(len % BLOCK) as usize..].fill(0);
                over.blocks.insert(len / BLOCK, last);
            }
            over.blocks.retain(|number, _| number * BLOCK < len);
            over.below = over.below.min(len);
        }
        over.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        for (number, within, whole) in pieces(offset, data.len()) {
            let mut block = self.block(&over, number)?;
            block[within].copy_from_slice(&data[whole]);
            over.blocks.insert(number, block);
        }
        over.len = over.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Against a file in memory that is written for good: the same bytes at every step, and the file below as it was.
    #[test]
    fn what_is_written_is_read_and_the_file_is_as_it_was() {
        let seed = 7;
        let mut random = StdRng::seed_from_u64(seed);
        let bytes: Vec<u8> = (0..30_000).map(|_| random.random()).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let overlay = open(file.reopen().unwrap()).unwrap();
        let mut model = bytes.clone();
        for step in 0..2_000 {
            let at = random.random_range(0..model.len().max(1));
            let len = random.random_range(0..9_000);
            match random.random_range(0..8) {
                0 => {
                    model.resize(at + len, 0);
                    overlay.set_len((at + len) as u64).unwrap();
                }
                1..4 => {
                    let data = vec![step as u8; len];
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&data);
                    overlay.write(at as u64, &data).unwrap();
                }
                _ => {
                    let len = len.min(model.len() - at.min(model.len()));
                    let mut out = vec![0; len];
                    overlay.read(at.min(model.len()) as u64, &mut out).unwrap();
                    let at = at.min(model.len());
                    assert!(out == model[at..at + len], "seed {seed}, step {step}");
                }
            }
            assert_eq!(overlay.len().unwrap(), model.len() as u64, "step {step}");
        }
        let behind = overlay.read(model.len() as u64, &mut [0]);
        assert_eq!(behind.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(std::fs::read(file.path()).unwrap() == bytes);
    }
}
