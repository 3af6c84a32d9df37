//! One cluster: who answers there, and whether it has what the pipeline needs.

use std::collections::BTreeMap;

use super::permissions::{grant, lacking};
use super::topics::{self, Stakes, Topic};
use super::uses::{Read, Uses};
use super::{Findings, probe, settings, shown_ms};
use crate::kafka::decision;
use crate::kafka::doctor::{Examiner, Greeting, Operation, Probe};
use crate::limits::DOCTOR_ANSWER_MAX;
use crate::pipeline::plan::{Brokers, Cluster, Plan, Topics, topic_pattern};

/// Replicas that topics of the host's own get where the cluster has as many brokers.
const REPLICAS: usize = 3;
/// Brokers of a cluster that are asked for their settings.
const BROKERS_ASKED_MAX: usize = 9;

/// What is known of the cluster that decides the checkpoints.
pub(super) struct Decider {
    pub examiner: Examiner,
    /// There is a topic of decisions.
    pub has_decisions: bool,
}

/// Examines a cluster; gives it back if it is the one that decides.
pub(super) fn examine(plan: &Plan, uses: &Uses, findings: &mut Findings<'_>) -> Option<Decider> {
    findings.area(format!("Kafka at {}", uses.hosts()));
    if uses.cluster.brokers == Brokers::Embedded {
        findings.ok("the embedded broker is part of the host: its topics are made at the start and forgotten at the end");
        return None;
    }
    let (examiner, greeting) = match Examiner::connect(&uses.cluster, DOCTOR_ANSWER_MAX) {
        Ok(connected) => connected,
        Err(error) => {
            findings.failure(
                error.to_string(),
                "start it, or correct `brokers` and `properties` in the pipeline file; nothing else of it could be looked at",
            );
            return None;
        }
    };
    let exactly_once = plan.transactional() == Some(&uses.cluster);
    let cluster = Looked {
        plan,
        uses,
        examiner,
        greeting,
        exactly_once,
    };
    greeted(&uses.cluster, &cluster.greeting, exactly_once, findings);
    cluster.topics(findings);
    cluster.group(findings);
    if !exactly_once {
        return None;
    }
    let has_decisions = cluster.transactions(findings);
    Some(Decider {
        examiner: cluster.examiner,
        has_decisions,
    })
}

/// What a cluster says of itself.
fn greeted(
    cluster: &Cluster,
    greeting: &Greeting,
    exactly_once: bool,
    findings: &mut Findings<'_>,
) {
    let protocol = cluster.properties.get("security.protocol");
    let protocol = protocol.map_or("PLAINTEXT".into(), |p| p.to_ascii_uppercase());
    let brokers = match greeting.brokers.len() {
        1 => "1 broker".into(),
        n => format!("{n} brokers"),
    };
    let id = greeting
        .id
        .as_ref()
        .map_or(String::new(), |id| format!(", cluster {id}"));
    findings.ok(format!(
        "answers in {} over {protocol}: {brokers}{id}",
        shown_ms(greeting.latency)
    ));
    let speaks = &greeting.speaks;
    if speaks.is_unknown() {
        findings.ok("which version of Kafka it is, it does not tell");
        return;
    }
    let lacks = speaks.lacks_for_transactions();
    if exactly_once && !lacks.is_empty() {
        findings.failure(
            format!(
                "it does not understand {}: it has no transactions",
                lacks.join(", ")
            ),
            "write delivery = \"at-least-once\", or use Apache Kafka 2.5 or newer",
        );
        return;
    }
    if exactly_once && speaks.is_4_3() {
        findings.warning(
            "it may be Apache Kafka 4.3.0 or 4.3.1, which lose what became of a transaction when a broker is killed",
            "use 4.2, or a later one that does not; see \"A transaction without an end\" in docs/operations.md",
        );
    }
    findings.ok(match speaks.release() {
        Some(release) => format!("speaks the protocol of Apache Kafka {release} or newer"),
        None => "speaks a protocol that we do not know a release of".into(),
    });
}

/// A cluster that answered.
struct Looked<'p> {
    plan: &'p Plan,
    uses: &'p Uses,
    examiner: Examiner,
    greeting: Greeting,
    /// The pipeline's output there is to be exactly once.
    exactly_once: bool,
}

