//! Hot tables over a real store against a plain map: rows, alarms, forgetting, checkpoints, merges (also ones that are cut
//! off), evictions and crashes in random order, with other numbers of workers after each crash, and memory from none to
//! enough for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::prelude::*;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::super::*;
use crate::engine::exchange::{owned, owner};
use crate::state::merge::MergeRule;
use crate::state::{Delta, Prepared, Store};
use crate::time::NO_TIME;

const KEY_GROUPS: u16 = 8;
const NEVER: MergeRule = MergeRule {
    keys_min: u64::MAX,
    keys_max: u64::MAX,
    bytes_max: u64::MAX,
    checkpoints_max: u64::MAX,
};

/// What is known of a key.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    state: Option<Vec<u8>>,
    alarm: Micros,
    expires: Micros,
}

/// All keys, and how far time is.
#[derive(Debug, Clone)]
struct Model {
    keys: BTreeMap<Vec<u8>, Entry>,
    watermark: Micros,
}

struct World {
    dir: TempDir,
    store: Option<Arc<Store>>,
    step: u16,
    tables: Vec<KeyedTable>,
    ttl: Option<Micros>,
    now: Model,
    /// As of the last checkpoint.
    decided: Model,
}

impl World {
    fn new(ttl: Option<Micros>, rng: &mut StdRng) -> Self {
        let nothing = Model {
            keys: BTreeMap::new(),
            watermark: NO_TIME,
        };
        let mut world = Self {
            dir: tempfile::tempdir().unwrap(),
            store: None,
            step: 0,
            tables: Vec::new(),
            ttl,
            now: nothing.clone(),
            decided: nothing,
        };
        world.crash(rng);
        // As the engine does before its first record.
        world.store().commit(Prepared::default()).unwrap();
        world
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().unwrap()
    }

    /// Everything in memory is lost; some number of workers goes on.
    fn crash(&mut self, rng: &mut StdRng) {
        self.tables.clear();
        self.store = None;
        let opened = Store::open_with(
            self.dir.path(),
            "test",
            KEY_GROUPS,
            NEVER,
            &crate::state::file::plain,
        );
        let store = Arc::new(opened.unwrap());
        self.step = store.step_id("step").unwrap();
        let workers = rng.random_range(1..=3);
        for worker in 0..workers {
            let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
            if let Some(ttl) = self.ttl {
                table = table.with_ttl(ttl, true);
            }
            table.residence.slice = rng.random_range(1..20);
            let budget = *[0, 0, 2_000, 10_000, 1 << 30].choose(rng).unwrap();
            let keys = store.keys(self.step, owned(worker, KEY_GROUPS, workers));
            table.restore(keys, budget).unwrap();
            self.tables.push(table);
        }
        self.store = Some(store);
        self.now = self.decided.clone();
    }

    /// Rows of some keys: each finds what the map has, and changes it.
    fn rows(&mut self, rng: &mut StdRng) {
        let mut keys: Vec<Vec<u8>> = (0..rng.random_range(1..12))
            .map(|_| {
                format!(
                    "key{:0len$}",
                    rng.random_range(0..60),
                    len = rng.random_range(1..3)
                )
            })
            .map(String::into_bytes)
            .collect();
        keys.sort();
        keys.dedup();
        keys.shuffle(rng);
        let workers = self.tables.len();
        for worker in 0..workers {
            let mine = |key: &&Vec<u8>| {
                let group = key_group(key_hash(key), KEY_GROUPS);
                owner(group, KEY_GROUPS, workers) == worker
            };
            let mine: Vec<&Vec<u8>> = keys.iter().filter(mine).collect();
            let table = &mut self.tables[worker];
            let slots: Vec<u32> = mine.iter().map(|k| table.slot(key_hash(k), k)).collect();
            table.read_back().unwrap();
            for (key, slot) in mine.iter().zip(slots) {
                self.row(rng, worker, key, slot);
            }
        }
    }

    fn row(&mut self, rng: &mut StdRng, worker: usize, key: &[u8], slot: u32) {
        let table = &mut self.tables[worker];
        let watermark = self.now.watermark;
        if table.expires(slot) <= watermark {
            table.forget(slot);
        }
        let found = Entry {
            state: table.present(slot).then(|| table.blob(slot).to_vec()),
            alarm: table.alarm(slot),
            expires: table.expires(slot),
        };
        let nothing = Entry {
            state: None,
            alarm: NO_ALARM,
            expires: NO_ALARM,
        };
        let expected = self.now.keys.get(key).unwrap_or(&nothing);
        assert_eq!(&found, expected, "{}", String::from_utf8_lossy(key));
        let mut entry = expected.clone();
        if rng.random_ratio(1, 2) {
            let state = vec![rng.random(); rng.random_range(0..200)];
            table.set_blob(slot, &state);
            entry.state = (!state.is_empty()).then_some(state);
        }
        if rng.random_ratio(1, 3) {
            let ahead = watermark.max(0) + rng.random_range(-5..60);
            entry.alarm = *[NO_ALARM, ahead, ahead].choose(rng).unwrap();
            table.set_alarm(slot, entry.alarm);
        }
        if let Some(ttl) = self.ttl {
            let time = watermark.max(0) + rng.random_range(0..10);
            table.touch(slot, time);
            entry.expires = match entry.expires {
                NO_ALARM => time + ttl,
                before => before.max(time + ttl),
            };
        }
        if entry.state.is_none() && entry.alarm == NO_ALARM {
            table.forget(slot);
            self.now.keys.remove(key);
        } else {
            self.now.keys.insert(key.to_vec(), entry);
        }
    }

