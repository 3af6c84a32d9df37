//! A keyed plugin as a step: groups the rows of a call by key, sends each key's state and alarm along and takes back what
//! the plugin made of them.
//!
//! Keeps a value and an alarm a key and, in event-time order, the waiting rows. Emits rows in the pass that brought them,
//! or in event-time order with the tick that moved the watermark above them; alarms fire with the tick. In event-time
//! order rows below the watermark go to the port `late`; in arrival order they are rows like others.
//!
//! Invariant: a call is a pure function of its rows, states and alarms, so how rows are cut into calls does not matter.

mod expiry;
mod given;

use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use crate::batch::Batch;
use crate::limits;
use crate::plugin::{
    AlarmClock, FailureRate, GroupStates, Instance, KeyedInput, KeyedOutcome, StateLayout,
};
use crate::state::key::KeyEncoder;
use crate::state::keyed::KeyedTable;
use crate::state::{Delta, SegmentSource};
use crate::step::groups::Groups;
use crate::step::keyed::given::{Call, write_back};
use crate::step::order::OrderBuffer;
use crate::step::transform::{check_failures, paused, report};
use crate::step::{Gauges, Output, Refused, Restore, Step, StepError, Tick, hot};
use crate::time::{END_OF_TIME, Micros, NO_ALARM, NO_TIME};

/// What a keyed step is made of besides its plugin.
#[derive(Debug, Clone)]
pub struct KeyedSpec {
    /// Indices of the key columns.
    pub key: Vec<usize>,
    pub key_groups: u16,
    pub input: SchemaRef,
    /// Schemas of the plugin's ports (without `late`).
    pub ports: Vec<SchemaRef>,
    /// Rows wait for the watermark; late ones leave by this port.
    pub ordered: Option<Ordered>,
    /// Keys not touched for so long are forgotten.
    pub state_ttl: Option<Micros>,
    /// Share of failing rows at which the pipeline pauses.
    pub failed_max: f64,
}

/// Event-time order.
#[derive(Debug, Clone, Copy)]
pub struct Ordered {
    pub late_port: usize,
}

/// Runs a keyed plugin on one worker.
pub struct Keyed {
    spec: KeyedSpec,
    instance: Instance,
    /// Time spent in the versions before this one.
    nanos_before: u64,
    encoder: KeyEncoder,
    table: KeyedTable,
    waiting: Option<OrderBuffer>,
    /// Those of this worker.
    key_groups: Range<u16>,
    /// The watermark before this epoch's tick.
    watermark: Micros,
    failures: FailureRate,
    groups: Groups,
    late: u64,
}

impl Keyed {
    pub fn new(spec: KeyedSpec, instance: Instance) -> Result<Self, StepError> {
        let types: Vec<_> = spec
            .key
            .iter()
            .map(|&i| spec.input.field(i).data_type().clone())
            .collect();
        let about = instance.component().description();
        let mut table = KeyedTable::new(about.state, spec.key_groups);
        if let Some(ttl) = spec.state_ttl {
            table = table.with_ttl(ttl, about.alarms != AlarmClock::ProcessingTime);
        }
        Ok(Self {
            encoder: KeyEncoder::new(&types).map_err(StepError::Failed)?,
            table,
            waiting: spec.ordered.map(|_| OrderBuffer::new(spec.input.clone())),
            key_groups: 0..spec.key_groups,
            watermark: NO_TIME,
            failures: FailureRate::new(spec.failed_max),
            groups: Groups::default(),
            late: 0,
            instance,
            nanos_before: 0,
            spec,
        })
    }

    /// Calls with rows and no due alarms: those come alone, after all rows of the epoch.
    fn call_rows(&mut self, batch: &Batch, now: Micros, out: &mut Output) -> Result<(), StepError> {
        let mut done = self.call(batch, now, out)?;
        while done < batch.rows() {
            let rest = batch.slice(done, batch.rows() - done);
            done += self.call(&rest, now, out)?;
        }
        Ok(())
    }

