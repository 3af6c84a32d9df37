//! Plugin steps: the file is loaded, the plugin configured once, its ports become columns.
//!
//! How a plugin is called is not known here. Invariant: a step that comes out of this could be configured with exactly
//! this input, these tables and this config.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde_json::{Value, json};

use super::sources::type_name;
use super::steps::column_signature;
use super::{Resolver, Rows};
use crate::error::PluginError;
use crate::limits::PLUGIN_BYTES_MAX;
use crate::pipeline::plan::{self, LATE_PORT, Operator, Order, Port, Step};
use crate::pipeline::spec;
use crate::pipeline::text::{Span, Spanned};
use crate::plugin::{
    AlarmClock, Component, Description, Kind, PluginPlan, RowOrder, Setup, StateLayout, value_type,
};
use crate::table::TableSet;

impl Resolver<'_> {
    pub(super) fn plugin(
        &mut self,
        step: &spec::Step,
        rows: Option<Rows>,
        plugin: &spec::Plugin,
    ) -> Option<Step> {
        let component = plugin.file.as_ref().and_then(|f| self.component(f, plugin));
        let key = match (&rows, &plugin.key) {
            (Some(rows), Some(key)) => self.key(key, &rows.schema),
            (Some(_), None) => Some(Vec::new()),
            (None, _) => None,
        };
        let component = component?;
        self.keyed_or_not(step, plugin, component.kind())?;
        let (rows, key) = (rows?, key?);
        let order = self.plugin_order(
            step,
            plugin,
            &rows,
            component.kind(),
            component.description(),
        )?;
        if plugin.broken {
            return None;
        }
        let planned = self.configured(step, plugin, &component, &rows.schema)?;
        let shape = Shape {
            key: &key,
            input: &rows.schema,
            late: component.kind() == Kind::Keyed && order == Order::EventTime,
        };
        let ports = self.ports(&planned, &shape, plugin.file.as_ref()?.span)?;
        let signature = signature(component.kind(), component.description(), &shape, order);
        let late_port = shape.late.then(|| ports.len() - 1);
        Some(Step {
            name: step.name.value.clone(),
            keys: plugin.key.is_some().then(|| vec![key; rows.inputs.len()]),
            inputs: rows.inputs,
            holds_back: 0,
            has_event_time: rows.has_event_time,
            operator: Operator::Plugin(Box::new(plan::Plugin {
                component,
                file: PathBuf::from(&plugin.file.as_ref()?.value),
                config: plugin.config.value.to_string(),
                limits: plan::PluginLimits {
                    memory: plugin.limits.memory,
                    call: plugin.limits.call,
                    failed: plugin.limits.failed,
                    wait: plugin.limits.wait,
                },
                order,
                state_ttl: plugin.state_ttl.as_ref().map(|ttl| ttl.value),
                late_port,
            })),
            ports,
            signature,
        })
    }

    /// The loaded plugin, each file once.
    fn component(
        &mut self,
        file: &Spanned<String>,
        plugin: &spec::Plugin,
    ) -> Option<Arc<Component>> {
        let path = self.spec.dir.join(&file.value);
        let runtime = self.runtime?;
        if !self.components.contains_key(&path) {
            let loaded = match read(&path) {
                Ok(bytes) => runtime
                    .load(&file.value, &bytes)
                    .map_err(|e| (reason(e), None)),
                Err((cause, help)) => Err((cause, Some(help))),
            };
            if let Err((cause, help)) = &loaded {
                self.findings
                    .error(file.span, format!("plugin {}: {cause}", file.value))
                    .maybe_help(help.clone());
            }
            self.components.insert(path.clone(), loaded.ok());
        }
        let component = self.components[&path].clone()?;
        self.same_digest(&component, plugin)?;
        Some(component)
    }

    fn same_digest(&mut self, component: &Component, plugin: &spec::Plugin) -> Option<()> {
        let Some(wanted) = &plugin.sha256 else {
            return Some(());
        };
        if wanted.value == component.digest() {
            return Some(());
        }
        let help = format!("the file has {}", component.digest());
        self.findings
            .error(wanted.span, "the plugin file does not have this `sha256`")
            .help(help);
        None
    }

    /// Indices of the key columns.
    pub(super) fn key(
        &mut self,
        key: &Spanned<Vec<Spanned<String>>>,
        schema: &SchemaRef,
    ) -> Option<Vec<usize>> {
        let found: Vec<_> = key
            .value
            .iter()
            .map(|name| self.column(name, schema, "the input"))
            .collect();
        let indices: Vec<usize> = found.into_iter().collect::<Option<_>>()?;
        for (i, index) in indices.iter().enumerate() {
            if indices[..i].contains(index) {
                let message = format!("`key` names column `{}` twice", key.value[i].value);
                self.findings.error(key.value[i].span, message);
                return None;
            }
            let column = schema.field(*index);
            if value_type(column.data_type()).is_none() {
                let ty = type_name(column.data_type());
                let message = format!(
                    "column `{}` of type {ty} cannot be a plugin's key",
                    column.name()
                );
                self.findings.error(key.value[i].span, message).help(
                    "a plugin is given string, int, float, bool, timestamp and bytes: cast it in a `select` before",
                );
                return None;
            }
        }
        Some(indices)
    }

    fn keyed_or_not(&mut self, step: &spec::Step, plugin: &spec::Plugin, kind: Kind) -> Option<()> {
        match (kind, &plugin.key) {
            (Kind::Keyed, None) => {
                self.findings
                    .error(step.name.span, format!("step `{}` needs a `key`", step.name.value))
                    .help("its plugin is keyed: name the columns that belong together, key = [\"user_id\"]");
                None
            }
            (Kind::Transform, Some(key)) => {
                self.findings
                    .error(key.span, "a stateless plugin has no `key`")
                    .help("remove `key`: the plugin keeps nothing between rows");
                None
            }
            _ => Some(()),
        }
    }

    /// The order rows come in: what is written, else what the plugin asks for.
    fn plugin_order(
        &mut self,
        step: &spec::Step,
        plugin: &spec::Plugin,
        rows: &Rows,
        kind: Kind,
        description: &Description,
    ) -> Option<Order> {
        if kind == Kind::Transform {
            if let Some(order) = plugin
                .order
                .as_ref()
                .filter(|o| o.value == Order::EventTime)
            {
                self.findings
                    .error(order.span, "a stateless plugin takes rows as they come")
                    .help(
                        "remove `order`: only a keyed plugin's rows can wait for event-time order",
                    );
                return None;
            }
            return Some(Order::Arrival);
        }
        let asked = match description.order {
            RowOrder::Arrival => Order::Arrival,
            RowOrder::EventTime => Order::EventTime,
        };
        let order = plugin.order.as_ref().map_or(asked, |o| o.value);
        if order != asked && description.alarms == AlarmClock::EventTime {
            // The plugin would fire its alarms between rows, or not, for the order it was written for.
            let span = plugin.order.as_ref().map_or(step.name.span, |o| o.span);
            let message = "the plugin has event-time alarms and was written for another order";
            self.findings
                .error(span, message)
                .help("remove `order`, or change the plugin's own");
            return None;
        }
        if rows.has_event_time {
            return Some(order);
        }
        let why = if plugin.state_ttl.is_some() {
            "`state_ttl`"
        } else if order == Order::EventTime {
            "rows in event-time order"
        } else if description.alarms == AlarmClock::EventTime {
            "alarms in event time"
        } else {
            return Some(order);
        };
        let message = format!(
            "step `{}` needs a watermark for {why}, but its source has no `event_time`",
            step.name.value
        );
        self.no_event_time(step, message)
    }

    /// What the plugin reads and gives, configured for this step.
    fn configured(
        &mut self,
        step: &spec::Step,
        plugin: &spec::Plugin,
        component: &Arc<Component>,
        input: &SchemaRef,
    ) -> Option<PluginPlan> {
        // With a table missing the plugin would complain of what has been said.
        let known: Vec<_> = self
            .tables
            .iter()
            .map(Option::as_ref)
            .collect::<Option<_>>()?;
        let tables = TableSet::unread(known).ok()?;
        let setup = Setup {
            step: step.name.value.clone(),
            config: plugin.config.value.to_string(),
            input: input.clone(),
            tables,
            memory_bytes: plugin.limits.memory,
            call: plugin.limits.call,
        };
        match component.instantiate(setup) {
            Ok(instance) => Some(instance.plan().clone()),
            Err(error) => {
                let message = format!("step `{}`: {}", step.name.value, reason(error));
                self.findings.error(plugin.config.span, message);
                None
            }
        }
    }

    fn ports(&mut self, planned: &PluginPlan, shape: &Shape, span: Span) -> Option<Vec<Port>> {
        let mut ports: Vec<Port> = Vec::new();
        for port in &planned.ports {
            if port.name == LATE_PORT || ports.iter().any(|p| p.name == port.name) {
                let why = match port.name.as_str() {
                    LATE_PORT => "is reserved for rows that come too late",
                    _ => "is there twice",
                };
                let message = format!("the plugin's port `{}` {why}", port.name);
                self.findings
                    .error(span, message)
                    .help("give the port another name in the plugin");
                return None;
            }
            let schema = if port.new_rows {
                let key: Vec<FieldRef> = shape.key_fields();
                self.appended(&Arc::new(Schema::new(key)), &port.adds, |_| span)?
            } else {
                self.appended(shape.input, &port.adds, |_| span)?
            };
            ports.push(Port {
                name: port.name.clone(),
                schema,
            });
        }
        if ports.is_empty() {
            self.findings.error(span, "the plugin has no output port");
            return None;
        }
        if shape.late {
            ports.push(Port {
                name: LATE_PORT.into(),
                schema: shape.input.clone(),
            });
        }
        Some(ports)
    }
}

