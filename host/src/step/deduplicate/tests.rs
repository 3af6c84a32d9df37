//! The ladder of `deduplicate`: a table, an oracle, crashes, lost writes.

use std::collections::BTreeMap;

use rand::Rng;

use super::*;
use crate::step::testing::{
    Given, Oracle, Shape, Subject, against_oracle, batch, check, every_write_fails, schema, seconds,
};

fn subject(within: i64) -> Subject<'static> {
    let make = move || {
        let step = Deduplicate::new(&[0], seconds(within), &schema(), 8);
        Box::new(step.expect("strings are keys")) as Box<dyn Step>
    };
    Subject {
        make: Box::new(make),
        batch,
        key: vec![0],
        ports: 2,
        key_groups: 8,
        holds_back: 0,
        slices: false,
    }
}

#[test]
fn the_first_to_arrive_passes() {
    let check = |script, expected| check(&subject(10), script, expected);
    check("a@1=1 a@1=2 b@1=3 ~1", "1: a 1, b 3");
    // The bound belongs to the reach; what is dropped does not extend it.
    check("a@0=1 a@10=2 ~0 a@11=3 ~0", "0: a 1; 0: a 3");
    check("a@5=1 ~0 a@4=2 a@15=3 a@16=4 ~0", "0: a 1; 0: a 4");
    // Null is a key like any other.
    check("_@1=1 _@2=2 ~0", "0: _ 1");
    // A key is forgotten when no row on time can repeat it, and not before.
    check("a@0=1 ~10 a@10=2 ~11 a@11=3 ~11", "10: a 1; 11: a 3");
    // Below the watermark it is not known any more.
    check("a@0=1 ~5 a@4=2 b@5=3 ~5", "5: a 1; 5: b 3, late a 2");
    check("a@-20=1 a@-10=2 ~-15 a@-9=3 ~-9", "-15: a 1; -9: a 3");
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let mut step = (subject(10).make)();
    let long = crate::step::testing::In {
        input: 0,
        key: Some("x".repeat(limits::KEY_BYTES_MAX)),
        value: None,
        time: 0,
    };
    let mut out = Output::new(2);
    step.process(0, batch(&[long]), &mut out).unwrap();
    assert!(out.ports[0].is_empty());
    assert!(out.refused[0].reason.contains("longer than"));
}

/// All rows from the first on, one after the other, with a plain map that forgets nothing.
fn oracle(within: Micros) -> Oracle {
    Box::new(move |epochs| {
        let (mut given, mut watermark) = (Vec::new(), NO_TIME);
        let mut passed: BTreeMap<&Option<String>, Micros> = BTreeMap::new();
        for (number, epoch) in epochs.iter().enumerate() {
            for row in &epoch.rows {
                let cell = |c: Option<String>| c.unwrap_or("_".into());
                let cells = [
                    cell(row.key.clone()),
                    cell(row.value.map(|v| v.to_string())),
                ];
                let port = usize::from(row.time < watermark);
                let repeats = |first: &Micros| row.time - first <= within;
                if port == 0 && passed.get(&row.key).is_some_and(repeats) {
                    continue;
                }
                if port == 0 {
                    passed.insert(&row.key, row.time);
                }
                let row = Given {
                    port,
                    time: row.time,
                    cells: cells.join(" "),
                };
                given.push((number, row));
            }
            watermark = epoch.watermark;
        }
        given
    })
}

#[test]
fn random_scripts_give_what_an_oracle_says() {
    let make = |rng: &mut rand::rngs::StdRng| {
        let within = rng.random_range(0..40);
        (subject(within), oracle(seconds(within)))
    };
    against_oracle(1_000, make, &Shape::SMALL);
}

#[test]
fn no_write_that_fails_changes_the_output() {
    every_write_fails(
        &subject(10),
        "a@1=1 b@2=2 ~3 a@8=3 c@9=4 ~12 a@13=5 b@14=6 ~20 c@25=7 ~30",
    );
}
