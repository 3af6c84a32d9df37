//! Row 39 of the fault matrix: a plugin is swapped while records flow, and the process ends at every step of it. The
//! version in force is part of the decision, so each checkpoint's rows are of one version: that of the decision before.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tidemill::crash::POINTS;

use super::super::{Test, broker};
use super::crashes::{is_of_checkpoint, is_of_start, rounds};
use super::running::{self, ask, command, succeed};
use super::sent::{Sent, decision_of, decisions, rows};
use super::{FLOWING, Scene, told};
use crate::support::{plugin, plugin_variant};

pub fn tests() -> Vec<Test> {
    vec![
        (
            "kafka_exactly_row_39_crash_at_every_step_of_a_swap",
            every_step,
        ),
        ("kafka_exactly_row_39_kill_9_among_swaps", kills),
    ]
}

const GUEST: &str = "tests/guests/stamp";
const STEP: &str = "counted";
const FAST: &str = "sources.purchases.limit.per_second=1000000";
/// So far apart that every checkpoint is one with a swap.
const SWAPS_ONLY: &str = "host.checkpoint_every=10s";
/// From these points on the transaction is committed: the swap stands.
const COMMITTED: [&str; 4] = ["committed", "decided", "followers-done", "released"];

/// A version of the plugin, as its rows name it.
struct Version {
    name: &'static str,
    file: PathBuf,
    digest: String,
}