impl Looked<'_> {
    fn stakes(&self) -> Stakes {
        Stakes {
            brokers: self.greeting.brokers.len(),
            exactly_once: self.exactly_once,
        }
    }

    fn replicas(&self) -> i32 {
        self.greeting.brokers.len().clamp(1, REPLICAS) as i32
    }

    fn topics(&self, findings: &mut Findings<'_>) {
        let mut reads = Vec::new();
        for read in &self.uses.reads {
            reads.extend(
                self.matching(read, findings)
                    .into_iter()
                    .map(|name| (read, name)),
            );
        }
        let writes = &self.uses.writes;
        let names = reads.iter().map(|(_, name)| name.clone());
        let names: Vec<String> = names
            .chain(writes.iter().map(|w| w.topic.clone()))
            .collect();
        let found = match self.examiner.topics(&names) {
            Ok(found) => found,
            Err(error) => {
                findings.failure(error.to_string(), "ask again; look at the brokers' logs");
                return;
            }
        };
        let (of_reads, of_writes) = found.split_at(reads.len());
        for ((read, name), found) in reads.iter().zip(of_reads) {
            let topic = Topic {
                name,
                who: &read.who,
                found,
            };
            topics::read(&topic, read.is_table, findings);
        }
        for (write, found) in writes.iter().zip(of_writes) {
            let topic = Topic {
                name: &write.topic,
                who: &write.who,
                found,
            };
            topics::written(&topic, self.stakes(), findings);
        }
    }

    /// The topics that a source or table reads, by name or by pattern.
    fn matching(&self, read: &Read, findings: &mut Findings<'_>) -> Vec<String> {
        let pattern = match &read.topics {
            Topics::Named(names) => return names.clone(),
            Topics::Pattern(pattern) => pattern,
        };
        let all = self
            .greeting
            .topics
            .iter()
            .filter(|name| !name.starts_with("__"));
        let matched: Vec<String> = match topic_pattern(pattern) {
            Ok(pattern) => all.filter(|name| pattern.is_match(name)).cloned().collect(),
            Err(_) => Vec::new(),
        };
        if matched.is_empty() {
            findings.failure(
                format!(
                    "no topic that this user may see is like `{pattern}` ({})",
                    read.who
                ),
                "create one, grant Describe on it, or correct the pattern in the pipeline file",
            );
        }
        matched
    }

    /// The consumer group that offsets are committed to.
    fn group(&self, findings: &mut Findings<'_>) {
        if self.uses.reads.iter().all(|read| read.is_table) {
            return;
        }
        let group = &self.plan.name;
        let remedy = grant(&[Operation::Read], &format!("--group {group}"));
        match self.examiner.group(group) {
            Ok(operations) if lacking(operations.as_ref(), &[Operation::Read]).is_empty() => {}
            Ok(_) => findings.warning(
                format!("this user has no Read on group {group}; lag monitors read its offsets"),
                remedy,
            ),
            Err(why) => findings.warning(
                format!("group {group} is not described: {why}"),
                "ask again; lag monitors need its coordinator, too",
            ),
        }
    }

    /// All that exactly-once output rests on. True: there is a topic of decisions.
    fn transactions(&self, findings: &mut Findings<'_>) -> bool {
        let broker = self.settings(findings);
        settings::transactions(&self.plan.host, broker.as_ref(), findings);
        if let Some(broker) = &broker {
            settings::memory(broker, findings);
        }
        self.leftovers(findings);
        self.probe(findings);
        // Behind the probe: on a new cluster it is the first to need the brokers' own topics.
        self.own_topics(broker.as_ref(), findings)
    }

    /// The settings of the first broker; every broker is asked, since each must be reachable.
    fn settings(&self, findings: &mut Findings<'_>) -> Option<BTreeMap<String, String>> {
        let mut first = None;
        for &id in self.greeting.brokers.iter().take(BROKERS_ASKED_MAX) {
            match self.examiner.broker(id) {
                Ok(settings) => {
                    first.get_or_insert(settings);
                }
                Err(why) => findings.warning(
                    format!("the settings of broker {id} cannot be read: {why}"),
                    format!(
                        "if it is up, {}",
                        grant(&[Operation::DescribeConfigs], "--cluster")
                    ),
                ),
            }
        }
        first
    }

    fn own_topics(
        &self,
        broker: Option<&BTreeMap<String, String>>,
        findings: &mut Findings<'_>,
    ) -> bool {
        let decisions = decision::topic(&self.plan.name);
        let internal = [
            (
                "__transaction_state",
                "of all transactions",
                "transaction.state.log.replication.factor",
            ),
            (
                "__consumer_offsets",
                "of group offsets",
                "offsets.topic.replication.factor",
            ),
        ];
        let mut names = vec![decisions.clone()];
        names.extend(internal.map(|(name, _, _)| name.to_owned()));
        let found = match self.examiner.topics(&names) {
            Ok(found) => found,
            Err(error) => {
                findings.failure(error.to_string(), "ask again; look at the brokers' logs");
                return false;
            }
        };
        let topic = Topic {
            name: &decisions,
            who: "the pipeline's decisions",
            found: &found[0],
        };
        let creation = || {
            let tried = self.examiner.could_create(&decisions, self.replicas());
            tried.map_err(|code| code.to_string())
        };
        topics::decisions(&topic, self.stakes(), creation, findings);
        for ((name, who, setting), found) in internal.iter().zip(&found[1..]) {
            let planned = broker.and_then(|b| b.get(*setting)?.parse().ok());
            topics::internal(
                &Topic { name, who, found },
                planned,
                self.stakes(),
                findings,
            );
        }
        found[0].is_ok()
    }

    /// Topics of a probe that was killed.
    fn leftovers(&self, findings: &mut Findings<'_>) {
        let prefix = format!("__tidemill.{}.doctor-", self.plan.name);
        for name in self
            .greeting
            .topics
            .iter()
            .filter(|name| name.starts_with(&prefix))
        {
            findings.warning(
                format!("topic {name} is left of a doctor that was killed"),
                "delete it, unless another doctor is at work just now",
            );
        }
    }

    fn probe(&self, findings: &mut Findings<'_>) {
        let name = &self.plan.name;
        let Ok(random) = getrandom::u64() else {
            findings.warning(
                "transactions are not tried out: no random number for a name",
                "ask again",
            );
            return;
        };
        let probe = Probe {
            cluster: self.examiner.cluster(),
            topic: format!("__tidemill.{name}.doctor-{random:016x}"),
            group: format!("{name}.doctor-{random:016x}"),
            transactional_id: format!("{name}/doctor-{random:016x}"),
            replicas: self.replicas(),
            transaction_timeout: self.plan.host.transaction_timeout,
        };
        let result = probe.run();
        probe::judge(name, &probe, &result, findings);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::doctor::{Finding, Verdict};
    use crate::kafka::doctor::Speaks;

    /// What is found of a cluster that speaks `requests`, with their highest versions.
    fn found(requests: &[(i16, i16)], exactly_once: bool) -> Vec<(Verdict, String)> {
        let greeting = Greeting {
            latency: Duration::from_millis(1),
            brokers: vec![1],
            topics: BTreeSet::new(),
            id: None,
            operations: None,
            speaks: requests.iter().copied().collect::<Speaks>(),
        };
        let mut found = Vec::new();
        let mut each = |finding: Finding| found.push((finding.verdict, finding.text));
        let cluster = Cluster {
            brokers: Brokers::At(String::new()),
            properties: BTreeMap::new(),
        };
        greeted(
            &cluster,
            &greeting,
            exactly_once,
            &mut Findings::new(&mut each),
        );
        found
    }

    #[test]
    fn kafka_that_loses_transactions_is_told_where_there_are_any() {
        let transactions = [(22, 5), (24, 5), (25, 4), (26, 5), (28, 5)];
        let newer = [&[(0, 13), (35, 5)], &transactions[..]].concat();
        let sound = [&[(0, 13), (35, 4)], &transactions[..]].concat();
        let is_told = |requests: &[(i16, i16)], exactly_once| {
            let warnings = found(requests, exactly_once);
            let mut warnings = warnings
                .iter()
                .filter(|(verdict, _)| *verdict == Verdict::Warning);
            warnings.any(|(_, text)| text.contains("Apache Kafka 4.3.0 or 4.3.1"))
        };
        assert!(is_told(&newer, true));
        assert!(!is_told(&newer, false));
        assert!(!is_told(&sound, true));
    }

    #[test]
    fn kafka_without_transactions_is_a_failure_where_they_are_needed() {
        let failure = |exactly_once| {
            let found = found(&[(0, 13), (22, 5)], exactly_once);
            found
                .into_iter()
                .find(|(verdict, _)| *verdict == Verdict::Failure)
        };
        let (_, text) = failure(true).unwrap();
        assert!(text.contains("EndTxn"), "{text}");
        assert_eq!(failure(false), None);
    }
}
