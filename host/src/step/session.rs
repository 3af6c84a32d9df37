//! Session windows: rows of a key whose gaps are shorter than the timeout make one window.
//!
//! State: for each key its open sessions, which are bounds and partial results, with an alarm when the first of them
//! ends. A row extends a session that it is nearer to than the gap, and joins two that it lies between. Emits a session
//! when the watermark reaches its last row plus the gap. A row that would be over by itself and touches no open session
//! goes to the port `late`.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, RowParser, SortField};

use super::window::{WindowSpec, key_columns};
use crate::batch::Batch;
use crate::expr::Aggregation;
use crate::limits;
use crate::pipeline::plan::WindowKind;
use crate::plugin::StateLayout;
use crate::state::Delta;
use crate::state::key::KeyEncoder;
use crate::state::keyed::KeyedTable;
use crate::step::transform::record_batch;
use crate::step::{Gauges, Output, Refused, Restore, Step, StepError, Tick, hot};
use crate::time::{MICROS_PER_MS, Micros, NO_ALARM, NO_TIME};

const LATE_PORT: usize = 1;
/// Start, last row and length of the partial results in front of each session of a key.
const HEADER: usize = 8 + 8 + 4;

/// A session window on one worker.
pub struct Sessions {
    spec: WindowSpec,
    gap: Micros,
    encoder: KeyEncoder,
    /// The open sessions of each key, ascending: start i64, last i64, length u32, partial results.
    table: KeyedTable,
    states: RowConverter,
    parser: RowParser,
    due: Vec<u32>,
    /// Of the rows of a batch.
    slots: Vec<u32>,
    /// The watermark before this epoch's tick.
    watermark: Micros,
    late: u64,
}

/// An open session while a batch is worked in.
#[derive(Debug, Clone)]
struct Session {
    start: Micros,
    last: Micros,
    /// Groups of the rows of the batch that belong to it.
    groups: Vec<usize>,
    /// Stored partial results that belong to it, by their place in [`Touched::stored`].
    olds: Vec<usize>,
    /// Partial results as stored; empty once they are among `olds`.
    stored: Vec<u8>,
}

/// The keys of a batch with their sessions, and the partial results these begin with.
#[derive(Default)]
struct Touched {
    /// By slot: its place in `keys`.
    places: std::collections::HashMap<u32, usize>,
    keys: Vec<(u32, Vec<Session>)>,
    /// Stored partial results of sessions that got rows.
    stored: Vec<Vec<u8>>,
    groups: usize,
}

/// Rows that are late go to this group, which nobody asks for.
const NOBODY: usize = 0;

impl Sessions {
    /// # Panics
    /// If the window is not a session.
    pub fn new(spec: WindowSpec) -> Result<Self, StepError> {
        let WindowKind::Session(gap) = spec.window.kind else {
            panic!("not a session window");
        };
        let types: Vec<DataType> = spec
            .key
            .iter()
            .map(|&i| spec.input.field(i).data_type().clone())
            .collect();
        let states = spec.window.aggregation.state_schema();
        let fields = states.fields().iter();
        let fields = fields.map(|f| SortField::new(f.data_type().clone()));
        let states = RowConverter::new(fields.collect()).map_err(arrow_failed)?;
        Ok(Self {
            gap,
            encoder: KeyEncoder::new(&types).map_err(StepError::Failed)?,
            table: KeyedTable::new(StateLayout::Blob, spec.key_groups),
            parser: states.parser(),
            states,
            due: Vec::new(),
            slots: Vec::new(),
            watermark: NO_TIME,
            late: 0,
            spec,
        })
    }

    fn aggregation(&self) -> &Aggregation {
        &self.spec.window.aggregation
    }

    /// Rows whose keys are too long for the state are refused; the others stay.
    fn with_short_keys(&mut self, batch: Batch, out: &mut Output) -> Batch {
        let keys = key_columns(&batch, &self.spec.key);
        let keys = self.encoder.encode(&keys, batch.rows());
        let long: Vec<u32> = keys.too_long().map(|row| row as u32).collect();
        if long.is_empty() {
            return batch;
        }
        for &row in &long {
            let reason = format!("its key is longer than {} bytes", limits::KEY_BYTES_MAX);
            out.refuse(reason, batch.take(&[row]));
        }
        let others: Vec<u32> = (0..batch.rows() as u32)
            .filter(|row| long.binary_search(row).is_err())
            .collect();
        batch.take(&others)
    }

