//! Pairs found for the rows of a batch, and the columns of both sides gathered for them.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{interleave, take};

use super::bucket::Bucket;
use crate::time::Micros;

/// Row of the batch, bucket and row of the other side, for each pair.
#[derive(Debug, Default)]
pub struct Pairs {
    rows: Vec<u32>,
    others: Vec<(i64, u32)>,
    /// The later of the two times.
    pub times: Vec<Micros>,
}

impl Pairs {
    pub fn push(&mut self, row: u32, bucket: i64, other: u32, time: Micros) {
        self.rows.push(row);
        self.others.push((bucket, other));
        self.times.push(time);
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The columns of the batch, a row for each pair.
    pub fn own(&self, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        let rows = UInt32Array::from(self.rows.clone());
        let gather = |c: &ArrayRef| take(c, &rows, None).expect("rows of the batch");
        columns.iter().map(gather).collect()
    }

    /// The first `columns` columns of the other side, a row for each pair.
    pub fn theirs(&self, buckets: &BTreeMap<i64, Bucket>, columns: usize) -> Vec<ArrayRef> {
        let mut first: HashMap<i64, usize> = HashMap::new();
        let mut used: Vec<&Bucket> = Vec::new();
        let mut pieces = 0;
        let mut places = Vec::with_capacity(self.others.len());
        for (number, row) in &self.others {
            let bucket = &buckets[number];
            let start = *first.entry(*number).or_insert_with(|| {
                used.push(bucket);
                pieces += bucket.piece_count();
                pieces - bucket.piece_count()
            });
            let (piece, at) = bucket.place(*row);
            places.push((start + piece, at));
        }
        let gather = |column: usize| {
            let arrays = used.iter().flat_map(|b| b.pieces());
            let arrays: Vec<&dyn Array> = arrays.map(|p| p.column(column).as_ref()).collect();
            interleave(&arrays, &places).expect("pieces have one schema")
        };
        (0..columns).map(gather).collect()
    }
}
