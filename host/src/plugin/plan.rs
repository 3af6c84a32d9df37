//! What a plugin says of itself and of its columns, checked: `describe` and `configure`.
//!
//! Invariant: a [`PluginPlan`] made here names only columns that the input has and that can cross, and its ports can be
//! told apart.

use std::collections::HashSet;

use arrow::datatypes::{Schema, SchemaRef};

use super::columns::{field, value_type};
use super::limits::printable;
use super::wire;
use super::{
    AlarmClock, Description, Kind, PluginPlan, PluginPort, RowOrder, StateLayout, TIME_COLUMN,
};
use crate::format::type_name;
use crate::limits::{
    PLUGIN_COLUMNS_MAX, PLUGIN_NAME_BYTES_MAX, PLUGIN_PORTS_MAX, PLUGIN_STATE_WORDS_MAX,
};

/// The description as the host uses it, or what is wrong with it.
pub fn description(said: wire::Description, kind: Kind) -> Result<Description, String> {
    name("name", &said.name)?;
    name("version", &said.version)?;
    let state = match said.state {
        wire::StateLayout::None => StateLayout::None,
        wire::StateLayout::Fixed(words) if (1..=PLUGIN_STATE_WORDS_MAX).contains(&words) => {
            StateLayout::Fixed(words)
        }
        wire::StateLayout::Fixed(words) => {
            return Err(format!(
                "its state of {words} words a key is not within 1 to {PLUGIN_STATE_WORDS_MAX}; larger or no state has the layout `blob` or `none`"
            ));
        }
        wire::StateLayout::Blob => StateLayout::Blob,
    };
    let alarms = match said.alarms {
        wire::AlarmClock::None => AlarmClock::None,
        wire::AlarmClock::EventTime => AlarmClock::EventTime,
        wire::AlarmClock::ProcessingTime => AlarmClock::ProcessingTime,
    };
    if kind == Kind::Transform && (state != StateLayout::None || alarms != AlarmClock::None) {
        return Err("it asks for state or alarms, which only a keyed plugin has".into());
    }
    Ok(Description {
        name: said.name,
        version: said.version,
        config_schema: said.config_schema,
        state,
        state_version: said.state_version,
        alarms,
        order: match said.order {
            wire::RowOrder::Arrival => RowOrder::Arrival,
            wire::RowOrder::EventTime => RowOrder::EventTime,
        },
    })
}

/// A name that may stand in a log line, an error or a metric.
fn name(what: &str, text: &str) -> Result<(), String> {
    let is_plain = !text.is_empty() && !text.chars().any(char::is_control);
    if is_plain && text.len() <= PLUGIN_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "the {what} `{}` is not a text of 1 to {PLUGIN_NAME_BYTES_MAX} bytes without control characters",
        printable(text)
    ))
}

/// The input as `configure` is told of it: columns of types that cannot cross are left out.
pub fn input_fields(input: &Schema) -> Vec<wire::Field> {
    input
        .fields()
        .iter()
        .filter_map(|f| {
            Some(wire::Field {
                name: f.name().clone(),
                ty: value_type(f.data_type())?,
                nullable: f.is_nullable(),
            })
        })
        .collect()
}

/// The plan as the host uses it, or what is wrong with it.
pub fn plan(said: wire::Plan, input: &SchemaRef) -> Result<PluginPlan, String> {
    count("reads", said.reads.len(), PLUGIN_COLUMNS_MAX)?;
    count("ports", said.ports.len(), PLUGIN_PORTS_MAX)?;
    let reads = said
        .reads
        .iter()
        .map(|column| read(column, input))
        .collect::<Result<_, _>>()?;
    if said.ports.is_empty() {
        return Err("it has no output port".into());
    }
    let mut names = HashSet::new();
    let mut ports = Vec::with_capacity(said.ports.len());
    for (at, said) in said.ports.into_iter().enumerate() {
        if at > 0 {
            port_name(&said.name)?;
        }
        let port = port(said, input)?;
        if !names.insert(port.name.clone()) {
            return Err(format!("it has two ports named `{}`", port.name));
        }
        ports.push(port);
    }
    Ok(PluginPlan { reads, ports })
}

fn count(what: &str, found: usize, max: usize) -> Result<(), String> {
    if found <= max {
        return Ok(());
    }
    Err(format!("it has {found} {what}, at most {max} are allowed"))
}

fn read(column: &str, input: &Schema) -> Result<Option<usize>, String> {
    if column == TIME_COLUMN {
        return Ok(None);
    }
    let Some((at, field)) = input.column_with_name(column) else {
        return Err(format!(
            "it reads the column `{}`, which the input does not have; the input has {}",
            printable(column),
            list(input)
        ));
    };
    if value_type(field.data_type()).is_none() {
        return Err(format!(
            "it reads the column `{column}` of type {}, which cannot be given to a plugin; convert it in a step before (`select`)",
            type_name(field.data_type())
        ));
    }
    Ok(Some(at))
}

fn list(input: &Schema) -> String {
    let names: Vec<_> = input.fields().iter().map(|f| f.name().as_str()).collect();
    match names.len() {
        0 => "no columns".into(),
        _ => names.join(", "),
    }
}

/// Ports are read as `step.port`.
fn port_name(text: &str) -> Result<(), String> {
    let is_id = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_id || text.len() > PLUGIN_NAME_BYTES_MAX {
        return Err(format!(
            "its port `{}` is not named [a-z][a-z0-9_]*",
            printable(text)
        ));
    }
    if text == "late" {
        return Err("its port `late` has a name that is reserved for late rows".into());
    }
    Ok(())
}

fn port(said: wire::Port, input: &Schema) -> Result<PluginPort, String> {
    let port = printable(&said.name);
    count(
        &format!("columns in port `{port}`"),
        said.adds.len(),
        PLUGIN_COLUMNS_MAX,
    )?;
    let mut names = HashSet::new();
    for added in &said.adds {
        name(&format!("column of port `{port}`"), &added.name)?;
        let clash = if added.name == TIME_COLUMN {
            Some("which is a reserved name")
        } else if !said.new_rows && input.column_with_name(&added.name).is_some() {
            Some("which the input already has; rename one of them")
        } else if !names.insert(added.name.as_str()) {
            Some("twice")
        } else {
            None
        };
        if let Some(clash) = clash {
            return Err(format!(
                "its port `{port}` adds the column `{}`, {clash}",
                added.name
            ));
        }
    }
    Ok(PluginPort {
        adds: said.adds.iter().map(field).collect(),
        name: said.name,
        new_rows: said.new_rows,
    })
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
