//! The hot table against a plain map: every operation, freezes and reloads, in random order.

mod residence;

use std::collections::BTreeMap;

use rand::prelude::*;
use rand::rngs::StdRng;

use super::*;

/// State and alarm of a key, as the oracle keeps them.
type Model = BTreeMap<Vec<u8>, (Option<Vec<u8>>, Micros)>;

fn slot(table: &mut KeyedTable, key: &[u8]) -> u32 {
    table.slot(key_hash(key), key)
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let chunks = bytes.as_chunks().0;
    chunks.iter().map(|b| u64::from_le_bytes(*b)).collect()
}

/// What a store would hold after the changes.
fn apply(stored: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &Changes) {
    for change in changes.iter() {
        assert_eq!(change.group, key_group(key_hash(change.key), 16));
        match change.value {
            Some(value) => drop(stored.insert(change.key.to_vec(), value.to_vec())),
            None => assert!(stored.remove(change.key).is_some(), "deletes what is there"),
        }
    }
}

fn check_content(table: &mut KeyedTable, layout: StateLayout, model: &Model) {
    for (key, (state, alarm)) in model {
        let slot = slot(table, key);
        assert_eq!(table.key(slot), key);
        assert_eq!(table.present(slot), state.is_some());
        assert_eq!(table.alarm(slot), *alarm);
        let state = state.clone().unwrap_or_default();
        match layout {
            StateLayout::None => {}
            StateLayout::Fixed(2) if state.is_empty() => assert_eq!(table.words(slot), [0, 0]),
            StateLayout::Fixed(_) => assert_eq!(table.words(slot), words(&state)),
            StateLayout::Blob => assert_eq!(table.blob(slot), state),
        }
    }
}

