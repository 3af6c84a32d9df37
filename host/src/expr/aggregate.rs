//! The aggregates of a window step: what each item reads of a row, partial results by group that merge, and the columns
//! that come of them.
//!
//! An item is any expression around aggregates (`sum(amount) / count(*)`). The aggregates of all items are kept once each;
//! the expressions around them run on their results, checked like those of a `select`.
//!
//! Invariant: a result depends on the rows of its group alone, not on their order of arrival nor on how they were cut
//! into partial results (sums of floats: to the last bits).

mod call;
mod catalogue;
mod compile;
mod count;
mod distinct;
mod exact;
mod extreme;
mod inputs;
mod interned;
mod lists;
mod native;
mod ordered;
mod partials;
mod percentile;
mod pick;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_physical_expr::utils::collect_columns;
use datafusion_sql::sqlparser::ast::Expr as Sql;
use serde_json::{Value, json};

use super::compile::Compiler;
use super::run::{self, Part};
use super::{Compiled, ExprError, Projection, on_big_stack, words};
use call::Call;
pub use inputs::Inputs;
use partials::Partials;

/// A compiled `aggregate = { name = "sql", ... }` of a window step.
#[derive(Debug, Clone)]
pub struct Aggregation {
    /// Each different aggregate of the items once.
    calls: Arc<[Call]>,
    /// What the arguments and order keys of all calls are computed by, each once.
    expressions: Arc<[Compiled]>,
    /// The results of the calls, by position; a call's name is its SQL.
    results: SchemaRef,
    /// From the results of the calls to the items.
    items: Projection,
}

/// Partial results of every aggregate for groups 0..n. A new one, or one that was emptied, has no groups.
pub struct Accumulators {
    aggregation: Aggregation,
    partials: Vec<Box<dyn Partials>>,
    groups: usize,
}

impl Aggregation {
    /// Compiles `items`, column name and SQL each, over the columns of `input`. Errors come with the index of their item,
    /// all at once.
    pub fn compile(
        items: &[(String, String)],
        input: &SchemaRef,
    ) -> Result<Self, Vec<(usize, ExprError)>> {
        on_big_stack(|| {
            let compiler = Compiler::new(input).map_err(|error| vec![(0, error)])?;
            compile::items(items, &compiler, input)
        })
        .unwrap_or_else(|| Err(vec![(0, ExprError::unplannable())]))
    }

    /// The result columns, in the order of the items.
    pub fn schema(&self) -> SchemaRef {
        self.items.schema()
    }

