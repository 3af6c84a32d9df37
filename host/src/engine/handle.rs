//! What may be asked of a running pipeline: status, stop, swap, rollback, history. Implements the admin API's seam.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::engine::control::{
    CheckpointStatus, Control, ControlError, PluginStatus, RunState, SinkStatus, SourceStatus,
    Status, StepStatus, Swapped, TableStatus, Version,
};
use crate::engine::meta::PluginMeta;
use crate::engine::shared::Shared;
use crate::engine::swap::SwapOrder;
use crate::engine::versions::{Versions, check, plugin_of, setup};
use crate::error::RunError;
use crate::pipeline::plan::{Operator, Plan, Step};
use crate::plugin::{Component, Runtime};
use crate::state::Store;
use crate::time::{END_OF_TIME, Micros, NO_TIME};

/// Rates are means over about this long.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// How often a waiting swap looks whether the run has ended.
const SWAP_LOOK: Duration = Duration::from_millis(50);

/// Why sources wait while merges do not keep up.
const WRITTEN_SLOWLY: &str = "the state changes faster than the disk under [host] state takes it";

/// A running pipeline.
pub struct Handle {
    shared: Arc<Shared>,
    store: Weak<Store>,
    runtime: Arc<Runtime>,
    versions: Versions,
    started: Duration,
    ended: Mutex<bool>,
    counts: Mutex<VecDeque<Counts>>,
}

/// Counters at one moment, for rates.
struct Counts {
    at: Duration,
    sources: Vec<u64>,
    sinks: Vec<u64>,
}