fn check_due(table: &mut KeyedTable, model: &Model, until: Micros) {
    let mut due = Vec::new();
    all_due(table, until, &mut due);
    let found: Vec<_> = due
        .iter()
        .map(|&s| (table.alarm(s), table.key(s)))
        .collect();
    let mut expected: Vec<_> = (model.iter())
        .filter(|(_, (_, alarm))| *alarm <= until && *alarm != NO_ALARM)
        .map(|(key, (_, alarm))| (*alarm, key.as_slice()))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// The whole round at once.
fn all_due(table: &mut KeyedTable, until: Micros, out: &mut Vec<u32>) {
    out.clear();
    table.ring(until);
    let mut slice = Vec::new();
    while table.next_due(&mut slice).unwrap() {
        out.append(&mut slice);
    }
}

fn random_state(rng: &mut StdRng, layout: StateLayout) -> Option<Vec<u8>> {
    let len = match layout {
        StateLayout::None => return None,
        StateLayout::Fixed(width) => 8 * width as usize,
        StateLayout::Blob => *[1, 7, 200, 3000].choose(rng).unwrap(),
    };
    Some((0..len).map(|_| rng.random()).collect())
}

fn set_state(table: &mut KeyedTable, slot: u32, layout: StateLayout, state: Option<&[u8]>) {
    match (layout, state) {
        (_, None) => table.clear_state(slot),
        (StateLayout::Blob, Some(state)) => table.set_blob(slot, state),
        (_, Some(state)) => table.words_mut(slot).copy_from_slice(&words(state)),
    }
}

fn run(layout: StateLayout, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut table = KeyedTable::new(layout, 16);
    let mut model = Model::new();
    let mut stored = BTreeMap::new();
    for _ in 0..3_000 {
        let key = format!(
            "{:0len$}",
            rng.random_range(0..40),
            len = rng.random_range(1..4)
        );
        let slot = slot(&mut table, key.as_bytes());
        let entry = model.entry(key.into_bytes()).or_insert((None, NO_ALARM));
        match rng.random_range(0..12) {
            0..=4 => {
                let state = random_state(&mut rng, layout);
                set_state(&mut table, slot, layout, state.as_deref());
                entry.0 = state;
            }
            5..=7 => {
                entry.1 = *[NO_ALARM, i64::MIN, rng.random_range(0..100)]
                    .choose(&mut rng)
                    .unwrap();
                table.set_alarm(slot, entry.1);
            }
            8 => {
                *entry = (None, NO_ALARM);
                table.forget(slot);
            }
            9 => check_due(&mut table, &model, rng.random_range(-5..105)),
            10 => {
                apply(&mut stored, &table.freeze(1));
                model.retain(|_, (state, alarm)| state.is_some() || *alarm != NO_ALARM);
                assert!(stored.keys().eq(model.keys()));
                assert_eq!(table.len(), model.len());
            }
            _ if rng.random_ratio(1, 10) => {
                apply(&mut stored, &table.freeze(1));
                table = KeyedTable::new(layout, 16);
                for (key, value) in &stored {
                    table.load(key, value).unwrap();
                }
                assert!(table.freeze(1).is_empty(), "what was loaded did not change");
                model.retain(|_, (state, alarm)| state.is_some() || *alarm != NO_ALARM);
            }
            _ => {}
        }
        check_content(&mut table, layout, &model);
    }
}

#[test]
fn equals_a_map_whatever_the_operations() {
    for layout in [StateLayout::None, StateLayout::Fixed(2), StateLayout::Blob] {
        for _ in 0..10 {
            let seed = rand::random();
            println!("layout {layout:?} seed {seed}");
            run(layout, seed);
        }
    }
}

#[test]
fn golden_values() {
    let check = |layout, change: &dyn Fn(&mut KeyedTable, u32), expected: &[u8]| {
        let mut table = KeyedTable::new(layout, 16);
        let slot = slot(&mut table, b"k");
        change(&mut table, slot);
        let changes = table.freeze(1);
        let values: Vec<_> = changes.iter().map(|c| c.value.unwrap()).collect();
        assert_eq!(values, [expected]);
    };
    check(
        StateLayout::Fixed(1),
        &|t, s| t.words_mut(s)[0] = 258,
        &[1, 2, 1, 0, 0, 0, 0, 0, 0],
    );
    check(
        StateLayout::Blob,
        &|t, s| {
            t.set_blob(s, b"xy");
            t.set_alarm(s, -2);
        },
        &[3, 254, 255, 255, 255, 255, 255, 255, 255, b'x', b'y'],
    );
    check(
        StateLayout::None,
        &|t, s| t.set_alarm(s, 1),
        &[2, 1, 0, 0, 0, 0, 0, 0, 0],
    );
    check(
        StateLayout::Fixed(0),
        &|t, s| assert!(t.words_mut(s).is_empty()),
        &[1],
    );
}

#[test]
fn values_of_another_layout_are_refused() {
    let mut table = KeyedTable::new(StateLayout::Fixed(1), 16);
    for value in [&[][..], &[4], &[1, 2], &[2, 0], &[0, 1], &[1; 18]] {
        assert!(table.load(b"k", value).is_err(), "{value:?}");
    }
    assert!(table.is_empty());
    table.load(b"k", &[1; 9]).unwrap();
    assert!(table.load(b"k", &[1; 9]).is_err(), "twice");
}

#[test]
fn keys_that_end_leave_no_memory_behind() {
    let mut table = KeyedTable::new(StateLayout::Blob, 16);
    let mut bytes = 0;
    for round in 0u32..40 {
        for i in 0u32..2_000 {
            // Keys of all lengths, so that room is not always reused in place.
            let key = format!(
                "{round}-{i:0width$}",
                width = 1 + (i * 7 + round) as usize % 150
            );
            let slot = slot(&mut table, key.as_bytes());
            table.set_blob(slot, &[1; 100]);
            table.set_alarm(slot, Micros::from(i));
        }
        table.freeze(1);
        let used = |slot: &u32| table.slots[*slot as usize].life != Life::Free;
        let slots: Vec<u32> = (0..table.slots.len() as u32).filter(used).collect();
        assert_eq!(slots.len(), 2_000);
        slots.iter().for_each(|&slot| table.forget(slot));
        assert_eq!(table.freeze(1).len(), 2_000);
        assert!(table.is_empty());
        if round == 20 {
            bytes = table.bytes();
        }
    }
    assert!(
        table.bytes() <= bytes * 3 / 2,
        "{} after {bytes}",
        table.bytes()
    );
}

#[test]
fn a_key_that_was_over_before_a_restart_does_not_ring_after_it() {
    for (watermark, rings) in [(109, true), (110, false)] {
        let mut table = KeyedTable::new(StateLayout::None, 16).with_ttl(100, false);
        table.resume_at(watermark);
        let slot = slot(&mut table, b"k");
        table.touch(slot, 10);
        table.set_alarm(slot, 5);
        table.ring(1_000);
        let mut due = Vec::new();
        while table.next_due(&mut due).unwrap() {
            assert!(due.is_empty() || rings, "watermark {watermark}");
            assert!(due == [slot] || !rings, "watermark {watermark}");
        }
    }
}

#[test]
fn an_alarm_that_moves_costs_no_memory() {
    let mut table = KeyedTable::new(StateLayout::None, 16);
    let slot = slot(&mut table, b"k");
    for i in 0..10_000 {
        table.set_alarm(slot, i);
    }
    for i in (0..10_000).rev() {
        table.set_alarm(slot, i);
    }
    assert!(table.bytes() < 8_192, "{}", table.bytes());
    let mut due = Vec::new();
    all_due(&mut table, 0, &mut due);
    assert_eq!(due, [slot]);
    all_due(&mut table, 0, &mut due);
    assert_eq!(due, [slot], "the alarm was not changed");
}

#[test]
fn a_million_blobs_of_200_bytes_stay_under_350_mb() {
    let mut table = KeyedTable::new(StateLayout::Blob, 128);
    for i in 0..1_000_000 {
        let key = format!("user_{i:09}");
        let slot = slot(&mut table, key.as_bytes());
        table.set_blob(slot, &[7; 200]);
        table.set_alarm(slot, i);
        if i % 100_000 == 0 {
            table.freeze(1);
        }
    }
    table.freeze(1);
    let mb = table.bytes() >> 20;
    assert!(mb < 350, "{mb} MB");
}
