//! SQL expressions over columns, through DataFusion's expression crates. The only folder that names them.
//!
//! What differs from DataFusion's own habits: integer arithmetic is checked, a row that fails is found and refused while
//! the others go on, `where` runs conjunct by conjunct, text is never cast silently, names keep their case, and there is
//! one integer, one float, one text and one timestamp type. A decimal never has more than 38 digits: more refuse the row. Float arithmetic is IEEE: `x / 0.0` is infinite, no error.
//!
//! Invariant: an expression that compiled gives a pure function of the row: no clock, no randomness, no state.

mod aggregate;
mod compile;
mod functions;
mod names;
mod run;
#[cfg(test)]
mod tests;
mod trees;
mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::collect_columns;

use crate::batch::Batch;
use crate::limits;
pub use aggregate::{Accumulators, Aggregation, Inputs};
use compile::{Compiler, Item};
use run::Part;

/// Why an expression does not compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    pub message: String,
    /// What is to blame: bytes of the SQL text.
    pub span: Option<Range<usize>>,
    pub help: Option<String>,
}

/// A compiled `where`.
#[derive(Debug, Clone)]
pub struct Predicate {
    /// Run one after the other, each on the rows that the ones before left.
    conjuncts: Vec<Compiled>,
}

/// A compiled `select`.
#[derive(Debug, Clone)]
pub struct Projection {
    schema: SchemaRef,
    columns: Vec<Column>,
}

/// An expression ready to run, with its text for the reason of a refusal.
#[derive(Debug, Clone)]
struct Compiled {
    text: Arc<str>,
    expr: Arc<dyn PhysicalExpr>,
}

#[derive(Debug, Clone)]
enum Column {
    /// A column of the input as it is.
    Input(usize),
    Computed(Compiled),
}

impl Predicate {
    /// Compiles the condition `sql` over the columns of `schema`; it must be a `bool`.
    pub fn compile(sql: &str, schema: &SchemaRef) -> Result<Self, ExprError> {
        on_big_stack(|| {
            let conjuncts = Compiler::new(schema)?.conjuncts(sql)?;
            Ok(Self { conjuncts })
        })
        .unwrap_or_else(|| Err(ExprError::unplannable()))
    }

    /// Indices of the input's columns that the condition reads, ascending.
    pub fn columns(&self) -> Vec<usize> {
        let read = self.conjuncts.iter().flat_map(|c| collect_columns(&c.expr));
        let read: BTreeSet<usize> = read.map(|column| column.index()).collect();
        read.into_iter().collect()
    }

    /// The rows for which the condition is true (null is not). Rows at which it fails are left out and appended to
    /// `refused` as (row of `batch`, reason), ascending. When every row passes nothing is copied.
    pub fn filter(&self, batch: &Batch, refused: &mut Vec<(u32, String)>) -> Batch {
        let found = refused.len();
        let mut left = batch.clone();
        // The row of `batch` that each row of `left` is; `None` while they are the same.
        let mut rows: Option<Vec<u32>> = None;
        for (i, conjunct) in self.conjuncts.iter().enumerate() {
            let mut failed = Vec::new();
            let mask = conjunct.mask(&left.columns, &mut failed);
            let original = |row: u32| rows.as_ref().map_or(row, |rows| rows[row as usize]);
            refused.extend(failed.into_iter().map(|(row, why)| (original(row), why)));
            if mask.true_count() == left.rows() {
                continue;
            }
            if i + 1 < self.conjuncts.len() {
                let kept = run::true_rows(&mask).map(original).collect();
                rows = Some(kept);
            }
            left = left.filter(&mask);
        }
        refused[found..].sort_by_key(|(row, _)| *row);
        left
    }
}

impl Projection {
    /// Compiles the items of a `select` over the columns of `schema`. `*` stands for all columns. Errors come with the
    /// index of their item, all at once.
    pub fn compile(items: &[String], schema: &SchemaRef) -> Result<Self, Vec<(usize, ExprError)>> {
        on_big_stack(|| Self::compile_here(items, schema))
            .unwrap_or_else(|| Err(vec![(0, ExprError::unplannable())]))
    }

    fn compile_here(items: &[String], schema: &SchemaRef) -> Result<Self, Vec<(usize, ExprError)>> {
        let compiler = Compiler::new(schema).map_err(|error| vec![(0, error)])?;
        let mut fields: Vec<(usize, Field)> = Vec::new();
        let mut columns = Vec::new();
        let mut errors = Vec::new();
        for (i, sql) in items.iter().enumerate() {
            let found = if sql.trim() == "*" {
                Ok(all_columns(schema))
            } else {
                compiler.item(sql).map(|item| vec![item])
            };
            for Item { field, column } in found.unwrap_or_else(|error| {
                errors.push((i, error));
                Vec::new()
            }) {
                if let Some((earlier, _)) = fields.iter().find(|(_, f)| f.name() == field.name()) {
                    errors.push((i, ExprError::twice(field.name(), &items[*earlier])));
                }
                fields.push((i, field));
                columns.push(column);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let fields: Vec<Field> = fields.into_iter().map(|(_, field)| field).collect();
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            columns,
        })
    }

