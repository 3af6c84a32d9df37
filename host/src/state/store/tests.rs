//! The store against a plain map: random commits, merges and reopens; every write failing once; copies of the directory
//! taken while it was open, as a kill would leave it.

mod behind;
mod compacting;
mod disk;
mod faults;
mod power;
mod rot;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::prelude::*;
use rand::rngs::StdRng;
use serde_json::json;
use tempfile::TempDir;

use super::super::Changes;
use super::super::timers::{self, Timer};
use super::super::value::{Expiry, Value};
use super::*;

/// The state of one checkpoint: (step, group, key) -> value, (step, segment) -> bytes.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    number: Option<u64>,
    keys: BTreeMap<(u16, u16, Vec<u8>), Vec<u8>>,
    segments: BTreeMap<(u16, SegmentId), Vec<u8>>,
}

const NEVER: MergeRule = MergeRule {
    keys_min: u64::MAX,
    keys_max: u64::MAX,
    bytes_max: u64::MAX,
    checkpoints_max: u64::MAX,
};
const ALWAYS: MergeRule = MergeRule {
    keys_min: 0,
    keys_max: 0,
    bytes_max: 0,
    checkpoints_max: 0,
};
const STEPS: [&str; 3] = ["a", "b", "c"];
const WORKERS: u16 = 2;
const KEY_GROUPS: u16 = 8;

fn open(dir: &Path, rule: MergeRule) -> Store {
    Store::open_with(dir, "test", KEY_GROUPS, rule, &plain).unwrap()
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// In memory where there is such a place: for tests that make some thousand files, whose syncs prove nothing.
fn temp_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temp())
}

fn content(store: &Store) -> Model {
    try_content(store).unwrap()
}

/// Everything the store gives back.
fn try_content(store: &Store) -> Result<Model, StateError> {
    let mut found = Model {
        number: store.latest().map(|l| l.number),
        ..Model::default()
    };
    for name in store.steps() {
        let step = store.step_id(&name)?;
        let mut last = None;
        let mut each = |group: u16, key: &[u8], value: &[u8]| {
            let at = (step, group, key.to_vec());
            assert!(last.as_ref() < Some(&at), "ascending and each once");
            last = Some(at.clone());
            found.keys.insert(at, value.to_vec());
            Ok(())
        };
        store.load(step, &mut each)?;
        let ids = store.segment_ids(step)?;
        let bytes = store.segment_bytes(step, &ids)?.unwrap();
        for (id, bytes) in ids.into_iter().zip(bytes) {
            found.segments.insert((step, id), bytes);
        }
    }
    store.fault(check_index(store))?;
    if let Some(latest) = store.latest() {
        assert_eq!(latest.meta.engine, json!({ "number": latest.number }));
    }
    Ok(found)
}

/// The index of times and the counts say exactly what the values in `state.redb` say.
fn check_index(store: &Store) -> Result<(), Fault> {
    let read = store.files.merged.read()?;
    for (name, step) in &lock(&store.names).by_name {
        let mut expected = [Vec::new(), Vec::new()];
        let mut count = 0;
        for row in merged::range(&read, *step, 0..KEY_GROUPS)? {
            let (key, value) = row?;
            let key = &key.value()[merged::PREFIX..];
            let value = Value::read(value.value()).unwrap();
            expected[0].extend(value.alarm.map(|time| (time, key.to_vec())));
            expected[1].extend(value.expiry.map(|e| (e.indexed(), key.to_vec())));
            count += 1;
        }
        for (timer, mut expected) in [Timer::Alarm, Timer::Expiry].into_iter().zip(expected) {
            expected.sort();
            let mut found = Vec::new();
            let mut each = |time, key: &[u8]| {
                found.push((time, key.to_vec()));
                true
            };
            let groups = &mut (0..KEY_GROUPS);
            timers::scan(&read, (*step, timer), groups, (None, i64::MAX), &mut each)?;
            assert_eq!(found, expected, "{timer:?} of {name}");
        }
        assert_eq!(merged::count(&read, *step, &(0..KEY_GROUPS))?, count);
    }
    Ok(())
}

/// A random next checkpoint, and the model after it.
fn next(rng: &mut StdRng, model: &Model, steps: &[u16]) -> (Prepared, Model) {
    let mut after = model.clone();
    let number = model.number.map_or(0, |n| n + 1);
    after.number = Some(number);
    let mut deltas = Vec::new();
    for &step in steps {
        let workers = (0..WORKERS).map(|worker| {
            let mut delta = Delta {
                changes: next_changes(rng, step, worker, &mut after),
                ..Delta::default()
            };
            let id = SegmentId {
                millis: rng.random_range(-1_000..1_000),
                checkpoint: number,
                serial: rng.random(),
                first: worker,
                last: KEY_GROUPS - 1,
            };
            next_segments(rng, step, id, &mut after, &mut delta);
            delta
        });
        deltas.push((step, workers.collect()));
    }
    let meta = Meta {
        engine: json!({ "number": number }),
    };
    let prepared = Prepared {
        number,
        meta,
        deltas,
        finished: false,
    };
    (prepared, after)
}