    /// Puts each row into a session; the group of its partial results, or [`NOBODY`] for a late row.
    fn assign(&mut self, batch: &Batch, touched: &mut Touched) -> Result<Vec<usize>, StepError> {
        touched.groups = NOBODY + 1;
        let keys = self
            .encoder
            .encode(&key_columns(batch, &self.spec.key), batch.rows());
        self.slots.clear();
        for row in 0..batch.rows() {
            let slot = self.table.slot(keys.hash(row), keys.key(row));
            self.slots.push(slot);
        }
        self.table.read_back().map_err(StepError::Failed)?;
        let mut groups = Vec::with_capacity(batch.rows());
        for (&slot, &time) in self.slots.iter().zip(batch.times.iter()) {
            let place = match touched.places.get(&slot) {
                Some(place) => *place,
                None => touched.open(slot, self.table.blob(slot)),
            };
            let is_late = time.saturating_add(self.gap) <= self.watermark;
            groups.push(touched.join(place, time, self.gap, is_late));
        }
        Ok(groups)
    }

    /// The partial results of the sessions that got rows, in their order in `touched`.
    fn accumulate(
        &self,
        touched: &Touched,
        inputs: &crate::expr::Inputs,
        groups: &[usize],
    ) -> Result<Vec<ArrayRef>, String> {
        let mut accumulators = self.aggregation().accumulators();
        accumulators.update(inputs, groups, touched.groups)?;
        let fresh = accumulators.state()?;
        // Fresh ones first, then stored ones: from these each session takes its own.
        let (mut own, mut of) = (Vec::new(), Vec::new());
        for (number, session) in touched.changed().enumerate() {
            let stored = session.olds.iter().map(|old| touched.groups + old);
            own.extend(
                session
                    .groups
                    .iter()
                    .copied()
                    .chain(stored)
                    .map(|i| i as u32),
            );
            of.resize(own.len(), number);
        }
        let rows = touched.stored.iter().map(|bytes| self.parser.parse(bytes));
        let stored = self.states.convert_rows(rows).map_err(|e| e.to_string())?;
        let own = UInt32Array::from(own);
        let gather = |(fresh, stored): (&ArrayRef, &ArrayRef)| {
            let all = concat(&[fresh.as_ref(), stored.as_ref()])?;
            take(&all, &own, None)
        };
        let gathered: Result<Vec<ArrayRef>, _> = fresh.iter().zip(&stored).map(gather).collect();
        let gathered = gathered.map_err(|e| e.to_string())?;
        let sessions = of.last().map_or(0, |last| last + 1);
        if own.len() == sessions {
            return Ok(gathered);
        }
        // In one call: it takes every session to have a value if none of the values is null.
        accumulators.merge(&gathered, &of, sessions)?;
        accumulators.state()
    }

    /// Writes the sessions of a batch back.
    fn store(&mut self, touched: Touched, states: &[ArrayRef]) -> Result<(), StepError> {
        let rows = self.states.convert_columns(states).map_err(arrow_failed)?;
        let mut changed = 0..;
        let mut blob = Vec::new();
        for (slot, sessions) in touched.keys {
            blob.clear();
            let mut alarm = NO_ALARM;
            for session in &sessions {
                if session.groups.is_empty() {
                    write(session.start, session.last, &session.stored, &mut blob);
                } else {
                    let row = rows.row(changed.next().expect("without an end"));
                    write(session.start, session.last, row.data(), &mut blob);
                }
                alarm = alarm.min(session.last.saturating_add(self.gap));
            }
            self.table.set_blob(slot, &blob);
            self.table.set_alarm(slot, alarm);
        }
        Ok(())
    }

