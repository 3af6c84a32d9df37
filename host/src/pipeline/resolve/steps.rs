//! Filters, projections and lookups.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use serde_json::{Value, json};

use super::sources::type_name;
use super::{Resolver, Rows};
use crate::expr::{ExprError, Predicate, Projection};
use crate::pipeline::plan::{self, Operator, Port, Step};
use crate::pipeline::quoted;
use crate::pipeline::spec;
use crate::pipeline::text::Spanned;
use crate::step::lookup::added_columns;

/// Name of the first port of a step whose operator gives it none.
pub const MAIN_PORT: &str = "main";

impl Resolver<'_> {
    pub(super) fn step(&mut self, step: &spec::Step) -> Option<Step> {
        let rows = step.from.as_ref().and_then(|from| self.rows(from));
        match step.operator.as_ref()? {
            spec::Operator::Project { filter, select } => {
                self.project(step, rows?, filter.as_ref(), select.as_deref())
            }
            spec::Operator::Lookup(lookup) => self.lookup(step, rows, lookup),
            spec::Operator::Plugin(plugin) => self.plugin(step, rows, plugin),
        }
    }

    fn project(
        &mut self,
        step: &spec::Step,
        rows: Rows,
        filter: Option<&Spanned<String>>,
        select: Option<&[Spanned<String>]>,
    ) -> Option<Step> {
        let filter = filter.map(|sql| {
            Predicate::compile(&sql.value, &rows.schema).map_err(|e| self.sql_mistake(sql, e))
        });
        let projection = select.map(|items| {
            let texts: Vec<String> = items.iter().map(|i| i.value.clone()).collect();
            Projection::compile(&texts, &rows.schema).map_err(|errors| {
                for (item, error) in errors {
                    self.sql_mistake(&items[item], error);
                }
            })
        });
        let filter = filter.transpose().ok();
        let projection = projection.transpose().ok();
        let (filter, projection) = (filter?, projection?);
        let schema = match &projection {
            Some(projection) => projection.schema(),
            None => rows.schema.clone(),
        };
        let operator = Operator::Project { filter, projection };
        let ports = vec![main_port(schema)];
        Some(stateless(step, &rows, operator, ports, "project"))
    }

    /// A mistake within an expression, shown where it stands in the file.
    fn sql_mistake(&mut self, sql: &Spanned<String>, error: ExprError) {
        let span = match error.span {
            Some(range) => quoted::within(&self.spec.texts, sql.span, range),
            None => sql.span,
        };
        self.findings
            .error(span, error.message)
            .maybe_help(error.help);
    }

    fn lookup(
        &mut self,
        step: &spec::Step,
        rows: Option<Rows>,
        lookup: &spec::Lookup,
    ) -> Option<Step> {
        let table = lookup.table.as_ref().and_then(|t| self.table_named(t)?);
        let on = match (&rows, &lookup.on) {
            (Some(rows), Some(on)) => self.column(on, &rows.schema, "the input"),
            _ => None,
        };
        let table = table?;
        let add: Vec<_> = lookup
            .add
            .iter()
            .map(|name| self.column_of_table(table, name))
            .collect();
        let rows = rows?;
        self.same_type(lookup, on, table, &rows.schema)?;
        let add: Vec<usize> = add.into_iter().collect::<Option<_>>()?;
        let columns = self.tables[table].as_ref()?.schema.clone();
        let added = added_columns(&columns, &add, lookup.kind);
        let schema = self.appended(&rows.schema, &added, |i| lookup.add[i].span)?;
        let operator = Operator::Lookup(plan::Lookup {
            table,
            on: on?,
            add,
            kind: lookup.kind,
        });
        Some(stateless(
            step,
            &rows,
            operator,
            vec![main_port(schema)],
            "lookup",
        ))
    }

    fn column_of_table(&mut self, table: usize, name: &Spanned<String>) -> Option<usize> {
        let table = self.tables[table].as_ref()?;
        let schema = table.schema.clone();
        let of = format!("table `{}`", table.name);
        self.column(name, &schema, &of)
    }

    fn same_type(
        &mut self,
        lookup: &spec::Lookup,
        on: Option<usize>,
        table: usize,
        schema: &SchemaRef,
    ) -> Option<()> {
        let table = self.tables[table].as_ref()?;
        let key = table.schema.field(table.key);
        let column = schema.field(on?);
        if column.data_type() == key.data_type() {
            return Some(());
        }
        let message = format!(
            "column `{}` is of type {}, the key `{}` of table `{}` of type {}",
            column.name(),
            type_name(column.data_type()),
            key.name(),
            table.name,
            type_name(key.data_type()),
        );
        self.findings
            .error(lookup.on.as_ref()?.span, message)
            .help("give both the same type: in `fields`, or with a cast in a `select` before");
        None
    }

    /// The input's columns with `added` behind them; a name that is there already is a mistake at `span(i)`.
    pub(super) fn appended(
        &mut self,
        input: &SchemaRef,
        added: &[FieldRef],
        span: impl Fn(usize) -> crate::pipeline::text::Span,
    ) -> Option<SchemaRef> {
        let mut fields: Vec<FieldRef> = input.fields().iter().cloned().collect();
        let mut clash = false;
        for (i, field) in added.iter().enumerate() {
            if let Some(at) = fields.iter().position(|f| f.name() == field.name()) {
                let what = if at < input.fields().len() {
                    format!(
                        "column `{}` is added, but the input already has it",
                        field.name()
                    )
                } else {
                    format!("column `{}` is added twice", field.name())
                };
                self.findings
                    .error(span(i), what)
                    .help("rename or leave out the input's column in a `select` before this step");
                clash = true;
            }
            fields.push(field.clone());
        }
        (!clash).then(|| Arc::new(Schema::new(fields)))
    }
}

fn main_port(schema: SchemaRef) -> Port {
    Port {
        name: MAIN_PORT.into(),
        schema,
    }
}

fn stateless(
    step: &spec::Step,
    rows: &Rows,
    operator: Operator,
    ports: Vec<Port>,
    kind: &str,
) -> Step {
    Step {
        name: step.name.value.clone(),
        inputs: vec![rows.input],
        key: Vec::new(),
        operator,
        ports,
        has_event_time: rows.has_event_time,
        signature: json!({ "operator": kind }),
    }
}

/// Name and type of a column, as a signature has it.
pub fn column_signature(field: &Field) -> Value {
    json!({ "name": field.name(), "type": type_name(field.data_type()) })
}
