//! `tidemill restore`: a snapshot in place of a pipeline's state, and what that means for each sink.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::status::state_dir;
use super::{Failure, table, terminal};
use crate::engine::snapshot::manifest::DEAD_LETTERS;
use crate::engine::snapshot::restore::{self, Put, Request};
use crate::pipeline::spec::{DeadLetters, SinkConnector, Spec};
use crate::pipeline::{self, Overrides};
use crate::sink::carried::Outside;
use crate::state::{self, replace::StateId};

const TELL_EVERY: Duration = Duration::from_secs(2);

/// Put a snapshot in place of the state of a pipeline
///
/// The pipeline must not run. The next start goes on from the snapshot's checkpoint: what was read after it is read again,
/// and results of it are written again. Files that grow are cut back to the checkpoint; other sinks get those results
/// twice, and the command says which.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill restore pipeline.toml /backup/shop-2026-01-01\n  tidemill restore pipeline.toml /backup/shop-2026-01-01 --replace"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    /// A snapshot, as `tidemill snapshot` writes it
    dir: PathBuf,
    /// A state that is there goes aside, into a directory within the state directory
    #[arg(long)]
    replace: bool,
    /// A state that nobody has any more: its decisions in Kafka, which a start refuses as foreign, belong to the past
    #[arg(long, value_name = "STATE_ID", value_parser = state_id)]
    abandon: Vec<StateId>,
}

fn state_id(text: &str) -> Result<StateId, String> {
    state::parse_state_id(text).ok_or_else(|| "expected 32 hexadecimal digits".into())
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let spec =
        pipeline::load(&arguments.pipeline, &Overrides::default()).map_err(Failure::Pipeline)?;
    let name = spec.name.as_ref().map_or("", |name| name.value.as_str());
    let state = state_dir(&spec);
    let request = Request {
        pipeline: name,
        state: &state,
        from: &arguments.dir,
        replace: arguments.replace,
        abandons: &arguments.abandon,
    };
    let (mut copied, mut told) = (0, Instant::now());
    let put = restore::restore(&request, &mut |bytes| {
        copied += bytes;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            terminal::progress(&format!("{} copied and checked", table::bytes(copied)));
        }
    })?;
    terminal::print(&describe(&put, &spec, &state, &arguments.pipeline))
}

/// What was done, and what the next start will do.
fn describe(put: &Put, spec: &Spec, state: &Path, file: &Path) -> String {
    let manifest = &put.manifest;
    let mut out = format!(
        "restored: {} holds checkpoint {} of {}, as of {} (state {}, in place of {})\n",
        state.display(),
        manifest.checkpoint,
        manifest.pipeline,
        manifest.as_of,
        put.state_id,
        manifest.state_id
    );
    if let Some(aside) = &put.aside {
        let aside = aside.display();
        let _ = writeln!(
            out,
            "the state before is in {aside}; remove it when it is not needed any more"
        );
    }
    let _ = writeln!(
        out,
        "\nwhat was read after that checkpoint is read again, and its results are written again:"
    );
    let dirs = directories(spec);
    for (sink, outside) in &put.outside {
        let name = if sink == DEAD_LETTERS {
            sink.clone()
        } else {
            format!("sink {sink}")
        };
        let known = spec.sinks.iter().find(|s| s.name.value == *sink);
        let text = match outside {
            Outside::File { path, .. } => {
                let path = file_of(spec, sink).unwrap_or_else(|| path.clone());
                file_words(&path, outside)
            }
            Outside::Directory { from } => {
                let dir = dirs.get(sink).map(PathBuf::as_path);
                directory_words(&label(put, sink), *from, dir)
            }
            Outside::Table { number } => format!(
                "rows of outputs above {number} are written again: with a key they take the place of those there, without one they are there twice"
            ),
            Outside::Unknown => again(known.and_then(|sink| sink.connector.as_ref())).into(),
        };
        let _ = writeln!(out, "  {name}: {text}");
    }
    let _ = writeln!(out, "\ngo on with: tidemill run {}", file.display());
    out
}

