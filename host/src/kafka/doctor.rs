//! What a cluster says of itself, its topics and this user, for `tidemill doctor`. Facts only: what they mean for a
//! pipeline is judged by [`crate::doctor`].
//!
//! Invariant: asking changes nothing at the brokers. What has to be tried out is tried on a topic of its own: [`Probe`].

mod native;
mod probe;
mod speaks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::admin;
use super::connection::{self, cause, is_transient};
use super::decision::{Decision, Decisions};
use super::link::{Asking, Link};
use super::properties::Scope;
use crate::error::ConnectorError;
use crate::pipeline::plan::Cluster;
use speaks::Hearing;

pub use probe::{ClockDifference, Conformance, Denied, Probe, ProbeError, Rule};
pub use speaks::{Api, Speaks};

/// How long to listen for what a broker speaks: it was told before the first answer.
const LISTEN_MAX: Duration = Duration::from_secs(1);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What a user may do with a topic, a group or the cluster. The names are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    DescribeConfigs,
    AlterConfigs,
}

pub type Operations = BTreeSet<Operation>;

/// Names and values of settings; `Err` says why they cannot be read.
pub type Settings = Result<BTreeMap<String, String>, String>;

/// A cluster that answered.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Of one question and its answer over a connection that stands.
    pub latency: Duration,
    /// Ids of its brokers.
    pub brokers: Vec<i32>,
    /// Names of all topics that this user may see.
    pub topics: BTreeSet<String>,
    pub id: Option<String>,
    /// `None`: the broker does not tell.
    pub operations: Option<Operations>,
    pub speaks: Speaks,
}

/// The replicas of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    pub partition: i32,
    pub all: usize,
    pub in_sync: usize,
    pub has_leader: bool,
}

#[derive(Debug, Clone)]
pub struct TopicFacts {
    pub partitions: Vec<Replicas>,
    /// `None`: the broker does not tell.
    pub operations: Option<Operations>,
    pub settings: Settings,
}

/// Why there is nothing to know of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTopic {
    Missing,
    /// This user may not see it, or it does not exist: Kafka does not tell which.
    Denied,
    Failed(String),
}

/// Asks one cluster.
pub struct Examiner {
    cluster: Cluster,
    link: Arc<Link>,
    consumer: BaseConsumer<Hearing>,
    admin: AdminClient<Asking>,
    within: Duration,
}

impl Examiner {
    /// Connects and asks who is there. Each question waits up to `within` for its answer.
    ///
    /// # Errors
    /// The reason why no broker answers: a refused password, an unknown certificate, an address where nobody listens.
    pub fn connect(
        cluster: &Cluster,
        within: Duration,
    ) -> Result<(Self, Greeting), ConnectorError> {
        let link = Arc::new(Link::quiet(format!(
            "Kafka at {}",
            connection::hosts(cluster)
        )));
        let fixed = [("allow.auto.create.topics", "false"), ("debug", "feature")];
        let mut config = connection::config(cluster, Scope::Consumer, link.place(), &[], &fixed)?;
        // What the broker speaks is told in librdkafka's own log only, at this level.
        config.set_log_level(RDKafkaLogLevel::Debug);
        let hearing = Hearing::new(link.clone());
        let spoken = hearing.spoken();
        let failed = |error: KafkaError| link.failed(cause(&error));
        let consumer: BaseConsumer<Hearing> =
            config.create_with_context(hearing).map_err(failed)?;
        let until = Instant::now() + within;
        let stop = || Instant::now() >= until;
        let metadata = admin::ask(&consumer, &link, &stop, |timeout| {
            consumer.client().fetch_metadata(None, timeout)
        })
        .map_err(|error| admin::no_answer(error, &link, within))?;
        link.connected();
        let config = connection::config(cluster, Scope::Producer, link.place(), &[], &[])?;
        let admin = config
            .create_with_context(Asking(link.clone()))
            .map_err(failed)?;
        let this = Self {
            cluster: cluster.clone(),
            link,
            consumer,
            admin,
            within,
        };
        let topics = metadata.topics().iter().map(|t| t.name().to_owned());
        let topics = topics.collect();
        // Log lines are events, too: they are heard when the client is served.
        let served = Instant::now();
        while spoken.speaks().is_unknown() && served.elapsed() < LISTEN_MAX {
            admin::serve(&this.consumer, LISTEN_MAX / 20);
        }
        let greeting = this.greet(topics, spoken.speaks())?;
        Ok((this, greeting))
    }

    fn greet(&self, topics: BTreeSet<String>, speaks: Speaks) -> Result<Greeting, ConnectorError> {
        let asked = Instant::now();
        let described =
            native::cluster(self.consumer.client(), self.within).map_err(|(_, said)| {
                self.link
                    .failed(format!("it does not describe itself: {said}"))
            })?;
        Ok(Greeting {
            latency: asked.elapsed(),
            brokers: described.brokers,
            topics,
            id: described.id,
            operations: described.operations,
            speaks,
        })
    }

