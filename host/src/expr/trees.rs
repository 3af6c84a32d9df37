//! What is changed and checked in DataFusion's trees so that an expression means what a pipeline says. Knows no text and
//! no place in it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, SchemaRef};
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

/// Text and dates that a time is compared with become times of our own unit: DataFusion would take nanoseconds, which
/// end in the year 2262.
pub(super) fn times_read(
    node: Expr,
    schema: &DFSchema,
) -> Result<Transformed<Expr>, DataFusionError> {
    if !(compares(&node) && has_child(&node, |child| is_of(child, schema, &words::timestamp()))?) {
        return Ok(Transformed::no(node));
    }
    node.map_children(|child| {
        let is_text = matches!(&child, Expr::Literal(ScalarValue::Utf8(Some(_)), _));
        Ok(match is_text || is_of(&child, schema, &DataType::Date32) {
            true => Transformed::yes(cast(child, words::timestamp())),
            false => Transformed::no(child),
        })
    })
}

/// A decimal that a varying float is compared with becomes a float: DataFusion would make the float a decimal, which
/// holds no more than 15 digits before the point. A plain number such as `1.5` is compared exactly.
pub(super) fn decimals_compared(
    node: Expr,
    schema: &DFSchema,
) -> Result<Transformed<Expr>, DataFusionError> {
    let varying_float = |child: &Expr| {
        !matches!(child, Expr::Literal(..)) && is_of(child, schema, &DataType::Float64)
    };
    if !(compares(&node) && has_child(&node, varying_float)?) {
        return Ok(Transformed::no(node));
    }
    node.map_children(|child| {
        let is_decimal = child.get_type(schema).is_ok_and(|t| t.is_decimal());
        Ok(match is_decimal {
            true => Transformed::yes(cast(child, DataType::Float64)),
            false => Transformed::no(child),
        })
    })
}

fn compares(node: &Expr) -> bool {
    match node {
        Expr::BinaryExpr(b) => is_comparison(&b.op),
        Expr::Between(_) | Expr::InList(_) => true,
        _ => false,
    }
}

fn has_child(node: &Expr, is: impl Fn(&Expr) -> bool) -> Result<bool, DataFusionError> {
    let mut has = false;
    node.apply_children(|child| {
        has |= is(child);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(has)
}

/// A mistake in `expr` is coercion's to tell.
fn is_of(expr: &Expr, schema: &DFSchema, data_type: &DataType) -> bool {
    expr.get_type(schema).is_ok_and(|t| t == *data_type)
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

/// DataFusion checks decimals against 128 bits, which hold a little more than the 38 digits of the type.
pub(super) fn within_precision(array: &ArrayRef) -> Result<(), DataFusionError> {
    if let DataType::Decimal128(precision, scale) = array.data_type() {
        let values = array.as_primitive::<Decimal128Type>();
        let checked = values.validate_decimal_precision(*precision);
        checked.map_err(|_| {
            DataFusionError::Execution(format!(
                "decimal overflow: more digits than decimal({precision},{scale}) has"
            ))
        })?;
    }
    Ok(())
}