/// What decides the columns of a plugin's ports, beside the plugin.
struct Shape<'a> {
    key: &'a [usize],
    input: &'a SchemaRef,
    /// Rows below the watermark have a port of their own.
    late: bool,
}

impl Shape<'_> {
    fn key_fields(&self) -> Vec<FieldRef> {
        let fields = self.input.fields();
        self.key.iter().map(|i| fields[*i].clone()).collect()
    }
}

/// What must stay the same for the step's state to stay valid.
fn signature(kind: Kind, description: &Description, shape: &Shape, order: Order) -> Value {
    let key: Vec<_> = shape
        .key_fields()
        .iter()
        .map(|f| column_signature(f))
        .collect();
    if kind == Kind::Transform {
        return json!({ "operator": "plugin", "kind": "stateless" });
    }
    let mut signature = json!({
        "operator": "plugin",
        "kind": "keyed",
        "key": key,
        "state": match description.state {
            StateLayout::None => json!("none"),
            StateLayout::Fixed(words) => json!({ "fixed": words }),
            StateLayout::Blob => json!("blob"),
        },
        "state_version": description.state_version,
        "alarms": match description.alarms {
            AlarmClock::None => "none",
            AlarmClock::EventTime => "event-time",
            AlarmClock::ProcessingTime => "processing-time",
        },
        "order": match order {
            Order::Arrival => "arrival",
            Order::EventTime => "event-time",
        },
    });
    if order == Order::EventTime {
        // Rows wait in the state: their columns are part of it.
        let input = shape.input.fields().iter();
        signature["input"] = input.map(|f| column_signature(f)).collect();
    }
    signature
}

