//! Takes records of one source on one worker and turns them into columns; what cannot be decoded becomes dead letters.
//!
//! Invariant: every record read is either a row of the batch or refused, never both, never neither.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;

use crate::batch::{Batch, InputId, Origins};
use crate::engine::intake::Intake;
use crate::engine::rate::RateLimit;
use crate::error::ConnectorError;
use crate::format::encode::row_json;
use crate::format::parquet::Piece;
use crate::limits;
use crate::pipeline::plan::{BadRecords, EventTime};
use crate::source::{Progress, Reader, Record};
use crate::time::Micros;

const TOO_FAR_AHEAD: &str = "its event time is further ahead of the clock than `max_ahead` allows";

/// One source as one worker reads it.
pub struct SourceTask {
    /// Index of the source in the plan.
    pub source: usize,
    /// Number of the source in the state.
    pub number: u16,
    pub reader: Box<dyn Reader>,
    pub intake: Intake,
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
        let (intake, rows, number) = (&mut self.intake, &mut self.rows, self.number);
        let ahead_max = self
            .event_time
            .as_ref()
            .map(|t| now.saturating_add(t.max_ahead));
        let before = rows.records;
        let result = match intake.is_columnar() {
            true => self.reader.poll_columns(max, &mut |partition, piece| {
                rows.add_piece(partition, piece, number, intake, ahead_max);
            }),
            false => self.reader.poll(max, wait, &mut |record| {
                rows.add(record, number, intake, ahead_max);
            }),
        };
        rate.give_back(max - (self.rows.records - before).min(max));
        result
    }

    /// The rows collected, if any.
    pub fn finish(&mut self) -> Option<Batch> {
        let rows = &mut self.rows;
        if rows.times.is_empty() {
            return None;
        }
        let columns = self.intake.finish();
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
        intake: &mut Intake,
        ahead_max: Option<Micros>,
    ) {
        self.records += 1;
        let decoded = match record.value {
            None => Err("the record has no value (a tombstone)".to_owned()),
            Some(value) if value.len() > limits::RECORD_BYTES_MAX => {
                Err(format!("larger than {} MB", limits::RECORD_BYTES_MAX >> 20))
            }
            Some(value) => intake.push(&record, value),
        };
        let checked = decoded.and_then(|time| match ahead_max {
            Some(max) if time > max => {
                intake.undo();
                Err(TOO_FAR_AHEAD.to_owned())
            }
            _ => Ok(time),
        });
        match checked {
            Ok(time) => self.accept(source, record.partition, record.number, time),
            Err(reason) => self.refused.push(RefusedRecord {
                partition: record.partition,
                number: record.number,
                reason,
                raw: record.value.unwrap_or_default().to_vec(),
            }),
        }
    }
    /// Rows that come as columns: those that suit the fields, and those that do not.
    fn add_piece(
        &mut self,
        partition: u32,
        piece: Piece,
        source: u16,
        intake: &mut Intake,
        ahead_max: Option<Micros>,
    ) {
        self.records += piece.numbers.len() + piece.refused.len();
        let refuse = |number, reason, raw: String| RefusedRecord {
            partition,
            number,
            reason,
            raw: raw.into_bytes(),
        };
        let refused = piece.refused.into_iter();
        self.refused
            .extend(refused.map(|row| refuse(row.number, row.reason, row.raw)));
        let (mut rows, mut numbers) = (piece.rows, piece.numbers);
        let mut times = intake.times(&rows);
        if let Some(max) = ahead_max
            && times.iter().any(|&time| time > max)
        {
            let ahead = |row: &usize| times[*row] > max;
            for row in (0..times.len()).filter(ahead) {
                let raw = row_json(&rows, row);
                self.refused
                    .push(refuse(numbers[row], TOO_FAR_AHEAD.to_owned(), raw));
            }
            let mask: BooleanArray = times.iter().map(|&time| Some(time <= max)).collect();
            rows = filter_record_batch(&rows, &mask).expect("the mask is as long as the rows");
            let kept = |row: &usize| !ahead(row);
            numbers = (0..numbers.len())
                .filter(kept)
                .map(|row| numbers[row])
                .collect();
            times.retain(|&time| time <= max);
        }
        for (&number, &time) in numbers.iter().zip(&times) {
            self.accept(source, partition, number, time);
        }
        intake.add(rows, &numbers);
    }

    fn accept(&mut self, source: u16, partition: u32, number: i64, time: Micros) {
        self.inputs.push(InputId { source, partition }.pack());
        self.numbers.push(number);
        self.times.push(time);
        self.highest
            .entry(partition)
            .and_modify(|h| *h = time.max(*h))
            .or_insert(time);
    }
}
