//! Builds the workers of a pipeline that is being opened: who reads which partition, which operator a step is, and the
//! state that each worker takes back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use crate::engine::exchange::{owned, owner};
use crate::engine::intake::Intake;
use crate::engine::meta::EngineMeta;
use crate::engine::shared::Shared;
use crate::engine::take::{Rows, SourceTask};
use crate::engine::versions::InForce;
use crate::engine::worker::{StepTask, Worker};
use crate::error::{ConnectorError, RunError};
use crate::limits;
use crate::pipeline::plan::{self, Operator, Plan, WindowKind};
use crate::source::Partition;
use crate::state::key::{KeyEncoder, key_group};
use crate::state::store::Store;
use crate::state::stored::StoredKeys;
use crate::state::{SegmentId, Segments};
use crate::step::deduplicate::Deduplicate;
use crate::step::join::{Join, JoinSpec};
use crate::step::keyed::{Keyed, KeyedSpec, Ordered};
use crate::step::lookup::Lookup;
use crate::step::project::Project;
use crate::step::session::Sessions;
use crate::step::top::Top;
use crate::step::transform::Transform;
use crate::step::window::{Window, WindowSpec};
use crate::step::{Restore, Step, StepError};
use crate::time::{Micros, NO_TIME};

/// A worker with its sources, its steps and the state of its key groups.
pub fn worker(
    index: usize,
    shared: &Arc<Shared>,
    partitions: &[Vec<Partition>],
    in_force: &BTreeMap<usize, InForce>,
    store: &Arc<Store>,
    meta: &EngineMeta,
) -> Result<Worker, RunError> {
    let workers = shared.plan.host.workers;
    let mut sources = Vec::new();
    for (source, all) in partitions.iter().enumerate() {
        let mine = |(i, _): &(usize, &Partition)| (source + i) % workers == index;
        let mine: Vec<Partition> = all
            .iter()
            .enumerate()
            .filter(mine)
            .map(|(_, p)| p.clone())
            .collect();
        if !mine.is_empty() {
            let share = (mine.len(), all.len());
            sources.push(source_task(source, shared, mine, share)?);
        }
    }
    let mut steps = Vec::new();
    for (i, plan) in shared.plan.steps.iter().enumerate() {
        let mut step = make_step(i, shared, in_force.get(&i))?;
        let watermark = meta.steps.get(&plan.name).map_or(NO_TIME, |s| s.watermark);
        let id = shared.step_ids[i];
        let mut stored = Stored {
            store,
            id,
            worker: index,
            workers,
            key_groups: shared.plan.host.key_groups,
            watermark,
            memory: shared.plan.memory_of_table(),
        };
        step.restore(&mut stored).map_err(|e| {
            RunError::Worker(format!("step {}: restoring its state: {e}", plan.name))
        })?;
        let encoder = match &plan.keys {
            Some(keys) => Some(key_encoder(shared, i, &keys[0])?),
            None => None,
        };
        let union = union_schema(&shared.plan, plan);
        steps.push(StepTask {
            step,
            encoder,
            union,
        });
    }
    Ok(Worker::new(index, sources, steps, shared.clone()))
}

fn source_task(
    source: usize,
    shared: &Arc<Shared>,
    partitions: Vec<Partition>,
    (mine, all): (usize, usize),
) -> Result<SourceTask, RunError> {
    let plan = &shared.plan.sources[source];
    let opened = &shared.sources[source];
    let intake = Intake::new(plan, opened.header().as_deref(), opened.columnar());
    let intake =
        intake.map_err(|cause| ConnectorError::failed(format!("source {}", plan.name), cause))?;
    let per_epoch = plan.limit.per_epoch.unwrap_or(usize::MAX).div_ceil(all) * mine;
    Ok(SourceTask {
        source,
        number: shared.source_ids[source],
        reader: opened.reader(partitions)?,
        intake,
        event_time: plan.event_time.clone(),
        rows: Rows::default(),
        per_epoch: per_epoch.clamp(1, limits::EPOCH_RECORDS_MAX),
    })
}

fn key_encoder(shared: &Shared, step: usize, key: &[usize]) -> Result<KeyEncoder, RunError> {
    let plan = &shared.plan.steps[step];
    let schema = input_schema(&shared.plan, plan);
    let types: Vec<_> = key
        .iter()
        .map(|&i| schema.field(i).data_type().clone())
        .collect();
    KeyEncoder::new(&types).map_err(|e| RunError::Refused(format!("step {}: {e}", plan.name)))
}

