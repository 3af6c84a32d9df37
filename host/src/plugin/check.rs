//! Checks what a call returned and turns it into the rows of [`Outcome`]; a plugin's lie ends as a `String` that names it.
//!
//! Invariant: whatever passed here may be used without another look: indices are in range and ascending, columns have
//! the planned types and lengths, states and alarms have one entry a group.

use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{filter, take};

use super::columns::{check_var, lift, unpack};
use super::limits::printable;
use super::wire::{self, BatchOut, Column, NewRows, Output, Refusal, Selection, State};
use super::{
    AlarmClock, Description, GroupStates, Outcome, PluginPlan, PluginPort, PortRows, StateLayout,
};
use crate::time::Micros;

/// Which rows of the whole call a part of it holds, and which groups its own numbers stand for.
pub struct Place<'a> {
    /// Rows of the part, in the numbers of the whole call.
    pub rows: Range<usize>,
    /// Rows of the whole call.
    pub rows_of_call: usize,
    pub groups: Groups<'a>,
}

/// The groups that an origin beyond the rows may name.
#[derive(Clone, Copy)]
pub enum Groups<'a> {
    /// None: not a keyed call.
    None,
    /// All of the whole call, by the same numbers.
    All(u32),
    /// Group i of the part is this one of the whole call.
    Some(&'a [u32]),
}

impl Groups<'_> {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::All(groups) => *groups as usize,
            Self::Some(groups) => groups.len(),
        }
    }

    fn of_call(&self, group: usize) -> u32 {
        match self {
            Self::Some(groups) => groups[group],
            _ => group as u32,
        }
    }
}

/// What one successful part of a call gave, in the numbers of the whole call.
#[derive(Debug)]
pub struct Said {
    /// One a port; `None`: nothing left through it.
    pub ports: Vec<Option<PortRows>>,
    pub refused: Vec<(u32, String)>,
}

impl Outcome {
    /// Adds a part that comes after all that were added before.
    pub(super) fn add(&mut self, said: Said) {
        for (port, rows) in self.ports.iter_mut().zip(said.ports) {
            port.extend(rows);
        }
        self.refused.extend(said.refused);
    }
}

/// The outputs and refusals of a part.
pub fn said(
    ports: Vec<Output>,
    refused: Vec<Refusal>,
    plan: &PluginPlan,
    place: &Place<'_>,
) -> Result<Said, String> {
    if ports.len() != plan.ports.len() {
        return Err(format!(
            "it returned {} ports, planned were {}",
            ports.len(),
            plan.ports.len()
        ));
    }
    let kept = refusals(&refused, place.rows.len())?;
    let ports = ports
        .into_iter()
        .zip(&plan.ports)
        .map(|(output, port)| {
            port_rows(output, port, kept.as_ref(), place)
                .map(|rows| rows.filter(|rows| !rows.is_empty()))
                .map_err(|cause| format!("port `{}`: {cause}", printable(&port.name)))
        })
        .collect::<Result<_, _>>()?;
    let mut refused: Vec<_> = refused
        .into_iter()
        .map(|r| (r.row + place.rows.start as u32, printable(&r.reason)))
        .collect();
    refused.sort_unstable_by_key(|(row, _)| *row);
    Ok(Said { ports, refused })
}

/// Which rows were not refused; `None`: all.
fn refusals(refused: &[Refusal], rows: usize) -> Result<Option<Vec<bool>>, String> {
    if refused.is_empty() {
        return Ok(None);
    }
    let mut kept = vec![true; rows];
    for refusal in refused {
        match kept.get_mut(refusal.row as usize) {
            Some(kept) if *kept => *kept = false,
            Some(_) => return Err(format!("it refused row {} twice", refusal.row)),
            None => {
                return Err(format!(
                    "it refused row {}, the call had {rows}",
                    refusal.row
                ));
            }
        }
    }
    Ok(Some(kept))
}

fn port_rows(
    output: Output,
    port: &PluginPort,
    kept: Option<&Vec<bool>>,
    place: &Place<'_>,
) -> Result<Option<PortRows>, String> {
    match output {
        Output::Nothing => Ok(None),
        Output::Rows(_) if !port.new_rows => {
            Err("it returned new rows, planned were input rows".into())
        }
        Output::Extend(_) | Output::Select(_) if port.new_rows => {
            Err("it returned input rows, planned were new rows".into())
        }
        Output::Extend(added) => extended(added, port, kept, place).map(Some),
        Output::Select(selection) => selected(selection, port, kept, place).map(Some),
        Output::Rows(rows) => new_rows(rows, port, place).map(Some),
    }
}

