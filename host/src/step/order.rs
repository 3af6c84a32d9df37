//! Rows that wait until the watermark is above them, to be handed over in event-time order.
//!
//! Keeps the waiting rows in memory and, as segments of those that arrived since the last checkpoint, in the state. A
//! segment is dropped once the watermark has passed its last row. Ties of event time are broken by partition, then offset.
//!
//! Invariant: the rows waiting are exactly those of all live segments and of `fresh` whose time is not below the
//! watermark of the last release; so nothing but that watermark is needed to read a segment again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::{reader::StreamReader, writer::StreamWriter};

use crate::batch::{Batch, Origins};
use crate::state::{Fault, PutSegment, SegmentId, SegmentSource};
use crate::time::{MICROS_PER_MS, MICROS_PER_SECOND, Micros, NO_TIME};

/// Rows of one slab before it is closed: small batches share one, so that thin epochs do not cost an allocation a row.
const SLAB_ROWS: usize = 4_096;
/// Columns that a segment has behind those of the input.
const HIDDEN_COLUMNS: usize = 3;

/// Waiting rows of one step on one worker.
#[derive(Debug)]
pub struct OrderBuffer {
    schema: SchemaRef,
    /// By second of event time.
    waiting: BTreeMap<i64, Vec<Entry>>,
    slabs: HashMap<u32, Slab>,
    open: u32,
    bytes: usize,
    /// Arrived since the last freeze.
    fresh: Vec<Batch>,
    /// Live segments; their last row is before their time.
    segments: BTreeSet<SegmentId>,
    /// Rows below this have been handed over.
    released: Micros,
}

/// Rows on their way into a checkpoint.
#[derive(Debug)]
pub struct WaitingRows {
    id: SegmentId,
    rows: Batch,
}

impl SegmentSource for WaitingRows {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        put(self.id, &encode(&self.rows))
    }
}

/// Sorts by time, then input, then offset, then arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    time: Micros,
    input: u64,
    offset: i64,
    slab: u32,
    row: u32,
}

#[derive(Debug, Default)]
struct Slab {
    pieces: Vec<Batch>,
    rows: usize,
    left: usize,
    bytes: usize,
}

