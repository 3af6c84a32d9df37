//! The disk under the state: who owns the directory, how fast it syncs, how much room there is, whether files lock.
//!
//! Writes files of its own only, and leaves none behind. Where the directory is not there yet, the one that it will be made
//! in is looked at.

use std::ffi::CString;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Findings, shown_ms};

/// Writes that are synced, each of a page.
const SYNCS: usize = 50;
const SYNC_BYTES: usize = 4_096;
/// A disk that is as slow as this is known well enough.
const SYNCS_WITHIN: Duration = Duration::from_secs(5);
/// A checkpoint syncs some times: with this, output waits for tens of milliseconds...
const SYNC_MAX: Duration = Duration::from_millis(20);
/// ... and now and then for as long as this; one slow sync among some dozens says little.
const SYNC_P99_MAX: Duration = Duration::from_millis(100);
const FREE_MIN: u64 = 64 << 20;
const FREE_WARN: u64 = 1 << 30;

pub(super) fn examine(state: &Path, findings: &mut Findings<'_>) {
    let dir = match existing(state) {
        Ok(dir) => dir,
        Err(error) => {
            findings.failure(
                format!("{} cannot be looked at: {error}", state.display()),
                "give this user a directory of its own, or another one with [host] state",
            );
            return;
        }
    };
    match std::fs::metadata(&dir) {
        Ok(about) if dir == state => rights(state, &about, own_id(), findings),
        Ok(_) => findings.ok(format!(
            "not there yet: the first run makes it in {}",
            dir.display()
        )),
        Err(_) => {}
    }
    if let Err(error) = writes(&dir, findings) {
        findings.failure(
            format!("{} cannot be written: {error}", dir.display()),
            "let this user write it, or give the pipeline another directory with [host] state",
        );
        return;
    }
    match free_bytes(&dir) {
        Ok(free) => room(free, used_bytes(state), findings),
        Err(error) => findings.warning(format!("free space is not known: {error}"), "look with df"),
    }
}

