//! What is in the state, for people: steps with what they keep, keys by their columns, values as far as they can be told.
//!
//! Goes by the signatures that the checkpoint itself holds, so it needs no pipeline file and no plugin. Reads, changes
//! nothing. Invariant: bytes that cannot be told are shown as they are, never left out.

mod columns;
mod message_pack;
mod values;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::control::ControlError;
use crate::engine::edit;
use crate::engine::meta::{EngineMeta, StepMeta};
use crate::error::StateError;
use crate::limits::{STATE_LIST_DEFAULT, STATE_LIST_MAX};
use crate::state::{StepSize, View};
use crate::time::MICROS_PER_MS;
pub use columns::Column;
use columns::KeyColumns;
pub use values::Kept;

/// The steps of a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateSteps {
    pub pipeline: String,
    /// All of it is of this checkpoint.
    pub checkpoint: u64,
    pub steps: Vec<StepState>,
}

/// A step that keeps something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    pub name: String,
    /// As the pipeline file calls it: `plugin`, `window`, `join`, …
    pub operator: String,
    /// In words.
    pub keeps: String,
    pub key: Vec<Column>,
    pub keys: u64,
    /// Of keys and values.
    pub key_bytes: u64,
    pub segments: u64,
    pub segment_bytes: u64,
}

/// Which part of a step's state is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Only keys whose first column is a text that begins so.
    pub prefix: Option<String>,
    /// Keys, and segments, at most.
    pub limit: Option<usize>,
}

/// Keys and segments of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    pub step: String,
    pub checkpoint: u64,
    pub operator: String,
    pub keeps: String,
    pub key: Vec<Column>,
    pub entries: Vec<Entry>,
    /// There are more keys than were asked for.
    pub more_entries: bool,
    pub segments: Vec<Segment>,
    pub more_segments: bool,
}

/// What a step keeps of one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub step: String,
    pub checkpoint: u64,
    pub key: Vec<Column>,
    pub entry: Entry,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// A value for each column: timestamps RFC 3339, bytes base64, decimals text.
    pub key: Vec<Value>,
    #[serde(flatten)]
    pub kept: Kept,
}

/// Rows that a step keeps together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// What it means is the step's affair: the start of a pane, a time that its rows are before.
    pub time: String,
    /// The one it came with.
    pub checkpoint: u64,
    /// First and last key group of its rows.
    pub key_groups: (u16, u16),
    pub bytes: u64,
}

/// A step of a view, with what its checkpoint says of it.
struct Step<'a> {
    name: &'a str,
    number: u16,
    signature: &'a Value,
}

/// What all steps keep.
pub fn steps(view: &View) -> Result<StateSteps, ControlError> {
    let meta = read_meta(view)?;
    let mut steps = Vec::new();
    for step in kept_steps(view, &meta) {
        let size = view.size(step.number).map_err(failed)?;
        steps.push(step.state(size));
    }
    Ok(StateSteps {
        pipeline: view.pipeline().to_owned(),
        checkpoint: view.latest().number,
        steps,
    })
}

/// Keys of a step, ascending within each key group, and its segments by time.
pub fn list(view: &View, step: &str, query: &Query) -> Result<Listing, ControlError> {
    let meta = read_meta(view)?;
    let step = find(view, &meta, step)?;
    let limit = query
        .limit
        .unwrap_or(STATE_LIST_DEFAULT)
        .min(STATE_LIST_MAX);
    let columns = step.columns();
    let prefix = match &query.prefix {
        None => Vec::new(),
        Some(text) => columns.prefix(text).map_err(|why| step.refused(&why))?,
    };
    let (mut entries, mut more_entries) = (Vec::new(), false);
    let mut cursor = view.entries(step.number).map_err(failed)?;
    while cursor.advance().map_err(|e| ControlError::Failed(e.0))? {
        if !step.within_entry(cursor.key()).starts_with(&prefix) {
            continue;
        }
        more_entries = entries.len() == limit;
        if more_entries {
            break;
        }
        entries.push(step.entry(&columns, cursor.key(), cursor.value()));
    }
    let ids = view.segment_ids(step.number).map_err(failed)?;
    let mut segments = Vec::new();
    for id in ids.iter().take(limit) {
        segments.push(Segment {
            time: crate::format::timestamp::show(id.millis.saturating_mul(MICROS_PER_MS)),
            checkpoint: id.checkpoint,
            key_groups: (id.first, id.last),
            bytes: view.segment(step.number, *id).map_err(failed)?.len() as u64,
        });
    }
    let state = step.state(StepSize::default());
    Ok(Listing {
        step: state.name,
        checkpoint: view.latest().number,
        operator: state.operator,
        keeps: state.keeps,
        key: state.key,
        entries,
        more_entries,
        more_segments: ids.len() > segments.len(),
        segments,
    })
}

