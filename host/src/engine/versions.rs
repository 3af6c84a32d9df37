//! Versions of plugins: their bytes by digest in the state directory, and which one a step starts with.
//!
//! Invariant: bytes are durable before a checkpoint names their digest, so recovery always finds the version that made
//! the state.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::assemble::input_schema;
use crate::engine::meta::EngineMeta;
use crate::engine::open::StartSwap;
use crate::engine::swap::differences;
use crate::error::{RunError, StateError};
use crate::pipeline::plan::{Operator, Plan, Plugin};
use crate::plugin::{Component, Instance, Runtime, Setup};
use crate::state::make_directory;
use crate::table::TableSet;
use crate::time::Micros;

/// The plugin versions that a state directory holds.
#[derive(Debug, Clone)]
pub struct Versions {
    dir: PathBuf,
}

/// The version a step runs.
#[derive(Debug, Clone)]
pub struct InForce {
    pub component: Arc<Component>,
}

impl Versions {
    pub fn open(state: &Path) -> Result<Self, StateError> {
        let dir = state.join("plugins");
        make_directory(&dir).map_err(|e| unusable(&dir, &e))?;
        Ok(Self { dir })
    }

    /// Keeps the bytes of a version, durably.
    pub fn keep(&self, component: &Component) -> Result<(), StateError> {
        let path = self.path(component.digest());
        let write = || -> std::io::Result<()> {
            if !path.exists() {
                let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
                file.write_all(component.wasm())?;
                file.as_file().sync_all()?;
                file.persist(&path)?;
            }
            // Of one that is there already, too: a host that was killed may not have come to it.
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| unusable(&path, &e))
    }

    /// Bytes of a version that was kept.
    pub fn read(&self, digest: &str) -> Result<Vec<u8>, StateError> {
        let path = self.path(digest);
        std::fs::read(&path).map_err(|e| unusable(&path, &e))
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }

    /// For each plugin step the version to start with: the one that made the state, unless the pipeline file's plugin
    /// has changed since, which is a swap at start with the same checks. Says so in `meta`, under `checkpoint`.
    pub fn resolve(
        &mut self,
        plan: &Plan,
        runtime: &Arc<Runtime>,
        tables: &Arc<TableSet>,
        meta: &mut EngineMeta,
        checkpoint: u64,
        now: Micros,
    ) -> Result<BTreeMap<usize, InForce>, RunError> {
        let mut all = BTreeMap::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let Operator::Plugin(plugin) = &step.operator else {
                continue;
            };
            self.keep(&plugin.component)?;
            let entry = meta
                .steps
                .entry(step.name.clone())
                .or_default()
                .plugin
                .get_or_insert_default();
            let in_file = plugin.component.digest();
            let component = if entry.digest.is_empty() || entry.digest == in_file {
                plugin.component.clone()
            } else {
                let old = runtime.load(
                    &format!("version {} of step {}", entry.digest, step.name),
                    &self.read(&entry.digest)?,
                )?;
                if entry.from_file == in_file {
                    old
                } else {
                    check(plan, index, tables, &old, &plugin.component)
                        .map_err(|why| does_not_fit(&step.name, &why))?;
                    let file = plugin.file.display().to_string();
                    tracing::info!(step = %step.name, from = %entry.digest, to = %in_file, "the plugin file has changed: swapped at start");
                    entry.record(in_file, &file, checkpoint, now);
                    plugin.component.clone()
                }
            };
            entry.from_file = in_file.to_owned();
            all.insert(index, InForce { component });
        }
        Ok(all)
    }

    /// Begins with another version than the one in force, after the same checks as while it runs. `at` is the checkpoint
    /// that will name it, and the wall time.
    pub fn swap_at_start(
        &self,
        plan: &Plan,
        swap: &StartSwap,
        tables: &Arc<TableSet>,
        meta: &mut EngineMeta,
        in_force: &mut BTreeMap<usize, InForce>,
        at: (u64, Micros),
    ) -> Result<(), RunError> {
        let refused = |why: &str| RunError::Refused(format!("step {}: {why}", swap.step));
        let index = plan.steps.iter().position(|s| s.name == swap.step);
        let step = index.and_then(|i| Some((i, in_force.get_mut(&i)?)));
        let (index, version) = step.ok_or_else(|| refused("it runs no plugin"))?;
        let old = &version.component;
        if old.digest() == swap.component.digest() {
            return Ok(());
        }
        check(plan, index, tables, old, &swap.component).map_err(|why| refused(&why))?;
        self.keep(&swap.component)?;
        let digest = swap.component.digest();
        tracing::info!(step = %swap.step, from = %old.digest(), to = %digest, "swapped at start");
        let entry = meta.steps.entry(swap.step.clone()).or_default();
        let plugin = entry.plugin.get_or_insert_default();
        plugin.record(digest, &swap.file, at.0, at.1);
        version.component = swap.component.clone();
        Ok(())
    }
}

impl InForce {
    /// A configured instance for one worker.
    pub fn instantiate(
        &self,
        plan: &Plan,
        step: usize,
        tables: &Arc<TableSet>,
    ) -> Result<Instance, RunError> {
        Ok(self.component.instantiate(setup(plan, step, tables))?)
    }
}

/// What a step's plugin is configured with, whatever its version.
pub fn setup(plan: &Plan, step: usize, tables: &Arc<TableSet>) -> Setup {
    let planned = &plan.steps[step];
    let plugin = plugin_of(plan, step).expect("a plugin step");
    Setup {
        step: planned.name.clone(),
        config: plugin.config.clone(),
        input: input_schema(plan, planned),
        tables: tables.clone(),
        memory_bytes: plugin.limits.memory,
        call: plugin.limits.call,
    }
}

pub fn plugin_of(plan: &Plan, step: usize) -> Option<&Plugin> {
    match &plan.steps[step].operator {
        Operator::Plugin(plugin) => Some(plugin),
        _ => None,
    }
}

/// Whether `new` can take over from `old` in a step; the reasons if not.
pub fn check(
    plan: &Plan,
    step: usize,
    tables: &Arc<TableSet>,
    old: &Arc<Component>,
    new: &Arc<Component>,
) -> Result<(), String> {
    if old.kind() != new.kind() {
        return Err(format!(
            "the version in force is a {:?} plugin, the new one a {:?} plugin",
            old.kind(),
            new.kind()
        ));
    }
    let plan_of = |component: &Arc<Component>| {
        component
            .instantiate(setup(plan, step, tables))
            .map(|i| i.plan().clone())
            .map_err(|e| e.to_string())
    };
    let (was, is) = (plan_of(old)?, plan_of(new)?);
    let all = differences((old.description(), &was), (new.description(), &is));
    if all.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the new version does not fit the running step; nothing was changed\n  - {}",
        all.join("\n  - ")
    ))
}

fn does_not_fit(step: &str, why: &str) -> RunError {
    RunError::Refused(format!(
        "step {step}: its file has changed. {why}\nbring the old file back, or give up the state of the step with --drop-state {step}"
    ))
}

fn unusable(path: &Path, cause: &std::io::Error) -> StateError {
    StateError::Unusable {
        dir: path.to_owned(),
        cause: cause.to_string(),
    }
}