/// The directory, or the nearest above it that is there.
fn existing(state: &Path) -> io::Result<PathBuf> {
    let mut dir = state.to_owned();
    loop {
        match std::fs::metadata(&dir) {
            Ok(about) if about.is_dir() => return Ok(dir),
            Ok(_) => {
                return Err(io::Error::other(format!(
                    "{} is no directory",
                    dir.display()
                )));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        dir = match dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => return Err(io::Error::other("there is no directory above it")),
        };
    }
}

fn rights(state: &Path, about: &Metadata, own: u32, findings: &mut Findings<'_>) {
    let mode = about.mode() & 0o777;
    if about.uid() != own && own != 0 {
        findings.failure(
            format!("it belongs to user {}, this is user {own}", about.uid()),
            format!("run as its owner, or: chown -R {own} {}", state.display()),
        );
    } else if mode & 0o077 != 0 {
        findings.warning(
            format!(
                "others may read it (mode {mode:04o}): it holds data, and the admin API's token"
            ),
            format!("chmod 700 {}", state.display()),
        );
    } else {
        findings.ok(format!("mode {mode:04o}, owned by user {}", about.uid()));
    }
}

/// Tries the speed of syncs, and locks, in files that are gone afterwards.
fn writes(dir: &Path, findings: &mut Findings<'_>) -> io::Result<()> {
    let times = sync_times(&mut tempfile::tempfile_in(dir)?)?;
    speed(&times, findings);
    let locked = tempfile::Builder::new()
        .prefix(".doctor-")
        .tempfile_in(dir)?;
    locks(locked.as_file(), &locked.reopen()?, findings);
    Ok(())
}

/// How long each of some writes took to be durable; ascending.
fn sync_times(file: &mut File) -> io::Result<Vec<Duration>> {
    let page = [0x5a; SYNC_BYTES];
    let mut times = Vec::with_capacity(SYNCS);
    let began = Instant::now();
    while times.len() < SYNCS && began.elapsed() < SYNCS_WITHIN {
        let at = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(at.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn speed(times: &[Duration], findings: &mut Findings<'_>) {
    let Some(last) = times.len().checked_sub(1) else {
        return;
    };
    let (median, p99) = (times[last / 2], times[(times.len() * 99).div_ceil(100) - 1]);
    let text = format!(
        "fsync takes {} (median), {} (p99) of {} writes of 4 KB",
        shown_ms(median),
        shown_ms(p99),
        times.len()
    );
    if median > SYNC_MAX || p99 > SYNC_P99_MAX {
        findings.warning(
            text,
            "each checkpoint waits for some of them: use a local SSD, or expect output that much later",
        );
    } else {
        findings.ok(text);
    }
}

/// Two handles of one file: what the one has locked, the other must not get.
fn locks(one: &File, other: &File, findings: &mut Findings<'_>) {
    let remedy = "two hosts could run at once on this file system: put the state on a local one";
    match (one.try_lock(), other.try_lock()) {
        (Ok(()), Err(TryLockError::WouldBlock)) => findings.ok("file locks keep a second host out"),
        (Ok(()), Ok(())) => findings.failure("file locks do not lock here", remedy),
        (Err(error), _) | (_, Err(error)) => {
            findings.failure(format!("files cannot be locked here: {error}"), remedy);
        }
    }
}

/// Merging writes the state anew, so it needs room for some of it again.
fn room(free: u64, used: u64, findings: &mut Findings<'_>) {
    let state = match used {
        0 => String::new(),
        used => format!(", the state has {}", shown_bytes(used)),
    };
    let text = format!("{} free{state}", shown_bytes(free));
    let remedy = "make room: a full disk stops the pipeline at its next checkpoint";
    if free < FREE_MIN {
        findings.failure(text, remedy);
    } else if free < FREE_WARN.max(used) {
        findings.warning(text, remedy);
    } else {
        findings.ok(text);
    }
}

/// Bytes of all files in the directory, however deep.
fn used_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        // A link is not followed: it could lead round in a circle.
        Ok(about) if about.is_dir() => used_bytes(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn shown_bytes(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{:.1} GB", b as f64 / (1u64 << 30) as f64),
        b if b >= 1 << 20 => format!("{:.1} MB", b as f64 / (1u64 << 20) as f64),
        b => format!("{} KB", b.div_ceil(1 << 10)),
    }
}

/// Bytes that this user may still write.
fn free_bytes(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: all-zero bytes are a valid statvfs, which the call fills; the path ends with a zero and outlives it.
    let (asked, about) = unsafe {
        let mut about = std::mem::zeroed::<libc::statvfs>();
        let asked = libc::statvfs(path.as_ptr(), &raw mut about);
        (asked, about)
    };
    match asked {
        0 => Ok(about.f_bavail.saturating_mul(about.f_frsize)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn own_id() -> u32 {
    // SAFETY: the call has no conditions and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Finding, Verdict, found};
    use super::*;

    fn only(findings: &[Finding]) -> (Verdict, &str) {
        assert_eq!(findings.len(), 1, "{findings:?}");
        (findings[0].verdict, &findings[0].text)
    }

    #[test]
    fn a_directory_of_its_own_is_fine_and_nothing_is_left_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let said = found(|f| examine(dir.path(), f));
        assert!(
            said.iter().all(|f| f.verdict != Verdict::Failure),
            "{said:?}"
        );
        assert!(said[0].text.starts_with("mode 0700"), "{said:?}");
        assert!(
            said.iter().any(|f| f.text.contains("of 50 writes")),
            "{said:?}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let below = dir.path().join("a/b");
        let said = found(|f| examine(&below, f));
        assert!(said[0].text.contains("not there yet"), "{said:?}");
        assert!(!below.exists());
    }

    #[test]
    fn a_file_in_its_place_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        std::fs::write(&file, "x").unwrap();
        for path in [&file, &file.join("below")] {
            let said = found(|f| examine(path, f));
            assert_eq!(only(&said).0, Verdict::Failure);
        }
    }

    #[test]
    fn rights_of_others_and_another_owner() {
        let dir = tempfile::tempdir().unwrap();
        let about = |mode| {
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            std::fs::metadata(dir.path()).unwrap()
        };
        let judged = |about: &Metadata, own| found(|f| rights(dir.path(), about, own, f));
        let open = about(0o755);
        let said = judged(&open, open.uid());
        assert_eq!(only(&said).0, Verdict::Warning);
        assert!(
            said[0].remedy.as_ref().unwrap().starts_with("chmod 700 "),
            "{said:?}"
        );
        let said = judged(&about(0o700), open.uid() + 1);
        assert_eq!(only(&said).0, Verdict::Failure);
    }

    #[test]
    fn slow_disks_full_disks_and_locks_that_do_not_lock() {
        let ms = Duration::from_millis;
        let said = found(|f| speed(&[ms(1), ms(2), ms(3)], f));
        assert_eq!(
            only(&said),
            (
                Verdict::Ok,
                "fsync takes 2.0 ms (median), 3.0 ms (p99) of 3 writes of 4 KB"
            )
        );
        let said = found(|f| speed(&[ms(1), ms(21), ms(30)], f));
        assert_eq!(only(&said).0, Verdict::Warning);
        for (free, used, verdict) in [
            (1 << 20, 0, Verdict::Failure),
            (100 << 20, 0, Verdict::Warning),
            (4 << 30, 5 << 30, Verdict::Warning),
            (9 << 30, 5 << 30, Verdict::Ok),
        ] {
            assert_eq!(only(&found(|f| room(free, used, f))).0, verdict);
        }
        let (a, b) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        assert_eq!(only(&found(|f| locks(&a, &b, f))).0, Verdict::Failure);
    }
}