    /// The columns of partial states. Columns go by position; their names only tell them apart.
    pub fn state_schema(&self) -> SchemaRef {
        let fields = self.calls.iter().enumerate().flat_map(|(i, call)| {
            let states = call.function.states().into_iter().enumerate();
            states.map(move |(j, kind)| Field::new(format!("{i}.{j}"), kind, true))
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Nothing accumulated yet.
    pub fn accumulators(&self) -> Accumulators {
        Accumulators {
            partials: self.calls.iter().map(|c| c.function.partials()).collect(),
            aggregation: self.clone(),
            groups: 0,
        }
    }

    /// The input columns that the expressions read, ascending.
    pub fn columns(&self) -> Vec<usize> {
        let filters = self.calls.iter().flat_map(|call| &call.filter);
        let read = self.expressions.iter().chain(filters);
        let mut columns: Vec<usize> = read
            .flat_map(|e| collect_columns(&e.expr))
            .map(|column| column.index())
            .collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// What partial states mean, for comparison with that of states stored earlier: the aggregates and their types. It
    /// stays the same while only names of columns or the expressions around aggregates change.
    pub fn signature(&self) -> Value {
        let calls = self.calls.iter().map(|call| {
            let kinds = |kinds: &[arrow::datatypes::DataType]| {
                kinds.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            json!({
                "aggregate": call.text.as_ref(),
                "of": kinds(&call.kinds),
                "version": call.function.version(),
            })
        });
        calls.collect()
    }
}

impl Accumulators {
    /// Takes row i of `inputs` into group `groups[i]`; there are `total_groups`, never fewer than before. `groups` is as
    /// long as the inputs and below `total_groups`; a group that is new in this call has a row in it (or has no result: of
    /// a call without nulls it is taken to have a value). After an error the partial results are of no use.
    pub fn update(
        &mut self,
        inputs: &Inputs,
        groups: &[usize],
        total_groups: usize,
    ) -> Result<(), String> {
        assert_eq!(inputs.rows(), groups.len());
        self.groups = total_groups;
        for (partials, of_call) in self.partials.iter_mut().zip(&inputs.calls) {
            let filter = of_call.filter.as_ref();
            partials.update(&of_call.values, groups, filter, total_groups)?;
        }
        Ok(())
    }

    /// Takes row i of `states`, columns of [`Aggregation::state_schema`], into group `groups[i]`; new groups have a row, as
    /// in [`update`](Self::update).
    pub fn merge(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        total_groups: usize,
    ) -> Result<(), String> {
        self.groups = total_groups;
        let mut rest = states;
        for (partials, call) in self.partials.iter_mut().zip(self.aggregation.calls.iter()) {
            let kinds = call.function.states();
            let Some((own, others)) = rest.split_at_checked(kinds.len()) else {
                return Err("stored partial results have too few columns".into());
            };
            if let Some((column, kind)) = own
                .iter()
                .zip(&kinds)
                .find(|(c, kind)| c.data_type() != *kind || c.len() != groups.len())
            {
                return Err(format!(
                    "stored partial results of `{}` have {} values of {}, expected {} of {kind}",
                    call.text,
                    column.len(),
                    column.data_type(),
                    groups.len(),
                ));
            }
            partials.merge(own, groups, total_groups)?;
            rest = others;
        }
        Ok(())
    }

    /// Partial states of all groups, one row each, in columns of [`Aggregation::state_schema`]. Empties self.
    pub fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        if std::mem::take(&mut self.groups) == 0 {
            let none = RecordBatch::new_empty(self.aggregation.state_schema());
            return Ok(none.columns().to_vec());
        }
        let mut columns = Vec::new();
        for partials in &mut self.partials {
            columns.extend(partials.state()?);
        }
        Ok(columns)
    }

    /// Results of all groups, in columns of [`Aggregation::schema`]. Empties self. Groups whose result cannot be
    /// represented are left out and appended to `refused` as (group, reason), ascending; `None` means that all groups
    /// stayed, otherwise it is the group of each row.
    pub fn evaluate(
        &mut self,
        refused: &mut Vec<(u32, String)>,
    ) -> Result<(RecordBatch, Option<Vec<u32>>), String> {
        let groups = std::mem::take(&mut self.groups);
        if groups == 0 {
            return Ok((RecordBatch::new_empty(self.aggregation.schema()), None));
        }
        let mut failed = Vec::new();
        let mut columns = Vec::with_capacity(self.partials.len());
        for (partials, call) in self.partials.iter_mut().zip(self.aggregation.calls.iter()) {
            let mut of_call = Vec::new();
            columns.push(partials.evaluate(&mut of_call)?);
            let named = of_call
                .into_iter()
                .map(|(group, why)| (group, format!("`{}`: {why}", call.text)));
            failed.extend(named);
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(groups));
        let results = self.aggregation.results.clone();
        let results = RecordBatch::try_new_with_options(results, columns, &rows)
            .map_err(|error| words::plain(&error.to_string()))?;
        self.aggregation.finish(results, failed, refused)
    }

    /// Memory in bytes, about.
    pub fn bytes(&self) -> usize {
        self.partials.iter().map(|partials| partials.bytes()).sum()
    }
}

impl Aggregation {
    /// The items of those groups of `results` that are not in `failed`.
    fn finish(
        &self,
        mut results: RecordBatch,
        mut failed: Vec<(u32, String)>,
        refused: &mut Vec<(u32, String)>,
    ) -> Result<(RecordBatch, Option<Vec<u32>>), String> {
        // A group that fails in several aggregates is refused once, for the first of them.
        failed.sort_by_key(|(group, _)| *group);
        failed.dedup_by_key(|(group, _)| *group);
        let mut kept: Option<Vec<u32>> = None;
        if !failed.is_empty() {
            let mut stays = vec![true; results.num_rows()];
            failed
                .iter()
                .for_each(|(group, _)| stays[*group as usize] = false);
            results = filter_record_batch(&results, &BooleanArray::from(stays.clone()))
                .map_err(|error| words::plain(&error.to_string()))?;
            kept = Some(indices(&stays));
        }
        let mut late = Vec::new();
        let parts = run::parts(&results, &mut late, |rows| self.items.project(rows));
        let original = |row: u32| kept.as_ref().map_or(row, |kept| kept[row as usize]);
        failed.extend(late.iter().map(|(row, why)| (original(*row), why.clone())));
        failed.sort_by_key(|(group, _)| *group);
        refused.extend(failed);
        if late.is_empty() {
            let whole = parts.into_iter().next().map(|part| part.value);
            let whole = whole.unwrap_or_else(|| RecordBatch::new_empty(self.schema()));
            return Ok((whole, kept));
        }
        let rows = covered(&parts).map(original).collect();
        let values: Vec<_> = parts.into_iter().map(|part| part.value).collect();
        let whole = concat_batches(&self.schema(), &values)
            .map_err(|error| words::plain(&error.to_string()))?;
        Ok((whole, Some(rows)))
    }
}

/// The column that `tree` is, brackets or not.
fn column_of(tree: &Sql, schema: &SchemaRef) -> Option<usize> {
    match tree {
        Sql::Nested(inner) => column_of(inner, schema),
        Sql::Identifier(name) => schema.index_of(&name.value).ok(),
        _ => None,
    }
}

/// The rows of `parts`, ascending.
fn covered<T>(parts: &[Part<T>]) -> impl Iterator<Item = u32> + '_ {
    parts
        .iter()
        .flat_map(|part| part.start as u32..(part.start + part.rows) as u32)
}

fn indices(stays: &[bool]) -> Vec<u32> {
    (0..stays.len() as u32)
        .filter(|&i| stays[i as usize])
        .collect()
}
