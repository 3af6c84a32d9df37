//! The ladder of `top`: a table, an oracle, crashes, lost writes. Its rows are those of windows of ten seconds.

use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use rand::Rng;
use rand::rngs::StdRng;

use super::*;
use crate::step::testing::{
    Epoch, Given, In, Oracle, Shape, Subject, against_oracle, batch, check, every_write_fails,
    schema, seconds, show_time,
};
use crate::step::window::{WINDOW_END, WINDOW_START, bound_field};
use crate::time::MICROS_PER_MS;

fn window_schema() -> SchemaRef {
    let mut fields: Vec<Field> = schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    fields.splice(1..1, [WINDOW_START, WINDOW_END].map(bound_field));
    Arc::new(Schema::new(fields))
}

fn start(time: Micros) -> Micros {
    time.div_euclid(seconds(10)) * seconds(10)
}

/// A row at `time` is the result of the window that has this time.
fn results(rows: &[In]) -> Batch {
    let plain = batch(rows);
    let bound = |add: Micros| -> ArrayRef {
        let times = rows.iter().map(|r| start(r.time) + add);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let columns = vec![
        plain.columns.column(0).clone(),
        bound(0),
        bound(seconds(10)),
        plain.columns.column(1).clone(),
    ];
    Batch {
        columns: RecordBatch::try_new(window_schema(), columns).expect("columns fit"),
        times: rows.iter().map(time).collect(),
        origins: None,
    }
}

fn time(row: &In) -> Micros {
    start(row.time) + seconds(10) - MICROS_PER_MS
}

fn subject(n: usize, descending: bool) -> Subject<'static> {
    let make = move || {
        let spec = plan::Top {
            n,
            by: vec![(3, descending)],
            window_end: 2,
        };
        Box::new(Top::new(spec, window_schema(), 8).expect("times are keys")) as Box<dyn Step>
    };
    Subject {
        make: Box::new(make),
        batch: results,
        key: vec![1, 2],
        ports: 1,
        key_groups: 8,
        holds_back: 0,
        slices: false,
    }
}

#[test]
fn the_first_of_each_window_in_their_order() {
    let check = |script, expected| check(&subject(2, true), script, expected);
    check(
        "a@1=1 b@1=3 c@1=2 a@11=1 ~9 ~10 ~20",
        "10: b 0 10 3, c 0 10 2; 20: a 10 20 1",
    );
    // Over several epochs, whichever comes first.
    check(
        "c@1=2 a@1=1 ~5 b@1=3 ~6 d@1=4 ~10",
        "10: b 0 10 3, d 0 10 4",
    );
    // Nulls come last, equal rows in the order of all columns.
    check("a@1=_ b@1=1 ~10", "10: a 0 10 _, b 0 10 1");
    check("a@1=_ b@1=1 c@1=1 _@1=1 ~10", "10: b 0 10 1, c 0 10 1");
    check("a@-1=1 ~-1 ~0", "0: a -10 0 1");
}

#[test]
fn rows_of_one_window_come_out_best_first() {
    let subject = subject(3, false);
    let row = |key: &str, value| In {
        input: 0,
        key: Some(key.into()),
        value: Some(value),
        time: 0,
    };
    let rows = vec![row("b", 2), row("c", 1), row("a", 2), row("d", 9)];
    let watermark = seconds(10);
    let outcome = subject.run(&[Epoch { rows, watermark }], 1, &[]);
    let cells: Vec<&str> = outcome
        .given
        .iter()
        .map(|(_, g)| g.cells.as_str())
        .collect();
    assert_eq!(cells, ["c 0 10 1", "a 0 10 2", "b 0 10 2"]);
}

/// Two windows may end at one time, as those of sessions do.
#[test]
fn windows_that_end_together_are_ranked_apart() {
    let mut step = (subject(1, true).make)();
    let row = |value| In {
        input: 0,
        key: Some("a".into()),
        value: Some(value),
        time: 0,
    };
    let mut rows = results(&[row(1), row(2)]);
    let starts = TimestampMicrosecondArray::from(vec![0, seconds(5)]).with_timezone("UTC");
    let mut columns = rows.columns.columns().to_vec();
    columns[1] = Arc::new(starts);
    rows.columns = RecordBatch::try_new(window_schema(), columns).expect("columns fit");
    let mut out = Output::new(1);
    step.process(0, rows, &mut out).unwrap();
    let (watermark, now) = (seconds(10), 0);
    step.tick(Tick { watermark, now }, &mut out).unwrap();
    let given: usize = out.ports[0].iter().map(Batch::rows).sum();
    assert_eq!(given, 2);
}

/// All rows of a window, sorted, once its time has come.
fn oracle(n: usize, descending: bool) -> Oracle {
    Box::new(move |epochs| {
        let mut given = Vec::new();
        let mut waiting: Vec<&In> = Vec::new();
        for (number, epoch) in epochs.iter().enumerate() {
            waiting.extend(&epoch.rows);
            let (mut due, later): (Vec<&In>, Vec<&In>) =
                waiting.drain(..).partition(|r| time(r) < epoch.watermark);
            waiting = later;
            due.sort_by_key(|r| {
                let value = r.value.map(|v| if descending { -v } else { v });
                let key = (r.key.is_none(), r.key.clone());
                (start(r.time), value.is_none(), value, key)
            });
            for window in due.chunk_by(|a, b| start(a.time) == start(b.time)) {
                for row in window.iter().take(n) {
                    let (from, to) = (start(row.time), start(row.time) + seconds(10));
                    let key = row.key.clone().unwrap_or("_".into());
                    let value = row.value.map_or("_".into(), |v| v.to_string());
                    let cells = format!("{key} {} {} {value}", show_time(from), show_time(to));
                    let (port, time) = (0, time(row));
                    given.push((number, Given { port, time, cells }));
                }
            }
        }
        given
    })
}

#[test]
fn random_scripts_give_what_an_oracle_says() {
    let shape = Shape {
        // The rows of a window are never late.
        spread: 0,
        rows: 12,
        ..Shape::SMALL
    };
    let make = |rng: &mut StdRng| {
        let (n, descending) = (rng.random_range(1..5), rng.random_bool(0.5));
        (subject(n, descending), oracle(n, descending))
    };
    against_oracle(1_000, make, &shape);
}

#[test]
fn no_write_or_read_that_fails_changes_the_output() {
    every_write_fails(
        &subject(2, true),
        "a@1=1 b@2=2 ~3 a@8=3 c@19=4 ~9 d@7=1 ~12 a@13=5 b@14=6 ~13 b@29=1 ~20 c@25=7 a@28 ~29 ~30",
    );
}
