//! One worker: takes records, runs every step over them, delivers; epoch after epoch, in step with the others.
//!
//! Invariant: nothing is in flight between two epochs, so a checkpoint, a swap and a stop happen there.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::batch::{Batch, InputId};
use crate::crash;
use crate::engine::coordinator::{Decision, Fullness, Report};
use crate::engine::metrics::add;
use crate::engine::rendezvous::Broken;
use crate::engine::shared::Shared;
use crate::engine::take::{RefusedRecord, SourceTask};
use crate::engine::versions::plugin_of;
use crate::error::{ConnectorError, RunError};
use crate::format::encode::row_json;
use crate::limits;
use crate::pipeline::plan::{BadRecords, Input, LATE_PORT, Operator, Port};
use crate::sink::dead_letters::{DeadLetter, Place, Raw};
use crate::state::Delta;
use crate::state::key::KeyEncoder;
use crate::step::{Output, Refused, Step, StepError, Tick};

/// How long to sit still when every source of this worker is silent, before looking again.
const IDLE_SLICE: Duration = Duration::from_millis(1);

pub struct Worker {
    pub index: usize,
    pub sources: Vec<SourceTask>,
    pub steps: Vec<StepTask>,
    pub shared: Arc<Shared>,
    /// The last epoch gave rows.
    active: bool,
    drain: bool,
    /// Some step has results left to give.
    closing: bool,
    paused: Arc<[Vec<u32>]>,
}

/// One operator as this worker runs it.
pub struct StepTask {
    pub step: Box<dyn Step>,
    /// For the way to the owner of a key.
    pub encoder: Option<KeyEncoder>,
    /// What the batches of several inputs, read as one, have in common: their own schemas may differ in what can be null.
    pub union: Option<SchemaRef>,
}

/// Rows of an epoch, by source and by step and port.
struct Flow {
    sources: Vec<Vec<Batch>>,
    ports: Vec<Vec<Vec<Batch>>>,
}

/// Why an epoch did not end.
pub enum Stop {
    /// Another worker failed.
    Broken,
    Failed(RunError),
}

impl From<Broken> for Stop {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        Self::Failed(error)
    }
}

impl From<ConnectorError> for Stop {
    fn from(error: ConnectorError) -> Self {
        Self::Failed(error.into())
    }
}

impl Worker {
    pub fn new(
        index: usize,
        sources: Vec<SourceTask>,
        steps: Vec<StepTask>,
        shared: Arc<Shared>,
    ) -> Self {
        let paused = shared.plan.sources.iter().map(|_| Vec::new()).collect();
        Self {
            index,
            sources,
            steps,
            shared,
            active: false,
            drain: false,
            closing: false,
            paused,
        }
    }

    /// Epochs until one is the last. A failure is left in [`Shared`].
    pub fn run(mut self) {
        loop {
            match self.epoch() {
                Ok(true) => {}
                Ok(false) | Err(Stop::Broken) => return,
                Err(Stop::Failed(error)) => return self.shared.fail(error),
            }
        }
    }

    /// One turn; false after the last.
    pub fn epoch(&mut self) -> Result<bool, Stop> {
        crash::point("epoch");
        let (mut flow, letters) = self.take()?;
        let report = self.report();
        let decision = self.shared.meet(self.index, report)?;
        if let Some(step) = decision.stuck {
            return Err(self.stuck(step).into());
        }
        self.apply_pauses(&decision);
        self.drain = decision.drain;
        self.shared.dead_letters(&letters)?;
        self.active = flow.sources.iter().any(|b| !b.is_empty()) || !letters.is_empty();
        self.closing = false;
        for step in 0..self.steps.len() {
            self.run_step(step, &decision, &mut flow)?;
            let done = self.steps[step].step.done();
            self.closing |= done.is_some_and(|done| done < decision.watermarks[step]);
        }
        self.deliver(&flow)?;
        if let Some(number) = decision.checkpoint {
            self.checkpoint(number, &decision)?;
        }
        Ok(!decision.stop)
    }

