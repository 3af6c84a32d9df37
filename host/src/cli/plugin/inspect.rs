//! `tidemill plugin inspect`: what a component is, and with a pipeline what it reads and gives there.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use clap::Args;

use crate::cli::{Failure, table, terminal};
use crate::pipeline::plan::{Input, Operator, Plan};
use crate::pipeline::{self, Overrides};
use crate::plugin::{
    AlarmClock, Component, Description, Kind, PluginPlan, RowOrder, Runtime, Setup, StateLayout,
    TIME_COLUMN,
};
use crate::table::TableSet;

/// Show what a plugin is: kind, state, order, imports, sizes
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidemill plugin inspect anomaly.wasm --pipeline examples/ecommerce/pipeline.toml --step anomalies"
)]
pub struct Arguments {
    /// The component
    file: PathBuf,
    /// Also show what it reads and gives in this pipeline ...
    #[arg(long, value_name = "PIPELINE", requires = "step")]
    pipeline: Option<PathBuf>,
    /// ... in place of this step's plugin
    #[arg(long, requires = "pipeline")]
    step: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = arguments.file.display().to_string();
    let wasm = fs::read(&arguments.file).map_err(|e| Failure::Refused(format!("{file}: {e}")))?;
    let runtime = Runtime::new(None)?;
    let component = runtime.load(&file, &wasm)?;
    let mut text = describe(&component);
    if let (Some(pipeline), Some(step)) = (&arguments.pipeline, &arguments.step) {
        let (input, plan) = configured(&component, &arguments.file, pipeline, step)?;
        text.push_str(&describe_plan(&plan, &input));
    }
    terminal::print(&text)
}

/// What the component says when it is configured as `step` of `pipeline`, and the columns it can read there.
fn configured(
    component: &Arc<Component>,
    file: &Path,
    pipeline: &Path,
    step: &str,
) -> Result<(SchemaRef, PluginPlan), Failure> {
    let whole = file
        .canonicalize()
        .map_err(|e| Failure::Refused(format!("{}: {e}", file.display())))?;
    let spec = pipeline::load(pipeline, &Overrides::default()).map_err(Failure::Pipeline)?;
    if spec.steps.iter().all(|s| s.name.value != step) {
        let names: Vec<&str> = spec.steps.iter().map(|s| s.name.value.as_str()).collect();
        return Err(Failure::Refused(format!(
            "{} has no step {step}; its steps are {}",
            pipeline.display(),
            names.join(", ")
        )));
    }
    // The pipeline is checked as if it named this file; a digest it may ask for is of the other one.
    let value = toml_edit::Value::from(whole.to_string_lossy().as_ref()).to_string();
    let set = vec![(format!("steps.{step}.plugin.file"), value)];
    let overrides = Overrides {
        set,
        ..Overrides::default()
    };
    let (plan, _) =
        pipeline::check(pipeline, &overrides, component.runtime()).map_err(Failure::Pipeline)?;
    let found = plan.steps.iter().find(|s| s.name == step);
    let Some((step, Operator::Plugin(plugin))) = found.map(|s| (s, &s.operator)) else {
        let pipeline = pipeline.display();
        return Err(Failure::Refused(format!(
            "step {step} of {pipeline} runs no plugin"
        )));
    };
    let input = input_schema(&plan, step.inputs[0]);
    let instance = component.instantiate(Setup {
        step: step.name.clone(),
        config: plugin.config.clone(),
        input: input.clone(),
        tables: TableSet::unread(&plan.tables).map_err(Failure::Refused)?,
        memory_bytes: plugin.limits.memory,
        call: plugin.limits.call,
    })?;
    Ok((input, instance.plan().clone()))
}

fn input_schema(plan: &Plan, input: Input) -> SchemaRef {
    match input {
        Input::Source(source) => plan.sources[source].schema.clone(),
        Input::Port { step, port } => plan.steps[step].ports[port].schema.clone(),
    }
}

fn describe(component: &Component) -> String {
    let Description {
        name,
        version,
        state,
        state_version,
        alarms,
        order,
        config_schema,
    } = component.description();
    let imports = match component.imports() {
        [] => "nothing".to_owned(),
        imports => imports.join(", "),
    };
    let mut text = String::new();
    for (label, value) in [
        ("plugin", terminal::escape(&format!("{name} {version}"))),
        ("kind", kind(component.kind()).into()),
        ("state", state_text(*state, *state_version)),
        ("order", order_text(*order).into()),
        ("alarms", alarms_text(*alarms).into()),
        ("config", terminal::escape(config_schema)),
        ("imports", terminal::escape(&imports)),
        ("component", table::bytes(component.wasm_bytes() as u64)),
        ("compiled", table::bytes(component.compiled_bytes() as u64)),
        ("sha256", component.digest().to_owned()),
    ] {
        let _ = writeln!(text, "{label:<10} {value}");
    }
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Transform => "transform (no state; each row for itself)",
        Kind::Keyed => "keyed (state and an alarm for each key)",
    }
}

fn state_text(state: StateLayout, version: u32) -> String {
    match state {
        StateLayout::None => "none".into(),
        StateLayout::Fixed(words) => format!("fixed, {words} words of 8 bytes, version {version}"),
        StateLayout::Blob => format!("bytes of any length, version {version}"),
    }
}

fn order_text(order: RowOrder) -> &'static str {
    match order {
        RowOrder::Arrival => "arrival",
        RowOrder::EventTime => "event-time (rows wait for the watermark)",
    }
}

fn alarms_text(alarms: AlarmClock) -> &'static str {
    match alarms {
        AlarmClock::None => "none",
        AlarmClock::EventTime => "event-time",
        AlarmClock::ProcessingTime => "processing-time",
    }
}

fn describe_plan(plan: &PluginPlan, input: &SchemaRef) -> String {
    let name = |read: &Option<usize>| match read {
        Some(column) => {
            let field = input.field(*column);
            format!("{} {}", field.name(), field.data_type())
        }
        None => format!("{TIME_COLUMN} (event time)"),
    };
    let reads: Vec<String> = plan.reads.iter().map(name).collect();
    let mut text = format!("{:<10} {}\n", "reads", terminal::escape(&reads.join(", ")));
    for port in &plan.ports {
        let adds: Vec<String> = port
            .adds
            .iter()
            .map(|f| format!("{} {}", f.name(), f.data_type()))
            .collect();
        let rows = if port.new_rows {
            "new rows of"
        } else {
            "input rows with"
        };
        let adds = if adds.is_empty() {
            "nothing added".into()
        } else {
            adds.join(", ")
        };
        let line = terminal::escape(&format!("{}: {rows} {adds}", port.name));
        let _ = writeln!(text, "{:<10} {line}", "port");
    }
    text
}
