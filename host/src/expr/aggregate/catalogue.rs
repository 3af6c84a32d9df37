//! Which aggregates there are, what each takes, and what computes it.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate as theirs;

use super::super::{ExprError, words};
use super::count::Count;
use super::distinct::{self, Distinct};
use super::exact::Exact;
use super::extreme::Extreme;
use super::native::Native;
use super::ordered::{Ordered, Shape};
use super::partials::Function;
use super::percentile::Percentile;
use super::pick::Pick;

/// Sketches of `approx_distinct` hold hashes that another version of DataFusion may compute otherwise.
const HASHES: u32 = 55;

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
    use DataType::{Boolean, Int64};
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
        "median" => percentile(given, false, Some(0.5)),
        "percentile_cont" => percentile(given, false, None),
        "approx_median" => percentile(given, true, Some(0.5)),
        "approx_percentile_cont" => percentile(given, true, None),
        "approx_distinct" => approx_distinct(given),
        "first_value" => pick(given, false),
        "last_value" => pick(given, true),
        "array_agg" => array_agg(given),
        "string_agg" => string_agg(given),
        "nth_value" => nth_value(given),
        name => Err(Misuse::Call(
            ExprError::new(format!(
                "`{name}` depends on the order in which records arrive"
            ))
            .help("write `min(...)`, or `first_value(... order by ...)`"),
        )),
    }
}

