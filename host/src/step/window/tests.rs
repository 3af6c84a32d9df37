//! The ladder of tumbling and sliding windows: tables, an oracle, crashes, lost writes, slices, compactions.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::StdRng;

use super::*;
use crate::pipeline::plan::WindowKind;
use crate::step::testing::{
    Epoch, Given, In, Oracle, Shape, Subject, Then, Turn, against_oracle, batch, check,
    every_write_fails, schema, seconds, show_time,
};
use crate::time::MICROS_PER_MS;

/// A window over the key `k`.
pub fn spec(kind: WindowKind, aggregates: &[&str], lateness: i64) -> WindowSpec {
    let items: Vec<(String, String)> = (aggregates.iter().enumerate())
        .map(|(i, sql)| (format!("r{i}"), (*sql).to_owned()))
        .collect();
    let aggregation = Aggregation::compile(&items, &schema()).expect("correct SQL");
    let mut fields = vec![schema().field(0).clone()];
    fields.extend([WINDOW_START, WINDOW_END].map(bound_field));
    fields.extend(
        aggregation
            .schema()
            .fields()
            .iter()
            .map(|f| f.as_ref().clone()),
    );
    if lateness > 0 {
        fields.push(revision_field());
    }
    WindowSpec {
        key: vec![0],
        key_groups: 8,
        input: schema(),
        output: Arc::new(arrow::datatypes::Schema::new(fields)),
        window: plan::Window {
            kind,
            aggregation,
            allowed_lateness: seconds(lateness),
            revisions: lateness > 0,
        },
    }
}

/// The cells of a result: key, bounds and aggregates worked out by hand; without aggregates those of the one row.
pub fn results(
    key: &Option<String>,
    bounds: &[String],
    aggregates: &[&str],
    rows: &[&In],
) -> String {
    let values: Vec<i64> = rows.iter().filter_map(|r| r.value).collect();
    let some = |n: Option<i64>| n.map_or("_".to_owned(), |n| n.to_string());
    let one = |sql: &&str| match *sql {
        "count(*)" => rows.len().to_string(),
        "sum(v)" => some((!values.is_empty()).then(|| values.iter().sum())),
        "min(v)" => some(values.iter().min().copied()),
        "max(v)" => some(values.iter().max().copied()),
        "count(distinct v)" => values.iter().collect::<BTreeSet<_>>().len().to_string(),
        other => panic!("no {other} by hand"),
    };
    let mut cells = vec![key.clone().unwrap_or("_".into())];
    cells.extend_from_slice(bounds);
    cells.extend(aggregates.iter().map(one));
    if aggregates.is_empty() {
        cells.push(some(rows[0].value));
    }
    cells.join(" ")
}

const ALL: &[&str] = &[
    "count(*)",
    "sum(v)",
    "min(v)",
    "max(v)",
    "count(distinct v)",
];

fn sliding(size: i64, every: i64) -> WindowKind {
    WindowKind::Sliding {
        size: seconds(size),
        every: seconds(every),
    }
}

/// `slice`: how many groups are merged in an epoch.
fn subject(
    kind: WindowKind,
    aggregates: &'static [&'static str],
    lateness: i64,
    slice: usize,
) -> Subject<'static> {
    let make = move || {
        let mut window = Window::new(spec(kind, aggregates, lateness)).expect("a window of panes");
        window.slice_rows = slice;
        Box::new(window) as Box<dyn Step>
    };
    Subject {
        make: Box::new(make),
        batch,
        key: vec![0],
        ports: 2,
        key_groups: 8,
        // Corrections may lie far back; nothing but sinks reads them.
        holds_back: match lateness {
            0 => MICROS_PER_MS,
            _ => Micros::MAX,
        },
        slices: slice < limits::WINDOW_SLICE_ROWS,
    }
}

fn whole(kind: WindowKind, aggregates: &'static [&'static str], lateness: i64) -> Subject<'static> {
    subject(kind, aggregates, lateness, limits::WINDOW_SLICE_ROWS)
}

#[test]
fn a_tumbling_window_is_given_when_the_watermark_reaches_its_end() {
    let ten = || {
        whole(
            WindowKind::Tumbling(seconds(10)),
            &["count(*)", "sum(v)"],
            0,
        )
    };
    let check = |script, expected| check(&ten(), script, expected);
    check(
        "a@0=1 a@9=2 a@10=4 ~9 ~10",
        "10: a 0 10 2 3; end: a 10 20 1 4",
    );
    // Out of order, over several epochs.
    check(
        "a@15=1 ~0 a@3=2 b@15=3 ~9 a@9=4 ~10 ~25",
        "10: a 0 10 2 6; 25: a 10 20 1 1, b 10 20 1 3",
    );
    // Before 1970 windows are aligned as well.
    check(
        "a@-1=1 a@-10=2 a@-11=4 ~-10 ~0",
        "-10: a -20 -10 1 4; 0: a -10 0 2 3",
    );
    // Null keys and null values; a window without rows gives nothing.
    check("_@1=_ _@2=5 a@1=_ ~30", "30: _ 0 10 2 5, a 0 10 1 _");
    check("~5 ~50", "");
    // Late: the window was given.
    check(
        "a@1=1 ~10 a@9=2 a@10=3 ~10",
        "10: a 0 10 1 1; 10: late a 2; end: a 10 20 1 3",
    );
    // Late in a window nobody had a row in.
    check("~10 b@9 ~10", "10: late b 1");
    check("a@1=1 ~none", "end: a 0 10 1 1");
}

