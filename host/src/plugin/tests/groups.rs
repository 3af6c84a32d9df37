//! Groups into parts and back; whole calls in halves are tried with real plugins in `tests/keyed.rs`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;

use super::*;

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn input(state: GroupStates) -> KeyedInput {
    KeyedInput {
        reads: RecordBatch::try_from_iter([("x", ints(&[0, 1, 2, 3]))]).unwrap(),
        group_of_row: vec![3, 1, 3, 0],
        keys: vec![ints(&[10, 11, 12, 13])],
        groups: 4,
        state,
        alarms: vec![NO_ALARM, 1, 2, 3],
        due: vec![1, 2, 3],
        now: 5,
    }
}

fn texts(state: &GroupStates) -> Vec<&[u8]> {
    let GroupStates::Blob { offsets, data } = state else {
        panic!("{state:?}");
    };
    (0..offsets.len() - 1)
        .map(|at| value(offsets, data, at))
        .collect()
}

fn three_words() -> GroupStates {
    GroupStates::Fixed {
        words: (0..12).collect(),
        present: vec![true, false, true, true],
    }
}

#[test]
fn a_part_holds_its_groups_by_numbers_of_its_own() {
    let mut working = Working::new(input(three_words()));
    let (part, groups) = working.part(&Part {
        rows: 0..3,
        due: 0..2,
    });
    assert_eq!(groups, [1, 2, 3]);
    assert_eq!(part.group_of_row, [2, 0, 2]);
    assert_eq!((part.groups, part.due), (3, vec![0, 1]));
    assert_eq!(part.alarms, [1, 2, 3]);
    assert_eq!(
        part.keys[0].as_primitive::<Int64Type>().values().as_ref(),
        [11, 12, 13]
    );
    assert_eq!(part.reads.num_rows(), 3);
    let GroupStates::Fixed { words, present } = part.state else {
        panic!("fixed state stays fixed");
    };
    assert_eq!(words, (3..12).collect::<Vec<u64>>());
    assert_eq!(present, [false, true, true]);
}

#[test]
fn the_next_part_starts_from_what_the_last_left_and_clean_groups_stay() {
    let mut working = Working::new(input(blob([&b"a"[..], b"bb", b"", b"dddd"].into_iter())));
    let left = Left {
        state: blob([&b"B"[..], b"not dirty"].into_iter()),
        dirty: vec![true, false],
        alarms: vec![9, 2],
    };
    working.leave(&[1, 3], left).unwrap();
    let (part, groups) = working.part(&Part {
        rows: 1..4,
        due: 0..3,
    });
    assert_eq!(groups, [0, 1, 2, 3]);
    assert_eq!(
        part.due,
        [2, 3],
        "the alarm of group 1 was moved beyond now"
    );
    assert_eq!(texts(&part.state), [&b"a"[..], b"B", b"", b"dddd"]);
    assert_eq!(working.clear_alarm(1), 2);
    let done = working.finish();
    assert_eq!(texts(&done.state), [&b"a"[..], b"B", b"", b"dddd"]);
    assert_eq!(done.dirty, [false, true, false, false]);
    assert_eq!(done.alarms, [NO_ALARM, 9, NO_ALARM, 2]);
}

#[test]
fn fixed_state_can_be_forgotten() {
    let mut working = Working::new(input(three_words()));
    let left = Left {
        state: GroupStates::Fixed {
            words: vec![0, 0, 0],
            present: vec![false],
        },
        dirty: vec![true],
        alarms: vec![NO_ALARM],
    };
    working.leave(&[2], left).unwrap();
    let done = working.finish();
    let expected = GroupStates::Fixed {
        words: vec![0, 1, 2, 3, 4, 5, 0, 0, 0, 9, 10, 11],
        present: vec![true, false, false, true],
    };
    assert_eq!(done.state, expected);
}
