//! Moves where a pipeline's sources go on, and gives up the state that no longer fits: `tidemill reset --to`.
//!
//! First everything is found out and nothing changed ([`propose`]), so that it can be shown; then one checkpoint says it
//! all ([`Proposal::carry_out`]). What steps computed from rows of a source that moves is given up: it has counted rows
//! that come again, or lacks rows that never come. Steps of other sources stay. What sinks wrote stays, too.
//! Invariant: a crash leaves the state as it was or as the whole proposal says.

mod target;

use std::collections::BTreeMap;

use crate::engine::decide;
use crate::engine::edit;
use crate::engine::meta::{EngineMeta, SourceMeta};
use crate::engine::open::read_meta;
use crate::error::RunError;
use crate::pipeline::plan::{self, Brokers, Existing, Input, Plan, SinkConnector, SourceConnector};
use crate::pipeline::{goes_on, source_identity};
use crate::source::Position;
use crate::state::Meta;
use crate::state::store::{Prepared, Store};
use crate::time::NO_TIME;
use target::find;
pub use target::{Offsets, Target};

/// What would be done, with the state held open.
#[derive(Debug)]
pub struct Proposal {
    pub sources: Vec<SourceMove>,
    pub steps: Vec<StepLoss>,
    pub sinks: Vec<SinkFate>,
    /// It had run to the end of time, and takes records again.
    pub was_finished: bool,
    /// `None`: there is no state yet.
    store: Option<Store>,
    number: u64,
    meta: EngineMeta,
}

/// Where a source goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMove {
    pub name: String,
    /// What its positions count, one of it.
    pub unit: &'static str,
    pub partitions: Vec<PartitionMove>,
    /// Why it does not go to just where was asked.
    pub note: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMove {
    pub partition: u32,
    /// `None`: nothing was read yet.
    pub now: Option<i64>,
    pub then: i64,
}

/// A step whose state is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLoss {
    pub name: String,
    pub kept: &'static str,
    /// Sources that it reads and that stay: what it held of their rows is not read again.
    pub not_read_again: Vec<String>,
}

/// What happens with the output of a sink that gets rows of a source that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkFate {
    pub name: String,
    /// It begins anew, as at a first start, because its `existing` says so.
    pub begins_anew: bool,
    /// `existing = "overwrite"` would make it begin anew.
    pub could_begin_anew: bool,
}

impl PartitionMove {
    /// Records (files: bytes) that are read a second time; fewer where a topic has gaps.
    pub fn again(&self) -> u64 {
        let now = self.now.unwrap_or(self.then);
        u64::try_from(now.saturating_sub(self.then)).unwrap_or(0)
    }

    /// Records that are never read.
    pub fn skipped(&self) -> u64 {
        let now = self.now.unwrap_or(self.then);
        u64::try_from(self.then.saturating_sub(now)).unwrap_or(0)
    }
}

impl SourceMove {
    pub fn moves(&self) -> bool {
        self.partitions.iter().any(|p| p.now != Some(p.then))
    }
}

/// Finds out what going to `target` means; asks Kafka where it must, for as long as `stop` says false.
///
/// # Errors
/// `State` while a host runs or if the state cannot be read; `Refused` if the target does not fit the sources, with all
/// its mistakes; `Connector` if a source cannot be asked.
pub fn propose(
    plan: &Plan,
    target: &Target,
    stop: &dyn Fn() -> bool,
) -> Result<Proposal, RunError> {
    refuse_embedded(plan)?;
    let host = &plan.host;
    let store = match Store::exists(&host.state) {
        true => Some(Store::open(&host.state, &plan.name, host.key_groups)?),
        false => None,
    };
    if let Some(store) = store.as_ref().filter(|store| store.undecided().is_some()) {
        // A host ended while its last checkpoint was being decided: Kafka says how that went.
        decide::open(plan, store, false, stop)?;
    }
    let latest = store.as_ref().and_then(Store::latest);
    let (number, mut meta) = match latest {
        Some(restored) => (restored.number + 1, read_meta(restored.meta)?),
        None => (0, EngineMeta::default()),
    };
    let found = find(plan, target, stop)?;
    let mut sources = Vec::new();
    for (source, found) in plan.sources.iter().zip(found) {
        let old = meta.sources.get(&source.name);
        // Positions in something else than what it reads now are none.
        let old = old.filter(|o| goes_on(&o.reads, source));
        sources.push(moved(source, target, &found, old));
        let mut positions = kept(old, target);
        positions.extend(found);
        let entry = meta.sources.entry(source.name.clone()).or_default();
        if sources.last().is_some_and(SourceMove::moves) {
            *entry = SourceMeta {
                positions,
                watermark: NO_TIME,
                reads: source_identity(source),
                ..SourceMeta::default()
            };
        }
    }
    let was_finished = meta.finished;
    let affected = affected(plan, &sources, was_finished);
    let steps = give_up(plan, &mut meta, &sources, &affected);
    let sinks = fates(plan, &mut meta, &affected, &sources);
    if was_finished {
        // The end of time is taken back.
        for source in meta.sources.values_mut() {
            (source.watermark, source.highest) = (NO_TIME, BTreeMap::new());
        }
    }
    (meta.finished, meta.ends) = (false, None);
    Ok(Proposal {
        sources,
        steps,
        sinks,
        was_finished,
        store,
        number,
        meta,
    })
}

impl Proposal {
    /// Whether there is anything to do.
    pub fn changes(&self) -> bool {
        self.was_finished || self.sources.iter().any(SourceMove::moves)
    }