impl OrderBuffer {
    /// An empty buffer for rows of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            waiting: BTreeMap::new(),
            slabs: HashMap::new(),
            open: 0,
            bytes: 0,
            fresh: Vec::new(),
            segments: BTreeSet::new(),
            released: NO_TIME,
        }
    }

    /// Memory of the waiting rows, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds rows, none of which is below the watermark of the last release.
    pub fn push(&mut self, batch: Batch) {
        if batch.rows() > 0 {
            self.fresh.push(batch.clone());
            self.add(batch);
        }
    }

    /// The rows below `watermark`, in order, in batches of at most `rows_max`.
    pub fn release(&mut self, watermark: Micros, rows_max: usize) -> Vec<Batch> {
        self.released = self.released.max(watermark);
        let mut ready = self.due(watermark);
        ready.sort_unstable();
        ready
            .chunks(rows_max)
            .map(|chunk| self.gather(chunk))
            .collect()
    }

    /// The rows that arrived since the last freeze and still wait, as a segment, and the segments that are done with.
    /// `checkpoint` and the key groups of this worker make its name.
    pub fn freeze(
        &mut self,
        checkpoint: u64,
        groups: Range<u16>,
    ) -> (Option<WaitingRows>, Vec<SegmentId>) {
        let live = |id: &SegmentId| id.millis.saturating_mul(MICROS_PER_MS) > self.released;
        let done = self.segments.iter().filter(|id| !live(id)).copied();
        let done: Vec<SegmentId> = done.collect();
        self.segments.retain(live);
        let fresh: Vec<Batch> = std::mem::take(&mut self.fresh)
            .iter()
            .filter_map(|b| self.still_waiting(b))
            .collect();
        let Some(rows) = Batch::concat(&fresh) else {
            return (None, done);
        };
        let id = SegmentId {
            millis: rows
                .times
                .iter()
                .copied()
                .max()
                .unwrap_or(0)
                .div_euclid(MICROS_PER_MS)
                + 1,
            checkpoint,
            serial: 0,
            first: groups.start,
            last: groups.end - 1,
        };
        self.segments.insert(id);
        (Some(WaitingRows { id, rows }), done)
    }

    /// Takes back the rows of a segment that still wait at `watermark` and that `mine` accepts (a worker restores its own
    /// keys only).
    pub fn restore(
        &mut self,
        id: SegmentId,
        bytes: &[u8],
        watermark: Micros,
        mine: &mut dyn FnMut(&Batch) -> Vec<u32>,
    ) -> Result<(), String> {
        self.released = self.released.max(watermark);
        let rows = decode(bytes, &self.schema)?;
        self.segments.insert(id);
        if let Some(rows) = self.still_waiting(&rows) {
            let kept = mine(&rows);
            if !kept.is_empty() {
                self.add(rows.take(&kept));
            }
        }
        Ok(())
    }

    fn add(&mut self, batch: Batch) {
        let slab = self.slabs.entry(self.open).or_default();
        let first = slab.rows;
        let origin = |row: usize| {
            batch
                .origins
                .as_ref()
                .map_or((0, 0), |o| (o.inputs[row], o.offsets[row]))
        };
        for (row, &time) in batch.times.iter().enumerate() {
            let (input, offset) = origin(row);
            let entry = Entry {
                time,
                input,
                offset,
                slab: self.open,
                row: (first + row) as u32,
            };
            self.waiting
                .entry(time.div_euclid(MICROS_PER_SECOND))
                .or_default()
                .push(entry);
        }
        let bytes = logical_bytes(&batch) + batch.rows() * size_of::<Entry>();
        slab.rows += batch.rows();
        slab.left += batch.rows();
        slab.bytes += bytes;
        self.bytes += bytes;
        slab.pieces.push(batch);
        if slab.rows >= SLAB_ROWS {
            self.open = self.open.wrapping_add(1);
        }
    }

    fn due(&mut self, watermark: Micros) -> Vec<Entry> {
        let second = watermark.div_euclid(MICROS_PER_SECOND);
        let later = self.waiting.split_off(&second);
        let mut ready: Vec<Entry> = std::mem::replace(&mut self.waiting, later)
            .into_values()
            .flatten()
            .collect();
        if let Some(partly) = self.waiting.get_mut(&second) {
            ready.extend(partly.extract_if(.., |e| e.time < watermark));
            if partly.is_empty() {
                self.waiting.remove(&second);
            }
        }
        ready
    }

    fn gather(&mut self, entries: &[Entry]) -> Batch {
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut parts: Vec<Batch> = Vec::new();
        let mut indices = Vec::with_capacity(entries.len());
        for e in entries {
            let place = *places.entry(e.slab).or_insert_with(|| {
                parts.push(
                    self.slabs
                        .get_mut(&e.slab)
                        .expect("a waiting row has its slab")
                        .whole(),
                );
                parts.len() - 1
            });
            indices.push((place, e.row as usize));
        }
        let columns: Vec<&RecordBatch> = parts.iter().map(|p| &p.columns).collect();
        let columns =
            interleave_record_batch(&columns, &indices).expect("slabs of one step have one schema");
        let origins = parts.iter().all(|p| p.origins.is_some()).then(|| Origins {
            inputs: entries.iter().map(|e| e.input).collect(),
            offsets: entries.iter().map(|e| e.offset).collect(),
        });
        entries.iter().for_each(|e| self.leave(e.slab));
        Batch {
            columns,
            times: entries.iter().map(|e| e.time).collect(),
            origins,
        }
    }

    /// One row of a slab is gone.
    fn leave(&mut self, id: u32) {
        let slab = self.slabs.get_mut(&id).expect("a waiting row has its slab");
        slab.left -= 1;
        if slab.left == 0 {
            self.bytes -= slab.bytes;
            self.slabs.remove(&id);
            // A new slab under the same number would number its rows from 0 again; that is safe, but costs the
            // reader a thought.
            if id == self.open {
                self.open = self.open.wrapping_add(1);
            }
        }
    }

    fn still_waiting(&self, batch: &Batch) -> Option<Batch> {
        let rows: Vec<u32> = (0..batch.rows() as u32)
            .filter(|&r| batch.times[r as usize] >= self.released)
            .collect();
        match rows.len() {
            0 => None,
            n if n == batch.rows() => Some(batch.clone()),
            _ => Some(batch.take(&rows)),
        }
    }
}

