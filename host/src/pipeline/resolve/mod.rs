//! A [`Spec`] made into a [`Plan`]: names led to what they name, columns and types known, expressions compiled, plugins
//! configured.
//!
//! Whatever cannot be resolved is said once: what depends on it is then unknown and passes in silence.

mod connections;
mod files;
mod formats;
mod order;
pub mod plugin;
mod remote;
mod sinks;
mod sources;
mod steps;
mod transactions;
pub(super) mod unused;
mod windows;

pub(super) use sources::type_name;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::diagnostics::Findings;
use super::plan::{Brokers, Delivery, Host, Input, Operator, Plan, Source, Step, Table};
use super::spec::{self, Spec};
use super::text::Spanned;
use super::values;
use crate::limits::{KEY_GROUPS_DEFAULT, STATE_MEMORY_BYTES_DEFAULT};
use crate::plugin::{Component, Runtime};

/// What a name leads to.
#[derive(Debug, Clone, Copy)]
enum Named {
    Source(usize),
    Step(usize),
}

/// Rows that can be read.
#[derive(Debug, Clone)]
struct Rows {
    /// Several are read as one.
    inputs: Vec<Input>,
    schema: SchemaRef,
    has_event_time: bool,
    /// Some rows correct others.
    corrections: bool,
}

struct Resolver<'s> {
    spec: &'s Spec,
    /// `None`: plugins are not loaded and what they give is unknown.
    runtime: Option<&'s Arc<Runtime>>,
    findings: &'s mut Findings,
    names: HashMap<&'s str, Named>,
    sources: Vec<Option<Source>>,
    tables: Vec<Option<Table>>,
    /// Resolved steps in topological order.
    steps: Vec<Step>,
    /// For each step of the spec its place in `steps`; `None` while or if unknown.
    places: Vec<Option<usize>>,
    /// Files loaded so far; `None`: could not be.
    components: HashMap<PathBuf, Option<Arc<Component>>>,
}

/// The plan, if there is no mistake in the spec and none was found before.
pub fn resolve(
    spec: &Spec,
    runtime: Option<&Arc<Runtime>>,
    findings: &mut Findings,
) -> Option<Plan> {
    let mut resolver = Resolver {
        spec,
        runtime,
        findings,
        names: HashMap::new(),
        sources: Vec::new(),
        tables: Vec::new(),
        steps: Vec::new(),
        places: vec![None; spec.steps.len()],
        components: HashMap::new(),
    };
    let plan = resolver.all();
    plan.filter(|_| resolver.findings.is_empty())
}

impl<'s> Resolver<'s> {
    fn all(&mut self) -> Option<Plan> {
        let spec = self.spec;
        self.name_rows();
        self.sources = spec.sources.iter().map(|s| self.source(s)).collect();
        self.tables = spec.tables.iter().map(|t| self.table(t)).collect();
        for index in self.order() {
            let step = self.step(&spec.steps[index]);
            self.places[index] = step.as_ref().map(|_| self.steps.len());
            self.steps.extend(step);
        }
        let dead_letters = self.dead_letters();
        let sinks: Vec<_> = spec.sinks.iter().map(|s| self.sink(s)).collect();
        self.clashes();
        self.delivery();
        self.transactions();
        self.one_cluster(&sinks);
        self.webhook_delivery();
        self.unused();
        let host = self.host()?;
        Some(Plan {
            name: spec.name.as_ref()?.value.clone(),
            host,
            sources: self.sources.drain(..).collect::<Option<_>>()?,
            tables: self.tables.drain(..).collect::<Option<_>>()?,
            steps: (self.places.iter().all(Option::is_some))
                .then(|| std::mem::take(&mut self.steps))?,
            sinks: sinks.into_iter().collect::<Option<_>>()?,
            dead_letters: dead_letters?,
        })
    }

    /// Gives each source and step its name; rows are read by it, so it is given once.
    fn name_rows(&mut self) {
        let sources = self.spec.sources.iter().enumerate();
        let steps = self.spec.steps.iter().enumerate();
        let named = sources
            .map(|(i, s)| (&s.name, Named::Source(i)))
            .chain(steps.map(|(i, s)| (&s.name, Named::Step(i))));
        for (name, what) in named {
            if let Some(Named::Source(first)) = self.names.get(name.value.as_str()) {
                let first = self.spec.sources[*first].name.span;
                self.findings
                    .error(
                        name.span,
                        format!("`{}` names a source and a step", name.value),
                    )
                    .first(first)
                    .help("rows are read by this name: rename one of them");
            } else {
                self.names.insert(&name.value, what);
            }
        }
    }

    /// The rows that `name` (`source`, `step` or `step.port`) stands for; `None` if there are none or it is unknown
    /// what they look like.
    fn rows(&mut self, name: &Spanned<String>) -> Option<Rows> {
        let (base, port) = match name.value.split_once('.') {
            Some((base, port)) => (base, Some(port)),
            None => (name.value.as_str(), None),
        };
        match self.names.get(base) {
            None => {
                self.no_rows(name, base);
                None
            }
            Some(Named::Source(_)) if port.is_some() => {
                self.findings
                    .error(name.span, format!("`{base}` is a source: it has no ports"))
                    .help(format!("read it as \"{base}\""));
                None
            }
            Some(Named::Source(index)) => {
                let source = self.sources[*index].as_ref()?;
                Some(Rows {
                    inputs: vec![Input::Source(*index)],
                    schema: source.schema.clone(),
                    has_event_time: source.event_time.is_some(),
                    corrections: false,
                })
            }
            Some(Named::Step(index)) => {
                let step = self.places[*index]?;
                self.port(name, step, port)
            }
        }
    }

