//! What the tests of stateful operators have in common: scripts of rows and watermarks, a store in memory, workers that
//! crash, change in number and lose writes, and the comparison with an oracle.
//!
//! The ladder of each operator stands on it: [`check`] is a table row that is also run with a crash at every position,
//! [`against_oracle`] folds random scripts from scratch, [`every_write_fails`] loses each write once.

mod cluster;
mod script;
mod store;

use std::fmt::Debug;

use rand::prelude::*;
use rand::rngs::StdRng;

pub use cluster::{Outcome, Subject, Then, Turn};
pub use script::{Epoch, In, batch, schema, seconds, show_time};
use script::{parse, show, text};

use crate::time::{END_OF_TIME, Micros};

/// A row that came out: its port, event time and cells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Given {
    pub port: usize,
    pub time: Micros,
    pub cells: String,
}

/// Rows with the number of the epoch they belong to.
pub type Outputs = Vec<(usize, Given)>;

/// Runs `script` (`a@3=7` is a row of key `a` at 3 s with value 7, `R:` in front puts it into the second input, `~10` ends
/// the epoch with the watermark at 10 s) and compares what each epoch gives; then again with other numbers of workers and
/// with a crash at every position.
#[track_caller]
pub fn check(subject: &Subject<'_>, script: &str, expected: &str) {
    let epochs = parse(script);
    let plain = subject.run(&epochs, 1, &[]);
    assert_eq!(show(&epochs, &plain.given), expected, "{script}");
    assert_eq!(plain.left, (0, 0), "keys and segments left after {script}");
    for workers in 1..=3 {
        for at in 0..epochs.len() {
            let crash = crash_at(at, workers);
            let crashed = subject.run(&epochs, workers, &crash);
            assert_eq!(
                show(&epochs, &crashed.given),
                expected,
                "{script}: {workers} workers, crash after epoch {at}"
            );
            assert_eq!(crashed.left, plain.left);
        }
    }
}

/// A checkpoint after every epoch, decided one later; a crash after epoch `at`, after which there is another worker.
fn crash_at(at: usize, workers: usize) -> Vec<Turn> {
    let mut turns: Vec<Turn> = (0..at)
        .map(|_| Turn::of(&[Then::Decide, Then::Freeze]))
        .collect();
    turns.push(Turn::of(&[Then::Crash(workers % 3 + 1)]));
    turns.push(Turn::of(&[Then::Freeze, Then::Decide]));
    turns.push(Turn::of(&[Then::Crash(workers)]));
    turns
}

