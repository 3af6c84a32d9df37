//! Rows as Kafka takes them: a key or none, and the bytes of one JSON document.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::format::encode::RowWriter;

/// Records for one topic, in order.
pub(super) struct Records {
    pub topic: Arc<str>,
    keys: Keys,
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    ends: Vec<usize>,
}

impl Records {
    /// One record a row of `columns`.
    pub fn of_rows(topic: Arc<str>, key: &Key, rows: &RowWriter, columns: &RecordBatch) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(columns.num_rows()));
        rows.write(columns, &mut bytes, &mut ends);
        Self {
            topic,
            keys: key.of(columns),
            bytes,
            ends,
        }
    }

    /// Records without keys.
    pub fn of_texts(topic: Arc<str>, texts: impl Iterator<Item = String>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for text in texts {
            bytes.extend_from_slice(text.as_bytes());
            ends.push(bytes.len());
        }
        Self {
            topic,
            keys: Keys::None,
            bytes,
            ends,
        }
    }

    /// Key and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&[u8]>, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let rows = starts.zip(&self.ends).enumerate();
        rows.map(|(row, (start, &end))| (self.keys.get(row), &self.bytes[start..end]))
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Memory held, roughly.
    pub fn size(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>() + self.keys.size()
    }
}

/// What becomes the key of a record.
pub(super) enum Key {
    None,
    /// The bytes of this string column; a null is no key.
    Text(usize),
    /// A JSON array of these columns' values.
    Array(Vec<usize>, RowWriter),
}

impl Key {
    pub fn new(schema: &SchemaRef, columns: &[usize]) -> Self {
        match columns {
            [] => Self::None,
            &[one] if schema.field(one).data_type().is_string() => Self::Text(one),
            several => {
                let fields: Vec<_> = several.iter().map(|&at| schema.field(at).clone()).collect();
                Self::Array(
                    several.to_vec(),
                    RowWriter::arrays(&Schema::new(fields).into()),
                )
            }
        }
    }

    fn of(&self, columns: &RecordBatch) -> Keys {
        match self {
            Self::None => Keys::None,
            Self::Text(at) => {
                let column = cast(columns.column(*at), &DataType::Utf8);
                Keys::Text(column.expect("every string is UTF-8").as_string().clone())
            }
            Self::Array(at, writer) => {
                let columns = columns
                    .project(at)
                    .expect("key columns are columns of the input");
                let (mut bytes, mut ends) = (Vec::new(), Vec::new());
                writer.write(&columns, &mut bytes, &mut ends);
                Keys::Written(bytes, ends)
            }
        }
    }
}

/// The keys of a batch's rows.
enum Keys {
    None,
    Text(StringArray),
    Written(Vec<u8>, Vec<usize>),
}

impl Keys {
    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Text(column) => column.is_valid(row).then(|| column.value(row).as_bytes()),
            Self::Written(bytes, ends) => {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                Some(&bytes[start..ends[row]])
            }
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Text(column) => column.get_array_memory_size(),
            Self::Written(bytes, ends) => bytes.capacity() + ends.capacity() * size_of::<usize>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray, StringViewArray};

    use super::*;

    fn keys(columns: &[usize]) -> Vec<Option<String>> {
        let batch = RecordBatch::try_from_iter([
            (
                "user",
                Arc::new(StringArray::from(vec![Some("ann \"a\""), None])) as Arc<dyn Array>,
            ),
            ("view", Arc::new(StringViewArray::from(vec!["v1", "v2"]))),
            (
                "amount",
                Arc::new(Float64Array::from(vec![None, Some(2.5)])),
            ),
        ]);
        let batch = batch.unwrap();
        let keys = Key::new(&batch.schema(), columns).of(&batch);
        let text = |row| {
            keys.get(row)
                .map(|key| String::from_utf8(key.to_vec()).unwrap())
        };
        vec![text(0), text(1)]
    }

    #[test]
    fn one_string_column_is_the_key_as_it_is_and_null_is_no_key() {
        assert_eq!(keys(&[0]), [Some("ann \"a\"".into()), None]);
        assert_eq!(keys(&[1]), [Some("v1".into()), Some("v2".into())]);
        assert_eq!(keys(&[]), [None, None]);
    }

    #[test]
    fn any_other_key_is_a_json_array_of_its_values() {
        assert_eq!(keys(&[2]), [Some("[null]".into()), Some("[2.5]".into())]);
        assert_eq!(
            keys(&[0, 2]),
            [
                Some(r#"["ann \"a\"",null]"#.into()),
                Some("[null,2.5]".into())
            ]
        );
    }
}
