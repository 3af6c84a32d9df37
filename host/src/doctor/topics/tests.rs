//! Facts of topics and what is said of them.

use super::*;
use crate::doctor::{Finding, found};
use crate::kafka::doctor::{Operations, Replicas};

const CLUSTER: Stakes = Stakes {
    brokers: 3,
    exactly_once: true,
};

fn facts(replicas: (usize, usize), settings: &[(&str, &str)], may: &[Operation]) -> TopicFacts {
    let (all, in_sync) = replicas;
    let partition = |partition| Replicas {
        partition,
        all,
        in_sync,
        has_leader: true,
    };
    let pair = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    TopicFacts {
        partitions: vec![partition(0), partition(1)],
        operations: Some(may.iter().copied().collect::<Operations>()),
        settings: Ok(settings.iter().map(pair).collect()),
    }
}

fn safe(settings: &[(&str, &str)]) -> TopicFacts {
    let mut all = vec![
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "false"),
        ("cleanup.policy", "compact"),
    ];
    all.retain(|(name, _)| settings.iter().all(|(other, _)| other != name));
    all.extend(settings);
    facts((3, 3), &all, &[Operation::Read, Operation::Write])
}

fn judge(
    found_topic: Result<TopicFacts, NoTopic>,
    judge: impl FnOnce(&Topic<'_>, &mut Findings<'_>),
) -> Vec<(Verdict, String)> {
    let topic = Topic {
        name: "t",
        who: "sink s",
        found: &found_topic,
    };
    let said = |f: Finding| {
        (
            f.verdict,
            format!("{} -> {}", f.text, f.remedy.unwrap_or_default()),
        )
    };
    found(|f| judge(&topic, f)).into_iter().map(said).collect()
}

fn as_sink(facts: TopicFacts) -> Vec<(Verdict, String)> {
    judge(Ok(facts), |t, f| written(t, CLUSTER, f))
}

fn only(verdict: Verdict, said: &[(Verdict, String)]) -> String {
    let of: Vec<_> = said.iter().filter(|(v, _)| *v == verdict).collect();
    assert_eq!(of.len(), 1, "{said:?}");
    of[0].1.clone()
}

#[test]
fn a_safe_topic_gives_no_trouble() {
    let said = as_sink(safe(&[]));
    assert!(said.iter().all(|(v, _)| *v == Verdict::Ok), "{said:?}");
    let expected = "2 partitions, 3 replicas, min.insync.replicas=2; this user may write it";
    assert!(said[0].1.contains(expected), "{said:?}");
    let said = judge(Ok(safe(&[])), |t, f| read(t, false, f));
    assert!(only(Verdict::Ok, &said).contains("2 partitions; this user may read it"));
}

#[test]
fn what_is_not_there_or_not_allowed_is_a_failure_with_its_grant() {
    let missing = judge(Err(NoTopic::Missing), |t, f| written(t, CLUSTER, f));
    assert!(only(Verdict::Failure, &missing).contains("does not exist -> create it"));
    let hidden = judge(Err(NoTopic::Denied), |t, f| read(t, false, f));
    let said = only(Verdict::Failure, &hidden);
    assert!(
        said.contains("--operation Read --operation Describe --topic t"),
        "{said}"
    );
    let mut no_write = safe(&[]);
    no_write.operations = Some(Operations::from([Operation::Read]));
    let said = only(Verdict::Failure, &as_sink(no_write));
    assert!(
        said.contains("no Write on it") && said.contains("--operation Write"),
        "{said}"
    );
    let mut silent = safe(&[]);
    silent.operations = None;
    assert!(as_sink(silent).iter().all(|(v, _)| *v == Verdict::Ok));
}

