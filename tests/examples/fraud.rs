//! Payments: bursts, amounts and journeys that are out of the ordinary.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Example, WORKERS, cents, float, millis, object, text};
use crate::support::times::{HOUR, MINUTE, time, windows};
use crate::support::{assert_same_rows, oracle::shown};

/// The payments of each card in the order of their times.
type Cards = BTreeMap<String, Vec<Value>>;

pub fn agrees() {
    for workers in WORKERS {
        let (example, _) = Example::after_run("fraud", workers);
        let cards = cards(&example);
        for (step, expected) in [
            ("velocity", velocity(&cards)),
            ("amount", amount(&cards)),
            ("travel", travel(&cards)),
        ] {
            assert!(expected.len() >= 3, "the data hold no {step}: {expected:?}");
            assert_same_rows(step, example.rows_of("output/alerts.jsonl", step), expected);
        }
        let refused: Vec<Value> = cards.into_values().flatten().filter(nowhere).collect();
        let dead = example.rows("output/dead-letters.jsonl");
        assert_eq!((refused.len(), dead.len()), (1, 1), "{dead:?}");
        let raw: Value = serde_json::from_str(text(&dead[0], "raw")).unwrap();
        assert_eq!(raw["transaction_id"], refused[0]["transaction_id"]);
        assert_eq!(dead[0]["step"], "travel");
    }
}

fn cards(example: &Example) -> Cards {
    let mut cards = Cards::new();
    for mut payment in example.rows("transactions.jsonl") {
        payment["timestamp"] = shown(text(&payment, "timestamp")).into();
        cards
            .entry(text(&payment, "card_id").to_owned())
            .or_default()
            .push(payment);
    }
    for payments in cards.values_mut() {
        payments.sort_by_key(|p| millis(&p["timestamp"]));
        let times = payments
            .windows(2)
            .all(|p| p[0]["timestamp"] != p[1]["timestamp"]);
        assert!(times, "two payments of a card at one time have no order");
    }
    cards
}

fn nowhere(payment: &Value) -> bool {
    float(payment, "latitude").abs() > 90.0 || float(payment, "longitude").abs() > 180.0
}

/// Windows of ten minutes with six payments or more; of those of one card none within an hour of one given.
fn velocity(cards: &Cards) -> Vec<Value> {
    let mut out = Vec::new();
    for (card, payments) in cards {
        let mut full: BTreeMap<(i64, i64), Vec<f64>> = BTreeMap::new();
        for payment in payments {
            for window in windows(millis(&payment["timestamp"]), 10 * MINUTE, MINUTE) {
                full.entry(window)
                    .or_default()
                    .push(float(payment, "amount"));
            }
        }
        full.retain(|_, amounts| amounts.len() >= 6);
        let mut given: Option<i64> = None;
        for ((start, end), amounts) in full {
            if given.is_some_and(|last| end - last <= HOUR) {
                continue;
            }
            given = Some(end);
            out.push(object([
                ("card_id", json!(card)),
                ("window_start", time(start)),
                ("window_end", time(end)),
                ("payments", json!(amounts.len())),
                ("total", json!(cents(amounts.iter().sum()))),
            ]));
        }
    }
    out
}

fn with(payment: &Value, more: &[(&str, f64)]) -> Value {
    let mut row = payment.clone();
    more.iter()
        .for_each(|(name, value)| row[*name] = json!(value));
    row
}

/// Payments more than six deviations from the mean of the ten or more before them.
fn amount(cards: &Cards) -> Vec<Value> {
    let mut out = Vec::new();
    for payments in cards.values() {
        for (i, payment) in payments.iter().enumerate().skip(10) {
            let before: Vec<f64> = payments[..i].iter().map(|p| float(p, "amount")).collect();
            let mean = before.iter().sum::<f64>() / i as f64;
            let squares: f64 = before.iter().map(|a| (a - mean).powi(2)).sum();
            let score = (float(payment, "amount") - mean) / (squares / (i - 1) as f64).sqrt();
            if score.abs() > 6.0 {
                out.push(with(payment, &[("z_score", score)]));
            }
        }
    }
    out
}

/// Payments 200 km or more from the one before, and too far for 900 km/h.
fn travel(cards: &Cards) -> Vec<Value> {
    let mut out = Vec::new();
    for payments in cards.values() {
        let places: Vec<&Value> = payments.iter().filter(|p| !nowhere(p)).collect();
        for pair in places.windows(2) {
            let km = distance(pair[0], pair[1]);
            let minutes = (millis(&pair[1]["timestamp"]) - millis(&pair[0]["timestamp"])) as f64
                / MINUTE as f64;
            if km >= 200.0 && km / minutes > 900.0 / 60.0 {
                out.push(with(pair[1], &[("km", km), ("minutes", minutes)]));
            }
        }
    }
    out
}

/// By the angle between the two directions from the middle of the earth: another formula than the plugin's.
fn distance(from: &Value, to: &Value) -> f64 {
    let direction = |p: &Value| {
        let (latitude, longitude) = (
            float(p, "latitude").to_radians(),
            float(p, "longitude").to_radians(),
        );
        [
            latitude.cos() * longitude.cos(),
            latitude.cos() * longitude.sin(),
            latitude.sin(),
        ]
    };
    let (a, b) = (direction(from), direction(to));
    let cross = [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ];
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    6_371.0 * cross.iter().map(|c| c * c).sum::<f64>().sqrt().atan2(dot)
}
