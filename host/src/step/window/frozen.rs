//! Partial results that no longer change: what the table of a window held when a window ended or a checkpoint froze it.
//!
//! Buffers are moved in as they are; the first who needs an order sorts by pane and key group, on whichever thread that
//! is. Invariant: rows of one pane stand together, ascending by key group.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::index::Keys;
use crate::state::key::{key_group, key_hash};
use crate::time::Micros;

/// Keys with their partial results, row by row.
#[derive(Debug, Clone)]
pub struct Rows {
    pub keys: BinaryArray,
    pub states: Vec<ArrayRef>,
}

/// The partial results of some panes.
#[derive(Debug)]
pub struct Frozen {
    /// The panes in it, ascending, with their number of groups.
    panes: Vec<(Micros, usize)>,
    bytes: usize,
    key_groups: u16,
    raw: Mutex<Option<Raw>>,
    sorted: OnceLock<Sorted>,
}

#[derive(Debug)]
struct Raw {
    keys: Keys,
    panes: Vec<Micros>,
    states: Vec<ArrayRef>,
}

#[derive(Debug)]
struct Sorted {
    rows: Rows,
    /// Index into `Frozen::panes` and key group of each row, ascending.
    places: Vec<(u32, u16)>,
}

impl Frozen {
    /// Takes the groups of a table over; `panes` has each group's pane, `states` its partial results.
    pub fn new(
        keys: Keys,
        panes: Vec<Micros>,
        states: Vec<ArrayRef>,
        key_groups: u16,
    ) -> Arc<Self> {
        let mut counts = std::collections::BTreeMap::new();
        let mut last: Option<(Micros, usize)> = None;
        for &pane in &panes {
            match &mut last {
                Some((same, n)) if *same == pane => *n += 1,
                _ => {
                    if let Some((pane, n)) = last.replace((pane, 1)) {
                        *counts.entry(pane).or_insert(0) += n;
                    }
                }
            }
        }
        if let Some((pane, n)) = last {
            *counts.entry(pane).or_insert(0) += n;
        }
        let states_bytes: usize = states.iter().map(|s| s.get_array_memory_size()).sum();
        let bytes = states_bytes + keys.bytes.len() + keys.len() * 20;
        Arc::new(Self {
            panes: counts.into_iter().collect(),
            bytes,
            key_groups,
            raw: Mutex::new(Some(Raw {
                keys,
                panes,
                states,
            })),
            sorted: OnceLock::new(),
        })
    }

    /// The panes in it, ascending, with their number of groups.
    pub fn panes(&self) -> &[(Micros, usize)] {
        &self.panes
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows of a pane whose key group is in `groups`.
    pub fn rows(&self, pane: Micros, groups: Range<u16>) -> Rows {
        let sorted = self.sorted.get_or_init(|| self.sort());
        let Ok(index) = self.panes.binary_search_by_key(&pane, |p| p.0) else {
            return sorted.rows.slice(0, 0);
        };
        let at = |group: u16| {
            sorted
                .places
                .partition_point(|p| *p < (index as u32, group))
        };
        let (from, to) = (at(groups.start), at(groups.end));
        sorted.rows.slice(from, to - from)
    }

    fn sort(&self) -> Sorted {
        let raw = self
            .raw
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Raw {
            keys,
            panes,
            states,
        } = raw.expect("sorted once");
        let mut last = (Micros::MIN, 0);
        let mut order: Vec<(u32, u16, u32)> = Vec::with_capacity(panes.len());
        for (row, &pane) in panes.iter().enumerate() {
            if row == 0 || last.0 != pane {
                let index = self.panes.partition_point(|p| p.0 < pane);
                last = (pane, index as u32);
            }
            order.push((
                last.1,
                key_group(keys.hashes[row], self.key_groups),
                row as u32,
            ));
        }
        order.sort_unstable();
        let indices = UInt32Array::from_iter_values(order.iter().map(|o| o.2));
        let gather = |a: &ArrayRef| take(a, &indices, None).expect("every group has a row");
        let keys = BinaryArray::new(
            OffsetBuffer::new(ScalarBuffer::from(keys.offsets)),
            Buffer::from_vec(keys.bytes),
            None,
        );
        let sorted: ArrayRef = gather(&(Arc::new(keys) as ArrayRef));
        Sorted {
            rows: Rows {
                keys: binary(&sorted).clone(),
                states: states.iter().map(gather).collect(),
            },
            places: order
                .into_iter()
                .map(|(pane, group, _)| (pane, group))
                .collect(),
        }
    }
}

fn binary(array: &ArrayRef) -> &BinaryArray {
    array.as_any().downcast_ref().expect("keys are binary")
}

impl Rows {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn slice(&self, start: usize, len: usize) -> Self {
        Self {
            keys: self.keys.slice(start, len),
            states: self.states.iter().map(|s| s.slice(start, len)).collect(),
        }
    }

