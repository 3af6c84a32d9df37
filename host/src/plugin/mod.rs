//! Sandboxed plugins: load, configure, call, and survive their failures.
//!
//! Knows columns and bytes, no engine: batches, states and alarms come in, rows, refusals, states and alarms go out.

pub mod build;
mod cache;
mod call;
mod check;
mod columns;
mod component;
mod groups;
mod guest;
mod halves;
mod limits;
mod live;
mod meter;
mod plan;
mod shape;
mod toolchain;
mod wire;

pub use call::Instance;
pub use columns::value_type;
pub use component::{Component, Runtime};
pub use limits::{FailureRate, printable};

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, SchemaRef};

use crate::time::Micros;

/// The reserved name under which a plugin reads a row's event time.
pub const TIME_COLUMN: &str = "_time";

/// What the plugin says of itself before it is configured (WIT `lifecycle.description`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub config_schema: String,
    pub state: StateLayout,
    pub state_version: u32,
    pub alarms: AlarmClock,
    pub order: RowOrder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateLayout {
    None,
    /// 64-bit words a key.
    Fixed(u32),
    Blob,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmClock {
    None,
    EventTime,
    ProcessingTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    Arrival,
    EventTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Transform,
    Keyed,
}

/// What a configured plugin reads and gives (WIT `lifecycle.plan`), checked against the step's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginPlan {
    /// The only columns that cross: indices into the input schema; `None` is the reserved `_time`.
    pub reads: Vec<Option<usize>>,
    pub ports: Vec<PluginPort>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginPort {
    pub name: String,
    pub adds: Vec<FieldRef>,
    /// Rows of the port's own (`adds` alone) rather than input rows with `adds` appended.
    pub new_rows: bool,
}

/// The state of the groups of a call, in group order.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupStates {
    None,
    /// `words` a group; a group that is not present has zeros.
    Fixed {
        words: Vec<u64>,
        present: Vec<bool>,
    },
    /// `offsets[g]..offsets[g + 1]` of `data`; empty = no state.
    Blob {
        offsets: Vec<i32>,
        data: Vec<u8>,
    },
}

/// One keyed call as the operator plans it. Rows of one group keep their order.
#[derive(Debug, Clone)]
pub struct KeyedInput {
    /// The columns of the plan's `reads`, in that order, `_time` included.
    pub reads: RecordBatch,
    pub group_of_row: Vec<u32>,
    /// Key columns, one row a group.
    pub keys: Vec<ArrayRef>,
    pub groups: u32,
    pub state: GroupStates,
    /// One a group, [`crate::time::NO_ALARM`] = none; empty if the plugin has no alarms.
    pub alarms: Vec<Micros>,
    /// Groups whose alarm is at or before `now`.
    pub due: Vec<u32>,
    pub now: Micros,
}

/// What came of a call, whatever parts it had to be cut into.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By port; row indices are those of the whole call.
    pub ports: Vec<Vec<PortRows>>,
    /// Rows the plugin refused: index, reason. Ascending.
    pub refused: Vec<(u32, String)>,
    /// Rows at which the plugin failed (trap, time, memory, err): index, cause. Ascending.
    pub failed: Vec<(u32, String)>,
    /// Groups whose alarm failed alone: group, cause. The operator clears them.
    pub failed_alarms: Vec<(u32, String)>,
}

/// [`Outcome`] of a keyed call with the state it left.
#[derive(Debug)]
pub struct KeyedOutcome {
    pub outcome: Outcome,
    pub state: GroupStates,
    /// One a group: write it back.
    pub dirty: Vec<bool>,
    pub alarms: Vec<Micros>,
}

/// Rows that left through a port.
#[derive(Debug, Clone)]
pub enum PortRows {
    /// Input rows `rows` (strictly ascending) with `added` columns of that length; refused and failed rows are not among them.
    Kept {
        rows: Vec<u32>,
        added: Vec<ArrayRef>,
    },
    /// New rows. `origin[i]` below the number of rows: an input row; else rows + group of a fired alarm.
    New {
        columns: Vec<ArrayRef>,
        origin: Vec<u32>,
        times: Option<Vec<Micros>>,
    },
}

/// The tables a plugin may look into; one snapshot an epoch.
pub trait Tables: Send + Sync {
    /// Handle of a table, or why there is none.
    fn table(&self, name: &str) -> Result<u32, String>;
    /// One row a key, null in every column for a missing or null key.
    fn get(
        &self,
        handle: u32,
        keys: &ArrayRef,
        columns: &[String],
    ) -> Result<Vec<ArrayRef>, String>;
}

/// No tables at all.
#[derive(Debug, Clone, Copy)]
pub struct NoTables;

impl Tables for NoTables {
    fn table(&self, name: &str) -> Result<u32, String> {
        Err(format!("the pipeline has no table `{name}`"))
    }
    fn get(&self, _: u32, _: &ArrayRef, _: &[String]) -> Result<Vec<ArrayRef>, String> {
        Err("no such table".into())
    }
}

/// What `configure` is given.
#[derive(Clone)]
pub struct Setup {
    /// The step's name, for log lines and errors.
    pub step: String,
    pub config: String,
    pub input: SchemaRef,
    pub tables: Arc<dyn Tables>,
    pub memory_bytes: usize,
    pub call: std::time::Duration,
}

/// A plugin cannot go on with this pipeline's rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Somebody has to look: the rows that fail could not be found in time, or the plugin could not be started again.
    #[error("{0}")]
    Paused(String),
}

/// Upper bounds of a histogram's buckets; what is greater is only in `count`.
pub const HISTOGRAM_BOUNDS: [f64; 13] = [
    1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
];

/// Values that a plugin recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    pub count: u64,
    pub sum: f64,
    /// Values at most as large as the bound of the same index in [`HISTOGRAM_BOUNDS`] and above the one before.
    pub buckets: [u64; HISTOGRAM_BOUNDS.len()],
}

impl Histogram {
    /// NaN is left out: it would make the sum useless.
    pub fn record(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        self.count += 1;
        self.sum += value;
        let bucket = HISTOGRAM_BOUNDS.partition_point(|&bound| bound < value);
        if let Some(n) = self.buckets.get_mut(bucket) {
            *n += 1;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        for (n, m) in self.buckets.iter_mut().zip(other.buckets) {
            *n += m;
        }
    }
}

impl Outcome {
    /// Nothing went out of any of `ports` ports.
    pub fn empty(ports: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| Vec::new()).collect(),
            ..Self::default()
        }
    }
}

impl PortRows {
    pub fn len(&self) -> usize {
        match self {
            Self::Kept { rows, .. } => rows.len(),
            Self::New { origin, .. } => origin.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
