use std::sync::Arc;
use std::sync::Mutex;

use rand::prelude::*;
use rand::rngs::StdRng;

use super::*;

/// A file in memory that both the test and the backend hold.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        let bytes = self.0.lock().unwrap();
        let found = bytes.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        self.0.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn opened() -> (Memory, Checked) {
    let memory = Memory::default();
    let checked = Checked::open(Box::new(memory.clone()), Failed::default()).unwrap();
    (memory, checked)
}

#[test]
fn golden_file() {
    let (memory, checked) = opened();
    checked.set_len(2 * BLOCK).unwrap();
    checked.write(0, b"header").unwrap();
    checked.write(BLOCK, &[7; BLOCK as usize]).unwrap();
    let bytes = memory.0.lock().unwrap();
    assert_eq!(bytes.len() as u64, 3 * BLOCK);
    assert_eq!(&bytes[..8], MAGIC);
    assert_eq!(bytes[8..16], [116, 126, 166, 223, 81, 182, 123, 61]);
    assert!(bytes[16..BLOCK as usize].iter().all(|&b| b == 0));
    assert_eq!(&bytes[BLOCK as usize..][..6], b"header");
    assert!(bytes[2 * BLOCK as usize..].iter().all(|&b| b == 7));
}

#[test]
fn is_a_file_like_any_other() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (memory, mut checked) = opened();
    let mut model: Vec<u8> = Vec::new();
    for round in 0..600 {
        let blocks = model.len() as u64 / BLOCK;
        match rng.random_range(0..8) {
            0 => {
                // Around two groups, so that runs cross from one to the next.
                let len = rng.random_range(1..3 * GROUP) * BLOCK;
                checked.set_len(len).unwrap();
                model.resize(len as usize, 0);
            }
            1 => checked = Checked::open(Box::new(memory.clone()), Failed::default()).unwrap(),
            _ if blocks < 2 => {}
            operation => {
                let from = rng.random_range(1..blocks);
                let to = (from + rng.random_range(1..300)).min(blocks);
                let range = (from * BLOCK) as usize..(to * BLOCK) as usize;
                if operation < 5 {
                    let mut data = vec![0; range.len()];
                    rng.fill(&mut data[..]);
                    checked.write(from * BLOCK, &data).unwrap();
                    model[range].copy_from_slice(&data);
                } else {
                    let mut data = vec![1; range.len()];
                    checked.read(from * BLOCK, &mut data).unwrap();
                    assert!(data == model[range], "round {round}");
                }
            }
        }
        assert_eq!(checked.len().unwrap(), model.len() as u64);
    }
}

#[test]
fn every_flipped_bit_is_told() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (memory, checked) = opened();
    let blocks = GROUP + 3;
    checked.set_len(blocks * BLOCK).unwrap();
    let mut data = vec![0; ((blocks - 2) * BLOCK) as usize];
    rng.fill(&mut data[..]);
    // The last block is never written.
    checked.write(BLOCK, &data).unwrap();
    checked.write(0, &data[..320]).unwrap();
    let len = memory.0.lock().unwrap().len();
    let read = || {
        let mut found = vec![0; ((blocks - 1) * BLOCK) as usize];
        checked.read(0, &mut [0; 320])?;
        checked.read(BLOCK, &mut found).map(|()| found)
    };
    read().unwrap();
    for _ in 0..2_000 {
        // Not the rest of the header's block, nor the checksums of blocks that there are not.
        let at = rng.random_range(0..len);
        let used = (8..BLOCK as usize).contains(&at)
            || (place(0) as usize..place(0) as usize + SECTOR).contains(&at)
            || (place(1) as usize..place(GROUP - 1) as usize + BLOCK as usize).contains(&at)
            || at as u64 >= place(GROUP)
            || (sum_at(GROUP)..sum_at(GROUP) + 3 * SUM).contains(&(at as u64));
        if !used {
            continue;
        }
        let bit = 1 << rng.random_range(0..8);
        memory.0.lock().unwrap()[at] ^= bit;
        let told = read().unwrap_err().to_string();
        assert!(told.contains("damaged"), "byte {at}: {told}");
        memory.0.lock().unwrap()[at] ^= bit;
    }
    read().unwrap();
}

#[test]
fn a_block_at_another_place_is_told() {
    let (memory, checked) = opened();
    checked.set_len(4 * BLOCK).unwrap();
    for block in 1..4u64 {
        let data = [block as u8; BLOCK as usize];
        checked.write(block * BLOCK, &data).unwrap();
    }
    {
        let mut bytes = memory.0.lock().unwrap();
        let from = place(1) as usize;
        bytes.copy_within(from..from + BLOCK as usize, place(2) as usize);
        let sum = sum_at(1) as usize;
        bytes.copy_within(sum..sum + SUM as usize, sum_at(2) as usize);
    }
    let mut out = [0; BLOCK as usize];
    checked.read(BLOCK, &mut out).unwrap();
    assert!(checked.read(2 * BLOCK, &mut out).is_err());
}

#[test]
fn files_of_others_are_refused_with_a_reason() {
    for (begin, reason) in [
        (&b"redb\x1A\x0A\xA9\x0D\x0A"[..], "earlier version"),
        (b"#!/bin/sh\n", "not written by tidemill"),
    ] {
        let memory = Memory::default();
        memory.0.lock().unwrap().extend(begin);
        let told = Checked::open(Box::new(memory), Failed::default())
            .unwrap_err()
            .to_string();
        assert!(told.contains(reason), "{told}");
    }
}

#[test]
fn what_are_no_whole_blocks_is_refused() {
    let (_, checked) = opened();
    checked.set_len(4 * BLOCK).unwrap();
    assert!(checked.set_len(BLOCK + 1).is_err());
    assert!(checked.write(BLOCK + 1, &[0; BLOCK as usize]).is_err());
    assert!(checked.read(BLOCK, &mut [0; 100]).is_err());
    assert!(checked.read(0, &mut [0; 2 * BLOCK as usize]).is_err());
}
