//! What a checkpoint's notes on its output name within the state directory: what a copy of the state must bring along, and
//! what such a note says once the copy stands elsewhere.
//!
//! Rows that are not visible yet (staged rows, the open file of a directory) and dead letters belong to the state; output
//! that readers see does not, and is not copied. Bytes before a synced cut never change, so they may be copied while the
//! sink goes on. Invariant: a note is of one kind of sink or left as it is; nothing is guessed from names of files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::staging::{self, Mark};
use super::{line_file, parquet, postgres, rolling};

/// A file that belongs to the state, open, so that it can be read to the end even if it is removed meanwhile.
#[derive(Debug)]
pub struct Carried {
    /// Relative to the state directory.
    pub name: PathBuf,
    pub file: File,
    /// So many bytes of it belong to the checkpoint.
    pub length: u64,
}

/// Output of a checkpoint that is not in the state directory: what a start from a copy finds there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Outside {
    /// A file that grows: rows beyond `length` are cut off at a start and come again.
    File {
        path: PathBuf,
        dev: u64,
        ino: u64,
        length: u64,
    },
    /// A directory: files that this state names with `from` and higher numbers hold what comes again.
    Directory { from: u64 },
    /// A table: outputs above `number` come again.
    Table { number: u64 },
    /// Nothing is known of what is there: all that came after comes again.
    Unknown,
}

enum Note {
    Lines(line_file::Cut),
    Rolling(rolling::Cut),
    Parquet(parquet::Cut),
    Postgres(postgres::Cut),
    None,
}

fn read(cut: &Value) -> Note {
    if let Ok(cut) = line_file::Cut::deserialize(cut) {
        Note::Lines(cut)
    } else if let Ok(cut) = rolling::Cut::deserialize(cut) {
        Note::Rolling(cut)
    } else if let Ok(cut) = parquet::Cut::deserialize(cut) {
        Note::Parquet(cut)
    } else if let Ok(cut) = postgres::Cut::deserialize(cut) {
        Note::Postgres(cut)
    } else {
        Note::None
    }
}

/// The files in the directory `state` that the note `cut` of the sink `sink` needs.
///
/// # Errors
/// Names the file that is missing or too short.
pub fn carried(state: &Path, sink: &str, cut: &Value) -> io::Result<Vec<Carried>> {
    let own = Path::new("sinks").join(sink);
    match read(cut) {
        Note::Lines(cut) => within(state, &cut).map(Vec::from_iter),
        Note::Rolling(cut) => {
            let open = cut.open.iter().map(|open| (open, true));
            let finished = cut.finished.iter().map(|open| (open, false));
            let mut all = Vec::new();
            for (open, needed) in open.chain(finished) {
                all.extend(unfinished(state, &own, open, needed)?);
            }
            Ok(all)
        }
        Note::Parquet(cut) => staged(state, &own, cut.from, cut.staged),
        Note::Postgres(cut) => staged(state, &own, cut.to, cut.to),
        Note::None => Ok(Vec::new()),
    }
}

/// The note on dead letters or a file sink, if the file lies in the state directory itself.
fn within(state: &Path, cut: &line_file::Cut) -> io::Result<Option<Carried>> {
    let Some(name) = cut.path.file_name() else {
        return Ok(None);
    };
    let path = state.join(name);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| named(&path, e))?,
    };
    let metadata = file.metadata()?;
    if (metadata.dev(), metadata.ino()) != (cut.dev, cut.ino) {
        return Ok(None);
    }
    long_enough(&path, &file, cut.length)?;
    Ok(Some(Carried {
        name: name.into(),
        file,
        length: cut.length,
    }))
}

/// A file that is being made. One that was finished may be visible by now.
fn unfinished(
    state: &Path,
    own: &Path,
    open: &rolling::OpenCut,
    needed: bool,
) -> io::Result<Option<Carried>> {
    let cut = line_file::Cut::deserialize(&open.file).map_err(io::Error::other)?;
    let name = own
        .join("unfinished")
        .join(rolling::unfinished_name(&open.name));
    // On another file system it was made within the directory that it goes to.
    let apart = state.join(&name);
    let path = if apart.exists() { &apart } else { &cut.path };
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !needed => return Ok(None),
        file => file.map_err(|e| named(path, e))?,
    };
    long_enough(path, &file, cut.length)?;
    Ok(Some(Carried {
        name,
        file,
        length: cut.length,
    }))
}

/// All staged rows that are still there, up to `end`. Those from `from` on must be.
fn staged(state: &Path, own: &Path, from: Mark, end: Mark) -> io::Result<Vec<Carried>> {
    let dir = state.join(own);
    let mut all = Vec::new();
    let mut needed = from.generation;
    for (generation, _) in staging::generations(&dir).map_err(io::Error::other)? {
        if generation > end.generation || generation > needed {
            break;
        }
        needed = needed.max(generation + 1);
        let path = staging::path_of(&dir, generation);
        let file = File::open(&path).map_err(|e| named(&path, e))?;
        let length = match generation == end.generation {
            true => end.length,
            false => file.metadata()?.len(),
        };
        long_enough(&path, &file, length)?;
        let name = path.file_name().unwrap_or_default();
        all.push(Carried {
            name: own.join(name),
            file,
            length,
        });
    }
    let is_empty = end == Mark::start_of(end.generation);
    let there = needed > end.generation || needed == end.generation && is_empty;
    match there {
        true => Ok(all),
        false => {
            let missing = staging::path_of(&dir, needed);
            Err(named(&missing, io::ErrorKind::NotFound.into()))
        }
    }
}

