//! What is no whole snapshot of this pipeline is refused, with the state as it was.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use libtest_mimic::Trial;
use tempfile::TempDir;

use super::{Host, files, finish, refused, restore, slow_plugins, snapshot, succeed, text};
use crate::pipelines::assert_all_plugins;
use crate::support::data::Data;
use crate::support::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("damaged_snapshots_are_refused", damaged),
        trial("snapshots_of_another_pipeline_are_refused", foreign),
        trial("snapshots_are_not_written_where_something_is", places),
        trial("snapshot_and_state_want_the_token", tokens),
        trial("restore_waits_for_no_running_host", running),
    ]
}

/// Every file of a snapshot, changed by a bit, cut and gone.
fn damaged() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 30_000, 12);
    let run = slow_plugins(&data);
    Host::start(&run).kill();
    let to = dir.path().join("snapshot");
    snapshot(&run, &to);
    let all = files(&to);
    assert!(all.len() >= 6, "{all:?}");
    for path in &all {
        let whole = fs::read(path).unwrap();
        let mut changes = vec![None];
        if !whole.is_empty() {
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 0x10;
            changes.extend([Some(flipped), Some(whole[..whole.len() - 2].to_vec())]);
        }
        for change in changes {
            match &change {
                None => fs::remove_file(path).unwrap(),
                Some(bytes) => fs::write(path, bytes).unwrap(),
            }
            let said = refused(&run, &["restore"], &[text(&to), "--replace"], 2);
            let known = ["damaged", "no snapshot"]
                .iter()
                .any(|part| said.contains(part));
            assert!(known, "{}: {said}", path.display());
            assert!(
                said.contains("nothing was changed") || path.ends_with("snapshot.json"),
                "{said}"
            );
        }
        fs::write(path, whole).unwrap();
    }
    assert!(!run.dir.path().join("state/restore.new").exists());
    // The state is as it was, and the snapshot whole again.
    restore(&run, &to, &["--replace"]);
    finish(&run);
    assert_all_plugins(&run, &data, "after damaged snapshots");
}

fn foreign() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 30_000, 13);
    let run = slow_plugins(&data);
    Host::start(&run).kill();
    let to = dir.path().join("snapshot");
    snapshot(&run, &to);
    let other = slow_plugins(&data);
    let text_of = fs::read_to_string(other.file()).unwrap();
    fs::write(
        other.file(),
        text_of.replace("name = \"test\"", "name = \"other\""),
    )
    .unwrap();
    let said = refused(&other, &["restore"], &[text(&to)], 2);
    assert!(
        said.contains("a snapshot of pipeline `test`, not of `other`; nothing was changed"),
        "{said}"
    );
    let said = refused(&other, &["snapshot"], &[text(&dir.path().join("none"))], 2);
    assert!(said.contains("there is no state in"), "{said}");
    let said = refused(&other, &["restore"], &[text(&dir.path().join("none"))], 2);
    assert!(said.contains("there is no such directory"), "{said}");
    let said = refused(&other, &["restore"], &[text(dir.path())], 2);
    assert!(said.contains("it has no snapshot.json"), "{said}");
}

fn places() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 14);
    let run = slow_plugins(&data);
    let host = Host::start(&run);
    let state = run.dir.path().join("state");
    for (place, part) in [
        (data.clicks.as_path(), "File exists"),
        (dir.path(), "is not empty: name a directory that is empty"),
        (&state.join("copy"), "lies in the state directory"),
        (
            &dir.path().join("no/such/parent"),
            "No such file or directory",
        ),
    ] {
        let said = refused(&run, &["snapshot"], &[text(place)], 1);
        assert!(said.contains(part), "{said}");
    }
    assert!(!dir.path().join("snapshot.unfinished").exists());
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    snapshot(&run, &empty);
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
    };
    assert_eq!(mode(&empty.join("state")), 0o700);
    for file in files(&empty) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let said = refused(&run, &["snapshot"], &[text(&empty)], 1);
    assert!(
        said.contains("holds a snapshot: name a directory"),
        "{said}"
    );
    host.kill();
}

/// Whoever does not know the token learns nothing and starts nothing.
fn tokens() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 15);
    let run = slow_plugins(&data);
    let host = Host::start(&run);
    let state = run.dir.path().join("state");
    let address = fs::read_to_string(state.join("admin-address")).unwrap();
    let to = dir.path().join("stolen");
    let body = format!("{{\"dir\":\"{}\"}}", to.display());
    for (request, body) in [
        ("POST /snapshot", body.as_str()),
        ("GET /snapshot", ""),
        ("GET /state", ""),
        ("GET /state/sessions", ""),
        ("GET /state/sessions/key?key=u1", ""),
    ] {
        let mut socket = TcpStream::connect(address.trim()).unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            address.trim(),
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{request}: {answer}");
    }
    assert!(!to.exists());
    host.kill();
}

fn running() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 16);
    let run = slow_plugins(&data);
    let host = Host::start(&run);
    let to = dir.path().join("snapshot");
    let said = succeed(&run, &["snapshot"], &[text(&to)]);
    assert!(
        said.contains("put it back with: tidemill restore"),
        "{said}"
    );
    let said = refused(&run, &["restore"], &[text(&to), "--replace"], 2);
    assert!(
        said.contains("is in use by another tidemill process; stop it"),
        "{said}"
    );
    host.kill();
}
