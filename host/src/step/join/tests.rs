//! The ladder of joins of all four kinds: tables, an oracle, crashes, lost writes.

use arrow::datatypes::{Field, Schema};
use rand::Rng;
use rand::rngs::StdRng;

use super::late::SIDES;
use super::*;
use crate::expr::Projection;
use crate::pipeline::plan::JoinKind;
use crate::step::testing::{
    Epoch, Given, In, Oracle, Shape, Subject, against_oracle, batch, check, every_write_fails,
    schema, seconds,
};

const SELECT: [&str; 4] = [
    "left.k as lk",
    "left.v as lv",
    "right.k as rk",
    "right.v as rv",
];

fn spec(kind: JoinKind, before: i64, after: i64, select: &[&str]) -> JoinSpec {
    let side = |name: &str| {
        let fields = schema().fields().clone();
        let field = |f: &FieldRef| f.as_ref().clone().with_name(format!("{name}.{}", f.name()));
        fields.iter().map(field).collect::<Vec<_>>()
    };
    let paired = Arc::new(Schema::new([side("left"), side("right")].concat()));
    let texts: Vec<String> = select.iter().map(|s| (*s).to_owned()).collect();
    JoinSpec {
        inputs: [schema(), schema()],
        keys: [vec![0], vec![0]],
        key_groups: 8,
        segments_max: 2,
        join: plan::Join {
            before: seconds(before),
            after: seconds(after),
            kind,
            carried: [vec![0, 1], vec![0, 1]],
            projection: Projection::compile(&texts, &paired).expect("correct SQL"),
            paired,
        },
        late: late_schema(&schema(), &schema()),
    }
}

fn subject(kind: JoinKind, before: i64, after: i64) -> Subject<'static> {
    selecting(kind, before, after, &SELECT)
}

fn selecting(
    kind: JoinKind,
    before: i64,
    after: i64,
    select: &'static [&'static str],
) -> Subject<'static> {
    let reach = |side: usize| match kind.is_outer(side) {
        true => [after, before][side],
        false => 0,
    };
    let make = move || {
        let join = Join::new(spec(kind, before, after, select)).expect("strings are keys");
        Box::new(join) as Box<dyn Step>
    };
    Subject {
        make: Box::new(make),
        batch,
        key: vec![0],
        ports: 2,
        key_groups: 8,
        holds_back: seconds(reach(0).max(reach(1))),
        slices: false,
    }
}

#[test]
fn pairs_within_the_bounds() {
    let check = |script, expected| check(&subject(JoinKind::Inner, 2, 5), script, expected);
    // Both bounds are inclusive.
    check(
        "a@10=1 ~0 R:a@7=1 R:a@8=2 R:a@15=3 R:a@16=4 ~0",
        "0: a 1 a 2, a 1 a 3",
    );
    // Whichever comes first, in the same epoch or later.
    check("R:a@8=2 R:a@15=3 ~8 a@10=1 ~8", "8: a 1 a 2, a 1 a 3");
    check("a@10=1 R:a@10=2 ~0", "0: a 1 a 2");
    // Every pair of equal keys; null matches nothing.
    check(
        "a@1=1 a@1=2 b@1=3 ~0 R:a@1=4 R:_@1=5 _@1=6 ~0",
        "0: a 1 a 4, a 2 a 4",
    );
    // As long as it can match a row is there, before 1970 too.
    check(
        "a@-10=1 ~-6 R:a@-5=2 ~-5 R:a@-5=3 ~-4",
        "-5: a 1 a 2; -4: a 1 a 3",
    );
    // Late rows have their own port, with their side.
    check(
        "a@1=1 ~2 R:a@1=2 a@1=3 R:a@2=4 ~2",
        "2: a 1 a 4, late left a 3, late right a 2",
    );
}

