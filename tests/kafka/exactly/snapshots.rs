//! A state that is lost and put back from a snapshot: the decisions since are the past, what was written since comes again
//! where it cannot be cut back, and nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::super::{Test, broker};
use super::hosts::assert_refused;
use super::running::{self, ask, succeed, until};
use super::sent::{Sent, decision_of, decisions, rows};
use super::{FLOWING, Scene, USERS, is_refused, raw_id};
use crate::support::read_rows;

pub fn tests() -> Vec<Test> {
    vec![
        (
            "kafka_exactly_restored_under_load_loses_nothing",
            lost_state,
        ),
        ("kafka_exactly_restored_in_place_of_a_newer_state", in_place),
        (
            "kafka_exactly_restored_beside_a_state_that_is_gone",
            abandoned,
        ),
    ]
}

/// Checkpoints so far apart that none of their decisions is compacted away while a test runs.
const SETTINGS: [&str; 2] = [FLOWING, "host.checkpoint_every=50ms"];

/// A snapshot that was taken while records flowed.
struct Snapshot {
    dir: PathBuf,
    state_id: String,
    checkpoint: u64,
}

impl Snapshot {
    fn take(scene: &Scene<'_>, name: &str) -> Self {
        let dir = scene.dir.path().join(name);
        let taken = succeed(scene, &["snapshot"], &[dir.to_str().unwrap(), "--json"]);
        let taken: Value = serde_json::from_str(&taken).unwrap();
        Self {
            dir,
            state_id: text(&taken["state_id"]),
            checkpoint: taken["checkpoint"].as_u64().unwrap(),
        }
    }

    /// Puts it back, and says what the command says: that the rows of the topic come again, and those of the file do not.
    fn restore(&self, scene: &Scene<'_>, more: &[&str]) {
        let more = [&[self.dir.to_str().unwrap()], more].concat();
        let told = succeed(scene, &["restore"], &more);
        for part in [
            format!("holds checkpoint {} of {}", self.checkpoint, scene.name),
            format!("in place of {}", self.state_id),
            "sink counts: rows after the checkpoint are there twice".into(),
            "sink copy: the next start cuts".into(),
        ] {
            assert!(told.contains(&part), "no `{part}` in {told}");
        }
    }

    /// Of each user, the rows that were visible at its checkpoint.
    fn rows(&self, rows: &[Sent], decisions: &[Sent]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for row in rows {
            let decision = &decisions[decision_of(row, decisions)].value;
            let earlier = decision["checkpoint"].as_u64().unwrap() <= self.checkpoint;
            if text(&decision["state"]) == self.state_id && earlier {
                *counts.entry(text(&row.value["user"])).or_default() += 1;
            }
        }
        counts
    }
}

/// While it runs, checkpoints and reads; then the disk is lost.
fn lost_state() {
    let mut scene = Scene::new(broker(), 4_000);
    scene.write_plain();
    let snapshot = run_and_kill(&scene);
    fs::remove_dir_all(scene.dir.path().join("state")).unwrap();
    let refused = scene.command(&["--keep-open"]).output().unwrap();
    assert_refused(&refused, &["was lost or exchanged", &snapshot.state_id]);
    let _ = fs::remove_dir_all(scene.dir.path().join("state"));
    snapshot.restore(&scene, &[]);
    // A crash right after the first start finds the same way.
    assert!(!scene.run_with_drill("start-prepared").status.success());
    scene.feed(600);
    scene.finish();
    assert_came_again(&scene, &snapshot, "the state was lost");
}

/// The decisions in Kafka are ahead of an older copy; a restore of the snapshot is a way out that a start accepts.
fn in_place() {
    let mut scene = Scene::new(broker(), 4_000);
    scene.write_plain();
    let snapshot = run_and_kill(&scene);
    snapshot.restore(&scene, &["--replace"]);
    // And once more: the state that the first restore made has written decisions, too.
    assert!(!scene.run_with_drill("committed:3").status.success());
    snapshot.restore(&scene, &["--replace"]);
    scene.feed(600);
    scene.finish();
    assert_nothing_lost(&scene, "restored twice");
}