/// Random scripts through random checkpoints, crashes and changes of workers: every epoch gives what `oracle` says it
/// gives, and nothing is left in the state after the end of time.
pub fn against_oracle(
    cases: u64,
    mut subject: impl FnMut(&mut StdRng) -> (Subject<'static>, Oracle),
    shape: &Shape,
) {
    let base = seed();
    println!("seed {base}");
    for case in 0..cases {
        let seed = base.wrapping_add(case);
        let mut rng = StdRng::seed_from_u64(seed);
        let (subject, oracle) = subject(&mut rng);
        let epochs = shape.script(&mut rng);
        let turns = chaos(&mut rng, epochs.len());
        let workers = rng.random_range(1..=4);
        let outcome = subject.run(&epochs, workers, &turns);
        compare(&epochs, &outcome, &oracle(&epochs), subject.slices, seed);
    }
}

/// What a script gives, epoch by epoch, worked out from scratch.
pub type Oracle = Box<dyn Fn(&[Epoch]) -> Outputs>;

/// Runs a script over and over, each time with another write (or read) of the state failing, and expects the same output.
pub fn every_write_fails(subject: &Subject<'_>, script: &str) {
    let epochs = parse(script);
    let turns: Vec<Turn> = (0..epochs.len())
        .map(|_| Turn::of(&[Then::Decide, Then::Freeze]))
        .collect();
    let expected = subject.run(&epochs, 2, &turns);
    assert!(expected.operations > 3, "{}", expected.operations);
    for failing in 0..expected.operations {
        let outcome = subject.run_failing(&epochs, 2, &turns, failing);
        assert!(outcome.failed, "operation {failing} was never reached");
        let wanted = show(&epochs, &expected.given);
        let found = show(&epochs, &outcome.given);
        assert_eq!(found, wanted, "operation {failing} of the state failed");
        assert_eq!(outcome.left, (0, 0), "operation {failing} failed");
    }
}

fn compare(
    epochs: &[Epoch],
    outcome: &Outcome,
    expected: &[(usize, Given)],
    slices: bool,
    seed: u64,
) {
    let mut found = outcome.given.clone();
    let mut expected = expected.to_vec();
    if slices {
        // Slices come some epochs later.
        found.iter_mut().for_each(|o| o.0 = 0);
        expected.iter_mut().for_each(|o| o.0 = 0);
    }
    found.sort();
    expected.sort();
    if let Some(at) =
        (0..found.len().max(expected.len())).find(|&i| found.get(i) != expected.get(i))
    {
        panic!(
            "seed {seed}: found {:?}, expected {:?} in {}",
            found.get(at),
            expected.get(at),
            text(epochs)
        );
    }
    assert_eq!(outcome.left, (0, 0), "seed {seed}: keys and segments left");
}

fn seed() -> u64 {
    let given = std::env::var("TIDEMILL_SEED");
    given
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(rand::random)
}

/// Random scripts.
#[derive(Debug, Clone)]
pub struct Shape {
    pub inputs: usize,
    pub epochs: usize,
    pub rows: usize,
    /// How far rows are spread around the watermark, seconds.
    pub spread: i64,
    /// How far the watermark moves in an epoch at most, seconds.
    pub stride: i64,
}

impl Shape {
    pub const SMALL: Self = Self {
        inputs: 1,
        epochs: 14,
        rows: 7,
        spread: 40,
        stride: 12,
    };

    pub fn script(&self, rng: &mut StdRng) -> Vec<Epoch> {
        // Around 1970, so that times before it occur.
        let mut now = rng.random_range(-100..20);
        let mut epochs = Vec::new();
        let first = rng.random_bool(0.5);
        for epoch in 0..rng.random_range(2..=self.epochs) {
            let rows = (0..rng.random_range(0..=self.rows)).map(|_| self.row(rng, now));
            let rows = rows.collect();
            now += match rng.random_range(0..6) {
                0 => 0,
                1 => rng.random_range(0..=5 * self.stride),
                _ => rng.random_range(0..=self.stride),
            };
            let known = epoch > 2 || first;
            let watermark = if known {
                seconds(now)
            } else {
                crate::time::NO_TIME
            };
            epochs.push(Epoch { rows, watermark });
        }
        epochs.push(Epoch {
            rows: Vec::new(),
            watermark: END_OF_TIME,
        });
        epochs
    }

    fn row(&self, rng: &mut StdRng, now: i64) -> In {
        let keys = [None, Some("a"), Some("b"), Some("c"), Some("longer")];
        In {
            input: rng.random_range(0..self.inputs),
            key: keys.choose(rng).expect("some").map(str::to_owned),
            value: rng.random_bool(0.9).then(|| rng.random_range(-3..4)),
            time: seconds(now + rng.random_range(-self.spread..=self.spread)),
        }
    }
}

/// Random checkpoints, decisions and crashes.
fn chaos(rng: &mut StdRng, epochs: usize) -> Vec<Turn> {
    let calm = rng.random_bool(0.2);
    (0..epochs * 2)
        .map(|_| {
            let then: Vec<Then> = match rng.random_range(0..8) {
                _ if calm => vec![],
                0 => vec![Then::Crash(rng.random_range(1..=4))],
                1..=2 => vec![Then::Freeze],
                3..=4 => vec![Then::Decide],
                5 => vec![Then::Freeze, Then::Decide],
                6 => vec![Then::Freeze, Then::Decide, Then::Freeze],
                _ => vec![],
            };
            Turn {
                then,
                cut: rng.random_range(1..6),
            }
        })
        .collect()
}