    /// One call with the first rows of a batch: how many.
    fn call(&mut self, batch: &Batch, now: Micros, out: &mut Output) -> Result<usize, StepError> {
        let columns: Vec<ArrayRef> = self
            .spec
            .key
            .iter()
            .map(|&i| batch.columns.column(i).clone())
            .collect();
        let keys = self.encoder.encode(&columns, batch.rows());
        let long: Vec<u32> = keys.too_long().map(|row| row as u32).collect();
        if !long.is_empty() {
            self.without(&long, batch, now, out)?;
            return Ok(batch.rows());
        }
        self.groups.begin();
        for row in 0..batch.rows() {
            let slot = self.table.slot(keys.hash(row), keys.key(row));
            self.groups.add(slot, row as u32);
        }
        self.table.read_back().map_err(StepError::Failed)?;
        if let Some(ttl) = self.spec.state_ttl {
            match self.settle(batch, ttl, out)? {
                Settled::All => {}
                Settled::Again => return self.call(batch, now, out),
                Settled::First(rows) => return self.call(&batch.slice(0, rows), now, out),
            }
        }
        let first = UInt32Array::from(std::mem::take(&mut self.groups.first_rows));
        let keys: Vec<ArrayRef> = columns
            .iter()
            .map(|c| take(c, &first, None).expect("a group's first row is a row"))
            .collect();
        let input = KeyedInput {
            reads: self.instance.reads(batch),
            group_of_row: std::mem::take(&mut self.groups.of_row),
            keys: keys.clone(),
            groups: self.groups.slots.len() as u32,
            state: self.gather_states(),
            alarms: self.gather_alarms(),
            due: Vec::new(),
            now,
        };
        let group_of_row = input.group_of_row.clone();
        let alarms = input.alarms.clone();
        let done = self.instance.keyed(input).map_err(paused)?;
        report(
            &done.outcome,
            batch,
            self.instance.component().digest(),
            out,
        );
        let failed: Vec<u32> = done.outcome.failed.iter().map(|f| f.0).collect();
        let call = Call {
            batch,
            group_of_row: &group_of_row,
            keys: &keys,
            alarms: &alarms,
            floor: self.watermark,
        };
        self.finish(done, &call, out);
        check_failures(&mut self.failures, batch.rows(), failed)?;
        Ok(batch.rows())
    }

    /// The alarms that are due by `until`, each once: one that an alarm sets anew waits for the next tick, unless it would
    /// keep its key from being forgotten until then.
    fn fire(&mut self, until: Micros, out: &mut Output) -> Result<(), StepError> {
        if self.alarms_touch() && until != END_OF_TIME {
            return self.fire_in_turn(until, out);
        }
        let mut due = Vec::new();
        self.table.ring(until);
        while self.table.next_due(&mut due).map_err(StepError::Failed)? {
            self.fire_slots(&due, until, out)?;
        }
        Ok(())
    }

    /// The alarms of these slots, which are due.
    fn fire_slots(
        &mut self,
        due: &[u32],
        until: Micros,
        out: &mut Output,
    ) -> Result<(), StepError> {
        for slots in due.chunks(limits::CALL_ROWS_MAX) {
            self.groups.begin();
            slots.iter().for_each(|&slot| self.groups.push(slot));
            let keys = self
                .encoder
                .decode_columns(slots.iter().map(|&s| self.table.key(s)))
                .map_err(StepError::Failed)?;
            let empty = Batch {
                columns: arrow::array::RecordBatch::new_empty(self.spec.input.clone()),
                times: Vec::new().into(),
                origins: None,
            };
            let input = KeyedInput {
                reads: self.instance.reads(&empty),
                group_of_row: Vec::new(),
                keys: keys.clone(),
                groups: slots.len() as u32,
                state: self.gather_states(),
                alarms: self.gather_alarms(),
                due: (0..slots.len() as u32).collect(),
                now: until,
            };
            let alarms = input.alarms.clone();
            self.touch_fired(slots);
            let done = self.instance.keyed(input).map_err(paused)?;
            self.report_alarms(&done, slots, out);
            let failed: Vec<u32> = done.outcome.failed_alarms.iter().map(|f| f.0).collect();
            let call = Call {
                batch: &empty,
                group_of_row: &[],
                keys: &keys,
                alarms: &alarms,
                floor: self.watermark,
            };
            self.finish(done, &call, out);
            check_failures(&mut self.failures, slots.len(), failed)?;
        }
        Ok(())
    }