/// What files of the state that was copied are called.
fn label(put: &Put, sink: &str) -> String {
    let id = put.manifest.state_id.get(..8).unwrap_or_default();
    format!("{}-{sink}-{id}", put.manifest.pipeline)
}

fn directories(spec: &Spec) -> BTreeMap<String, PathBuf> {
    let dir = |sink: &crate::pipeline::spec::Sink| match sink.connector.as_ref()? {
        SinkConnector::Files { dir, .. } | SinkConnector::Parquet { dir, .. } => {
            let dir = dir.as_ref()?;
            Some((sink.name.value.clone(), spec.dir.join(&dir.value)))
        }
        _ => None,
    };
    spec.sinks.iter().filter_map(dir).collect()
}

/// The one file that the pipeline file names for a sink, or for dead letters.
fn file_of(spec: &Spec, sink: &str) -> Option<PathBuf> {
    let path = match sink {
        DEAD_LETTERS => match spec.dead_letters.as_ref()? {
            DeadLetters::File { path } => path.as_ref()?,
            DeadLetters::Kafka { .. } => return None,
        },
        sink => {
            let sink = spec.sinks.iter().find(|s| s.name.value == sink)?;
            match sink.connector.as_ref()? {
                SinkConnector::File { path, .. } => path.as_ref()?,
                _ => return None,
            }
        }
    };
    Some(spec.dir.join(&path.value))
}

fn file_words(path: &Path, outside: &Outside) -> String {
    let Outside::File {
        dev, ino, length, ..
    } = outside
    else {
        return String::new();
    };
    let shown = path.display();
    match fs::metadata(path) {
        Ok(m) if (m.dev(), m.ino()) != (*dev, *ino) => format!(
            "{shown} is another file than the one the snapshot knows: the next start will refuse it. Put that one back, or give the sink another name to begin a new file"
        ),
        Ok(m) if m.len() < *length => format!(
            "{shown} has {} bytes, {length} at the checkpoint: the next start will refuse it. Put the whole file back, or give the sink another name to begin a new file",
            m.len()
        ),
        Ok(m) => match m.len() - length {
            0 => format!("{shown} is as long as it was at the checkpoint: nothing is there twice"),
            more => format!(
                "the next start cuts {shown} back by {} to what it was at the checkpoint: nothing is there twice",
                table::bytes(more)
            ),
        },
        Err(e) => format!(
            "{shown} cannot be looked at ({e}), and the next start will refuse that. Put it back, or give the sink another name to begin a new file"
        ),
    }
}

fn directory_words(label: &str, from: u64, dir: Option<&Path>) -> String {
    let files = format!("files {label}-{from:06} and higher numbers");
    let Some(dir) = dir else {
        return format!("{files} hold rows that come again in files of other names");
    };
    let later = count(dir, label, from);
    match later {
        0 => format!(
            "no file in {} is of after the checkpoint: nothing is there twice",
            dir.display()
        ),
        n => format!(
            "{n} of the files in {} are of after the checkpoint and their rows come again in files of other names: remove {files} before the next start, or keep their rows twice",
            dir.display()
        ),
    }
}

/// Files below `dir` that `label` numbers `from` or higher.
fn count(dir: &Path, label: &str, from: u64) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let of = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => count(&entry.path(), label, from),
        _ => {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let number = name
                .strip_prefix(label)
                .and_then(|rest| rest.strip_prefix('-'));
            let number = number.and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
            usize::from(number.is_some_and(|number| number >= from))
        }
    };
    entries.flatten().map(of).sum()
}

fn again(connector: Option<&SinkConnector>) -> &'static str {
    match connector {
        Some(SinkConnector::Webhook { .. }) => {
            "rows after the checkpoint are sent again, those that are the same with the same ids"
        }
        Some(SinkConnector::Console { .. }) => "shows rows after the checkpoint again",
        _ => "rows after the checkpoint are there twice",
    }
}

#[cfg(test)]
mod tests;
