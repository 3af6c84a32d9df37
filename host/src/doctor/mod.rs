//! What may keep a pipeline from running well, found before it runs: the brokers and topics it needs, the disk under its
//! state, the state itself. Each finding says what to do.
//!
//! Starts nothing of the pipeline. Who asks (Kafka, the disk) is apart from who judges: judges take facts and are tested
//! without a broker. Invariant: nothing is changed but what a probe makes and takes away again, and what it could not take
//! away is a finding.

mod clusters;
mod disk;
mod permissions;
mod probe;
mod report;
mod settings;
mod state;
mod topics;
mod uses;
mod versions;

use std::time::Duration;

use serde::Serialize;

pub use report::{Report, heading, line};

use crate::pipeline::plan::Plan;
use crate::pipeline::{self, show_duration};
use crate::time::Micros;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It runs, with a risk that one should know.
    Warning,
    /// It does not run, or not as promised.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: a cluster, the state directory.
    pub area: String,
    pub verdict: Verdict,
    pub text: String,
    /// What to do.
    pub remedy: Option<String>,
}

/// Where findings go, in the order in which they are made.
pub struct Findings<'e> {
    area: String,
    each: &'e mut dyn FnMut(Finding),
}

impl<'e> Findings<'e> {
    pub fn new(each: &'e mut dyn FnMut(Finding)) -> Self {
        Self {
            area: String::new(),
            each,
        }
    }

    /// What the findings from now on belong to.
    pub fn area(&mut self, area: impl Into<String>) {
        self.area = area.into();
    }

    pub fn ok(&mut self, text: impl Into<String>) {
        self.add(Verdict::Ok, text.into(), None);
    }

    pub fn warning(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Verdict::Warning, text.into(), Some(remedy.into()));
    }

    pub fn failure(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Verdict::Failure, text.into(), Some(remedy.into()));
    }

    /// A finding whose weight depends on what it is about; `Ok` has no remedy.
    fn weigh(&mut self, verdict: Verdict, text: impl Into<String>, remedy: impl Into<String>) {
        let remedy = (verdict != Verdict::Ok).then(|| remedy.into());
        self.add(verdict, text.into(), remedy);
    }

    fn add(&mut self, verdict: Verdict, text: String, remedy: Option<String>) {
        (self.each)(Finding {
            area: self.area.clone(),
            verdict,
            text,
            remedy,
        });
    }
}

/// Examines all that `plan` needs. `warnings` are those of its file.
pub fn examine(plan: &Plan, warnings: &pipeline::Report, each: &mut dyn FnMut(Finding)) {
    let mut findings = Findings::new(each);
    file(plan, warnings, &mut findings);
    versions::examine(&mut findings);
    let mut decider = None;
    for uses in uses::clusters(plan) {
        let found = clusters::examine(plan, &uses, &mut findings);
        decider = decider.or(found);
    }
    findings.area(format!("state {}", plan.host.state.display()));
    disk::examine(&plan.host.state, &mut findings);
    state::examine(plan, decider.as_ref(), &mut findings);
}

/// The pipeline file, which has no mistakes.
fn file(plan: &Plan, warnings: &pipeline::Report, findings: &mut Findings<'_>) {
    findings.area(format!("pipeline {}", plan.name));
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    findings.ok(format!(
        "no mistakes in the file: {}, {}, {}",
        count(plan.sources.len(), "source"),
        count(plan.steps.len(), "step"),
        count(plan.sinks.len(), "sink")
    ));
    for warning in &warnings.warnings {
        let place = &warning.place;
        let text = format!(
            "{}:{}: {}",
            place.file.display(),
            place.line,
            warning.message
        );
        let remedy = warning.help.clone();
        findings.warning(
            text,
            remedy.unwrap_or_else(|| "see `tidemill check`".into()),
        );
    }
}

fn shown(time: Duration) -> String {
    show_duration(Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX))
}

/// Milliseconds with one digit, as latencies are read.
fn shown_ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// What `judge` finds.
#[cfg(test)]
fn found(judge: impl FnOnce(&mut Findings<'_>)) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut each = |finding| all.push(finding);
    judge(&mut Findings::new(&mut each));
    all
}
