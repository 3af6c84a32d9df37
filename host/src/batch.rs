//! What flows between steps: Arrow columns, one event time a row and, up to the first step that makes new rows, where
//! each row came from.
//!
//! Invariant: `times` and, if present, both buffers of `origins` have as many entries as `columns` has rows.

use arrow::array::{
    ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{FilterBuilder, FilterPredicate, concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef, UInt64Type};

use crate::time::Micros;

/// Rows on their way from one step to the next.
#[derive(Debug, Clone)]
pub struct Batch {
    pub columns: RecordBatch,
    /// Event time of each row, microseconds.
    pub times: ScalarBuffer<Micros>,
    /// The record each row came from; `None` once rows are made anew.
    pub origins: Option<Origins>,
}

/// The input records that rows came from.
#[derive(Debug, Clone)]
pub struct Origins {
    /// [`InputId::pack`] of each row.
    pub inputs: ScalarBuffer<u64>,
    /// Kafka offset, line number of a file, index of a generated record.
    pub offsets: ScalarBuffer<i64>,
}

/// A partition of a source. The order of packed values is the order in which ties of event time are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputId {
    /// Number of the source, stable for the life of the state.
    pub source: u16,
    pub partition: u32,
}

impl InputId {
    pub fn pack(self) -> u64 {
        (u64::from(self.source) << 32) | u64::from(self.partition)
    }

    pub fn unpack(packed: u64) -> Self {
        Self {
            source: (packed >> 32) as u16,
            partition: packed as u32,
        }
    }
}

impl Batch {
    pub fn rows(&self) -> usize {
        self.columns.num_rows()
    }

    pub fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }

    /// The same rows with other columns of the same length.
    pub fn with_columns(&self, columns: RecordBatch) -> Self {
        debug_assert_eq!(columns.num_rows(), self.rows());
        Self {
            columns,
            times: self.times.clone(),
            origins: self.origins.clone(),
        }
    }

    /// The same columns under a schema of the same types in which at least as many may be null.
    pub fn with_schema(&self, schema: &SchemaRef) -> Self {
        let columns = self.columns.clone().with_schema(schema.clone());
        self.with_columns(columns.expect("the types are the same and more may be null"))
    }

    /// The rows `indices`, in that order. Indices must be below [`rows`](Self::rows).
    pub fn take(&self, indices: &[u32]) -> Self {
        let index = UInt32Array::from(indices.to_vec());
        let columns =
            take_record_batch(&self.columns, &index).expect("indices are within the batch");
        Self {
            columns,
            times: gather(&self.times, indices),
            origins: self.origins.as_ref().map(|o| o.take(indices)),
        }
    }

    /// The rows at which `mask` is true. `mask` must be as long as the batch; null counts as false.
    pub fn filter(&self, mask: &BooleanArray) -> Self {
        let mut filter = FilterBuilder::new(mask);
        if self.columns.num_columns() > 1 || self.origins.is_some() {
            filter = filter.optimize();
        }
        let filter = filter.build();
        Self {
            columns: filter
                .filter_record_batch(&self.columns)
                .expect("the mask is as long as the batch"),
            times: filtered::<Int64Type>(&filter, &self.times),
            origins: self.origins.as_ref().map(|o| Origins {
                inputs: filtered::<UInt64Type>(&filter, &o.inputs),
                offsets: filtered::<Int64Type>(&filter, &o.offsets),
            }),
        }
    }

    /// Rows `start..start + len` without a copy.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        Self {
            columns: self.columns.slice(start, len),
            times: self.times.slice(start, len),
            origins: self.origins.as_ref().map(|o| Origins {
                inputs: o.inputs.slice(start, len),
                offsets: o.offsets.slice(start, len),
            }),
        }
    }

    /// All rows of `batches` in order; origins are kept if every part has them. `None` for no batch at all.
    pub fn concat(batches: &[Batch]) -> Option<Self> {
        let (first, rest) = batches.split_first()?;
        if rest.is_empty() {
            return Some(first.clone());
        }
        let columns = concat_batches(&first.schema(), batches.iter().map(|b| &b.columns))
            .expect("batches of one step have one schema");
        let times = batches
            .iter()
            .flat_map(|b| b.times.iter().copied())
            .collect();
        let origins = batches
            .iter()
            .map(|b| b.origins.as_ref())
            .collect::<Option<Vec<_>>>()
            .map(|parts| Origins {
                inputs: parts
                    .iter()
                    .flat_map(|o| o.inputs.iter().copied())
                    .collect(),
                offsets: parts
                    .iter()
                    .flat_map(|o| o.offsets.iter().copied())
                    .collect(),
            });
        Some(Self {
            columns,
            times,
            origins,
        })
    }

    /// Memory of the rows in bytes, as Arrow accounts for it.
    pub fn bytes(&self) -> usize {
        self.columns.get_array_memory_size()
            + self.rows() * if self.origins.is_some() { 24 } else { 8 }
    }
}

impl Origins {
    pub fn take(&self, indices: &[u32]) -> Self {
        Self {
            inputs: gather(&self.inputs, indices),
            offsets: gather(&self.offsets, indices),
        }
    }
}

fn filtered<T: ArrowPrimitiveType>(
    filter: &FilterPredicate,
    values: &ScalarBuffer<T::Native>,
) -> ScalarBuffer<T::Native> {
    let values = PrimitiveArray::<T>::new(values.clone(), None);
    let kept = filter
        .filter(&values)
        .expect("the mask is as long as the batch");
    kept.as_primitive::<T>().values().clone()
}

fn gather<T: arrow::datatypes::ArrowNativeType>(
    values: &ScalarBuffer<T>,
    indices: &[u32],
) -> ScalarBuffer<T> {
    indices.iter().map(|&i| values[i as usize]).collect()
}
