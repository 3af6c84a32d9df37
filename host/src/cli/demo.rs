//! `tidemill demo`: the e-commerce example on an embedded broker, with made-up records, for a person to watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;

use super::session::{Session, Stop};
use super::{Failure, example, generate, pace, screen, status, terminal};
use crate::engine::supervisor::Supervisor;
use crate::engine::watermark::Mode;
use crate::error::ConnectorError;
use crate::kafka::{EmbeddedBroker, GeneratorFeed};
use crate::pipeline::plan::{
    Brokers, Cluster, Generate, GenerateKind, Plan, SourceConnector, Topics,
};
use crate::pipeline::spec::{self, SinkConnector, Spec};
use crate::pipeline::{self, Overrides};
use crate::plugin::Runtime;
use crate::source::generate::ecommerce;

const SHOW_EVERY: Duration = Duration::from_secs(2);

/// Made for watching: two minutes of event time a second, so that sessions close, and few enough users that each buys
/// often enough to have a usual amount.
const RECORDS_PER_SECOND: f64 = 1_000.0;
const SPEED: f64 = 120.0;
const USERS: u64 = 200;
const PRODUCTS: u64 = 100;
const PARQUET_ROLL: &str = "\"5s\"";

/// Watch the e-commerce example work, without anything else
///
/// Builds its plugins, starts a broker inside this process, makes up clicks and purchases, and shows the latest results.
/// Of these only the Parquet files below the example's output/ are kept.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidemill demo --for 20s")]
pub struct Arguments {
    /// Stop after this time, for example 20s or 5m [default: at Ctrl-C]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, String> {
    pipeline::duration(text).map(pipeline::clock)
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let here = std::env::current_dir()
        .map_err(|e| Failure::Failed(format!("the working directory: {e}")))?;
    let file = example::find(&here)?;
    let mut overrides = overrides();
    let written = pipeline::load(&file, &overrides).map_err(Failure::Pipeline)?;
    overrides.set.extend(soon_visible(&written));
    let spec = pipeline::load(&file, &overrides).map_err(Failure::Pipeline)?;
    example::build_plugins(&spec)?;
    let runtime = Runtime::new(Some(status::state_dir(&spec).join("cache")))?;
    terminal::progress("compiling the plugins for this machine, unless that was done before");
    let plan = pipeline::plan(&spec, &runtime).map_err(Failure::Pipeline)?;
    let topics = source_topics(&plan);
    let stop = Stop::listen()?;
    let Some(session) = Session::start(plan, &runtime, Mode::Streaming, Vec::new(), stop.clone())?
    else {
        return Err(Failure::Failed(
            "the embedded broker has nothing to read".into(),
        ));
    };
    terminal::progress(&format!(
        "running {} on an embedded broker; in a second terminal try\n  tidemill status {0}\n",
        file.display()
    ));
    let feed = Feed::start(&session, topics, stop.clone())?;
    let supervisor = session.supervisor().clone();
    let end = arguments.duration.map(|d| Instant::now() + d);
    let ended = watch(session, &stop, end);
    feed.join()?;
    ended?;
    terminal::print(&screen::summary(&crate::admin::Control::status(
        &*supervisor,
    )))
}

/// The example is written for a real broker. Its made-up records run ahead of the clock, which a real stream must not.
fn overrides() -> Overrides {
    let ahead = |source: &str| {
        (
            format!("sources.{source}.event_time.max_ahead"),
            "\"36500d\"".into(),
        )
    };
    Overrides {
        set: vec![ahead("clicks"), ahead("transactions")],
        brokers: Some("embedded".into()),
    }
}

/// Parquet files become visible when they are whole; nobody watches the demo for as long as that is meant to take.
fn soon_visible(spec: &Spec) -> Vec<(String, String)> {
    let is_parquet =
        |sink: &&spec::Sink| matches!(sink.connector, Some(SinkConnector::Parquet { .. }));
    let sinks = spec.sinks.iter().filter(is_parquet);
    sinks
        .map(|sink| {
            (
                format!("sinks.{}.parquet.roll", sink.name.value),
                PARQUET_ROLL.into(),
            )
        })
        .collect()
}

