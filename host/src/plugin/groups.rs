//! State and alarms of a keyed call while it is made in parts: each part takes the groups it needs and leaves them changed.
//!
//! Knows no plugin. Invariant: groups keep the numbers of the whole call here; a part numbers its own from 0.

use std::ops::Range;

use super::check::{Left, gather};
use super::halves::Part;
use super::{GroupStates, KeyedInput};
use crate::time::NO_ALARM;

/// A keyed call in the middle of its parts.
pub struct Working {
    input: KeyedInput,
    /// Blob values that parts have left, by group.
    blobs: Vec<Option<Vec<u8>>>,
    /// Bytes that parts have left, an upper bound.
    blob_bytes: usize,
    dirty: Vec<bool>,
    /// Of each group: its number in the part being made, if it is part of it.
    slots: Vec<u32>,
}

const NOT_IN_PART: u32 = u32::MAX;

impl Working {
    pub fn new(input: KeyedInput) -> Self {
        let groups = input.groups as usize;
        Self {
            blobs: match input.state {
                GroupStates::Blob { .. } => vec![None; groups],
                _ => Vec::new(),
            },
            blob_bytes: 0,
            dirty: vec![false; groups],
            slots: vec![NOT_IN_PART; groups],
            input,
        }
    }

    pub fn input(&self) -> &KeyedInput {
        &self.input
    }

    /// The part as a call of its own, and which groups its numbers stand for. Alarms that earlier parts moved beyond
    /// `now` are no longer due.
    pub fn part(&mut self, part: &Part) -> (KeyedInput, Vec<u32>) {
        let due: Vec<u32> = self.input.due[part.due.clone()]
            .iter()
            .copied()
            .filter(|&g| self.input.alarms[g as usize] <= self.input.now)
            .collect();
        let rows = &self.input.group_of_row[part.rows.clone()];
        let groups = number(rows.iter().chain(&due), &mut self.slots);
        let slot = |g: &u32| self.slots[*g as usize];
        let input = KeyedInput {
            reads: self.input.reads.slice(part.rows.start, part.rows.len()),
            group_of_row: rows.iter().map(slot).collect(),
            keys: self.input.keys.iter().map(|k| gather(k, &groups)).collect(),
            groups: groups.len() as u32,
            state: self.states(&groups),
            alarms: match self.input.alarms.as_slice() {
                [] => Vec::new(),
                alarms => groups.iter().map(|&g| alarms[g as usize]).collect(),
            },
            due: due.iter().map(slot).collect(),
            now: self.input.now,
        };
        groups
            .iter()
            .for_each(|&g| self.slots[g as usize] = NOT_IN_PART);
        (input, groups)
    }

    fn states(&self, groups: &[u32]) -> GroupStates {
        match &self.input.state {
            GroupStates::None => GroupStates::None,
            GroupStates::Fixed { words, present } => {
                let width = width(words, present);
                GroupStates::Fixed {
                    words: groups
                        .iter()
                        .flat_map(|&g| &words[span(g, width)])
                        .copied()
                        .collect(),
                    present: groups.iter().map(|&g| present[g as usize]).collect(),
                }
            }
            GroupStates::Blob { .. } => blob(groups.iter().map(|&g| self.blob(g as usize))),
        }
    }

    fn blob(&self, group: usize) -> &[u8] {
        match (&self.blobs[group], &self.input.state) {
            (Some(value), _) => value,
            (None, GroupStates::Blob { offsets, data }) => value(offsets, data, group),
            (None, _) => &[],
        }
    }

    /// Keeps what a part left of its groups; fails if the state of the call became too large, and changes nothing then.
    pub fn leave(&mut self, groups: &[u32], left: Left) -> Result<(), String> {
        self.make_room(&left)?;
        for (i, &g) in groups.iter().enumerate() {
            let g = g as usize;
            if let Some(&alarm) = left.alarms.get(i) {
                self.input.alarms[g] = alarm;
            }
            if left.dirty[i] {
                self.dirty[g] = true;
                self.put(g, &left.state, i);
            }
        }
        Ok(())
    }

    fn make_room(&mut self, left: &Left) -> Result<(), String> {
        let (GroupStates::Blob { data, .. }, GroupStates::Blob { data: added, .. }) =
            (&self.input.state, &left.state)
        else {
            return Ok(());
        };
        let bytes = self.blob_bytes + added.len();
        if data.len() + bytes > i32::MAX as usize {
            return Err(format!(
                "the state of the call's keys grew by {bytes} bytes, more than a call can hold"
            ));
        }
        self.blob_bytes = bytes;
        Ok(())
    }

    fn put(&mut self, group: usize, from: &GroupStates, at: usize) {
        match (&mut self.input.state, from) {
            (
                GroupStates::Fixed { words, present },
                GroupStates::Fixed {
                    words: new,
                    present: has,
                },
            ) => {
                let width = width(words, present);
                words[span(group as u32, width)].copy_from_slice(&new[span(at as u32, width)]);
                present[group] = has[at];
            }
            (GroupStates::Blob { .. }, GroupStates::Blob { offsets, data }) => {
                self.blobs[group] = Some(value(offsets, data, at).to_vec());
            }
            _ => {}
        }
    }

    /// The alarm at this position of the due list was given up.
    pub fn clear_alarm(&mut self, due: usize) -> u32 {
        let group = self.input.due[due];
        self.input.alarms[group as usize] = NO_ALARM;
        group
    }

    /// What all parts together left, one entry a group of the whole call.
    pub fn finish(self) -> Left {
        let state = if matches!(self.input.state, GroupStates::Blob { .. }) {
            blob((0..self.dirty.len()).map(|g| self.blob(g)))
        } else {
            self.input.state
        };
        Left {
            state,
            dirty: self.dirty,
            alarms: self.input.alarms,
        }
    }
}

/// The distinct groups in ascending order, with their positions noted in `slots`.
fn number<'a>(groups: impl Iterator<Item = &'a u32>, slots: &mut [u32]) -> Vec<u32> {
    let mut distinct = Vec::new();
    for &group in groups {
        let slot = &mut slots[group as usize];
        if *slot == NOT_IN_PART {
            *slot = 0;
            distinct.push(group);
        }
    }
    distinct.sort_unstable();
    for (i, &group) in distinct.iter().enumerate() {
        slots[group as usize] = i as u32;
    }
    distinct
}

/// Words a group.
fn width(words: &[u64], present: &[bool]) -> usize {
    words.len() / present.len().max(1)
}

fn span(group: u32, width: usize) -> Range<usize> {
    let start = group as usize * width;
    start..start + width
}

fn value<'a>(offsets: &[i32], data: &'a [u8], at: usize) -> &'a [u8] {
    &data[offsets[at] as usize..offsets[at + 1] as usize]
}

fn blob<'a>(values: impl Iterator<Item = &'a [u8]>) -> GroupStates {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for value in values {
        data.extend_from_slice(value);
        offsets.push(data.len() as i32);
    }
    GroupStates::Blob { offsets, data }
}

#[cfg(test)]
#[path = "tests/groups.rs"]
mod tests;