/// The bytes of a plugin file, or why not and what to do.
fn read(path: &Path) -> Result<Vec<u8>, (String, String)> {
    let build = || how_to_build(path);
    let size = std::fs::metadata(path)
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => ("there is no such file".into(), build()),
            _ => (e.to_string(), "make the file readable".into()),
        })?
        .len();
    if size > PLUGIN_BYTES_MAX as u64 {
        let cause = format!("{size} bytes are more than a plugin may have");
        return Err((
            cause,
            format!("at most {PLUGIN_BYTES_MAX} bytes are loaded"),
        ));
    }
    std::fs::read(path).map_err(|e| (e.to_string(), build()))
}

/// The command that makes the file, as exactly as it can be known.
fn how_to_build(path: &Path) -> String {
    let folder = path.parent().filter(|dir| dir.join("Cargo.toml").is_file());
    match folder {
        Some(dir) => format!(
            "its crate is beside it: tidemill plugin build {} --out {}",
            dir.display(),
            path.display()
        ),
        None => "tidemill plugin build DIR --out FILE makes one".into(),
    }
}

/// The cause alone: the place is shown beside it.
fn reason(error: PluginError) -> String {
    match error {
        PluginError::Refused { cause, .. }
        | PluginError::Configure { cause, .. }
        | PluginError::Build { cause } => cause,
    }
}

#[cfg(test)]
mod tests;
