//! The rules for a pipeline file that was edited since its state was made: a step with the signature of before keeps its
//! state, a new one starts empty, and state is lost only where `--drop-state` names its step.
//!
//! Steps go by name; their order in the file and what they are read by do not matter. The ranking of a window (`top`) is
//! a step of its own, `NAME.top`, that goes with its window. Does no I/O. Invariant: what is refused leaves everything as
//! it was, and a step that stays in `meta` has the signature that the plan gives it.

mod words;

use std::collections::BTreeMap;

use crate::engine::meta::{EngineMeta, StepMeta, first_steps};
use crate::error::RunError;
use crate::pipeline::plan::{self, Plan};
use crate::pipeline::{goes_on, source_identity};
use crate::time::Micros;

pub use words::kept;

/// Brings the steps of `meta` in line with `plan`, whose next checkpoint is `next`. `give_up` names steps whose state may
/// be lost. Returns the steps whose stored state is to be dropped.
///
/// # Errors
/// `Refused` names every step whose state would be lost, what changed, and what to do.
pub fn steps(
    plan: &Plan,
    meta: &mut EngineMeta,
    give_up: &[String],
    (next, now): (u64, Micros),
) -> Result<Vec<String>, RunError> {
    refuse_losses(plan, meta, give_up)?;
    let all = first_steps(plan, next, now);
    tell_needless(&all, meta, give_up);
    let mut drop = Vec::new();
    let mut old = std::mem::take(&mut meta.steps);
    for (name, first) in all {
        let known = old.remove(&name);
        let step = match known.filter(|old| old.signature == first.signature) {
            Some(old) if !begins_anew(&name, &old, &first, give_up) => old,
            empty => {
                drop.push(name.clone());
                // The version in force is no state: it outlives what it made, unless the file has another since.
                let stays = empty.filter(|old| !has_another_file(old, &first));
                let plugin = stays.and_then(|old| old.plugin).or(first.plugin);
                StepMeta { plugin, ..first }
            }
        };
        meta.steps.insert(name, step);
    }
    drop.extend(old.into_keys());
    tell_idle(plan, meta);
    Ok(drop)
}

/// Refuses positions in something else than the source reads now.
pub fn sources(plan: &Plan, meta: &EngineMeta) -> Result<(), RunError> {
    for source in &plan.sources {
        let (reads, name) = (source_identity(source), &source.name);
        let old = meta.sources.get(name).map_or("", |s| &s.reads);
        if !goes_on(old, source) {
            return Err(RunError::Refused(format!(
                "source {name} read {old}, now it reads {reads}: where it stood in the one says nothing of the other. Undo \
                 the change, or give the source another name, under which it begins where `start` says"
            )));
        }
    }
    Ok(())
}

/// Whether `plan` has other steps or sinks than `meta` knows, so that what was read would give something else now.
pub fn differs(plan: &Plan, meta: &EngineMeta) -> Option<String> {
    let known = |step: &plan::Step| {
        let old = meta.steps.get(&step.name);
        old.is_some_and(|old| old.signature == step.signature)
    };
    let step = plan.steps.iter().find(|step| !known(step));
    let sink = (plan.sinks.iter()).find(|sink| !meta.sinks.contains_key(&sink.name));
    match (step, sink) {
        (Some(step), _) => Some(format!("step {}", shown(&step.name))),
        (None, Some(sink)) => Some(format!("sink {}", sink.name)),
        (None, None) => None,
    }
}

/// The step as it is called in the file: a ranking is part of its window.
pub fn shown(name: &str) -> &str {
    name.split_once('.').map_or(name, |(window, _)| window)
}

/// `--drop-state NAME` gives up a window with its ranking, `NAME.top` the ranking alone.
fn is_given_up(name: &str, give_up: &[String]) -> bool {
    give_up.iter().any(|g| g == name || g == shown(name))
}

/// Whether a step that has not changed starts empty all the same.
fn begins_anew(name: &str, old: &StepMeta, first: &StepMeta, give_up: &[String]) -> bool {
    old.given_up || has_another_file(old, first) && is_given_up(name, give_up)
}

/// The plugin's file is not the one that was looked at last.
fn has_another_file(old: &StepMeta, first: &StepMeta) -> bool {
    match (&old.plugin, &first.plugin) {
        (Some(old), Some(first)) => old.from_file != first.from_file,
        _ => false,
    }
}