    /// Indices of the input's columns that the expressions read, ascending.
    pub fn columns(&self) -> Vec<usize> {
        let mut read = BTreeSet::new();
        for column in &self.columns {
            match column {
                Column::Input(i) => drop(read.insert(*i)),
                Column::Computed(c) => {
                    read.extend(collect_columns(&c.expr).iter().map(|c| c.index()));
                }
            }
        }
        read.into_iter().collect()
    }

    /// The columns that [`apply`](Self::apply) gives.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// One row for each row of `batch`, with its time and origin. Rows at which an expression fails are left out and
    /// appended to `refused` as (row of `batch`, reason), ascending. Plain columns are shared, not copied.
    pub fn apply(&self, batch: &Batch, refused: &mut Vec<(u32, String)>) -> Batch {
        let parts = run::parts(&batch.columns, refused, |columns| self.project(columns));
        let whole: Vec<Batch> = parts
            .into_iter()
            .map(|Part { start, rows, value }| batch.slice(start, rows).with_columns(value))
            .collect();
        Batch::concat(&whole).unwrap_or_else(|| {
            batch
                .slice(0, 0)
                .with_columns(RecordBatch::new_empty(self.schema()))
        })
    }

    fn project(&self, input: &RecordBatch) -> Result<RecordBatch, String> {
        let columns = self
            .columns
            .iter()
            .map(|column| match column {
                Column::Input(i) => Ok(input.column(*i).clone()),
                Column::Computed(compiled) => compiled.array(input),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
        RecordBatch::try_new_with_options(self.schema(), columns, &rows)
            .map_err(|error| words::plain(&error.to_string()))
    }
}

impl Compiled {
    /// True, false or null for each row; false for rows that failed.
    fn mask(&self, batch: &RecordBatch, failed: &mut Vec<(u32, String)>) -> BooleanArray {
        let parts = run::parts(batch, failed, |rows| {
            let array = self.array(rows)?;
            Ok(run::as_mask(array))
        });
        run::join_masks(parts, batch.num_rows())
    }

    fn array(&self, batch: &RecordBatch) -> Result<ArrayRef, String> {
        let work = || {
            let array = self.expr.evaluate(batch)?.into_array(batch.num_rows())?;
            trees::within_precision(&array)?;
            Ok::<_, DataFusionError>(array)
        };
        // An expression holds nothing that a panic in one of DataFusion's kernels could leave half done.
        let cause = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(array)) => return Ok(array),
            Ok(Err(error)) => words::failure(&error),
            Err(_) => "its evaluation panicked".to_string(),
        };
        Err(format!("`{}`: {}", self.text, words::cut(cause)))
    }
}

fn all_columns(schema: &SchemaRef) -> Vec<Item> {
    let fields = schema.fields().iter().enumerate();
    fields
        .map(|(i, field)| Item {
            field: field.as_ref().clone(),
            column: Column::Input(i),
        })
        .collect()
}

/// Parsing, planning and dropping a tree of expressions recurse; `None` if DataFusion panicked.
fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("expressions".into())
            .stack_size(limits::STACK_BYTES)
            .spawn_scoped(scope, work)
            .expect("the system can start a thread")
            .join()
            .ok()
    })
}

impl ExprError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: None,
            help: None,
        }
    }

    fn at(mut self, span: Option<Range<usize>>) -> Self {
        self.span = span;
        self
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn unplannable() -> Self {
        Self::new("this expression cannot be planned").help("write it in a simpler form")
    }

    fn twice(name: &str, earlier: &str) -> Self {
        Self::new(format!("two columns are named `{name}`")).help(format!(
            "`{earlier}` has this name already; give one of them another with `as`"
        ))
    }

    /// The line of `sql` that is to blame with carets under it, then message and help: for logs and tests.
    pub fn picture(&self, sql: &str) -> String {
        let mut text = self.message.clone();
        if let Some(span) = &self.span {
            let start = sql[..span.start].rfind('\n').map_or(0, |i| i + 1);
            let end = sql[start..].find('\n').map_or(sql.len(), |i| start + i);
            let before = sql[start..span.start].chars().count();
            let carets = sql[span.start..span.end.min(end).max(span.start)]
                .chars()
                .count();
            text += &format!(
                "\n  {}\n  {}{}",
                &sql[start..end],
                " ".repeat(before),
                "^".repeat(carets.max(1))
            );
        }
        if let Some(help) = &self.help {
            text += &format!("\n  help: {help}");
        }
        text
    }
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ExprError {}
