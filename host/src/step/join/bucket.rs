//! The rows of one side of a join within a span of event time, found by key.
//!
//! Invariant: row `i` is the i-th that was added; rows of one key are chained from the last one to the first.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use hashbrown::HashTable;

use crate::batch::Batch;
use crate::state::SegmentId;
use crate::state::key::{EncodedKeys, key_hash};
use crate::time::Micros;

const NO_ROW: u32 = u32::MAX;

/// Rows of one side in one bucket of time.
#[derive(Debug, Default)]
pub struct Bucket {
    /// The last row of each key.
    index: HashTable<u32>,
    /// The row of the same key before, or [`NO_ROW`].
    before: Vec<u32>,
    /// Key `i` is `keys[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    keys: Vec<u8>,
    pub times: Vec<Micros>,
    /// The rows' columns, in pieces of falling size; with the number of rows before each.
    pieces: Vec<(usize, RecordBatch)>,
    matched: Vec<u64>,
    /// Arrived since the last checkpoint.
    pub fresh: Vec<Batch>,
    /// Where the others are in the state.
    pub segments: Vec<SegmentId>,
    /// Rows by time, as far as they were looked at for going out unmatched, and how many of them are through.
    order: Vec<u32>,
    through: usize,
}

impl Bucket {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Adds the rows `rows` of `batch`, which has the stored columns, with the keys of the whole batch. The columns
    /// `in_memory` are at hand from then on.
    pub fn add(&mut self, batch: &Batch, rows: &[u32], keys: &EncodedKeys, in_memory: &[usize]) {
        let piece = batch.take(rows);
        for &row in rows {
            let row = row as usize;
            self.chain(keys.hash(row), keys.key(row));
        }
        self.times.extend_from_slice(&piece.times);
        self.matched.resize(self.times.len().div_ceil(64), 0);
        let before = self.times.len() - rows.len();
        let columns = piece.columns.project(in_memory);
        self.pieces.push((before, columns.expect("stored columns")));
        self.fresh.push(piece);
        self.merge_pieces();
    }

    fn chain(&mut self, hash: u64, key: &[u8]) {
        let row = self.ends.len() as u32;
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len() as u32);
        let (keys, ends) = (&self.keys, &self.ends);
        let same = |&other: &u32| at(keys, ends, other) == key;
        match self.index.find_mut(hash, same) {
            Some(last) => self.before.push(std::mem::replace(last, row)),
            None => {
                self.before.push(NO_ROW);
                let rehash = |&other: &u32| key_hash(at(keys, ends, other));
                self.index.insert_unique(hash, row, rehash);
            }
        }
    }

    /// Pieces double in size, so that a row is copied a few times at most and few pieces are left.
    fn merge_pieces(&mut self) {
        while let [.., (start, a), (_, b)] = &self.pieces[..]
            && a.num_rows() < 2 * b.num_rows()
        {
            let merged = concat_batches(a.schema_ref(), [a, b]).expect("pieces have one schema");
            let start = *start;
            self.pieces.truncate(self.pieces.len() - 2);
            self.pieces.push((start, merged));
        }
    }

    /// The rows of a key, the last one first.
    pub fn rows_of(&self, hash: u64, key: &[u8]) -> impl Iterator<Item = u32> + '_ {
        let same = |&row: &u32| at(&self.keys, &self.ends, row) == key;
        let last = self.index.find(hash, same).copied();
        let before = |row: &u32| Some(self.before[*row as usize]).filter(|&r| r != NO_ROW);
        std::iter::successors(last, before)
    }

    /// Key and hash of a row.
    pub fn key(&self, row: u32) -> (&[u8], u64) {
        let key = at(&self.keys, &self.ends, row);
        (key, key_hash(key))
    }

    pub fn pieces(&self) -> impl Iterator<Item = &RecordBatch> {
        self.pieces.iter().map(|(_, piece)| piece)
    }

    pub fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    /// The piece that a row is in, and its place there.
    pub fn place(&self, row: u32) -> (usize, usize) {
        let row = row as usize;
        let piece = self.pieces.partition_point(|(start, _)| *start <= row) - 1;
        (piece, row - self.pieces[piece].0)
    }

    pub fn mark(&mut self, row: u32) {
        self.matched[row as usize / 64] |= 1 << (row % 64);
    }

    fn is_matched(&self, row: u32) -> bool {
        self.matched[row as usize / 64] >> (row % 64) & 1 == 1
    }

    /// Rows before `until` that were not through yet; of these the ones without a match, by time.
    pub fn unmatched(&mut self, until: Micros) -> Vec<u32> {
        if self.order.len() < self.times.len() {
            // None of the new rows is before one that is through: those were below the watermark.
            self.order
                .extend(self.order.len() as u32..self.times.len() as u32);
            let times = &self.times;
            self.order[self.through..].sort_by_key(|&row| times[row as usize]);
        }
        let ready =
            self.order[self.through..].partition_point(|&row| self.times[row as usize] < until);
        let rows = &self.order[self.through..self.through + ready];
        let unmatched = rows
            .iter()
            .copied()
            .filter(|&r| !self.is_matched(r))
            .collect();
        self.through += ready;
        unmatched
    }

    /// No row will follow: gives back what was reserved for more.
    pub fn shrink(&mut self) {
        self.before.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.keys.shrink_to_fit();
        self.times.shrink_to_fit();
        self.matched.shrink_to_fit();
        if self.pieces.len() > 1 {
            let all = concat_batches(self.pieces[0].1.schema_ref(), self.pieces())
                .expect("pieces have one schema");
            self.pieces = vec![(0, all)];
        }
    }

    /// Memory, bytes.
    pub fn bytes(&self) -> usize {
        let pieces: usize = self.pieces().map(RecordBatch::get_array_memory_size).sum();
        let fresh: usize = self.fresh.iter().map(Batch::bytes).sum();
        let vecs = (self.before.capacity() + self.ends.capacity() + self.order.capacity()) * 4
            + (self.times.capacity() + self.matched.capacity()) * 8
            + self.keys.capacity();
        self.index.allocation_size() + vecs + pieces + fresh
    }
}

fn at<'a>(keys: &'a [u8], ends: &[u32], row: u32) -> &'a [u8] {
    let row = row as usize;
    let start = if row == 0 { 0 } else { ends[row - 1] };
    &keys[start as usize..ends[row] as usize]
}