    /// What there is to know of each topic, in the order of `names`.
    pub fn topics(
        &self,
        names: &[String],
    ) -> Result<Vec<Result<TopicFacts, NoTopic>>, ConnectorError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let described =
            native::topics(self.consumer.client(), names, self.within).map_err(|(_, said)| {
                self.link
                    .failed(format!("topics are not described: {said}"))
            })?;
        let mut described: BTreeMap<String, _> = described.into_iter().collect();
        let there: Vec<&str> = (described.iter())
            .filter_map(|(name, d)| d.is_ok().then_some(name.as_str()))
            .collect();
        let resources: Vec<_> = there.iter().map(|n| ResourceSpecifier::Topic(n)).collect();
        let mut settings = self.settings(&resources);
        Ok(names
            .iter()
            .map(|name| {
                let description = match described.remove(name) {
                    Some(Ok(description)) => description,
                    Some(Err(code)) => return Err(no_topic(code)),
                    None => return Err(NoTopic::Failed("the broker left it out".into())),
                };
                let settings = settings.remove(&key(&ResourceSpecifier::Topic(name)));
                Ok(TopicFacts {
                    partitions: description.partitions,
                    operations: description.operations,
                    settings: settings.unwrap_or_else(|| Err("the broker left them out".into())),
                })
            })
            .collect())
    }

    /// The settings of one broker.
    pub fn broker(&self, id: i32) -> Settings {
        let resource = ResourceSpecifier::Broker(id);
        let found = self.settings(&[resource]).remove(&key(&resource));
        found.unwrap_or_else(|| Err("the broker left them out".into()))
    }

    /// What this user may do with a consumer group; `Err` says why that is unknown.
    pub fn group(&self, name: &str) -> Result<Option<Operations>, String> {
        let until = Instant::now() + self.within;
        loop {
            match native::group(self.consumer.client(), name, self.within) {
                Ok(operations) => return Ok(operations),
                Err((RDKafkaErrorCode::GroupAuthorizationFailed, _)) => {
                    return Ok(Some(Operations::new()));
                }
                // The first question for a group makes the topic of all groups.
                Err((code, _)) if is_transient(code) && Instant::now() < until => {
                    admin::serve(&self.consumer, ASK_AGAIN_AFTER);
                }
                Err((_, said)) => return Err(said),
            }
        }
    }

    /// Whether this user could create the topic: it is not created. `Err` says why not.
    pub fn could_create(&self, topic: &str, replicas: i32) -> Result<(), RDKafkaErrorCode> {
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(replicas));
        let options = self.options().validate_only(true);
        let results = admin::wait(self.admin.create_topics([&new], &options));
        let results = results.map_err(|e| code(&e))?;
        results
            .into_iter()
            .try_for_each(|r| r.map(|_| ()).map_err(|(_, code)| code))
    }

    /// The last decision of a pipeline, whose topic exists. One that is being made may not be seen yet.
    pub fn last_decision(&self, pipeline: &str) -> Result<Option<Decision>, ConnectorError> {
        let until = Instant::now() + self.within;
        let decisions = Decisions::new(&self.cluster, pipeline);
        match decisions.last(&|| Instant::now() >= until) {
            Err(ConnectorError::Stopped { place }) => Err(ConnectorError::failed(
                place,
                format!(
                    "not read within {} s: a transaction is open on it",
                    self.within.as_secs()
                ),
            )),
            read => read,
        }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(self.within))
            .operation_timeout(Some(self.within))
    }

    fn settings(&self, of: &[ResourceSpecifier<'_>]) -> BTreeMap<String, Settings> {
        if of.is_empty() {
            return BTreeMap::new();
        }
        let answer = admin::wait(self.admin.describe_configs(of, &self.options()));
        let results = match answer {
            Ok(results) => results,
            Err(error) => {
                let said = cause(&error);
                return of.iter().map(|r| (key(r), Err(said.clone()))).collect();
            }
        };
        // Answers come in the order of the questions; a refused one does not say whose it is.
        of.iter()
            .zip(results)
            .map(|(resource, result)| {
                let settings = result.map_err(|code| code.to_string()).map(|found| {
                    let entries = found.entries.into_iter();
                    entries.filter_map(|e| Some((e.name, e.value?))).collect()
                });
                (key(resource), settings)
            })
            .collect()
    }
}

/// The resource as a key of a map: rust-rdkafka's own types have no order.
fn key(resource: &ResourceSpecifier<'_>) -> String {
    match resource {
        ResourceSpecifier::Topic(name) => format!("topic {name}"),
        ResourceSpecifier::Group(name) => format!("group {name}"),
        ResourceSpecifier::Broker(id) => format!("broker {id}"),
    }
}

fn no_topic(code: RDKafkaErrorCode) -> NoTopic {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            NoTopic::Missing
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => NoTopic::Denied,
        code => NoTopic::Failed(code.to_string()),
    }
}

fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// The version of librdkafka: as a number (`0xMMmmrrpp`) and in words.
pub fn librdkafka() -> (u32, String) {
    let (number, text) = rdkafka::util::get_rdkafka_version();
    (number as u32, text)
}
