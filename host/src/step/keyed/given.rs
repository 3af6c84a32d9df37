//! What a call of a keyed plugin gave: output rows with their keys and times, and states on their way back into the table.
//!
//! Invariant: a row has the key of the row or alarm that it comes from, and no time below the watermark before the tick.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use crate::batch::Batch;
use crate::plugin::{GroupStates, PortRows};
use crate::state::keyed::KeyedTable;
use crate::step::transform::{kept, record_batch};
use crate::time::Micros;

/// The input of a call, to make output rows from.
pub(super) struct Call<'a> {
    pub batch: &'a Batch,
    pub group_of_row: &'a [u32],
    pub keys: &'a [ArrayRef],
    pub alarms: &'a [Micros],
    /// Rows of an alarm are not earlier than the watermark before the tick.
    pub floor: Micros,
}

impl Call<'_> {
    pub fn port_rows(&self, rows: PortRows, schema: &SchemaRef) -> Batch {
        match rows {
            PortRows::Kept { rows, added } => kept(&rows, added, self.batch, schema),
            PortRows::New {
                columns,
                origin,
                times,
            } => self.new_rows(columns, &origin, times, schema),
        }
    }

    /// The key of the origin's group in front of the port's own columns.
    fn new_rows(
        &self,
        columns: Vec<ArrayRef>,
        origin: &[u32],
        times: Option<Vec<Micros>>,
        schema: &SchemaRef,
    ) -> Batch {
        let rows = self.batch.rows() as u32;
        let group = |o: u32| {
            if o < rows {
                self.group_of_row[o as usize]
            } else {
                o - rows
            }
        };
        let groups = UInt32Array::from_iter_values(origin.iter().map(|&o| group(o)));
        let keys = self
            .keys
            .iter()
            .map(|k| take(k, &groups, None).expect("a group has a key"));
        let time = |(i, &o): (usize, &u32)| match &times {
            Some(times) if o < rows => times[i],
            Some(times) => times[i].max(self.floor),
            None if o < rows => self.batch.times[o as usize],
            None => self.alarms[(o - rows) as usize].max(self.floor),
        };
        let times = origin.iter().enumerate().map(time).collect();
        Batch {
            columns: record_batch(schema, keys.chain(columns).collect(), origin.len()),
            times,
            origins: None,
        }
    }
}

/// Writes what the plugin made of the state of a group.
pub(super) fn write_back(table: &mut KeyedTable, slot: u32, state: &GroupStates, group: usize) {
    match state {
        GroupStates::None => {}
        GroupStates::Fixed { words, present } => {
            let width = words.len() / present.len();
            if present[group] {
                table
                    .words_mut(slot)
                    .copy_from_slice(&words[group * width..(group + 1) * width]);
            } else {
                table.clear_state(slot);
            }
        }
        GroupStates::Blob { offsets, data } => {
            let value = &data[offsets[group] as usize..offsets[group + 1] as usize];
            table.set_blob(slot, value);
        }
    }
}
