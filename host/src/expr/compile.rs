//! From a syntax tree to something that runs: types, casts, constants, checked arithmetic, and the blame for a mistake.
//!
//! Invariant: a compiled expression has one of the column types of a pipeline, and its integer arithmetic never wraps.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable, Operator, cast};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions as physical;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr as Sql, Spanned, Visit, Visitor};

use super::functions::Functions;
use super::names::Sees;
use super::{Column, Compiled, ExprError, names, trees, words};
use crate::limits::EXPRESSION_FILL_MAX;

/// Compiles expressions over the columns of one schema.
pub(super) struct Compiler<'a> {
    schema: &'a SchemaRef,
    planned: DFSchemaRef,
    props: ExecutionProps,
    simplifier: ExprSimplifier,
}

/// A column of a `select`.
pub(super) struct Item {
    pub field: Field,
    pub column: Column,
}

/// An expression with its type, not yet ready to run.
#[derive(Clone)]
pub(super) struct Typed {
    expr: Expr,
    pub data_type: DataType,
}

/// Why planning failed, before it is known where.
pub(super) enum Trouble {
    DataFusion(DataFusionError),
    /// Text would be cast to another type without being asked.
    TextCast(DataType),
    /// A part without columns fails for every row.
    Constant(String),
    TooLarge(u64),
    /// The function fills with as much as a row says.
    Unbounded(String),
}

impl From<DataFusionError> for Trouble {
    fn from(error: DataFusionError) -> Self {
        Self::DataFusion(error)
    }
}

impl<'a> Compiler<'a> {
    pub fn new(schema: &'a SchemaRef) -> Result<Self, ExprError> {
        let planned = DFSchema::try_from(schema.clone())
            .map_err(|error| ExprError::new(words::plain(&error.strip_backtrace())))?;
        let planned = Arc::new(planned);
        let options = Functions::all().options.clone();
        let mut props = ExecutionProps::new();
        props.config_options = Some(options.clone());
        let context = SimplifyContext::builder()
            .with_schema(planned.clone())
            .with_config_options(options)
            .build();
        Ok(Self {
            schema,
            planned,
            props,
            simplifier: ExprSimplifier::new(context),
        })
    }

    /// The parts of a condition, to be run one after the other. Neighbours that cannot fail are one part.
    pub fn conjuncts(&self, sql: &str) -> Result<Vec<Compiled>, ExprError> {
        let mut tree = names::parse(sql)?;
        if let Some(alias) = &tree.alias {
            return Err(ExprError::new("a condition has no name")
                .help("leave out `as ...`")
                .at(words::bytes(sql, alias.span)));
        }
        names::resolve(sql, &mut tree.expr, self.schema, Sees::Row)?;
        self.conditions(sql, &tree.expr)
    }

    /// The same for a tree whose names are resolved.
    pub fn conditions(&self, sql: &str, tree: &Sql) -> Result<Vec<Compiled>, ExprError> {
        let mut parts: Vec<(Compiled, bool)> = Vec::new();
        for part in conjuncts(tree) {
            let expr = self.condition(sql, part)?;
            let steady = trees::cannot_fail(&expr);
            let text = part.to_string();
            match parts.last_mut() {
                Some((before, true)) if steady => *before = both(before, &text, expr),
                _ => parts.push((
                    Compiled {
                        text: text.into(),
                        expr,
                    },
                    steady,
                )),
            }
        }
        Ok(parts.into_iter().map(|(part, _)| part).collect())
    }

    fn condition(&self, sql: &str, part: &Sql) -> Result<Arc<dyn PhysicalExpr>, ExprError> {
        let blame = |trouble| self.blame(sql, part, trouble);
        let logical = self.plan(part).map_err(blame)?;
        let (data_type, expr) = self.finish(logical).map_err(|e| blame(e.into()))?;
        if data_type != DataType::Boolean {
            return Err(ExprError::new(format!(
                "a condition must be true or false, this is {}",
                words::type_name(&data_type)
            ))
            .help("compare it with something")
            .at(words::bytes(sql, part.span())));
        }
        Ok(expr)
    }

    /// One item of a `select`, `EXPR` or `EXPR as NAME`.
    pub fn item(&self, sql: &str) -> Result<Item, ExprError> {
        let mut tree = names::parse(sql)?;
        let name = match &tree.alias {
            Some(alias) => Some(alias.value.clone()),
            None => names::last_part(&tree.expr),
        };
        names::resolve(sql, &mut tree.expr, self.schema, Sees::Row)?;
        let Some(name) = name else {
            return Err(ExprError::new("this expression needs a name")
                .help(format!("write `{} as name`", sql.trim())));
        };
        if let Sql::Identifier(column) = &tree.expr {
            let index = self.schema.index_of(&column.value).expect("resolved");
            return Ok(Item {
                field: self.schema.field(index).clone().with_name(name),
                column: Column::Input(index),
            });
        }
        self.computed(sql, &tree.expr, name)
    }

