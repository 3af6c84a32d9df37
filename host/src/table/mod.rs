//! Reference tables: immutable snapshots of keyed rows, probed by lookup steps and by plugins, and replaced as a whole
//! when their file changes or their topic goes on.
//!
//! Knows no step, no engine and no Kafka: who probes takes a snapshot and keeps it as long as its answers must agree.
//!
//! Invariant: a snapshot never changes; a table always has one, the last that could be read without an error.

mod changes;
mod follow;
mod load;
mod snapshot;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;

use crate::error::ConnectorError;
use crate::pipeline::plan::{self, TableConnector};
use crate::plugin;
use follow::{Broken, Followed, Follower};
pub use snapshot::Snapshot;

/// The tables of a pipeline, shared by all workers; a table's index is its place in the plan.
#[derive(Debug)]
pub struct TableSet {
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    plan: plan::Table,
    state: Arc<Mutex<State>>,
    /// Of a topic: the thread that follows it.
    _follower: Option<Follower>,
    broken: Broken,
}

/// The records of a topic, from its beginning on for ever.
pub trait Changelog: Send {
    /// Hands over what there is, waiting up to `wait` for a first record.
    fn poll(
        &mut self,
        wait: Duration,
        each: &mut dyn FnMut(Change<'_>),
    ) -> Result<(), ConnectorError>;

    /// All that was there when it was opened has been handed over.
    fn is_complete(&self) -> bool;
}

/// A record of a topic.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    pub key: Option<&'a [u8]>,
    /// None deletes.
    pub value: Option<&'a [u8]>,
    pub partition: u32,
    pub offset: i64,
}

/// Opens the topic of a table; gives up waiting when the function given says true.
pub type Connect = dyn Fn(&plan::Table, &dyn Fn() -> bool) -> Result<Box<dyn Changelog>, ConnectorError>
    + Send
    + Sync;

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
    /// Reads all files. Errors name table, file, line and column; a topic is one.
    pub fn load(plans: &[plan::Table]) -> Result<Arc<Self>, ConnectorError> {
        let none: Arc<Connect> = Arc::new(|plan, _| {
            let place = format!("table {}", plan.name);
            Err(ConnectorError::failed(place, "there is no Kafka here"))
        });
        Self::open(plans, &none, &|| false)
    }

    /// Reads all files, and all topics up to where they end now; these are followed from then on. `stop` says when to
    /// give up waiting for a broker.
    pub fn open(
        plans: &[plan::Table],
        connect: &Arc<Connect>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Arc<Self>, ConnectorError> {
        let open = |plan: &plan::Table| match &plan.connector {
            TableConnector::File { path } => Table::load(plan, path),
            TableConnector::Kafka { .. } => Table::follow(plan, connect, stop),
        };
        let tables = plans.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { tables }))
    }

    /// For each table its name, its rows, and the records of its topic that were broken.
    pub fn counts(&self) -> Vec<(&str, usize, u64)> {
        let count = |table: &'_ Table| {
            let rows = table.state().snapshot.rows().num_rows();
            (rows, table.broken.load(Ordering::Relaxed))
        };
        let named = self.tables.iter().map(|t| (t.plan.name.as_str(), count(t)));
        named
            .map(|(name, (rows, broken))| (name, rows, broken))
            .collect()
    }

    /// The tables before any file is read: they know their columns and hold no row. Enough to configure a plugin.
    pub fn unread<'a>(
        plans: impl IntoIterator<Item = &'a plan::Table>,
    ) -> Result<Arc<Self>, String> {
        let empty = |plan: &plan::Table| {
            let rows = RecordBatch::new_empty(plan.schema.clone());
            let snapshot = Arc::new(Snapshot::new(&plan.name, rows, plan.key)?);
            let (seen, plan) = (None, plan.clone());
            Ok(Table::new(plan, State { snapshot, seen }))
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
    fn new(plan: plan::Table, state: State) -> Self {
        Self {
            plan,
            state: Arc::new(Mutex::new(state)),
            _follower: None,
            broken: Broken::default(),
        }
    }

    fn follow(
        plan: &plan::Table,
        connect: &Arc<Connect>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, ConnectorError> {
        let broken = Broken::default();
        let (followed, snapshot) = Followed::open(plan, &**connect, &broken, stop)?;
        let mut table = Self::new(
            plan.clone(),
            State {
                snapshot,
                seen: None,
            },
        );
        table.broken = broken;
        let (broken, state) = (table.broken.clone(), table.state.clone());
        let follower = Follower::start(plan.clone(), followed, connect.clone(), broken, state)?;
        table._follower = Some(follower);
        Ok(table)
    }

    fn load(plan: &plan::Table, path: &Path) -> Result<Self, ConnectorError> {
        // Looked at before it is read: a change while it is read is seen as one afterwards.
        let seen = stamp(path);
        let snapshot = Arc::new(load::load(plan, path)?);
        Ok(Self::new(plan.clone(), State { snapshot, seen }))
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