#[test]
fn rows_without_a_match_go_out_when_nothing_can_match_them() {
    let left = |script, expected| check(&subject(JoinKind::Left, 2, 5), script, expected);
    left("a@10=1 R:a@7=2 ~15 ~16", "16: a 1 _ _");
    left("a@10=1 ~15 R:a@15=2 ~16", "16: a 1 a 2");
    left("_@10=1 R:_@10=2 ~10", "10: _ 1 _ _");
    // The match is forgotten later than the row that has it.
    left("R:a@8=1 ~9 a@10=2 ~14 ~15 ~16", "14: a 2 a 1");
    let right = |script, expected| check(&subject(JoinKind::Right, 2, 5), script, expected);
    right("a@10=1 R:a@7=2 ~9 ~10", "10: _ _ a 2");
    right("R:a@10=2 ~11 a@12=1 ~12 ~13", "12: a 1 a 2");
    right("_@10=1 R:_@10=2 ~10", "10: _ _ _ 2");
    let full = |script, expected| check(&subject(JoinKind::Full, 2, 5), script, expected);
    full("a@10=1 R:a@7=2 ~9 ~10 ~16", "10: _ _ a 2; 16: a 1 _ _");
    full("a@0=1 R:b@0=2 R:a@5=3 ~3 ~6 ~8", "3: _ _ b 2, a 1 a 3");
    // Bounds of nothing: only equal times.
    check(
        &subject(JoinKind::Full, 0, 0),
        "a@1=1 R:a@1=2 a@2=3 ~2 ~3",
        "2: a 1 a 2; 3: a 3 _ _",
    );
}

#[test]
fn a_pair_that_cannot_be_shown_is_refused_and_is_a_match_all_the_same() {
    const SELECT: &[&str] = &["left.k as k", "100 / right.v as share"];
    check(
        &selecting(JoinKind::Left, 5, 5, SELECT),
        "a@1=1 R:a@1=0 ~1",
        "1: refused a 1 a 0",
    );
}

/// All pairs of rows that were on time, and for each row the epoch from which on nothing can match it.
fn oracle(kind: JoinKind, before: Micros, after: Micros) -> Oracle {
    Box::new(move |epochs| {
        let mut given = Vec::new();
        let mut timely: [Vec<(usize, &In)>; 2] = [Vec::new(), Vec::new()];
        let mut watermark = NO_TIME;
        for (number, epoch) in epochs.iter().enumerate() {
            for row in &epoch.rows {
                if row.time >= watermark {
                    timely[row.input].push((number, row));
                    continue;
                }
                let cells = format!("{} {}", SIDES[row.input], cells(Some(row)));
                given.push((
                    number,
                    Given {
                        port: 1,
                        time: row.time,
                        cells,
                    },
                ));
            }
            watermark = epoch.watermark;
        }
        let matches = |l: &In, r: &In| {
            l.key.is_some()
                && l.key == r.key
                && (l.time - before..=l.time + after).contains(&r.time)
        };
        let [left, right] = &timely;
        for (at, l) in left {
            for (other, r) in right.iter().filter(|(_, r)| matches(l, r)) {
                let time = l.time.max(r.time);
                let cells = format!("{} {}", cells(Some(l)), cells(Some(r)));
                given.push((
                    *at.max(other),
                    Given {
                        port: 0,
                        time,
                        cells,
                    },
                ));
            }
        }
        for side in (0..2).filter(|&side| kind.is_outer(side)) {
            for (at, row) in &timely[side] {
                let matched = timely[1 - side].iter().any(|(_, other)| match side {
                    0 => matches(row, other),
                    _ => matches(other, row),
                });
                if matched {
                    continue;
                }
                let reach = [after, before][side];
                let passed = |e: &Epoch| e.watermark > row.time + reach;
                let epoch = match row.key {
                    Some(_) => (*at).max(epochs.iter().position(passed).expect("time ends")),
                    None => *at,
                };
                let (own, none) = (cells(Some(row)), cells(None));
                let cells = [format!("{own} {none}"), format!("{none} {own}")][side].clone();
                given.push((
                    epoch,
                    Given {
                        port: 0,
                        time: row.time,
                        cells,
                    },
                ));
            }
        }
        given
    })
}

