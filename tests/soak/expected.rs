//! What the pipeline must have written, computed from scratch over the committed records of its input; and the comparison.
//!
//! Knows no Kafka and no engine: rows are JSON, partition by partition in the order of the log. Ids of input records are
//! dense, so the books are arrays.

use std::collections::HashMap;

use serde_json::Value;

use crate::support::times::millis;

/// Rows with `amount` from here on are large.
pub const LARGE: f64 = 50.0;
/// Length of the windows, in milliseconds.
pub const WINDOW_MS: i64 = 10_000;

/// What is wrong with the rows of one output, or nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    pub expected: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Rows that no input explains: of an aborted transaction, or with a wrong number in them.
    pub foreign: u64,
    /// Rows that come before an earlier one of their key.
    pub disordered: u64,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.foreign + self.disordered == 0
    }
}

/// Rows of one output by what they are rows of.
#[derive(Debug, Default)]
struct Book {
    /// Content that is due, and how often it came.
    rows: HashMap<Row, u32>,
    verdict: Verdict,
    /// The last place of a key in its order.
    last: HashMap<String, i64>,
}

/// A row reduced to numbers: what it is about, and what it says.
type Row = [i64; 4];

impl Book {
    fn expect(&mut self, row: Row) {
        self.verdict.expected += 1;
        let before = self.rows.insert(row, 0);
        assert!(before.is_none(), "the expectation holds {row:?} twice");
    }

    /// A row that came, and its place in the order of its key.
    fn came(&mut self, row: Option<Row>, key: &str, place: i64) {
        match row.and_then(|row| self.rows.get_mut(&row)) {
            None => self.verdict.foreign += 1,
            Some(times) => {
                *times += 1;
                self.verdict.doubled += u64::from(*times > 1);
            }
        }
        let last = self.last.entry(key.to_owned()).or_insert(i64::MIN);
        self.verdict.disordered += u64::from(place < *last);
        *last = (*last).max(place);
    }

    fn verdict(&self) -> Verdict {
        let lost = self.rows.values().filter(|times| **times == 0).count();
        Verdict {
            lost: lost as u64,
            ..self.verdict
        }
    }
}

/// The outputs of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Every good record, numbered within its key by the plugin's state.
    Marked,
    /// Good records with a large amount.
    Large,
    /// Good records counted and summed by key and window.
    Windows,
    /// Records that are not good.
    DeadLetters,
}

impl Output {
    pub const ALL: [Self; 4] = [Self::Marked, Self::Large, Self::Windows, Self::DeadLetters];

    pub fn name(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::Large => "large",
            Self::Windows => "windows",
            Self::DeadLetters => "dead letters",
        }
    }
}

#[derive(Debug, Default)]
pub struct Books {
    books: [Book; 4],
    /// Good records of a key so far: the plugin's state.
    counted: HashMap<String, i64>,
    windows: HashMap<(i64, i64), [i64; 2]>,
}

impl Books {
    /// The next committed record of an input partition.
    pub fn input(&mut self, record: &Value) {
        let id = record["id"].as_i64().expect("our records have ids");
        let key = record["key"].as_str().expect("our records have keys");
        let Some(amount) = record["amount"].as_f64() else {
            self.book(Output::DeadLetters).expect([id, 0, 0, 0]);
            return;
        };
        let seen = self.counted.entry(key.to_owned()).or_default();
        *seen += 1;
        let seen = *seen;
        self.book(Output::Marked).expect([id, number(key), seen, 0]);
        if amount >= LARGE {
            self.book(Output::Large).expect([id, number(key), 0, 0]);
        }
        let at = millis(record["at"].as_str().expect("our records have times"));
        let start = at.div_euclid(WINDOW_MS) * WINDOW_MS;
        let window = self.windows.entry((number(key), start)).or_default();
        window[0] += 1;
        window[1] += amount as i64;
    }