fn extended(
    added: Vec<Column>,
    port: &PluginPort,
    kept: Option<&Vec<bool>>,
    place: &Place<'_>,
) -> Result<PortRows, String> {
    let added = lift_all(added, port, place.rows.len())?;
    let of_call = place.rows.start as u32..place.rows.end as u32;
    let Some(kept) = kept else {
        return Ok(PortRows::Kept {
            rows: of_call.collect(),
            added,
        });
    };
    let mask = BooleanArray::from(kept.clone());
    Ok(PortRows::Kept {
        rows: of_call
            .zip(kept)
            .filter_map(|(row, kept)| kept.then_some(row))
            .collect(),
        added: added
            .iter()
            .map(|column| filter(column, &mask).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()?,
    })
}

fn selected(
    selection: Selection,
    port: &PluginPort,
    kept: Option<&Vec<bool>>,
    place: &Place<'_>,
) -> Result<PortRows, String> {
    let Selection { mut rows, added } = selection;
    if let Some(pair) = rows.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(format!(
            "the selected rows are not ascending: {} after {}",
            pair[1], pair[0]
        ));
    }
    if let Some(&last) = rows.last()
        && last as usize >= place.rows.len()
    {
        return Err(format!(
            "it selected row {last}, the call had {}",
            place.rows.len()
        ));
    }
    if let Some(kept) = kept
        && let Some(row) = rows.iter().find(|&&row| !kept[row as usize])
    {
        return Err(format!("row {row} was both refused and selected"));
    }
    let added = lift_all(added, port, rows.len())?;
    let start = place.rows.start as u32;
    if start > 0 {
        rows.iter_mut().for_each(|row| *row += start);
    }
    Ok(PortRows::Kept { rows, added })
}

fn new_rows(new: NewRows, port: &PluginPort, place: &Place<'_>) -> Result<PortRows, String> {
    let NewRows {
        batch: BatchOut { rows, columns },
        mut origin,
        times,
    } = new;
    let rows = rows as usize;
    if origin.len() != rows {
        return Err(format!("{rows} new rows have {} origins", origin.len()));
    }
    if let Some(times) = &times
        && times.len() != rows
    {
        return Err(format!("{rows} new rows have {} times", times.len()));
    }
    let known = place.rows.len() + place.groups.len();
    for origin in &mut origin {
        let at = *origin as usize;
        *origin = if at < place.rows.len() {
            (place.rows.start + at) as u32
        } else if at < known {
            place.rows_of_call as u32 + place.groups.of_call(at - place.rows.len())
        } else {
            return Err(format!(
                "a new row has the origin {at}, the call had {} rows and {} groups",
                place.rows.len(),
                place.groups.len()
            ));
        };
    }
    Ok(PortRows::New {
        columns: lift_all(columns, port, rows)?,
        origin,
        times,
    })
}

fn lift_all(columns: Vec<Column>, port: &PluginPort, rows: usize) -> Result<Vec<ArrayRef>, String> {
    if columns.len() != port.adds.len() {
        return Err(format!(
            "it returned {} columns, planned were {}",
            columns.len(),
            port.adds.len()
        ));
    }
    columns
        .into_iter()
        .zip(&port.adds)
        .map(|(column, field)| lift(column, field, rows))
        .collect()
}

/// State, dirty flags and alarms after a part, one entry a group of the part.
#[derive(Debug)]
pub struct Left {
    pub state: GroupStates,
    pub dirty: Vec<bool>,
    pub alarms: Vec<Micros>,
}

pub fn left(
    state: State,
    dirty: Option<Vec<u8>>,
    alarms: Vec<i64>,
    groups: usize,
    description: &Description,
) -> Result<Left, String> {
    let alarms_expected = match description.alarms {
        AlarmClock::None => 0,
        AlarmClock::EventTime | AlarmClock::ProcessingTime => groups,
    };
    if alarms.len() != alarms_expected {
        return Err(match description.alarms {
            AlarmClock::None => "it set alarms, but described itself as having none".into(),
            _ => format!("it returned {} alarms for {groups} groups", alarms.len()),
        });
    }
    Ok(Left {
        state: states(state, groups, description.state)?,
        dirty: match dirty {
            None => vec![true; groups],
            Some(bits) => unpack("dirty", &bits, groups)?,
        },
        alarms,
    })
}

fn states(state: State, groups: usize, layout: StateLayout) -> Result<GroupStates, String> {
    match (layout, state) {
        (StateLayout::None, State::None) => Ok(GroupStates::None),
        (StateLayout::Fixed(width), State::Fixed(state)) => fixed(state, groups, width),
        (StateLayout::Blob, State::Blob(values)) => {
            let (offsets, data) =
                check_var(values, groups).map_err(|e| format!("the state {e}"))?;
            Ok(GroupStates::Blob { offsets, data })
        }
        (layout, state) => Err(format!(
            "it returned state of the layout {}, described was {layout:?}",
            match state {
                State::None => "None",
                State::Fixed(_) => "Fixed",
                State::Blob(_) => "Blob",
            }
        )),
    }
}

fn fixed(state: wire::FixedState, groups: usize, width: u32) -> Result<GroupStates, String> {
    let expected = groups * width as usize;
    if state.words.len() != expected {
        return Err(format!(
            "it returned {} words of state, {groups} groups of {width} need {expected}",
            state.words.len()
        ));
    }
    Ok(GroupStates::Fixed {
        words: state.words,
        present: match state.present {
            None => vec![true; groups],
            Some(bits) => unpack("the state's `present`", &bits, groups)?,
        },
    })
}

/// Entries `groups` of a column.
pub fn gather(column: &ArrayRef, groups: &[u32]) -> ArrayRef {
    take(column, &UInt32Array::from(groups.to_vec()), None).expect("groups are within the call")
}

#[cfg(test)]
#[path = "tests/check.rs"]
mod tests;