fn cells(row: Option<&In>) -> String {
    let key = row.and_then(|r| r.key.clone()).unwrap_or("_".into());
    let value = row.and_then(|r| r.value).map(|v| v.to_string());
    format!("{key} {}", value.unwrap_or("_".into()))
}

fn random(kind: JoinKind) {
    let shape = Shape {
        inputs: 2,
        rows: 10,
        ..Shape::SMALL
    };
    let make = |rng: &mut StdRng| {
        let (before, after) = (rng.random_range(0..25), rng.random_range(0..25));
        let oracle = oracle(kind, seconds(before), seconds(after));
        (subject(kind, before, after), oracle)
    };
    against_oracle(500, make, &shape);
}

#[test]
fn random_inner_joins_give_what_an_oracle_says() {
    random(JoinKind::Inner);
}

#[test]
fn random_left_joins_give_what_an_oracle_says() {
    random(JoinKind::Left);
}

#[test]
fn random_right_joins_give_what_an_oracle_says() {
    random(JoinKind::Right);
}

#[test]
fn random_full_joins_give_what_an_oracle_says() {
    random(JoinKind::Full);
}

#[test]
fn no_write_or_read_that_fails_changes_the_output() {
    let script = "a@1=1 R:b@2=2 ~3 a@8=3 R:a@9=4 ~12 R:a@13=5 b@14=6 ~20 R:c@25=7 c@28 ~30";
    for kind in [
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Right,
        JoinKind::Full,
    ] {
        every_write_fails(&subject(kind, 3, 6), script);
    }
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let mut step = (subject(JoinKind::Full, 1, 1).make)();
    let long = In {
        input: 0,
        key: Some("x".repeat(limits::KEY_BYTES_MAX)),
        value: None,
        time: 0,
    };
    let mut out = Output::new(2);
    step.process(0, batch(&[long]), &mut out).unwrap();
    assert!(out.refused[0].reason.contains("longer than"));
    assert_eq!(step.gauges().keys, 0);
}

#[test]
fn late_columns_of_two_types_stand_side_by_side() {
    let left = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, false),
        Field::new("x", DataType::Int64, false),
    ]));
    let right = Arc::new(Schema::new(vec![
        Field::new("x", DataType::Utf8, false),
        Field::new("k", DataType::Utf8, false),
    ]));
    let late = late_schema(&left, &right);
    let names: Vec<&str> = late.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, [SIDE, "k", "x", "right_x"]);
    let inputs = [left, right];
    let columns = |side| -> Vec<Option<usize>> {
        let fields = late.fields().iter().skip(1);
        fields.map(|f| own_column(&inputs, side, f)).collect()
    };
    assert_eq!(columns(0), [Some(0), Some(1), None]);
    assert_eq!(columns(1), [Some(1), None, Some(0)]);
}

/// A bucket that is open through many checkpoints does not leave a segment of each behind.
#[test]
fn segments_of_a_bucket_become_one() {
    let mut join = Join::new(spec(JoinKind::Full, 0, 1_000, &SELECT)).expect("strings are keys");
    let mut puts = 0;
    for checkpoint in 1..=100 {
        let row = In {
            input: 0,
            key: Some("a".to_owned()),
            value: Some(1),
            time: seconds(5),
        };
        join.process(0, batch(&[row]), &mut Output::new(2)).unwrap();
        let delta = join.freeze(checkpoint).unwrap();
        puts += delta.segments.len();
    }
    let left = join.sides[0].buckets.values().map(|b| b.segments.len());
    let left: usize = left.sum();
    // Two of each level at most, of some seven levels, where a hundred were written.
    assert!((2..=14).contains(&left), "{left}");
    assert!(puts < 200, "{puts}");
}
