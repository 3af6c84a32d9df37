//! Many rows in one statement: inserted, or each in the place of the one with its key.
//!
//! Works within a transaction of the caller's. Invariant: either all rows given are written or the error names the first
//! row that Postgres does not take. Later rows win over earlier ones of their key.

use std::collections::HashMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Statement, Transaction};

use super::columns::{TargetType, parameter, travel};
use super::fault::Fault;
use super::table::{Target, quoted};
use crate::format::encode::RowWriter;
use crate::limits::POSTGRES_ROW_SHOWN_BYTES;
use crate::pipeline::plan::WriteMode;

/// How rows of one schema are written.
pub struct Insert {
    schema: SchemaRef,
    sql: String,
    types: Vec<TargetType>,
    /// Indices of the key columns; `None`: rows have no key.
    key: Option<Vec<usize>>,
    statement: Option<Statement>,
}

impl Insert {
    /// `label` is the value of the column `step`, where there is one. The table has been checked for other rows perhaps: an
    /// error says what does not fit.
    pub fn new(
        target: &Target,
        schema: &SchemaRef,
        label: Option<(&str, &str)>,
        key: &[String],
        mode: WriteMode,
    ) -> Result<Self, String> {
        let mut into: Vec<String> = label.iter().map(|(column, _)| quoted(column)).collect();
        let mut values: Vec<String> = label
            .iter()
            .map(|(_, value)| format!("'{}'", value.replace('\'', "''")))
            .collect();
        let (mut parameters, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for (index, field) in schema.fields().iter().enumerate() {
            let unfit = || {
                format!(
                    "table {} does not take column \"{}\"",
                    target.sql,
                    field.name()
                )
            };
            let column = target.column(field.name()).ok_or_else(unfit)?;
            let travel = travel(field.data_type(), &column.ty).ok_or_else(unfit)?;
            into.push(quoted(field.name()));
            values.push(match travel.cast {
                true => format!("r.c{index}::{}", column.cast_to),
                false => format!("r.c{index}"),
            });
            parameters.push(format!("${}::{}[]", index + 1, travel.parameter));
            names.push(format!("c{index}"));
            types.push(column.ty.clone());
        }
        let mut sql = format!(
            "INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS r({})",
            target.sql,
            into.join(", "),
            values.join(", "),
            parameters.join(", "),
            names.join(", ")
        );
        let key = (mode == WriteMode::Upsert).then(|| {
            sql += &on_conflict(&into, key);
            key.iter().filter_map(|k| schema.index_of(k).ok()).collect()
        });
        Ok(Self {
            schema: schema.clone(),
            sql,
            types,
            key,
            statement: None,
        })
    }

    pub fn is_for(&self, schema: &SchemaRef) -> bool {
        self.schema == *schema
    }

    /// Writes all rows. Where Postgres takes not all of them together, they are halved until the row is found that is in
    /// the way; keys that only Postgres holds for equal come apart that way, too.
    pub async fn write(&mut self, tx: &Transaction<'_>, rows: &RecordBatch) -> Result<(), Fault> {
        let mut left = vec![self.last_of_each_key(rows).map_err(Fault::Failed)?];
        while let Some(rows) = left.pop() {
            run(tx, "SAVEPOINT tidemill").await?;
            let fault = match self.execute(tx, &rows).await {
                Ok(()) => {
                    run(tx, "RELEASE SAVEPOINT tidemill").await?;
                    continue;
                }
                Err(Fault::Rows(cause)) => cause,
                Err(fault) => return Err(fault),
            };
            run(
                tx,
                "ROLLBACK TO SAVEPOINT tidemill; RELEASE SAVEPOINT tidemill",
            )
            .await?;
            match rows.num_rows() {
                0 | 1 => {
                    return Err(Fault::Failed(format!(
                        "{fault}; the row is {}",
                        shown(&rows)
                    )));
                }
                n => left.extend([rows.slice(n / 2, n - n / 2), rows.slice(0, n / 2)]),
            }
        }
        Ok(())
    }

    async fn execute(&mut self, tx: &Transaction<'_>, rows: &RecordBatch) -> Result<(), Fault> {
        let prepared = match &self.statement {
            Some(statement) => statement.clone(),
            None => {
                let statement = tx
                    .prepare(&self.sql)
                    .await
                    .map_err(|e| Fault::of(&e, true))?;
                self.statement.insert(statement).clone()
            }
        };
        let mut parameters = Vec::with_capacity(self.types.len());
        for (column, ty) in rows.columns().iter().zip(&self.types) {
            parameters.push(parameter(column, ty).map_err(|(row, cause)| {
                Fault::Failed(format!(
                    "{cause}; the row is {}",
                    shown(&rows.slice(row, 1))
                ))
            })?);
        }
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters
            .iter()
            .map(|p| &**p as &(dyn ToSql + Sync))
            .collect();
        let done = tx.execute(&prepared, &parameters).await;
        done.map(|_| ()).map_err(|error| Fault::of(&error, true))
    }

    /// Of rows with one key only the last, as Postgres refuses to touch a row twice in one statement.
    fn last_of_each_key(&self, rows: &RecordBatch) -> Result<RecordBatch, String> {
        let Some(key) = &self.key else {
            return Ok(rows.clone());
        };
        let count = rows.num_rows();
        if key.is_empty() {
            // `step` alone is the key, and all rows here are of one.
            return Ok(rows.slice(count.saturating_sub(1), count.min(1)));
        }
        let fields = key
            .iter()
            .map(|&k| SortField::new(self.schema.field(k).data_type().clone()));
        let converter = RowConverter::new(fields.collect()).map_err(|e| e.to_string())?;
        let columns: Vec<_> = key.iter().map(|&k| rows.column(k).clone()).collect();
        let keys = converter
            .convert_columns(&columns)
            .map_err(|e| e.to_string())?;
        let mut last = HashMap::with_capacity(count);
        for (row, key) in keys.iter().enumerate() {
            last.insert(key, row as u32);
        }
        if last.len() == count {
            return Ok(rows.clone());
        }
        let mut kept: Vec<u32> = last.into_values().collect();
        kept.sort_unstable();
        take_record_batch(rows, &UInt32Array::from(kept)).map_err(|e| e.to_string())
    }
}

/// `into` are the columns written, quoted.
fn on_conflict(into: &[String], key: &[String]) -> String {
    let key: Vec<_> = key.iter().map(|k| quoted(k)).collect();
    let others = into.iter().filter(|column| !key.contains(column));
    let set: Vec<_> = others.map(|c| format!("{c} = EXCLUDED.{c}")).collect();
    let conflict = format!(" ON CONFLICT ({})", key.join(", "));
    match set.is_empty() {
        true => format!("{conflict} DO NOTHING"),
        false => format!("{conflict} DO UPDATE SET {}", set.join(", ")),
    }
}

async fn run(tx: &Transaction<'_>, sql: &str) -> Result<(), Fault> {
    tx.batch_execute(sql).await.map_err(|e| Fault::of(&e, true))
}

/// The first row as JSON, cut.
fn shown(rows: &RecordBatch) -> String {
    let mut text = Vec::new();
    RowWriter::new(&rows.schema()).write_lines(&rows.slice(0, rows.num_rows().min(1)), &mut text);
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end();
    let end = text.floor_char_boundary(POSTGRES_ROW_SHOWN_BYTES);
    let dots = if end < text.len() { "…" } else { "" };
    format!("{}{dots}", &text[..end])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn insert(key: Option<Vec<usize>>) -> Insert {
        Insert {
            schema: rows(&[], &[]).schema(),
            sql: String::new(),
            types: Vec::new(),
            key,
            statement: None,
        }
    }

    fn rows(keys: &[Option<&str>], values: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("k", DataType::Utf8, true),
            Field::new("v", DataType::Int64, false),
        ]);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringArray::from(keys.to_vec())),
            Arc::new(Int64Array::from(values.to_vec())),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn the_last_row_of_a_key_is_kept() {
        let all = rows(
            &[Some("a"), None, Some("b"), Some("a"), None],
            &[1, 2, 3, 4, 5],
        );
        let kept = |key| insert(key).last_of_each_key(&all).unwrap();
        assert_eq!(kept(None), all);
        assert_eq!(
            kept(Some(vec![0])),
            rows(&[Some("b"), Some("a"), None], &[3, 4, 5])
        );
        assert_eq!(kept(Some(vec![0, 1])), all);
        assert_eq!(kept(Some(vec![])), rows(&[None], &[5]));
    }

    #[test]
    fn conflicts() {
        let into = ["\"k\"".to_owned(), "\"v\"".to_owned()];
        let of = |key: &[&str]| {
            on_conflict(
                &into,
                &key.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            of(&["k"]),
            " ON CONFLICT (\"k\") DO UPDATE SET \"v\" = EXCLUDED.\"v\""
        );
        assert_eq!(of(&["v", "k"]), " ON CONFLICT (\"v\", \"k\") DO NOTHING");
    }
}