    /// A column with the values of `tree`, whose names are resolved.
    pub fn computed(&self, sql: &str, tree: &Sql, name: String) -> Result<Item, ExprError> {
        let typed = self.typed(sql, tree)?;
        let Some(column_type) = words::column_type(&typed.data_type) else {
            let help = match typed.data_type {
                DataType::Null => "say which type it has: `cast(null as string)`",
                ref t if t.is_decimal() => {
                    "write `cast(... as decimal(38,10))` or `cast(... as float)`"
                }
                _ => "columns are string, int, float, bool, timestamp, date, decimal or bytes",
            };
            let kind = words::type_name(&typed.data_type);
            return Err(ExprError::new(format!("a column cannot be of type {kind}"))
                .help(help)
                .at(words::bytes(sql, tree.span())));
        };
        let text = tree.to_string().into();
        let (data_type, nullable, expr) = self.ready(sql, tree, typed, column_type)?;
        Ok(Item {
            field: Field::new(name, data_type, nullable),
            column: Column::Computed(Compiled { text, expr }),
        })
    }

    /// `tree`, whose names are resolved, with the type that it has by itself.
    pub fn typed(&self, sql: &str, tree: &Sql) -> Result<Typed, ExprError> {
        let blame = |trouble| self.blame(sql, tree, trouble);
        let expr = self.plan(tree).map_err(blame)?;
        let data_type = expr.get_type(&self.planned).map_err(|e| blame(e.into()))?;
        Ok(Typed { expr, data_type })
    }

    /// `typed` as values of type `to`, ready to run: its type, whether it can be null, and how to run it.
    pub fn ready(
        &self,
        sql: &str,
        tree: &Sql,
        typed: Typed,
        to: DataType,
    ) -> Result<(DataType, bool, Arc<dyn PhysicalExpr>), ExprError> {
        let blame = |e: DataFusionError| self.blame(sql, tree, e.into());
        let expr = match typed.data_type == to {
            true => typed.expr,
            false => cast(typed.expr, to),
        };
        let nullable = expr.nullable(&self.planned).map_err(blame)?;
        let (data_type, expr) = self.finish(expr).map_err(blame)?;
        Ok((data_type, nullable, expr))
    }

    /// The value of `typed` if no row changes it.
    pub fn constant(&self, typed: Typed) -> Option<ScalarValue> {
        match self.simplifier.simplify(typed.expr).ok()? {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        }
    }

    /// Typed and checked, not yet simplified.
    fn plan(&self, tree: &Sql) -> Result<Expr, Trouble> {
        let functions = Functions::all();
        let options = ParserOptions::from(&functions.options.sql_parser);
        let planner = SqlToRel::new_with_options(functions, options);
        let expr = planner.sql_to_expr(tree.clone(), &self.planned, &mut PlannerContext::new())?;
        trees::check_sizes(&expr)?;
        let expr = expr.transform_up(trees::one_type_each).data()?;
        let expr = expr
            .transform_up(|node| trees::times_read(node, &self.planned))
            .data()?;
        let expr = expr
            .transform_up(|node| trees::decimals_compared(node, &self.planned))
            .data()?;
        let asked = self.text_casts(&expr)?;
        let expr = self.simplifier.coerce(expr, &self.planned)?;
        let expr = expr.transform_up(|node| self.widened(node)).data()?;
        let expr = self.simplifier.coerce(expr, &self.planned)?;
        let unasked = |found: &&(String, DataType)| !asked.iter().any(|(a, _)| *a == found.0);
        if let Some((_, to)) = self.text_casts(&expr)?.iter().find(unasked) {
            return Err(Trouble::TextCast(to.clone()));
        }
        self.check_constants(&expr)?;
        Ok(expr)
    }

    /// Simplified and ready to run, with its type.
    fn finish(&self, expr: Expr) -> Result<(DataType, Arc<dyn PhysicalExpr>), DataFusionError> {
        let expr = self.simplifier.simplify(expr)?;
        let physical = self.physical(&expr)?;
        Ok((physical.data_type(self.schema)?, physical))
    }

