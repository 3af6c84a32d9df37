//! Makes a prepared checkpoint true while the next epochs run: output durable first, then the state, decided by itself or
//! by Kafka's transaction; then everybody is told, sinks that make output visible before all others.
//!
//! Invariant: checkpoints are committed in order, one at a time; after a failure none follows.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;

use crate::crash;
use crate::engine::decide;
use crate::engine::meta::EngineMeta;
use crate::engine::metrics_file::MetricsFile;
use crate::engine::shared::Shared;
use crate::engine::swap::SwapOrder;
use crate::error::RunError;
use crate::state::store::{Prepared, Store};
use crate::state::{Delta, Meta};

/// All that checkpoint `number` holds, frozen between two epochs.
pub struct Frozen {
    pub number: u64,
    pub meta: EngineMeta,
    /// By step (number in the state), of all workers.
    pub deltas: Vec<(u16, Vec<Delta>)>,
    pub swap: Option<Arc<SwapOrder>>,
    /// When the workers froze, on the monotonic clock.
    pub frozen_at: Duration,
}

/// Commits checkpoints of one run.
pub struct Checkpointer {
    store: Arc<Store>,
    metrics_file: MetricsFile,
}

impl Checkpointer {
    pub fn new(store: Arc<Store>, metrics_file: MetricsFile) -> Self {
        Self {
            store,
            metrics_file,
        }
    }

    /// Output, then state, then the news. Blocks for as long as sinks and disk need.
    pub fn commit(&mut self, frozen: Frozen, shared: &Shared) -> Result<(), RunError> {
        crash::point("frozen");
        for (sink, plan) in shared.sinks.iter().zip(&shared.plan.sinks) {
            sink.sync(frozen.meta.sinks.get(&plan.name).unwrap_or(&Value::Null))?;
        }
        shared.dead_letters.sync(&frozen.meta.dead_letters)?;
        shared.sources.iter().try_for_each(|s| s.verify())?;
        let positions: Vec<_> = shared
            .plan
            .sources
            .iter()
            .map(|s| positions(&frozen.meta, &s.name))
            .collect();
        let finished = frozen.meta.finished;
        crash::point("followers-synced");
        let meta = Meta {
            engine: serde_json::to_value(&frozen.meta).expect("plain data"),
        };
        let settling = shared.settled();
        let prepared = Prepared {
            number: frozen.number,
            meta,
            deltas: frozen.deltas,
            finished,
        };
        match &shared.transaction {
            Some(producer) => {
                // A clean stop needs its last checkpoint: waiting ends with the output's.
                decide::commit(producer, &self.store, prepared, &frozen.meta, &|| false)?;
                producer.release()?;
                crash::point("released");
            }
            None => self.store.commit(prepared)?,
        }
        for (sink, plan) in shared.sinks.iter().zip(&shared.plan.sinks) {
            sink.decided(frozen.meta.sinks.get(&plan.name).unwrap_or(&Value::Null))?;
        }
        drop(settling);
        crash::point("followers-done");
        shared.decided(frozen.number);
        if let Some(swap) = frozen.swap {
            swap.decided(frozen.number);
        }
        for (source, positions) in shared.sources.iter().zip(&positions) {
            source.decided(positions);
        }
        reload_tables(shared);
        let metrics = &shared.metrics;
        metrics.checkpoints.fetch_add(1, Relaxed);
        let took = shared.clock.elapsed().saturating_sub(frozen.frozen_at);
        metrics
            .checkpoint_micros
            .store(took.as_micros() as u64, Relaxed);
        self.metrics_file.refresh(shared, self.store.size_bytes());
        Ok(())
    }

    /// The state, for as long as the run lasts.
    pub fn watch_store(&self) -> Weak<Store> {
        Arc::downgrade(&self.store)
    }

    /// Nothing is to be committed for now: what is known is made durable, and the sources look around.
    pub fn idle(&self, shared: &Shared) -> Result<(), RunError> {
        self.settle()?;
        Ok(shared.sources.iter().try_for_each(|s| s.verify())?)
    }

    /// Makes durable what is known.
    pub fn settle(&self) -> Result<(), RunError> {
        Ok(self.store.settle()?)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// Reference files that changed take effect from the next epoch on.
fn reload_tables(shared: &Shared) {
    let reloaded = shared.tables.reload_changed();
    for table in reloaded.changed {
        tracing::info!(table, "reread: its file has changed");
    }
    for error in reloaded.errors {
        tracing::warn!(%error, "a table's file has changed but cannot be read; its old rows stay");
    }
}

fn positions(meta: &EngineMeta, source: &str) -> BTreeMap<u32, crate::source::Position> {
    meta.sources
        .get(source)
        .map(|s| s.positions.clone())
        .unwrap_or_default()
}
