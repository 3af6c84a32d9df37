//! Interval join: pairs of rows with equal keys of which the right one's event time is within
//! `[left - before, left + after]`, bounds included.
//!
//! State: the rows of both sides, in memory by bucket of time and key, and as one segment a bucket and checkpoint. A row
//! is forgotten once the watermark has passed everything it could match. Emits a pair, with the later of its two times,
//! in the epoch in which its second row arrives; an unmatched row of an outer side, with its own time, when the watermark
//! has passed its reach. A row below the watermark goes to the port `late`: what it would match may be gone. A null in
//! the key matches nothing.
//!
//! Invariant: whether a row has a match follows from the rows in the state; so rows of a side stay as long as an
//! unmatched row of the other that they would match may still go out.

mod bucket;
mod compaction;
mod late;
mod pairs;
mod side;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};

use super::order::decode;
use super::window::{Nothing, key_columns};
use crate::batch::Batch;
use crate::limits;
use crate::pipeline::plan;
use crate::state::key::{EncodedKeys, KeyEncoder};
use crate::state::{Delta, SegmentId, Segments};
use crate::step::transform::record_batch;
use crate::step::{Gauges, Output, Restore, Step, StepError, Tick};
use crate::time::{MICROS_PER_MS, MICROS_PER_SECOND, Micros, NO_TIME};
use bucket::Bucket;
use compaction::{Freeze, side_of};
use late::own_column;
pub use late::{SIDE, late_schema};
use pairs::Pairs;
use side::Side;

const LATE_PORT: usize = 1;
/// Buckets that the reach of a row covers, about: more are dropped sooner and cost a probe each.
const BUCKETS_OF_REACH: Micros = 4;

/// What a join step is made of.
#[derive(Debug, Clone)]
pub struct JoinSpec {
    pub inputs: [SchemaRef; 2],
    /// Key columns of each input.
    pub keys: [Vec<usize>; 2],
    pub key_groups: u16,
    pub join: plan::Join,
    /// Segments of a bucket that become one.
    pub segments_max: usize,
    /// Of the port `late`, as [`late_schema`] gives it.
    pub late: SchemaRef,
}

/// An interval join on one worker.
pub struct Join {
    spec: JoinSpec,
    sides: [Side; 2],
    encoder: KeyEncoder,
    /// Length of a bucket, whole milliseconds.
    width: Micros,
    groups: Range<u16>,
    dropped: Vec<SegmentId>,
    reader: Arc<dyn Segments>,
    /// The watermark before this epoch's tick.
    watermark: Micros,
    late: u64,
}

impl Join {
    pub fn new(spec: JoinSpec) -> Result<Self, StepError> {
        let types: Vec<DataType> = spec.keys[0]
            .iter()
            .map(|&i| spec.inputs[0].field(i).data_type().clone())
            .collect();
        let reach = spec.join.before.saturating_add(spec.join.after);
        let width = (reach / BUCKETS_OF_REACH).max(MICROS_PER_SECOND);
        Ok(Self {
            sides: [Side::new(&spec, 0), Side::new(&spec, 1)],
            encoder: KeyEncoder::new(&types).map_err(StepError::Failed)?,
            width: width - width.rem_euclid(MICROS_PER_MS),
            groups: 0..spec.key_groups,
            dropped: Vec::new(),
            reader: Arc::new(Nothing),
            watermark: NO_TIME,
            late: 0,
            spec,
        })
    }

    /// The times of the other side that a row of `side` at `time` matches.
    fn bounds(&self, side: usize, time: Micros) -> (Micros, Micros) {
        let join = &self.spec.join;
        let (back, on) = [(join.before, join.after), (join.after, join.before)][side];
        (time.saturating_sub(back), time.saturating_add(on))
    }

