//! A table that is made of changes: each sets or deletes the row that the record's key stands for. Knows no topic and no
//! time.
//!
//! The row's own key, by which lookups find it, comes from the record's value. Changes are collected and then become one
//! new snapshot, at the cost of copying the rows that stay.
//! Invariant: a record that is broken changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};

use super::Snapshot;
use super::load::with_key_nullable;
use crate::format::{self, Decoder};
use crate::limits::{TABLE_BYTES_MAX, TABLE_PENDING_BYTES_MIN};
use crate::pipeline::plan;

/// A table and the changes to it that are not yet in a snapshot.
pub(super) struct Changes {
    plan: plan::Table,
    snapshot: Arc<Snapshot>,
    decoder: Box<dyn Decoder>,
    /// Record keys in the order of their records, each with its row in the decoder, or none: deleted.
    log: Vec<(Box<[u8]>, Option<u32>)>,
    /// The row that each record key stands for, and the record key that each row came with.
    rows: HashMap<Box<[u8]>, RowKey>,
    owners: HashMap<RowKey, Box<[u8]>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum RowKey {
    Text(Box<str>),
    Number(i64),
}

/// A new snapshot, and how many records without a key for their row it leaves out.
pub(super) struct Published {
    pub snapshot: Arc<Snapshot>,
    pub keyless: usize,
}

impl Changes {
    /// An empty table. Errors name a field that records cannot fill.
    pub fn new(plan: &plan::Table) -> Result<Self, String> {
        let lenient = with_key_nullable(&plan.schema, plan.key);
        let decoder = format::decoder(plan.format, &lenient, &plan.paths, None, None)?;
        let rows = RecordBatch::new_empty(plan.schema.clone());
        Ok(Self {
            snapshot: Arc::new(Snapshot::new(&plan.name, rows, plan.key)?),
            plan: plan.clone(),
            decoder,
            log: Vec::new(),
            rows: HashMap::new(),
            owners: HashMap::new(),
        })
    }

    /// Takes a record; without a `value` it deletes. `Err` says why it is broken.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), String> {
        let key = key.ok_or("the record has no key: which row it sets is unknown")?;
        let row = match value {
            None => None,
            Some(value) => {
                let row = u32::try_from(self.decoder.rows()).map_err(|e| e.to_string())?;
                self.decoder.push(value)?;
                Some(row)
            }
        };
        self.log.push((key.into(), row));
        Ok(())
    }

    pub fn is_changed(&self) -> bool {
        !self.log.is_empty()
    }

    /// So much has been collected that copying the rows that stay is no great matter.
    pub fn is_large(&self) -> bool {
        let rows = self.snapshot.rows().get_array_memory_size();
        self.decoder.bytes() >= rows.max(TABLE_PENDING_BYTES_MIN)
    }

    /// All changes so far become a snapshot. `Err`: the table would be too large; what was collected is lost.
    pub fn publish(&mut self) -> Result<Published, String> {
        let new = self.decoder.finish();
        let (changed, keyless) = self.apply(new.column(self.plan.key));
        let old = self.snapshot.rows().clone();
        let mut stays = vec![true; old.num_rows()];
        let found = self.snapshot.probe(&self.key_array(changed.keys()))?;
        found
            .iter()
            .flatten()
            .for_each(|row| stays[row as usize] = false);
        let kept = (0..old.num_rows() as u32).filter(|&row| stays[row as usize]);
        let mut added: Vec<u32> = changed.into_values().flatten().collect();
        added.sort_unstable();
        let new = RecordBatch::try_new(new.schema(), new.columns().to_vec());
        let part = |rows: &RecordBatch, indices: UInt32Array| {
            let taken = take_record_batch(rows, &indices)?;
            RecordBatch::try_new(self.plan.schema.clone(), taken.columns().to_vec())
        };
        let parts = new
            .and_then(|new| Ok([part(&old, kept.collect())?, part(&new, added.into())?]))
            .map_err(|e| e.to_string())?;
        let bytes: usize = parts.iter().map(RecordBatch::get_array_memory_size).sum();
        if bytes as u64 > TABLE_BYTES_MAX {
            return Err(format!(
                "{bytes} bytes of rows are more than the {TABLE_BYTES_MAX} that a table may have"
            ));
        }
        let whole = concat_batches(&self.plan.schema, &parts).map_err(|e| e.to_string())?;
        self.snapshot = Arc::new(Snapshot::new(&self.plan.name, whole, self.plan.key)?);
        Ok(Published {
            snapshot: self.snapshot.clone(),
            keyless,
        })
    }

    /// Follows the log: what becomes of each row's key it touches, and how many records have none.
    fn apply(&mut self, keys: &ArrayRef) -> (HashMap<RowKey, Option<u32>>, usize) {
        let (mut changed, mut keyless) = (HashMap::new(), 0);
        for (record_key, row) in std::mem::take(&mut self.log) {
            let new = match row {
                None => None,
                Some(row) => match row_key(keys, row as usize) {
                    Some(key) => Some((key, row)),
                    None => {
                        keyless += 1;
                        continue;
                    }
                },
            };
            // The row that this record key stood for goes, unless another record key has set it since.
            if let Some(before) = self.rows.remove(&record_key)
                && self.owners.get(&before) == Some(&record_key)
            {
                self.owners.remove(&before);
                changed.insert(before, None);
            }
            if let Some((key, row)) = new {
                changed.insert(key.clone(), Some(row));
                self.owners.insert(key.clone(), record_key.clone());
                self.rows.insert(record_key, key);
            }
        }
        (changed, keyless)
    }

