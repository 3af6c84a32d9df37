//! Reference tables: immutable snapshots of keyed rows, probed by lookup steps and by plugins, and replaced as a whole
//! when their file changes.
//!
//! Knows no step and no engine: who probes takes a snapshot and keeps it as long as its answers must agree.
//!
//! Invariant: a snapshot never changes; a table always has one, the last that could be read without an error.

mod load;
mod snapshot;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;

use crate::error::ConnectorError;
use crate::pipeline::plan::{self, TableConnector};
use crate::plugin;
pub use snapshot::Snapshot;

/// The tables of a pipeline, shared by all workers; a table's index is its place in the plan.
#[derive(Debug)]
pub struct TableSet {
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    plan: plan::Table,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    snapshot: Arc<Snapshot>,
    /// The file as it was when it was last read, whether or not that went well.
    seen: Option<Stamp>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// What [`TableSet::reload_changed`] found.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Names of the tables that have a new snapshot.
    pub changed: Vec<String>,
    /// Files that changed but cannot be read; their tables keep the snapshot they had. Each is told once a change.
    pub errors: Vec<ConnectorError>,
}

impl TableSet {
    /// Reads all files. Errors name table, file, line and column.
    pub fn load(plans: &[plan::Table]) -> Result<Arc<Self>, ConnectorError> {
        let tables = plans.iter().map(Table::load).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { tables }))
    }

    /// The tables before any file is read: they know their columns and hold no row. Enough to configure a plugin.
    pub fn unread<'a>(
        plans: impl IntoIterator<Item = &'a plan::Table>,
    ) -> Result<Arc<Self>, String> {
        let empty = |plan: &plan::Table| {
            let rows = RecordBatch::new_empty(plan.schema.clone());
            let snapshot = Arc::new(Snapshot::new(&plan.name, rows, plan.key)?);
            let (seen, plan) = (None, plan.clone());
            let state = Mutex::new(State { snapshot, seen });
            Ok(Table { plan, state })
        };
        let tables = plans
            .into_iter()
            .map(empty)
            .collect::<Result<_, String>>()?;
        Ok(Arc::new(Self { tables }))
    }

    /// The rows of table `index` as they are now.
    pub fn snapshot(&self, index: usize) -> Arc<Snapshot> {
        self.tables[index].state().snapshot.clone()
    }

    /// Rereads the files whose time, length or inode changed. Reads files: call it from no worker in the middle of an
    /// epoch.
    pub fn reload_changed(&self) -> Reloaded {
        let mut found = Reloaded::default();
        for table in &self.tables {
            match table.reload() {
                Ok(true) => found.changed.push(table.plan.name.clone()),
                Ok(false) => {}
                Err(error) => found.errors.push(error),
            }
        }
        found
    }
}

impl Table {
    fn load(plan: &plan::Table) -> Result<Self, ConnectorError> {
        let TableConnector::File { path } = &plan.connector else {
            todo!()
        };
        // Looked at before it is read: a change while it is read is seen as one afterwards.
        let seen = stamp(path);
        let state = Mutex::new(State {
            snapshot: Arc::new(load::load(plan, path)?),
            seen,
        });
        let plan = plan.clone();
        Ok(Self { plan, state })
    }

    /// True if there is a new snapshot.
    fn reload(&self) -> Result<bool, ConnectorError> {
        let TableConnector::File { path } = &self.plan.connector else {
            return Ok(false);
        };
        let now = stamp(path);
        {
            let mut state = self.state();
            if state.seen == now {
                return Ok(false);
            }
            state.seen = now;
        }
        let snapshot = Arc::new(load::load(&self.plan, path)?);
        self.state().snapshot = snapshot;
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each field is replaced as a whole: what a panicking thread left is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: file.modified().ok(),
        bytes: file.len(),
        inode: file.ino(),
    })
}

impl plugin::Tables for TableSet {
    fn table(&self, name: &str) -> Result<u32, String> {
        let found = self.tables.iter().position(|t| t.plan.name == name);
        found.map(|i| i as u32).ok_or_else(|| {
            let names: Vec<_> = self.tables.iter().map(|t| t.plan.name.as_str()).collect();
            format!(
                "the pipeline has no table `{name}`; its tables: {}",
                if names.is_empty() {
                    "none".into()
                } else {
                    names.join(", ")
                }
            )
        })
    }

    fn get(
        &self,
        handle: u32,
        keys: &ArrayRef,
        columns: &[String],
    ) -> Result<Vec<ArrayRef>, String> {
        let table = self
            .tables
            .get(handle as usize)
            .ok_or_else(|| format!("there is no table with the handle {handle}"))?;
        let snapshot = table.state().snapshot.clone();
        let places = columns
            .iter()
            .map(|name| snapshot.column(name))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = snapshot.probe(keys)?;
        Ok(places
            .iter()
            .map(|&column| snapshot.gather(column, &rows))
            .collect())
    }
}

impl Snapshot {
    /// Column `column` at `rows` as [`probe`](Self::probe) gave them: null where nothing was found.
    pub fn gather(&self, column: usize, rows: &UInt32Array) -> ArrayRef {
        take(self.rows().column(column), rows, None).expect("probe gives rows of this snapshot")
    }
}

#[cfg(test)]
mod tests;