    /// Sorts rows out: late ones, those that can match nothing, and those that are left.
    fn sort_out(
        &mut self,
        side: usize,
        batch: &Batch,
        out: &mut Output,
    ) -> Result<Vec<u32>, StepError> {
        let columns = key_columns(batch, &self.spec.keys[side]);
        let is_null = |row: usize| columns.iter().any(|c| c.is_null(row));
        let (mut late, mut alone, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for (row, &time) in batch.times.iter().enumerate() {
            if time < self.watermark {
                late.push(row as u32);
            } else if is_null(row) {
                alone.push(row as u32);
            } else {
                left.push(row as u32);
            }
        }
        if !late.is_empty() {
            self.late += late.len() as u64;
            out.push(LATE_PORT, self.late_rows(side, &batch.take(&late)));
        }
        if self.sides[side].is_outer && !alone.is_empty() {
            let rows = self.stored(side, &batch.take(&alone));
            let own = self.sides[side].carried(&rows.columns);
            self.give_alone(side, own, rows.times.to_vec(), out);
        }
        Ok(left)
    }

    fn late_rows(&self, side: usize, batch: &Batch) -> Batch {
        let rows = batch.rows();
        let names: ArrayRef = Arc::new(StringArray::from(vec![late::SIDES[side]; rows]));
        let column = |field: &FieldRef| match own_column(&self.spec.inputs, side, field) {
            Some(column) => batch.columns.column(column).clone(),
            None => new_null_array(field.data_type(), rows),
        };
        let columns = self.spec.late.fields().iter().skip(1).map(column);
        Batch {
            columns: record_batch(
                &self.spec.late,
                std::iter::once(names).chain(columns).collect(),
                rows,
            ),
            ..batch.clone()
        }
    }

    /// Rows with the stored columns only; what a dead letter would name is forgotten here.
    fn stored(&self, side: usize, batch: &Batch) -> Batch {
        let columns = batch
            .columns
            .project(&self.sides[side].stored)
            .expect("the stored columns are there");
        Batch {
            columns: record_batch(
                &self.sides[side].schema,
                columns.columns().to_vec(),
                batch.rows(),
            ),
            times: batch.times.clone(),
            origins: None,
        }
    }

    /// Rows of a side that go out without a match: their carried columns and times.
    fn give_alone(&self, side: usize, own: Vec<ArrayRef>, times: Vec<Micros>, out: &mut Output) {
        let other = &self.sides[1 - side];
        let nulls = other
            .carried
            .iter()
            .map(|&i| new_null_array(other.schema.field(i).data_type(), times.len()));
        let columns = match side {
            0 => own.into_iter().chain(nulls).collect(),
            _ => nulls.chain(own).collect(),
        };
        self.project(columns, times, out);
    }

    /// Both sides' carried columns as the rows of the join.
    fn project(&self, columns: Vec<ArrayRef>, times: Vec<Micros>, out: &mut Output) {
        let paired = Batch {
            columns: record_batch(&self.spec.join.paired, columns, times.len()),
            times: times.into(),
            origins: None,
        };
        let mut refused = Vec::new();
        let rows = self.spec.join.projection.apply(&paired, &mut refused);
        for (row, reason) in refused {
            out.refuse(reason, paired.take(&[row]));
        }
        out.push(0, rows);
    }

    /// Pairs the rows of a batch with the stored rows of the other side.
    fn probe(
        &mut self,
        side: usize,
        batch: &Batch,
        rows: &[u32],
        keys: &EncodedKeys,
        out: &mut Output,
    ) {
        let mut pairs = Pairs::default();
        let mut matched = vec![false; batch.rows()];
        for &row in rows {
            let time = batch.times[row as usize];
            let (from, to) = self.bounds(side, time);
            let buckets = from.div_euclid(self.width)..=to.div_euclid(self.width);
            let (hash, key) = (keys.hash(row as usize), keys.key(row as usize));
            let marks = self.sides[1 - side].is_outer;
            for (&number, bucket) in self.sides[1 - side].buckets.range_mut(buckets) {
                let found: Vec<u32> = bucket
                    .rows_of(hash, key)
                    .filter(|&other| (from..=to).contains(&bucket.times[other as usize]))
                    .collect();
                for other in found {
                    let pair_time = time.max(bucket.times[other as usize]);
                    pairs.push(row, number, other, pair_time);
                    matched[row as usize] = true;
                    if marks {
                        bucket.mark(other);
                    }
                }
            }
            if pairs.len() >= limits::CALL_ROWS_MAX {
                self.give_pairs(side, batch, std::mem::take(&mut pairs), out);
            }
        }
        self.give_pairs(side, batch, pairs, out);
        self.insert(side, batch, rows, keys, &matched);
    }

    fn give_pairs(&self, side: usize, batch: &Batch, pairs: Pairs, out: &mut Output) {
        if pairs.len() == 0 {
            return;
        }
        let (mine, other) = (&self.sides[side], &self.sides[1 - side]);
        let own = pairs.own(&mine.carried(&batch.columns));
        let theirs = pairs.theirs(&other.buckets, other.carried.len());
        let columns = match side {
            0 => own.into_iter().chain(theirs).collect(),
            _ => theirs.into_iter().chain(own).collect(),
        };
        self.project(columns, pairs.times, out);
    }

    /// Keeps rows for those of the other side that come later.
    fn insert(
        &mut self,
        side: usize,
        batch: &Batch,
        rows: &[u32],
        keys: &EncodedKeys,
        matched: &[bool],
    ) {
        let mut by_bucket: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for &row in rows {
            let bucket = batch.times[row as usize].div_euclid(self.width);
            by_bucket.entry(bucket).or_default().push(row);
        }
        let in_memory = self.sides[side].in_memory().to_vec();
        for (number, rows) in by_bucket {
            let bucket = self.sides[side].buckets.entry(number).or_default();
            let first = bucket.len() as u32;
            bucket.add(batch, &rows, keys, &in_memory);
            for (i, &row) in rows.iter().enumerate() {
                if matched[row as usize] {
                    bucket.mark(first + i as u32);
                }
            }
        }
    }

    /// Gives the unmatched rows that nothing can match any more.
    fn give_unmatched(&mut self, side: usize, watermark: Micros, out: &mut Output) {
        let until = watermark.saturating_sub(self.sides[side].reach);
        let last = until.div_euclid(self.width);
        let mut alone = Vec::new();
        for bucket in self.sides[side].buckets.range_mut(..=last).map(|b| b.1) {
            let rows = bucket.unmatched(until);
            if rows.is_empty() {
                continue;
            }
            let pieces: Vec<&RecordBatch> = bucket.pieces().collect();
            let places: Vec<_> = rows.iter().map(|&row| bucket.place(row)).collect();
            let columns = arrow::compute::interleave_record_batch(&pieces, &places)
                .expect("pieces have one schema");
            let times: Vec<Micros> = rows.iter().map(|&row| bucket.times[row as usize]).collect();
            alone.push((columns.columns().to_vec(), times));
        }
        let carried = self.sides[side].carried.len();
        for (mut own, times) in alone {
            own.truncate(carried);
            self.give_alone(side, own, times, out);
        }
    }

    fn forget(&mut self, side: usize, watermark: Micros) {
        let width = self.width;
        let mine = &mut self.sides[side];
        while let Some(entry) = mine.buckets.first_entry() {
            let end = (entry.key() + 1).saturating_mul(width);
            if watermark <= (end - 1).saturating_add(mine.kept) {
                break;
            }
            self.dropped.extend(entry.remove().segments);
        }
        // A bucket that the watermark has passed takes no more rows.
        let before = self.watermark.div_euclid(width);
        let now = watermark.div_euclid(width);
        if before < now {
            let passed = mine.buckets.range_mut(before..now);
            passed.for_each(|(_, bucket)| bucket.shrink());
        }
    }
}

impl Step for Join {
    fn process(&mut self, input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        let rows = self.sort_out(input, &batch, out)?;
        if rows.is_empty() {
            return Ok(());
        }
        let stored = self.stored(input, &batch);
        // The encoder's buffers are needed while the join changes; it is put back below.
        let mut encoder = std::mem::replace(&mut self.encoder, no_encoder());
        let keys = encoder.encode(&key_columns(&batch, &self.spec.keys[input]), batch.rows());
        let long: Vec<u32> = keys.too_long().map(|row| row as u32).collect();
        for &row in &long {
            let reason = format!("its key is longer than {} bytes", limits::KEY_BYTES_MAX);
            out.refuse(reason, batch.take(&[row]));
        }
        let rows: Vec<u32> = rows.into_iter().filter(|r| !long.contains(r)).collect();
        self.probe(input, &stored, &rows, keys, out);
        self.encoder = encoder;
        Ok(())
    }

