//! Moves rows to the worker that owns their key group, in memory, once an epoch and keyed step.
//!
//! Invariant: a worker receives the pieces of an epoch in the order of the workers that sent them, and of each sender
//! in the order it had them; so a key's rows keep the order of their source partition.

use std::sync::{Mutex, PoisonError};

use crate::batch::Batch;
use crate::engine::rendezvous::{Broken, Rendezvous};
use crate::state::key::{KeyEncoder, key_group};

/// The way between all workers for one keyed step.
#[derive(Debug)]
pub struct Exchange {
    workers: usize,
    key_groups: u16,
    /// `slots[from * workers + to]`
    slots: Vec<Mutex<Vec<Batch>>>,
    all_sent: Rendezvous<(), ()>,
}

/// The worker that owns a key group: contiguous ranges of nearly equal size.
pub fn owner(group: u16, key_groups: u16, workers: usize) -> usize {
    usize::from(group) * workers / usize::from(key_groups)
}

/// The key groups of a worker.
pub fn owned(worker: usize, key_groups: u16, workers: usize) -> std::ops::Range<u16> {
    let first = |w: usize| (w * usize::from(key_groups)).div_ceil(workers) as u16;
    first(worker)..first(worker + 1)
}

impl Exchange {
    pub fn new(workers: usize, key_groups: u16) -> Self {
        let slots = (0..workers * workers).map(|_| Mutex::default()).collect();
        Self {
            workers,
            key_groups,
            slots,
            all_sent: Rendezvous::new(workers),
        }
    }

    /// Sends `batches` on and returns the rows that `worker` owns. Every worker calls it once an epoch, with or without rows.
    pub fn turn(
        &self,
        worker: usize,
        batches: Vec<Batch>,
        key: &[usize],
        encoder: &mut KeyEncoder,
    ) -> Result<Vec<Batch>, Broken> {
        if self.workers == 1 {
            return Ok(batches);
        }
        for batch in &batches {
            for (to, piece) in self.split(batch, key, encoder).into_iter().enumerate() {
                if let Some(piece) = piece {
                    self.slot(worker, to)
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(piece);
                }
            }
        }
        self.all_sent.meet(worker, (), |_| ())?;
        // Nobody sends into these slots again before the next epoch, and none begins before all workers are through here.
        let take = |from| {
            std::mem::take(
                &mut *self
                    .slot(from, worker)
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            )
        };
        Ok((0..self.workers).flat_map(take).collect())
    }

    pub fn break_up(&self) {
        self.all_sent.break_up();
    }

    fn split(&self, batch: &Batch, key: &[usize], encoder: &mut KeyEncoder) -> Vec<Option<Batch>> {
        let columns: Vec<_> = key
            .iter()
            .map(|&i| batch.columns.column(i).clone())
            .collect();
        let keys = encoder.encode(&columns, batch.rows());
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.workers];
        for (row, &hash) in keys.hashes().iter().enumerate() {
            rows[owner(
                key_group(hash, self.key_groups),
                self.key_groups,
                self.workers,
            )]
            .push(row as u32);
        }
        rows.iter()
            .map(|rows| {
                (!rows.is_empty()).then(|| {
                    if rows.len() == batch.rows() {
                        batch.clone()
                    } else {
                        batch.take(rows)
                    }
                })
            })
            .collect()
    }

    fn slot(&self, from: usize, to: usize) -> &Mutex<Vec<Batch>> {
        &self.slots[from * self.workers + to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_groups_are_shared_out_evenly_and_completely() {
        for workers in 1..=7 {
            let mut counts = vec![0u32; workers];
            (0..128).for_each(|g| counts[owner(g, 128, workers)] += 1);
            for (w, count) in counts.iter().enumerate() {
                assert!(owned(w, 128, workers).all(|g| owner(g, 128, workers) == w));
                assert_eq!(owned(w, 128, workers).len(), *count as usize);
            }
            assert!(
                counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1,
                "{workers}: {counts:?}"
            );
        }
    }
}
