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
        if let Some(spec::Operator::Join(join)) = &step.operator {
            return self.join(step, join);
        }
        let Some(operator) = &step.operator else {
            // What it does is not known, nor how it would read these.
            step.from.iter().for_each(|from| _ = self.facts(from));
            return None;
        };
        let rows = self.union(step);
        match operator {
            spec::Operator::Project { filter, select } => {
                self.project(step, rows?, filter.as_ref(), select.as_deref())
            }
            spec::Operator::Lookup(lookup) => self.lookup(step, rows, lookup),
            spec::Operator::Plugin(plugin) => self.plugin(step, rows, plugin),
            spec::Operator::Window(window) => self.window(step, rows?, window),
            spec::Operator::Deduplicate(d) => self.deduplicate(step, rows?, d),
            spec::Operator::Join(_) => unreachable!("joins have two sides"),
        }
    }

    /// What `from` names, read as one.
    fn union(&mut self, step: &spec::Step) -> Option<Rows> {
        let found: Vec<_> = step.from.iter().map(|from| self.facts(from)).collect();
        let mut found = found.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
        let mut all = found.next()?;
        for (i, rows) in found.enumerate() {
            let from = &step.from[i + 1];
            if let Some(first) = step.from[..=i].iter().find(|f| f.value == from.value) {
                let message = format!("`{}` is named twice in `from`", from.value);
                self.findings.error(from.span, message).first(first.span);
                return None;
            }
            let Some(schema) = same_columns(&all.schema, &rows.schema) else {
                let message = format!(
                    "`{}` has other columns than `{}`: {}",
                    from.value,
                    step.from[0].value,
                    difference(&all.schema, &rows.schema)
                );
                self.findings.error(from.span, message).help(
                    "give both the same columns in the same order with `select`, in a step before",
                );
                return None;
            };
            all.schema = schema;
            all.inputs.extend(rows.inputs);
            all.has_event_time &= rows.has_event_time;
        }
        Some(all)
    }

    /// Rows that a step may read: corrected results of a window are no new facts.
    pub(super) fn facts(&mut self, name: &Spanned<String>) -> Option<Rows> {
        let rows = self.rows(name)?;
        if !rows.corrections {
            return Some(rows);
        }
        let message = format!(
            "`{}` corrects its results, so only sinks can read it",
            name.value
        );
        self.findings.error(name.span, message).help(
            "leave out `allowed_lateness`, or compute it a second time without for this step",
        );
        None
    }

    /// Says that a step needs the event time that its rows do not have.
    pub(super) fn no_event_time<T>(&mut self, step: &spec::Step, message: String) -> Option<T> {
        let from = step.from.first().map_or(step.name.span, |f| f.span);
        self.findings
            .error(from, message)
            .help("add event_time = { field = \"...\", lateness = \"...\" } to the source");
        None
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
    pub(super) fn sql_mistake(&mut self, sql: &Spanned<String>, error: ExprError) {
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

/// `a`'s columns, null where one of both may be, if `b` has the same names and types.
fn same_columns(a: &SchemaRef, b: &SchemaRef) -> Option<SchemaRef> {
    let same = |(a, b): (&FieldRef, &FieldRef)| {
        let equal = a.name() == b.name() && a.data_type() == b.data_type();
        let nullable = a.is_nullable() || b.is_nullable();
        equal.then(|| Arc::new(a.as_ref().clone().with_nullable(nullable)))
    };
    if a.fields().len() != b.fields().len() {
        return None;
    }
    let fields: Option<Vec<FieldRef>> = a.fields().iter().zip(b.fields()).map(same).collect();
    Some(Arc::new(Schema::new(fields?)))
}

fn difference(a: &SchemaRef, b: &SchemaRef) -> String {
    let column = |s: &SchemaRef, i: usize| match s.fields().get(i) {
        Some(f) => format!("`{}` ({})", f.name(), type_name(f.data_type())),
        None => "nothing".to_owned(),
    };
    let all = 0..a.fields().len().max(b.fields().len());
    all.map(|i| (i, column(a, i), column(b, i)))
        .find(|(_, a, b)| a != b)
        .map_or_else(String::new, |(i, a, b)| {
            format!("column {} is {b} instead of {a}", i + 1)
        })
}

pub(super) fn main_port(schema: SchemaRef) -> Port {
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
        inputs: rows.inputs.clone(),
        keys: None,
        operator,
        ports,
        has_event_time: rows.has_event_time,
        holds_back: 0,
        signature: json!({ "operator": kind }),
    }
}

/// Name and type of a column, as a signature has it.
pub fn column_signature(field: &Field) -> Value {
    json!({ "name": field.name(), "type": type_name(field.data_type()) })
}
