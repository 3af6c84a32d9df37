//! `tidemill reset --to`: the target as it is written, and the proposal as a person reads it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::Value;

use crate::cli::table::{self, Align};
use crate::cli::{Failure, terminal};
use crate::engine::reposition::{self, Offsets, PartitionMove, Proposal, SourceMove, Target};
use crate::limits::OFFSETS_FILE_BYTES_MAX;
use crate::pipeline::plan::Plan;
use crate::pipeline::time;
use crate::time::Micros;

/// `--to` as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    Earliest,
    Time(Micros),
    File(PathBuf),
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "earliest" {
            return Ok(Self::Earliest);
        }
        if let Ok(time) = time(text) {
            return Ok(Self::Time(time));
        }
        if Path::new(text).extension().is_some_and(|e| e == "json") || Path::new(text).is_file() {
            return Ok(Self::File(text.into()));
        }
        Err(
            "expected earliest, a time such as 2026-01-01T00:00:00Z, or a file such as offsets.json"
                .into(),
        )
    }
}

impl To {
    /// Reads the file of offsets, if it is one.
    pub fn target(&self) -> Result<Target, Failure> {
        match self {
            Self::Earliest => Ok(Target::Earliest),
            Self::Time(time) => Ok(Target::Time(*time)),
            Self::File(path) => {
                let text = read(path)
                    .map_err(|cause| Failure::Refused(format!("{}: {cause}", path.display())))?;
                let offsets = offsets(&text).map_err(|mistakes| {
                    Failure::Refused(format!(
                        "{}: {mistakes}; it looks like {{ \"clicks\": {{ \"0\": 1234 }} }}: offsets by source and partition",
                        path.display()
                    ))
                })?;
                Ok(Target::Offsets(offsets))
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > OFFSETS_FILE_BYTES_MAX {
        return Err(format!(
            "{length} bytes are more than the {OFFSETS_FILE_BYTES_MAX} that offsets may take"
        ));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

/// `{ "clicks": { "0": 1234 } }`; all mistakes of it in one sentence.
fn offsets(text: &str) -> Result<Offsets, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
    let Value::Object(sources) = value else {
        return Err("no JSON object".into());
    };
    let mut all = Offsets::new();
    let mut mistakes = Vec::new();
    for (source, partitions) in sources {
        let Value::Object(partitions) = partitions else {
            mistakes.push(format!("`{source}` is no object"));
            continue;
        };
        for (partition, offset) in partitions {
            let number = partition.parse::<u32>().ok();
            match (number, offset.as_i64().filter(|o| *o >= 0)) {
                (Some(number), Some(offset)) => {
                    let entry = all.entry(source.clone()).or_default();
                    entry.insert(number, offset);
                }
                (None, _) => mistakes.push(format!("`{source}`: `{partition}` is no partition")),
                (_, None) => {
                    mistakes.push(format!("`{source}`, {partition}: {offset} is no offset"))
                }
            }
        }
    }
    match (mistakes.is_empty(), all.is_empty()) {
        (false, _) => Err(mistakes.join("; ")),
        (true, true) => Err("it names no offset".into()),
        (true, false) => Ok(all),
    }
}

/// Shows what going to `target` means and, with `yes`, does it.
pub fn carry_out(plan: &Plan, file: &Path, target: &Target, yes: bool) -> Result<(), Failure> {
    let proposal = reposition::propose(plan, target, &|| false)?;
    let text = describe(plan, &proposal, terminal::width());
    if !proposal.changes() {
        return terminal::print(&format!("{text}\nnothing to do: every source is there\n"));
    }
    if !yes {
        return terminal::print(&format!(
            "{text}\nnothing was changed; run again with --yes to do it\n"
        ));
    }
    terminal::print(&text)?;
    proposal.carry_out(plan)?;
    terminal::print(&format!(
        "\ndone: the next `tidemill run {}` goes on there\n",
        file.display()
    ))
}

/// The proposal for a person: sources, steps, sinks.
fn describe(plan: &Plan, proposal: &Proposal, width: Option<usize>) -> String {
    let mut out = sources(&proposal.sources, width);
    if proposal.was_finished {
        out += "\nthe pipeline had run to the end of time; this is taken back, for all of its sources and steps\n";
    }
    steps(&mut out, proposal);
    sinks(&mut out, plan, proposal);
    out
}

fn sources(all: &[SourceMove], width: Option<usize>) -> String {
    let head = [
        ("source", Align::Left),
        ("partition", Align::Right),
        ("now", Align::Right),
        ("then", Align::Right),
        ("", Align::Left),
    ];
    let row = |s: &SourceMove, p: &PartitionMove| {
        vec![
            s.name.clone(),
            p.partition.to_string(),
            p.now.map_or("-".into(), count),
            count(p.then),
            effect(p, s.unit),
        ]
    };
    let rows = all
        .iter()
        .flat_map(|s| s.partitions.iter().map(move |p| row(s, p)));
    let mut out = table::render(&head, &rows.collect::<Vec<_>>(), width);
    for source in all.iter().filter(|s| s.partitions.is_empty()) {
        let _ = writeln!(out, "  {} stays where it is", source.name);
    }
    for source in all {
        if let Some(note) = source.note {
            let _ = writeln!(out, "  {}: {note}", source.name);
        }
    }
    out
}

fn count(n: i64) -> String {
    table::thousands(u64::try_from(n).unwrap_or(0))
}

fn some(n: u64, unit: &str) -> String {
    match n {
        1 => format!("1 {unit} is"),
        n => format!("{} {unit}s are", table::thousands(n)),
    }
}

fn effect(p: &PartitionMove, unit: &str) -> String {
    match (p.now, p.again(), p.skipped()) {
        (None, ..) => "nothing was read yet".into(),
        (_, 0, 0) => "stays".into(),
        (_, again, 0) => format!("{} read again", some(again, unit)),
        (_, _, skipped) => format!("{} NOT read", some(skipped, unit)),
    }
}

fn steps(out: &mut String, proposal: &Proposal) {
    if proposal.steps.is_empty() {
        *out += "\nno step loses state\n";
        return;
    }
    *out += "\nsteps that give up their state, for it no longer fits what is read:\n";
    for step in &proposal.steps {
        let _ = writeln!(out, "  {}: {}", step.name, step.kept);
        if !step.not_read_again.is_empty() {
            let _ = writeln!(
                out,
                "    it also reads {}, which goes on where it is: what it held of those rows does not come again",
                step.not_read_again.join(", ")
            );
        }
    }
}

fn sinks(out: &mut String, plan: &Plan, proposal: &Proposal) {
    let again = proposal
        .sources
        .iter()
        .flat_map(|s| &s.partitions)
        .any(|p| p.again() > 0);
    if proposal.sinks.is_empty() || !(again || proposal.was_finished) {
        *out += "\nsinks keep what they wrote and go on behind it\n";
        return;
    }
    *out += "\nsinks keep what they wrote; results of rows that are read again are written once more, behind it:\n";
    for fate in &proposal.sinks {
        let place = plan.sinks.iter().find(|s| s.name == fate.name);
        let place = place.map_or_else(String::new, |s| crate::pipeline::sink_place(&s.connector));
        let what = match (fate.begins_anew, fate.could_begin_anew) {
            (true, _) => "begins anew with the next run, for it says existing = \"overwrite\"",
            (_, true) => {
                "goes on behind what is there; with existing = \"overwrite\" it begins anew"
            }
            _ => "goes on behind what is there",
        };
        let _ = writeln!(out, "  {} ({place}): {what}", fate.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_word_a_time_or_a_file() {
        for (text, expected) in [
            ("earliest", Some(To::Earliest)),
            ("1970-01-01T00:00:01Z", Some(To::Time(1_000_000))),
            ("1970-01-01T01:00:01+01:00", Some(To::Time(1_000_000))),
            (
                "some/offsets.json",
                Some(To::File("some/offsets.json".into())),
            ),
            ("latest", None),
            ("yesterday", None),
            ("2026-01-01", None),
        ] {
            assert_eq!(text.parse::<To>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn offsets_by_source_and_partition() {
        let read = offsets(r#"{ "clicks": { "0": 1234, "7": 0 }, "buys": { "1": 5 } }"#).unwrap();
        assert_eq!(read["clicks"][&7], 0);
        assert_eq!(read["buys"][&1], 5);
        for (text, said) in [
            ("{", "no JSON"),
            ("[1]", "no JSON object"),
            ("{}", "it names no offset"),
            (r#"{ "clicks": {} }"#, "it names no offset"),
            (r#"{ "clicks": 4 }"#, "`clicks` is no object"),
            (r#"{ "clicks": { "first": 4 } }"#, "`first` is no partition"),
            (r#"{ "clicks": { "-1": 4 } }"#, "`-1` is no partition"),
            (r#"{ "clicks": { "0": -4 } }"#, "-4 is no offset"),
            (r#"{ "clicks": { "0": 1.5 } }"#, "1.5 is no offset"),
            (
                r#"{ "clicks": { "0": "4" }, "b": [] }"#,
                "`clicks`, 0: \"4\" is no offset; `b` is no object",
            ),
        ] {
            let mistake = offsets(text).unwrap_err();
            assert!(mistake.contains(said), "{text}: {mistake}");
        }
    }
}
