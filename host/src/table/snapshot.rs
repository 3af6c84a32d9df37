//! One version of a table: rows and an index from key to row. A key that is null or not there finds nothing.
//!
//! Invariant: every index entry is a row of `rows`, one entry a distinct key: the last row that has it.

use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::format::type_name;

/// Rows of a table as they were read at one time.
#[derive(Debug)]
pub struct Snapshot {
    name: String,
    rows: RecordBatch,
    key: Key,
    index: HashTable<u32>,
    hasher: RandomState,
}

/// The key column.
#[derive(Debug)]
enum Key {
    Text(StringArray),
    Number(arrow::array::Int64Array),
}

impl Snapshot {
    /// A table of `rows` by column `key`: Utf8 or Int64, without nulls. Of rows with one key the last wins.
    pub fn new(name: &str, rows: RecordBatch, key: usize) -> Result<Self, String> {
        let column = rows.column(key);
        let key_name = rows.schema_ref().field(key).name().clone();
        if column.null_count() > 0 {
            return Err(format!("the key `{key_name}` is null in some row"));
        }
        if u32::try_from(rows.num_rows()).is_err() {
            return Err(format!(
                "{} rows are more than a table can have",
                rows.num_rows()
            ));
        }
        let key = match column.data_type() {
            DataType::Utf8 => Key::Text(column.as_string::<i32>().clone()),
            DataType::Int64 => Key::Number(column.as_primitive::<Int64Type>().clone()),
            other => {
                return Err(format!(
                    "the key `{key_name}` is {}; a key is string or int",
                    type_name(other)
                ));
            }
        };
        let mut snapshot = Self {
            name: name.to_string(),
            index: HashTable::with_capacity(rows.num_rows()),
            rows,
            key,
            hasher: RandomState::default(),
        };
        snapshot.fill();
        Ok(snapshot)
    }

    fn fill(&mut self) {
        let Self {
            key,
            index,
            hasher,
            rows,
            ..
        } = self;
        for row in 0..rows.num_rows() as u32 {
            let same = |other: &u32| key.equal(*other, row);
            let hash = |row: &u32| key.hash(hasher, *row);
            *index.entry(hash(&row), same, hash).or_insert(row).get_mut() = row;
        }
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Place of the column `name`, or which there are.
    pub fn column(&self, name: &str) -> Result<usize, String> {
        let schema = self.rows.schema_ref();
        schema.index_of(name).map_err(|_| {
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            format!(
                "table `{}` has no column `{name}`; it has {}",
                self.name,
                names.join(", ")
            )
        })
    }

    /// The row of each key, null where there is none. `keys` must be of the key column's type.
    pub fn probe(&self, keys: &ArrayRef) -> Result<UInt32Array, String> {
        match (&self.key, keys.data_type()) {
            (Key::Text(own), DataType::Utf8) => Ok(keys
                .as_string::<i32>()
                .iter()
                .map(|key| key.and_then(|k| self.find(k, |row| own.value(row) == k)))
                .collect()),
            (Key::Number(own), DataType::Int64) => Ok(keys
                .as_primitive::<Int64Type>()
                .iter()
                .map(|key| key.and_then(|k| self.find(k, |row| own.value(row) == k)))
                .collect()),
            (key, other) => Err(format!(
                "table `{}` has keys of type {}, they are looked up with {}",
                self.name,
                key.type_name(),
                type_name(other)
            )),
        }
    }

    fn find(&self, key: impl std::hash::Hash, is_key: impl Fn(usize) -> bool) -> Option<u32> {
        let found = self
            .index
            .find(self.hasher.hash_one(key), |&row| is_key(row as usize));
        found.copied()
    }
}

impl Key {
    fn hash(&self, hasher: &RandomState, row: u32) -> u64 {
        match self {
            Self::Text(keys) => hasher.hash_one(keys.value(row as usize)),
            Self::Number(keys) => hasher.hash_one(keys.value(row as usize)),
        }
    }

    fn equal(&self, a: u32, b: u32) -> bool {
        let (a, b) = (a as usize, b as usize);
        match self {
            Self::Text(keys) => keys.value(a) == keys.value(b),
            Self::Number(keys) => keys.value(a) == keys.value(b),
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Number(_) => "int",
        }
    }
}