    fn tick(&mut self, time: Tick, out: &mut Output) -> Result<(), StepError> {
        for side in 0..2 {
            if self.sides[side].is_outer {
                self.give_unmatched(side, time.watermark, out);
            }
        }
        for side in 0..2 {
            self.forget(side, time.watermark);
        }
        self.watermark = time.watermark;
        super::check_memory(
            "its rows that wait for a match take",
            self.gauges().state_bytes,
        )
    }

    fn freeze(&mut self, checkpoint: u64) -> Result<Delta, StepError> {
        let mut delta = Delta {
            dropped: std::mem::take(&mut self.dropped),
            ..Delta::default()
        };
        let freeze = Freeze {
            checkpoint,
            groups: &self.groups,
            width: self.width,
            reader: &self.reader,
            segments_max: self.spec.segments_max,
        };
        let [left, right] = &mut self.sides;
        freeze.side(0, left, &mut delta);
        freeze.side(1, right, &mut delta);
        Ok(delta)
    }

    fn restore(&mut self, state: &mut dyn Restore) -> Result<(), StepError> {
        self.groups = state.key_groups();
        self.watermark = state.watermark();
        let reader = state.reader();
        self.reader = reader.clone();
        let failed = |e: String| StepError::Failed(format!("rows that wait for a match: {e}"));
        for id in state.segments().map_err(failed)? {
            let side = side_of(id);
            let bytes = reader.read(&[id]).map_err(failed)?;
            let bytes = bytes.ok_or_else(|| failed(format!("{id:?} is missing")))?;
            let rows = decode(&bytes[0], &self.sides[side].schema).map_err(failed)?;
            // The columns of the key are stored first.
            let key: Vec<usize> = (0..self.spec.keys[side].len()).collect();
            let keys = self.encoder.encode(&key_columns(&rows, &key), rows.rows());
            let mine = (0..rows.rows() as u32).filter(|&r| state.owns(keys.hash(r as usize)));
            let mine: Vec<u32> = mine.collect();
            let number = id.millis.div_euclid(self.width / MICROS_PER_MS);
            let in_memory = self.sides[side].in_memory().to_vec();
            let bucket = self.sides[side].buckets.entry(number).or_default();
            bucket.segments.push(id);
            if !mine.is_empty() {
                bucket.add(&rows, &mine, keys, &in_memory);
                bucket.fresh.clear();
            }
        }
        for side in 0..2 {
            if self.sides[side].is_outer {
                self.match_again(side);
            }
        }
        Ok(())
    }

