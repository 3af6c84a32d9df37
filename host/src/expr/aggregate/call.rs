//! One aggregate call, from its syntax tree to what computes it.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr as Sql, Function as Tree, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, OrderByExpr, Spanned,
};

use super::super::compile::{Compiler, Typed};
use super::super::{Compiled, ExprError, names, words};
use super::catalogue::{self, Given, Misuse};
use super::partials::Function;

/// An aggregate, with what it reads of a row.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Its SQL, which is also the name of its results.
    pub text: Arc<str>,
    /// Arguments, then order keys: indices into [`Aggregation::expressions`](super::Aggregation).
    pub inputs: Vec<usize>,
    /// The types of the inputs.
    pub kinds: Vec<DataType>,
    /// To be true one after the other.
    pub filter: Vec<Compiled>,
    pub function: Arc<dyn Function>,
}

/// The parts of a call as written.
struct Parts<'a> {
    distinct: bool,
    arguments: Vec<&'a Sql>,
    order: Vec<&'a OrderByExpr>,
}

/// Compiles `tree`, whose names are resolved; `expressions` gets what is new in it.
pub(super) fn compile(
    sql: &str,
    tree: &Tree,
    compiler: &Compiler,
    expressions: &mut Vec<Compiled>,
) -> Result<Call, ExprError> {
    let name = names::function_name(tree);
    let place = words::bytes(sql, tree.name.span());
    let parts = parts(&name, tree).map_err(|error| error.at(place.clone()))?;
    let typed = parts.trees().map(|tree| compiler.typed(sql, tree));
    let typed = typed.collect::<Result<Vec<_>, _>>()?;
    let (arguments, keys) = typed.split_at(parts.arguments.len());
    let given = Given::new(&name, &parts, arguments, keys, compiler);
    let chosen = catalogue::choose(&given).map_err(|misuse| match misuse {
        Misuse::Types => no_such_arguments(&name, arguments).at(words::bytes(sql, tree.span())),
        Misuse::Argument(index, error) => {
            let tree = parts.trees().nth(index);
            error.at(tree.and_then(|tree| words::bytes(sql, tree.span())))
        }
        Misuse::Call(error) => error.at(place),
    })?;
    let mut inputs = Vec::new();
    for (&index, kind) in chosen.reads.iter().zip(&chosen.kinds) {
        let tree = parts.trees().nth(index).expect("what is read is given");
        let (_, _, expr) = compiler.ready(sql, tree, typed[index].clone(), kind.clone())?;
        let text = tree.to_string().into();
        inputs.push(once(expressions, Compiled { text, expr }));
    }
    let filter = match &tree.filter {
        Some(filter) => compiler.conditions(sql, filter)?,
        None => Vec::new(),
    };
    Ok(Call {
        text: text(tree).into(),
        inputs,
        kinds: chosen.kinds,
        filter,
        function: chosen.function,
    })
}

impl<'a> Given<'a> {
    fn new(
        name: &'a str,
        parts: &Parts,
        arguments: &[Typed],
        keys: &[Typed],
        compiler: &Compiler,
    ) -> Self {
        let kind = |typed: &Typed| words::column_type(&typed.data_type);
        let options = parts.order.iter().map(|key| sort_options(key));
        let constants = arguments.iter().map(|a| compiler.constant(a.clone()));
        Self {
            name,
            distinct: parts.distinct,
            arguments: arguments.iter().map(kind).collect(),
            constants: constants.collect(),
            order: keys.iter().map(kind).zip(options).collect(),
            same: parts.same(),
        }
    }
}

/// The place of `wanted` among `expressions`, which has it once. The same text read as another type is another expression.
fn once(expressions: &mut Vec<Compiled>, wanted: Compiled) -> usize {
    let same = |known: &Compiled| known.expr.as_ref() == wanted.expr.as_ref();
    expressions.iter().position(same).unwrap_or_else(|| {
        expressions.push(wanted);
        expressions.len() - 1
    })
}

fn no_such_arguments(name: &str, arguments: &[Typed]) -> ExprError {
    let kinds = arguments.iter().map(|a| words::type_name(&a.data_type));
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    ExprError::new(format!("`{name}` does not take ({kinds})"))
}

/// The call in one spelling.
pub(super) fn text(tree: &Tree) -> String {
    let name = tree.name.to_string();
    let whole = tree.to_string();
    match whole.strip_prefix(&name) {
        Some(rest) => name.to_lowercase() + rest,
        None => whole,
    }
}

/// Nulls are greater than all values unless it is said otherwise.
fn sort_options(key: &OrderByExpr) -> SortOptions {
    let descending = key.options.asc == Some(false);
    SortOptions {
        descending,
        nulls_first: key.options.nulls_first.unwrap_or(descending),
    }
}

impl<'a> Parts<'a> {
    /// Arguments, then order keys.
    fn trees(&self) -> impl Iterator<Item = &'a Sql> {
        let keys = self.order.iter().map(|key| &key.expr);
        self.arguments.iter().copied().chain(keys)
    }

    /// The rows are ordered by the first argument itself.
    fn same(&self) -> bool {
        match (self.arguments.first(), self.order.first()) {
            (Some(argument), Some(key)) => argument.to_string() == key.expr.to_string(),
            _ => false,
        }
    }
}

fn parts<'a>(name: &str, tree: &'a Tree) -> Result<Parts<'a>, ExprError> {
    if tree.over.is_some() {
        return Err(
            ExprError::new("`over` is not supported: the window is that of the step")
                .help("leave out `over (...)`"),
        );
    }
    if tree.null_treatment.is_some() {
        return Err(no_null_treatment(name));
    }
    let FunctionArguments::List(list) = &tree.args else {
        return Err(ExprError::new(format!(
            "`{name}` needs its arguments in brackets"
        )));
    };
    if !matches!(tree.parameters, FunctionArguments::None) {
        return Err(ExprError::new(format!(
            "`{name}` takes one list of arguments"
        )));
    }
    let mut order = Vec::new();
    for clause in &list.clauses {
        match clause {
            FunctionArgumentClause::OrderBy(keys) => order.extend(keys),
            FunctionArgumentClause::IgnoreOrRespectNulls(_) => return Err(no_null_treatment(name)),
            other => {
                return Err(ExprError::new(format!("`{name}` does not take `{other}`")));
            }
        }
    }
    let mut arguments = Vec::new();
    for argument in &list.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(tree)) => arguments.push(tree),
            // `count(*)` counts rows, as does `count()`.
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard)
                if name == "count" && list.args.len() == 1 => {}
            other => return Err(ExprError::new(format!("`{name}` does not take `{other}`"))),
        }
    }
    // `percentile_cont(0.9) within group (order by x)` is `percentile_cont(x, 0.9)` in other words.
    if let Some((key, others)) = tree.within_group.split_first() {
        if !others.is_empty() || arguments.len() != 1 || !name.contains("percentile_cont") {
            return Err(ExprError::new(format!(
                "`{name}` does not take `within group`"
            )));
        }
        if key.options.asc == Some(false) {
            return Err(ExprError::new("`within group` takes ascending order only")
                .help("leave out `desc` and write 1 - fraction"));
        }
        arguments.insert(0, &key.expr);
    }
    Ok(Parts {
        distinct: list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
        arguments,
        order,
    })
}

fn no_null_treatment(name: &str) -> ExprError {
    ExprError::new(format!(
        "`{name}` does not take `ignore nulls` or `respect nulls`"
    ))
    .help("write `filter (where ... is not null)`")
}
