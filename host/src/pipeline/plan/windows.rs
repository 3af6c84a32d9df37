//! Operators over event time as the engine runs them: windows, `top`, interval joins, `deduplicate`.

use arrow::datatypes::SchemaRef;

use crate::expr::{Aggregation, Projection};
use crate::time::Micros;

#[derive(Debug, Clone)]
pub struct Window {
    pub kind: WindowKind,
    pub aggregation: Aggregation,
    pub allowed_lateness: Micros,
    /// Results have the column `revision`.
    pub revisions: bool,
}

/// Lengths in microseconds, whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    Tumbling(Micros),
    /// `every` divides `size`.
    Sliding {
        size: Micros,
        every: Micros,
    },
    /// Ends this long after its last row.
    Session(Micros),
}

/// Of all rows of one window the first `n`.
#[derive(Debug, Clone)]
pub struct Top {
    pub n: usize,
    /// Column, descending; of rows that are equal in all of them any order that is fixed.
    pub by: Vec<(usize, bool)>,
    /// Index of the column `window_end`; `window_start` stands before it.
    pub window_end: usize,
}

impl Top {
    /// Rows of one window go to one worker.
    pub fn key(&self) -> [usize; 2] {
        [self.window_end - 1, self.window_end]
    }
}

/// Pairs of rows with equal keys of which the right one's time is within `[left - before, left + after]`.
#[derive(Debug, Clone)]
pub struct Join {
    pub before: Micros,
    pub after: Micros,
    pub kind: JoinKind,
    /// Columns of each side that are kept.
    pub carried: [Vec<usize>; 2],
    /// Both sides' kept columns, the left ones first, as the projection reads them.
    pub paired: SchemaRef,
    pub projection: Projection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

impl JoinKind {
    /// Whether a row of this side (0: left) that matches nothing goes out.
    pub fn is_outer(self, side: usize) -> bool {
        match self {
            Self::Inner => false,
            Self::Left => side == 0,
            Self::Right => side == 1,
            Self::Full => true,
        }
    }
}

/// The first row of a key passes; others within this event time after it do not.
#[derive(Debug, Clone)]
pub struct Deduplicate {
    pub within: Micros,
}