fn refuse_losses(plan: &Plan, meta: &EngineMeta, give_up: &[String]) -> Result<(), RunError> {
    let mut losses: Vec<Loss> = Vec::new();
    for (name, old) in &meta.steps {
        let Some(kept) = kept(&old.signature).filter(|_| !old.given_up) else {
            continue;
        };
        let planned = plan.steps.iter().find(|step| step.name == *name);
        let stays = planned.is_some_and(|step| step.signature == old.signature);
        // The window itself has told already what happens to its ranking.
        let told = losses.iter().any(|l| l.name == shown(name));
        if stays || told || is_given_up(name, give_up) {
            continue;
        }
        losses.push(Loss {
            name,
            kept,
            what: match planned {
                Some(step) => words::differences(&old.signature, &step.signature).join("; "),
                None => gone(plan, name),
            },
            renamed: renamed(plan, meta, name, old),
        });
    }
    if losses.is_empty() {
        return Ok(());
    }
    let mut text = format!(
        "the pipeline file has changed since the state in {} was made, and state would be lost; nothing was started",
        plan.host.state.display()
    );
    losses.iter().for_each(|loss| text += &loss.to_string());
    Err(RunError::Refused(text))
}

/// A step whose state would be lost.
struct Loss<'a> {
    name: &'a str,
    kept: &'static str,
    what: String,
    /// A new step that looks just like it.
    renamed: Option<&'a str>,
}

impl std::fmt::Display for Loss<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, kept, .. } = self;
        write!(f, "\n  - step {}: {}", shown(name), self.what)?;
        match self.renamed {
            Some(new) => write!(
                f,
                "\n    step {new} is new and just like it: if that is its new name, keep the old one, state goes by it. \
                 Otherwise give up {kept} with --drop-state {name}"
            ),
            None => write!(
                f,
                "\n    undo the change, or give up {kept} with --drop-state {name}"
            ),
        }
    }
}

fn gone(plan: &Plan, name: &str) -> String {
    let window = shown(name);
    match window != name && plan.steps.iter().any(|s| s.name == window) {
        true => "it has no `top` any more".into(),
        false => "it is no longer in the file".into(),
    }
}

/// The one new step that has the signature of a step that is gone.
fn renamed<'a>(plan: &'a Plan, meta: &EngineMeta, name: &str, old: &StepMeta) -> Option<&'a str> {
    if plan.steps.iter().any(|s| s.name == name) {
        return None;
    }
    let is_new = |s: &&plan::Step| !meta.steps.contains_key(&s.name);
    let mut alike = (plan.steps.iter())
        .filter(is_new)
        .filter(|s| s.signature == old.signature);
    let first = alike.next()?;
    alike.next().is_none().then_some(&first.name)
}

/// A `--drop-state` that stays on a command line must not lose state at every restart: it is told of, and left aside.
fn tell_needless(all: &BTreeMap<String, StepMeta>, meta: &EngineMeta, give_up: &[String]) {
    for name in give_up {
        match (all.get(name), meta.steps.get(name)) {
            (Some(first), Some(old))
                if first.signature == old.signature && !begins_anew(name, old, first, give_up) =>
            {
                tracing::warn!("--drop-state {name}: the step has not changed, so its state stays");
            }
            (None, None) => {
                tracing::warn!("--drop-state {name}: neither file nor state has such a step");
            }
            _ => {}
        }
    }
}

/// Sources and sinks that the file has no more keep their place, so that nothing is lost or doubled if they come back.
fn tell_idle(plan: &Plan, meta: &EngineMeta) {
    for name in meta.sources.keys() {
        if plan.sources.iter().all(|s| s.name != *name) {
            tracing::info!(
                source = %name,
                "no longer in the pipeline file: its position is kept, and reading goes on there if it comes back"
            );
        }
    }
    for name in meta.sinks.keys() {
        if plan.sinks.iter().all(|s| s.name != *name) {
            tracing::info!(
                sink = %name,
                "no longer in the pipeline file: what it wrote stays, and it goes on behind that if it comes back"
            );
        }
    }
}

#[cfg(test)]
mod tests;