    /// To be called after the last input, before the first output.
    pub fn close(&mut self) {
        for ((key, start), [records, total]) in std::mem::take(&mut self.windows) {
            self.book(Output::Windows)
                .expect([key, start, records, total]);
        }
    }

    /// The next row of a partition of an output.
    pub fn output(&mut self, output: Output, row: &Value) {
        let key = row["key"].as_str().unwrap_or_default();
        let int = |name: &str| row[name].as_i64();
        let (content, key, place) = match output {
            Output::Marked => {
                let content = int("id").zip(int("seen"));
                let content = content.map(|(id, seen)| [id, number(key), seen, 0]);
                (content, key, int("seen"))
            }
            Output::Large => (int("id").map(|id| [id, number(key), 0, 0]), key, int("id")),
            Output::Windows => {
                let start = row["window_start"].as_str().map(millis);
                let total = row["total"].as_f64().map(|total| total as i64);
                let all = start.zip(int("records")).zip(total);
                let content =
                    all.map(|((start, records), total)| [number(key), start, records, total]);
                (content, key, start)
            }
            Output::DeadLetters => {
                let raw = row["raw"].as_str().unwrap_or_default();
                let raw: Value = serde_json::from_str(raw).unwrap_or_default();
                // Dead letters have no order that anything promises.
                (raw["id"].as_i64().map(|id| [id, 0, 0, 0]), "", Some(0))
            }
        };
        self.book(output)
            .came(content, key, place.unwrap_or(i64::MIN));
    }

    pub fn verdict(&self, output: Output) -> Verdict {
        self.books[output as usize].verdict()
    }

    fn book(&mut self, output: Output) -> &mut Book {
        &mut self.books[output as usize]
    }
}

/// The number in a key's name.
fn number(key: &str) -> i64 {
    key.trim_start_matches('k').parse().unwrap_or(-1)
}

/// Shows that the comparison sees what it is for. Panics if it does not.
pub fn check_itself() {
    let record = |id: i64, amount: Value| serde_json::json!({ "id": id, "key": "k7", "at": "2026-01-01T00:00:09.000Z", "amount": amount });
    let books = |rows: &[(i64, i64)]| {
        let mut books = Books::default();
        books.input(&record(0, 60.into()));
        books.input(&record(1, 2.into()));
        books.input(&record(2, "?".into()));
        books.close();
        for (id, seen) in rows {
            let row = serde_json::json!({ "id": id, "key": "k7", "seen": seen });
            books.output(Output::Marked, &row);
        }
        books
    };
    let marked = |rows: &[(i64, i64)]| {
        let v = books(rows).verdict(Output::Marked);
        [v.lost, v.doubled, v.foreign, v.disordered]
    };
    assert_eq!(marked(&[(0, 1), (1, 2)]), [0, 0, 0, 0]);
    assert_eq!(marked(&[(0, 1)]), [1, 0, 0, 0]);
    assert_eq!(marked(&[(0, 1), (1, 2), (1, 2)]), [0, 1, 0, 0]);
    assert_eq!(marked(&[(1, 2), (0, 1)]), [0, 0, 0, 1]);
    assert_eq!(marked(&[(0, 1), (1, 3)]), [1, 0, 1, 0]);
    assert_eq!(marked(&[(0, 1), (1, 2), (9, 3)]), [0, 0, 1, 0]);

    let mut all = books(&[]);
    let window = serde_json::json!({ "key": "k7", "window_start": "2026-01-01T00:00:00Z", "records": 2, "total": 62.0 });
    all.output(Output::Windows, &window);
    all.output(
        Output::DeadLetters,
        &serde_json::json!({ "raw": record(2, "?".into()).to_string() }),
    );
    all.output(Output::Large, &record(0, 60.into()));
    for output in [Output::Windows, Output::DeadLetters, Output::Large] {
        assert!(all.verdict(output).is_clean(), "{output:?}");
        assert_eq!(all.verdict(output).expected, 1, "{output:?}");
    }
}
