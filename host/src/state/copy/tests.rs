//! A copy holds what the state held at its checkpoint, however much was merged; a table it does not know stops it.

use std::collections::BTreeMap;

use rand::prelude::*;
use rand::rngs::StdRng;
use serde_json::json;

use super::*;
use crate::state::replace;
use crate::state::store::Prepared;
use crate::state::{Delta, Meta, SegmentId, Store};

const KEY_GROUPS: u16 = 8;

type Content = (
    BTreeMap<(u16, Vec<u8>), Vec<u8>>,
    BTreeMap<SegmentId, Vec<u8>>,
);

fn content(store: &Store, step: u16) -> Content {
    let view = store.view().unwrap().unwrap();
    let (mut keys, mut segments) = Content::default();
    let mut entries = view.entries(step).unwrap();
    while entries.advance().unwrap() {
        let at = (entries.group(), entries.key().to_vec());
        assert!(keys.last_key_value().is_none_or(|(last, _)| *last < at));
        keys.insert(at, entries.value().to_vec());
    }
    for id in view.segment_ids(step).unwrap() {
        segments.insert(id, view.segment(step, id).unwrap());
    }
    (keys, segments)
}

fn commit(store: &Store, rng: &mut StdRng, steps: &[u16]) {
    let number = store.latest().map_or(0, |l| l.number + 1);
    let delta = |rng: &mut StdRng| {
        let mut delta = Delta::default();
        for key in 0..200u16 {
            let (group, key) = (key % KEY_GROUPS, key.to_be_bytes());
            match rng.random_range(0..4) {
                0 => delta
                    .changes
                    .put(group, &key, &[1, rng.random(), rng.random()]),
                1 => delta.changes.delete(group, &key),
                _ => {}
            }
        }
        let id = SegmentId {
            millis: rng.random_range(0..1_000),
            checkpoint: number,
            serial: 0,
            first: 0,
            last: KEY_GROUPS - 1,
        };
        delta.segments.push(Box::new((id, vec![rng.random(); 100])));
        delta
    };
    let deltas = steps.iter().map(|step| (*step, vec![delta(rng)]));
    let prepared = Prepared {
        number,
        meta: Meta {
            engine: json!({ "number": number }),
        },
        deltas: deltas.collect(),
        finished: false,
    };
    store.commit(prepared).unwrap();
}

fn open(dir: &Path) -> Store {
    Store::open(dir, "test", KEY_GROUPS).unwrap()
}

#[test]
fn a_copy_is_the_state_at_its_checkpoint() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("state"));
    let gone = store.step_id("gone").unwrap();
    let steps = ["a", "b"].map(|name| store.step_id(name).unwrap());
    commit(&store, &mut rng, &[gone]);
    store.merge().unwrap();
    store.drop_step("gone").unwrap();
    for round in 0..6 {
        commit(&store, &mut rng, &steps);
        if round % 2 == 0 {
            store.merge().unwrap();
        }
        let expected = steps.map(|step| content(&store, step));
        let latest = store.latest();
        let view = store.view().unwrap().unwrap();
        // What comes later is not in it.
        commit(&store, &mut rng, &steps);
        store.merge().unwrap();
        let to = dir.path().join(format!("copy{round}"));
        std::fs::create_dir(&to).unwrap();
        let copied = view.copy(&to, &mut |_| Ok(())).unwrap();
        assert!(view.keys_at_most().unwrap() >= copied.keys);
        assert_eq!(
            copied.keys,
            expected.iter().map(|(k, _)| k.len() as u64).sum::<u64>()
        );
        drop(view);
        let found = replace::look(&to).unwrap();
        assert_eq!((found.state_id, &found.latest), (store.state_id(), &latest));
        let id = [round; 16];
        let meta = Meta {
            engine: json!({ "number": found.latest.unwrap().number, "restored": true }),
        };
        replace::rename(&to, id, &[store.state_id()], &meta).unwrap();
        assert_eq!(replace::look(&to).unwrap().supersedes, [store.state_id()]);
        let copy = open(&to);
        assert_eq!(copy.state_id(), id);
        assert_eq!(copy.latest().unwrap().meta, meta);
        assert_eq!(copy.steps(), store.steps());
        assert_eq!(steps.map(|step| content(&copy, step)), expected);
        let numbers = ["a", "b"].map(|name| copy.step_id(name).unwrap());
        assert_eq!(numbers, steps);
        assert!(
            copy.step_id("new").unwrap() > gone,
            "no number is given twice"
        );
        commit(&copy, &mut rng, &steps);
        copy.merge().unwrap();
    }
}

#[test]
fn a_copy_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("state"));
    let step = store.step_id("a").unwrap();
    commit(&store, &mut StdRng::seed_from_u64(1), &[step]);
    let to = dir.path().join("copy");
    std::fs::create_dir(&to).unwrap();
    let view = store.view().unwrap().unwrap();
    let error = view
        .copy(&to, &mut |_| Err("the run ended".into()))
        .unwrap_err();
    assert!(error.to_string().contains("the run ended"), "{error}");
}

#[test]
fn an_unknown_table_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let store = open(&state);
    let step = store.step_id("a").unwrap();
    commit(&store, &mut StdRng::seed_from_u64(1), &[step]);
    drop(store);
    let never = |_: &WriteTransaction| Ok(());
    let file = RedbFile::open(&state.join(LOG_FILE), LOG_CACHE_BYTES, &plain, never).unwrap();
    let table: redb::TableDefinition<u64, u64> = redb::TableDefinition::new("later");
    let add = |tx: &WriteTransaction| {
        tx.open_table(table)?;
        Ok(())
    };
    file.write(add).unwrap();
    drop(file);
    let store = open(&state);
    let to = dir.path().join("copy");
    std::fs::create_dir(&to).unwrap();
    let view = store.view().unwrap().unwrap();
    let error = view.copy(&to, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("a table `later`"), "{error}");
}

#[test]
fn a_directory_between_two_states_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mark = replace::Mark {
        from: "/backups/one".into(),
        aside: "replaced-1".into(),
        cleared: false,
    };
    replace::set_mark(dir.path(), &mark).unwrap();
    assert_eq!(replace::mark(dir.path()).unwrap(), Some(mark));
    let error = Store::open(dir.path(), "test", KEY_GROUPS)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a restore from /backups/one was not finished"),
        "{error}"
    );
    replace::clear_mark(dir.path()).unwrap();
    drop(open(dir.path()));
}