    /// The rows `indices`, in that order.
    pub fn take(&self, indices: &[u32]) -> Self {
        let indices = UInt32Array::from(indices.to_vec());
        let gather = |a: &dyn Array| take(a, &indices, None).expect("indices are within the rows");
        Self {
            keys: binary(&gather(&self.keys)).clone(),
            states: self.states.iter().map(|s| gather(s)).collect(),
        }
    }

    /// An Arrow IPC stream: the key, then the partial results by position.
    pub fn encode(&self) -> Vec<u8> {
        let columns: Vec<ArrayRef> = std::iter::once(Arc::new(self.keys.clone()) as ArrayRef)
            .chain(self.states.iter().cloned())
            .collect();
        let types = columns.iter().map(|c| c.data_type().clone());
        let schema = schema(types);
        let options = RecordBatchOptions::new().with_row_count(Some(self.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
            .expect("columns fit their schema");
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).expect("writing to memory");
        writer.write(&batch).expect("writing to memory");
        writer.into_inner().expect("writing to memory")
    }

    /// What [`encode`](Self::encode) gave, which must have partial results of `types`.
    pub fn decode(bytes: &[u8], types: &Schema) -> Result<Self, String> {
        let mut reader = StreamReader::try_new(bytes, None).map_err(|e| e.to_string())?;
        let batch = reader
            .next()
            .ok_or("it is empty")?
            .map_err(|e| e.to_string())?;
        let found = batch.columns().iter().skip(1).map(|c| c.data_type());
        let same = batch.num_columns() == types.fields().len() + 1
            && found.zip(types.fields()).all(|(a, b)| a == b.data_type());
        let keys = batch.columns().first();
        match keys.and_then(|k| k.as_any().downcast_ref::<BinaryArray>()) {
            Some(keys) if same => Ok(Self {
                keys: keys.clone(),
                states: batch.columns()[1..].to_vec(),
            }),
            _ => Err("its columns are not those of this window".into()),
        }
    }

    /// Indices of the rows whose key group is in `groups`; `None` if those are all.
    pub fn in_groups(&self, groups: &Range<u16>, key_groups: u16) -> Option<Vec<u32>> {
        let inside = |row: &u32| {
            let hash = key_hash(self.keys.value(*row as usize));
            groups.contains(&key_group(hash, key_groups))
        };
        let kept: Vec<u32> = (0..self.len() as u32).filter(inside).collect();
        (kept.len() < self.len()).then_some(kept)
    }
}

fn schema(types: impl Iterator<Item = DataType>) -> SchemaRef {
    let field = |(i, t): (usize, DataType)| Field::new(i.to_string(), t, true);
    Arc::new(Schema::new(
        types.enumerate().map(field).collect::<Vec<_>>(),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::index::GroupIndex;
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    #[test]
    fn rows_come_back_by_pane_and_key_group() {
        let mut index = GroupIndex::default();
        let mut numbers = Vec::new();
        for n in 0..600i64 {
            let key = (n % 200).to_be_bytes();
            let group = index.group(key_hash(&key), n / 200 * 10, &key);
            assert_eq!(group, n as usize);
            numbers.push(n);
        }
        let (keys, panes) = index.take();
        let frozen = Frozen::new(keys, panes, vec![Arc::new(Int64Array::from(numbers))], 8);
        assert_eq!(frozen.panes(), [(0, 200), (10, 200), (20, 200)]);
        let mut seen = 0;
        for groups in [0..3, 3..8] {
            let rows = frozen.rows(10, groups.clone());
            assert_eq!(rows.in_groups(&groups, 8), None);
            let coded = Rows::decode(
                &rows.encode(),
                &Schema::new(vec![Field::new("x", DataType::Int64, true)]),
            )
            .unwrap();
            for row in 0..coded.len() {
                let n = coded.states[0].as_primitive::<Int64Type>().value(row);
                assert_eq!(coded.keys.value(row), (n % 200).to_be_bytes());
                assert_eq!(n / 200, 1);
                seen += 1;
            }
        }
        assert_eq!(seen, 200);
        assert_eq!(frozen.rows(11, 0..8).len(), 0);
    }
}
