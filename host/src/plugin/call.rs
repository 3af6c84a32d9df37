//! A configured plugin as one worker calls it: rows in, rows out, whatever the plugin does.
//!
//! Invariant: a call either settles every row (out, refused or failed) or pauses; a plugin that traps, lies or runs too
//! long costs its own rows only, and what it does in one call cannot reach the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use tracing::warn;

use super::check::{Groups, Left, Place, Said, left, said};
use super::columns::data_type;
use super::groups::Working;
use super::halves::{Failure, Part, Parts, settle};
use super::limits::PartsBudget;
use super::live::{Live, Stop};
use super::meter::Meter;
use super::plan::{input_fields, plan};
use super::{
    CallError, Component, Histogram, KeyedInput, KeyedOutcome, Outcome, PluginPlan, Setup,
    TIME_COLUMN, wire,
};
use crate::batch::Batch;
use crate::error::PluginError;

/// A configured plugin with a memory of its own.
pub struct Instance {
    component: Arc<Component>,
    setup: Setup,
    plan: PluginPlan,
    reads: SchemaRef,
    /// `None` after a trap until the next call.
    live: Option<Live>,
    budget: PartsBudget,
    meter: Meter,
}

impl Instance {
    pub(super) fn new(component: Arc<Component>, setup: Setup) -> Result<Self, PluginError> {
        let mut meter = Meter::new(setup.step.clone());
        let (live, plan) =
            start(&component, &setup, &mut meter).map_err(|cause| PluginError::Configure {
                name: component.description().name.clone(),
                cause,
            })?;
        let reads = reads_schema(&plan, &setup.input);
        Ok(Self {
            component,
            setup,
            plan,
            reads,
            live: Some(live),
            budget: PartsBudget::default(),
            meter,
        })
    }