impl Slab {
    fn whole(&mut self) -> Batch {
        if self.pieces.len() > 1 {
            self.pieces = vec![Batch::concat(&self.pieces).expect("a slab has rows")];
        }
        self.pieces[0].clone()
    }
}

fn logical_bytes(batch: &Batch) -> usize {
    let column = |c: &ArrayRef| {
        c.to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| c.get_array_memory_size())
    };
    batch.columns.columns().iter().map(column).sum()
}

/// Arrow IPC stream of the columns, then `time`, `input`, `offset`; the latter two are null where rows have no origin.
pub(super) fn encode(batch: &Batch) -> Vec<u8> {
    let origin = batch.origins.as_ref();
    let inputs: ArrayRef = match origin {
        Some(o) => Arc::new(UInt64Array::new(o.inputs.clone(), None)),
        None => Arc::new(UInt64Array::new_null(batch.rows())),
    };
    let offsets: ArrayRef = match origin {
        Some(o) => Arc::new(Int64Array::new(o.offsets.clone(), None)),
        None => Arc::new(Int64Array::new_null(batch.rows())),
    };
    let times: ArrayRef = Arc::new(Int64Array::new(batch.times.clone(), None));
    let columns = batch
        .columns
        .columns()
        .iter()
        .cloned()
        .chain([times, inputs, offsets])
        .collect();
    let columns = RecordBatch::try_new(segment_schema(&batch.schema()), columns)
        .expect("columns fit their schema");
    let mut writer =
        StreamWriter::try_new(Vec::new(), &columns.schema()).expect("writing to memory");
    writer.write(&columns).expect("writing to memory");
    writer.into_inner().expect("writing to memory")
}

fn segment_schema(schema: &Schema) -> SchemaRef {
    // Names are not unique by contract: columns go by position.
    let fields = schema.fields().iter().cloned();
    let hidden = [
        ("time", DataType::Int64),
        ("input", DataType::UInt64),
        ("offset", DataType::Int64),
    ];
    let hidden = hidden.map(|(name, ty)| Arc::new(Field::new(format!("_{name}"), ty, true)));
    Arc::new(Schema::new(fields.chain(hidden).collect::<Vec<_>>()))
}

