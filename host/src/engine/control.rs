//! What the outside may ask of a running pipeline, and what it is told: the seam between the admin API and the engine.
//!
//! Plain data only. Whoever implements [`Control`] decides how; the HTTP server, the metrics and the command line read
//! nothing else of the engine.

use serde::{Deserialize, Serialize};

use crate::source::Lost;
use crate::time::Micros;

/// A running pipeline as its operators see it. Every call may come from any thread; `swap` and `rollback` may block for
/// some checkpoints.
pub trait Control: Send + Sync {
    fn status(&self) -> Status;

    /// Changes the plugin of `step` for `wasm`; returns when the checkpoint that names it is decided. `file` is what the
    /// caller named it, for the history.
    fn swap(&self, step: &str, file: &str, wasm: Vec<u8>) -> Result<Swapped, ControlError>;

    /// Changes back to the version before the one in force.
    fn rollback(&self, step: &str) -> Result<Swapped, ControlError>;

    /// The versions that ran in `step`, oldest first.
    fn history(&self, step: &str) -> Result<Vec<Version>, ControlError>;
}

/// A pipeline at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub pipeline: String,
    pub state: RunState,
    pub uptime_s: f64,
    pub workers: usize,
    pub epoch: u64,
    pub checkpoint: CheckpointStatus,
    pub sources: Vec<SourceStatus>,
    pub steps: Vec<StepStatus>,
    pub sinks: Vec<SinkStatus>,
    #[serde(default)]
    pub tables: Vec<TableStatus>,
    /// Records and rows that went to the dead letters since the start.
    pub dead_letters: u64,
    /// Keyed state held in memory, bytes.
    pub state_bytes: u64,
}

/// JSON: `"running"`, `"finished"`, `{ "paused": reason }` or `{ "restarting": reason }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    Running,
    /// Stands still until a plugin is swapped in.
    Paused(String),
    /// Begins again by itself from the last decided checkpoint.
    Restarting(String),
    Finished,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The last one decided.
    pub number: u64,
    /// How many were decided since the start.
    pub count: u64,
    /// Since it was decided.
    pub age_ms: u64,
    /// From its cut until it was decided.
    pub last_ms: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    /// Since the start.
    pub records_in: u64,
    /// Lately.
    pub per_second: f64,
    /// Records (files: bytes) not read yet, where known.
    pub lag: Option<u64>,
    /// Microseconds since 1970; none before the first record and for sources without event time.
    pub watermark: Option<Micros>,
    /// Records refused since the start.
    pub bad: u64,
    /// What was gone before it could be read, since the state was made.
    #[serde(default)]
    pub lost: Lost,
    /// Why nothing, or not everything, can be read for now.
    #[serde(default)]
    pub waiting: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepStatus {
    pub name: String,
    pub rows_in: u64,
    pub rows_out: u64,
    pub late: u64,
    pub dead_letters: u64,
    /// Keys with state, estimated where not all are in memory; none for a step without.
    pub keys: Option<u64>,
    /// Keys evicted from memory, asked for on disk, and forgotten after `state_ttl`, since the start.
    #[serde(default)]
    pub evicted: u64,
    #[serde(default)]
    pub read_back: u64,
    #[serde(default)]
    pub forgotten: u64,
    pub plugin: Option<PluginStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// SHA-256 of the component in force, hex.
    pub digest: String,
    pub version: String,
    /// Mean time in the plugin, crossing included.
    pub ns_per_row: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkStatus {
    pub name: String,
    pub records_out: u64,
    pub per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableStatus {
    pub name: String,
    /// Now.
    pub rows: u64,
    /// Records of its topic that changed nothing because they cannot be read, since the start.
    pub broken: u64,
}

/// A change of version that is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Swapped {
    pub step: String,
    /// Digests.
    pub from: String,
    pub to: String,
    /// The checkpoint that names the new version.
    pub checkpoint: u64,
    /// How long the workers stood still.
    pub pause_ms: f64,
}

/// A version of a step's plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub digest: String,
    pub file: String,
    /// The first checkpoint that names it.
    pub since_checkpoint: u64,
    /// Wall clock at that checkpoint, microseconds since 1970.
    pub at: Micros,
    pub in_force: bool,
}

/// Why a request was not carried out; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It does not fit what runs; the text says the difference.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Failed(String),
}
