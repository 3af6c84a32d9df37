//! Rows 19 and 23: what the disk refuses to do, and what it gives back otherwise than it was written.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Subject, ended, needing, strace};
use crate::support::running::{Running, wait};
use crate::support::{Pipeline, assert_same_rows, binary, trial};

const BLOCK: usize = 4_096;

pub fn trials() -> Vec<Trial> {
    let traced = |name, test| needing("TIDEMILL_STRACE", strace::available(), trial(name, test));
    vec![
        traced(
            "row_19_fsync_error_ends_the_process_and_a_restart_is_clean",
            fsync_errors,
        ),
        traced(
            "row_19_write_error_ends_the_process_and_a_restart_is_clean",
            write_errors,
        ),
        traced(
            "a_disk_that_is_slow_makes_the_input_wait_and_nothing_else",
            slow_disk,
        ),
        trial(
            "row_23_bit_flip_in_the_state_is_told_and_nothing_is_written",
            bit_flips,
        ),
    ]
}

fn fsync_errors() {
    // fdatasync is what redb and the sinks use; fsync is for directories.
    eio("fdatasync", &[1, 2, 3, 5, 7, 10, 15, 21, 28, 40]);
    eio("fsync", &[1, 2, 3, 5]);
}

fn write_errors() {
    eio("pwrite64", &[1, 2, 5, 10, 20, 35, 60, 100, 150, 250]);
    eio("ftruncate", &[1, 2]);
}

/// One start after the other, each of which meets an error a little later; then one that meets none.
fn eio(call: &str, nths: &[u32]) {
    let subject = Subject::new(8_000, 4_000, 19);
    let mut met = 0;
    for &nth in nths {
        let what = format!("{call} number {nth}");
        let mut command = strace::failing(&subject.to_the_end(), call, "EIO", nth, false);
        let (code, said) = ended(command.spawn().unwrap(), &what);
        if code == Some(0) {
            // It has not called so often in any thread.
            continue;
        }
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains("(os error 5)"), "{what}: {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
        met += 1;
    }
    assert!(met * 2 >= nths.len(), "{met} of {} errors met", nths.len());
    subject.assert_clean(&format!("after {met} errors of {call}"));
}

/// Changes come in faster than they can be merged: what waits in the log for that is bounded, status says why, and in the
/// end every row is there.
fn slow_disk() {
    const ROWS: usize = 43_000;
    const WAITS: &str = "the state changes faster than the disk under [host] state takes it";
    let run = Pipeline::new(
        2,
        // Ten thousand bytes of state a row.
        "[sources.rows]\nfile = { path = \"rows.jsonl\" }\nfields = { id = \"int\", ts = \"timestamp\" }\n\
         event_time = { field = \"ts\" }\nlimit = { per_second = 10000, per_epoch = 500 }\n\
         [steps.wide]\nfrom = \"rows\"\nselect = [\"id\", \"lpad(cast(id as string), 10000, 'x') as name\"]\n\
         [steps.first]\nfrom = \"wide\"\ndeduplicate = { on = [\"name\"], within = \"1h\" }\n\
         [steps.ids]\nfrom = \"first\"\nselect = [\"id\"]\n\
         [sinks.out]\nfrom = [\"ids\"]\nfile = { path = \"out.jsonl\" }\n",
    );
    let dir = run.dir.path();
    let rows = (0..ROWS).map(|id| json!({ "id": id, "ts": "2026-01-01T00:00:00Z" }));
    let lines: String = rows.map(|row| format!("{row}\n")).collect();
    std::fs::write(dir.join("rows.jsonl"), lines).unwrap();
    let slow = strace::slow(
        &run.command(&[]),
        "fdatasync",
        &dir.join("state").join("state.redb"),
        Duration::from_millis(500),
        // The first are those of its making.
        8..=28,
    );
    let mut host = Running::start(slow, &dir.join("said.txt"));
    let mut waited = false;
    while !waited && !host.has_ended() {
        let mut status = Command::new(binary());
        let output = status.arg("status").arg(run.file()).arg("--json");
        // None before it has started.
        if let Ok(status) = serde_json::from_slice::<Value>(&output.output().unwrap().stdout) {
            let source = &status["sources"][0];
            waited = source["waiting"] == WAITS;
            assert!(!waited || source["records_in"].as_u64() < Some(ROWS as u64));
        }
    }
    assert!(waited, "it never waited");
    assert!(host.end().success(), "{}", host.said());
    let ids = (0..ROWS).map(|id| json!({ "id": id }));
    assert_same_rows("a slow disk", run.rows("out.jsonl"), ids.collect());
}

/// Kills it in the middle; then, each time from there, flips a bit and runs to the end: refused, or whole all the same.
fn bit_flips() {
    const FLIPS: usize = 12;
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let killed = Subject::new(8_000, 6_000, 23);
    let mut child = killed.to_the_end().spawn().unwrap();
    wait(&mut child, Duration::from_millis(900));
    child.kill().unwrap();
    child.wait().unwrap();
    let saved = Saved::of(killed.run.dir.path());
    let mut refused = 0;
    for flip in 0..FLIPS {
        saved.restore();
        let name = ["log.redb", "state.redb"][flip % 2];
        let path = killed.state(name);
        let bytes = std::fs::read(&path).unwrap();
        let is_used = |block: &usize| bytes[block * BLOCK..][..BLOCK].iter().any(|&b| b != 0);
        let used: Vec<usize> = (0..bytes.len() / BLOCK).filter(is_used).collect();
        // The header, in block 1, is read at every start.
        let (block, within) = match flip {
            0 | 1 => (1, 0..512),
            _ => (used[rng.random_range(0..used.len())], 0..BLOCK),
        };
        let at = block * BLOCK + rng.random_range(within);
        flip_bit(&path, at, 1 << rng.random_range(0..8));
        let what = format!("a bit of byte {at} of {name}, seed {seed}");
        let faster = "sources.clicks.limit.per_second=1000000";
        let mut command = killed.run.command(&["--set", faster]);
        match ended(command.spawn().unwrap(), &what) {
            // Nothing needs it any more.
            (Some(0), _) => killed.assert_whole(&what),
            (code, said) => {
                assert_eq!(code, Some(1), "{what}: {said}");
                assert!(said.contains("damaged"), "{what}: {said}");
                assert!(!said.contains("panicked"), "{what}: {said}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 2, "{refused} of {FLIPS} flips refused");
    saved.restore();
    killed.assert_clean(&format!("without a flip, seed {seed}"));
}

/// The files of a directory as they were. Put back they are the same files, not copies: a sink knows its own.
struct Saved {
    dir: PathBuf,
    /// The files under a second name each, so that they stay while the first one goes.
    kept: TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Saved {
    fn of(dir: &Path) -> Self {
        let kept = tempfile::tempdir_in(dir.parent().unwrap()).unwrap();
        let keep = |(number, path): (usize, PathBuf)| {
            std::fs::hard_link(&path, kept.path().join(number.to_string())).unwrap();
            (path.clone(), std::fs::read(path).unwrap())
        };
        let mut found = files(dir);
        found.sort();
        Self {
            dir: dir.to_owned(),
            files: found.into_iter().enumerate().map(keep).collect(),
            kept,
        }
    }

    fn restore(&self) {
        for path in files(&self.dir) {
            std::fs::remove_file(path).unwrap();
        }
        for (number, (path, bytes)) in self.files.iter().enumerate() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::hard_link(self.kept.path().join(number.to_string()), path).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

fn flip_bit(path: &Path, at: usize, mask: u8) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at as u64).unwrap();
}
