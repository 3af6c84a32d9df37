//! Bits that rot: whatever bit of either file flips, what is read is what was written, or an error says so.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::disk::{Contents, Disk};
use super::*;

const BLOCK: usize = 4_096;

/// A state with merged and unmerged keys and segments, closed.
fn closed(rng: &mut StdRng) -> (TempDir, Contents, Vec<Model>) {
    let dir = temp_in_memory();
    let disk = Disk::new(Contents::new());
    let store = disk.open(dir.path()).unwrap();
    let steps = step_ids(&store);
    let mut models = vec![Model::default()];
    for round in 0..6 {
        let (prepared, after) = next(rng, &models[models.len() - 1], &steps);
        store.commit(prepared).unwrap();
        models.push(after);
        if round == 3 {
            store.merge().unwrap();
        }
    }
    drop(store);
    (dir, disk.contents(), models)
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Unharmed,
    /// The content is that of an earlier checkpoint.
    Earlier,
    Refused,
}

/// Opens the state with a bit flipped and reads and merges all of it.
fn with_flipped(
    dir: &Path,
    contents: &Contents,
    models: &[Model],
    (file, byte, bit): (u64, usize, u8),
) -> Outcome {
    let mut contents = contents.clone();
    contents.get_mut(&file).unwrap()[byte] ^= 1 << bit;
    let disk = Disk::new(contents);
    let read = || -> Result<Model, StateError> {
        let store = disk.open(dir)?;
        let before = try_content(&store)?;
        store.merge()?;
        let after = try_content(&store)?;
        assert_eq!(before, after, "a merge changes nothing");
        Ok(before)
    };
    let what = format!("byte {byte} bit {bit} of file {file}");
    let read = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| panic!("{what}: a panic"));
    match read {
        Ok(found) if found == models[models.len() - 1] => Outcome::Unharmed,
        Ok(found) if models.contains(&found) => Outcome::Earlier,
        Ok(_) => panic!("{what}: something is read that never was written"),
        Err(_) => Outcome::Refused,
    }
}

#[test]
fn row_23_a_flipped_bit_in_any_block_is_told_or_does_no_harm() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (dir, contents, models) = closed(&mut rng);
    let (mut refused, mut unharmed) = (0, 0);
    for (&file, bytes) in &contents {
        for block in 0..bytes.len().div_ceil(BLOCK) {
            // Blocks of zeros were never used.
            if bytes[block * BLOCK..][..BLOCK].iter().all(|&b| b == 0) {
                continue;
            }
            for _ in 0..2 {
                let at = (
                    file,
                    block * BLOCK + rng.random_range(0..BLOCK),
                    rng.random_range(0..8),
                );
                match with_flipped(dir.path(), &contents, &models, at) {
                    Outcome::Refused => refused += 1,
                    Outcome::Unharmed => unharmed += 1,
                    Outcome::Earlier => panic!("{at:?}: an earlier state was read"),
                }
            }
        }
    }
    println!("{refused} flips refused, {unharmed} in what nothing reads any more");
    assert!(refused > 20, "{refused}");
}

#[test]
fn row_23_a_flipped_bit_in_a_header_is_told() {
    let mut rng = StdRng::seed_from_u64(23);
    let (dir, contents, models) = closed(&mut rng);
    for &file in contents.keys() {
        for byte in 0..512 {
            let at = (file, BLOCK + byte, rng.random_range(0..8));
            let outcome = with_flipped(dir.path(), &contents, &models, at);
            assert_eq!(outcome, Outcome::Refused, "{at:?}");
        }
    }
}
