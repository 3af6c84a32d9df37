//! What the probe of a cluster's transactions showed.

use std::time::Duration;

use super::permissions::grant;
use super::{Findings, shown_ms};
use crate::kafka::doctor::{
    ClockDifference, Conformance, Denied, Operation, Probe, ProbeError, Rule,
};

const CLOCK_MS_MAX: i64 = 1_000;

/// Says what the probe found, and what it left behind.
pub(super) fn judge(
    pipeline: &str,
    probe: &Probe<'_>,
    (result, left): &(Result<Conformance, ProbeError>, Vec<String>),
    findings: &mut Findings<'_>,
) {
    match result {
        Ok(conformance) => conforms(conformance, findings),
        Err(ProbeError::Denied(denied)) => refused(pipeline, *denied, findings),
        Err(ProbeError::TimeoutTooLong) => findings.failure(
            format!(
                "the brokers refuse transactions as long as {}",
                super::shown(probe.transaction_timeout)
            ),
            "lower [host] transaction_timeout, or raise the brokers' transaction.max.timeout.ms",
        ),
        Err(ProbeError::Failed { step, cause }) => findings.failure(
            format!("the probe of transactions failed while {step}: {cause}"),
            "a pipeline would fail alike: look at the brokers, above all at the coordinator of transactions",
        ),
    }
    for what in left {
        findings.warning(
            format!("the probe could not delete its {what}"),
            "delete it by hand",
        );
    }
}

fn conforms(conformance: &Conformance, findings: &mut Findings<'_>) {
    for (rule, seen) in &conformance.broken {
        findings.failure(
            format!("{}: {seen}", rule_words(*rule)),
            "these brokers do not keep what Kafka's transactions promise: write delivery = \"at-least-once\", or use brokers that do",
        );
    }
    if conformance.broken.is_empty() {
        findings.ok(format!(
            "transactions, tried for {:.1} s: aborted records stay hidden, group offsets go with the commit, a fenced producer \
             cannot commit; a commit takes {}",
            conformance.took.as_secs_f64(),
            shown_ms(conformance.commit)
        ));
    }
    clock(conformance.clock, findings);
}

fn rule_words(rule: Rule) -> &'static str {
    match rule {
        Rule::AbortedIsHidden => "records of an aborted transaction are visible",
        Rule::CommittedIsVisible => "records of a committed transaction do not become visible",
        Rule::OffsetsGoWithTheTransaction => "group offsets do not go with their transaction",
        Rule::ZombieIsFenced => "a producer that was replaced is not fenced",
        Rule::ZombieIsHidden => "records of a producer that was replaced are visible",
    }
}

fn refused(pipeline: &str, denied: Denied, findings: &mut Findings<'_>) {
    let prefixed = "--resource-pattern-type prefixed";
    match denied {
        Denied::CreateTopic => findings.warning(
            "transactions are not tried out: this user may not create the topic for it",
            format!(
                "to have it tried, {} (Delete and Write as well)",
                grant(
                    &[Operation::Create],
                    &format!("{prefixed} --topic __tidemill.{pipeline}.")
                )
            ),
        ),
        Denied::UseTopic => findings.failure(
            "transactions are not tried out: this user may not write or read the topic that it created for it",
            grant(
                &[Operation::Read, Operation::Write],
                &format!("{prefixed} --topic __tidemill.{pipeline}."),
            ),
        ),
        Denied::UseGroup => findings.warning(
            format!(
                "transactions are not tried out: this user may not commit offsets for a group whose name begins with {pipeline}"
            ),
            grant(&[Operation::Read], &format!("{prefixed} --group {pipeline}")),
        ),
        Denied::UseTransactionalId => findings.failure(
            format!("this user may not use transactional ids that begin with {pipeline}/"),
            grant(
                &[Operation::Write, Operation::Describe],
                &format!("{prefixed} --transactional-id {pipeline}/"),
            ),
        ),
    }
}