fn next_changes(rng: &mut StdRng, step: u16, worker: u16, after: &mut Model) -> Changes {
    let mut changes = Changes::default();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..rng.random_range(0..30) {
        let group = worker + WORKERS * rng.random_range(0..KEY_GROUPS / WORKERS);
        // A key is in one group alone.
        let mut key = vec![b'k'; rng.random_range(0..6)];
        key.push(group as u8);
        if !seen.insert((group, key.clone())) {
            continue;
        }
        if rng.random_ratio(1, 3) {
            changes.delete(group, &key);
            after.keys.remove(&(step, group, key));
        } else {
            let value = random_value(rng);
            changes.put(group, &key, &value);
            after.keys.insert((step, group, key), value);
        }
    }
    changes
}

/// A state, and sometimes an alarm and an expiry, both of which move.
fn random_value(rng: &mut StdRng) -> Vec<u8> {
    let mut time = || rng.random_ratio(1, 2).then(|| rng.random_range(-9..9));
    let (alarm, expires) = (time(), time());
    let state = vec![rng.random::<u8>(); rng.random_range(1..300)];
    let value = Value {
        alarm,
        expiry: expires.map(|at| Expiry { at, shift: 2 }),
        state: Some(&[]),
    };
    let mut bytes = Vec::new();
    value.write_header(&mut bytes);
    bytes.extend(state);
    bytes
}

fn next_segments(rng: &mut StdRng, step: u16, id: SegmentId, after: &mut Model, delta: &mut Delta) {
    if rng.random_ratio(1, 2) {
        let bytes = vec![rng.random(); rng.random_range(0..2_000)];
        after.segments.insert((step, id), bytes.clone());
        delta.segments.push(Box::new((id, bytes)));
    }
    let own = |&&(s, old): &&(u16, SegmentId)| s == step && old.first == id.first && old != id;
    let old = after.segments.keys().find(own).copied();
    if let Some((_, old)) = old.filter(|_| rng.random_ratio(1, 3)) {
        after.segments.remove(&(step, old));
        delta.dropped.push(old);
    }
}

fn step_ids(store: &Store) -> Vec<u16> {
    STEPS.map(|name| store.step_id(name).unwrap()).to_vec()
}

