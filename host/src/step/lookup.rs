//! Adds columns of a reference table to each row, found by one key column: a join with an immutable snapshot.
//!
//! Keeps no state. Emits with the input, its rows with their times and origins. A key that is null or not in the table
//! finds nothing: the added columns are null then (left), or the row is dropped (inner). All rows of an epoch see one snapshot: a newer one is taken at `tick`.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::is_not_null;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};

use super::{Output, Step, StepError, Tick};
use crate::batch::Batch;
use crate::pipeline::plan::{self, LookupKind};
use crate::table::{Snapshot, TableSet};

/// A lookup as one worker runs it.
#[derive(Debug)]
pub struct Lookup {
    tables: Arc<TableSet>,
    plan: plan::Lookup,
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
}

impl Lookup {
    /// Over rows of `input`. The key column must be of the type of the table's key: string or int.
    pub fn new(
        plan: &plan::Lookup,
        tables: Arc<TableSet>,
        input: &SchemaRef,
    ) -> Result<Self, StepError> {
        let snapshot = tables.snapshot(plan.table);
        let on = input.field(plan.on);
        check_key(&snapshot, on.data_type())
            .map_err(|cause| StepError::Failed(format!("lookup on `{}`: {cause}", on.name())))?;
        Ok(Self {
            schema: schema(input, &snapshot.schema(), plan),
            plan: plan.clone(),
            tables,
            snapshot,
        })
    }

    /// The input's columns, then the added ones.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// What a lookup gives: the columns of `input`, then those of `table`.
fn schema(input: &Schema, table: &Schema, plan: &plan::Lookup) -> SchemaRef {
    let added = added_columns(table, &plan.add, plan.kind);
    let fields: Vec<_> = input.fields().iter().cloned().chain(added).collect();
    Arc::new(Schema::new(fields))
}

/// The columns `add` of `table` as a lookup adds them: in a left one they may be null, because a key may be unknown.
pub fn added_columns(table: &Schema, add: &[usize], kind: LookupKind) -> Vec<FieldRef> {
    let column = |&i: &usize| {
        let field = table.field(i).clone();
        let nullable = field.is_nullable() || kind == LookupKind::Left;
        Arc::new(field.with_nullable(nullable))
    };
    add.iter().map(column).collect()
}

impl Step for Lookup {
    fn process(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        let failed = |cause: String| StepError::Failed(cause);
        let mut found = self
            .snapshot
            .probe(batch.columns.column(self.plan.on))
            .map_err(failed)?;
        let mut batch = batch;
        if self.plan.kind == LookupKind::Inner && found.null_count() > 0 {
            let known = is_not_null(&found).map_err(|error| failed(error.to_string()))?;
            batch = batch.filter(&known);
            found = found.iter().flatten().collect();
        }
        if batch.rows() == 0 {
            return Ok(());
        }
        let added = self
            .plan
            .add
            .iter()
            .map(|&column| self.snapshot.gather(column, &found));
        let columns = batch
            .columns
            .columns()
            .iter()
            .cloned()
            .chain(added)
            .collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.rows()));
        let columns = RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows)
            .map_err(|error| failed(error.to_string()))?;
        out.push(0, batch.with_columns(columns));
        Ok(())
    }

    fn tick(&mut self, _time: Tick, _out: &mut Output) -> Result<(), StepError> {
        self.snapshot = self.tables.snapshot(self.plan.table);
        Ok(())
    }
}

