//! One side of a join: which of its columns are kept, and for how long.
//!
//! Invariant: the columns of the key are stored first.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};

use super::JoinSpec;
use super::bucket::Bucket;
use crate::time::Micros;

/// One side: its rows, and how far they reach.
pub struct Side {
    pub buckets: BTreeMap<i64, Bucket>,
    /// Columns of the input that are stored: those of the key, then those that are carried on.
    pub stored: Vec<usize>,
    pub schema: SchemaRef,
    /// Places of the carried columns among the stored ones: those of the key alone are needed again after a start only.
    pub carried: Vec<usize>,
    /// A row at t can match until the watermark is above t + reach.
    pub reach: Micros,
    /// A row at t is kept until the watermark is above t + this.
    pub kept: Micros,
    pub is_outer: bool,
}

impl Side {
    pub fn new(spec: &JoinSpec, side: usize) -> Self {
        let join = &spec.join;
        let mut stored = spec.keys[side].clone();
        for column in &join.carried[side] {
            if !stored.contains(column) {
                stored.push(*column);
            }
        }
        let place = |column: &usize| stored.iter().position(|s| s == column).expect("stored");
        let carried = join.carried[side].iter().map(place).collect();
        let fields = stored
            .iter()
            .map(|&i| spec.inputs[side].fields()[i].clone());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let reach = [join.after, join.before][side];
        let other_is_outer = join.kind.is_outer(1 - side);
        Self {
            buckets: BTreeMap::new(),
            schema,
            carried,
            stored,
            reach,
            kept: match other_is_outer {
                true => join.after.saturating_add(join.before),
                false => reach,
            },
            is_outer: join.kind.is_outer(side),
        }
    }

    /// Places of the columns that rows have in memory: the carried ones, or one that holds their number.
    pub fn in_memory(&self) -> &[usize] {
        match self.carried.is_empty() {
            true => &[0],
            false => &self.carried,
        }
    }

    /// The carried columns of rows with the stored ones.
    pub fn carried(&self, stored: &RecordBatch) -> Vec<ArrayRef> {
        self.carried
            .iter()
            .map(|&i| stored.column(i).clone())
            .collect()
    }
}
