//! What the aggregates read of a batch: arguments, order keys and filters, evaluated once. Rows at which one of them
//! fails are found and left out.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, filter_record_batch, take};

use super::super::run::{self, Part};
use super::call::Call;
use super::{Aggregation, Compiled, covered};
use crate::batch::Batch;

/// The evaluated inputs of all aggregates for some rows.
#[derive(Debug, Clone)]
pub struct Inputs {
    rows: usize,
    pub(super) calls: Vec<OfCall>,
}

/// The inputs of one aggregate.
#[derive(Debug, Clone)]
pub(super) struct OfCall {
    /// Arguments, then order keys.
    pub values: Vec<ArrayRef>,
    /// Without nulls. Where it is false, values mean nothing.
    pub filter: Option<BooleanArray>,
}

impl Inputs {
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Aggregation {
    /// Evaluates arguments, order keys and filters over `batch`. Rows at which one fails are left out and appended to
    /// `refused` as (row of `batch`, reason), ascending; `None` means that all rows stay, otherwise it has those that do,
    /// and the inputs have one entry for each of these. An argument that fails where its `filter` is not true refuses
    /// nothing.
    pub fn inputs(
        &self,
        batch: &Batch,
        refused: &mut Vec<(u32, String)>,
    ) -> (Inputs, Option<Vec<u32>>) {
        let mut parts = run::parts(&batch.columns, refused, |rows| self.evaluated(rows));
        if let [part] = &parts[..]
            && part.rows == batch.rows()
        {
            return (parts.remove(0).value, None);
        }
        let rows = covered(&parts).collect();
        (self.joined(parts), Some(rows))
    }

    fn evaluated(&self, rows: &RecordBatch) -> Result<Inputs, String> {
        let values: Vec<_> = self.expressions.iter().map(|e| e.array(rows)).collect();
        let calls = self.calls.iter().map(|call| {
            let filter = call.mask(rows)?;
            let wanted: Result<Vec<_>, _> =
                call.inputs.iter().map(|&i| values[i].clone()).collect();
            let values = match (wanted, &filter) {
                (Ok(values), _) => values,
                (Err(why), None) => return Err(why),
                (Err(_), Some(filter)) => self.behind(call, rows, filter)?,
            };
            Ok(OfCall { values, filter })
        });
        Ok(Inputs {
            rows: rows.num_rows(),
            calls: calls.collect::<Result<_, _>>()?,
        })
    }

    /// The inputs of `call` evaluated only where `filter` is true, null elsewhere.
    fn behind(
        &self,
        call: &Call,
        rows: &RecordBatch,
        filter: &BooleanArray,
    ) -> Result<Vec<ArrayRef>, String> {
        let passed = filter_record_batch(rows, filter).map_err(|error| error.to_string())?;
        let mut next = 0;
        let places: UInt32Array = filter
            .values()
            .iter()
            .map(|passes| {
                let place = passes.then_some(next);
                next += u32::from(passes);
                place
            })
            .collect();
        let spread = |&i: &usize| {
            let values = self.expressions[i].array(&passed)?;
            take(&values, &places, None).map_err(|error| error.to_string())
        };
        call.inputs.iter().map(spread).collect()
    }

    fn joined(&self, parts: Vec<Part<Inputs>>) -> Inputs {
        let calls = self.calls.iter().enumerate().map(|(i, call)| {
            let values = call.kinds.iter().enumerate().map(|(j, kind)| {
                let pieces: Vec<&dyn Array> = parts
                    .iter()
                    .map(|part| part.value.calls[i].values[j].as_ref())
                    .collect();
                match pieces.is_empty() {
                    true => new_null_array(kind, 0),
                    false => concat(&pieces).expect("the pieces are of one type"),
                }
            });
            let filter = (!call.filter.is_empty()).then(|| {
                let pieces = parts.iter().map(|part| &part.value.calls[i].filter);
                let bits: BooleanBuffer =
                    pieces.flatten().flat_map(|f| f.values().iter()).collect();
                BooleanArray::new(bits, None)
            });
            OfCall {
                values: values.collect(),
                filter,
            }
        });
        Inputs {
            calls: calls.collect(),
            rows: parts.iter().map(|part| part.rows).sum(),
        }
    }
}

impl Call {
    /// Where the filter is true; conjunct by conjunct, each only where those before are true.
    fn mask(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>, String> {
        let Some((first, others)) = self.filter.split_first() else {
            return Ok(None);
        };
        let mut mask = truth(first, rows)?;
        for conjunct in others {
            let passed = BooleanArray::new(mask.clone(), None);
            let left = filter_record_batch(rows, &passed).map_err(|error| error.to_string())?;
            let found = truth(conjunct, &left)?;
            let mut found = found.iter();
            mask = mask
                .iter()
                .map(|passes| passes && found.next() == Some(true))
                .collect();
        }
        Ok(Some(BooleanArray::new(mask, None)))
    }
}

/// True where `condition` is true, false where it is false or null.
fn truth(condition: &Compiled, rows: &RecordBatch) -> Result<BooleanBuffer, String> {
    let mask = run::as_mask(condition.array(rows)?);
    Ok(match mask.nulls() {
        None => mask.values().clone(),
        Some(nulls) => mask.values() & nulls.inner(),
    })
}