/// What a step keeps of the key that `text` names.
pub fn get(view: &View, step: &str, text: &str) -> Result<Found, ControlError> {
    let meta = read_meta(view)?;
    let step = find(view, &meta, step)?;
    if step.is_in_segments() {
        let text = format!(
            "it keeps {} in segments, which are not found by key; `tidemill state list` shows them",
            step.keeps()
        );
        return Err(step.refused(&text));
    }
    let columns = step.columns();
    let key = columns.parse(text).map_err(|why| step.refused(&why))?;
    let group = crate::state::key::key_group(crate::state::key::key_hash(&key), view.key_groups());
    let found = view.get(step.number, group, &key).map_err(failed)?;
    let value = found.ok_or_else(|| {
        let shown = Value::Array(columns.decode(&key));
        let checkpoint = view.latest().number;
        ControlError::NotFound(format!(
            "step {}: no key {shown} in the state of checkpoint {checkpoint}",
            step.name
        ))
    })?;
    Ok(Found {
        step: step.name.to_owned(),
        checkpoint: view.latest().number,
        key: columns.columns(),
        entry: step.entry(&columns, &key, &value),
    })
}

fn read_meta(view: &View) -> Result<EngineMeta, ControlError> {
    crate::engine::open::read_meta(view.latest().meta.clone())
        .map_err(|e| ControlError::Failed(e.to_string()))
}

/// The steps of `view` that keep something, by name.
fn kept_steps<'a>(view: &'a View, meta: &'a EngineMeta) -> impl Iterator<Item = Step<'a>> {
    let keeps = |step: &StepMeta| !step.given_up && edit::kept(&step.signature).is_some();
    view.steps().filter_map(move |(name, number)| {
        let step = meta.steps.get(name).filter(|step| keeps(step))?;
        Some(Step {
            name,
            number,
            signature: &step.signature,
        })
    })
}

fn find<'a>(view: &'a View, meta: &'a EngineMeta, name: &str) -> Result<Step<'a>, ControlError> {
    if let Some(step) = kept_steps(view, meta).find(|step| step.name == name) {
        return Ok(step);
    }
    let names: Vec<&str> = kept_steps(view, meta).map(|step| step.name).collect();
    let names = match names.is_empty() {
        true => "no step keeps anything".to_owned(),
        false => format!("steps that keep something are {}", names.join(", ")),
    };
    let what = match meta.steps.get(name) {
        Some(step) if step.given_up => format!("the state of step {name} was given up"),
        Some(_) => format!("step {name} keeps nothing"),
        None => format!("there is no step {name}"),
    };
    Err(ControlError::NotFound(format!("{what}; {names}")))
}

impl Step<'_> {
    fn state(&self, size: StepSize) -> StepState {
        StepState {
            name: self.name.to_owned(),
            operator: self.operator().to_owned(),
            keeps: self.keeps().to_owned(),
            key: self.columns().columns(),
            keys: size.keys,
            key_bytes: size.key_bytes,
            segments: size.segments,
            segment_bytes: size.segment_bytes,
        }
    }

    fn operator(&self) -> &str {
        self.signature["operator"].as_str().unwrap_or("unknown")
    }

    fn keeps(&self) -> &'static str {
        edit::kept(self.signature).unwrap_or("nothing")
    }

    /// Windows by time, joins and rankings: of single keys they keep at most notes.
    fn is_in_segments(&self) -> bool {
        let session = self.signature["window"].get("session").is_some();
        match self.operator() {
            "window" => !session,
            "join" | "top" => true,
            _ => false,
        }
    }

    fn columns(&self) -> KeyColumns {
        let of = if self.operator() == "top" {
            &self.signature["of"]
        } else {
            self.signature
        };
        let key = of.get("key").or_else(|| of.get("on"));
        KeyColumns::new(key.and_then(Value::as_array).map_or(&[], Vec::as_slice))
    }

    /// The encoded key columns within the key of an entry.
    fn within_entry<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match self.is_in_segments() {
            // The end of a window stands in front.
            true => key.get(8..).unwrap_or_default(),
            false => key,
        }
    }

    fn entry(&self, columns: &KeyColumns, key: &[u8], value: &[u8]) -> Entry {
        Entry {
            key: columns.decode(self.within_entry(key)),
            kept: match self.is_in_segments() {
                true => values::correction(key, value),
                false => values::read(self.signature, value),
            },
        }
    }

    fn refused(&self, why: &str) -> ControlError {
        ControlError::Refused(format!("step {}: {why}", self.name))
    }
}

fn failed(error: StateError) -> ControlError {
    ControlError::Failed(error.to_string())
}

#[cfg(test)]
mod tests;
