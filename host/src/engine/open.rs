//! Opens a pipeline: state, sources, sinks, tables and plugins, resolved against the last decided checkpoint.
//!
//! Invariant: checkpoint 0, or one that says what this start changed (ends, versions), is durable before the first record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::crash;
use crate::engine::assemble;
use crate::engine::checkpoint::Checkpointer;
use crate::engine::clock::Clock;
use crate::engine::coordinator::Coordinator;
use crate::engine::decide;
use crate::engine::edit;
use crate::engine::meta::{EngineMeta, SourceMeta};
use crate::engine::metrics_file::MetricsFile;
use crate::engine::shared::{Job, Parts, Shared};
use crate::engine::versions::Versions;
use crate::engine::watermark::Mode;
use crate::engine::worker::Worker;
use crate::error::{ConnectorError, RunError};
use crate::kafka::{
    EmbeddedBroker, KafkaDeadLetters, KafkaSink, KafkaSource, KafkaTable, TransactionalProducer,
};
use crate::pipeline;
use crate::pipeline::plan::{self, Plan, SinkConnector, SourceConnector};
use crate::plugin::{Component, Runtime};
use crate::sink::console::ConsoleSink;
use crate::sink::dead_letters::{DeadLetters, FileDeadLetters};
use crate::sink::file::FileSink;
use crate::sink::parquet::ParquetSink;
use crate::sink::postgres::PostgresSink;
use crate::sink::rolling::RollingSink;
use crate::sink::webhook::WebhookSink;
use crate::sink::{Place, Sink};
use crate::source::file::FileSource;
use crate::source::generate::GenerateSource;
use crate::source::parquet::ParquetSource;
use crate::source::{Partition, Source};
use crate::state::Meta;
use crate::state::store::{Prepared, Store};
use crate::table::{Connect, TableSet};
use crate::time::NO_TIME;

/// How a run is to go.
#[derive(Clone)]
pub struct Options {
    pub mode: Mode,
    /// Steps whose state may be dropped because the file no longer has them.
    pub drop_steps: Vec<String>,
    pub clock: Arc<dyn Clock>,
    /// True once the run was asked to stop, for connectors that wait.
    pub stop: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Kept alive for as long as the pipeline.
    pub broker: Option<Arc<EmbeddedBroker>>,
    /// The pipeline is begun again by a process that has run it before.
    pub again: bool,
    /// A version to begin with in place of the one in force.
    pub swap: Option<StartSwap>,
}

/// A version that a step begins with, whatever the pipeline file names.
#[derive(Clone)]
pub struct StartSwap {
    pub step: String,
    /// What the caller named it, for the history.
    pub file: String,
    pub component: Arc<Component>,
}

/// A pipeline that stands ready.
pub struct Engine {
    pub shared: Arc<Shared>,
    pub workers: Vec<Worker>,
    pub checkpointer: Checkpointer,
    pub queue: Receiver<Job>,
    pub consoles: Vec<Arc<ConsoleSink>>,
    pub runtime: Arc<Runtime>,
    pub versions: Versions,
}

