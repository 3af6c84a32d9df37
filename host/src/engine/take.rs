//! Takes records of one source on one worker and turns them into columns; what cannot be decoded becomes dead letters.
//!
//! Invariant: every record read is either a row of the batch or refused, never both, never neither.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::batch::{Batch, InputId, Origins};
use crate::engine::rate::RateLimit;
use crate::error::ConnectorError;
use crate::format::Decoder;
use crate::limits;
use crate::pipeline::plan::{BadRecords, EventTime};
use crate::source::{Progress, Reader, Record};
use crate::time::Micros;

/// One source as one worker reads it.
pub struct SourceTask {
    /// Index of the source in the plan.
    pub source: usize,
    /// Number of the source in the state.
    pub number: u16,
    pub reader: Box<dyn Reader>,
    pub decoder: Box<dyn Decoder>,
    pub event_time: Option<EventTime>,
    pub rows: Rows,
    /// Records an epoch at most, this worker's share.
    pub per_epoch: usize,
}

/// What was collected since the last [`SourceTask::finish`].
#[derive(Debug, Default)]
pub struct Rows {
    inputs: Vec<u64>,
    numbers: Vec<i64>,
    times: Vec<Micros>,
    /// Highest event time by partition.
    pub highest: BTreeMap<u32, Micros>,
    pub refused: Vec<RefusedRecord>,
    pub records: usize,
}

/// A record that cannot become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    pub partition: u32,
    pub number: i64,
    pub reason: String,
    /// Cut at [`limits::DEAD_LETTER_RAW_BYTES_MAX`] by whoever writes it.
    pub raw: Vec<u8>,
}

impl SourceTask {
    /// Reads what is there, up to the limits; waits at most `wait` for a first record. `now` is wall time.
    pub fn poll(
        &mut self,
        wait: Duration,
        now: Micros,
        rate: &RateLimit,
        elapsed: Duration,
    ) -> Result<(), ConnectorError> {
        let left = self.per_epoch.saturating_sub(self.rows.records);
        let max = rate.allow(left, elapsed);
        if max == 0 {
            return Ok(());
        }
        let (decoder, rows, number) = (&mut self.decoder, &mut self.rows, self.number);
        let ahead_max = self
            .event_time
            .as_ref()
            .map(|t| now.saturating_add(t.max_ahead));
        let before = rows.records;
        let result = self.reader.poll(max, wait, &mut |record| {
            rows.add(record, number, &mut **decoder, ahead_max)
        });
        rate.give_back(max - (self.rows.records - before).min(max));
        result
    }

    /// The rows collected, if any.
    pub fn finish(&mut self) -> Option<Batch> {
        let rows = &mut self.rows;
        if rows.times.is_empty() {
            return None;
        }
        let columns = self.decoder.finish();
        Some(Batch {
            columns,
            times: std::mem::take(&mut rows.times).into(),
            origins: Some(Origins {
                inputs: std::mem::take(&mut rows.inputs).into(),
                offsets: std::mem::take(&mut rows.numbers).into(),
            }),
        })
    }

    /// How far each partition is, with the highest valid event time this epoch brought.
    pub fn progress(&mut self) -> Vec<(Progress, Option<Micros>)> {
        let mut highest = std::mem::take(&mut self.rows.highest);
        let timed = self.event_time.is_some();
        let seen = |p: Progress| (p, highest.remove(&p.partition).filter(|_| timed));
        self.reader.progress().into_iter().map(seen).collect()
    }

    /// The refused records since the last call, by the source's rule for bad records.
    pub fn refused(&mut self, rule: BadRecords) -> Result<Vec<RefusedRecord>, RefusedRecord> {
        let refused = std::mem::take(&mut self.rows.refused);
        match (rule, refused.first()) {
            (BadRecords::Stop, Some(first)) => Err(first.clone()),
            _ => Ok(refused),
        }
    }
}

impl Rows {
    fn add(
        &mut self,
        record: Record<'_>,
        source: u16,
        decoder: &mut dyn Decoder,
        ahead_max: Option<Micros>,
    ) {
        self.records += 1;
        let decoded = match record.value {
            None => Err("the record has no value (a tombstone)".to_owned()),
            Some(value) if value.len() > limits::RECORD_BYTES_MAX => {
                Err(format!("larger than {} MB", limits::RECORD_BYTES_MAX >> 20))
            }
            Some(value) => decoder.push(value),
        };
        let checked = decoded.and_then(|time| match ahead_max {
            Some(max) if time > max => {
                decoder.undo();
                Err(
                    "its event time is further ahead of the clock than `max_ahead` allows"
                        .to_owned(),
                )
            }
            _ => Ok(time),
        });
        match checked {
            Ok(time) => {
                self.inputs.push(
                    InputId {
                        source,
                        partition: record.partition,
                    }
                    .pack(),
                );
                self.numbers.push(record.number);
                self.times.push(time);
                self.highest
                    .entry(record.partition)
                    .and_modify(|h| *h = time.max(*h))
                    .or_insert(time);
            }
            Err(reason) => self.refused.push(RefusedRecord {
                partition: record.partition,
                number: record.number,
                reason,
                raw: record.value.unwrap_or_default().to_vec(),
            }),
        }
    }
}