    fn no_rows(&mut self, name: &Spanned<String>, base: &str) {
        let is = |list: &[&Spanned<String>]| list.iter().any(|n| n.value == base);
        let tables: Vec<_> = self.spec.tables.iter().map(|t| &t.name).collect();
        let sinks: Vec<_> = self.spec.sinks.iter().map(|s| &s.name).collect();
        let help = if is(&tables) {
            Some("a table is read with `lookup` or by a plugin, not with `from`".to_string())
        } else if is(&sinks) {
            Some("nothing reads from a sink".to_string())
        } else {
            let mut names: Vec<&str> = self.names.keys().copied().collect();
            names.sort_unstable();
            values::suggestion(base, names, "sources and steps")
        };
        self.findings
            .error(name.span, format!("there is no source or step `{base}`"))
            .maybe_help(help);
    }

    fn port(&mut self, name: &Spanned<String>, step: usize, port: Option<&str>) -> Option<Rows> {
        let step = match (&self.steps[step].operator, port) {
            // The step that ranks stands behind the window, which has the other ports.
            (Operator::Top(_), Some(_)) => step - 1,
            _ => step,
        };
        let planned = &self.steps[step];
        let index = match port {
            None => Some(0),
            // The first port has no name of its own: it is read as the step.
            Some(port) => planned
                .ports
                .iter()
                .skip(1)
                .position(|p| p.name == port)
                .map(|i| i + 1),
        };
        let Some(index) = index else {
            let port = port.unwrap_or_default();
            let names = planned.ports.iter().skip(1).map(|p| p.name.as_str());
            let help = values::suggestion(port, names, "other ports of the step");
            let message = format!("step `{}` has no port `{port}`", planned.name);
            self.findings.error(name.span, message).maybe_help(help);
            return None;
        };
        Some(Rows {
            inputs: vec![Input::Port { step, port: index }],
            schema: planned.ports[index].schema.clone(),
            has_event_time: planned.has_event_time,
            corrections: index == 0
                && matches!(&planned.operator, Operator::Window(w) if w.allowed_lateness > 0),
        })
    }

    /// Index of the column `name` of `schema`; a mistake otherwise.
    fn column(&mut self, name: &Spanned<String>, schema: &SchemaRef, of: &str) -> Option<usize> {
        let index = schema.index_of(&name.value).ok();
        if index.is_none() {
            let names = schema.fields().iter().map(|f| f.name().as_str());
            let help = values::suggestion(&name.value, names, "columns");
            self.findings
                .error(name.span, format!("{of} has no column `{}`", name.value))
                .maybe_help(help);
        }
        index
    }

    fn host(&self) -> Option<Host> {
        let host = &self.spec.host;
        let name = &self.spec.name.as_ref()?.value;
        let state = match &host.state {
            Some(dir) => self.spec.dir.join(&dir.value),
            None => self.spec.dir.join("state").join(name),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Some(Host {
            state,
            workers: host.workers.unwrap_or_else(cores),
            checkpoint_every: transactions::checkpoint_every(host),
            transaction_timeout: transactions::timeout(host),
            key_groups: host.key_groups.unwrap_or(KEY_GROUPS_DEFAULT),
            state_memory: host.state_memory.unwrap_or(STATE_MEMORY_BYTES_DEFAULT),
            delivery: host
                .delivery
                .as_ref()
                .map_or(Delivery::Default, |d| d.value),
            admin_port: host.admin_port.unwrap_or(0),
            metrics: (host.metrics.as_ref()).map(|path| self.spec.dir.join(&path.value)),
        })
    }

    /// Refuses `delivery = "exactly-once"` where it cannot be kept.
    fn delivery(&mut self) {
        let Some(delivery) = &self.spec.host.delivery else {
            return;
        };
        if delivery.value != Delivery::ExactlyOnce {
            return;
        }
        let embedded = self.brokers_embedded();
        if embedded {
            self.findings
                .error(delivery.span, "the embedded broker has no exactly-once delivery")
                .help("leave `delivery` out, or use a real broker: it has no transactions and forgets all at exit");
        }
    }

    /// Refuses it for a webhook, too: a receiver may get a row twice and has to tell by its id.
    fn webhook_delivery(&mut self) {
        let webhook =
            |s: &&spec::Sink| matches!(s.connector, Some(spec::SinkConnector::Webhook(_)));
        let Some(sink) = self.spec.sinks.iter().find(webhook) else {
            return;
        };
        let exactly = self.spec.host.delivery.as_ref();
        if let Some(delivery) = exactly.filter(|d| d.value == Delivery::ExactlyOnce) {
            let message = format!(
                "sink `{}` is a webhook, which delivers at least once",
                sink.name.value
            );
            self.findings
                .error(delivery.span, message)
                .help("leave `delivery` out: a row that comes again has the id it had before");
        }
    }

    fn brokers_embedded(&self) -> bool {
        let brokers = self.spec.kafka.as_ref().and_then(|k| k.brokers.as_ref());
        brokers.is_some_and(|b| connections::brokers(&b.value) == Brokers::Embedded)
    }

    fn writes_to_kafka(&self) -> bool {
        let is_kafka =
            |s: &spec::Sink| matches!(s.connector, Some(spec::SinkConnector::Kafka { .. }));
        let dead = matches!(
            self.spec.dead_letters,
            Some(spec::DeadLetters::Kafka { .. })
        );
        dead || self.spec.sinks.iter().any(is_kafka)
    }
}