/// A directory as a kill at this moment would leave it.
fn copy(dir: &Path) -> TempDir {
    let to = temp_in_memory();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn equals_a_map_whatever_the_operations() {
    for rule in [
        NEVER,
        ALWAYS,
        MergeRule {
            checkpoints_max: 4,
            ..NEVER
        },
    ] {
        let seed = rand::random();
        println!("{rule:?} seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = temp();
        let mut store = open(dir.path(), rule);
        let mut steps = step_ids(&store);
        let mut model = Model::default();
        for _ in 0..60 {
            match rng.random_range(0..10) {
                0 => store.merge().unwrap(),
                1 => {
                    let before = store.incarnation();
                    drop(store);
                    store = open(dir.path(), rule);
                    assert_eq!(store.incarnation(), before + 1);
                    assert_eq!(step_ids(&store), steps);
                }
                2 if rng.random_ratio(1, 3) => {
                    let name = STEPS.choose(&mut rng).unwrap();
                    let dropped = store.step_id(name).unwrap();
                    assert!(store.drop_step(name).unwrap());
                    steps = step_ids(&store);
                    assert!(!steps.contains(&dropped), "a number is never given twice");
                    model.keys.retain(|(step, _, _), _| *step != dropped);
                    model.segments.retain(|(step, _), _| *step != dropped);
                }
                _ => {
                    let (prepared, after) = next(&mut rng, &model, &steps);
                    store.commit(prepared).unwrap();
                    model = after;
                }
            }
            assert_eq!(content(&store), model);
        }
        store.merge().unwrap();
        assert_eq!(
            log::unmerged(&store.files.log.read().unwrap()).unwrap(),
            log::Unmerged::default()
        );
        drop(store);
        assert_eq!(content(&open(dir.path(), NEVER)), model);
    }
}

#[test]
fn a_kill_leaves_the_last_checkpoint() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = temp();
    let store = open(
        dir.path(),
        MergeRule {
            checkpoints_max: 3,
            ..NEVER
        },
    );
    let steps = step_ids(&store);
    let mut model = Model::default();
    for _ in 0..25 {
        let (prepared, after) = next(&mut rng, &model, &steps);
        store.commit(prepared).unwrap();
        model = after;
        // The copy of a file that is being written is no state a kill could leave: the merge must not write meanwhile.
        let copied = {
            let _merging = store.files.pause();
            copy(dir.path())
        };
        let killed = open(copied.path(), ALWAYS);
        assert_eq!(content(&killed), model);
        assert_eq!(killed.state_id(), store.state_id());
    }
}

#[test]
fn loads_see_one_checkpoint_while_merges_and_commits_run() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = temp();
    let store = open(dir.path(), ALWAYS);
    let step = store.step_id("a").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut loads = 0;
            while !done.load(Ordering::Acquire) || loads == 0 {
                let mut rounds = std::collections::BTreeSet::new();
                let mut keys = 0;
                let mut each = |_: u16, _: &[u8], value: &[u8]| {
                    rounds.insert(value.to_vec());
                    keys += 1;
                    Ok(())
                };
                store.load(step, &mut each).unwrap();
                assert!(rounds.len() <= 1, "a mix of checkpoints {rounds:?}");
                assert!(keys == 0 || keys == 100, "{keys} keys");
                loads += 1;
            }
        });
        for number in 0..40u64 {
            let mut delta = Delta::default();
            let mut keys: Vec<u8> = (0..100).collect();
            keys.shuffle(&mut rng);
            keys.iter().for_each(|&k| {
                delta.changes.put(
                    u16::from(k) % KEY_GROUPS,
                    &[k],
                    &Value::of_state(&[number as u8]),
                )
            });
            let deltas = vec![(step, vec![delta])];
            store
                .commit(Prepared {
                    number,
                    deltas,
                    ..Prepared::default()
                })
                .unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

#[test]
fn key_groups_can_be_loaded_apart() {
    let dir = temp();
    let store = open(dir.path(), NEVER);
    let step = store.step_id("a").unwrap();
    for number in 0..2 {
        let mut delta = Delta::default();
        (0..KEY_GROUPS).for_each(|g| delta.changes.put(g, &[number as u8], b"\x01v"));
        let deltas = vec![(step, vec![delta])];
        store
            .commit(Prepared {
                number,
                deltas,
                ..Prepared::default()
            })
            .unwrap();
        if number == 0 {
            store.merge().unwrap();
        }
    }
    let mut found = Vec::new();
    let mut each = |group, key: &[u8], _: &[u8]| {
        found.push((group, key[0]));
        Ok(())
    };
    store.load_groups(step, 3..5, &mut each).unwrap();
    assert_eq!(found, [(3, 0), (3, 1), (4, 0), (4, 1)]);
}

#[test]
fn an_undecided_checkpoint_is_taken_back() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = temp();
    let store = open(dir.path(), NEVER);
    let steps = step_ids(&store);
    let mut model = Model::default();
    for _ in 0..5 {
        let (undecided, _) = next(&mut rng, &model, &steps);
        store.prepare(undecided).unwrap();
        assert_eq!(content(&store), model, "not seen before it is decided");
        store.merge().unwrap();
        assert_eq!(content(&store), model, "not merged before it is decided");
        store.resolve(false).unwrap();
        let (prepared, after) = next(&mut rng, &model, &steps);
        store.commit(prepared).unwrap();
        model = after;
    }
    let (undecided, _) = next(&mut rng, &model, &steps);
    let number = undecided.number;
    store.prepare(undecided).unwrap();
    drop(store);
    let again = open(dir.path(), ALWAYS);
    assert_eq!(content(&again), model, "not before it is known to be true");
    let open = again.undecided().unwrap();
    assert!(open.number == number && open.in_transaction);
    again.resolve(false).unwrap();
    assert_eq!((again.undecided(), content(&again)), (None, model));
}

#[test]
fn a_checkpoint_decided_outside_is_kept_whenever_that_is_learnt() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = temp();
    let mut model = Model::default();
    for round in 0..24 {
        let store = open(dir.path(), if round % 2 == 0 { NEVER } else { ALWAYS });
        // Left by the round before: prepared, or decided and not settled.
        if let Some(open) = store.undecided() {
            assert!(
                store
                    .commit(Prepared {
                        number: open.number + 1,
                        ..Prepared::default()
                    })
                    .is_err()
            );
            store.resolve(true).unwrap();
        }
        assert_eq!(content(&store), model, "round {round}");
        let steps = step_ids(&store);
        for step in 0..3 {
            let (prepared, after) = next(&mut rng, &model, &steps);
            let number = prepared.number;
            store.prepare(prepared).unwrap();
            model = after;
            if (round + step) % 4 == 3 {
                break;
            }
            store.decide();
            assert_eq!(store.latest().unwrap().number, number);
            match (round + step) % 3 {
                0 => store.settle().unwrap(),
                1 => store.merge().unwrap(),
                _ => {}
            }
        }
    }
}