    pub fn plan(&self) -> &PluginPlan {
        &self.plan
    }

    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }

    /// Columns of the plan's `reads`, in their order; what [`KeyedInput::reads`] is made of.
    pub fn reads_schema(&self) -> &SchemaRef {
        &self.reads
    }

    /// The columns that cross, `_time` included. Shares the memory of `batch`.
    pub fn reads(&self, batch: &Batch) -> RecordBatch {
        let columns = self
            .plan
            .reads
            .iter()
            .map(|read| match read {
                Some(at) => batch.columns.column(*at).clone(),
                None => Arc::new(
                    TimestampMicrosecondArray::new(batch.times.clone(), None).with_timezone("UTC"),
                ) as ArrayRef,
            })
            .collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.rows()));
        RecordBatch::try_new_with_options(self.reads.clone(), columns, &rows)
            .expect("a step's batches have the schema its plugin was configured with")
    }

    /// Gives a stateless plugin these rows.
    pub fn transform(&mut self, batch: &Batch) -> Result<Outcome, CallError> {
        let call = self.setup.call;
        let reads = self.reads(batch);
        let rows = reads.num_rows();
        let mut outcome = Outcome::empty(self.plan.ports.len());
        if rows == 0 {
            return Ok(outcome);
        }
        match self.attempt_transform(&reads, 0, rows, call) {
            Ok(said) => outcome.add(said),
            Err(Failure::Plugin(cause)) => return Err(self.paused(&cause)),
            Err(Failure::Part(cause)) => {
                let whole = Part {
                    rows: 0..rows,
                    due: 0..0,
                };
                let mut parts = TransformParts {
                    instance: self,
                    reads: &reads,
                    outcome,
                };
                let settled = settle(&mut parts, &whole, cause, call);
                outcome = parts.outcome;
                settled.map_err(|cause| self.paused(&cause))?;
                self.tell_failures(&outcome, rows);
            }
        }
        Ok(outcome)
    }

    /// Gives a keyed plugin these rows, states and due alarms.
    pub fn keyed(&mut self, input: KeyedInput) -> Result<KeyedOutcome, CallError> {
        let call = self.setup.call;
        let rows = input.reads.num_rows();
        debug_assert_eq!(rows, input.group_of_row.len());
        let mut outcome = Outcome::empty(self.plan.ports.len());
        if rows == 0 && input.due.is_empty() {
            return Ok(KeyedOutcome {
                outcome,
                dirty: vec![false; input.groups as usize],
                state: input.state,
                alarms: input.alarms,
            });
        }
        let place = Place {
            rows: 0..rows,
            rows_of_call: rows,
            groups: Groups::All(input.groups),
        };
        let left = match self.attempt_keyed(&input, &place, call) {
            Ok((said, left)) => {
                outcome.add(said);
                left
            }
            Err(Failure::Plugin(cause)) => return Err(self.paused(&cause)),
            Err(Failure::Part(cause)) => {
                let whole = Part {
                    rows: 0..rows,
                    due: 0..input.due.len(),
                };
                let mut parts = KeyedParts {
                    instance: self,
                    working: Working::new(input),
                    outcome,
                };
                let settled = settle(&mut parts, &whole, cause, call);
                let left = parts.working.finish();
                outcome = parts.outcome;
                settled.map_err(|cause| self.paused(&cause))?;
                self.tell_failures(&outcome, rows);
                left
            }
        };
        Ok(KeyedOutcome {
            outcome,
            state: left.state,
            dirty: left.dirty,
            alarms: left.alarms,
        })
    }

    /// Time spent in calls of the plugin, nanoseconds.
    pub fn nanos(&self) -> u64 {
        self.meter.spent.as_nanos() as u64
    }

    /// The plugin's counters by name. What a failed call counted is not in them.
    pub fn counters(&self) -> &BTreeMap<String, u64> {
        &self.meter.counters
    }

    /// The plugin's histograms by name.
    pub fn histograms(&self) -> &BTreeMap<String, Histogram> {
        &self.meter.histograms
    }

    /// An epoch begins: finding failed rows may take its time again.
    pub fn begin_epoch(&mut self) {
        self.budget.begin_epoch();
    }

    fn attempt_transform(
        &mut self,
        reads: &RecordBatch,
        start: usize,
        rows_of_call: usize,
        limit: Duration,
    ) -> Result<Said, Failure> {
        let result = self.timed(|live| live.transform(reads, limit))?;
        let place = Place {
            rows: start..start + reads.num_rows(),
            rows_of_call,
            groups: Groups::None,
        };
        let checked = said(result.ports, result.refused, &self.plan, &place);
        self.checked(checked)
    }

    fn attempt_keyed(
        &mut self,
        input: &KeyedInput,
        place: &Place<'_>,
        limit: Duration,
    ) -> Result<(Said, Left), Failure> {
        let result = self.timed(|live| live.keyed(input, limit))?;
        let groups = input.groups as usize;
        let checked = said(result.ports, result.refused, &self.plan, place).and_then(|said| {
            let description = self.component.description();
            left(
                result.state,
                result.dirty,
                result.alarms,
                groups,
                description,
            )
            .map(|left| (said, left))
        });
        self.checked(checked)
    }

    /// Makes a call, with a new instance if the last one is gone, and takes its time.
    fn timed<R>(&mut self, call: impl FnOnce(&mut Live) -> Result<R, Stop>) -> Result<R, Failure> {
        let began = Instant::now();
        let result = self.guarded(call);
        self.meter.spent += began.elapsed();
        result
    }

    fn guarded<R>(
        &mut self,
        call: impl FnOnce(&mut Live) -> Result<R, Stop>,
    ) -> Result<R, Failure> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.restart()?,
        };
        match call(&mut live) {
            Ok(result) => {
                self.live = Some(live);
                Ok(result)
            }
            Err(stop) => {
                self.meter.failed = live.take_noted();
                if matches!(stop, Stop::Err(_)) {
                    self.live = Some(live);
                }
                Err(Failure::Part(stop.into_cause()))
            }
        }
    }

    /// A lie ends the instance as a trap does: its memory may be in any state. What an honest call counted, counts.
    fn checked<T>(&mut self, checked: Result<T, String>) -> Result<T, Failure> {
        let noted = self.live.as_mut().map(Live::take_noted);
        match checked {
            Ok(result) => {
                if let (Some(live), Some(noted)) = (&self.live, noted) {
                    self.meter.count(live.guest(), &noted);
                    self.meter.write(noted);
                }
                Ok(result)
            }
            Err(lie) => {
                self.meter.failed = noted.unwrap_or_default();
                self.live = None;
                Err(Failure::Part(format!("it returned what it may not: {lie}")))
            }
        }
    }

    /// Makes an attempt whose time counts as time for finding failed rows.
    fn on_budget<R>(&mut self, attempt: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.meter.spent;
        let result = attempt(self);
        self.budget.spend(self.meter.spent - before);
        result
    }

    fn restart(&mut self) -> Result<Live, Failure> {
        let (live, plan) = start(&self.component, &self.setup, &mut self.meter)
            .map_err(|cause| Failure::Plugin(format!("it cannot be started again: {cause}")))?;
        if plan == self.plan {
            return Ok(live);
        }
        Err(Failure::Plugin(
            "started again after a failure, its `configure` gave another plan than before; it must depend on nothing but its arguments".into(),
        ))
    }

    fn paused(&self, cause: &str) -> CallError {
        CallError::Paused(format!(
            "step `{}`: the plugin `{}` ({}, sha256 {}) cannot go on: {cause}. Swap in a mended one (`tidemill plugin swap`), or see `limits` of the step",
            self.setup.step,
            self.component.description().name,
            self.component.file(),
            &self.component.digest()[..12],
        ))
    }

    /// One line for all rows of a call: each of them has its own in the dead letters.
    fn tell_failures(&mut self, outcome: &Outcome, rows: usize) {
        let alarms = outcome.failed_alarms.len();
        let first = outcome.failed.iter().chain(&outcome.failed_alarms).next();
        let Some((_, cause)) = first else {
            return;
        };
        if !self.meter.may_tell() {
            return;
        }
        warn!(
            target: "plugin",
            step = self.setup.step.as_str(),
            plugin = &self.component.digest()[..12],
            "failed at {} of {rows} rows and {alarms} alarms, now dead letters; the first: {cause}",
            outcome.failed.len(),
        );
    }
}