/// Shows a picture every two seconds until the end, of itself or at `end`.
fn watch(mut session: Session, stop: &Stop, end: Option<Instant>) -> Result<(), Failure> {
    let mut shown = Instant::now();
    session.watch(Duration::ZERO, &mut |session| {
        if end.is_some_and(|end| Instant::now() >= end) && !stop.is_asked() {
            stop.ask();
        }
        if shown.elapsed() < SHOW_EVERY {
            return Ok(());
        }
        shown = Instant::now();
        let tables: String = session
            .consoles()
            .iter()
            .map(|console| console.render())
            .collect();
        let picture = screen::render(&session.status(), &tables, terminal::width());
        match terminal::print(&format!("{picture}\n")) {
            // Nobody watches any more: end as at Ctrl-C.
            Err(Failure::OutputClosed) if stop.is_asked() => Ok(()),
            Err(Failure::OutputClosed) => {
                stop.ask();
                Ok(())
            }
            printed => printed,
        }
    })
}

/// The Kafka sources of a plan by topic.
fn source_topics(plan: &Plan) -> BTreeMap<String, usize> {
    let topic = |(index, source): (usize, &pipeline::plan::Source)| match &source.connector {
        SourceConnector::Kafka {
            topics: Topics::Named(topics),
            ..
        } => Some((topics.first()?.clone(), index)),
        _ => None,
    };
    plan.sources.iter().enumerate().filter_map(topic).collect()
}

/// The thread that fills the topics.
struct Feed {
    thread: JoinHandle<Result<(), Failure>>,
}

impl Feed {
    fn start(
        session: &Session,
        sources: BTreeMap<String, usize>,
        stop: Stop,
    ) -> Result<Self, Failure> {
        let broker = session.broker.as_ref().ok_or_else(|| {
            Failure::Failed("the example reads no Kafka topic, so there is nothing to show".into())
        })?;
        let parts = ecommerce(&records());
        let topics = parts
            .iter()
            .map(|part| open(broker, part.kind, &sources, session.supervisor()))
            .collect::<Result<Vec<_>, _>>()?;
        let thread = std::thread::Builder::new()
            .name("generator".into())
            .spawn(move || {
                let fed = fill(&parts, &topics, &|| stop.is_asked());
                if fed.is_err() {
                    // Without records there is nothing to watch.
                    stop.ask();
                }
                fed
            })
            .map_err(|e| Failure::Failed(format!("cannot start the generator: {e}")))?;
        Ok(Self { thread })
    }

    fn join(self) -> Result<(), Failure> {
        self.thread.join().unwrap_or_else(|_| {
            Err(Failure::Failed(
                "the generator panicked; its message is above".into(),
            ))
        })
    }
}

fn records() -> Generate {
    Generate {
        kind: GenerateKind::Clicks,
        per_second: RECORDS_PER_SECOND,
        count: None,
        seed: 1,
        speed: SPEED,
        start: generate::START,
        users: USERS,
        products: PRODUCTS,
    }
}

fn open(
    broker: &EmbeddedBroker,
    kind: GenerateKind,
    sources: &BTreeMap<String, usize>,
    supervisor: &Arc<Supervisor>,
) -> Result<GeneratorFeed, Failure> {
    let topic = generate::topic(kind);
    let source = *sources.get(topic).ok_or_else(|| {
        Failure::Refused(format!("the example has no source on the topic {topic}"))
    })?;
    let cluster = Cluster {
        brokers: Brokers::At(broker.bootstrap()),
        properties: BTreeMap::new(),
    };
    let supervisor = supervisor.clone();
    let consumed = move |partition| {
        // A paused pipeline consumes nothing.
        let position = supervisor
            .handle()
            .and_then(|run| run.shared().coordinator().position(source, partition));
        position.map_or(0, |position| position.offset)
    };
    Ok(GeneratorFeed::open(&cluster, topic, Box::new(consumed))?)
}

fn fill(
    parts: &[Generate],
    topics: &[GeneratorFeed],
    stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let filled = pace::pace(parts, stop, &mut |part, key, record| {
        topics[part].send(Some(key), record, stop)
    });
    topics.iter().for_each(GeneratorFeed::stop);
    match filled {
        Ok(_) | Err(ConnectorError::Stopped { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
