//! What a checkpoint says besides keyed state: where everything stood. Written as JSON into the log.
//!
//! Everything is by name, never by index: a pipeline file may be edited between two starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::pipeline::plan::{Operator, Plan, Step};
use crate::source::{Lost, Position};
use crate::time::{Micros, NO_TIME};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineMeta {
    /// Of the host that made the checkpoint.
    #[serde(default)]
    pub incarnation: u64,
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

impl EngineMeta {
    /// Where all sources stand, as 32 hexadecimal digits: xxh3-128 (seed 0) of the bytes below: two checkpoints have
    /// the same exactly if reading goes on at the same places after either.
    ///
    /// The bytes, for each source in the order of the names: the name; the number of its topics and each topic's name; the
    /// number of its partitions and, by ascending number of the partition, that number (u32), `offset` and `record` (i64). A
    /// name is its length (u32) and its UTF-8; counts are u32; all integers are little-endian.
    pub fn positions_digest(&self) -> String {
        let mut bytes = Vec::new();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let name = |bytes: &mut Vec<u8>, name: &str| {
            bytes.extend(count(name.len()));
            bytes.extend(name.as_bytes());
        };
        for (source, meta) in &self.sources {
            name(&mut bytes, source);
            bytes.extend(count(meta.topics.len()));
            meta.topics.iter().for_each(|t| name(&mut bytes, t));
            bytes.extend(count(meta.positions.len()));
            for (partition, position) in &meta.positions {
                bytes.extend(partition.to_le_bytes());
                bytes.extend(position.offset.to_le_bytes());
                bytes.extend(position.record.to_le_bytes());
            }
        }
        format!("{:032x}", xxh3_128(&bytes))
    }
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
    /// The ids of the topics, by name: a topic that is created anew bears its name again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topic_ids: BTreeMap<String, String>,
    /// What was gone before it could be read, by partition, since the state was made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<u32, Lost>,
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

impl PluginMeta {
    /// Names a version as the one in force from `checkpoint` on.
    pub fn record(&mut self, digest: &str, file: &str, checkpoint: u64, at: Micros) {
        /// Versions kept in the history.
        const VERSIONS_MAX: usize = 100;
        self.digest = digest.to_owned();
        self.history.push(VersionMeta {
            digest: digest.to_owned(),
            file: file.to_owned(),
            checkpoint,
            at,
        });
        let over = self.history.len().saturating_sub(VERSIONS_MAX);
        self.history.drain(..over);
    }
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

/// The entries of steps that begin with `checkpoint`, at wall time `now`.
pub fn first_steps(plan: &Plan, checkpoint: u64, now: Micros) -> BTreeMap<String, StepMeta> {
    let entry = |s: &Step| {
        let plugin = match &s.operator {
            Operator::Plugin(p) => {
                let mut plugin = PluginMeta {
                    from_file: p.component.digest().to_owned(),
                    ..PluginMeta::default()
                };
                let file = p.file.display().to_string();
                plugin.record(p.component.digest(), &file, checkpoint, now);
                Some(plugin)
            }
            _ => None,
        };
        (
            s.name.clone(),
            StepMeta {
                watermark: NO_TIME,
                signature: s.signature.clone(),
                plugin,
                given_up: false,
            },
        )
    };
    plan.steps.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(sources: &[(&str, &[&str], &[(u32, i64)])]) -> EngineMeta {
        let source = |&(name, topics, positions): &(&str, &[&str], &[(u32, i64)])| {
            let at = |&(id, offset): &(u32, i64)| {
                (
                    id,
                    Position {
                        offset,
                        record: offset,
                    },
                )
            };
            let meta = SourceMeta {
                positions: positions.iter().map(at).collect(),
                topics: topics.iter().map(|t| (*t).to_owned()).collect(),
                ..SourceMeta::default()
            };
            (name.to_owned(), meta)
        };
        EngineMeta {
            sources: sources.iter().map(source).collect(),
            ..EngineMeta::default()
        }
    }

    /// Decision records hold it: another value would make every one of them foreign.
    #[test]
    fn the_digest_of_positions_is_what_it_always_was() {
        let none = EngineMeta::default().positions_digest();
        assert_eq!(none, "99aa06d3014798d86001c324468d497f", "of no bytes");
        let two = meta(&[
            ("views", &[], &[(0, -1)]),
            ("clicks", &["c"], &[(1, 7), (0, 5)]),
        ]);
        assert_eq!(two.positions_digest(), "5fae3b8b0885345a4aa2390152bdd14a");
    }

    #[test]
    fn the_digest_of_positions_tells_them_apart() {
        let one = meta(&[("clicks", &["c"], &[(0, 5), (1, 7)])]);
        let digest = one.positions_digest();
        let others = [
            meta(&[("clicks", &["c"], &[(0, 5), (1, 8)])]),
            meta(&[("clicks", &["c"], &[(0, 5), (2, 7)])]),
            meta(&[("clicks", &["c"], &[(0, 5)])]),
            meta(&[("clicks", &["d"], &[(0, 5), (1, 7)])]),
            meta(&[("click", &["c"], &[(0, 5), (1, 7)])]),
            meta(&[("clicks", &["c"], &[(0, 5)]), ("x", &[], &[(1, 7)])]),
        ];
        for other in others {
            assert_ne!(other.positions_digest(), digest, "{other:?}");
        }
        let mut watermark = one.clone();
        watermark.sources.get_mut("clicks").unwrap().watermark = 3;
        assert_eq!(watermark.positions_digest(), digest);
    }
}
