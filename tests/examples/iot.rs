//! Readings: outliers left out, results corrected by what comes late, and what comes too late kept apart.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Example, WORKERS, Windows, float, millis, object, text};
use crate::support::times::{HOUR, MINUTE, time, windows};
use crate::support::{assert_same_rows, oracle::shown};

const LATENESS: i64 = 10 * MINUTE;
/// Records that the source gives an epoch; fewer if it is slow.
const PER_EPOCH: usize = 24;

/// A plausible reading, with the watermarks that it can meet: that of the record before it, and of an epoch before it.
struct Reading {
    row: Value,
    watermarks: [i64; 2],
}

impl Reading {
    fn time(&self) -> i64 {
        millis(&self.row["measured_at"])
    }

    /// Whether it comes after the window's end and `allowed` more. The same wherever epochs end, or the data are no test.
    fn late(&self, end: i64, allowed: i64) -> bool {
        let [late, before] = self.watermarks.map(|watermark| end + allowed <= watermark);
        assert_eq!(late, before, "{} is late or not as epochs fall", self.row);
        late
    }
}

pub fn agrees() {
    for workers in WORKERS {
        let (example, _) = Example::after_run("iot", workers);
        let (readings, outliers) = readings(&example);
        assert!(!outliers.is_empty(), "the data hold no outlier");
        assert_same_rows("outliers", example.rows("output/outliers.jsonl"), outliers);
        let (climate, late) = group(&readings, "sensor_id", [6 * HOUR, 6 * HOUR], 6 * HOUR);
        assert!(!late.is_empty(), "the data hold nothing that is too late");
        assert_same_rows(
            "late for climate",
            example.rows_of("output/too-late.jsonl", "climate.late"),
            late,
        );
        check_climate(example.rows("output/climate.jsonl"), &climate);
        let (rooms, late) = group(&readings, "room", [12 * HOUR, 3 * HOUR], 0);
        assert_same_rows(
            "late for rooms",
            example.rows_of("output/too-late.jsonl", "rooms.late"),
            late,
        );
        let rooms = rooms
            .into_iter()
            .map(|(key, values)| room(&key, &values))
            .collect();
        assert_same_rows("rooms", example.rows("output/rooms.jsonl"), rooms);
    }
}

fn readings(example: &Example) -> (Vec<Reading>, Vec<Value>) {
    let rooms: BTreeMap<String, Value> = example
        .cells("sensors.csv")
        .into_iter()
        .map(|s| (text(&s, "sensor_id").to_owned(), s["room"].clone()))
        .collect();
    let (mut plausible, mut outliers) = (Vec::new(), Vec::new());
    // The watermark after each record; before the first there is none.
    let mut watermarks = vec![i64::MIN / 2];
    for mut row in example.cells("readings.csv") {
        row["room"] = rooms[text(&row, "sensor_id")].clone();
        row["measured_at"] = shown(text(&row, "measured_at")).into();
        let at = watermarks.len() - 1;
        let met = [watermarks[at], watermarks[at.saturating_sub(PER_EPOCH - 1)]];
        watermarks.push(watermarks[at].max(millis(&row["measured_at"]) - LATENESS));
        match float(&row, "temperature") {
            -30.0..=60.0 => plausible.push(Reading {
                row,
                watermarks: met,
            }),
            _ => outliers.push(row),
        }
    }
    (plausible, outliers)
}

/// Temperatures by a column and window, and the readings that are too late for all of their windows.
fn group(
    readings: &[Reading],
    column: &str,
    [size, every]: [i64; 2],
    allowed: i64,
) -> (Windows<String, f64>, Vec<Value>) {
    let (mut groups, mut late) = (Windows::new(), Vec::new());
    for reading in readings {
        let open: Vec<_> = windows(reading.time(), size, every)
            .filter(|(_, end)| !reading.late(*end, allowed))
            .collect();
        if open.is_empty() {
            late.push(reading.row.clone());
        }
        for (start, end) in open {
            let key = (text(&reading.row, column).to_owned(), start, end);
            groups
                .entry(key)
                .or_insert_with(Vec::new)
                .push(float(&reading.row, "temperature"));
        }
    }
    (groups, late)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn room((room, start, end): &(String, i64, i64), values: &[f64]) -> Value {
    let squares: f64 = values.iter().map(|v| (v - mean(values)).powi(2)).sum();
    object([
        ("room", json!(room)),
        ("window_start", time(*start)),
        ("window_end", time(*end)),
        ("readings", json!(values.len())),
        ("mean", json!(mean(values))),
        (
            "spread",
            json!((squares / (values.len() - 1) as f64).sqrt()),
        ),
    ])
}

/// The last result of each sensor and window holds everything; those before it have the revisions below, and fewer readings.
fn check_climate(given: Vec<Value>, expected: &Windows<String, f64>) {
    let mut results: BTreeMap<(String, i64), Vec<Value>> = BTreeMap::new();
    for row in given {
        let key = (
            text(&row, "sensor_id").to_owned(),
            millis(&row["window_start"]),
        );
        results.entry(key).or_default().push(row);
    }
    let corrected = results
        .values()
        .filter(|revisions| revisions.len() > 1)
        .count();
    assert!(corrected > 0, "no result was corrected");
    let mut last = Vec::new();
    for revisions in results.into_values() {
        for (i, row) in revisions.iter().enumerate() {
            assert_eq!(row["revision"], json!(i), "{revisions:?}");
            let more = i == 0 || float(row, "readings") > float(&revisions[i - 1], "readings");
            assert!(more, "{revisions:?}");
        }
        last.extend(revisions.into_iter().next_back());
    }
    last.iter_mut()
        .for_each(|row| drop(row.as_object_mut().map(|r| r.remove("revision"))));
    let expected = expected.iter().map(|((sensor, start, end), values)| {
        object([
            ("sensor_id", json!(sensor)),
            ("window_start", time(*start)),
            ("window_end", time(*end)),
            ("readings", json!(values.len())),
            ("mean", json!(mean(values))),
            (
                "coldest",
                json!(values.iter().copied().fold(f64::MAX, f64::min)),
            ),
            (
                "warmest",
                json!(values.iter().copied().fold(f64::MIN, f64::max)),
            ),
        ])
    });
    assert_same_rows("climate", last, expected.collect());
}