/// An empty probe says whether the types agree.
fn check_key(snapshot: &Snapshot, data_type: &DataType) -> Result<(), String> {
    let none = arrow::array::new_empty_array(data_type);
    snapshot.probe(&none).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;
    use crate::pipeline::plan::{Format, TableConnector};

    fn products(dir: &Path, csv: &str) -> plan::Table {
        let path = dir.join("products.csv");
        fs::write(&path, csv).unwrap();
        plan::Table {
            name: "products".into(),
            connector: TableConnector::File { path },
            format: Format::Csv,
            key: 0,
            schema: Arc::new(Schema::new(vec![
                Field::new("product_id", DataType::Utf8, false),
                Field::new("category", DataType::Utf8, false),
            ])),
            paths: vec![vec!["product_id".into()], vec!["category".into()]],
        }
    }

    fn rows(keys: ArrayRef) -> Batch {
        let field = Field::new("product_id", keys.data_type().clone(), true);
        let columns = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![keys]).unwrap();
        Batch {
            times: (0..columns.num_rows() as i64).collect(),
            columns,
            origins: None,
        }
    }

    fn texts(keys: &[Option<&str>]) -> Batch {
        rows(Arc::new(StringArray::from(keys.to_vec())))
    }

    const ON_FIRST: plan::Lookup = plan::Lookup {
        table: 0,
        on: 0,
        add: Vec::new(),
        kind: LookupKind::Left,
    };

    fn added(lookup: &mut Lookup, batch: Batch) -> Vec<Option<String>> {
        let mut out = Output::new(1);
        lookup.process(0, batch, &mut out).unwrap();
        let column = out.ports[0][0].columns.column(1).clone();
        let texts = column.as_string::<i32>();
        texts.iter().map(|t| t.map(str::to_string)).collect()
    }

    #[test]
    fn unknown_and_null_keys_add_nulls() {
        let dir = tempfile::tempdir().unwrap();
        let table = products(dir.path(), "product_id,category\np1,books\np2,toys\n");
        let tables = TableSet::load(&[table]).unwrap();
        let plan = plan::Lookup {
            add: vec![1],
            ..ON_FIRST
        };
        let batch = texts(&[Some("p2"), None, Some("p9"), Some("p1"), Some("p2")]);
        let mut lookup = Lookup::new(&plan, tables, &batch.schema()).unwrap();
        assert!(lookup.schema().field(1).is_nullable());
        let toys = Some("toys".to_string());
        let books = Some("books".to_string());
        assert_eq!(
            added(&mut lookup, batch),
            [toys.clone(), None, None, books, toys]
        );
    }

    #[test]
    fn an_inner_lookup_drops_rows_without_a_match() {
        let dir = tempfile::tempdir().unwrap();
        let table = products(dir.path(), "product_id,category\np1,books\np2,toys\n");
        let tables = TableSet::load(&[table]).unwrap();
        let plan = plan::Lookup {
            add: vec![1],
            kind: LookupKind::Inner,
            ..ON_FIRST
        };
        let batch = texts(&[Some("p2"), None, Some("p9"), Some("p1"), Some("")]);
        let mut lookup = Lookup::new(&plan, tables.clone(), &batch.schema()).unwrap();
        assert!(!lookup.schema().field(1).is_nullable());
        let mut out = Output::new(1);
        lookup.process(0, batch.clone(), &mut out).unwrap();
        let rows = &out.ports[0][0];
        assert_eq!(rows.times.to_vec(), [0, 3]);
        let found = rows.columns.column(1).as_string::<i32>();
        assert_eq!((found.value(0), found.value(1)), ("toys", "books"));

        let mut out = Output::new(1);
        lookup
            .process(0, texts(&[None, Some("p9")]), &mut out)
            .unwrap();
        assert!(out.ports[0].is_empty(), "no row, no batch");

        // Only a filter.
        let plan = plan::Lookup {
            add: vec![],
            ..plan
        };
        let mut filter = Lookup::new(&plan, tables, &batch.schema()).unwrap();
        let mut out = Output::new(1);
        filter.process(0, batch, &mut out).unwrap();
        assert_eq!(out.ports[0][0].times.to_vec(), [0, 3]);
        assert_eq!(out.ports[0][0].columns.num_columns(), 1);
    }

    #[test]
    fn a_changed_table_is_seen_from_the_next_epoch_on() {
        let dir = tempfile::tempdir().unwrap();
        let table = products(dir.path(), "product_id,category\np1,books\n");
        let tables = TableSet::load(&[table]).unwrap();
        let plan = plan::Lookup {
            add: vec![1],
            ..ON_FIRST
        };
        let batch = texts(&[Some("p1")]);
        let mut lookup = Lookup::new(&plan, tables.clone(), &batch.schema()).unwrap();

        products(dir.path(), "product_id,category\np1,sports and games\n");
        assert_eq!(tables.reload_changed().changed, ["products"]);
        assert_eq!(
            added(&mut lookup, batch.clone()),
            [Some("books".to_string())]
        );
        lookup
            .tick(
                Tick {
                    watermark: 0,
                    now: 0,
                },
                &mut Output::new(1),
            )
            .unwrap();
        assert_eq!(
            added(&mut lookup, batch),
            [Some("sports and games".to_string())]
        );
    }

    #[test]
    fn a_key_of_another_type_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let tables = TableSet::load(&[products(dir.path(), "product_id,category\n")]).unwrap();
        let batch = rows(Arc::new(Int64Array::from(vec![1])));
        let error = Lookup::new(&ON_FIRST, tables, &batch.schema()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lookup on `product_id`: table `products` has keys of type string, they are looked up with int"
        );
    }
}
