//! What a checkpoint says besides keyed state: where everything stood. Written as JSON into the log.
//!
//! Everything is by name, never by index: a pipeline file may be edited between two starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::source::Position;
use crate::time::Micros;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineMeta {
    pub sources: BTreeMap<String, SourceMeta>,
    pub steps: BTreeMap<String, StepMeta>,
    /// Cut of each sink.
    pub sinks: BTreeMap<String, Value>,
    pub dead_letters: Value,
    /// Of a bounded run: where each partition ends.
    pub ends: Option<BTreeMap<String, BTreeMap<u32, i64>>>,
    /// A bounded run reached the end of time: nothing may follow.
    pub finished: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceMeta {
    pub positions: BTreeMap<u32, Position>,
    /// Highest event time seen by partition.
    pub highest: BTreeMap<u32, Micros>,
    pub watermark: Micros,
    /// What the numbers of partitions are made of: a source's topics, in the order in which they were first seen.
    #[serde(default)]
    pub topics: Vec<String>,
    /// What the positions are positions of.
    #[serde(default)]
    pub reads: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepMeta {
    pub watermark: Micros,
    pub signature: Value,
    pub plugin: Option<PluginMeta>,
    /// Its state was given up: what the store still has of it is not to be believed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
}

/// Which version of a plugin is in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PluginMeta {
    pub digest: String,
    /// Digest of the pipeline file's plugin when it was last looked at: another one is a swap at start.
    pub from_file: String,
    pub history: Vec<VersionMeta>,
}

/// A version of a plugin and since when it is in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionMeta {
    pub digest: String,
    pub file: String,
    /// The checkpoint that named it first.
    pub checkpoint: u64,
    /// Wall time, microseconds.
    pub at: Micros,
}
