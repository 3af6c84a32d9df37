//! Which states a state takes the place of: those whose decisions in Kafka belong to its own past.
//!
//! A state that is given up (`reset`) or brought back from a copy (`restore`) leaves decisions behind that the state made
//! after it would have to refuse as foreign. Whoever gives it up on purpose writes its id into a file beside; the next
//! state made in that directory takes the ids over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::file::sync_directory;

/// One id in hexadecimal a line.
const FILE: &str = "supersedes";

pub(super) type StateId = [u8; 16];

/// The ids that the state made next in `dir` takes the place of.
pub(super) fn read(dir: &Path) -> io::Result<Vec<StateId>> {
    let path = path(dir);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let malformed = || {
        let words = format!(
            "{}: not a list of state ids, one a line; delete it",
            path.display()
        );
        io::Error::other(words)
    };
    text.lines()
        .map(|line| parse(line).ok_or_else(malformed))
        .collect()
}

/// Adds `ids` for the state that will be made next in `dir`, durably.
pub(super) fn add(dir: &Path, ids: &[StateId]) -> io::Result<()> {
    let mut all = read(dir)?;
    all.extend(
        ids.iter()
            .copied()
            .filter(|id| !all.contains(id))
            .collect::<Vec<_>>(),
    );
    let beside = dir.join("supersedes.new");
    let mut options = File::options();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(&beside)?;
    for id in &all {
        writeln!(file, "{}", shown(id))?;
    }
    file.sync_all()?;
    fs::rename(&beside, path(dir))?;
    sync_directory(&path(dir))
}

/// The state that took the ids over is durable.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_file(path(dir)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// An id as it is written everywhere outside the files of the state.
pub fn shown(id: &StateId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id that [`shown`] wrote.
pub fn parse(text: &str) -> Option<StateId> {
    let digits = text.trim().as_bytes();
    let mut id = [0; 16];
    if digits.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(id)
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_added_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        add(dir.path(), &[[1; 16], [2; 16]]).unwrap();
        add(dir.path(), &[[2; 16], [3; 16]]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [[1; 16], [2; 16], [3; 16]]);
        clear(dir.path()).unwrap();
        clear(dir.path()).unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["xyz", "00", "0102030405060708090a0b0c0d0e0f1g"] {
            fs::write(path(dir.path()), text).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(
                error.contains("supersedes: not a list of state ids"),
                "{error}"
            );
        }
        let id = *b"0123456789abcdef";
        assert_eq!(parse(&shown(&id)), Some(id));
    }
}