    fn physical(&self, expr: &Expr) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let context = PhysicalPlanningContext::default();
        trees::checked(
            create_physical_expr(expr, &self.planned, &self.props, &context)?,
            self.schema,
        )
    }

    /// Functions that give small or unsigned integers give `int`, those that give small floats `float`.
    fn widened(&self, node: Expr) -> Result<Transformed<Expr>, DataFusionError> {
        if !matches!(node, Expr::ScalarFunction(_)) {
            return Ok(Transformed::no(node));
        }
        Ok(match node.get_type(&self.planned)? {
            DataType::Int64 | DataType::Float64 => Transformed::no(node),
            t if t.is_integer() => Transformed::yes(cast(node, DataType::Int64)),
            t if t.is_floating() => Transformed::yes(cast(node, DataType::Float64)),
            _ => Transformed::no(node),
        })
    }

    /// Casts from text that varies by row to a type that is not text: the cast as printed, and the type.
    fn text_casts(&self, expr: &Expr) -> Result<Vec<(String, DataType)>, DataFusionError> {
        let mut found = Vec::new();
        expr.apply(|node| {
            let (from, to) = match node {
                Expr::Cast(c) => (&c.expr, c.field.data_type()),
                Expr::TryCast(c) => (&c.expr, c.field.data_type()),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            let varies = !matches!(**from, Expr::Literal(..));
            if varies && !to.is_string() && from.get_type(&self.planned)?.is_string() {
                found.push((node.to_string(), to.clone()));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    }

    /// The simplifier folds constants with wrapping arithmetic, so those that overflow are found before.
    fn check_constants(&self, expr: &Expr) -> Result<(), Trouble> {
        let mut failed = None;
        expr.apply(|node| {
            if !trees::may_fail(node) || node.any_column_refs() {
                return Ok(TreeNodeRecursion::Continue);
            }
            // Some functions exist only in simplified form; what stands under this node was or will be checked itself.
            let children = node
                .clone()
                .map_children(|child| self.simplifier.simplify(child).map(Transformed::yes));
            let value = self
                .physical(&children.data()?)
                .and_then(|e| e.evaluate(&one_row()));
            if let Err(error) = value {
                failed = Some(words::failure(&error));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match failed {
            Some(why) => Err(Trouble::Constant(why)),
            None => Ok(()),
        }
    }

    /// `trouble` with the smallest part of `tree` that fails by itself.
    fn blame(&self, sql: &str, tree: &Sql, trouble: Trouble) -> ExprError {
        let mut search = Search {
            compiler: self,
            found: None,
        };
        let _ = tree.visit(&mut search);
        let (part, trouble) = search.found.unwrap_or_else(|| (tree.clone(), trouble));
        self.explain(&part, trouble)
            .at(words::bytes(sql, part.span()))
    }

    fn explain(&self, part: &Sql, trouble: Trouble) -> ExprError {
        let cast_help = |to: &DataType| {
            let to = words::type_name(to);
            format!(
                "write `cast(... as {to})`, or `try_cast(... as {to})` for null where it is none"
            )
        };
        match trouble {
            Trouble::Constant(why) => ExprError::new(why),
            Trouble::TooLarge(number) => {
                ExprError::new(format!("{number} does not fit into an int of 64 bits"))
            }
            Trouble::Unbounded(name) => ExprError::new(format!(
                "`{name}` needs a plain number as its length, at most {EXPRESSION_FILL_MAX}"
            )),
            Trouble::TextCast(to) => {
                let error =
                    ExprError::new(self.mismatch(part).unwrap_or_else(|| {
                        format!("a string is used as {}", words::type_name(&to))
                    }));
                error.help(cast_help(&to))
            }
            Trouble::DataFusion(error) => ExprError::new(
                self.mismatch(part)
                    .unwrap_or_else(|| words::failure(&error)),
            ),
        }
    }

    /// An operator or function with the types it was given.
    fn mismatch(&self, part: &Sql) -> Option<String> {
        let kind = |tree: &Sql| {
            let data_type = self.plan(tree).ok()?.get_type(&self.planned).ok()?;
            Some(words::type_name(&data_type))
        };
        match part {
            Sql::BinaryOp { left, op, right } => {
                let (left, right) = (kind(left)?, kind(right)?);
                Some(match op {
                    BinaryOperator::And | BinaryOperator::Or => {
                        format!("`{op}` wants conditions, not {left} and {right}")
                    }
                    _ => format!("`{op}` does not work on {left} and {right}"),
                })
            }
            Sql::Function(call) => {
                let given = words::arguments(call)?.into_iter().map(kind);
                let given = given.collect::<Option<Vec<_>>>()?.join(", ");
                Some(format!(
                    "`{}` does not take ({given})",
                    call.name.to_string().to_lowercase()
                ))
            }
            _ => None,
        }
    }
}

/// Finds the first part, smaller parts before those that hold them, that does not plan.
struct Search<'a> {
    compiler: &'a Compiler<'a>,
    found: Option<(Sql, Trouble)>,
}

impl Visitor for Search<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, part: &Sql) -> ControlFlow<()> {
        match self.compiler.plan(part) {
            Ok(_) => ControlFlow::Continue(()),
            Err(trouble) => {
                self.found = Some((part.clone(), trouble));
                ControlFlow::Break(())
            }
        }
    }
}

fn conjuncts(tree: &Sql) -> Vec<&Sql> {
    match tree {
        Sql::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            let mut parts = conjuncts(left);
            parts.extend(conjuncts(right));
            parts
        }
        Sql::Nested(inner) => match conjuncts(inner) {
            parts if parts.len() > 1 => parts,
            _ => vec![tree],
        },
        _ => vec![tree],
    }
}

fn both(before: &Compiled, text: &str, expr: Arc<dyn PhysicalExpr>) -> Compiled {
    Compiled {
        text: format!("{} AND {text}", before.text).into(),
        expr: Arc::new(physical::BinaryExpr::new(
            before.expr.clone(),
            Operator::And,
            expr,
        )),
    }
}

fn one_row() -> RecordBatch {
    let rows = RecordBatchOptions::new().with_row_count(Some(1));
    let schema = Arc::new(arrow::datatypes::Schema::empty());
    RecordBatch::try_new_with_options(schema, Vec::new(), &rows).expect("no column to disagree")
}
