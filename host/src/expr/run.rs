//! Running on batches of which some rows may fail: DataFusion fails the whole batch and names no row, so a batch that
//! fails is halved until the rows are found.
//!
//! Invariant: parts come in the order of their rows, do not overlap, and with the refused rows cover the batch.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};

/// What came of rows `start..start + rows`.
pub(super) struct Part<T> {
    pub start: usize,
    pub rows: usize,
    pub value: T,
}

/// Runs `work` on the batch, or on as few parts of it as leave only single failing rows out; these are appended to
/// `refused` with the reason.
pub(super) fn parts<T>(
    batch: &RecordBatch,
    refused: &mut Vec<(u32, String)>,
    mut work: impl FnMut(&RecordBatch) -> Result<T, String>,
) -> Vec<Part<T>> {
    let mut done = Vec::new();
    // Ranges still to do, the first one on top.
    let mut waiting = vec![(0, batch.num_rows())];
    while let Some((start, rows)) = waiting.pop() {
        match work(&batch.slice(start, rows)) {
            Ok(value) => done.push(Part { start, rows, value }),
            // An empty batch has no row to refuse.
            Err(_) if rows == 0 => {}
            Err(reason) if rows == 1 => refused.push((start as u32, reason)),
            Err(_) => {
                let half = rows / 2;
                waiting.push((start + half, rows - half));
                waiting.push((start, half));
            }
        }
    }
    done
}

/// `array` as the condition it was checked to be.
pub(super) fn as_mask(array: ArrayRef) -> BooleanArray {
    array.as_boolean().clone()
}

/// One mask over all `rows`, false where no part is.
pub(super) fn join_masks(parts: Vec<Part<BooleanArray>>, rows: usize) -> BooleanArray {
    if let [part] = &parts[..]
        && part.rows == rows
    {
        return part.value.clone();
    }
    let mut bits = BooleanBufferBuilder::new(rows);
    for part in parts {
        bits.append_n(part.start - bits.len(), false);
        part.value
            .iter()
            .for_each(|bit| bits.append(bit == Some(true)));
    }
    bits.append_n(rows - bits.len(), false);
    BooleanArray::new(bits.finish(), None)
}

/// Indices of the rows that are true.
pub(super) fn true_rows(mask: &BooleanArray) -> impl Iterator<Item = u32> + '_ {
    (0..mask.len())
        .filter(|&i| mask.is_valid(i) && mask.value(i))
        .map(|i| i as u32)
}