fn clock(difference: Option<ClockDifference>, findings: &mut Findings<'_>) {
    let Some(ClockDifference { ahead_ms }) = difference else {
        return;
    };
    if ahead_ms.abs() <= CLOCK_MS_MAX {
        let off = match ahead_ms {
            0 => "agree".into(),
            ms => format!("differ by {} ms", ms.abs()),
        };
        findings.ok(format!("the clocks of this host and of the broker {off}"));
        return;
    }
    let by = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
    let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
    findings.warning(
        format!("the broker's clock is {by:.1} s {way} this host's"),
        "let both follow a time server: event times too far ahead are refused (`max_ahead`), and records are kept by the \
         broker's clock",
    );
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Verdict, found};
    use super::*;
    use crate::pipeline::plan::{Brokers, Cluster};

    fn judged(result: Result<Conformance, ProbeError>, left: &[&str]) -> Vec<Finding> {
        let cluster = Cluster {
            brokers: Brokers::At("h:1".into()),
            properties: Default::default(),
        };
        let probe = Probe {
            cluster: &cluster,
            topic: "t".into(),
            group: "g".into(),
            transactional_id: "i".into(),
            replicas: 1,
            transaction_timeout: Duration::from_secs(60),
        };
        let left = left.iter().map(|l| l.to_string()).collect();
        found(|f| judge("shop", &probe, &(result, left), f))
    }

    fn conformance(broken: Vec<(Rule, String)>, ahead_ms: i64) -> Conformance {
        Conformance {
            broken,
            clock: Some(ClockDifference { ahead_ms }),
            took: Duration::from_millis(2_130),
            commit: Duration::from_micros(4_250),
        }
    }

    #[test]
    fn a_cluster_that_keeps_its_promises() {
        let said = judged(Ok(conformance(Vec::new(), 0)), &[]);
        assert!(said.iter().all(|f| f.verdict == Verdict::Ok), "{said:?}");
        assert!(said[0].text.contains("tried for 2.1 s"), "{said:?}");
        assert!(said[0].text.ends_with("a commit takes 4.2 ms"), "{said:?}");
        assert!(said[1].text.ends_with("agree"), "{said:?}");
    }

    #[test]
    fn broken_promises_are_failures_with_what_was_seen() {
        let broken = vec![
            (Rule::AbortedIsHidden, "a reader saw [aborted]".into()),
            (Rule::ZombieIsFenced, "it committed".into()),
        ];
        let said = judged(Ok(conformance(broken, -3_200)), &["topic t (why)"]);
        let verdicts: Vec<_> = said.iter().map(|f| f.verdict).collect();
        use Verdict::{Failure, Warning};
        assert_eq!(verdicts, [Failure, Failure, Warning, Warning]);
        assert!(said[0].text.ends_with("a reader saw [aborted]"), "{said:?}");
        assert!(said[2].text.contains("3.2 s behind"), "{said:?}");
        assert!(
            said[3].text.contains("could not delete its topic t (why)"),
            "{said:?}"
        );
    }

    #[test]
    fn what_is_denied_is_told_with_its_grant() {
        for (denied, verdict, part) in [
            (
                Denied::CreateTopic,
                Verdict::Warning,
                "--topic __tidemill.shop.",
            ),
            (
                Denied::UseTopic,
                Verdict::Failure,
                "--topic __tidemill.shop.",
            ),
            (Denied::UseGroup, Verdict::Warning, "--group shop"),
            (
                Denied::UseTransactionalId,
                Verdict::Failure,
                "--transactional-id shop/",
            ),
        ] {
            let said = judged(Err(ProbeError::Denied(denied)), &[]);
            assert_eq!((said.len(), said[0].verdict), (1, verdict));
            assert!(said[0].remedy.as_ref().unwrap().contains(part), "{said:?}");
        }
        let long = judged(Err(ProbeError::TimeoutTooLong), &[]);
        assert!(long[0].text.contains("as long as 1m"), "{long:?}");
    }
}
