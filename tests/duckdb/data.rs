//! Random records of many small cases side by side: each is a cluster of its own in key and time, with ties, window edges,
//! duplicates, nulls and bounded disorder.

use std::fmt::Write as _;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

const SECOND: i64 = 1_000_000;

/// The files, relative to the pipeline's folder, of the tables `l` and `r`. One of them is empty.
pub const LEFT: [&str; 2] = ["l1.jsonl", "l2.jsonl"];
pub const RIGHT: [&str; 2] = ["r1.jsonl", "r2.jsonl"];

/// How the records of one run are drawn.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Independent cases, told apart by the column `c`.
    pub cases: usize,
    /// Microseconds since 1970 around which they lie; none is later than `last`.
    pub first: i64,
    pub last: i64,
    /// Windows begin at multiples of this, microseconds.
    pub every: i64,
    /// A record comes at most this much later than its time says, microseconds.
    pub disorder: i64,
}

struct Record {
    file: usize,
    arrives: i64,
    time: i64,
    line: String,
}

/// Writes the four files; gives the number of records.
pub fn write(dir: &Path, shape: &Shape, rng: &mut StdRng) -> usize {
    let mut records = Vec::new();
    for case in 0..shape.cases {
        cluster(case, shape, rng, &mut records);
    }
    // What is drawn may be later than allowed: then it comes at the last moment there is.
    records.sort_by_key(|r| (r.arrives, r.time));
    for (file, name) in LEFT.iter().chain(&RIGHT).enumerate() {
        let lines = records.iter().filter(|r| r.file == file);
        let text: String = lines.map(|r| r.line.as_str()).collect();
        std::fs::write(dir.join(name), text).expect("the folder is ours");
    }
    records.len()
}

fn cluster(case: usize, shape: &Shape, rng: &mut StdRng, records: &mut Vec<Record>) {
    let center = rng.random_range(shape.first..=shape.last);
    let width = shape.every * rng.random_range(1..6);
    for _ in 0..rng.random_range(1..14) {
        let time = time(center, width, shape, rng).min(shape.last);
        let file = *[0, 0, 1, 2, 2, 2].choose(rng).expect("some");
        let line = line(records.len(), case, time, rng);
        let times = if rng.random_ratio(1, 12) { 2 } else { 1 };
        for _ in 0..times {
            let late = rng.random_range(0..=shape.disorder.max(1) - 1);
            records.push(Record {
                file,
                arrives: time + late,
                time,
                line: line.clone(),
            });
        }
    }
}

/// Often on an edge of a window, or a microsecond beside it, or where others are.
fn time(center: i64, width: i64, shape: &Shape, rng: &mut StdRng) -> i64 {
    let time = center + rng.random_range(0..=width);
    let edge = time - time.rem_euclid(shape.every);
    match rng.random_range(0..6) {
        0 => edge,
        1 => edge - 1,
        2 => time - time.rem_euclid(SECOND),
        3 => center,
        _ => time,
    }
}

fn line(id: usize, case: usize, time: i64, rng: &mut StdRng) -> String {
    let mut line = format!(
        "{{\"id\":{id},\"c\":{case},\"us\":{time},\"at\":\"{}\"",
        rfc3339(time)
    );
    let key = [Some("a"), Some("a"), Some("b"), None]
        .choose(rng)
        .expect("some");
    match key {
        Some(key) => write!(line, ",\"k\":\"{key}\"").expect("memory"),
        // Absent is null.
        None if rng.random() => line += ",\"k\":null",
        None => {}
    }
    if rng.random_ratio(9, 10) {
        write!(line, ",\"n\":{}", rng.random_range(-5..6)).expect("memory");
    }
    if rng.random_ratio(9, 10) {
        write!(line, ",\"x\":{:.3}", rng.random_range(-2.0..2.0)).expect("memory");
    }
    if rng.random_ratio(3, 4) {
        let text = ["", "x", "yy", "Z", "é"].choose(rng).expect("some");
        write!(line, ",\"s\":\"{text}\"").expect("memory");
    }
    line + "}\n"
}

/// RFC 3339 with microseconds; days to dates after Howard Hinnant's `civil_from_days`.
fn rfc3339(micros: i64) -> String {
    let (days, rest) = (
        micros.div_euclid(86_400 * SECOND),
        micros.rem_euclid(86_400 * SECOND),
    );
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, fraction) = (rest / SECOND, rest % SECOND);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:06}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}