    /// Refuses the rows whose keys are too long for the state, and calls with the others.
    fn without(
        &mut self,
        long: &[u32],
        batch: &Batch,
        now: Micros,
        out: &mut Output,
    ) -> Result<(), StepError> {
        for &row in long {
            let reason = format!("its key is longer than {} bytes", limits::KEY_BYTES_MAX);
            out.refuse(reason, batch.take(&[row]));
        }
        let others: Vec<u32> = (0..batch.rows() as u32)
            .filter(|r| !long.contains(r))
            .collect();
        match others.is_empty() {
            true => Ok(()),
            false => self.call_rows(&batch.take(&others), now, out),
        }
    }

    fn gather_states(&self) -> GroupStates {
        let slots = &self.groups.slots;
        match self.instance.component().description().state {
            StateLayout::None => GroupStates::None,
            StateLayout::Fixed(width) => {
                let mut words = Vec::with_capacity(slots.len() * width as usize);
                slots
                    .iter()
                    .for_each(|&s| words.extend_from_slice(self.table.words(s)));
                GroupStates::Fixed {
                    words,
                    present: slots.iter().map(|&s| self.table.present(s)).collect(),
                }
            }
            StateLayout::Blob => {
                let (mut offsets, mut data) = (Vec::with_capacity(slots.len() + 1), Vec::new());
                offsets.push(0);
                for &slot in slots {
                    data.extend_from_slice(self.table.blob(slot));
                    offsets.push(data.len() as i32);
                }
                GroupStates::Blob { offsets, data }
            }
        }
    }

    fn gather_alarms(&self) -> Vec<Micros> {
        match self.instance.component().description().alarms {
            AlarmClock::None => Vec::new(),
            _ => self
                .groups
                .slots
                .iter()
                .map(|&s| self.table.alarm(s))
                .collect(),
        }
    }

    /// Writes states and alarms back and sends the rows on.
    fn finish(&mut self, done: KeyedOutcome, call: &Call<'_>, out: &mut Output) {
        for (group, &slot) in self.groups.slots.iter().enumerate() {
            let alarm = done.alarms.get(group).copied().unwrap_or(NO_ALARM);
            if alarm != self.table.alarm(slot) {
                self.table.set_alarm(slot, alarm);
            }
            if done.dirty[group] {
                write_back(&mut self.table, slot, &done.state, group);
            }
            if !self.table.present(slot) && self.table.alarm(slot) == NO_ALARM {
                // Nothing to remember: the next freeze frees the slot.
                self.table.mark_dirty(slot);
            }
        }
        for (port, parts) in done.outcome.ports.into_iter().enumerate() {
            for rows in parts {
                out.push(port, call.port_rows(rows, &self.spec.ports[port]));
            }
        }
    }

    fn report_alarms(&self, done: &KeyedOutcome, slots: &[u32], out: &mut Output) {
        for (group, cause) in &done.outcome.failed_alarms {
            let key = self.encoder.decode(self.table.key(slots[*group as usize]));
            out.refused.push(Refused {
                reason: format!(
                    "the plugin failed on an alarm of this key; the alarm is cleared: {cause}"
                ),
                row: None,
                key: key.ok().map(serde_json::Value::Array),
                plugin: Some(self.instance.component().digest().to_owned()),
            });
        }
    }

    /// Takes the late rows out, for the port `late`.
    fn split_late(&mut self, batch: Batch, late_port: usize, out: &mut Output) -> Batch {
        if self.watermark == NO_TIME || batch.times.iter().all(|&t| t >= self.watermark) {
            return batch;
        }
        let rows = 0..batch.rows() as u32;
        let (late, timely): (Vec<u32>, Vec<u32>) =
            rows.partition(|&r| batch.times[r as usize] < self.watermark);
        self.late += late.len() as u64;
        out.push(late_port, batch.take(&late));
        batch.take(&timely)
    }
}