#[test]
fn a_sliding_window_counts_a_row_in_each_that_has_it() {
    let check = |script, expected| check(&whole(sliding(6, 2), &["count(*)"], 0), script, expected);
    check("a@0 ~0", "end: a -2 4 1, a -4 2 1, a 0 6 1");
    check(
        "a@1 a@2 ~2 ~4 ~6 ~8",
        "2: a -4 2 1; 4: a -2 4 2; 6: a 0 6 2; 8: a 2 8 1",
    );
    // Late for the first, not for the others.
    check(
        "a@1 ~2 a@1 ~4 a@1 ~4 ~6",
        "2: a -4 2 1; 4: a -2 4 2; 6: a 0 6 3",
    );
    check("~6 a@1 a@2 ~6", "6: late a 1; end: a 2 8 1");
    check(
        "a@-7 ~-6 ~-4 ~-2",
        "-6: a -12 -6 1; -4: a -10 -4 1; -2: a -8 -2 1",
    );
}

#[test]
fn late_rows_within_the_allowed_lateness_correct_a_result() {
    let ten = || whole(WindowKind::Tumbling(seconds(10)), &["sum(v)"], 5);
    let check = |script, expected| check(&ten(), script, expected);
    check(
        "a@1=1 ~10 a@2=2 ~11 a@3=4 a@4=8 ~12",
        "10: a 0 10 1 0; 11: a 0 10 3 1; 12: a 0 10 15 2",
    );
    // A key that had no rows has no result to correct.
    check(
        "a@1=1 ~10 b@2=2 ~11 b@2=2 ~12",
        "10: a 0 10 1 0; 11: b 0 10 2 0; 12: b 0 10 4 1",
    );
    // On the last microsecond, and after it.
    check(
        "a@1=1 ~14 a@2=2 ~15 a@3=4 ~15",
        "14: a 0 10 1 0; 15: a 0 10 3 1; 15: late a 4",
    );
    // The same epoch ends another window.
    check(
        "a@1=1 a@11=3 ~10 a@2=2 ~20",
        "10: a 0 10 1 0; 20: a 0 10 3 1, a 10 20 3 0",
    );
}

#[test]
fn a_late_row_corrects_the_windows_that_are_not_over() {
    let six = || whole(sliding(6, 2), &["sum(v)"], 1);
    check(
        &six(),
        "a@1=1 ~4 a@1=2 ~4 a@1=4 ~5",
        "4: a -2 4 1 0, a -4 2 1 0; 4: a -2 4 3 1; 5: a -2 4 7 2; end: a 0 6 7 0",
    );
}

#[test]
fn results_that_cannot_be_shown_and_rows_that_cannot_be_read_are_refused() {
    let ten = |sql: &'static [&'static str]| whole(WindowKind::Tumbling(seconds(10)), sql, 0);
    let big = i64::MAX;
    check(
        &ten(&["sum(v)"]),
        &format!("a@1={big} a@2={big} b@1=3 ~10"),
        "10: b 0 10 3, refused [\"a\"]",
    );
    check(
        &ten(&["sum(100 / v)"]),
        "a@1=0 a@2=50 b@1=0 ~10",
        "10: a 0 10 2, refused a 0, refused b 0",
    );
}

/// For each epoch anew from all rows: which windows end, what was late for them, and what late rows correct.
fn oracle(size: Micros, every: Micros, lateness: Micros) -> Oracle {
    Box::new(move |epochs| {
        let (mut given, mut watermark) = (Vec::new(), NO_TIME);
        let mut counted: BTreeMap<(Micros, &Option<String>), Vec<&In>> = BTreeMap::new();
        let mut revisions: BTreeMap<(Micros, &Option<String>), i64> = BTreeMap::new();
        for (number, epoch) in epochs.iter().enumerate() {
            let mut touched = BTreeSet::new();
            for row in &epoch.rows {
                let pane = row.time.div_euclid(every) * every;
                let ends = (1..=size / every).map(|n| pane + n * every);
                let open: Vec<Micros> = ends.filter(|end| end + lateness > watermark).collect();
                if open.is_empty() {
                    let cells = results(&row.key, &[], &[], &[row]);
                    given.push((
                        number,
                        Given {
                            port: 1,
                            time: row.time,
                            cells,
                        },
                    ));
                }
                for end in open {
                    counted.entry((end, &row.key)).or_default().push(row);
                    touched.insert((end, &row.key));
                }
            }
            for ((end, key), rows) in &counted {
                let first = *end > watermark && *end <= epoch.watermark;
                let again = *end <= watermark && touched.contains(&(*end, *key));
                if !first && !again {
                    continue;
                }
                let bounds = [show_time(end - size), show_time(*end)];
                let mut cells = results(key, &bounds, ALL, rows);
                if lateness > 0 {
                    let next = revisions.entry((*end, *key)).or_insert(-1);
                    *next += 1;
                    cells += &format!(" {next}");
                }
                let time = end - MICROS_PER_MS;
                given.push((
                    number,
                    Given {
                        port: 0,
                        time,
                        cells,
                    },
                ));
            }
            watermark = epoch.watermark;
        }
        given
    })
}

