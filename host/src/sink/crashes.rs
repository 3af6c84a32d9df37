//! A sink under every crash: what the tests of sinks that follow the decision have in common.
//!
//! Plays the engine's part in a run of some checkpoints, with one crash at a time, at each point where one can come; rows
//! after the cut that a restart resumes from come again. Whatever happened, each row must be visible once at the end, and
//! none before its checkpoint is decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use super::{Place, Sink};
use crate::batch::Batch;
use crate::pipeline::plan::{self, Input, SinkConnector, SinkInput};
use crate::time::MICROS_PER_SECOND;

const CHECKPOINTS: i64 = 5;
const ROWS: i64 = 10;

/// Where the run stops without a word.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Written,
    Cut,
    /// Everything is durable; the commit was lost.
    Synced,
    /// The commit was not lost, but the sink was not told.
    Committed,
    /// The sink had made some of it visible.
    Halfway,
    Decided,
}

const STAGES: [Stage; 6] = [
    Stage::Written,
    Stage::Cut,
    Stage::Synced,
    Stage::Committed,
    Stage::Halfway,
    Stage::Decided,
];

/// Wall time held in a test's hand.
#[derive(Clone, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    pub fn advance(&self, seconds: i64) {
        let micros = seconds * MICROS_PER_SECOND;
        self.0.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn place(&self, state: &std::path::Path) -> Place {
        let clock = self.0.clone();
        Place {
            dir: state.join("sinks/out"),
            label: "test-out-0a1b2c3d".into(),
            now: Arc::new(move || clock.load(Ordering::Relaxed)),
        }
    }
}

/// Rows of two columns: `n`, and `kind`, which is null for every fourth.
pub fn rows(numbers: impl IntoIterator<Item = i64>) -> Batch {
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let kinds = numbers.iter().map(|n| match n % 4 {
        3 => None,
        0 => Some("a/b"),
        _ => Some("c"),
    });
    let kinds: ArrayRef = Arc::new(kinds.collect::<StringArray>());
    let times = vec![0; numbers.len()].into();
    let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
    let columns = [("n", numbers, false), ("kind", kinds, true)];
    Batch {
        columns: RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
        times,
        origins: None,
    }
}

/// A sink of inputs with these labels and columns.
pub fn sink(connector: SinkConnector, inputs: &[(&str, SchemaRef)]) -> plan::Sink {
    let input = |(label, schema): &(&str, SchemaRef)| SinkInput {
        label: (*label).to_owned(),
        input: Input::Source(0),
        schema: schema.clone(),
    };
    plan::Sink {
        name: "out".to_owned(),
        inputs: inputs.iter().map(input).collect(),
        connector,
    }
}

/// One checkpoint as the engine makes it.
pub fn checkpoint(sink: &dyn Sink, last: bool) -> Value {
    let cut = sink.cut(last).unwrap();
    sink.sync(&cut).unwrap();
    sink.decided(&cut).unwrap();
    cut
}

/// A sink in a directory of its own.
pub trait Subject {
    fn open(&self, resume: Option<&Value>) -> Box<dyn Sink>;
    fn clock(&self) -> &Clock;
    /// The numbers of all visible rows.
    fn visible(&self) -> Vec<i64>;
    /// Makes something of what is synced visible, as if the sink had been interrupted in the middle.
    fn halfway(&self, cut: &Value);
}

/// Runs with a crash at every stage of every checkpoint. `begin` gives an empty place.
pub fn every_crash<S: Subject>(begin: impl Fn() -> S) {
    for checkpoint in 0..CHECKPOINTS {
        for stage in STAGES {
            run(&begin(), checkpoint, stage);
        }
    }
}

fn run(subject: &impl Subject, crash_at: i64, crash: Stage) {
    let what = format!("crash at {crash:?} of checkpoint {crash_at}");
    let mut sink = subject.open(None);
    let mut cut = checkpoint(&*sink, false);
    let (mut number, mut crashed) = (0, false);
    while number < CHECKPOINTS {
        let mut crashes = |stage| {
            let now = !crashed && number == crash_at && stage == crash;
            crashed |= now;
            now
        };
        subject.clock().advance(1);
        let first = number * ROWS;
        sink.write(0, &rows(first..first + 6)).unwrap();
        sink.write(0, &rows(first + 6..first + ROWS)).unwrap();
        if crashes(Stage::Written) {
            drop(sink);
            sink = subject.open(Some(&cut));
            continue;
        }
        let next = sink.cut(number == CHECKPOINTS - 1).unwrap();
        if crashes(Stage::Cut) {
            drop(sink);
            sink = subject.open(Some(&cut));
            continue;
        }
        sink.sync(&next).unwrap();
        if crashes(Stage::Synced) {
            drop(sink);
            sink = subject.open(Some(&cut));
            check(subject, number, &what);
            continue;
        }
        let before = std::mem::replace(&mut cut, next);
        assert_ne!(before, cut, "{what}");
        number += 1;
        if crash == Stage::Halfway && number == crash_at + 1 {
            subject.halfway(&cut);
        }
        let told = !matches!(crash, Stage::Committed | Stage::Halfway);
        if told || number != crash_at + 1 {
            sink.decided(&cut).unwrap();
        }
        if number == crash_at + 1
            && matches!(crash, Stage::Committed | Stage::Halfway | Stage::Decided)
        {
            drop(sink);
            sink = subject.open(Some(&cut));
        }
        check(subject, number, &what);
    }
    let mut visible = subject.visible();
    visible.sort_unstable();
    assert!(
        visible.iter().copied().eq(0..CHECKPOINTS * ROWS),
        "{what}: {visible:?}"
    );
}

/// Nothing is visible that no decided checkpoint holds.
fn check(subject: &impl Subject, decided: i64, what: &str) {
    let visible = subject.visible();
    let beyond = visible.iter().find(|n| **n >= decided * ROWS);
    assert_eq!(beyond, None, "{what}: visible beyond checkpoint {decided}");
}
