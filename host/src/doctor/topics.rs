//! Topics: whether they exist, whether this user may use them, and what they lose when a broker is lost.

use super::permissions::{grant, lacking, names};
use super::{Findings, Verdict};
use crate::kafka::doctor::{NoTopic, Operation, TopicFacts};

/// Replicas that survive the loss of a broker while another is down for maintenance; and how many must have a record
/// before it is acknowledged, so that an acknowledged record is not on one disk alone.
const REPLICAS_MIN: usize = 3;
const IN_SYNC_MIN: usize = 2;
const HOUR_MS: i64 = 3_600_000;
/// The decision topic is read to its end at each start.
const DECISION_SEGMENT_BYTES_MAX: i64 = 1 << 20;
const DECISION_SEGMENT_MS_MAX: i64 = 600_000;

/// A topic and what is known of it.
pub(super) struct Topic<'a> {
    pub name: &'a str,
    /// `source clicks`
    pub who: &'a str,
    pub found: &'a Result<TopicFacts, NoTopic>,
}

/// What weight a topic's weaknesses have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stakes {
    /// Brokers of the cluster: a single one keeps one replica, whatever is asked for.
    pub brokers: usize,
    pub exactly_once: bool,
}

impl Stakes {
    fn verdict(self) -> Verdict {
        match self.exactly_once && self.brokers > 1 {
            true => Verdict::Failure,
            false => Verdict::Warning,
        }
    }
}

impl Topic<'_> {
    fn named(&self) -> String {
        format!("topic {} ({})", self.name, self.who)
    }
}

/// A topic that is read.
pub(super) fn read(topic: &Topic<'_>, is_table: bool, findings: &mut Findings<'_>) {
    let Some(facts) = there(topic, &[Operation::Read], findings) else {
        return;
    };
    let named = topic.named();
    if may(facts, &[Operation::Read]) {
        findings.ok(format!(
            "{named}: {}; this user may read it",
            partitions(facts)
        ));
    }
    if let Some(kept) = number(facts, "retention.ms").filter(|ms| (0..HOUR_MS).contains(ms))
        && !is_table
    {
        findings.warning(
            format!("{named}: records are kept for {} s only", kept / 1_000),
            "a host that stands still for longer loses records (`on_data_loss` says what it does then); raise retention.ms",
        );
    }
    let compacted = setting(facts, "cleanup.policy").is_none_or(|p| p.contains("compact"));
    if is_table && !compacted {
        findings.warning(
            format!("{named} is not compacted: rows that do not change go away with their records"),
            "set cleanup.policy=compact on it",
        );
    }
}

/// A topic that output is written to.
pub(super) fn written(topic: &Topic<'_>, stakes: Stakes, findings: &mut Findings<'_>) {
    if let Some(facts) = there(topic, &[Operation::Write], findings) {
        safety(&topic.named(), facts, stakes, findings);
    }
}

/// The topic of the pipeline's decisions. `creation`: whether it could be made if it is not there.
pub(super) fn decisions(
    topic: &Topic<'_>,
    stakes: Stakes,
    creation: impl FnOnce() -> Result<(), String>,
    findings: &mut Findings<'_>,
) {
    let named = topic.named();
    if let Err(NoTopic::Missing) = topic.found {
        match creation() {
            Ok(()) => findings.ok(format!("{named} is not there yet: the first run makes it")),
            Err(why) => findings.failure(
                format!("{named} does not exist, and this user may not create it ({why})"),
                format!(
                    "{}, or create it: one partition, cleanup.policy=compact, segment.bytes=1048576, segment.ms=600000, and \
                     replicated as output is",
                    grant(&[Operation::Create], &format!("--topic {}", topic.name))
                ),
            ),
        }
        return;
    }
    let Some(facts) = there(topic, &[Operation::Read, Operation::Write], findings) else {
        return;
    };
    if let Some(policy) = setting(facts, "cleanup.policy").filter(|p| *p != "compact") {
        findings.failure(
            format!("{named} has cleanup.policy={policy}: the last decision would be deleted"),
            "set cleanup.policy=compact on it",
        );
    }
    for (name, most) in [
        ("segment.bytes", DECISION_SEGMENT_BYTES_MAX),
        ("segment.ms", DECISION_SEGMENT_MS_MAX),
    ] {
        if let Some(value) = number(facts, name).filter(|value| *value > most) {
            findings.warning(
                format!(
                    "{named} has {name}={value}: old decisions stay long, and a start reads them"
                ),
                format!("set {name}={most} on it"),
            );
        }
    }
    safety(&named, facts, stakes, findings);
}

/// A topic of Kafka's own that transactions go through. Where it is not made yet, `planned` replicas are what the broker
/// will give it.
pub(super) fn internal(
    topic: &Topic<'_>,
    planned: Option<usize>,
    stakes: Stakes,
    findings: &mut Findings<'_>,
) {
    let named = topic.named();
    match (topic.found, planned) {
        (Ok(facts), _) => {
            leaders(&named, facts, findings);
            safety(&named, facts, stakes, findings);
        }
        (Err(NoTopic::Missing), Some(replicas)) if replicas >= REPLICAS_MIN => findings.ok(
            format!("{named} is not there yet: the brokers will make it with {replicas} replicas"),
        ),
        (Err(NoTopic::Missing), Some(replicas)) => findings.weigh(
            stakes.verdict(),
            format!(
                "{named} is not there yet: the brokers will make it with {}",
                counted(replicas)
            ),
            remedy(stakes),
        ),
        (Err(_), _) => findings.warning(
            format!("{named}: its replication is not known"),
            format!(
                "look it up, or {}",
                grant(&[Operation::Describe], &format!("--topic {}", topic.name))
            ),
        ),
    }
}