    /// Takes the sessions that are over at `until` from a key.
    fn close(&mut self, slot: u32, until: Micros, ended: &mut Vec<Ended>) {
        let (mut left, mut alarm) = (Vec::new(), NO_ALARM);
        for session in read(self.table.blob(slot)) {
            let end = session.last.saturating_add(self.gap);
            if end <= until {
                ended.push(Ended {
                    slot,
                    start: session.start,
                    end,
                    state: session.stored,
                });
            } else {
                write(session.start, session.last, &session.stored, &mut left);
                alarm = alarm.min(end);
            }
        }
        self.table.set_blob(slot, &left);
        self.table.set_alarm(slot, alarm);
    }

    fn give(&mut self, ended: &[Ended], out: &mut Output) -> Result<(), StepError> {
        let rows = ended.iter().map(|e| self.parser.parse(&e.state));
        let states = self.states.convert_rows(rows).map_err(arrow_failed)?;
        let mut accumulators = self.aggregation().accumulators();
        let groups: Vec<usize> = (0..ended.len()).collect();
        let merged = accumulators.merge(&states, &groups, ended.len());
        merged.map_err(StepError::Failed)?;
        let mut refused = Vec::new();
        let (results, kept) = accumulators
            .evaluate(&mut refused)
            .map_err(StepError::Failed)?;
        for (group, reason) in refused {
            let key = self
                .encoder
                .decode(self.table.key(ended[group as usize].slot));
            let end = crate::format::timestamp::show(ended[group as usize].end);
            out.refused.push(Refused {
                reason: format!("its session that ends at {end}: {reason}"),
                row: None,
                key: key.ok().map(serde_json::Value::Array),
                plugin: None,
            });
        }
        let ended: Vec<&Ended> = match &kept {
            Some(kept) => kept.iter().map(|&g| &ended[g as usize]).collect(),
            None => ended.iter().collect(),
        };
        let mut columns = self
            .encoder
            .decode_columns(ended.iter().map(|e| self.table.key(e.slot)))
            .map_err(StepError::Failed)?;
        let bound = |at: &dyn Fn(&Ended) -> Micros| {
            let times = ended.iter().map(|e| at(e));
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
                as ArrayRef
        };
        columns.extend([bound(&|e| e.start), bound(&|e| e.end)]);
        columns.extend(results.columns().iter().cloned());
        out.push(
            0,
            Batch {
                columns: record_batch(&self.spec.output, columns, ended.len()),
                times: ended.iter().map(|e| e.end - MICROS_PER_MS).collect(),
                origins: None,
            },
        );
        Ok(())
    }
}

/// A session that is over.
struct Ended {
    slot: u32,
    start: Micros,
    end: Micros,
    state: Vec<u8>,
}

impl Touched {
    /// A key of the batch, with the sessions it has.
    fn open(&mut self, slot: u32, blob: &[u8]) -> usize {
        let place = self.keys.len();
        self.keys.push((slot, read(blob)));
        self.places.insert(slot, place);
        place
    }

    /// The group of a row at `time`, whose session may be an old one, several that become one, or new.
    fn join(&mut self, place: usize, time: Micros, gap: Micros, is_late: bool) -> usize {
        let sessions = &mut self.keys[place].1;
        let near =
            |s: &Session| time.saturating_sub(gap) < s.last && time.saturating_add(gap) > s.start;
        let first = sessions.iter().position(near);
        let Some(first) = first else {
            if is_late {
                return NOBODY;
            }
            let group = self.groups;
            self.groups += 1;
            let at = sessions.partition_point(|s| s.start < time);
            sessions.insert(
                at,
                Session {
                    start: time,
                    last: time,
                    groups: vec![group],
                    olds: Vec::new(),
                    stored: Vec::new(),
                },
            );
            return group;
        };
        let more = sessions[first + 1..].iter().take_while(|s| near(s)).count();
        let joined: Vec<Session> = sessions.drain(first + 1..=first + more).collect();
        let session = &mut sessions[first];
        session.start = session.start.min(time);
        session.last = session.last.max(time);
        for mut other in joined {
            session.start = session.start.min(other.start);
            session.last = session.last.max(other.last);
            session.groups.append(&mut other.groups);
            session.olds.append(&mut other.olds);
            keep(&mut self.stored, other.stored, &mut session.olds);
        }
        let own = std::mem::take(&mut session.stored);
        keep(&mut self.stored, own, &mut session.olds);
        if session.groups.is_empty() {
            session.groups.push(self.groups);
            self.groups += 1;
        }
        session.groups[0]
    }

