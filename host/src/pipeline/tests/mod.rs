//! The pipeline file as users write it and get it wrong.

mod mistakes;
mod mutations;
mod plans;
mod shown;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::check::{Overrides, draft};
use super::diagnostics::Report;
use super::plan::Plan;
use super::resolve;
use crate::plugin::Runtime;

fn runtime() -> &'static Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(None).expect("plugins can be run here"))
}

/// `text` checked as `dir/pipeline.toml`: the plan if it has no mistake, and what was found.
fn check_text(dir: &Path, text: &str, overrides: &Overrides) -> (Option<Plan>, Report) {
    let mut draft = draft(&dir.join("pipeline.toml"), text.to_string(), overrides);
    let plan = resolve::resolve(&draft.spec, Some(runtime()), &mut draft.findings);
    (plan, Report::new(draft.spec.texts, draft.findings))
}

fn mistakes(text: &str) -> Report {
    let (plan, report) = check_text(Path::new("/nowhere"), text, &Overrides::default());
    assert_eq!(plan.is_none(), !report.diagnostics.is_empty(), "{report}");
    report
}

fn planned_in(dir: &Path, text: &str, overrides: &Overrides) -> (Plan, Report) {
    let (plan, report) = check_text(dir, text, overrides);
    match plan {
        Some(plan) => (plan, report),
        None => panic!("{report}"),
    }
}

fn planned(text: &str) -> Plan {
    planned_in(Path::new("/here"), text, &Overrides::default()).0
}

fn set(pairs: &[(&str, &str)]) -> Overrides {
    Overrides {
        set: pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect(),
        brokers: None,
    }
}

fn here(path: &str) -> PathBuf {
    Path::new("/here").join(path)
}