fn long_enough(path: &Path, file: &File, length: u64) -> io::Result<()> {
    let found = file.metadata().map_err(|e| named(path, e))?.len();
    if found >= length {
        return Ok(());
    }
    let text = format!("{found} bytes long, but {length} were written by the last checkpoint");
    Err(named(path, io::Error::other(text)))
}

fn named(path: &Path, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{}: {cause}", path.display()))
}

/// Where a state was copied from and stands now.
pub struct Moved<'a> {
    /// Where its files are while it is made ready.
    pub files: &'a Path,
    /// Where they will be.
    pub state: &'a Path,
    pub pipeline: &'a str,
    /// The ids that are part of names of files: of the state that was copied, and of this one.
    pub ids: [&'a str; 2],
}

impl Moved<'_> {
    /// The note `cut` of the sink `sink` as it is right for the copied files, which may get other names.
    /// `inside`: a file that grows lay in the state directory and was copied along.
    pub fn adopt(&self, sink: &str, cut: &Value, inside: bool) -> io::Result<Value> {
        let own = Path::new("sinks").join(sink);
        match read(cut) {
            Note::Lines(cut) if inside => self.adopt_lines(cut),
            Note::Rolling(mut cut) => {
                for open in cut.open.iter_mut().chain(&mut cut.finished) {
                    self.adopt_open(sink, &own, open)?;
                }
                Ok(serde_json::to_value(cut)?)
            }
            Note::Lines(_) | Note::Parquet(_) | Note::Postgres(_) | Note::None => Ok(cut.clone()),
        }
    }

    fn adopt_lines(&self, mut cut: line_file::Cut) -> io::Result<Value> {
        let name = cut.path.file_name().unwrap_or_default().to_owned();
        let copied = self.files.join(&name);
        let metadata = fs::metadata(&copied).map_err(|e| named(&copied, e))?;
        (cut.dev, cut.ino) = (metadata.dev(), metadata.ino());
        cut.path = self.state.join(name);
        Ok(serde_json::to_value(cut)?)
    }

    /// The state that was copied may have gone on and given the file its name: here it gets another.
    fn adopt_open(&self, sink: &str, own: &Path, open: &mut rolling::OpenCut) -> io::Result<()> {
        let dir = own.join("unfinished");
        let before = self
            .files
            .join(&dir)
            .join(rolling::unfinished_name(&open.name));
        let [old, new] = self.ids.map(|id| format!("{}-{sink}-{id}-", self.pipeline));
        if let Some(number) = open.name.strip_prefix(&old) {
            open.name = new + number;
        }
        let name = rolling::unfinished_name(&open.name);
        if !before.exists() {
            // Finished and visible already.
            return Ok(());
        }
        let after = self.files.join(&dir).join(&name);
        fs::rename(&before, &after).map_err(|e| named(&before, e))?;
        let mut cut = line_file::Cut::deserialize(&open.file).map_err(io::Error::other)?;
        let metadata = fs::metadata(&after).map_err(|e| named(&after, e))?;
        (cut.dev, cut.ino) = (metadata.dev(), metadata.ino());
        cut.path = self.state.join(&dir).join(&name);
        open.file = serde_json::to_value(cut)?;
        Ok(())
    }
}

/// What of the sink with the note `cut` is not in the directory `state`; `None`: all of it is.
pub fn outside(state: &Path, sink: &str, cut: &Value, inside: bool) -> Option<Outside> {
    let own = state.join("sinks").join(sink);
    Some(match read(cut) {
        Note::Lines(_) if inside => return None,
        Note::Lines(cut) => Outside::File {
            path: cut.path,
            dev: cut.dev,
            ino: cut.ino,
            length: cut.length,
        },
        Note::Rolling(cut) => Outside::Directory {
            from: cut.sequence - redone(&cut, &own),
        },
        Note::Parquet(cut) => {
            let again =
                |roll: &&parquet::Roll| staging::path_of(&own, roll.from.generation).exists();
            let first = cut.rolls.iter().find(again).map(|roll| roll.sequence);
            Outside::Directory {
                from: first.unwrap_or(cut.sequence),
            }
        }
        Note::Postgres(cut) => Outside::Table { number: cut.number },
        Note::None => Outside::Unknown,
    })
}

/// Whether `cut` is of one file that grows.
pub fn is_one_file(cut: &Value) -> bool {
    matches!(read(cut), Note::Lines(_))
}

/// Files that this checkpoint finished and that were not visible when it was copied: they are made visible once more.
fn redone(cut: &rolling::Cut, own: &Path) -> u64 {
    let dir = own.join("unfinished");
    let there = |open: &&rolling::OpenCut| dir.join(rolling::unfinished_name(&open.name)).exists();
    cut.finished.iter().filter(there).count() as u64
}