fn count(given: &Given) -> Choice {
    given.unordered()?;
    match &given.arguments[..] {
        [] if !given.distinct => Ok(chosen(&[], Count)),
        [Some(kind)] if !given.distinct => Ok(chosen(&[kind], Count)),
        [Some(kind)] => {
            let distinct = Distinct::new(kind);
            Ok(chosen(&[&distinct.kind().clone()], distinct))
        }
        [_, _, ..] if given.distinct => Err(Misuse::Call(
            ExprError::new("`count(distinct ...)` takes one argument")
                .help("join several as text: `count(distinct a || ' ' || b)`"),
        )),
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

fn percentile(given: &Given, approximate: bool, fraction: Option<f64>) -> Choice {
    given.plain()?;
    let wanted = if fraction.is_some() { 1 } else { 2 };
    let number = |kind: &Option<DataType>| kind.as_ref().is_some_and(is_number);
    if given.arguments.len() != wanted || !number(&given.arguments[0]) {
        return Err(Misuse::Types);
    }
    let fraction = fraction.or_else(|| given.float(1));
    let Some(fraction) = fraction.filter(|f| (0.0..=1.0).contains(f)) else {
        let error = ExprError::new("the fraction must be a number from 0 to 1")
            .help("0.95 is the value below which 95 % of all values lie");
        return Err(Misuse::Argument(1, error));
    };
    let function = Percentile {
        fraction,
        approximate,
    };
    Ok(chosen(&[&DataType::Float64], function))
}

fn approx_distinct(given: &Given) -> Choice {
    given.plain()?;
    let [kind] = given.kinds()?;
    let counted = match kind {
        DataType::Boolean | DataType::Float64 => DataType::Int64,
        kind => kind.clone(),
    };
    let function = theirs::approx_distinct::approx_distinct_udaf();
    let function = Native::new(function, std::slice::from_ref(&counted), DataType::Int64)
        .map_err(|why| Misuse::Call(ExprError::new(words::cut(why))))?
        .versioned(HASHES);
    Ok(match kind {
        DataType::Float64 => chosen(&[kind], function.after(distinct::bits)),
        _ => chosen(&[&counted], function),
    })
}

fn pick(given: &Given, last: bool) -> Choice {
    given.without_distinct()?;
    let [_] = given.kinds()?;
    let sorted = Sorted::new(given)?;
    let function = Pick {
        last,
        kinds: sorted.kinds.clone(),
        keys: sorted.keys.clone(),
        own: sorted.own,
    };
    Ok(sorted.chosen(function))
}

fn array_agg(given: &Given) -> Choice {
    let [_] = given.kinds()?;
    ordered(given, Shape::List)
}

fn string_agg(given: &Given) -> Choice {
    let [kind, _] = given.kinds()?;
    if *kind != DataType::Utf8 {
        return Err(Misuse::Types);
    }
    match &given.constants[1] {
        Some(ScalarValue::Utf8(Some(between))) => ordered(given, Shape::Text(between.clone())),
        _ => Err(Misuse::Argument(
            1,
            ExprError::new("what stands between the texts must be a plain text")
                .help("write `string_agg(x, ', ' order by ...)`"),
        )),
    }
}

fn nth_value(given: &Given) -> Choice {
    given.without_distinct()?;
    let [_, _] = given.kinds()?;
    match &given.constants[1] {
        Some(ScalarValue::Int64(Some(n))) if (1..=i64::from(i32::MAX)).contains(n) => {
            ordered(given, Shape::Nth(*n as usize - 1))
        }
        _ => Err(Misuse::Argument(
            1,
            ExprError::new("the place must be a plain number from 1"),
        )),
    }
}

fn ordered(given: &Given, shape: Shape) -> Choice {
    let sorted = Sorted::new(given)?;
    if given.distinct && !sorted.keys.is_empty() {
        let name = given.name;
        let error = ExprError::new(format!(
            "`{name}(distinct ...)` is ordered by its own values"
        ))
        .help("write the argument again behind `order by`, and nothing else");
        return Err(Misuse::Argument(given.arguments.len(), error));
    }
    let function = Ordered {
        shape,
        kinds: sorted.kinds.clone(),
        keys: sorted.keys.clone(),
        own: sorted.own,
        distinct: given.distinct,
    };
    Ok(sorted.chosen(function))
}

/// What a function that depends on an order reads: the first argument, then the keys.
struct Sorted {
    reads: Vec<usize>,
    kinds: Vec<DataType>,
    /// Empty if the rows are ordered by the argument.
    keys: Vec<SortOptions>,
    own: SortOptions,
}

impl Sorted {
    fn new(given: &Given) -> Result<Self, Misuse> {
        let Some(Some(kind)) = given.arguments.first() else {
            return Err(Misuse::Types);
        };
        let name = given.name;
        let Some((_, own)) = given.order.first() else {
            let error = ExprError::new(format!(
                "`{name}` needs an `order by`: its result would depend on the order in which records arrive"
            ))
            .help(format!("write `{name}(... order by ...)`"));
            return Err(Misuse::Call(error));
        };
        let mut sorted = Self {
            reads: vec![0],
            kinds: vec![kind.clone()],
            keys: Vec::new(),
            own: SortOptions {
                descending: false,
                nulls_first: false,
            },
        };
        if given.same && given.order.len() == 1 {
            sorted.own = *own;
            return Ok(sorted);
        }
        for (i, (kind, options)) in given.order.iter().enumerate() {
            let place = given.arguments.len() + i;
            let Some(kind) = kind else {
                let error = ExprError::new("rows cannot be ordered by this");
                return Err(Misuse::Argument(place, error));
            };
            sorted.reads.push(place);
            sorted.kinds.push(kind.clone());
            sorted.keys.push(*options);
        }
        Ok(sorted)
    }

    fn chosen(self, function: impl Function + 'static) -> Chosen {
        Chosen {
            reads: self.reads,
            kinds: self.kinds,
            function: Arc::new(function),
        }
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
        self.without_distinct()?;
        self.unordered()
    }

    fn without_distinct(&self) -> Result<(), Misuse> {
        if self.distinct {
            let name = self.name;
            let error = ExprError::new(format!("`{name}` does not take `distinct`"))
                .help("`count`, `array_agg` and `string_agg` do");
            return Err(Misuse::Call(error));
        }
        Ok(())
    }

    /// The number that the argument `index` is.
    fn float(&self, index: usize) -> Option<f64> {
        match self.constants.get(index)?.as_ref()? {
            ScalarValue::Float64(number) => *number,
            ScalarValue::Int64(number) => number.map(|n| n as f64),
            _ => None,
        }
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
