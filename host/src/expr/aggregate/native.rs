//! Aggregates that DataFusion computes by group, as they are.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::DataFusionError;
use datafusion_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_expr::expressions::Column;

use super::super::words;
use super::partials::{Function, Partials};

/// An aggregate of DataFusion over arguments of types that it takes as they are.
pub(super) struct Native {
    function: Arc<AggregateFunctionExpr>,
    arguments: Vec<DataType>,
    states: Vec<DataType>,
    result: DataType,
    /// What arguments become first.
    before: Option<fn(&ArrayRef) -> ArrayRef>,
    version: u32,
}

struct NativePartials {
    groups: Box<dyn GroupsAccumulator>,
    arguments: Vec<DataType>,
    /// Groups so far.
    known: usize,
    result: DataType,
    before: Option<fn(&ArrayRef) -> ArrayRef>,
}

impl Native {
    /// `function` over arguments of `kinds`, with results cast to `result`.
    pub fn new(
        function: Arc<AggregateUDF>,
        kinds: &[DataType],
        result: DataType,
    ) -> Result<Self, String> {
        let names = (0..kinds.len()).map(|i| format!("argument{i}"));
        let fields: Vec<Field> = names
            .zip(kinds)
            .map(|(name, kind)| Field::new(name, kind.clone(), true))
            .collect();
        let arguments = fields.iter().enumerate();
        let arguments = arguments
            .map(|(i, field)| Arc::new(Column::new(field.name(), i)) as Arc<dyn PhysicalExpr>);
        let built = AggregateExprBuilder::new(function.clone(), arguments.collect())
            .schema(Arc::new(Schema::new(fields.clone())))
            .alias(function.name())
            .build()
            .and_then(|function| {
                let states = function.state_fields()?;
                // Found out now, so that it is an error of the pipeline file.
                create(&Arc::new(function.clone()))?;
                Ok((function, states))
            });
        let (function, states) = built.map_err(plain)?;
        Ok(Self {
            function: Arc::new(function),
            arguments: kinds.to_vec(),
            states: states.iter().map(|f| f.data_type().clone()).collect(),
            result,
            before: None,
            version: 1,
        })
    }

    /// Arguments go through `before`, which gives the types that the function was built for.
    pub fn after(mut self, before: fn(&ArrayRef) -> ArrayRef) -> Self {
        self.before = Some(before);
        self
    }

    /// States mean the same only for this version of the function.
    pub fn versioned(mut self, version: u32) -> Self {
        self.version = version;
        self
    }
}

/// Accumulators by group, or one accumulator a group where DataFusion has no others.
fn create(
    function: &Arc<AggregateFunctionExpr>,
) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    function.create_accumulator()?;
    let function = function.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
        function.create_accumulator()
    })))
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Native")
            .field(&self.function.name())
            .finish()
    }
}

impl Function for Native {
    fn result(&self) -> DataType {
        self.result.clone()
    }

    fn states(&self) -> Vec<DataType> {
        self.states.clone()
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn partials(&self) -> Box<dyn Partials> {
        Box::new(NativePartials {
            arguments: self.arguments.clone(),
            known: 0,
            before: self.before,
            groups: create(&self.function).expect("the same was created before"),
            result: self.result.clone(),
        })
    }
}

impl NativePartials {
    /// DataFusion takes it for granted that a new group comes with a row: one without would get a result, 0 for its sum,
    /// that it must not have. Such groups are given a row of nulls.
    fn grow(&mut self, groups: &[usize], total: usize) -> Result<(), String> {
        let known = std::mem::replace(&mut self.known, total);
        if total <= known {
            return Ok(());
        }
        let mut has_row = vec![false; total - known];
        for group in groups.iter().filter(|&&group| group >= known) {
            has_row[group - known] = true;
        }
        let without = has_row.iter().enumerate().filter(|(_, has_row)| !**has_row);
        let without: Vec<usize> = without.map(|(i, _)| known + i).collect();
        if without.is_empty() {
            return Ok(());
        }
        let arguments = self.arguments.iter();
        let nulls: Vec<ArrayRef> = arguments
            .map(|kind| new_null_array(kind, without.len()))
            .collect();
        self.groups
            .update_batch(&nulls, &without, None, total)
            .map_err(plain)
    }
}

impl Partials for NativePartials {
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<(), String> {
        self.grow(groups, total)?;
        let changed: Vec<ArrayRef>;
        let values = match self.before {
            None => values,
            Some(before) => {
                changed = values.iter().map(before).collect();
                &changed
            }
        };
        self.groups
            .update_batch(values, groups, filter, total)
            .map_err(plain)
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), String> {
        self.grow(groups, total)?;
        self.groups
            .merge_batch(states, groups, total)
            .map_err(plain)
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>, String> {
        self.known = 0;
        self.groups.state(EmitTo::All).map_err(plain)
    }

    fn evaluate(&mut self, _: &mut Vec<(u32, String)>) -> Result<ArrayRef, String> {
        self.known = 0;
        let values = self.groups.evaluate(EmitTo::All).map_err(plain)?;
        if *values.data_type() == self.result {
            return Ok(values);
        }
        cast(&values, &self.result).map_err(|error| words::plain(&error.to_string()))
    }

    fn bytes(&self) -> usize {
        self.groups.size()
    }
}

fn plain(error: DataFusionError) -> String {
    words::failure(&error)
}
