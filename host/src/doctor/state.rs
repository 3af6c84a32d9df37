//! The state in the directory: whether a host has it open, whether it can be read, where it stands.

use super::Findings;
use crate::error::StateError;
use crate::pipeline::plan::Plan;
use crate::state::peek::{Peeked, peek};

pub(super) fn examine(plan: &Plan, findings: &mut Findings<'_>) {
    judge(plan, peek(&plan.host.state), findings);
}

fn judge(plan: &Plan, peeked: Result<Option<Peeked>, StateError>, findings: &mut Findings<'_>) {
    match peeked {
        Ok(None) => findings.ok("no state yet: the pipeline begins where its sources say"),
        Err(StateError::InUse { .. }) => {
            findings.ok("a host is running on it; `tidemill status` tells where it stands");
        }
        Err(error) => findings.failure(
            error.to_string(),
            "a run would stop with it: use the version that made it, restore both files, or give it up with `tidemill reset`",
        ),
        Ok(Some(state)) => readable(plan, &state, findings),
    }
}

fn readable(plan: &Plan, state: &Peeked, findings: &mut Findings<'_>) {
    if state.pipeline != plan.name {
        findings.failure(
            format!(
                "it is the state of pipeline {}, not of {}",
                state.pipeline, plan.name
            ),
            "give this pipeline another directory with [host] state",
        );
        return;
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
        return;
    }
    let undecided = match state.undecided {
        Some(number) => format!("; checkpoint {number} is undecided, the next start settles it"),
        None => String::new(),
    };
    findings.ok(match state.latest {
        Some(number) => format!("can be read; the last decided checkpoint is {number}{undecided}"),
        None => format!("can be read; there is no checkpoint in it yet{undecided}"),
    });
}