impl Version {
    fn build(name: &'static str) -> Self {
        let file = match name {
            // What the pipeline file names.
            "one" => plugin(GUEST),
            name => plugin_variant(GUEST, &[("STAMP", name)]),
        };
        let digest = Sha256::digest(std::fs::read(&file).unwrap());
        Self {
            name,
            file,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn file(&self) -> &str {
        self.file.to_str().unwrap()
    }
}

/// At each point of the checkpoint that carries a swap, the first and the second of a run, then at a point of the start
/// that follows.
fn every_step() {
    let versions = ["one", "two", "three"].map(Version::build);
    let starts: Vec<&str> = POINTS.iter().copied().filter(|p| is_of_start(p)).collect();
    let points = POINTS.iter().copied().filter(|p| is_of_checkpoint(p));
    for (at, point) in points.filter(|p| *p != "epoch").enumerate() {
        for round in 0..rounds().div_ceil(2) {
            let start = starts[(at + round) % starts.len()];
            crash_in_swap(&versions, point, 1 + round % 2, start);
        }
    }
}

/// The run's `pass`-th swap meets a crash at `point`.
fn crash_in_swap(versions: &[Version], point: &str, pass: usize, start: &str) {
    let what = format!("a swap ending at {point}:{pass}, then {start}");
    let mut scene = Scene::new(broker(), 4_000);
    scene.write_plain();
    let drill = format!("{point}:{pass}");
    let mut host = running::start(&scene, &[FLOWING, SWAPS_ONLY], Some(&drill));
    ask(&scene, &["plugin", "history"], &[STEP]);
    for version in &versions[1..pass] {
        swap(&scene, version);
    }
    let new = &versions[pass];
    let told = refused(&scene, new);
    assert!(!host.end().success(), "{what}: {told}");
    let mut host = running::start(&scene, &[FLOWING], Some(start));
    assert!(!host.end().success(), "{what}");

    let mut host = running::start(&scene, &[FLOWING], None);
    let stands = COMMITTED.contains(&point);
    let expected = &versions[if stands { pass } else { pass - 1 }];
    let history = ask(&scene, &["plugin", "history"], &[STEP]);
    let digest = in_force(&history);
    assert_eq!(digest, expected.digest, "{what}: {history}");
    assert_history(&history, &decisions(&scene), &what);
    if !stands {
        swap(&scene, new);
    }
    host.kill();
    scene.feed(600);
    finish(&scene);
    scene.assert_exact(&what);
    let names = assert_versions(&scene, versions, &what);
    // What a cancelled swap made was never visible, so no key ever goes back.
    for (user, names) in names {
        let order = |name: &String| versions.iter().position(|v| v.name == name);
        assert!(names.is_sorted_by_key(order), "{what}: {user}: {names:?}");
        assert_eq!(
            names.last().map(String::as_str),
            Some(new.name),
            "{what}: {user}"
        );
    }
}

/// Swaps to and fro under load; each meets `kill -9` at a random moment.
fn kills() {
    const KILLS: usize = 20;
    let seed: u64 = std::env::var("TIDEMILL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(39);
    println!("TIDEMILL_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let versions = ["one", "two"].map(Version::build);
    let mut scene = Scene::new(broker(), 2_000);
    scene.write_plain();
    let settings = [FLOWING, "host.checkpoint_every=50ms"];
    let mut host = running::start(&scene, &settings, None);
    ask(&scene, &["plugin", "history"], &[STEP]);
    // Both are compiled once; a swap after that takes as long as those that meet a kill.
    swap(&scene, &versions[1]);
    swap(&scene, &versions[0]);
    let begun = Instant::now();
    swap(&scene, &versions[1]);
    let mut decided_after = begun.elapsed().as_micros() as u64;
    let mut stood = 0;
    for _ in 0..KILLS {
        let now = in_force(&ask(&scene, &["plugin", "history"], &[STEP]));
        let new = versions.iter().find(|v| v.digest != now).unwrap();
        let mut asking = command(&scene, &["plugin", "swap"], &[STEP, new.file()]);
        let quiet = asking.stdout(Stdio::null()).stderr(Stdio::null());
        let mut asking = quiet.spawn().unwrap();
        // What is awaited is the moment itself: anywhere in a swap, the more often the closer to its decision.
        let moment = rng.random_range(decided_after / 4..decided_after * 7 / 4);
        std::thread::sleep(Duration::from_micros(moment));
        assert!(!host.has_ended(), "seed {seed}: the host ended by itself");
        host.kill();
        asking.wait().unwrap();
        scene.feed(300);
        host = running::start(&scene, &settings, None);
        let history = ask(&scene, &["plugin", "history"], &[STEP]);
        let what = format!("seed {seed}, killed {moment} us after a swap was asked for");
        assert_history(&history, &decisions(&scene), &what);
        let stands = in_force(&history) == new.digest;
        stood += usize::from(stands);
        decided_after = match stands {
            true => decided_after * 3 / 4,
            false => decided_after * 4 / 3,
        };
    }
    host.kill();
    finish(&scene);
    println!("{KILLS} kills: {stood} swaps stood, the others were cancelled");
    scene.assert_exact(&format!("seed {seed}"));
    let names = assert_versions(&scene, &versions, &format!("seed {seed}"));
    for Version { name, .. } in &versions {
        let made = names.values().flatten().filter(|made| made == name).count();
        assert!(made > 0, "seed {seed}: no row of version {name}");
    }
}

fn swap(scene: &Scene<'_>, version: &Version) {
    succeed(scene, &["plugin", "swap"], &[STEP, version.file()]);
}

/// What a swap says whose host ends meanwhile.
fn refused(scene: &Scene<'_>, version: &Version) -> String {
    let mut swap = command(scene, &["plugin", "swap"], &[STEP, version.file()]);
    let output = swap.output().unwrap();
    let told = told(&output);
    assert!(!output.status.success(), "{told}");
    told
}

/// Runs to the end of the input, as fast as it goes.
fn finish(scene: &Scene<'_>) {
    succeed(scene, &["run"], &["--until-end", "--set", FAST]);
}

fn in_force(history: &Value) -> String {
    let all = history.as_array().unwrap();
    let mut current = all.iter().filter(|version| version["in_force"] == true);
    let digest = current.next().expect("a version is in force")["digest"].clone();
    assert!(current.next().is_none(), "{history}");
    digest.as_str().unwrap().to_owned()
}

/// The host's history is that of the decisions: the same versions, each since the checkpoint whose decision first names it.
fn assert_history(history: &Value, decisions: &[Sent], what: &str) {
    let version = |v: &Value| (text(&v["digest"]), v["since_checkpoint"].as_u64().unwrap());
    let told: Vec<(String, u64)> = history.as_array().unwrap().iter().map(version).collect();
    // The first is that of checkpoint 0, which needs no decision.
    let mut decided = told[..1].to_vec();
    for (at, Sent { value, .. }) in decisions.iter().enumerate() {
        let number = value["checkpoint"].as_u64().unwrap();
        assert_eq!(number, at as u64 + 1, "{what}: one decision a checkpoint");
        let digest = text(&value["plugins"][STEP]);
        if decided.last().is_none_or(|(last, _)| *last != digest) {
            decided.push((digest, number));
        }
    }
    assert_eq!(told, decided, "{what}: history and decisions");
}

/// Each row is of the version that the decision before its own names. Returns the versions of each user's rows, in order.
fn assert_versions(
    scene: &Scene<'_>,
    versions: &[Version],
    what: &str,
) -> BTreeMap<String, Vec<String>> {
    let decisions = decisions(scene);
    let named: HashMap<&str, &str> = versions
        .iter()
        .map(|v| (v.digest.as_str(), v.name))
        .collect();
    let mut by_user: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(scene) {
        let at = decision_of(&row, &decisions);
        assert!(
            at < decisions.len(),
            "{what}: {} is of no decision",
            row.value
        );
        let expected = match at.checked_sub(1) {
            None => "one",
            Some(before) => named[text(&decisions[before].value["plugins"][STEP]).as_str()],
        };
        let version = text(&row.value["version"]);
        assert_eq!(
            version, expected,
            "{what}: {} of {}",
            row.value, decisions[at].value
        );
        by_user
            .entry(text(&row.value["user"]))
            .or_default()
            .push(version);
    }
    by_user
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}
