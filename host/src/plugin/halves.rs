//! Finds the rows at which a plugin fails: a call that failed is repeated on halves, in order, until single rows are left.
//!
//! Knows no plugin: what a part of a call is and what it costs, not what happens in it. Invariant: every row and every
//! due alarm of the call is in exactly one part that succeeded or was given up alone, and they come in their order.

use std::ops::Range;
use std::time::Duration;

use crate::limits::{BISECT_MS_PER_EPOCH_MAX, CALL_PART_MS_MIN};

/// Rows of a call and, in the last part of a keyed one, positions in its list of due alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub rows: Range<usize>,
    pub due: Range<usize>,
}

impl Part {
    fn weight(&self) -> usize {
        self.rows.len() + self.due.len()
    }

    /// Two parts with all of this one in order; due alarms go with the last. `None`: one row or alarm is all there is.
    fn halves(&self) -> Option<(Self, Self)> {
        let Self { rows, due } = self.clone();
        if rows.len() > 1 || (rows.len() == 1 && !due.is_empty()) {
            let middle = rows.start + rows.len().div_ceil(2);
            let first = Self {
                rows: rows.start..middle,
                due: due.start..due.start,
            };
            let second = Self {
                rows: middle..rows.end,
                due,
            };
            return Some((first, second));
        }
        if due.len() < 2 {
            return None;
        }
        let middle = due.start + due.len() / 2;
        let part = |due| Self {
            rows: rows.clone(),
            due,
        };
        Some((part(due.start..middle), part(middle..due.end)))
    }

    /// The deadline of this part of a call: its share, but never so little that a busy machine decides over a row.
    fn deadline(&self, whole: &Self, call: Duration) -> Duration {
        let share = call.mul_f64(self.weight() as f64 / whole.weight() as f64);
        share.max(Duration::from_millis(CALL_PART_MS_MIN))
    }
}

/// Why a part did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Trap, time, memory, a lie or `err`: some row or alarm of the part is at fault.
    Part(String),
    /// The plugin cannot be called at all any more.
    Plugin(String),
}

/// A call that can be made in parts.
pub trait Parts {
    /// Calls the plugin with this part and keeps what it gave. A failure leaves nothing behind.
    fn attempt(&mut self, part: &Part, deadline: Duration) -> Result<(), Failure>;

    /// Row `row` failed alone.
    fn give_up_row(&mut self, row: usize, cause: String);

    /// The alarm at `due` of the list failed alone.
    fn give_up_alarm(&mut self, due: usize, cause: String);

    /// The time that an epoch has for this is used up.
    fn is_exhausted(&self) -> bool;
}

/// Settles a call that failed as a whole with `cause`. `Err`: why the pipeline has to pause.
pub fn settle(
    parts: &mut impl Parts,
    whole: &Part,
    cause: String,
    call: Duration,
) -> Result<(), String> {
    let mut failed = (whole.clone(), cause);
    // The part to do next is the last.
    let mut waiting: Vec<Part> = Vec::new();
    loop {
        let (part, cause) = failed;
        match part.halves() {
            Some((first, second)) => waiting.extend([second, first]),
            None if part.rows.is_empty() => parts.give_up_alarm(part.due.start, cause.clone()),
            None => parts.give_up_row(part.rows.start, cause.clone()),
        }
        failed = loop {
            let Some(part) = waiting.pop() else {
                return Ok(());
            };
            if parts.is_exhausted() {
                return Err(format!(
                    "finding the rows at which it fails took more than {BISECT_MS_PER_EPOCH_MAX} ms in one epoch; it failed last with: {cause}"
                ));
            }
            match parts.attempt(&part, part.deadline(whole, call)) {
                Ok(()) => {}
                Err(Failure::Part(cause)) => break (part, cause),
                Err(Failure::Plugin(cause)) => return Err(cause),
            }
        };
    }
}

#[cfg(test)]
#[path = "tests/halves.rs"]
mod tests;