    /// Reads until the epoch has its share, or somebody waits, or nothing comes.
    fn take(&mut self) -> Result<(Flow, Vec<DeadLetter>), Stop> {
        let clock = self.shared.clock.clone();
        let start = clock.elapsed();
        while !self.drain {
            let (mut before, mut after) = (0, 0);
            let now = clock.now();
            for task in &mut self.sources {
                before += task.rows.records;
                task.poll(
                    Duration::ZERO,
                    now,
                    &self.shared.rates[task.source],
                    clock.elapsed(),
                )?;
                after += task.rows.records;
            }
            let passed = clock.elapsed().saturating_sub(start);
            if after > 0
                && (after == before || passed.as_millis() as u64 >= limits::EPOCH_TAKE_MS_MAX)
            {
                break;
            }
            if after == 0 {
                if self.closing
                    || self.shared.is_awaited()
                    || passed.as_millis() as u64 >= limits::EPOCH_IDLE_WAIT_MS
                    || self.all_read()
                {
                    break;
                }
                clock.wait(IDLE_SLICE);
            }
        }
        if self.drain && !self.closing {
            clock.wait(IDLE_SLICE);
        }
        self.collect()
    }

    fn all_read(&self) -> bool {
        self.sources
            .iter()
            .all(|t| t.reader.progress().iter().all(|p| p.finished))
    }

    fn collect(&mut self) -> Result<(Flow, Vec<DeadLetter>), Stop> {
        let (plan, metrics) = (&self.shared.plan, &self.shared.metrics);
        let mut letters = Vec::new();
        let mut sources = vec![Vec::new(); plan.sources.len()];
        for task in &mut self.sources {
            let source = &plan.sources[task.source];
            add(
                &metrics.sources[task.source].records,
                std::mem::take(&mut task.rows.records),
            );
            sources[task.source].extend(task.finish());
            let opened = &self.shared.sources[task.source];
            let describe = |r: &RefusedRecord| opened.describe(r.partition, r.number);
            let refused = task.refused(source.bad_records).map_err(|r| {
                RunError::BadRecord(format!(
                    "source {} at {}: {}; `bad_records = \"stop\"` says to stop here",
                    source.name,
                    describe(&r),
                    r.reason
                ))
            })?;
            add(&metrics.sources[task.source].bad, refused.len());
            if source.bad_records == BadRecords::DeadLetter {
                letters.extend(refused.into_iter().map(|r| DeadLetter {
                    place: Place::Source(source.name.clone()),
                    position: describe(&r),
                    reason: r.reason,
                    raw: Raw::Bytes(r.raw),
                    plugin: None,
                    key: None,
                }));
            }
        }
        let ports = plan
            .steps
            .iter()
            .map(|s| vec![Vec::new(); s.ports.len()])
            .collect();
        Ok((Flow { sources, ports }, letters))
    }

    fn report(&mut self) -> Report {
        let plan = &self.shared.plan;
        let full = |(i, task): (usize, &StepTask)| {
            let Operator::Plugin(p) = &plan.steps[i].operator else {
                return None;
            };
            let held = task.step.gauges().waiting_bytes;
            let share = p.limits.wait / plan.host.workers;
            let fullness = match held {
                held if held > 2 * share => Fullness::Overfull,
                held if held > share => Fullness::Full,
                _ => return None,
            };
            Some((i, fullness))
        };
        let full = self.steps.iter().enumerate().filter_map(full).collect();
        Report {
            sources: self
                .sources
                .iter_mut()
                .map(|t| (t.source, t.progress()))
                .collect(),
            active: self.active,
            full,
            done: self.steps.iter().map(|s| s.step.done()).collect(),
        }
    }

    fn apply_pauses(&mut self, decision: &Decision) {
        if Arc::ptr_eq(&self.paused, &decision.paused) || self.paused == decision.paused {
            return;
        }
        for task in &mut self.sources {
            let mine: Vec<u32> = task.reader.progress().iter().map(|p| p.partition).collect();
            let paused = &decision.paused[task.source];
            task.reader.pause(
                &mine
                    .into_iter()
                    .filter(|p| paused.contains(p))
                    .collect::<Vec<_>>(),
            );
        }
        self.paused = decision.paused.clone();
    }

