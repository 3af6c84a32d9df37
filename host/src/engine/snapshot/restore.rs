//! Puts a snapshot in place of a pipeline's state: `tidemill restore`.
//!
//! The snapshot is copied beside and checked first, with the state as it was; then the old state goes aside and the copy
//! takes its place, under a mark that keeps every start out until it is whole. The copy is a state of its own: with a new
//! id, and with the ids that came before as its past. Invariant: a crash leaves the old state, or the mark, or the new one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::manifest::{DEAD_LETTERS, FILES, Manifest, copy_hashed};
use super::{hex, take};
use crate::crash;
use crate::engine::meta::EngineMeta;
use crate::engine::open::read_meta;
use crate::error::{ConnectorError, RunError};
use crate::sink::carried::{self, Moved, Outside};
use crate::state::replace::{self, Mark, StateId};
use crate::state::{FORMAT, Meta};

/// Where the copy is made ready, in the state directory.
const BESIDE: &str = "restore.new";
/// What goes aside with a state and comes with a snapshot; plugins stay, for their names tell their bytes.
const SINKS: &str = "sinks";

/// What is asked.
pub struct Request<'a> {
    /// The pipeline's name and state directory.
    pub pipeline: &'a str,
    pub state: &'a Path,
    /// The snapshot.
    pub from: &'a Path,
    /// A state that is there goes aside.
    pub replace: bool,
    /// States that nobody has any more, but whose decisions Kafka still has.
    pub abandons: &'a [StateId],
}

/// A snapshot in its place.
#[derive(Debug)]
pub struct Put {
    pub manifest: Manifest,
    pub state_id: String,
    /// Where the state before is now.
    pub aside: Option<PathBuf>,
    /// What lies outside the state directory, by sink and for the dead letters.
    pub outside: BTreeMap<String, Outside>,
}

/// Told how many bytes were copied.
pub type Each<'a> = dyn FnMut(u64) + 'a;

/// Does it.
///
/// # Errors
/// `Refused`, with the state as it was: no whole snapshot, of another pipeline or format, damaged, or there is a state.
/// `State` while a host runs.
pub fn restore(request: &Request<'_>, each: &mut Each<'_>) -> Result<Put, RunError> {
    let manifest = Manifest::read(request.from)?;
    check(&manifest, request)?;
    let _lock = replace::lock(request.state)?;
    let mark = replace::mark(request.state)?;
    let holds = holds_state(request.state);
    if mark.is_none() && holds && !request.replace {
        return Err(RunError::Refused(format!(
            "{} holds a state: with --replace it goes aside, into a directory within, and the snapshot takes its place",
            request.state.display()
        )));
    }
    let beside = request.state.join(BESIDE);
    copy(&manifest, request.from, &beside, each)?;
    crash::point("restore-copied");
    let adopted = adopt(&manifest, request, &beside, mark.as_ref());
    let (id, outside) = adopted.inspect_err(|_| drop(fs::remove_dir_all(&beside)))?;
    crash::point("restore-ready");
    let mark = mark.unwrap_or_else(|| Mark {
        from: request.from.display().to_string(),
        aside: aside(request.state),
        cleared: false,
    });
    put_in_place(request.state, &beside, mark.clone()).map_err(|e| io_error(request.state, e))?;
    let aside = request.state.join(&mark.aside);
    Ok(Put {
        manifest,
        state_id: hex(&id),
        aside: aside.exists().then_some(aside),
        outside,
    })
}

fn check(manifest: &Manifest, request: &Request<'_>) -> Result<(), RunError> {
    let refused = |cause: String| {
        RunError::Refused(format!(
            "{}: {cause}; nothing was changed",
            request.from.display()
        ))
    };
    if manifest.pipeline != request.pipeline {
        return Err(refused(format!(
            "a snapshot of pipeline `{}`, not of `{}`",
            manifest.pipeline, request.pipeline
        )));
    }
    if manifest.state_format != FORMAT {
        return Err(refused(format!(
            "its state is of format {}, this version reads {FORMAT}: restore it with version {}",
            manifest.state_format, manifest.tidemill
        )));
    }
    Ok(())
}

/// Also half of one: whatever is there is not overwritten.
fn holds_state(state: &Path) -> bool {
    let there = |name: &&str| state.join(name).exists();
    replace::STATE_FILES[..2].iter().any(there)
}

