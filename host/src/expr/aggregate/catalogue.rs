//! Which aggregates there are, what each takes, and what computes it.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate as theirs;

use super::super::{ExprError, words};
use super::count::Count;
use super::exact::Exact;
use super::extreme::Extreme;
use super::native::Native;
use super::partials::Function;

/// A call by its types.
pub(super) struct Given<'a> {
    pub name: &'a str,
    pub distinct: bool,
    /// The column type of each argument; `None` where there is none for its values.
    pub arguments: Vec<Option<DataType>>,
    /// The value of each argument that no row changes.
    pub constants: Vec<Option<ScalarValue>>,
    pub order: Vec<(Option<DataType>, SortOptions)>,
    /// The rows are ordered by the first argument itself.
    pub same: bool,
}

pub(super) struct Chosen {
    /// What is read of each row: indices of arguments, or of order keys behind them.
    pub reads: Vec<usize>,
    /// The types in which the function takes them.
    pub kinds: Vec<DataType>,
    pub function: Arc<dyn Function>,
}

/// What is wrong with a call.
pub(super) enum Misuse {
    /// Number or types of the arguments.
    Types,
    /// One argument, or order key behind them.
    Argument(usize, ExprError),
    Call(ExprError),
}

type Choice = Result<Chosen, Misuse>;

pub(super) fn choose(given: &Given) -> Choice {
    use DataType::{Boolean, Float64, Int64};
    match given.name {
        "count" => count(given),
        "sum" => sum(given, false),
        "avg" | "mean" => sum(given, true),
        "min" => extreme(given, false),
        "max" => extreme(given, true),
        "stddev" | "stddev_samp" => statistic(given, 1, theirs::stddev::stddev_udaf()),
        "stddev_pop" => statistic(given, 1, theirs::stddev::stddev_pop_udaf()),
        "var" | "var_samp" | "variance" => statistic(given, 1, theirs::variance::var_samp_udaf()),
        "var_pop" => statistic(given, 1, theirs::variance::var_pop_udaf()),
        "corr" => statistic(given, 2, theirs::correlation::corr_udaf()),
        "covar_samp" => statistic(given, 2, theirs::covariance::covar_samp_udaf()),
        "covar_pop" => statistic(given, 2, theirs::covariance::covar_pop_udaf()),
        "bool_and" => exactly(given, Boolean, theirs::bool_and_or::bool_and_udaf()),
        "bool_or" => exactly(given, Boolean, theirs::bool_and_or::bool_or_udaf()),
        "bit_and" => exactly(given, Int64, theirs::bit_and_or_xor::bit_and_udaf()),
        "bit_or" => exactly(given, Int64, theirs::bit_and_or_xor::bit_or_udaf()),
        "bit_xor" => exactly(given, Int64, theirs::bit_and_or_xor::bit_xor_udaf()),
        _ => {
            let _ = Float64;
            Err(Misuse::Types)
        }
    }
}

fn count(given: &Given) -> Choice {
    given.unordered()?;
    match &given.arguments[..] {
        [] if !given.distinct => Ok(chosen(&[], Count)),
        [Some(kind)] if !given.distinct => Ok(chosen(&[kind], Count)),
        _ => Err(Misuse::Types),
    }
}

fn sum(given: &Given, mean: bool) -> Choice {
    given.plain()?;
    let [kind] = given.kinds()?;
    if let Some(exact) = Exact::new(mean, kind) {
        return Ok(chosen(&[kind], exact));
    }
    let function = match mean {
        true => theirs::average::avg_udaf(),
        false => theirs::sum::sum_udaf(),
    };
    match kind {
        DataType::Float64 => native(function, &[kind], kind),
        _ => Err(Misuse::Types),
    }
}

fn extreme(given: &Given, greatest: bool) -> Choice {
    given.plain()?;
    let [kind] = given.kinds()?;
    if *kind == DataType::Float64 {
        return Ok(chosen(&[kind], Extreme { greatest }));
    }
    let function = match greatest {
        true => theirs::min_max::max_udaf(),
        false => theirs::min_max::min_udaf(),
    };
    native(function, &[kind], kind)
}

/// Of numbers of any kind, as floats.
fn statistic(given: &Given, arguments: usize, function: Arc<AggregateUDF>) -> Choice {
    given.plain()?;
    let numbers = given.arguments.iter().flatten().filter(|k| is_number(k));
    if given.arguments.len() != arguments || numbers.count() != arguments {
        return Err(Misuse::Types);
    }
    let float = &DataType::Float64;
    native(function, &vec![float; arguments], float)
}

fn exactly(given: &Given, wanted: DataType, function: Arc<AggregateUDF>) -> Choice {
    given.plain()?;
    let [kind] = given.kinds()?;
    match *kind == wanted {
        true => native(function, &[kind], kind),
        false => Err(Misuse::Types),
    }
}

fn is_number(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Int64 | DataType::Float64 | DataType::Decimal128(..)
    )
}

/// The first arguments as `kinds`.
fn chosen(kinds: &[&DataType], function: impl Function + 'static) -> Chosen {
    Chosen {
        reads: (0..kinds.len()).collect(),
        kinds: kinds.iter().map(|kind| (*kind).clone()).collect(),
        function: Arc::new(function),
    }
}

fn native(function: Arc<AggregateUDF>, kinds: &[&DataType], result: &DataType) -> Choice {
    let own: Vec<DataType> = kinds.iter().map(|kind| (*kind).clone()).collect();
    match Native::new(function, &own, result.clone()) {
        Ok(function) => Ok(chosen(kinds, function)),
        Err(why) => Err(Misuse::Call(ExprError::new(words::cut(why)))),
    }
}

impl Given<'_> {
    /// Neither `distinct` nor an order.
    fn plain(&self) -> Result<(), Misuse> {
        if self.distinct {
            let name = self.name;
            let error = ExprError::new(format!("`{name}` does not take `distinct`"))
                .help("`count`, `array_agg` and `string_agg` do");
            return Err(Misuse::Call(error));
        }
        self.unordered()
    }

    fn unordered(&self) -> Result<(), Misuse> {
        if self.order.is_empty() {
            return Ok(());
        }
        let name = self.name;
        Err(Misuse::Call(ExprError::new(format!(
            "`{name}` takes no `order by`: its result does not depend on an order"
        ))))
    }

    /// The types of exactly so many arguments.
    fn kinds<const N: usize>(&self) -> Result<[&DataType; N], Misuse> {
        let kinds: Vec<&DataType> = self.arguments.iter().flatten().collect();
        match self.arguments.len() == N {
            true => kinds.try_into().map_err(|_| Misuse::Types),
            false => Err(Misuse::Types),
        }
    }
}
