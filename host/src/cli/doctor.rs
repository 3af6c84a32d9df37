//! `tidemill doctor`: whether a pipeline would run well here, and what to do if not.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Over, terminal};
use crate::doctor::{self, Finding, Report, Verdict};
use crate::pipeline;
use crate::plugin::Runtime;

/// Examine what a pipeline needs: brokers, topics, rights, transactions, disk and state
///
/// Starts nothing of the pipeline, and may run beside it. Where output to Kafka is exactly once, transactions are tried out
/// for some seconds on a topic `__tidemill.NAME.doctor-..`, which is deleted again. Exit code 0 without a failure, 1 with
/// one, 2 if the pipeline file is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill doctor examples/ecommerce/pipeline.toml --brokers localhost:9092\n  tidemill doctor pipeline.toml --json"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    #[command(flatten)]
    over: Over,
    /// Print JSON, all of it at the end
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let overrides = arguments.over.into();
    let runtime = Runtime::new(None)?;
    let (plan, warnings) =
        pipeline::check(&arguments.pipeline, &overrides, &runtime).map_err(Failure::Pipeline)?;
    let mut report = Report::default();
    let mut shown = match arguments.json {
        true => None,
        false => Some(Shown::default()),
    };
    let mut failed = None;
    doctor::examine(&plan, &warnings, &mut |finding| {
        if let (Some(shown), None) = (&mut shown, &failed) {
            failed = shown.print(&finding).err();
        }
        report.findings.push(finding);
    });
    if let Some(failure) = failed {
        return Err(failure);
    }
    if arguments.json {
        terminal::print_json(&report.to_json(&plan.name))?;
    } else {
        terminal::print(&format!("\n{}", report.summary()))?;
    }
    match report.verdict() {
        Verdict::Failure => Err(Failure::Failed(format!(
            "{} would not run as promised: {}",
            plan.name,
            report.summary()
        ))),
        _ => Ok(()),
    }
}

/// Findings that were printed as they came.
struct Shown {
    area: String,
    /// Remedies of this area that were printed: no one wants to read them ten times.
    remedies: Vec<String>,
    colour: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            area: String::new(),
            remedies: Vec::new(),
            colour: terminal::wants_color(terminal::width().is_some()),
        }
    }
}

impl Shown {
    fn print(&mut self, finding: &Finding) -> Result<(), Failure> {
        // What brokers and files say must not steer the terminal.
        let mut finding = Finding {
            area: terminal::escape(&finding.area),
            text: terminal::escape(&finding.text),
            remedy: finding.remedy.as_deref().map(terminal::escape),
            verdict: finding.verdict,
        };
        if finding.area != self.area {
            let heading = doctor::heading(&finding.area, self.colour);
            let gap = if self.area.is_empty() { "" } else { "\n" };
            terminal::print(&format!("{gap}{heading}"))?;
            self.area.clone_from(&finding.area);
            self.remedies.clear();
        }
        if let Some(remedy) = &mut finding.remedy {
            if self.remedies.contains(remedy) {
                *remedy = "as above".into();
            } else {
                self.remedies.push(remedy.clone());
            }
        }
        terminal::print(&doctor::line(&finding, self.colour))
    }
}