/// Copies the snapshot's files, each of which must be as the manifest says.
fn copy(
    manifest: &Manifest,
    from: &Path,
    beside: &Path,
    each: &mut Each<'_>,
) -> Result<(), RunError> {
    remove_dir(beside).map_err(|e| io_error(beside, e))?;
    let copied = manifest.files.iter().try_for_each(|entry| {
        let (source, target) = (from.join(FILES).join(&entry.path), beside.join(&entry.path));
        let damaged = |cause: &str| {
            RunError::Refused(format!(
                "{} is damaged: {}: {cause}; nothing was changed. Restore another snapshot",
                from.display(),
                entry.path
            ))
        };
        let mut file = match File::open(&source) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged("missing")),
            file => file.map_err(|e| io_error(&source, e))?,
        };
        let found = write_hashed(&mut file, &target, each).map_err(|e| io_error(&target, e))?;
        match found == (entry.bytes, entry.sha256.clone()) {
            true => Ok(()),
            false if found.0 != entry.bytes => Err(damaged(&format!(
                "{} bytes long, {} when it was taken",
                found.0, entry.bytes
            ))),
            false => Err(damaged("its checksum is another than when it was taken")),
        }
    });
    copied.inspect_err(|_| drop(fs::remove_dir_all(beside)))
}

fn write_hashed(from: &mut File, to: &Path, each: &mut Each<'_>) -> io::Result<(u64, String)> {
    if let Some(parent) = to.parent() {
        make_dir(parent)?;
    }
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(to)?;
    let found = copy_hashed(from, &mut file, &mut |bytes| {
        each(bytes);
        Ok(())
    })?;
    file.sync_all()?;
    Ok(found)
}

/// Makes the copy a state of its own.
fn adopt(
    manifest: &Manifest,
    request: &Request<'_>,
    beside: &Path,
    mark: Option<&Mark>,
) -> Result<(StateId, BTreeMap<String, Outside>), RunError> {
    let found = replace::look(beside)?;
    let number = found.latest.as_ref().map(|latest| latest.number);
    let named = (found.pipeline.as_str(), hex(&found.state_id), number);
    if named
        != (
            request.pipeline,
            manifest.state_id.clone(),
            Some(manifest.checkpoint),
        )
    {
        return Err(RunError::Refused(format!(
            "{}: its files are not those that snapshot.json tells of; nothing was changed",
            request.from.display()
        )));
    }
    let mut id = StateId::default();
    getrandom::fill(&mut id).map_err(|e| io_error(beside, io::Error::other(e)))?;
    let latest = found.latest.map(|latest| latest.meta).unwrap_or_default();
    let mut meta = read_meta(latest)?;
    let outside = outside(&meta, manifest, beside);
    adopt_notes(&mut meta, manifest, request, beside, &id)?;
    let mut past = found.supersedes;
    past.push(found.state_id);
    past.extend_from_slice(request.abandons);
    past.extend(past_of(request.state, mark)?);
    past.sort_unstable();
    past.dedup();
    let engine = serde_json::to_value(&meta).expect("plain data");
    replace::rename(beside, id, &past, &Meta { engine })?;
    super::sync_directories(beside).map_err(|e| io_error(beside, e))?;
    Ok((id, outside))
}

fn notes(meta: &EngineMeta) -> impl Iterator<Item = (&str, &Value)> {
    let sinks = meta.sinks.iter().map(|(name, cut)| (name.as_str(), cut));
    sinks.chain([(DEAD_LETTERS, &meta.dead_letters)])
}

fn outside(meta: &EngineMeta, manifest: &Manifest, beside: &Path) -> BTreeMap<String, Outside> {
    let of = |(name, cut): (&str, &Value)| {
        let inside = manifest.inside.iter().any(|n| n == name);
        Some((
            name.to_owned(),
            carried::outside(beside, name, cut, inside)?,
        ))
    };
    notes(meta).filter_map(of).collect()
}

fn adopt_notes(
    meta: &mut EngineMeta,
    manifest: &Manifest,
    request: &Request<'_>,
    beside: &Path,
    id: &StateId,
) -> Result<(), RunError> {
    let new = hex(id);
    let moved = Moved {
        files: beside,
        state: request.state,
        pipeline: request.pipeline,
        ids: [&manifest.state_id[..8], &new[..8]],
    };
    let sinks = meta
        .sinks
        .iter_mut()
        .map(|(name, cut)| (name.as_str(), cut));
    for (name, cut) in sinks.chain([(DEAD_LETTERS, &mut meta.dead_letters)]) {
        let inside = manifest.inside.iter().any(|n| n == name);
        *cut = moved
            .adopt(name, cut, inside)
            .map_err(|e| io_error(beside, e))?;
    }
    Ok(())
}