/// After a `reset` another state has written decisions, and is lost in its turn: the start refuses the snapshot of the
/// first one until that state is given up by name.
fn abandoned() {
    let scene = Scene::new(broker(), 1_200);
    scene.write_plain();
    let snapshot = run_and_kill(&scene);
    let state = scene.dir.path().join("state");
    // The file's rows are those of the snapshot; the state between has its own.
    let output = scene.dir.path().join("copy.jsonl");
    let kept = scene.dir.path().join("kept.jsonl");
    fs::rename(&output, &kept).unwrap();
    succeed(&scene, &["reset"], &["--yes"]);
    let ran = scene.command(&["--keep-open"]).output().unwrap();
    assert!(ran.status.success(), "{}", super::told(&ran));
    let between = text(&decisions(&scene).last().unwrap().value["state"]);
    assert_ne!(between, snapshot.state_id);
    fs::remove_dir_all(&state).unwrap();
    fs::remove_file(&output).unwrap();
    fs::rename(&kept, &output).unwrap();

    snapshot.restore(&scene, &[]);
    let refused = scene.command(&["--keep-open"]).output().unwrap();
    assert_refused(&refused, &["was lost or exchanged", &between]);
    snapshot.restore(&scene, &["--replace", "--abandon", &between]);
    scene.finish();
    let copied = read_rows(&output);
    scene.assert_rows(&copied, "abandoned, file");
    assert_nothing_lost_of(&rows(&scene), &scene, "abandoned");
}

/// A snapshot under load, and `kill -9` some checkpoints later.
fn run_and_kill(scene: &Scene<'_>) -> Snapshot {
    let mut host = running::start(scene, &SETTINGS, None);
    until("output", || scene.read(&scene.output).len() > 100);
    let snapshot = Snapshot::take(scene, "backup");
    until("some checkpoints after the snapshot", || {
        let status = ask(scene, &["status"], &[]);
        status["checkpoint"]["number"].as_u64() >= Some(snapshot.checkpoint + 5)
    });
    let more = scene.read(&scene.output).len() + 100;
    until("more output", || scene.read(&scene.output).len() > more);
    host.kill();
    snapshot
}

/// What readers saw before the snapshot is there once, what they saw after it twice, all else once, in the order of each
/// key. The file was cut back: it is exact.
fn assert_came_again(scene: &Scene<'_>, snapshot: &Snapshot, what: &str) {
    let (rows, decisions) = (rows(scene), decisions(scene));
    let early = snapshot.rows(&rows, &decisions);
    let last = &decisions.last().unwrap().value;
    assert_ne!(
        text(&last["state"]),
        snapshot.state_id,
        "{what}: a state anew"
    );
    let mut again = 0;
    for (user, ids) in by_user(&rows) {
        let at = early.get(&user).copied().unwrap_or_default();
        let expected = ids_of(scene, &user);
        // As many of the beginning as were seen, then all from the snapshot on.
        let seen = ids.len() + at - expected.len();
        let whole = [&expected[..seen], &expected[at..]].concat();
        assert!(
            seen >= at,
            "{what}: {user}: {seen} rows seen, {at} at the snapshot"
        );
        assert_eq!(
            ids, whole,
            "{what}: {user}, (id, seen); {at} at the snapshot"
        );
        again += seen - at;
    }
    assert_nothing_lost(scene, what);
    assert!(again >= 100, "{what}: only {again} rows came again");
    println!("{what}: {again} rows came again, none is lost");
}

fn assert_nothing_lost(scene: &Scene<'_>, what: &str) {
    assert_nothing_lost_of(&rows(scene), scene, what);
    assert_rest(scene, what);
}

/// Each row is there, with the same count wherever it comes again.
fn assert_nothing_lost_of(rows: &[Sent], scene: &Scene<'_>, what: &str) {
    let mut by_user = by_user(rows);
    for user in (0..USERS).map(|user| format!("u{user}")) {
        let mut found = by_user.remove(&user).unwrap_or_default();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, ids_of(scene, &user), "{what}: {user}, (id, seen)");
    }
    assert!(by_user.is_empty(), "{what}: {by_user:?}");
}

/// The file is exact, and no dead letter is lost.
fn assert_rest(scene: &Scene<'_>, what: &str) {
    let copied = read_rows(&scene.dir.path().join("copy.jsonl"));
    scene.assert_rows(&copied, &format!("{what}, file"));
    let mut letters: Vec<i64> = scene.read(&scene.letters).iter().map(raw_id).collect();
    letters.sort_unstable();
    letters.dedup();
    let bad = (0..scene.fed).filter(|id| is_refused(*id)).map(i64::from);
    assert_eq!(letters, bad.collect::<Vec<_>>(), "{what}: dead letters");
}

/// Id and count of each row, in the order of the user's rows.
fn by_user(rows: &[Sent]) -> BTreeMap<String, Vec<(i64, i64)>> {
    let mut all: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    for Sent { value, .. } in rows {
        let row = (
            value["id"].as_i64().unwrap(),
            value["seen"].as_i64().unwrap(),
        );
        all.entry(text(&value["user"])).or_default().push(row);
    }
    all
}

/// What a user's rows are, each once.
fn ids_of(scene: &Scene<'_>, user: &str) -> Vec<(i64, i64)> {
    let first: i32 = user[1..].parse().unwrap();
    let ids = (first..scene.fed).step_by(USERS as usize);
    let good = ids.filter(|id| !is_refused(*id)).map(i64::from);
    good.zip(1..).collect()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}
