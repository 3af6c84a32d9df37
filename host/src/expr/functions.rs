//! The functions that an expression can call: DataFusion's immutable scalar ones, and no table, variable, window or
//! lambda. Of aggregates only the names are known here: what they compute is in `aggregate`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF,
};
use datafusion_functions::{core, datetime, unicode};

/// Names that give one value for many rows: they belong to a window step.
pub(super) const AGGREGATES: &[&str] = &[
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "mean",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var",
    "var_pop",
    "var_samp",
    "variance",
];

/// Their second argument says how much memory a value takes.
pub(super) const FILLING: &[&str] = &["lpad", "rpad", "repeat"];

pub(super) struct Functions {
    /// By name and alias; sorted, so that suggestions do not change from run to run.
    allowed: BTreeMap<String, Arc<ScalarUDF>>,
    /// `now`, `random` ...: their result is not a function of the row.
    unsteady: BTreeSet<String>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    pub options: Arc<ConfigOptions>,
}

/// What a function name stands for.
pub(super) enum Known {
    Scalar,
    Aggregate,
    Unsteady,
    Unknown,
}

impl Functions {
    pub fn all() -> &'static Self {
        static ALL: LazyLock<Functions> = LazyLock::new(Functions::new);
        &ALL
    }

    fn new() -> Self {
        let mut allowed = BTreeMap::new();
        let mut unsteady = BTreeSet::new();
        for function in datafusion_functions::all_default_functions() {
            let immutable = function.signature().volatility == Volatility::Immutable;
            for name in function
                .aliases()
                .iter()
                .map(String::as_str)
                .chain([function.name()])
            {
                if immutable {
                    allowed.insert(name.to_string(), function.clone());
                } else {
                    unsteady.insert(name.to_string());
                }
            }
        }
        let mut options = ConfigOptions::default();
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.enable_ident_normalization = false;
        options.sql_parser.collect_spans = true;
        Self {
            allowed,
            unsteady,
            planners: vec![
                Arc::new(core::planner::CoreFunctionPlanner::default()),
                Arc::new(datetime::planner::DatetimeFunctionPlanner),
                Arc::new(unicode::planner::UnicodeFunctionPlanner),
            ],
            options: Arc::new(options),
        }
    }

    /// What `name`, in lower case, is.
    pub fn known(&self, name: &str) -> Known {
        if self.allowed.contains_key(name) {
            Known::Scalar
        } else if AGGREGATES.contains(&name) {
            Known::Aggregate
        } else if self.unsteady.contains(name) {
            Known::Unsteady
        } else {
            Known::Unknown
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.allowed.keys().map(String::as_str)
    }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("table {name} cannot be read by an expression")
    }
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.allowed.get(name).cloned()
    }
    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }
    fn get_aggregate_meta(&self, _: &str) -> Option<Arc<AggregateUDF>> {
        None
    }
    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }
    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.options
    }
    fn udf_names(&self) -> Vec<String> {
        self.allowed.keys().cloned().collect()
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