/// Opens `plan`; `None` if a bounded run already reached its end and there is nothing new.
pub fn open(
    plan: Plan,
    runtime: &Arc<Runtime>,
    options: &Options,
) -> Result<Option<Engine>, RunError> {
    let store = Store::open(&plan.host.state, &plan.name, plan.host.key_groups)?;
    let transaction = decide::open(&plan, &store, options.again, &*options.stop)?;
    let latest = store.latest();
    let fresh = latest.is_none();
    let (number, old) = match latest {
        Some(restored) => (restored.number, read_meta(restored.meta)?),
        None => (0, EngineMeta::default()),
    };
    edit::sources(&plan, &old)?;
    let sources = open_sources(&plan, &options.clock)?;
    if old.finished {
        if let Some(edited) = edit::differs(&plan, &old) {
            return Err(finished_before_edit(&plan, &edited));
        }
        return if nothing_new(&plan, &sources, &old, options)? {
            // A crash may lie between the last decision and what it makes visible.
            let mut followers = plan;
            followers.sinks.retain(|s| s.connector.follows());
            open_sinks(&followers, &old, &store, options, None)?;
            Ok(None)
        } else {
            Err(already_finished(&plan))
        };
    }
    let (now, next) = (options.clock.now(), if fresh { 0 } else { number + 1 });
    let mut meta = old.clone();
    meta.incarnation = store.incarnation();
    let empty = edit::steps(&plan, &mut meta, &options.drop_steps, (next, now))?;
    let partitions = resolve_partitions(&plan, &sources, &mut meta, options)?;
    let (sinks, consoles) = open_sinks(&plan, &meta, &store, options, transaction.as_ref())?;
    let letters = open_dead_letters(&plan, &meta, transaction.as_ref())?;
    let tables = TableSet::open(&plan.tables, &connect(&plan), &*options.stop)?;
    let mut versions = Versions::open(&plan.host.state)?;
    let mut in_force = versions.resolve(&plan, runtime, &tables, &mut meta, next, now)?;
    if let Some(swap) = &options.swap {
        versions.swap_at_start(&plan, swap, &tables, &mut meta, &mut in_force, (next, now))?;
    }

    // Not before all else is known to fit: what is refused leaves the state as it was. And before the checkpoint that
    // says so: it must not give a step the state of another.
    for step in &empty {
        store.drop_step(step)?;
    }
    // A new host makes itself known to those that it has shut out: by a decision of its own.
    let deciding = transaction.as_ref().filter(|_| !fresh);
    let number = if fresh || deciding.is_some() || says_more(&plan, &old, &meta) {
        let stop = || (options.stop)();
        let transaction = deciding.map(|producer| (&**producer, &stop as &dyn Fn() -> bool));
        commit_start(
            &store,
            next,
            &plan,
            &sinks,
            &*letters,
            &mut meta,
            transaction,
        )?;
        next
    } else {
        number
    };
    if let Some(transaction) = &transaction {
        transaction.release()?;
    }
    let step_ids = plan
        .steps
        .iter()
        .map(|s| store.step_id(&s.name))
        .collect::<Result<Vec<_>, _>>()?;
    let source_ids = plan
        .sources
        .iter()
        .map(|s| store.input_id(&s.name))
        .collect::<Result<Vec<_>, _>>()?;

    let elapsed = options.clock.elapsed();
    let mut coordinator = Coordinator::new(&plan, options.mode, number, meta.clone(), elapsed);
    for (source, partitions) in partitions.iter().enumerate() {
        partitions
            .iter()
            .for_each(|p| coordinator.add_partition(source, p.id, p.start, elapsed));
    }
    let parts = Parts {
        plan,
        clock: options.clock.clone(),
        sources,
        sinks,
        dead_letters: letters,
        transaction,
        tables,
        step_ids,
        source_ids,
        behind: store.behind(),
        coordinator,
        decided: number,
        broker: options.broker.clone(),
    };
    let store = Arc::new(store);
    let (shared, queue) = Shared::new(parts);
    let shared = Arc::new(shared);
    let workers = (0..shared.plan.host.workers)
        .map(|w| assemble::worker(w, &shared, &partitions, &in_force, &store, &meta))
        .collect::<Result<Vec<_>, _>>()?;
    let metrics_file = MetricsFile::new(&shared.plan, elapsed);
    let checkpointer = Checkpointer::new(store, metrics_file);
    Ok(Some(Engine {
        shared,
        workers,
        checkpointer,
        queue,
        consoles,
        runtime: runtime.clone(),
        versions,
    }))
}

pub fn read_meta(meta: Meta) -> Result<EngineMeta, RunError> {
    serde_json::from_value(meta.engine).map_err(|e| {
        RunError::Refused(format!(
            "the last checkpoint cannot be read: {e}; it may be of another version"
        ))
    })
}

/// The sources of `plan`, nothing connected yet.
pub fn open_sources(plan: &Plan, clock: &Arc<dyn Clock>) -> Result<Vec<Box<dyn Source>>, RunError> {
    let open = |s: &plan::Source| -> Result<Box<dyn Source>, RunError> {
        Ok(match &s.connector {
            SourceConnector::Kafka { .. } => Box::new(KafkaSource::of_plan(s, &plan.name)),
            SourceConnector::File { .. } if s.format == plan::Format::Parquet => {
                Box::new(ParquetSource::new(s))
            }
            SourceConnector::File { .. } => Box::new(FileSource::new(s)),
            SourceConnector::Generate(generate) => {
                let clock = clock.clone();
                Box::new(GenerateSource::with_clock(
                    generate,
                    Arc::new(move || clock.elapsed()),
                ))
            }
        })
    };
    plan.sources.iter().map(open).collect()
}