pub(super) fn decode(bytes: &[u8], schema: &SchemaRef) -> Result<Batch, String> {
    let mut reader = StreamReader::try_new(bytes, None).map_err(|e| e.to_string())?;
    let read = reader
        .next()
        .ok_or("the segment is empty")?
        .map_err(|e| e.to_string())?;
    let n = schema.fields().len();
    if read.num_columns() != n + HIDDEN_COLUMNS {
        return Err(format!(
            "the segment has {} columns, expected {}",
            read.num_columns(),
            n + HIDDEN_COLUMNS
        ));
    }
    let columns = RecordBatch::try_new(schema.clone(), read.columns()[..n].to_vec())
        .map_err(|e| e.to_string())?;
    let int = |i: usize| {
        read.column(n + i)
            .as_any()
            .downcast_ref::<Int64Array>()
            .ok_or("not an int column")
    };
    let inputs = read
        .column(n + 1)
        .as_any()
        .downcast_ref::<UInt64Array>()
        .ok_or("not an unsigned int column")?;
    let offsets = int(2)?;
    let origins = (inputs.null_count() == 0).then(|| Origins {
        inputs: inputs.values().clone(),
        offsets: offsets.values().clone(),
    });
    let times: ScalarBuffer<i64> = int(0)?.values().clone();
    Ok(Batch {
        columns,
        times,
        origins,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
    }

    /// Rows `(time, partition, offset)`; the column holds the offset.
    fn batch(rows: &[(i64, u32, i64)]) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)));
        Batch {
            columns: RecordBatch::try_new(schema(), vec![column]).unwrap(),
            times: rows.iter().map(|r| r.0).collect(),
            origins: Some(Origins {
                inputs: rows.iter().map(|r| u64::from(r.1)).collect(),
                offsets: rows.iter().map(|r| r.2).collect(),
            }),
        }
    }

    fn rows(batches: &[Batch]) -> Vec<(i64, u32, i64)> {
        let one = |b: &Batch| {
            let column = b.columns.column(0).as_primitive::<Int64Type>().clone();
            let o = b.origins.clone().unwrap();
            (0..b.rows())
                .map(|i| {
                    assert_eq!(
                        column.value(i),
                        o.offsets[i],
                        "columns and origins stay together"
                    );
                    (b.times[i], o.inputs[i] as u32, o.offsets[i])
                })
                .collect::<Vec<_>>()
        };
        batches.iter().flat_map(one).collect()
    }

    #[test]
    fn ties_go_by_partition_then_offset() {
        let mut b = OrderBuffer::new(schema());
        b.push(batch(&[(7, 1, 5), (7, 0, 9), (3, 1, 4)]));
        b.push(batch(&[(7, 0, 8)]));
        assert_eq!(
            rows(&b.release(7, 10)),
            [(3, 1, 4)],
            "the watermark must be above a row"
        );
        assert_eq!(rows(&b.release(8, 10)), [(7, 0, 8), (7, 0, 9), (7, 1, 5)]);
        assert_eq!(b.bytes(), 0);
    }

    proptest! {
        /// However rows arrive, watermarks move, checkpoints fall and the process restarts: every row comes out once, in order.
        #[test]
        fn every_row_once_in_order_through_restarts(
            arrivals in prop::collection::vec(prop::collection::vec((0i64..4_000_000, 0u32..3), 0..40), 1..20),
            restart_at in prop::collection::vec(any::<bool>(), 20),
        ) {
            let (mut buffer, mut watermark, mut offset) = (OrderBuffer::new(schema()), NO_TIME, 0);
            let mut stored: BTreeMap<SegmentId, Vec<u8>> = BTreeMap::new();
            let (mut seen, mut pushed) = (vec![], vec![]);
            for (turn, arrival) in arrivals.iter().enumerate() {
                let fresh: Vec<_> = arrival.iter().filter(|r| r.0 >= watermark).map(|r| { offset += 1; (r.0, r.1, offset) }).collect();
                pushed.extend(fresh.clone());
                buffer.push(batch(&fresh));
                watermark = watermark.max(turn as i64 * 300_000);
                seen.extend(rows(&buffer.release(watermark, 7)));
                let (segment, dropped) = buffer.freeze(turn as u64, 0..8);
                for id in dropped { stored.remove(&id).expect("a segment is dropped once"); }
                if let Some(segment) = segment {
                    segment.write(&mut |id, bytes| { stored.insert(id, bytes.to_vec()); Ok(()) }).unwrap();
                }
                if restart_at[turn] {
                    buffer = OrderBuffer::new(schema());
                    for (id, bytes) in &stored {
                        buffer.restore(*id, bytes, watermark, &mut |b| (0..b.rows() as u32).collect()).unwrap();
                    }
                }
            }
            seen.extend(rows(&buffer.release(i64::MAX - 1, 7)));
            let mut expected = pushed.clone();
            expected.sort();
            let mut all = seen.clone();
            all.sort();
            prop_assert_eq!(all, expected);
            prop_assert!(seen.is_sorted());
            prop_assert_eq!(buffer.bytes(), 0);
        }
    }
}