#[test]
fn weak_replication_fails_exactly_once_and_warns_elsewhere() {
    let weak = || facts((1, 1), &[("min.insync.replicas", "1")], &[Operation::Write]);
    let said = only(Verdict::Failure, &as_sink(weak()));
    assert!(
        said.contains("1 replica, min.insync.replicas=1 -> give it 3 replicas"),
        "{said}"
    );
    for stakes in [
        Stakes {
            brokers: 1,
            ..CLUSTER
        },
        Stakes {
            exactly_once: false,
            ..CLUSTER
        },
    ] {
        let said = judge(Ok(weak()), |t, f| written(t, stakes, f));
        only(Verdict::Warning, &said);
    }
    let unclean = safe(&[("unclean.leader.election.enable", "true")]);
    assert!(only(Verdict::Failure, &as_sink(unclean)).contains("unclean.leader.election"));
}

#[test]
fn replicas_that_are_behind_just_now() {
    let settings = [("min.insync.replicas", "2")];
    let with = |replicas| as_sink(facts(replicas, &settings, &[Operation::Write]));
    assert!(only(Verdict::Warning, &with((3, 2))).contains("2 of 3 replicas are in sync now"));
    assert!(only(Verdict::Failure, &with((3, 1))).contains("takes no writes now"));
    let all_needed = safe(&[("min.insync.replicas", "3")]);
    assert!(only(Verdict::Warning, &as_sink(all_needed)).contains("one broker down stops"));
    let mut headless = safe(&[]);
    headless.partitions[1].has_leader = false;
    assert!(
        only(Verdict::Failure, &as_sink(headless))
            .contains("1 of 2 partitions have no leader, such as 1")
    );
}

#[test]
fn sources_that_forget_fast_and_tables_that_forget_at_all() {
    let as_source = |settings: &[(&str, &str)]| judge(Ok(safe(settings)), |t, f| read(t, false, f));
    assert!(
        only(Verdict::Warning, &as_source(&[("retention.ms", "600000")])).contains("600 s only")
    );
    for kept in ["-1", "3600000"] {
        let said = as_source(&[("retention.ms", kept)]);
        assert!(said.iter().all(|(v, _)| *v == Verdict::Ok), "{said:?}");
    }
    let deleted = safe(&[("cleanup.policy", "delete")]);
    let said = judge(Ok(deleted), |t, f| read(t, true, f));
    assert!(only(Verdict::Warning, &said).contains("not compacted"));
}

#[test]
fn the_decision_topic_is_made_or_kept_as_it_must_be() {
    let with = |found, creation: Result<(), String>| {
        judge(found, |t, f| decisions(t, CLUSTER, || creation, f))
    };
    assert!(only(Verdict::Ok, &with(Err(NoTopic::Missing), Ok(()))).contains("first run makes it"));
    let denied = with(Err(NoTopic::Missing), Err("denied".into()));
    assert!(only(Verdict::Failure, &denied).contains("--operation Create --topic t"));
    let deletes = with(Ok(safe(&[("cleanup.policy", "delete")])), Ok(()));
    assert!(only(Verdict::Failure, &deletes).contains("cleanup.policy=delete"));
    let large = with(Ok(safe(&[("segment.ms", "604800000")])), Ok(()));
    assert!(only(Verdict::Warning, &large).contains("set segment.ms=600000"));
}

#[test]
fn topics_of_kafkas_own_may_not_be_there_yet() {
    let with = |planned| {
        judge(Err(NoTopic::Missing), |t, f| {
            internal(t, planned, CLUSTER, f)
        })
    };
    assert!(only(Verdict::Ok, &with(Some(3))).contains("with 3 replicas"));
    assert!(only(Verdict::Failure, &with(Some(1))).contains("with 1 replica -> give it"));
    assert!(only(Verdict::Warning, &with(None)).contains("not known"));
    let weak = facts((3, 3), &[("min.insync.replicas", "1")], &[]);
    let said = judge(Ok(weak), |t, f| internal(t, None, CLUSTER, f));
    assert!(only(Verdict::Failure, &said).contains("min.insync.replicas=1"));
}