/// The schema of a step's input; of several that are read as one a column may be null if it may be in any of them. Of a
/// join, the left one.
pub fn input_schema(plan: &Plan, step: &plan::Step) -> SchemaRef {
    let first = schema_of(plan, step.inputs[0]);
    if step.inputs.len() == 1 || matches!(step.operator, Operator::Join(_)) {
        return first;
    }
    let others: Vec<SchemaRef> = (step.inputs[1..].iter())
        .map(|input| schema_of(plan, *input))
        .collect();
    let field = |(i, field): (usize, &FieldRef)| {
        let nullable = field.is_nullable() || others.iter().any(|o| o.field(i).is_nullable());
        field.as_ref().clone().with_nullable(nullable)
    };
    let fields = first.fields().iter().enumerate().map(field);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The schema that all batches of a step's inputs are given, if they do not have it by themselves.
fn union_schema(plan: &Plan, step: &plan::Step) -> Option<SchemaRef> {
    let several = step.inputs.len() > 1 && !matches!(step.operator, Operator::Join(_));
    several.then(|| input_schema(plan, step))
}

fn schema_of(plan: &Plan, input: plan::Input) -> SchemaRef {
    match input {
        plan::Input::Source(i) => plan.sources[i].schema.clone(),
        plan::Input::Port { step, port } => plan.steps[step].ports[port].schema.clone(),
    }
}

fn make_step(
    index: usize,
    shared: &Arc<Shared>,
    in_force: Option<&InForce>,
) -> Result<Box<dyn Step>, RunError> {
    let plan = &shared.plan.steps[index];
    let failed = |e: StepError| RunError::Refused(format!("step {}: {e}", plan.name));
    Ok(match &plan.operator {
        Operator::Project { filter, projection } => {
            Box::new(Project::new(filter.clone(), projection.clone()))
        }
        Operator::Lookup(lookup) => {
            let input = input_schema(&shared.plan, plan);
            Box::new(Lookup::new(lookup, shared.tables.clone(), &input).map_err(failed)?)
        }
        Operator::Window(window) => {
            let spec = WindowSpec {
                key: plan.keys.as_ref().map_or_else(Vec::new, |k| k[0].clone()),
                key_groups: shared.plan.host.key_groups,
                input: input_schema(&shared.plan, plan),
                output: plan.ports[0].schema.clone(),
                window: (**window).clone(),
            };
            match window.kind {
                WindowKind::Session(_) => Box::new(Sessions::new(spec).map_err(failed)?),
                _ => Box::new(Window::new(spec).map_err(failed)?),
            }
        }
        Operator::Top(top) => {
            let schema = input_schema(&shared.plan, plan);
            let top = Top::new((**top).clone(), schema, shared.plan.host.key_groups);
            Box::new(top.map_err(failed)?)
        }
        Operator::Join(join) => {
            let keys = plan.keys.as_ref().expect("a join is keyed");
            let spec = JoinSpec {
                inputs: [0, 1].map(|i| schema_of(&shared.plan, plan.inputs[i])),
                keys: [keys[0].clone(), keys[1].clone()],
                key_groups: shared.plan.host.key_groups,
                join: (**join).clone(),
                segments_max: limits::JOIN_SEGMENTS_MAX,
                late: plan.ports[1].schema.clone(),
            };
            Box::new(Join::new(spec).map_err(failed)?)
        }
        Operator::Deduplicate(deduplicate) => {
            let schema = input_schema(&shared.plan, plan);
            let keys = plan.keys.as_ref().expect("deduplicate is keyed");
            let groups = shared.plan.host.key_groups;
            let step = Deduplicate::new(&keys[0], deduplicate.within, &schema, groups);
            Box::new(step.map_err(failed)?)
        }
        Operator::Plugin(plugin) => {
            let in_force = in_force.expect("every plugin step has a version in force");
            let instance = in_force.instantiate(&shared.plan, index, &shared.tables)?;
            let schemas = plan
                .ports
                .iter()
                .enumerate()
                .filter(|(i, _)| Some(*i) != plugin.late_port);
            let ports = schemas.map(|(_, p)| p.schema.clone()).collect();
            let Some(keys) = &plan.keys else {
                return Ok(Box::new(Transform::new(
                    instance,
                    ports,
                    plugin.limits.failed,
                )));
            };
            {
                let spec = KeyedSpec {
                    key: keys[0].clone(),
                    key_groups: shared.plan.host.key_groups,
                    input: input_schema(&shared.plan, plan),
                    ports,
                    ordered: (plugin.order == plan::Order::EventTime).then(|| Ordered {
                        late_port: plugin
                            .late_port
                            .expect("event-time order has the port `late`"),
                    }),
                    state_ttl: plugin.state_ttl,
                    failed_max: plugin.limits.failed,
                };
                Box::new(Keyed::new(spec, instance).map_err(failed)?)
            }
        }
    })
}

/// The segments of one step.
struct StepSegments {
    store: Arc<Store>,
    id: u16,
}

impl Segments for StepSegments {
    fn read(&self, ids: &[SegmentId]) -> Result<Option<Vec<Vec<u8>>>, String> {
        self.store
            .segment_bytes(self.id, ids)
            .map_err(|e| e.to_string())
    }
}

/// The state of one step as one worker reads it back.
struct Stored<'a> {
    store: &'a Arc<Store>,
    id: u16,
    worker: usize,
    workers: usize,
    key_groups: u16,
    watermark: Micros,
    memory: usize,
}

impl Restore for Stored<'_> {
    fn key_groups(&self) -> Range<u16> {
        owned(self.worker, self.key_groups, self.workers)
    }

    fn watermark(&self) -> Micros {
        self.watermark
    }

    fn owns(&self, hash: u64) -> bool {
        owner(
            key_group(hash, self.key_groups),
            self.key_groups,
            self.workers,
        ) == self.worker
    }

    fn keys(&self) -> Arc<dyn StoredKeys> {
        self.store.keys(self.id, self.key_groups())
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn entries(
        &mut self,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mine = owned(self.worker, self.key_groups, self.workers);
        self.store
            .load_groups(self.id, mine, &mut |_, key, value| each(key, value))
            .map_err(|e| e.to_string())
    }

    fn segments(&mut self) -> Result<Vec<SegmentId>, String> {
        let mine = self.key_groups();
        let mut ids = self.store.segment_ids(self.id).map_err(|e| e.to_string())?;
        ids.retain(|id| id.first < mine.end && mine.start <= id.last);
        Ok(ids)
    }

    fn reader(&self) -> Arc<dyn Segments> {
        Arc::new(StepSegments {
            store: self.store.clone(),
            id: self.id,
        })
    }
}