/// The ids of the state that goes aside, or has gone.
fn past_of(state: &Path, mark: Option<&Mark>) -> Result<Vec<StateId>, RunError> {
    let mut past = Vec::new();
    let aside = mark.map(|mark| state.join(&mark.aside));
    for dir in [Some(state.to_owned()), aside].into_iter().flatten() {
        if dir.join(replace::STATE_FILES[0]).exists() {
            // Whatever can be read of it: a state that is damaged is why somebody restores.
            match replace::look(&dir) {
                Ok(found) => {
                    past.extend(found.supersedes);
                    past.push(found.state_id);
                }
                Err(error) => tracing::warn!(
                    %error,
                    "the state that goes aside cannot be read: if it wrote to Kafka after the snapshot, the next start will name \
                     its id, for `tidemill restore --abandon`"
                ),
            }
        }
    }
    past.extend(replace::left_by_reset(state)?);
    past.retain(|id| *id != StateId::default());
    Ok(past)
}

/// A name within the state directory that nothing has yet.
fn aside(state: &Path) -> String {
    let now = take::micros(SystemTime::now()) / crate::time::MICROS_PER_SECOND;
    let names = (0..).map(|n| match n {
        0 => format!("replaced-{now}"),
        n => format!("replaced-{now}-{n}"),
    });
    let mut free = names.filter(|name| !state.join(name).exists());
    free.next().unwrap_or_default()
}

fn put_in_place(state: &Path, beside: &Path, mut mark: Mark) -> io::Result<()> {
    replace::set_mark(state, &mark)?;
    crash::point("restore-marked");
    if !mark.cleared {
        let aside = state.join(&mark.aside);
        for name in of_a_state(state, beside)? {
            make_dir(&aside)?;
            rename(&state.join(&name), &aside.join(&name))?;
            File::open(&aside)?.sync_all()?;
            crash::point("restore-aside");
        }
        File::open(state)?.sync_all()?;
        mark.cleared = true;
        replace::set_mark(state, &mark)?;
        crash::point("restore-cleared");
    } else {
        // Left by a restore that was cut off.
        for name in of_a_state(state, beside)? {
            remove_dir(&state.join(&name))?;
        }
    }
    let plugins = Path::new("plugins");
    if beside.join(plugins).exists() {
        make_dir(&state.join(plugins))?;
        for entry in fs::read_dir(beside.join(plugins))? {
            let entry = entry?;
            rename(&entry.path(), &state.join(plugins).join(entry.file_name()))?;
        }
        File::open(state.join(plugins))?.sync_all()?;
        fs::remove_dir(beside.join(plugins))?;
    }
    let mut rest = names(beside)?;
    // The log comes last, as it goes first.
    rest.sort_by_key(|name| name == replace::STATE_FILES[0]);
    for name in rest {
        rename(&beside.join(&name), &state.join(&name))?;
        crash::point("restore-placing");
    }
    File::open(state)?.sync_all()?;
    fs::remove_dir(beside)?;
    crash::point("restore-placed");
    replace::clear_mark(state)
}

/// What goes with a state, the log first: its files, staged rows, ids of its past, and what the copy brings.
fn of_a_state(state: &Path, beside: &Path) -> io::Result<Vec<String>> {
    let mut all: Vec<String> = replace::STATE_FILES
        .iter()
        .map(|n| (*n).to_owned())
        .collect();
    all.extend([SINKS, "dead-letters.jsonl", "supersedes"].map(String::from));
    let brought = names(beside)?;
    all.extend(brought.into_iter().filter(|n| n != "plugins"));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|name| state.join(name).exists() && seen.insert(name.clone()));
    Ok(all)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let name =
        |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    fs::read_dir(dir)?.map(name).collect()
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
    fs::rename(from, to).map_err(named)
}

/// Removes a file or a directory with all in it; one that is not there will do.
fn remove_dir(path: &Path) -> io::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn io_error(path: &Path, cause: io::Error) -> RunError {
    RunError::Connector(ConnectorError::io(path, cause))
}