/// The facts of a topic that exists and that this user may use for `needed`; says so otherwise.
fn there<'a>(
    topic: &Topic<'a>,
    needed: &[Operation],
    findings: &mut Findings<'_>,
) -> Option<&'a TopicFacts> {
    let named = topic.named();
    let resource = format!("--topic {}", topic.name);
    let facts = match topic.found {
        Ok(facts) => facts,
        Err(NoTopic::Missing) => {
            let remedy = "create it, or correct its name in the pipeline file";
            findings.failure(format!("{named} does not exist"), remedy);
            return None;
        }
        Err(NoTopic::Denied) => {
            let mut needed = needed.to_vec();
            needed.push(Operation::Describe);
            findings.failure(
                format!("{named} does not exist, or this user may not see it"),
                format!("create it, or {}", grant(&needed, &resource)),
            );
            return None;
        }
        Err(NoTopic::Failed(why)) => {
            let remedy = "look at the brokers' logs, and ask again";
            findings.failure(format!("{named} is not described: {why}"), remedy);
            return None;
        }
    };
    let lacks = lacking(facts.operations.as_ref(), needed);
    if !lacks.is_empty() {
        findings.failure(
            format!("{named}: this user has no {} on it", names(&lacks)),
            grant(&lacks, &resource),
        );
    }
    leaders(&named, facts, findings);
    Some(facts)
}

fn may(facts: &TopicFacts, needed: &[Operation]) -> bool {
    lacking(facts.operations.as_ref(), needed).is_empty()
}

fn partitions(facts: &TopicFacts) -> String {
    match facts.partitions.len() {
        1 => "1 partition".into(),
        n => format!("{n} partitions"),
    }
}

fn leaders(named: &str, facts: &TopicFacts, findings: &mut Findings<'_>) {
    let without: Vec<_> = facts.partitions.iter().filter(|p| !p.has_leader).collect();
    if let Some(first) = without.first() {
        findings.failure(
            format!(
                "{named}: {} of {} partitions have no leader, such as {}",
                without.len(),
                facts.partitions.len(),
                first.partition
            ),
            "start the brokers that hold them",
        );
    }
}

/// Whether acknowledged records outlive a broker.
fn safety(named: &str, facts: &TopicFacts, stakes: Stakes, findings: &mut Findings<'_>) {
    let Some(replicas) = facts.partitions.iter().map(|p| p.all).min() else {
        return;
    };
    let in_sync_min = number(facts, "min.insync.replicas").and_then(|n| usize::try_from(n).ok());
    let mut weak = Vec::new();
    if replicas < REPLICAS_MIN {
        weak.push(counted(replicas));
    }
    if let Some(needed) = in_sync_min.filter(|needed| *needed < IN_SYNC_MIN) {
        weak.push(format!("min.insync.replicas={needed}"));
    }
    if setting(facts, "unclean.leader.election.enable") == Some("true") {
        weak.push("unclean.leader.election.enable=true".into());
    }
    if weak.is_empty() {
        let known = match (in_sync_min, &facts.settings) {
            (Some(needed), _) => format!(", min.insync.replicas={needed}"),
            (None, Err(why)) => format!(" (its settings are not readable: {why})"),
            (None, Ok(_)) => String::new(),
        };
        let count = partitions(facts);
        let may = if may(facts, &[Operation::Write]) {
            "; this user may write it"
        } else {
            ""
        };
        findings.ok(format!(
            "{named}: {count}, {}{known}{may}",
            counted(replicas)
        ));
    } else {
        findings.weigh(
            stakes.verdict(),
            format!("{named}: {}", weak.join(", ")),
            remedy(stakes),
        );
    }
    in_sync(named, facts, in_sync_min, findings);
    if let Some(needed) = in_sync_min.filter(|needed| replicas > 1 && *needed >= replicas) {
        findings.warning(
            format!(
                "{named}: min.insync.replicas={needed} of {}",
                counted(replicas)
            ),
            "one broker down stops all writing: have one replica more than must be in sync",
        );
    }
}

/// Whether the replicas are what they should be just now.
fn in_sync(named: &str, facts: &TopicFacts, needed: Option<usize>, findings: &mut Findings<'_>) {
    let stuck = facts
        .partitions
        .iter()
        .find(|p| p.in_sync < needed.unwrap_or(1).min(p.all));
    let behind = facts.partitions.iter().find(|p| p.in_sync < p.all);
    if let Some(p) = stuck {
        findings.failure(
            format!(
                "{named}: partition {} takes no writes now, {} of {} replicas are in sync",
                p.partition, p.in_sync, p.all
            ),
            "start the brokers that are down, or wait until they have caught up",
        );
    } else if let Some(p) = behind {
        findings.warning(
            format!(
                "{named}: of partition {} only {} of {} replicas are in sync now",
                p.partition, p.in_sync, p.all
            ),
            "look whether a broker is down",
        );
    }
}

fn remedy(stakes: Stakes) -> String {
    match stakes.brokers {
        1 => "a single broker is for trying out: what it loses is lost, and with it the decision which output is true".into(),
        _ => format!(
            "give it {REPLICAS_MIN} replicas, min.insync.replicas={IN_SYNC_MIN} and unclean.leader.election.enable=false: \
             otherwise what was acknowledged can be lost with a broker"
        ),
    }
}

fn counted(replicas: usize) -> String {
    match replicas {
        1 => "1 replica".into(),
        n => format!("{n} replicas"),
    }
}

fn setting<'a>(facts: &'a TopicFacts, name: &str) -> Option<&'a str> {
    facts.settings.as_ref().ok()?.get(name).map(String::as_str)
}

fn number(facts: &TopicFacts, name: &str) -> Option<i64> {
    setting(facts, name)?.parse().ok()
}

#[cfg(test)]
mod tests;