    fn run_step(&mut self, index: usize, decision: &Decision, flow: &mut Flow) -> Result<(), Stop> {
        let shared = self.shared.clone();
        let (plan, metrics) = (&shared.plan.steps[index], &shared.metrics.steps[index]);
        let task = &mut self.steps[index];
        let mut out = Output::new(plan.ports.len());
        for (input, from) in plan.inputs.iter().enumerate() {
            let mut batches = flow.of(*from).to_vec();
            if let Some(schema) = &task.union {
                batches.iter_mut().for_each(|b| *b = b.with_schema(schema));
            }
            if let (Some(keys), Some(encoder)) = (&plan.keys, &mut task.encoder) {
                let exchange = &shared.exchanges[index][input];
                batches = exchange.turn(self.index, batches, &keys[input], encoder)?;
            }
            for batch in batches {
                add(&metrics.rows_in, batch.rows());
                task.step
                    .process(input, batch, &mut out)
                    .map_err(|e| step_error(&plan.name, e))?;
            }
        }
        let tick = Tick {
            watermark: decision.watermarks[index],
            now: decision.now,
        };
        task.step
            .tick(tick, &mut out)
            .map_err(|e| step_error(&plan.name, e))?;
        metrics.set_gauges(self.index, task.step.gauges());
        add(
            &metrics.rows_out,
            results(&plan.ports, &out).map(Batch::rows).sum(),
        );
        // A letter alone, too: it is in the transaction, which must not stay open for nothing.
        self.active |= out.ports.iter().any(|p| !p.is_empty()) || !out.refused.is_empty();
        add(&metrics.dead_letters, out.refused.len());
        let letters: Vec<_> = out
            .refused
            .into_iter()
            .map(|r| shared.step_letter(&plan.name, r))
            .collect();
        shared.dead_letters(&letters)?;
        flow.ports[index] = out.ports;
        Ok(())
    }

    fn deliver(&self, flow: &Flow) -> Result<(), Stop> {
        for (index, plan) in self.shared.plan.sinks.iter().enumerate() {
            for (input, from) in plan.inputs.iter().enumerate() {
                for batch in flow.of(from.input) {
                    self.shared.sinks[index].write(input, batch)?;
                    add(&self.shared.metrics.sinks[index], batch.rows());
                }
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, number: u64, decision: &Decision) -> Result<(), Stop> {
        let mut deltas: Vec<Delta> = Vec::with_capacity(self.steps.len());
        for (task, plan) in self.steps.iter_mut().zip(&self.shared.plan.steps) {
            let delta = task.step.freeze(number);
            deltas.push(delta.map_err(|e| step_error(&plan.name, e))?);
        }
        self.shared.freeze(self.index, number, decision, deltas)?;
        if let Some(swap) = &decision.swap {
            let instance = swap
                .take(self.index)
                .ok_or_else(|| RunError::Worker("a swap came twice".into()))?;
            self.steps[swap.step].step.swap(instance);
        }
        self.shared.resumed();
        Ok(())
    }

    fn stuck(&self, step: usize) -> RunError {
        let plan = &self.shared.plan.steps[step];
        let wait = plugin_of(&self.shared.plan, step).map_or(0, |p| p.limits.wait);
        RunError::Waiting(format!(
            "step {}: the rows that wait for event-time order have reached `limits.wait` ({} MB), and reading on does not \
             move the watermark past them; raise `limits.wait` of the step or lower `lateness` of its sources",
            plan.name,
            wait >> 20
        ))
    }
}

/// What a step gave, but for late rows: those are counted apart.
fn results<'a>(ports: &'a [Port], out: &'a Output) -> impl Iterator<Item = &'a Batch> {
    let named = ports.iter().zip(&out.ports);
    named
        .filter(|(port, _)| port.name != LATE_PORT)
        .flat_map(|(_, rows)| rows)
}

impl Flow {
    fn of(&self, input: Input) -> &[Batch] {
        match input {
            Input::Source(i) => &self.sources[i],
            Input::Port { step, port } => &self.ports[step][port],
        }
    }
}

impl Shared {
    fn dead_letters(&self, letters: &[DeadLetter]) -> Result<(), RunError> {
        if !letters.is_empty() {
            self.dead_letters.write(letters)?;
            self.metrics
                .dead_letters
                .fetch_add(letters.len() as u64, Relaxed);
        }
        Ok(())
    }

    /// A row that a step refused, with the record it came from as far as that is known.
    fn step_letter(&self, step: &str, refused: Refused) -> DeadLetter {
        let origin = refused
            .row
            .as_ref()
            .and_then(|r| r.origins.as_ref())
            .map(|o| (InputId::unpack(o.inputs[0]), o.offsets[0]));
        let position = origin.and_then(|(input, number)| {
            let source = self.source_ids.iter().position(|&id| id == input.source)?;
            Some(self.sources[source].describe(input.partition, number))
        });
        DeadLetter {
            place: Place::Step(step.to_owned()),
            position: position.unwrap_or_default(),
            reason: refused.reason,
            raw: refused
                .row
                .map_or(Raw::None, |row| Raw::Row(row_json(&row.columns, 0))),
            plugin: refused.plugin,
            key: refused.key,
        }
    }
}

fn step_error(step: &str, error: StepError) -> RunError {
    match error {
        StepError::Paused(why) => RunError::Paused(format!("step {step}: {why}")),
        StepError::Failed(why) => RunError::Worker(format!("step {step}: {why}")),
    }
}