impl Step for Keyed {
    fn process(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        if let Some(ordered) = self.spec.ordered {
            let timely = self.split_late(batch, ordered.late_port, out);
            if let Some(waiting) = &mut self.waiting {
                waiting.push(timely);
            }
            return Ok(());
        }
        for start in (0..batch.rows()).step_by(limits::CALL_ROWS_MAX) {
            let part = batch.slice(start, limits::CALL_ROWS_MAX.min(batch.rows() - start));
            self.call_rows(&part, self.watermark, out)?;
        }
        Ok(())
    }

    fn tick(&mut self, time: Tick, out: &mut Output) -> Result<(), StepError> {
        if let Some(waiting) = &mut self.waiting {
            for batch in waiting.release(time.watermark, limits::CALL_ROWS_MAX) {
                self.call_rows(&batch, time.watermark, out)?;
            }
        }
        match self.instance.component().description().alarms {
            AlarmClock::None => {}
            AlarmClock::EventTime => self.fire(time.watermark, out)?,
            AlarmClock::ProcessingTime => self.fire(time.now, out)?,
        }
        (self.table.expire(time.watermark)).map_err(StepError::Failed)?;
        self.watermark = time.watermark;
        self.instance.begin_epoch();
        hot::end_epoch(&mut self.table, "its state takes")
    }

    fn freeze(&mut self, checkpoint: u64) -> Result<Delta, StepError> {
        let changes = self.table.freeze(checkpoint);
        let (segment, dropped) = match &mut self.waiting {
            Some(waiting) => waiting.freeze(checkpoint, self.key_groups.clone()),
            None => (None, Vec::new()),
        };
        let source = |rows| Box::new(rows) as Box<dyn SegmentSource>;
        Ok(Delta {
            changes,
            segments: segment.into_iter().map(source).collect(),
            dropped,
        })
    }

    fn restore(&mut self, state: &mut dyn Restore) -> Result<(), StepError> {
        hot::restore(&mut self.table, state)?;
        self.watermark = state.watermark();
        self.key_groups = state.key_groups();
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        let reader = state.reader();
        for id in state.segments().map_err(StepError::Failed)? {
            let bytes = reader.read(&[id]).map_err(StepError::Failed)?;
            let bytes = bytes.ok_or_else(|| StepError::Failed(format!("{id:?} is missing")))?;
            let (encoder, key) = (&mut self.encoder, &self.spec.key);
            let mut mine = |rows: &Batch| {
                let columns: Vec<_> = key
                    .iter()
                    .map(|&i| rows.columns.column(i).clone())
                    .collect();
                let keys = encoder.encode(&columns, rows.rows());
                (0..rows.rows() as u32)
                    .filter(|&r| state.owns(keys.hash(r as usize)))
                    .collect()
            };
            waiting
                .restore(id, &bytes[0], self.watermark, &mut mine)
                .map_err(|e| StepError::Failed(format!("{id:?} of the waiting rows: {e}")))?;
        }
        Ok(())
    }

    fn swap(&mut self, instance: Instance) {
        self.nanos_before += self.instance.nanos();
        self.instance = instance;
    }

    fn gauges(&self) -> Gauges {
        Gauges {
            waiting_bytes: self.waiting.as_ref().map_or(0, OrderBuffer::bytes),
            plugin_nanos: self.nanos_before + self.instance.nanos(),
            late: self.late,
            ..hot::gauges(&self.table)
        }
    }
}

/// What can be said of a batch once keys that nobody touched for too long are forgotten.
enum Settled {
    /// Its rows can go into one call.
    All,
    /// So many rows can: the next one finds its key forgotten since a row before it.
    First(usize),
    /// Alarms fired on the way: the call has to be put together again.
    Again,
}
