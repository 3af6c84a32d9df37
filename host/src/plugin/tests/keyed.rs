//! Keyed calls: state and alarms through real WebAssembly, whole and in halves.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};

use super::guests::{component, kept, new, rows, setup};
use crate::plugin::{GroupStates, Instance, KeyedInput, KeyedOutcome};
use crate::time::NO_ALARM;

/// What a call is made of: rows as (group, x), states and alarms a group.
#[derive(Clone)]
struct Call {
    rows: Vec<(u32, i64)>,
    sums: Vec<Option<i64>>,
    alarms: Vec<i64>,
    now: i64,
}

const KINDS: [&str; 2] = ["keyed", "keyed_blob"];

fn instance(kind: &str, mode: &str) -> Instance {
    component(kind).instantiate(setup(mode, &rows([]))).unwrap()
}

fn states(kind: &str, sums: &[Option<i64>]) -> GroupStates {
    if kind == "keyed" {
        return GroupStates::Fixed {
            words: sums.iter().map(|s| s.unwrap_or(0) as u64).collect(),
            present: sums.iter().map(Option::is_some).collect(),
        };
    }
    let (mut offsets, mut data) = (vec![0], Vec::new());
    for sum in sums {
        data.extend(sum.map(|s| s.to_string()).unwrap_or_default().bytes());
        offsets.push(data.len() as i32);
    }
    GroupStates::Blob { offsets, data }
}

fn sums(state: &GroupStates) -> Vec<Option<i64>> {
    match state {
        GroupStates::None => panic!("no state"),
        GroupStates::Fixed { words, present } => words
            .iter()
            .zip(present)
            .map(|(w, present)| present.then_some(*w as i64))
            .collect(),
        GroupStates::Blob { offsets, data } => offsets
            .windows(2)
            .map(|at| {
                String::from_utf8_lossy(&data[at[0] as usize..at[1] as usize])
                    .parse()
                    .ok()
            })
            .collect(),
    }
}

impl Call {
    fn input(&self, kind: &str, instance: &Instance) -> KeyedInput {
        let groups = self.sums.len() as u32;
        let keys = (0..groups).map(|g| format!("key {g}"));
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(keys));
        let has_alarms = kind == "keyed";
        let due = (0..groups).filter(|&g| has_alarms && self.alarms[g as usize] <= self.now);
        KeyedInput {
            reads: instance.reads(&rows(self.rows.iter().map(|(_, x)| *x))),
            group_of_row: self.rows.iter().map(|(group, _)| *group).collect(),
            keys: vec![keys],
            groups,
            state: states(kind, &self.sums),
            due: due.collect(),
            alarms: if has_alarms {
                self.alarms.clone()
            } else {
                vec![]
            },
            now: self.now,
        }
    }

    fn make(&self, kind: &str, mode: &str) -> KeyedOutcome {
        let mut instance = instance(kind, mode);
        let input = self.input(kind, &instance);
        instance.keyed(input).unwrap()
    }
}

/// Three groups, the last of which has only a due alarm.
fn call() -> Call {
    Call {
        rows: vec![(0, 5), (1, 10), (0, 7), (0, 0), (1, 2)],
        sums: vec![None, Some(100), Some(7)],
        alarms: vec![NO_ALARM, NO_ALARM, 3],
        now: 4,
    }
}

#[test]
fn state_alarms_and_rows_come_back() {
    for kind in KINDS {
        let done = call().make(kind, "");
        assert_eq!(
            kept(&done.outcome, 0),
            [(0, 5), (1, 110), (2, 12), (3, 12), (4, 112)]
        );
        if kind == "keyed" {
            assert_eq!(new(&done.outcome, 1), [(5 + 2, 7)], "origin: rows + group");
            assert_eq!(sums(&done.state), [Some(12), Some(112), None]);
            assert_eq!(done.alarms, [7, 2, NO_ALARM]);
            assert_eq!(done.dirty, [true, true, true]);
        } else {
            assert_eq!(sums(&done.state), [Some(12), Some(112), Some(7)]);
            assert_eq!(done.dirty, [true, true, false]);
            assert!(done.alarms.is_empty());
        }
    }
}

/// A call with unlucky rows must give what the same call without them gives, in the numbers of the whole.
#[test]
fn failed_rows_leave_no_trace_in_state_alarms_and_rows() {
    for kind in KINDS {
        for mode in ["panic on 13", "err on 13"] {
            for unlucky in [&[0][..], &[30], &[59], &[0, 1, 2], &[7, 31, 32, 58, 59]] {
                check_without(kind, mode, unlucky);
            }
        }
    }
}

