//! `tidemill state ...`: what is in a pipeline's state, asked of the host that runs it or read from a stopped one.

mod get;
mod list;

use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use super::status::state_dir;
use super::{Failure, terminal};
use crate::admin::{Client, ClientError};
use crate::engine::control::ControlError;
use crate::engine::inspect::{Column, Kept};
use crate::error::StateError;
use crate::pipeline::{self, Overrides};
use crate::state::View;
use crate::state::reader::Reader;

/// Look into the state of a pipeline
#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::Arguments),
    Get(get::Arguments),
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
    }
}

/// What `ask` says if a host runs on the pipeline's state, otherwise what `look` makes of the state itself.
fn answer<T>(
    pipeline: &Path,
    ask: impl FnOnce(&Client) -> Result<T, ClientError>,
    look: impl FnOnce(&View) -> Result<T, ControlError>,
) -> Result<T, Failure> {
    let spec = pipeline::load(pipeline, &Overrides::default()).map_err(Failure::Pipeline)?;
    let name = spec.name.as_ref().map_or("", |name| name.value.as_str());
    let state = state_dir(&spec);
    let asked = Client::find(&state).and_then(|client| ask(&client));
    match asked {
        Err(ClientError::NotRunning { .. }) => {}
        answered => return Ok(answered?),
    }
    let none = || Failure::Refused(format!("there is no state in {}", state.display()));
    let reader = Reader::open(&state, name).map_err(|e| match e {
        StateError::InUse { .. } => Failure::Refused(format!(
            "a host runs on {} but cannot be asked (it is just starting or stopping): try again",
            state.display()
        )),
        e => e.into(),
    })?;
    let reader = reader.ok_or_else(none)?;
    let view = reader.view()?.ok_or_else(none)?;
    look(&view).map_err(|e| Failure::Failed(e.to_string()))
}

/// A value of a key column or a state in a cell of a table.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => terminal::escape(text),
        other => terminal::escape(&other.to_string()),
    }
}

/// What is kept of a key, for a person. Of a 64-bit word that may be an integer or a float the likelier is shown.
fn kept(kept: &Kept) -> String {
    match &kept.state {
        Value::Null => "-".into(),
        Value::Array(words) if words.iter().all(is_word) && !words.is_empty() => {
            words.iter().map(word).collect::<Vec<_>>().join(" ")
        }
        other => cell(other),
    }
}

fn is_word(value: &Value) -> bool {
    value.get("int").is_some() && value.get("float").is_some()
}

/// Small integers are no floats that anybody computes, and ordinary floats are integers beyond all counting; times in
/// microseconds lie between.
fn word(value: &Value) -> String {
    const COUNTED_MAX: u64 = 1 << 53;
    let int = value["int"].as_i64().unwrap_or_default();
    match value["float"].as_f64() {
        Some(float) if int.unsigned_abs() > COUNTED_MAX => float.to_string(),
        _ => int.to_string(),
    }
}

/// `user_id string, product_id string`
fn key_words(key: &[Column]) -> String {
    let columns = key
        .iter()
        .map(|c| format!("{} {}", terminal::escape(&c.name), terminal::escape(&c.ty)));
    columns.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