    fn key_array<'k>(&self, keys: impl Iterator<Item = &'k RowKey>) -> ArrayRef {
        let text = |key: &RowKey| match key {
            RowKey::Text(text) => Some(text.to_string()),
            RowKey::Number(_) => None,
        };
        let number = |key: &RowKey| match key {
            RowKey::Number(number) => Some(*number),
            RowKey::Text(_) => None,
        };
        match self.plan.schema.field(self.plan.key).data_type() {
            DataType::Int64 => Arc::new(keys.map(number).collect::<Int64Array>()),
            _ => Arc::new(keys.map(text).collect::<StringArray>()),
        }
    }
}

fn row_key(keys: &ArrayRef, row: usize) -> Option<RowKey> {
    if keys.is_null(row) {
        return None;
    }
    Some(match keys.data_type() {
        DataType::Int64 => RowKey::Number(keys.as_primitive::<Int64Type>().value(row)),
        _ => RowKey::Text(keys.as_string::<i32>().value(row).into()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::format::encode::row_json;
    use crate::pipeline::plan::{Format, TableConnector};

    fn changes() -> Changes {
        let fields = vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("n", DataType::Int64, true),
        ];
        Changes::new(&plan::Table {
            name: "t".into(),
            connector: TableConnector::File { path: "".into() },
            format: Format::Json,
            key: 0,
            paths: vec![vec!["id".into()], vec!["n".into()]],
            schema: Arc::new(Schema::new(fields)),
        })
        .unwrap()
    }

    /// The rows, sorted; every one is found by its key.
    fn rows(snapshot: &Snapshot) -> Vec<String> {
        let rows = snapshot.rows();
        let found = snapshot.probe(rows.column(0)).unwrap();
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(row, at)| at == Some(row as u32))
        );
        let mut texts: Vec<_> = (0..rows.num_rows())
            .map(|row| row_json(rows, row))
            .collect();
        texts.sort();
        texts
    }

    #[test]
    fn the_last_record_of_a_key_counts_and_a_tombstone_deletes() {
        let mut table = changes();
        let mut set =
            |key: &str, value: &str| table.push(Some(key.as_bytes()), Some(value.as_bytes()));
        set("1", r#"{"id":"a","n":1}"#).unwrap();
        set("2", r#"{"id":"b","n":1}"#).unwrap();
        set("1", r#"{"id":"a","n":2}"#).unwrap();
        assert!(set("2", "broken").is_err());
        assert!(
            table
                .push(None, Some(b"{\"id\":\"a\"}"))
                .unwrap_err()
                .contains("no key")
        );
        let first = table.publish().unwrap();
        assert_eq!(
            rows(&first.snapshot),
            [r#"{"id":"a","n":2}"#, r#"{"id":"b","n":1}"#]
        );
        assert_eq!(first.keyless, 0);
        assert!(!table.is_changed());

        table.push(Some(b"2"), None).unwrap();
        table.push(Some(b"unknown"), None).unwrap();
        // Without a key for its row: broken, the old row stays.
        table.push(Some(b"1"), Some(b"{\"n\":9}")).unwrap();
        table
            .push(Some(b"3"), Some(b"{\"id\":\"c\",\"n\":3}"))
            .unwrap();
        table.push(Some(b"3"), None).unwrap();
        let second = table.publish().unwrap();
        assert_eq!(rows(&second.snapshot), [r#"{"id":"a","n":2}"#]);
        assert_eq!(second.keyless, 1);
        assert_eq!(rows(&first.snapshot).len(), 2, "a snapshot never changes");
    }

    #[test]
    fn a_record_key_whose_row_gets_another_key_leaves_no_row_behind() {
        let mut table = changes();
        let mut set = |key: &str, value: &str| {
            table
                .push(Some(key.as_bytes()), Some(value.as_bytes()))
                .unwrap()
        };
        set("1", r#"{"id":"old"}"#);
        set("1", r#"{"id":"new"}"#);
        // Two record keys with one row: the last sets it, and only its tombstone deletes it.
        set("2", r#"{"id":"x","n":2}"#);
        set("3", r#"{"id":"x","n":3}"#);
        table.push(Some(b"2"), None).unwrap();
        let rows_now = rows(&table.publish().unwrap().snapshot);
        assert_eq!(
            rows_now,
            [r#"{"id":"new","n":null}"#, r#"{"id":"x","n":3}"#]
        );
        table.push(Some(b"3"), None).unwrap();
        assert_eq!(rows(&table.publish().unwrap().snapshot).len(), 1);
    }

    proptest! {
        #[test]
        fn any_changes_give_the_rows_of_a_map(
            records in proptest::collection::vec(("[a-d]", proptest::option::of(0..100i64), 0..4u8), 0..60)
        ) {
            let mut table = changes();
            let mut map = BTreeMap::new();
            for (key, value, publish) in records {
                let text = value.map(|n| format!("{{\"id\":\"{key}\",\"n\":{n}}}"));
                table.push(Some(key.as_bytes()), text.as_ref().map(String::as_bytes)).unwrap();
                match text {
                    Some(text) => map.insert(key, text),
                    None => map.remove(&key),
                };
                if publish == 0 {
                    table.publish().unwrap();
                }
            }
            let got = rows(&table.publish().unwrap().snapshot);
            prop_assert_eq!(got, map.into_values().collect::<Vec<_>>());
        }
    }
}