fn check_without(kind: &str, mode: &str, unlucky: &[usize]) {
    let n = 60;
    let mut with = Call {
        rows: (0..n).map(|i| (i * 7 % 5, i64::from(i) + 50)).collect(),
        sums: vec![Some(1), None, Some(1_000), None, Some(5), Some(7), Some(9)],
        alarms: vec![2, NO_ALARM, 1, NO_ALARM, NO_ALARM, 4, 9],
        now: 4,
    };
    let lucky: Vec<usize> = (0..n as usize).filter(|i| !unlucky.contains(i)).collect();
    let without = Call {
        rows: lucky.iter().map(|&i| with.rows[i]).collect(),
        ..with.clone()
    };
    for &i in unlucky {
        with.rows[i].1 = 13;
    }
    let (done, expected) = (with.make(kind, mode), without.make(kind, mode));
    let failed: Vec<_> = done
        .outcome
        .failed
        .iter()
        .map(|(row, _)| *row as usize)
        .collect();
    assert_eq!(failed, unlucky);
    let shifted: Vec<_> = kept(&expected.outcome, 0)
        .into_iter()
        .map(|(row, sum)| (lucky[row as usize] as u32, sum))
        .collect();
    assert_eq!(kept(&done.outcome, 0), shifted);
    let gone = unlucky.len() as u32;
    let fired: Vec<_> = new(&expected.outcome, 1)
        .into_iter()
        .map(|(origin, sum)| (origin + gone, sum))
        .collect();
    assert_eq!(new(&done.outcome, 1), fired);
    assert_eq!(sums(&done.state), sums(&expected.state));
    assert_eq!((done.dirty, done.alarms), (expected.dirty, expected.alarms));
    assert!(done.outcome.failed_alarms.is_empty());
}

#[test]
fn refused_rows_in_parts_have_the_numbers_of_the_whole() {
    let mut call = call();
    call.rows = vec![(0, 1), (0, -1), (1, 13), (1, -2), (0, 3)];
    let done = call.make("keyed", "err on 13");
    let refused: Vec<_> = done.outcome.refused.iter().map(|(row, _)| *row).collect();
    assert_eq!(refused, [1, 3]);
    assert_eq!(kept(&done.outcome, 0), [(0, 1), (4, 4)]);
    assert_eq!(done.outcome.failed.len(), 1);
}

#[test]
fn an_alarm_that_fails_alone_is_cleared_and_told() {
    for rows in [vec![], vec![(0, 5)], vec![(0, 5), (1, 10), (0, 2)]] {
        let call = Call {
            sums: vec![None, Some(3), Some(7), Some(8), Some(9)],
            alarms: vec![NO_ALARM, NO_ALARM, 1, 2, 3],
            now: 4,
            rows,
        };
        let done = call.make("keyed", "alarm panic on 7");
        let [(group, cause)] = &done.outcome.failed_alarms[..] else {
            panic!("{:?}", done.outcome);
        };
        assert_eq!(*group, 2);
        assert!(cause.contains("panicked at the alarm of seven"), "{cause}");
        assert_eq!(done.alarms[2..], [NO_ALARM; 3]);
        assert_eq!(
            sums(&done.state)[2..],
            [Some(7), None, None],
            "its state stays"
        );
        let n = call.rows.len() as u32;
        assert_eq!(new(&done.outcome, 1), [(n + 3, 8), (n + 4, 9)]);
        assert_eq!(kept(&done.outcome, 0).len(), call.rows.len());
        assert!(done.outcome.failed.is_empty());
    }
}

#[test]
fn nothing_to_do_is_no_call() {
    let mut call = call();
    call.rows.clear();
    call.now = 0;
    let done = call.make("keyed", "lie layout");
    assert_eq!(sums(&done.state), call.sums);
    assert_eq!((done.dirty, done.alarms), (vec![false; 3], call.alarms));
}

#[test]
fn lies_about_state_and_alarms_fail_the_rows() {
    let cases = [
        (
            "keyed",
            "lie layout",
            "state of the layout None, described was Fixed(1)",
        ),
        (
            "keyed",
            "lie state",
            "2 words of state, 1 groups of 1 need 1",
        ),
        (
            "keyed",
            "lie present",
            "`present` has 0 bytes, 1 bits need 1",
        ),
        ("keyed", "lie dirty", "dirty has 99 bytes, 1 bits need 1"),
        ("keyed", "lie alarms", "it returned 2 alarms for 1 groups"),
        (
            "keyed",
            "lie origin",
            "the origin 2, the call had 1 rows and 1 groups",
        ),
        (
            "keyed_blob",
            "lie state",
            "the state has 3 offsets, 1 values need 2",
        ),
        (
            "keyed_blob",
            "lie alarms",
            "set alarms, but described itself as having none",
        ),
    ];
    for (kind, mode, expected) in cases {
        let call = Call {
            rows: vec![(0, 1)],
            sums: vec![Some(2)],
            alarms: vec![NO_ALARM],
            now: 0,
        };
        let done = call.make(kind, mode);
        assert_eq!(done.outcome.failed.len(), 1, "{mode}");
        let cause = &done.outcome.failed[0].1;
        assert!(
            cause.contains(expected),
            "{mode}: {cause} lacks {expected:?}"
        );
        assert_eq!(
            sums(&done.state),
            [Some(2)],
            "{mode}: the state is untouched"
        );
        assert_eq!(done.dirty, [false]);
    }
}
