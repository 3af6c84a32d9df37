//! Log lines: errors by minute, where they jump, and who has most.

use std::fs;

use serde_json::{Value, json};

use super::{Example, WORKERS, Windows, float, millis, object, text};
use crate::support::assert_same_rows;
use crate::support::times::{MINUTE, time, windows};

pub fn agrees() {
    for workers in WORKERS {
        let (example, _) = Example::after_run("logs", workers);
        let whole = fs::read_to_string(example.path("app.jsonl")).unwrap();
        let (good, broken): (Vec<_>, Vec<_>) = whole
            .lines()
            .map(|l| (l, serde_json::from_str::<Value>(l)))
            .partition(|(_, read)| read.is_ok());
        let lines: Vec<Value> = good.into_iter().filter_map(|(_, read)| read.ok()).collect();
        let minutes = by_service(&lines, MINUTE);
        assert_same_rows(
            "minutes",
            example.cells("output/minutes.csv"),
            minutes.iter().map(minute).collect(),
        );
        let jumps = jumps(&minutes);
        let services: Vec<&str> = jumps.iter().map(|row| text(row, "service")).collect();
        assert_eq!(
            services,
            ["payments", "search"],
            "the slow rise of `web` is no jump"
        );
        assert_same_rows("jumps", example.rows("output/alerts.jsonl"), jumps);
        assert_same_rows("worst", example.rows("output/worst.jsonl"), worst(&lines));
        let dead = example.rows("output/dead-letters.jsonl");
        let raw: Vec<&str> = dead.iter().map(|letter| text(letter, "raw")).collect();
        let broken: Vec<&str> = broken.into_iter().map(|(line, _)| line).collect();
        assert!(!broken.is_empty(), "the data hold no broken line");
        assert_eq!(raw, broken);
    }
}

type Services<'a> = Windows<&'a str, &'a Value>;

fn by_service(lines: &[Value], size: i64) -> Services<'_> {
    let mut groups = Services::new();
    for line in lines {
        for (start, end) in windows(millis(&line["time"]), size, size) {
            groups
                .entry((text(line, "service"), start, end))
                .or_default()
                .push(line);
        }
    }
    groups
}

fn errors(lines: &[&Value]) -> usize {
    lines.iter().filter(|line| line["level"] == "ERROR").count()
}

fn minute(((service, start, end), lines): (&(&str, i64, i64), &Vec<&Value>)) -> Value {
    let slowest = lines.iter().filter_map(|line| line["ms"].as_i64()).max();
    object([
        ("service", json!(service)),
        ("window_start", time(*start)),
        ("window_end", time(*end)),
        ("lines", json!(lines.len())),
        ("errors", json!(errors(lines))),
        ("slowest_ms", json!(slowest)),
    ])
}

fn jumps(minutes: &Services<'_>) -> Vec<Value> {
    let mut out = Vec::new();
    for ((service, start, _), lines) in minutes {
        let Some(before) = minutes.get(&(service, start - MINUTE, *start)) else {
            continue;
        };
        let (now, before) = (errors(lines), errors(before));
        if now >= 5 && now > 3 * before {
            out.push(object([
                ("service", json!(service)),
                ("minute", time(*start)),
                ("errors", json!(now)),
                ("errors_before", json!(before)),
                ("lines", json!(lines.len())),
            ]));
        }
    }
    out
}

/// The two services of each five minutes with most errors; of equals the first by name.
fn worst(lines: &[Value]) -> Vec<Value> {
    let groups = by_service(lines, 5 * MINUTE);
    let mut ranked: Vec<_> = groups.into_iter().collect();
    ranked.sort_by_key(|((service, start, _), lines)| {
        (*start, std::cmp::Reverse(errors(lines)), *service)
    });
    let mut out: Vec<Value> = Vec::new();
    let mut of_window = (i64::MIN, 0);
    for ((service, start, end), lines) in ranked {
        of_window = if of_window.0 == start {
            (start, of_window.1 + 1)
        } else {
            (start, 1)
        };
        if of_window.1 <= 2 {
            out.push(object([
                ("service", json!(service)),
                ("window_start", time(start)),
                ("window_end", time(end)),
                ("errors", json!(errors(&lines))),
                ("median_ms", json!(median(&lines))),
            ]));
        }
    }
    out
}

fn median(lines: &[&Value]) -> f64 {
    let mut values: Vec<f64> = lines.iter().map(|line| float(line, "ms")).collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        0 => (values[half - 1] + values[half]) / 2.0,
        _ => values[half],
    }
}
