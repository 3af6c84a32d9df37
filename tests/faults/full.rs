//! Row 20: a disk without room. The host stands still, says which disk, and goes on by itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use super::process::under_load;
use super::{Subject, ended, needing, signal};
use crate::pauses::until;
use crate::support::trial;

pub fn trials() -> Vec<Trial> {
    let mounting = |name, test| needing("TIDEMILL_MOUNT", Mount::available(), trial(name, test));
    vec![
        mounting(
            "row_20_full_disk_under_the_state_pauses_and_goes_on_with_room",
            || on_a_full_disk("state = \"state\"", "state"),
        ),
        mounting(
            "row_20_full_disk_under_a_file_sink_pauses_and_goes_on_with_room",
            || on_a_full_disk("path = \"all.jsonl\"", "all.jsonl"),
        ),
        mounting(
            "row_20_full_disk_under_a_directory_pauses_and_goes_on_with_room",
            || on_a_full_disk("dir = \"rolled\"", "rolled"),
        ),
        mounting(
            "row_20_full_disk_ends_a_bounded_run_and_a_restart_is_clean",
            bounded,
        ),
        trial(
            "row_20_file_at_its_limit_pauses_and_goes_on_with_room",
            at_the_limit_of_a_file,
        ),
    ]
}

/// A subject with one thing of it on a small disk of its own: `setting` in its file, which then is `name` there.
fn subject_on(mount: &Mount, setting: &str, name: &str) -> Subject {
    let subject = Subject::new(60_000, 3_000, 20);
    let file = subject.run.file();
    let text = fs::read_to_string(&file).unwrap();
    let key = setting.split(" = ").next().unwrap();
    let there = format!("{key} = \"{}\"", mount.dir.path().join(name).display());
    assert!(text.contains(setting), "{text}");
    fs::write(&file, text.replace(setting, &there)).unwrap();
    subject
}

fn on_a_full_disk(setting: &str, name: &str) {
    let mount = Mount::new(64).unwrap();
    let subject = subject_on(&mount, setting, name);
    let child = under_load(&subject);
    for _ in 0..2 {
        let ballast = mount.fill();
        let number = paused(&subject, mount.dir.path());
        fs::remove_file(ballast).unwrap();
        goes_on(&subject, number);
    }
    stopped(child);
    subject.assert_clean_in(mount.dir.path(), name);
}

fn bounded() {
    let mount = Mount::new(64).unwrap();
    let subject = subject_on(&mount, "state = \"state\"", "state");
    let child = subject.to_the_end().spawn().unwrap();
    until(&subject.run, |status| {
        status["checkpoint"]["number"].as_u64() > Some(3)
    });
    let ballast = mount.fill();
    let (code, said) = ended(child, "a bounded run on a full disk");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("(os error 28)"), "{said}");
    fs::remove_file(ballast).unwrap();
    subject.assert_clean("with room again");
}

/// A quota of another kind: no file of the process may grow beyond some size.
fn at_the_limit_of_a_file() {
    let subject = Subject::new(60_000, 3_000, 21);
    let child = under_load(&subject);
    for _ in 0..2 {
        limit_files(&child, 64 << 10);
        let number = paused(&subject, subject.run.dir.path());
        limit_files(&child, libc::RLIM_INFINITY);
        goes_on(&subject, number);
    }
    stopped(child);
    subject.assert_clean("after files at their limit");
}

/// Waits for the pause, which must say why and where; gives the checkpoint that it stands at.
fn paused(subject: &Subject, place: &Path) -> u64 {
    let status = until(&subject.run, |status| status["state"]["paused"].is_string());
    let why = status["state"]["paused"].as_str().unwrap();
    assert!(why.contains("disk full"), "{why}");
    assert!(why.contains(place.to_str().unwrap()), "{why}");
    assert!(why.contains("goes on by itself"), "{why}");
    status["checkpoint"]["number"].as_u64().unwrap()
}

fn goes_on(subject: &Subject, from: u64) {
    let running = |status: &Value| {
        status["state"] == "running" && status["checkpoint"]["number"].as_u64() > Some(from + 2)
    };
    until(&subject.run, running);
}

fn stopped(child: Child) {
    signal(&child, libc::SIGTERM);
    let (code, said) = ended(child, "SIGTERM");
    assert_eq!(code, Some(0), "{said}");
}

fn limit_files(child: &Child, bytes: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a valid limit for a child of this process; no old one is asked for.
    let set = unsafe {
        libc::prlimit(
            child.id() as i32,
            libc::RLIMIT_FSIZE,
            &raw const limit,
            std::ptr::null_mut(),
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// A disk of its own, in memory, of some MiB.
struct Mount {
    dir: TempDir,
}

impl Mount {
    /// Whether there can be one; `Err` says why not and what to do.
    fn available() -> Result<(), String> {
        Self::new(1).map(drop)
    }

    fn new(mebibytes: u32) -> Result<Self, String> {
        let dir = TempDir::new().map_err(|e| e.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]);
        mount.arg(format!("size={mebibytes}m")).arg("tmpfs");
        match mount.arg(dir.path()).output() {
            Ok(output) if output.status.success() => Ok(Self { dir }),
            _ => Err("needs to mount a small disk: run as root".into()),
        }
    }

    /// Leaves no room: a file that takes what there is.
    fn fill(&self) -> PathBuf {
        let path = self.dir.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        for bytes in [1 << 20, 4_096] {
            while file.write_all(&vec![1; bytes]).is_ok() {}
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a host that is about to end may still hold a file there.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .output();
    }
}
