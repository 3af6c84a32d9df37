//! The order and number of the parts, with a plugin that is a list of bad rows and alarms.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const CALL: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Fake {
    bad_rows: BTreeSet<usize>,
    bad_alarms: BTreeSet<usize>,
    /// Attempts that are left.
    attempts_max: Option<usize>,
    attempts: Vec<(Part, Duration)>,
    /// Rows and alarms in the order in which they were settled, and those given up.
    settled: Vec<(char, usize)>,
    given_up: Vec<(char, usize)>,
}

impl Parts for Fake {
    fn attempt(&mut self, part: &Part, deadline: Duration) -> Result<(), Failure> {
        self.attempts.push((part.clone(), deadline));
        let bad_row = part.rows.clone().find(|row| self.bad_rows.contains(row));
        let bad_alarm = part.due.clone().find(|due| self.bad_alarms.contains(due));
        if bad_row.is_some() || bad_alarm.is_some() {
            return Err(Failure::Part(format!("{bad_row:?} {bad_alarm:?}")));
        }
        self.settled.extend(part.rows.clone().map(|row| ('r', row)));
        self.settled.extend(part.due.clone().map(|due| ('a', due)));
        Ok(())
    }

    fn give_up_row(&mut self, row: usize, _cause: String) {
        self.settled.push(('r', row));
        self.given_up.push(('r', row));
    }

    fn give_up_alarm(&mut self, due: usize, _cause: String) {
        self.settled.push(('a', due));
        self.given_up.push(('a', due));
    }

    fn is_exhausted(&self) -> bool {
        self.attempts_max
            .is_some_and(|max| self.attempts.len() >= max)
    }
}

fn whole(rows: usize, due: usize) -> Part {
    Part {
        rows: 0..rows,
        due: 0..due,
    }
}

proptest! {
    #[test]
    fn everything_is_settled_once_in_order_and_the_bad_given_up(
        rows in 0usize..60,
        due in 0usize..20,
        bad_rows in proptest::collection::btree_set(0usize..60, 0..8),
        bad_alarms in proptest::collection::btree_set(0usize..20, 0..4),
    ) {
        let mut fake = Fake {
            bad_rows: bad_rows.into_iter().filter(|row| *row < rows).collect(),
            bad_alarms: bad_alarms.into_iter().filter(|at| *at < due).collect(),
            ..Fake::default()
        };
        let bad = fake.bad_rows.len() + fake.bad_alarms.len();
        prop_assume!(bad > 0);
        settle(&mut fake, &whole(rows, due), "at first".into(), CALL).unwrap();
        let all = (0..rows).map(|row| ('r', row)).chain((0..due).map(|at| ('a', at)));
        prop_assert_eq!(&fake.settled, &all.collect::<Vec<_>>());
        let expected: Vec<_> = fake.bad_rows.iter().map(|row| ('r', *row))
            .chain(fake.bad_alarms.iter().map(|at| ('a', *at)))
            .collect();
        prop_assert_eq!(&fake.given_up, &expected);
        // Two parts a level for each bad one; log2(60) + 1 levels of rows, log2(20) + 1 of alarms.
        prop_assert!(fake.attempts.len() <= bad * 2 * (7 + 6), "{} attempts", fake.attempts.len());
        for (part, deadline) in &fake.attempts {
            prop_assert!(part.weight() > 0, "no empty part: {part:?}");
            let share = CALL.mul_f64(part.weight() as f64 / (rows + due) as f64);
            prop_assert_eq!(*deadline, share.max(Duration::from_millis(10)));
        }
    }
}

#[test]
fn due_alarms_go_with_the_last_part() {
    let mut fake = Fake {
        bad_rows: [1].into(),
        ..Fake::default()
    };
    settle(&mut fake, &whole(4, 2), "at first".into(), CALL).unwrap();
    let parts: Vec<_> = fake
        .attempts
        .into_iter()
        .map(|(part, _)| (part.rows, part.due))
        .collect();
    assert_eq!(
        parts,
        [(0..2, 0..0), (0..1, 0..0), (1..2, 0..0), (2..4, 0..2)]
    );
}

#[test]
fn a_single_row_or_alarm_is_given_up_without_another_call() {
    for (part, given_up) in [(whole(1, 0), ('r', 0)), (whole(0, 1), ('a', 0))] {
        let mut fake = Fake::default();
        settle(&mut fake, &part, "at first".into(), CALL).unwrap();
        assert_eq!(fake.given_up, [given_up]);
        assert!(fake.attempts.is_empty());
    }
}

#[test]
fn when_the_time_is_used_up_the_last_cause_is_told() {
    let mut fake = Fake {
        bad_rows: (0..1_000).collect(),
        attempts_max: Some(40),
        ..Fake::default()
    };
    let error = settle(&mut fake, &whole(1_000, 0), "at first".into(), CALL).unwrap_err();
    assert_eq!(fake.attempts.len(), 40);
    assert!(
        error.contains("more than 1000 ms") && error.contains("failed last with: Some("),
        "{error}"
    );
}
