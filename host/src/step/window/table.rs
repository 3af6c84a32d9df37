//! Partial results that change: the groups that rows went to since the last freeze.

use std::sync::Arc;

use super::frozen::Frozen;
use super::index::GroupIndex;
use crate::expr::{Accumulators, Aggregation, Inputs};
use crate::time::Micros;

/// Groups by pane and key, with their partial results.
pub struct Table {
    index: GroupIndex,
    accumulators: Accumulators,
    groups: Vec<usize>,
}

impl Table {
    pub fn new(aggregation: &Aggregation) -> Self {
        Self {
            index: GroupIndex::default(),
            accumulators: aggregation.accumulators(),
            groups: Vec::new(),
        }
    }

    /// Begins a batch.
    pub fn begin(&mut self) {
        self.groups.clear();
    }

    /// The next row of the batch belongs to this pane and key.
    pub fn row(&mut self, hash: u64, pane: Micros, key: &[u8]) {
        let group = self.index.group(hash, pane, key);
        self.groups.push(group);
    }

    /// Accumulates the rows told since [`begin`](Self::begin), one for each of `inputs`.
    pub fn update(&mut self, inputs: &Inputs) -> Result<(), String> {
        self.accumulators
            .update(inputs, &self.groups, self.index.len())
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn groups(&self) -> usize {
        self.index.len()
    }

    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.accumulators.bytes()
    }

    /// Everything, which no longer changes; the table is empty again.
    pub fn freeze(&mut self, key_groups: u16) -> Result<Arc<Frozen>, String> {
        let states = self.accumulators.state()?;
        let (keys, panes) = self.index.take();
        Ok(Frozen::new(keys, panes, states, key_groups))
    }
}