impl Handle {
    pub fn new(
        shared: Arc<Shared>,
        store: Weak<Store>,
        runtime: Arc<Runtime>,
        versions: Versions,
    ) -> Self {
        let started = shared.clock.elapsed();
        Self {
            shared,
            store,
            runtime,
            versions,
            started,
            ended: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The state; gone with the run.
    pub fn store(&self) -> &Weak<Store> {
        &self.store
    }

    /// Finish the epoch, commit and end.
    pub fn stop(&self) {
        self.shared.coordinator().stop();
    }

    /// End although the last checkpoint waits for a sink: what it held is read again at the next start.
    pub fn give_up(&self) {
        self.shared.fail(RunError::Worker(
            "the output could not be delivered in time for a clean stop; the next start goes on from the last checkpoint".into(),
        ));
    }

    /// The run is over.
    pub fn ended(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) || self.shared.has_failed()
    }

    fn plugin_step(&self, name: &str) -> Result<usize, ControlError> {
        let plan = &self.shared.plan;
        let step = plan.steps.iter().position(|s| s.name == name);
        let step = step.ok_or_else(|| ControlError::NotFound(no_step(plan, name)))?;
        match plan.steps[step].operator {
            Operator::Plugin(_) => Ok(step),
            _ => Err(ControlError::Refused(format!("step {name} runs no plugin"))),
        }
    }

    fn plugin_meta(&self, step: usize) -> PluginMeta {
        let name = &self.shared.plan.steps[step].name;
        self.shared
            .coordinator()
            .meta()
            .steps
            .get(name)
            .and_then(|s| s.plugin.clone())
            .unwrap_or_default()
    }

    fn component(&self, step: &str, digest: &str) -> Result<Arc<Component>, ControlError> {
        let bytes = self.versions.read(digest).map_err(failed)?;
        self.runtime
            .load(&format!("version {digest} of step {step}"), &bytes)
            .map_err(failed)
    }

    /// Compiles and checks on the caller's thread; the workers only change over.
    fn change(
        &self,
        step: usize,
        file: &str,
        new: &Arc<Component>,
    ) -> Result<Swapped, ControlError> {
        let plan = &self.shared.plan;
        let name = plan.steps[step].name.clone();
        let in_force = self.plugin_meta(step).digest;
        if in_force == new.digest() {
            return Err(ControlError::Refused(format!(
                "step {name} runs this very version already ({in_force})"
            )));
        }
        let tables = &self.shared.tables;
        check(plan, step, tables, &self.component(&name, &in_force)?, new)
            .map_err(|why| ControlError::Refused(format!("step {name}: {why}")))?;
        self.versions.keep(new).map_err(failed)?;
        let instances = (0..plan.host.workers)
            .map(|_| new.instantiate(setup(plan, step, tables)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let (done, told) = sync_channel(1);
        let order = SwapOrder::new(step, name.clone(), new, file.to_owned(), instances, done);
        self.shared
            .coordinator()
            .queue_swap(Arc::new(order))
            .map_err(ControlError::Refused)?;
        let checkpoint = loop {
            match told.recv_timeout(SWAP_LOOK) {
                Ok(checkpoint) => break checkpoint,
                Err(RecvTimeoutError::Timeout) if !self.has_ended() => {}
                Err(_) => return Err(ControlError::Failed(
                    "the pipeline ended before the swap was decided; the old version stays in force".into(),
                )),
            }
        };
        let pause_ms = self.shared.metrics.pause_micros.load(Relaxed) as f64 / 1e3;
        tracing::info!(step = %name, from = %in_force, to = %new.digest(), checkpoint, pause_ms, "swapped");
        Ok(Swapped {
            step: name,
            from: in_force,
            to: new.digest().to_owned(),
            checkpoint,
            pause_ms,
        })
    }

    fn rates(&self) -> (Vec<f64>, Vec<f64>) {
        let m = &self.shared.metrics;
        let now = Counts {
            at: self.shared.clock.elapsed(),
            sources: m.sources.iter().map(|s| s.records.load(Relaxed)).collect(),
            sinks: m.sinks.iter().map(|s| s.load(Relaxed)).collect(),
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        while counts.len() > 1 && now.at.saturating_sub(counts[1].at) >= RATE_WINDOW {
            counts.pop_front();
        }
        let start = Counts {
            at: self.started,
            sources: vec![0; now.sources.len()],
            sinks: vec![0; now.sinks.len()],
        };
        let then = counts.front().unwrap_or(&start);
        let seconds = now.at.saturating_sub(then.at).as_secs_f64().max(1e-3);
        let rate = |now: &[u64], then: &[u64]| {
            now.iter()
                .zip(then)
                .map(|(n, t)| (n - t) as f64 / seconds)
                .collect()
        };
        let rates = (
            rate(&now.sources, &then.sources),
            rate(&now.sinks, &then.sinks),
        );
        counts.push_back(now);
        rates
    }

    fn step_status(&self, index: usize, step: &Step) -> StepStatus {
        let m = &self.shared.metrics.steps[index];
        let (gauges, rows_in) = (m.gauges(), m.rows_in.load(Relaxed));
        let plugin = plugin_of(&self.shared.plan, index).map(|plugin| PluginStatus {
            digest: self.plugin_meta(index).digest,
            version: plugin.component.description().version.clone(),
            ns_per_row: gauges.plugin_nanos as f64 / rows_in.max(1) as f64,
        });
        StepStatus {
            name: step.name.clone(),
            rows_in,
            rows_out: m.rows_out.load(Relaxed),
            late: gauges.late,
            dead_letters: m.dead_letters.load(Relaxed),
            keys: step.keys.is_some().then_some(gauges.keys),
            evicted: gauges.evicted,
            read_back: gauges.read_back,
            forgotten: gauges.forgotten,
            plugin,
        }
    }
}

impl Control for Handle {
    fn status(&self) -> Status {
        let (shared, plan, m) = (&self.shared, &self.shared.plan, &self.shared.metrics);
        let (in_rates, out_rates) = self.rates();
        let decided = shared.last_decided();
        let now = shared.clock.elapsed();
        let coordinator = shared.coordinator();
        let epoch = coordinator.epoch();
        let seen: Vec<_> = (0..plan.sources.len())
            .map(|i| {
                let watermark = coordinator.source_watermark(i);
                (coordinator.lag(i), watermark, coordinator.lost(i))
            })
            .collect();
        drop(coordinator);
        let behind = shared
            .behind
            .load(Relaxed)
            .then(|| WRITTEN_SLOWLY.to_owned());
        let source = |(i, s): (usize, &crate::pipeline::plan::Source)| SourceStatus {
            name: s.name.clone(),
            records_in: m.sources[i].records.load(Relaxed),
            per_second: in_rates[i],
            lag: seen[i].0,
            watermark: shown(seen[i].1),
            bad: m.sources[i].bad.load(Relaxed),
            lost: seen[i].2,
            waiting: shared.sources[i].waiting().or_else(|| behind.clone()),
        };
        let sink = |(i, s): (usize, &crate::pipeline::plan::Sink)| SinkStatus {
            name: s.name.clone(),
            records_out: m.sinks[i].load(Relaxed),
            per_second: out_rates[i],
        };
        Status {
            pipeline: plan.name.clone(),
            state: if self.has_ended() {
                RunState::Finished
            } else {
                RunState::Running
            },
            uptime_s: now.saturating_sub(self.started).as_secs_f64(),
            workers: plan.host.workers,
            epoch,
            checkpoint: CheckpointStatus {
                number: decided.number,
                count: m.checkpoints.load(Relaxed),
                age_ms: now.saturating_sub(decided.at).as_millis() as u64,
                last_ms: m.checkpoint_micros.load(Relaxed) as f64 / 1e3,
            },
            sources: plan.sources.iter().enumerate().map(source).collect(),
            steps: plan
                .steps
                .iter()
                .enumerate()
                .map(|(i, s)| self.step_status(i, s))
                .collect(),
            sinks: plan.sinks.iter().enumerate().map(sink).collect(),
            tables: shared
                .tables
                .counts()
                .into_iter()
                .map(|(name, rows, broken)| TableStatus {
                    name: name.to_owned(),
                    rows: rows as u64,
                    broken,
                })
                .collect(),
            dead_letters: m.dead_letters.load(Relaxed),
            state_bytes: m.steps.iter().map(|s| s.gauges().state_bytes as u64).sum(),
        }
    }

    fn swap(&self, step: &str, file: &str, wasm: Vec<u8>) -> Result<Swapped, ControlError> {
        let index = self.plugin_step(step)?;
        let new = self
            .runtime
            .load(file, &wasm)
            .map_err(|e| ControlError::Refused(e.to_string()))?;
        self.change(index, file, &new)
    }

    fn rollback(&self, step: &str) -> Result<Swapped, ControlError> {
        let index = self.plugin_step(step)?;
        let meta = self.plugin_meta(index);
        let before = meta.history.iter().rev().find(|v| v.digest != meta.digest);
        let before = before.ok_or_else(|| {
            ControlError::Refused(format!(
                "step {step} has run no other version that it could go back to"
            ))
        })?;
        let component = self.component(step, &before.digest)?;
        self.change(index, &before.file, &component)
    }

    fn history(&self, step: &str) -> Result<Vec<Version>, ControlError> {
        let meta = self.plugin_meta(self.plugin_step(step)?);
        let last = meta.history.len().saturating_sub(1);
        let version = |(i, v): (usize, crate::engine::meta::VersionMeta)| Version {
            digest: v.digest,
            file: v.file,
            since_checkpoint: v.checkpoint,
            at: v.at,
            in_force: i == last,
        };
        Ok(meta.history.into_iter().enumerate().map(version).collect())
    }
}

fn shown(watermark: Micros) -> Option<Micros> {
    (watermark != NO_TIME && watermark != END_OF_TIME).then_some(watermark)
}

/// Names the steps that there are.
pub fn no_step(plan: &Plan, name: &str) -> String {
    let names: Vec<&str> = plan.steps.iter().map(|s| s.name.as_str()).collect();
    format!(
        "pipeline {} has no step {name}; its steps are {}",
        plan.name,
        names.join(", ")
    )
}

fn failed(error: impl std::fmt::Display) -> ControlError {
    ControlError::Failed(error.to_string())
}