#[test]
fn a_finished_run_is_remembered() {
    let dir = temp();
    let store = open(dir.path(), NEVER);
    assert_eq!(store.latest(), None);
    store.commit(Prepared::default()).unwrap();
    assert!(!store.latest().unwrap().finished);
    store
        .commit(Prepared {
            number: 1,
            finished: true,
            ..Prepared::default()
        })
        .unwrap();
    drop(store);
    let latest = open(dir.path(), NEVER).latest().unwrap();
    assert_eq!((latest.number, latest.finished), (1, true));
}

#[test]
fn checkpoints_come_one_after_the_other() {
    let dir = temp();
    let store = open(dir.path(), NEVER);
    for number in [1, 2] {
        assert!(
            store
                .commit(Prepared {
                    number,
                    ..Prepared::default()
                })
                .is_err()
        );
    }
    store.commit(Prepared::default()).unwrap();
    assert!(store.commit(Prepared::default()).is_err(), "twice");
}

#[test]
fn a_foreign_directory_is_refused_with_a_reason() {
    use StateError::{InUse, Unusable};
    let dir = temp();
    let state = dir.path().join("deep/state");
    let store = Store::open(&state, "mine", 8).unwrap();
    let again = Store::open(&state, "mine", 8);
    assert!(matches!(again, Err(InUse { .. })), "{again:?}");
    drop(store);
    let other = Store::open(&state, "yours", 8).unwrap_err().to_string();
    assert!(other.contains("pipeline `mine`, not of `yours`"), "{other}");
    let other = Store::open(&state, "mine", 16).unwrap_err().to_string();
    assert!(other.contains("key_groups = 8"), "{other}");
    Store::open(&state, "mine", 8).unwrap();

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file, "mine", 8).unwrap_err();
    assert!(matches!(error, Unusable { .. }), "{error}");
    fs::write(
        state.join("log.redb"),
        "not a database, but some text of a person",
    )
    .unwrap();
    let error = Store::open(&state, "mine", 8).unwrap_err();
    assert!(matches!(error, StateError::Store { .. }), "{error}");
}

#[test]
fn another_format_is_refused() {
    let dir = temp();
    let identity = Identity {
        format: FORMAT + 1,
        state_id: [0; 16],
        pipeline: "test".into(),
        key_groups: KEY_GROUPS,
    };
    drop(Log::open(&dir.path().join(LOG_FILE), &plain, &identity, &[]).unwrap());
    let error = Store::open(dir.path(), "test", KEY_GROUPS).unwrap_err();
    let expected = (FORMAT + 1, FORMAT);
    assert!(
        matches!(error, StateError::Format { found, expected: e, .. } if (found, e) == expected),
        "{error}"
    );
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let dir = temp();
    let store = open(dir.path(), NEVER);
    store.commit(Prepared::default()).unwrap();
    let early = copy(dir.path());
    store.merge().unwrap();
    drop(store);
    let other = temp();
    drop(open(other.path(), NEVER));
    let refused = |prepare: &dyn Fn(&Path)| {
        let copied = copy(dir.path());
        prepare(copied.path());
        let error = Store::open(copied.path(), "test", KEY_GROUPS).unwrap_err();
        assert!(matches!(error, StateError::Unusable { .. }), "{error}");
    };
    let replace = |from: &Path, to: &Path, name: &str| {
        assert!(fs::copy(from.join(name), to.join(name)).unwrap() > 0);
    };
    refused(&|dir| fs::remove_file(dir.join(LOG_FILE)).unwrap());
    refused(&|dir| fs::remove_file(dir.join(MERGED_FILE)).unwrap());
    refused(&|dir| replace(other.path(), dir, MERGED_FILE));
    refused(&|dir| replace(early.path(), dir, MERGED_FILE));
    drop(open(dir.path(), NEVER));
}

#[test]
fn reset_makes_a_new_state() {
    let dir = temp();
    let store = open(dir.path(), NEVER);
    let before = store.state_id();
    store.commit(Prepared::default()).unwrap();
    assert!(Store::reset(dir.path()).is_err(), "in use");
    drop(store);
    let staged = dir.path().join("sinks/out");
    fs::create_dir_all(&staged).unwrap();
    fs::write(staged.join("0000000000.rows"), "rows").unwrap();
    Store::reset(dir.path()).unwrap();
    assert!(!staged.exists());
    let store = open(dir.path(), NEVER);
    assert_eq!(store.latest(), None);
    assert_ne!(store.state_id(), before);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let state = dir.path().join("state");
    let store = Store::open(&state, "test", 8).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join(LOG_FILE)), 0o600);
    assert_eq!(mode(&state.join(MERGED_FILE)), 0o600);
    assert!(store.size_bytes() > 0);
}
