//! The secret that opens the admin API, and the file that says where it listens.
//!
//! Invariant: a token that someone else could have read is never used again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// In the state directory: the bearer token, mode 0600.
pub const TOKEN_FILE: &str = "admin-token";
/// In the state directory while a host runs: `127.0.0.1:PORT`.
pub const ADDRESS_FILE: &str = "admin-address";

const TOKEN_BYTES: usize = 32;

/// The token of a state directory: the one in its file, or a new one if there is none, if others may read the file, or
/// if it does not hold a token.
pub fn ensure(state: &Path) -> io::Result<String> {
    let path = state.join(TOKEN_FILE);
    match fs::metadata(&path) {
        Ok(meta) if meta.permissions().mode() & 0o077 == 0 => {
            if let Some(token) = read(state)? {
                return Ok(token);
            }
        }
        Ok(_) => {
            tracing::warn!(file = %path.display(), "others could read the admin token: making a new one");
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let token = hex(&bytes);
    replace(&path, &token, 0o600)?;
    Ok(token)
}

/// The token in the file; `None` if the file is absent or holds something else.
pub fn read(state: &Path) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(state.join(TOKEN_FILE)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let token = text.trim();
    let valid = token.len() == 2 * TOKEN_BYTES && token.bytes().all(|b| b.is_ascii_hexdigit());
    Ok(valid.then(|| token.to_owned()))
}

/// Whether two secrets are equal, in a time that depends on their lengths only.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

/// Writes `line` so that a reader sees the old file or the new one, never a part.
pub fn replace(path: &Path, line: &str, mode: u32) -> io::Result<()> {
    let draft = path.with_extension("new");
    // A draft left by a crash may have any mode.
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn made_once_and_only_for_its_owner() {
        let state = tempfile::tempdir().unwrap();
        let first = ensure(state.path()).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(mode(&state.path().join(TOKEN_FILE)), 0o600);
        assert_eq!(ensure(state.path()).unwrap(), first);
        assert_eq!(read(state.path()).unwrap(), Some(first));
    }

    #[test]
    fn what_others_could_read_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(TOKEN_FILE);
        let first = ensure(state.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(ensure(state.path()).unwrap(), first);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn rubbish_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        replace(&state.path().join(TOKEN_FILE), "not a token", 0o600).unwrap();
        assert_eq!(read(state.path()).unwrap(), None);
        assert_eq!(ensure(state.path()).unwrap().len(), 64);
    }

    #[test]
    fn equality_of_secrets() {
        for (a, b, expected) in [
            ("abc", "abc", true),
            ("abc", "abd", false),
            ("abc", "ab", false),
            ("", "a", false),
            ("", "", true),
        ] {
            assert_eq!(equal(a.as_bytes(), b.as_bytes()), expected, "{a:?} {b:?}");
        }
    }
}