    fn gauges(&self) -> Gauges {
        let buckets = || self.sides.iter().flat_map(|s| s.buckets.values());
        Gauges {
            keys: buckets().map(|b| b.len() as u64).sum(),
            state_bytes: buckets().map(Bucket::bytes).sum(),
            late: self.late,
            ..Gauges::default()
        }
    }
}

impl Join {
    /// Marks the restored rows of an outer side that have a match, and passes those that went out before.
    fn match_again(&mut self, side: usize) {
        let until = self.watermark.saturating_sub(self.sides[side].reach);
        let mut marks: Vec<(i64, u32)> = Vec::new();
        for (&number, bucket) in &self.sides[side].buckets {
            for row in 0..bucket.len() as u32 {
                let (key, hash) = bucket.key(row);
                let (from, to) = self.bounds(side, bucket.times[row as usize]);
                let buckets = from.div_euclid(self.width)..=to.div_euclid(self.width);
                let has_match = self.sides[1 - side]
                    .buckets
                    .range(buckets)
                    .any(|(_, other)| {
                        other
                            .rows_of(hash, key)
                            .any(|r| (from..=to).contains(&other.times[r as usize]))
                    });
                if has_match {
                    marks.push((number, row));
                }
            }
        }
        for (number, row) in marks {
            if let Some(bucket) = self.sides[side].buckets.get_mut(&number) {
                bucket.mark(row);
            }
        }
        for bucket in self.sides[side].buckets.values_mut() {
            bucket.unmatched(until);
        }
    }
}

fn no_encoder() -> KeyEncoder {
    KeyEncoder::new(&[]).expect("no column is no problem")
}