    /// The sessions that got rows.
    fn changed(&self) -> impl Iterator<Item = &Session> {
        let sessions = self.keys.iter().flat_map(|(_, sessions)| sessions);
        sessions.filter(|s| !s.groups.is_empty())
    }
}

/// Puts the partial results of a session with the stored ones, and their place with those of the session.
fn keep(all: &mut Vec<Vec<u8>>, stored: Vec<u8>, olds: &mut Vec<usize>) {
    if !stored.is_empty() {
        olds.push(all.len());
        all.push(stored);
    }
}

fn write(start: Micros, last: Micros, state: &[u8], blob: &mut Vec<u8>) {
    blob.extend_from_slice(&start.to_le_bytes());
    blob.extend_from_slice(&last.to_le_bytes());
    blob.extend_from_slice(&(state.len() as u32).to_le_bytes());
    blob.extend_from_slice(state);
}

/// The sessions of a key, as [`write`] wrote them.
fn read(mut blob: &[u8]) -> Vec<Session> {
    let mut sessions = Vec::new();
    while let Some((header, rest)) = blob.split_first_chunk::<HEADER>() {
        let number =
            |at: usize| i64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let len = u32::from_le_bytes(header[16..].try_into().expect("4 bytes")) as usize;
        let (state, rest) = rest.split_at(len.min(rest.len()));
        sessions.push(Session {
            start: number(0),
            last: number(8),
            groups: Vec::new(),
            olds: Vec::new(),
            stored: state.to_vec(),
        });
        blob = rest;
    }
    sessions
}

impl Step for Sessions {
    fn process(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        let batch = self.with_short_keys(batch, out);
        let mut refused = Vec::new();
        let (inputs, kept) = self.aggregation().inputs(&batch, &mut refused);
        for (row, reason) in refused {
            out.refuse(reason, batch.take(&[row]));
        }
        let batch = match kept {
            Some(kept) => batch.take(&kept),
            None => batch,
        };
        if batch.rows() == 0 {
            return Ok(());
        }
        let mut touched = Touched::default();
        let groups = self.assign(&batch, &mut touched)?;
        let late: Vec<u32> = (0..batch.rows() as u32)
            .filter(|&row| groups[row as usize] == NOBODY)
            .collect();
        if !late.is_empty() {
            self.late += late.len() as u64;
            out.push(LATE_PORT, batch.take(&late));
        }
        let states = self.accumulate(&touched, &inputs, &groups);
        self.store(touched, &states.map_err(StepError::Failed)?)
    }

    fn tick(&mut self, time: Tick, out: &mut Output) -> Result<(), StepError> {
        let mut due = std::mem::take(&mut self.due);
        let mut ended = Vec::new();
        self.table.ring(time.watermark);
        while self.table.next_due(&mut due).map_err(StepError::Failed)? {
            for &slot in &due {
                self.close(slot, time.watermark, &mut ended);
                if ended.len() >= limits::CALL_ROWS_MAX {
                    self.give(&ended, out)?;
                    ended.clear();
                }
            }
        }
        if !ended.is_empty() {
            self.give(&ended, out)?;
        }
        self.due = due;
        self.watermark = time.watermark;
        hot::end_epoch(&mut self.table, "its open sessions take")
    }

    fn freeze(&mut self, checkpoint: u64) -> Result<Delta, StepError> {
        Ok(Delta {
            changes: self.table.freeze(checkpoint),
            ..Delta::default()
        })
    }

    fn restore(&mut self, state: &mut dyn Restore) -> Result<(), StepError> {
        self.watermark = state.watermark();
        hot::restore(&mut self.table, state)
    }

    fn gauges(&self) -> Gauges {
        Gauges {
            late: self.late,
            ..hot::gauges(&self.table)
        }
    }
}

fn arrow_failed(error: arrow::error::ArrowError) -> StepError {
    StepError::Failed(error.to_string())
}

#[cfg(test)]
mod tests;