/// A new instance and the plan it was configured with.
fn start(
    component: &Component,
    setup: &Setup,
    meter: &mut Meter,
) -> Result<(Live, PluginPlan), String> {
    let (pre, exports) = component.parts();
    let tables = setup.tables.clone();
    let mut live = Live::start(pre, exports, tables, setup.memory_bytes, setup.call)?;
    let said = live.configure(&setup.config, &input_fields(&setup.input), setup.call);
    meter.write(live.take_noted());
    let said = said.map_err(|stop| match stop {
        Stop::Err(text) => format!("it refused its configuration: {text}"),
        Stop::Trap(cause) => format!("its `configure` failed: {cause}"),
    })?;
    Ok((live, plan(said, &setup.input)?))
}

fn reads_schema(plan: &PluginPlan, input: &Schema) -> SchemaRef {
    let time = Field::new(TIME_COLUMN, data_type(wire::ValueType::Timestamp), false);
    let fields = plan.reads.iter().map(|read| match read {
        Some(at) => input.field(*at).clone(),
        None => time.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A stateless call in parts.
struct TransformParts<'a> {
    instance: &'a mut Instance,
    reads: &'a RecordBatch,
    outcome: Outcome,
}

impl Parts for TransformParts<'_> {
    fn attempt(&mut self, part: &Part, deadline: Duration) -> Result<(), Failure> {
        let reads = self.reads.slice(part.rows.start, part.rows.len());
        let rows_of_call = self.reads.num_rows();
        let said = self.instance.on_budget(|instance| {
            instance.attempt_transform(&reads, part.rows.start, rows_of_call, deadline)
        })?;
        self.outcome.add(said);
        Ok(())
    }

    fn give_up_row(&mut self, row: usize, cause: String) {
        self.instance.meter.write_failed();
        self.outcome.failed.push((row as u32, cause));
    }

    fn give_up_alarm(&mut self, _due: usize, _cause: String) {
        unreachable!("a stateless call has no alarms");
    }

    fn is_exhausted(&self) -> bool {
        self.instance.budget.is_exhausted()
    }
}

/// A keyed call in parts: each starts from the state that the one before left.
struct KeyedParts<'a> {
    instance: &'a mut Instance,
    working: Working,
    outcome: Outcome,
}

impl Parts for KeyedParts<'_> {
    fn attempt(&mut self, part: &Part, deadline: Duration) -> Result<(), Failure> {
        let (input, groups) = self.working.part(part);
        if input.group_of_row.is_empty() && input.due.is_empty() {
            return Ok(());
        }
        let place = Place {
            rows: part.rows.clone(),
            rows_of_call: self.working.input().group_of_row.len(),
            groups: Groups::Some(&groups),
        };
        let (said, left) = self
            .instance
            .on_budget(|instance| instance.attempt_keyed(&input, &place, deadline))?;
        self.working.leave(&groups, left).map_err(Failure::Part)?;
        self.outcome.add(said);
        Ok(())
    }

    fn give_up_row(&mut self, row: usize, cause: String) {
        self.instance.meter.write_failed();
        self.outcome.failed.push((row as u32, cause));
    }

    fn give_up_alarm(&mut self, due: usize, cause: String) {
        self.instance.meter.write_failed();
        let group = self.working.clear_alarm(due);
        self.outcome.failed_alarms.push((group, cause));
    }

    fn is_exhausted(&self) -> bool {
        self.instance.budget.is_exhausted()
    }
}
