//! Plugins without state.

use crate::bindings::{
    AlarmClock, Batch, Description, Field, Plan, RowOrder, StateLayout, Transformed,
};
use crate::metrics;
use crate::out::{Origin, Out, Outcome, Ports};
use crate::row::{Row, Source};
use crate::setup::{Ready, Setup, configure};
use serde::de::DeserializeOwned;

/// A plugin that judges each row for itself. The implementing type is its configuration, read from the JSON in the pipeline
/// file.
pub trait Transform: DeserializeOwned {
    /// What it reads, with `#[derive(Row)]`.
    type Row<'a>: Row<'a>;
    /// What goes out: an output row, a port, or a struct of ports.
    type Out: Outcome;
    /// A JSON Schema of the configuration.
    const CONFIG_SCHEMA: &'static str = "{}";

    /// Called once, before any row: checks the configuration, names tables, makes counters. An error refuses the pipeline.
    fn setup(&mut self, _setup: &mut Setup<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Handles a row. Its result must depend on nothing but the row, the configuration and the tables.
    fn row(&mut self, row: Self::Row<'_>, out: &mut Out<Self::Out>);
}

/// A configured [`Transform`], with the calls that the host makes.
#[doc(hidden)]
pub struct TransformRuntime<P>(Option<Ready<P>>);

impl<P: Transform> TransformRuntime<P> {
    pub const fn new() -> Self {
        TransformRuntime(None)
    }

    pub fn describe(name: &str, version: &str) -> Description {
        Description {
            name: name.to_owned(),
            version: version.to_owned(),
            config_schema: P::CONFIG_SCHEMA.to_owned(),
            state: StateLayout::None,
            state_version: 1,
            alarms: AlarmClock::None,
            order: RowOrder::Arrival,
        }
    }

    pub fn configure(&mut self, config: &str, input: &[Field]) -> Result<Plan, String> {
        type PortsOf<P> = <<P as Transform>::Out as Outcome>::Ports;
        let needs_time = PortsOf::<P>::NEW_ROWS;
        let (ready, plan) =
            configure::<P, P::Row<'static>, PortsOf<P>>(config, input, needs_time, P::setup)?;
        self.0 = Some(ready);
        Ok(plan)
    }

    pub fn process(&mut self, input: &Batch) -> Result<Transformed, String> {
        let ready = self.0.as_mut().ok_or("process before configure")?;
        let result = run(ready, input);
        metrics::flush(result.is_ok());
        result
    }
}

impl<P: Transform> Default for TransformRuntime<P> {
    fn default() -> Self {
        Self::new()
    }
}

fn run<P: Transform>(ready: &mut Ready<P>, input: &Batch) -> Result<Transformed, String> {
    let rows = input.rows as usize;
    let found = ready.look_up(input)?;
    let times = ready.times(input)?;
    let reader = P::Row::bind(Source {
        rows,
        columns: &input.columns,
        found: &found,
    })?;
    let mut out = Out::<P::Out>::new();
    for row in 0..rows {
        let time = times.map_or(0, |times| times[row]);
        out.begin(Origin {
            index: row as u32,
            time,
            alarm: false,
        });
        ready.plugin.row(P::Row::get(&reader, row), &mut out);
        out.end();
    }
    let (ports, refused) = out.finish();
    Ok(Transformed { ports, refused })
}
