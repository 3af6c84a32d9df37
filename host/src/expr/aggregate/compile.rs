//! From the SQL of the items to the different aggregates in them and the expressions around these.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_sql::sqlparser::ast::{
    Expr as Sql, Ident, Spanned, Visit, Visitor, visit_expressions_mut,
};

use super::super::compile::Compiler;
use super::super::functions::{Functions, Known};
use super::super::names::{self, Sees};
use super::super::{Column, Compiled, ExprError, Projection, words};
use super::call::{self, Call};
use super::{Aggregation, column_of};

/// What is found while the items are read.
#[derive(Default)]
struct Found {
    calls: Vec<Call>,
    expressions: Vec<Compiled>,
}

pub(super) fn items(
    items: &[(String, String)],
    compiler: &Compiler,
    input: &SchemaRef,
) -> Result<Aggregation, Vec<(usize, ExprError)>> {
    let mut found = Found::default();
    let mut around = Vec::new();
    let mut errors = Vec::new();
    for (i, (name, sql)) in items.iter().enumerate() {
        match found.read(sql, compiler, input) {
            Ok(tree) => around.push((i, tree)),
            Err(error) => errors.push((i, error)),
        }
        if let Some(earlier) = items[..i].iter().position(|(n, _)| n == name) {
            errors.push((i, ExprError::twice(name, &items[earlier].1)));
        }
    }
    let fields = found.calls.iter().map(|call| {
        let function = &call.function;
        Field::new(call.text.as_ref(), function.result(), function.nullable())
    });
    let results: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let outer = Compiler::new(&results).map_err(|error| vec![(0, error)])?;
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (i, tree) in around {
        let (name, sql) = &items[i];
        match item(name, sql, &tree, &outer, &results) {
            Ok((field, column)) => {
                fields.push(field);
                columns.push(column);
            }
            Err(error) => errors.push((i, error)),
        }
    }
    if !errors.is_empty() {
        errors.sort_by_key(|(i, _)| *i);
        return Err(errors);
    }
    Ok(Aggregation {
        calls: found.calls.into(),
        expressions: found.expressions.into(),
        results,
        items: Projection {
            schema: Arc::new(Schema::new(fields)),
            columns,
        },
    })
}

/// The expression around the aggregates of an item: a plain result, or something computed of results.
fn item(
    name: &str,
    sql: &str,
    tree: &Sql,
    outer: &Compiler,
    results: &SchemaRef,
) -> Result<(Field, Column), ExprError> {
    if let Some(index) = column_of(tree, results) {
        let field = results.field(index).clone().with_name(name);
        return Ok((field, Column::Input(index)));
    }
    let item = outer.computed(sql, tree, name.to_string())?;
    Ok((item.field, item.column))
}

impl Found {
    /// Parses an item. Its aggregates are compiled, and stand in the tree as columns named like their SQL.
    fn read(
        &mut self,
        sql: &str,
        compiler: &Compiler,
        input: &SchemaRef,
    ) -> Result<Sql, ExprError> {
        let tree = names::parse(sql)?;
        if let Some(alias) = &tree.alias {
            return Err(
                ExprError::new("an aggregate has its name in front of the `=`")
                    .help("leave out `as ...`")
                    .at(words::bytes(sql, alias.span)),
            );
        }
        let mut tree = tree.expr;
        names::resolve(sql, &mut tree, input, Sees::Window)?;
        let mut places = Places {
            sql,
            open: Vec::new(),
            any: false,
        };
        if let ControlFlow::Break(error) = tree.visit(&mut places) {
            return Err(*error);
        }
        if !places.any {
            return Err(ExprError::new("there is no aggregate in this expression")
                .help("write `count(*)`, `sum(...)`, `max(...)` or another one")
                .at(words::bytes(sql, tree.span())));
        }
        let replaced = visit_expressions_mut(&mut tree, |node| {
            let span = node.span();
            let Sql::Function(function) = node else {
                return ControlFlow::Continue(());
            };
            if !is_aggregate(function) {
                return ControlFlow::Continue(());
            }
            let text = call::text(function);
            if !self.calls.iter().any(|call| *call.text == *text) {
                match call::compile(sql, function, compiler, &mut self.expressions) {
                    Ok(call) => self.calls.push(call),
                    Err(error) => return ControlFlow::Break(Box::new(error)),
                }
            }
            *node = Sql::Identifier(Ident {
                value: text,
                quote_style: None,
                span,
            });
            ControlFlow::Continue(())
        });
        match replaced {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(tree),
        }
    }
}

fn is_aggregate(function: &datafusion_sql::sqlparser::ast::Function) -> bool {
    let name = names::function_name(function);
    matches!(Functions::all().known(&name), Known::Aggregate)
}

/// Columns stand inside aggregates, aggregates outside of each other.
struct Places<'a> {
    sql: &'a str,
    /// The aggregates around the place, outermost first.
    open: Vec<String>,
    any: bool,
}

impl Visitor for Places<'_> {
    type Break = Box<ExprError>;

    fn pre_visit_expr(&mut self, node: &Sql) -> ControlFlow<Self::Break> {
        let at = |span| words::bytes(self.sql, span);
        match node {
            Sql::Function(function) if is_aggregate(function) => {
                let name = names::function_name(function);
                if let Some(outer) = self.open.last() {
                    let error = ExprError::new(format!("`{name}` stands inside `{outer}`"))
                        .help("compute the inner one in a window step of its own")
                        .at(at(function.name.span()));
                    return ControlFlow::Break(Box::new(error));
                }
                self.any = true;
                self.open.push(name);
            }
            Sql::Identifier(name) if self.open.is_empty() => {
                let error = ExprError::new(format!(
                    "`{0}` stands outside an aggregate: a window has many rows",
                    name.value
                ))
                .help(format!("write `max({0})`, or add it to `key`", name.value))
                .at(at(name.span));
                return ControlFlow::Break(Box::new(error));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, node: &Sql) -> ControlFlow<Self::Break> {
        if matches!(node, Sql::Function(function) if is_aggregate(function)) {
            self.open.pop();
        }
        ControlFlow::Continue(())
    }
}