fn case(rng: &mut StdRng, lateness: i64, slice: usize) -> (Subject<'static>, Oracle) {
    let every = rng.random_range(1..15);
    let size = every * rng.random_range(1..6);
    let kind = match size == every {
        true => WindowKind::Tumbling(seconds(size)),
        false => sliding(size, every),
    };
    let oracle = oracle(seconds(size), seconds(every), seconds(lateness));
    (subject(kind, ALL, lateness, slice), oracle)
}

#[test]
fn random_scripts_give_what_an_oracle_says() {
    let make = |rng: &mut StdRng| case(rng, 0, limits::WINDOW_SLICE_ROWS);
    against_oracle(700, make, &Shape::SMALL);
}

#[test]
fn in_slices_of_few_groups_it_is_the_same() {
    let make = |rng: &mut StdRng| {
        let slice = rng.random_range(1..4);
        case(rng, 0, slice)
    };
    against_oracle(500, make, &Shape::SMALL);
}

#[test]
fn corrections_are_what_an_oracle_says() {
    let make = |rng: &mut StdRng| {
        let lateness = rng.random_range(1..40);
        case(rng, lateness, limits::WINDOW_SLICE_ROWS)
    };
    against_oracle(700, make, &Shape::SMALL);
}

/// Long panes and a checkpoint an epoch: parts become one again and again.
#[test]
fn panes_of_many_parts_are_compacted_and_nothing_is_lost() {
    let shape = Shape {
        epochs: 60,
        rows: 5,
        spread: 30,
        stride: 3,
        ..Shape::SMALL
    };
    let make = |rng: &mut StdRng| {
        let every = rng.random_range(50..200);
        let lateness = [0, 60][rng.random_range(0..2)];
        let oracle = oracle(seconds(2 * every), seconds(every), seconds(lateness));
        let subject = whole(sliding(2 * every, every), ALL, lateness);
        (subject, oracle)
    };
    against_oracle(120, make, &shape);
}

#[test]
fn at_most_a_few_parts_of_a_pane_are_stored() {
    let subject = whole(WindowKind::Tumbling(seconds(10)), ALL, 0);
    let epochs: Vec<Epoch> = (0..100)
        .map(|n| Epoch {
            rows: vec![In {
                input: 0,
                key: Some("a".into()),
                value: Some(n),
                time: 0,
            }],
            watermark: 0,
        })
        .collect();
    let turn = Turn::of(&[Then::Freeze, Then::Decide]);
    let outcome = subject.run(&epochs, 1, &vec![turn; 100]);
    assert!(outcome.given.is_empty());
    let (_, segments) = outcome.left;
    assert!(segments <= limits::PANE_PARTS_MAX, "{segments}");
}

/// Each checkpoint brings other keys: compacted, they are cut into segments of a bounded size.
#[test]
fn a_pane_of_many_keys_stays_in_pieces() {
    let subject = whole(WindowKind::Tumbling(seconds(10)), &["count(*)"], 0);
    let row = |key: String| In {
        input: 0,
        key: Some(key),
        value: None,
        time: 0,
    };
    let epochs: Vec<Epoch> = (0..30)
        .map(|n| Epoch {
            rows: (0..2_000).map(|k| row(format!("{n} {k}"))).collect(),
            watermark: 0,
        })
        .collect();
    let mut turn = Turn::of(&[Then::Freeze, Then::Decide]);
    turn.cut = 2_000;
    let outcome = subject.run(&epochs, 1, &vec![turn; 30]);
    // A segment of 8,192 groups takes some 300 KB.
    assert!(outcome.largest < 1 << 20, "{} bytes", outcome.largest);
    assert!(outcome.left.1 < 40, "{} segments", outcome.left.1);
}

#[test]
fn no_write_or_read_that_fails_changes_the_output() {
    let script = "a@1=1 b@2=2 ~3 a@8=3 c@9=4 ~12 a@13=5 b@14=6 ~20 c@25=7 a@18 ~30 a@31 ~31";
    every_write_fails(&whole(sliding(20, 10), &["count(*)", "sum(v)"], 0), script);
    every_write_fails(&whole(sliding(20, 10), &["count(*)", "sum(v)"], 15), script);
    // Compactions: many checkpoints of one pane.
    let rows = (0..25).map(|n| format!("a@{n} b@{n} ~{n} "));
    let script: String = rows.collect();
    every_write_fails(
        &whole(WindowKind::Tumbling(seconds(100)), &["sum(v)"], 0),
        &script,
    );
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let mut step = (whole(WindowKind::Tumbling(seconds(10)), ALL, 0).make)();
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
    assert_eq!(step.gauges().keys, 1);
}