/// How the topics of tables are opened.
fn connect(plan: &Plan) -> Arc<Connect> {
    let pipeline = plan.name.clone();
    Arc::new(move |table, stop| match &table.connector {
        plan::TableConnector::Kafka { cluster, topic } => {
            let opened = KafkaTable::open(&table.name, &pipeline, cluster, topic, stop)?;
            Ok(Box::new(opened))
        }
        plan::TableConnector::File { path } => {
            let place = path.display().to_string();
            Err(ConnectorError::failed(place, "a file is no topic"))
        }
    })
}

/// A finished pipeline has nothing to do if every source ends where it was read to.
fn nothing_new(
    plan: &Plan,
    sources: &[Box<dyn Source>],
    old: &EngineMeta,
    options: &Options,
) -> Result<bool, RunError> {
    if options.mode != Mode::UntilEnd {
        return Ok(false);
    }
    for (source, plan) in sources.iter().zip(&plan.sources) {
        let Some(was) = old.sources.get(&plan.name) else {
            return Ok(false);
        };
        source.recall(&was.topics, &was.topic_ids);
        let found = source.partitions(&was.positions, &BTreeMap::new(), true, &*options.stop)?;
        if found
            .iter()
            .any(|p| p.end.is_none_or(|end| p.start.offset < end))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn finished_before_edit(plan: &Plan, edited: &str) -> RunError {
    RunError::Refused(format!(
        "pipeline {} has run to the end of time, and {edited} of its file is not what ran then: nothing would be done for it. \
         To run it again from the start: tidemill reset PIPELINE --to earliest (its state is {})",
        plan.name,
        plan.host.state.display()
    ))
}

fn already_finished(plan: &Plan) -> RunError {
    RunError::Refused(format!(
        "pipeline {} has run to the end of time: all its windows and alarms have fired, so it cannot take new records. \
         To run it again from the start, reset it: tidemill reset PIPELINE, with --to earliest for sinks to go on behind what \
         they wrote (its state is {})",
        plan.name,
        plan.host.state.display()
    ))
}

/// Where every partition starts and, in a bounded run, ends; written into `meta`.
fn resolve_partitions(
    plan: &Plan,
    sources: &[Box<dyn Source>],
    meta: &mut EngineMeta,
    options: &Options,
) -> Result<Vec<Vec<Partition>>, RunError> {
    let bounded = options.mode != Mode::Streaming;
    let old_ends = if bounded { meta.ends.take() } else { None }.unwrap_or_default();
    let mut ends = BTreeMap::new();
    let mut all = Vec::new();
    for (source, plan) in sources.iter().zip(&plan.sources) {
        let entry = meta
            .sources
            .entry(plan.name.clone())
            .or_insert_with(|| SourceMeta {
                watermark: NO_TIME,
                ..SourceMeta::default()
            });
        let known = old_ends.get(&plan.name).cloned().unwrap_or_default();
        source.recall(&entry.topics, &entry.topic_ids);
        entry.reads = pipeline::source_identity(plan);
        let partitions = source.partitions(&entry.positions, &known, bounded, &*options.stop)?;
        (entry.topics, entry.topic_ids) = (source.topics(), source.topic_ids());
        for (partition, lost) in source.losses() {
            entry.lost.entry(partition).or_default().add(lost);
        }
        entry.positions = partitions.iter().map(|p| (p.id, p.start)).collect();
        ends.insert(
            plan.name.clone(),
            partitions
                .iter()
                .filter_map(|p| Some((p.id, p.end?)))
                .collect(),
        );
        all.push(partitions);
    }
    meta.ends = bounded.then_some(ends);
    Ok(all)
}

type Consoles = Vec<Arc<ConsoleSink>>;

fn open_sinks(
    plan: &Plan,
    meta: &EngineMeta,
    store: &Store,
    options: &Options,
    transaction: Option<&Arc<TransactionalProducer>>,
) -> Result<(Vec<Box<dyn Sink>>, Consoles), RunError> {
    let mut consoles = Vec::new();
    let mut open = |s: &plan::Sink| -> Result<Box<dyn Sink>, RunError> {
        let resume = meta.sinks.get(&s.name);
        let place = || sink_place(plan, &s.name, store, &options.clock);
        Ok(match &s.connector {
            SinkConnector::Kafka { .. } => Box::new(KafkaSink::open(s, transaction)?),
            SinkConnector::File { .. } => Box::new(FileSink::open(s, resume)?),
            SinkConnector::Files { .. } => Box::new(RollingSink::open(s, place(), resume)?),
            SinkConnector::Parquet { .. } => Box::new(ParquetSink::open(s, place(), resume)?),
            SinkConnector::Webhook(_) => {
                Box::new(WebhookSink::open(&plan.name, &plan.host.state, s)?)
            }
            SinkConnector::Postgres(_) => {
                let stop = &*options.stop;
                let ids = [store.state_id()]
                    .into_iter()
                    .chain(store.supersedes().to_vec());
                let ids: Vec<String> = ids.map(|id| hex(&id)).collect();
                Box::new(PostgresSink::open(
                    &plan.name,
                    &ids,
                    &place(),
                    s,
                    resume,
                    stop,
                )?)
            }
            SinkConnector::Console { .. } => {
                let console = Arc::new(ConsoleSink::new(s));
                consoles.push(console.clone());
                Box::new(console)
            }
        })
    };
    let sinks = plan
        .sinks
        .iter()
        .map(&mut open)
        .collect::<Result<Vec<_>, _>>()?;
    Ok((sinks, consoles))
}

/// Where a sink keeps what is not visible yet, and what it calls its files.
fn sink_place(plan: &Plan, sink: &str, store: &Store, clock: &Arc<dyn Clock>) -> Place {
    let clock = clock.clone();
    let id = hex(&store.state_id()[..4]);
    Place {
        dir: plan.host.state.join("sinks").join(sink),
        label: format!("{}-{sink}-{id}", plan.name),
        now: Arc::new(move || clock.now()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn open_dead_letters(
    plan: &Plan,
    meta: &EngineMeta,
    transaction: Option<&Arc<TransactionalProducer>>,
) -> Result<Box<dyn DeadLetters>, RunError> {
    let resume = (!meta.dead_letters.is_null()).then_some(&meta.dead_letters);
    Ok(match &plan.dead_letters {
        plan::DeadLetters::File { path } => Box::new(FileDeadLetters::open(path, resume)?),
        plan::DeadLetters::Kafka { cluster, topic } => {
            Box::new(KafkaDeadLetters::open(cluster, topic, transaction)?)
        }
    })
}

/// Whether this start decided what must be durable before its first record: where a source begins, ends, steps and
/// versions, a sink's first cut.
fn says_more(plan: &Plan, old: &EngineMeta, meta: &EngineMeta) -> bool {
    let new_sink = |s: &plan::Sink| !old.sinks.contains_key(&s.name);
    let sources = old.sources != meta.sources || old.ends != meta.ends;
    sources || old.steps != meta.steps || plan.sinks.iter().any(new_sink)
}

/// Checkpoint 0 of a new state, or one that names what this start decided before its first record.
fn commit_start(
    store: &Store,
    number: u64,
    plan: &Plan,
    sinks: &[Box<dyn Sink>],
    letters: &dyn DeadLetters,
    meta: &mut EngineMeta,
    transaction: Option<(&TransactionalProducer, &dyn Fn() -> bool)>,
) -> Result<(), RunError> {
    for (sink, plan) in sinks.iter().zip(&plan.sinks) {
        let cut = sink.cut(false)?;
        sink.sync(&cut)?;
        meta.sinks.insert(plan.name.clone(), cut);
    }
    meta.dead_letters = letters.cut()?;
    let engine = serde_json::to_value(&*meta).expect("plain data");
    let prepared = Prepared {
        number,
        meta: Meta { engine },
        deltas: Vec::new(),
        finished: false,
    };
    crash::point("start-prepared");
    match transaction {
        Some((producer, stop)) => decide::commit(producer, store, prepared, meta, stop)?,
        None => store.commit(prepared)?,
    }
    crash::point("start-decided");
    for (sink, plan) in sinks.iter().zip(&plan.sinks) {
        sink.decided(&meta.sinks[&plan.name])?;
    }
    Ok(())
}
