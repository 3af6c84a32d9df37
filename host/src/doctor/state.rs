//! The state in the directory: whether a host has it open, whether it can be read, where it stands, and whether Kafka says
//! the same.

use super::Findings;
use super::clusters::Decider;
use crate::engine::decide;
use crate::error::StateError;
use crate::pipeline::plan::Plan;
use crate::state::peek::{Peeked, peek, supersedes};

/// What the disk alone says.
#[derive(Debug)]
enum Standing {
    /// A start would take this state.
    State(Box<Peeked>),
    /// A start would make one.
    None,
    /// A host has it, or a start would be refused.
    Closed,
}

/// `decider`: the cluster that decides the checkpoints, if it answered.
pub(super) fn examine(plan: &Plan, decider: Option<&Decider>, findings: &mut Findings<'_>) {
    let standing = judge(plan, peek(&plan.host.state), findings);
    if let Some(decider) = decider {
        decision(plan, &standing, decider, findings);
    }
}

fn judge(
    plan: &Plan,
    peeked: Result<Option<Peeked>, StateError>,
    findings: &mut Findings<'_>,
) -> Standing {
    match peeked {
        Ok(Some(state)) if fits(plan, &state, findings) => Standing::State(Box::new(state)),
        Ok(Some(_)) => Standing::Closed,
        Ok(None) => {
            findings.ok("no state yet: the pipeline begins where its sources say");
            Standing::None
        }
        Err(StateError::InUse { .. }) => {
            findings.ok("a host is running on it; `tidemill status` tells where it stands");
            Standing::Closed
        }
        Err(error) => {
            findings.failure(
                error.to_string(),
                "a run would stop with it: use the version that made it, restore both files, or give it up with `tidemill reset`",
            );
            Standing::Closed
        }
    }
}

fn fits(plan: &Plan, state: &Peeked, findings: &mut Findings<'_>) -> bool {
    if state.pipeline != plan.name {
        findings.failure(
            format!(
                "it is the state of pipeline {}, not of {}",
                state.pipeline, plan.name
            ),
            "give this pipeline another directory with [host] state",
        );
        return false;
    }
    if state.key_groups != plan.host.key_groups {
        findings.failure(
            format!(
                "it was made with key_groups = {}, the file says {}",
                state.key_groups, plan.host.key_groups
            ),
            format!(
                "write key_groups = {}: the number is fixed for the life of a state",
                state.key_groups
            ),
        );
        return false;
    }
    let latest = state.latest.as_ref().map(|latest| latest.number);
    findings.ok(match (latest, &state.undecided) {
        (None, _) => "can be read; there is no checkpoint in it yet".to_owned(),
        (Some(number), None) => format!("can be read; its last checkpoint is {number}"),
        (Some(number), Some(open)) => format!(
            "can be read; checkpoint {number} is decided, {} prepared",
            open.number
        ),
    });
    true
}

/// Whether the decision in Kafka and the state belong together, as the next start will see it.
fn decision(plan: &Plan, standing: &Standing, decider: &Decider, findings: &mut Findings<'_>) {
    if matches!(standing, Standing::Closed) {
        return;
    }
    let read = match decider.has_decisions {
        true => decider.examiner.last_decision(&plan.name),
        false => Ok(None),
    };
    let decision = match read {
        Ok(decision) => decision,
        Err(error) => {
            findings.failure(
                error.to_string(),
                "a start reads it, too: see that this user may, and that no transaction stays open on it",
            );
            return;
        }
    };
    let looked = match standing {
        Standing::State(state) => decide::look(state, decision.as_ref()).map(Some),
        Standing::None | Standing::Closed => supersedes(&plan.host.state)
            .map_err(|error| error.to_string())
            .and_then(|past| decide::look_anew(&past, decision.as_ref()))
            .map(|()| None),
    };
    match looked {
        Ok(Some(words)) => findings.ok(words),
        Ok(None) => {}
        Err(why) => findings.failure(
            format!("state and decision do not belong together: {why}"),
            "a start is refused until this is settled",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, found};
    use super::*;
    use crate::pipeline::{Overrides, check};
    use crate::plugin::Runtime;
    use crate::state::Restored;

    fn plan() -> Plan {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.toml");
        let text = "name = \"shop\"\n[sources.s]\nfile = { path = \"s.csv\" }\nfields = { a = \"string\" }\n";
        std::fs::write(&file, text).unwrap();
        let runtime = Runtime::new(None).unwrap();
        check(&file, &Overrides::default(), &runtime).unwrap().0
    }

    fn state(pipeline: &str, key_groups: u16) -> Peeked {
        let checkpoint = |number| Restored {
            number,
            meta: Default::default(),
            finished: false,
            in_transaction: true,
        };
        Peeked {
            pipeline: pipeline.into(),
            state_id: [1; 16],
            supersedes: Vec::new(),
            key_groups,
            latest: Some(checkpoint(7)),
            undecided: Some(checkpoint(8)),
        }
    }

    #[test]
    fn what_the_disk_says() {
        let plan = plan();
        let judged = |peeked| found(|f| drop(judge(&plan, peeked, f)));
        let good = judged(Ok(Some(state("shop", 128))));
        assert_eq!(
            (good[0].verdict, good[0].text.as_str()),
            (
                Verdict::Ok,
                "can be read; checkpoint 7 is decided, 8 prepared"
            )
        );
        for (other, part) in [
            (state("mill", 128), "state of pipeline mill, not of shop"),
            (
                state("shop", 64),
                "made with key_groups = 64, the file says 128",
            ),
        ] {
            let said = judged(Ok(Some(other)));
            assert_eq!(said[0].verdict, Verdict::Failure);
            assert!(said[0].text.contains(part), "{said:?}");
        }
        let dir = std::path::PathBuf::from("d");
        assert_eq!(
            judged(Err(StateError::InUse { dir: dir.clone() }))[0].verdict,
            Verdict::Ok
        );
        assert_eq!(judged(Ok(None))[0].verdict, Verdict::Ok);
        let format = StateError::Format {
            dir,
            found: 1,
            expected: 3,
        };
        assert_eq!(judged(Err(format))[0].verdict, Verdict::Failure);
    }
}
