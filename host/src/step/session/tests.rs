//! The ladder of session windows: a table, an oracle, crashes, lost writes.

use std::collections::BTreeMap;

use rand::Rng;

use super::*;
use crate::step::testing::{
    Given, In, Oracle, Shape, Subject, against_oracle, batch, check, every_write_fails, seconds,
    show_time,
};
use crate::step::window::tests::{results, spec};

fn subject(gap: i64, aggregates: &'static [&'static str]) -> Subject<'static> {
    let make = move || {
        let spec = spec(WindowKind::Session(seconds(gap)), aggregates, 0);
        Box::new(Sessions::new(spec).expect("a session window")) as Box<dyn Step>
    };
    Subject {
        make: Box::new(make),
        batch,
        key: vec![0],
        ports: 2,
        key_groups: 8,
        holds_back: MICROS_PER_MS,
        slices: false,
    }
}

#[test]
fn rows_nearer_than_the_gap_are_one_session() {
    let check = |script, expected| check(&subject(10, &["count(*)", "sum(v)"]), script, expected);
    check("a@1 a@10=2 ~5 ~19 ~20", "20: a 1 20 2 3");
    // A gap equal to the timeout starts a new one.
    check("a@0 a@10=5 ~0", "end: a 0 10 1 1, a 10 20 1 5");
    check("a@0 a@9=5 ~0", "end: a 0 19 2 6");
    // A row between two joins them, in the same epoch or a later one.
    check("a@0=1 a@15=2 a@8=4 ~0", "end: a 0 25 3 7");
    check("a@0=1 a@15=2 ~1 a@8=4 ~2 a@24=8 ~33 ~34", "34: a 0 34 4 15");
    // One that lies a gap away from both joins none.
    check(
        "a@0=1 a@20=2 a@10=4 ~0",
        "end: a 0 10 1 1, a 10 20 1 4, a 20 30 1 2",
    );
    // Out of order, before 1970.
    check("a@-5=1 a@-14=2 ~-20", "end: a -14 5 2 3");
    // Keys do not meet; null is one of them.
    check("a@0 b@1 _@2 ~0", "end: _ 2 12 1 1, a 0 10 1 1, b 1 11 1 1");
    check("a@0=_ a@1=_ ~0", "end: a 0 11 2 _");
    // A session without a value beside others that were stored with values.
    check(
        "a@0=1 ~0 a@1=2 b@1=_ ~0 b@2=_ a@2=1 ~0",
        "end: a 0 12 3 4, b 1 12 2 _",
    );
}

#[test]
fn a_late_row_counts_as_long_as_its_session_is_open() {
    let check = |script, expected| check(&subject(10, &["count(*)"]), script, expected);
    // Over by itself, but it touches an open session, and makes it begin earlier.
    check("a@20 ~25 a@12 ~29 ~30", "30: a 12 30 2");
    check("a@20 ~25 a@15 a@5 ~25", "25: late a 1; end: a 15 30 2");
    check("a@20 ~25 a@15 a@6 ~25", "end: a 6 30 3");
    check(
        "a@20 ~25 a@5 a@15 a@5 ~25",
        "25: late a 1, late a 1; end: a 15 30 2",
    );
    // What it touches was given already.
    check("a@0 ~10 a@0 ~10", "10: a 0 10 1; 10: late a 1");
    // Not over by itself: a session of its own.
    check("a@0 ~10 a@1 ~11", "10: a 0 10 1; 11: a 1 11 1");
    check(
        "a@0 ~10 a@1 b@0 ~10",
        "10: a 0 10 1; 10: late b 1; end: a 1 11 1",
    );
}

#[test]
fn results_that_cannot_be_shown_and_rows_that_cannot_be_read_are_refused() {
    let big = i64::MAX;
    check(
        &subject(10, &["sum(v)"]),
        &format!("a@1={big} a@2={big} b@1=3 ~5"),
        "end: b 1 11 3, refused [\"a\"]",
    );
    check(
        &subject(10, &["sum(100 / v)"]),
        "a@1=0 a@2=50 b@1=0 ~5",
        "5: refused a 0, refused b 0; end: a 2 12 2",
    );
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let mut step = (subject(10, &["count(*)"]).make)();
    let row = |key: String| In {
        input: 0,
        key: Some(key),
        value: None,
        time: 0,
    };
    let rows = [row("a".into()), row("x".repeat(limits::KEY_BYTES_MAX))];
    let mut out = Output::new(2);
    step.process(0, batch(&rows), &mut out).unwrap();
    assert!(out.refused[0].reason.contains("longer than"));
    assert_eq!(step.freeze(1).unwrap().changes.len(), 1);
}

/// Rows of the open sessions of each key are kept; after each row they are cut anew where a gap is long enough.
fn oracle(gap: Micros) -> Oracle {
    Box::new(move |epochs| {
        let (mut given, mut watermark) = (Vec::new(), crate::time::NO_TIME);
        let mut open: BTreeMap<&Option<String>, Vec<&In>> = BTreeMap::new();
        for (number, epoch) in epochs.iter().enumerate() {
            for row in &epoch.rows {
                let mine = open.entry(&row.key).or_default();
                let touches = cut(mine, gap)
                    .iter()
                    .any(|s| row.time < s[s.len() - 1].time + gap && row.time + gap > s[0].time);
                if !touches && row.time.saturating_add(gap) <= watermark {
                    let cells = results(&row.key, &[], &[], &[row]);
                    given.push((
                        number,
                        Given {
                            port: 1,
                            time: row.time,
                            cells,
                        },
                    ));
                } else {
                    mine.push(row);
                }
            }
            watermark = epoch.watermark;
            for (key, rows) in &mut open {
                for session in cut(rows, gap) {
                    let (start, last) = (session[0].time, session[session.len() - 1].time);
                    if last + gap > watermark {
                        continue;
                    }
                    rows.retain(|r| r.time < start || r.time > last);
                    let bounds = [show_time(start), show_time(last + gap)];
                    let cells = results(key, &bounds, AGGREGATES, &session);
                    let time = last + gap - MICROS_PER_MS;
                    given.push((
                        number,
                        Given {
                            port: 0,
                            time,
                            cells,
                        },
                    ));
                }
            }
        }
        given
    })
}

const AGGREGATES: &[&str] = &["count(*)", "sum(v)", "min(v)", "count(distinct v)"];

/// Rows in the order of time, a piece for each session.
fn cut<'a>(rows: &[&'a In], gap: Micros) -> Vec<Vec<&'a In>> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|r| r.time);
    let pieces = rows.chunk_by(|a, b| b.time - a.time < gap);
    pieces.map(<[_]>::to_vec).collect()
}

#[test]
fn random_scripts_give_what_an_oracle_says() {
    let make = |rng: &mut rand::rngs::StdRng| {
        let gap = rng.random_range(1..30);
        (subject(gap, AGGREGATES), oracle(seconds(gap)))
    };
    against_oracle(1_000, make, &Shape::SMALL);
}

#[test]
fn no_write_that_fails_changes_the_output() {
    every_write_fails(
        &subject(10, &["count(*)", "sum(v)"]),
        "a@1=1 b@2=2 ~3 a@8=3 c@9=4 ~12 a@13=5 b@14=6 ~20 c@25=7 a@18 ~30",
    );
}
