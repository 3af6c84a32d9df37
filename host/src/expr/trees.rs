//! What is changed and checked in DataFusion's trees so that an expression means what a pipeline says. Knows no text and
//! no place in it.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::{Expr, ExprSchemable, Operator, cast};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions as physical;

use super::compile::Trouble;
use super::functions::FILLING;
use super::words;
use crate::limits::EXPRESSION_FILL_MAX;

/// `cast(x as int)` means the one integer type there is, and so for the others.
pub(super) fn one_type_each(node: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    let wanted = |data_type: &DataType| words::column_type(data_type).filter(|t| t != data_type);
    Ok(match node {
        Expr::Cast(c) => match wanted(c.field.data_type()) {
            Some(to) => Transformed::yes(cast(*c.expr, to)),
            None => Transformed::no(Expr::Cast(c)),
        },
        Expr::TryCast(c) => match wanted(c.field.data_type()) {
            Some(to) => Transformed::yes(datafusion_expr::try_cast(*c.expr, to)),
            None => Transformed::no(Expr::TryCast(c)),
        },
        other => Transformed::no(other),
    })
}

/// Text that a time is compared with becomes a time of our own unit: DataFusion would take nanoseconds, which end
/// in the year 2262.
pub(super) fn times_read(
    node: Expr,
    schema: &DFSchema,
) -> Result<Transformed<Expr>, DataFusionError> {
    let compares = match &node {
        Expr::BinaryExpr(b) => is_comparison(&b.op),
        Expr::Between(_) | Expr::InList(_) => true,
        _ => false,
    };
    let mut has_time = false;
    node.apply_children(|child| {
        // A mistake in here is coercion's to tell.
        has_time |= child
            .get_type(schema)
            .is_ok_and(|t| t == words::timestamp());
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !(compares && has_time) {
        return Ok(Transformed::no(node));
    }
    node.map_children(|child| {
        Ok(match child {
            Expr::Literal(ScalarValue::Utf8(Some(_)), _) => {
                Transformed::yes(cast(child, words::timestamp()))
            }
            other => Transformed::no(other),
        })
    })
}

/// Integers fit, and what fills memory says by how much.
pub(super) fn check_sizes(expr: &Expr) -> Result<(), Trouble> {
    let mut found = None;
    expr.apply(|node| {
        match node {
            Expr::Literal(ScalarValue::UInt64(Some(number)), _) => {
                found = Some(Trouble::TooLarge(*number));
            }
            Expr::ScalarFunction(f) if FILLING.contains(&f.name()) && !is_small(f.args.get(1)) => {
                found = Some(Trouble::Unbounded(f.name().to_string()));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    found.map_or(Ok(()), Err)
}

fn is_small(argument: Option<&Expr>) -> bool {
    matches!(argument, Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)) if *n <= EXPRESSION_FILL_MAX)
}

/// Some value makes it fail.
pub(super) fn may_fail(node: &Expr) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    match node {
        Expr::BinaryExpr(b) => matches!(b.op, Plus | Minus | Multiply | Divide | Modulo),
        Expr::Negative(_) | Expr::Cast(_) => true,
        _ => false,
    }
}

/// Comparisons of columns and constants: no row makes them fail.
pub(super) fn cannot_fail(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let compares = |op: &Operator| is_comparison(op) || matches!(op, Operator::And | Operator::Or);
    let steady = match expr.downcast_ref::<physical::BinaryExpr>() {
        Some(binary) => compares(binary.op()),
        None => {
            expr.downcast_ref::<physical::Column>().is_some()
                || expr.downcast_ref::<physical::Literal>().is_some()
                || expr.downcast_ref::<physical::IsNullExpr>().is_some()
                || expr.downcast_ref::<physical::IsNotNullExpr>().is_some()
                || expr.downcast_ref::<physical::NotExpr>().is_some()
                || expr.downcast_ref::<physical::InListExpr>().is_some()
                || expr.downcast_ref::<physical::LikeExpr>().is_some()
        }
    };
    steady && expr.children().into_iter().all(cannot_fail)
}

fn is_comparison(op: &Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(
        op,
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    )
}

/// Integer `+ - *` and unary minus wrap unless each operator is told not to.
pub(super) fn checked(
    expr: Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    expr.transform_up(|node| {
        if let Some(b) = node.downcast_ref::<physical::BinaryExpr>() {
            if !matches!(
                b.op(),
                Operator::Plus | Operator::Minus | Operator::Multiply
            ) {
                return Ok(Transformed::no(node));
            }
            let b = physical::BinaryExpr::new(b.left().clone(), *b.op(), b.right().clone());
            return Ok(Transformed::yes(
                Arc::new(b.with_fail_on_overflow(true)) as _
            ));
        }
        if let Some(n) = node.downcast_ref::<physical::NegativeExpr>()
            && n.arg().data_type(schema)? == DataType::Int64
        {
            let zero = physical::lit(0_i64);
            let minus = physical::BinaryExpr::new(zero, Operator::Minus, n.arg().clone());
            return Ok(Transformed::yes(
                Arc::new(minus.with_fail_on_overflow(true)) as _,
            ));
        }
        Ok(Transformed::no(node))
    })
    .data()
}