    /// Makes it so, durably.
    pub fn carry_out(self, plan: &Plan) -> Result<(), RunError> {
        let host = &plan.host;
        let store = match self.store {
            Some(store) => store,
            None => Store::open(&host.state, &plan.name, host.key_groups)?,
        };
        let engine = serde_json::to_value(&self.meta).expect("plain data");
        store.commit(Prepared {
            number: self.number,
            meta: Meta { engine },
            deltas: Vec::new(),
            finished: false,
        })?;
        Ok(())
    }
}

fn refuse_embedded(plan: &Plan) -> Result<(), RunError> {
    let embedded = |s: &&plan::Source| match &s.connector {
        SourceConnector::Kafka { cluster, .. } => cluster.brokers == Brokers::Embedded,
        _ => false,
    };
    match plan.sources.iter().find(embedded) {
        None => Ok(()),
        Some(source) => Err(RunError::Refused(format!(
            "source {} is on the embedded broker, which forgets all records at exit and begins anew at each start: there \
             is nowhere to go back to",
            source.name
        ))),
    }
}

/// Positions that offsets which do not name them leave alone.
fn kept(old: Option<&SourceMeta>, target: &Target) -> BTreeMap<u32, Position> {
    match (old, target) {
        (Some(old), Target::Offsets(_)) => old.positions.clone(),
        _ => BTreeMap::new(),
    }
}

fn moved(
    source: &plan::Source,
    target: &Target,
    found: &BTreeMap<u32, Position>,
    old: Option<&SourceMeta>,
) -> SourceMove {
    let now = |id: &u32| old.and_then(|o| o.positions.get(id)).map(|p| p.offset);
    let is_file = matches!(source.connector, SourceConnector::File { .. });
    SourceMove {
        name: source.name.clone(),
        unit: if is_file { "byte" } else { "record" },
        partitions: (found.iter())
            .map(|(id, then)| PartitionMove {
                partition: *id,
                now: now(id),
                then: then.offset,
            })
            .collect(),
        note: (is_file && matches!(target, Target::Time(_)))
            .then_some("records of a file cannot be found by time: it is read from its beginning"),
    }
}

/// By step, whether it reads, directly or not, a source that moves.
fn affected(plan: &Plan, sources: &[SourceMove], all: bool) -> Vec<bool> {
    let mut affected: Vec<bool> = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let is = |input: &Input| match *input {
            Input::Source(i) => sources[i].moves(),
            Input::Port { step, .. } => affected[step],
        };
        let affects = all || step.inputs.iter().any(is);
        affected.push(affects);
    }
    affected
}

/// Marks the steps whose state is given up; those that had some.
fn give_up(
    plan: &Plan,
    meta: &mut EngineMeta,
    sources: &[SourceMove],
    affected: &[bool],
) -> Vec<StepLoss> {
    let everything = sources.iter().all(SourceMove::moves);
    let mut losses: Vec<StepLoss> = Vec::new();
    for (name, old) in &mut meta.steps {
        let step = plan.steps.iter().position(|s| s.name == *name);
        // What a step that is gone read is not known any more.
        if !step.map_or(everything, |i| affected[i]) {
            continue;
        }
        let had = edit::kept(&old.signature).filter(|_| !old.given_up);
        (old.given_up, old.watermark) = (true, NO_TIME);
        let Some(kept) = had else { continue };
        if losses.iter().any(|l| l.name == edit::shown(name)) {
            continue;
        }
        let reads = step.map_or_else(Vec::new, |i| sources_of(plan, i));
        let stays = |i: &usize| !sources[*i].moves();
        losses.push(StepLoss {
            name: edit::shown(name).to_owned(),
            kept,
            not_read_again: (reads.into_iter().filter(stays))
                .map(|i| plan.sources[i].name.clone())
                .collect(),
        });
    }
    losses
}

fn sources_of(plan: &Plan, step: usize) -> Vec<usize> {
    let of = |input: &Input| match *input {
        Input::Source(i) => vec![i],
        Input::Port { step, .. } => sources_of(plan, step),
    };
    let mut all: Vec<usize> = plan.steps[step].inputs.iter().flat_map(of).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What becomes of the sinks that rows come to again; the place of one that begins anew is forgotten.
fn fates(
    plan: &Plan,
    meta: &mut EngineMeta,
    affected: &[bool],
    sources: &[SourceMove],
) -> Vec<SinkFate> {
    let mut fates = Vec::new();
    for sink in &plan.sinks {
        let is = |input: &plan::SinkInput| match input.input {
            Input::Source(i) => sources[i].moves(),
            Input::Port { step, .. } => affected[step],
        };
        if !sink.inputs.iter().any(is) {
            continue;
        }
        let existing = existing(&sink.connector);
        // Rows of steps that stay do not come again.
        let begins_anew = existing == Some(Existing::Overwrite) && sink.inputs.iter().all(is);
        if begins_anew {
            meta.sinks.remove(&sink.name);
        }
        fates.push(SinkFate {
            name: sink.name.clone(),
            begins_anew,
            could_begin_anew: existing.is_some_and(|e| e != Existing::Overwrite),
        });
    }
    fates
}

/// The rule of a sink that may begin anew. A directory's files go on by number: it does not.
fn existing(connector: &SinkConnector) -> Option<Existing> {
    match connector {
        SinkConnector::File { existing, .. } => Some(*existing),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