    /// Time moves on: alarms fire once each and in order, keys that nobody touched are forgotten.
    fn tick(&mut self, rng: &mut StdRng) {
        let watermark = self.now.watermark.max(0) + rng.random_range(0..25);
        let workers = self.tables.len();
        let rings = |e: &Entry| e.alarm <= watermark && e.alarm < e.expires;
        for worker in 0..workers {
            let mine = |key: &[u8]| {
                let group = key_group(key_hash(key), KEY_GROUPS);
                owner(group, KEY_GROUPS, workers) == worker
            };
            let due = (self.now.keys.iter()).filter(|(key, e)| mine(key) && rings(e));
            let mut expected: Vec<_> = due.map(|(key, e)| (e.alarm, key.clone())).collect();
            expected.sort();
            let table = &mut self.tables[worker];
            let mut found = Vec::new();
            let mut due = Vec::new();
            table.ring(watermark);
            while table.next_due(&mut due).unwrap() {
                for &slot in &due {
                    let key = table.key(slot).to_vec();
                    found.push((table.alarm(slot), key.clone()));
                    // Sometimes one is left as it is, and due again.
                    if rng.random_ratio(1, 10) {
                        continue;
                    }
                    let alarm = *[NO_ALARM, watermark, watermark + 7].choose(rng).unwrap();
                    table.set_alarm(slot, alarm);
                    let entry = self.now.keys.get_mut(&key).unwrap();
                    entry.alarm = alarm;
                    if entry.state.is_none() && alarm == NO_ALARM {
                        table.forget(slot);
                        self.now.keys.remove(&key);
                    }
                }
            }
            assert_eq!(found, expected);
            table.expire(watermark).unwrap();
        }
        self.now.keys.retain(|_, e| e.expires > watermark);
        self.now.watermark = watermark;
    }

    fn checkpoint(&mut self, then_crash: bool, rng: &mut StdRng) {
        let number = self.store().latest().unwrap().number + 1;
        let deltas = self.tables.iter_mut().map(|table| Delta {
            changes: table.freeze(number),
            ..Delta::default()
        });
        let prepared = Prepared {
            number,
            deltas: vec![(self.step, deltas.collect())],
            ..Prepared::default()
        };
        if then_crash {
            return self.crash(rng);
        }
        self.store().commit(prepared).unwrap();
        self.decided = self.now.clone();
    }

    /// A merge that gives up after some slices.
    fn merge_in_part(&self, rng: &mut StdRng) {
        let (left, all) = (AtomicUsize::new(0), rng.random_range(0..3));
        let stop = || left.fetch_add(1, Ordering::Relaxed) >= all;
        self.store().files().merge(&stop).unwrap();
    }
}

fn run(ttl: Option<Micros>, seed: u64) -> Counts {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut world = World::new(ttl, rng);
    let mut counts = Counts::default();
    for _ in 0..600 {
        match rng.random_range(0..20) {
            0..=7 => world.rows(rng),
            8..=9 => world.tick(rng),
            10..=12 => world.tables.iter_mut().for_each(|t| t.maintain().unwrap()),
            13..=15 => world.checkpoint(false, rng),
            16..=17 => world.store().merge().unwrap(),
            18 => world.merge_in_part(rng),
            _ if rng.random_ratio(1, 3) => {
                for table in &world.tables {
                    counts.evicted += table.counts().evicted;
                    counts.read_back += table.counts().read_back;
                    counts.forgotten += table.counts().forgotten;
                }
                if rng.random() {
                    world.checkpoint(true, rng);
                } else {
                    world.crash(rng);
                }
            }
            _ => {}
        }
    }
    counts
}

fn run_all(ttl: Option<Micros>) -> Counts {
    let mut all = Counts::default();
    for _ in 0..12 {
        let seed = rand::random();
        println!("ttl {ttl:?} seed {seed}");
        let counts = run(ttl, seed);
        all.evicted += counts.evicted;
        all.read_back += counts.read_back;
        all.forgotten += counts.forgotten;
    }
    println!("{all:?}");
    all
}

#[test]
fn equals_a_map_through_evictions_merges_and_crashes() {
    let counts = run_all(None);
    assert!(
        counts.evicted > 1_000 && counts.read_back > 1_000,
        "{counts:?}"
    );
}

#[test]
fn keys_that_nobody_touches_are_forgotten_wherever_they_lie() {
    let counts = run_all(Some(40));
    assert!(counts.evicted > 500 && counts.forgotten > 500, "{counts:?}");
}
