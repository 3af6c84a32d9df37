//! Made-up shop data as a source: clicks and purchases that look like a shop's, the same for the same seed.
//!
//! What is in a record is [`Records`]' affair; here is when it comes, and into which files.
//! Invariant: no record comes before its time, and none is left out, whatever the pauses between polls.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

pub use super::records::{Records, products_csv};
use super::{About, Partition, Position, Progress, Reader, Record, Source};
use crate::error::ConnectorError;
use crate::pipeline::plan::{Generate, GenerateKind};
use crate::time::{MICROS_PER_SECOND, Micros};

/// What the generator's records can be late by; its sources have this lateness.
pub const LATENESS: Micros = 5 * 60 * MICROS_PER_SECOND;

const PARTITION: u32 = 0;

/// The columns of a kind's records, their paths, and which of them is the event time.
pub fn fields(kind: GenerateKind) -> (SchemaRef, Vec<Vec<String>>, usize) {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let time = Field::new(
        "timestamp",
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        false,
    );
    let (fields, event_time) = match kind {
        GenerateKind::Clicks => (
            vec![
                text("event_id"),
                text("user_id"),
                text("product_id"),
                text("action"),
                time,
                text("page"),
                text("device"),
            ],
            4,
        ),
        GenerateKind::Transactions => (
            vec![
                text("transaction_id"),
                text("user_id"),
                text("product_id"),
                Field::new("quantity", DataType::Int64, false),
                Field::new("amount", DataType::Float64, false),
                time,
                text("currency"),
            ],
            5,
        ),
    };
    let paths = fields.iter().map(|f| vec![f.name().clone()]).collect();
    (Arc::new(Schema::new(fields)), paths, event_time)
}

/// Splits `total` into a shop's clicks (80 %) and purchases (20 %), of the same visits.
pub fn ecommerce(total: &Generate) -> [Generate; 2] {
    let purchases = total.count.map(|n| n / 5);
    let part = |kind, share, count| Generate {
        kind,
        per_second: total.per_second * share,
        count,
        ..total.clone()
    };
    [
        part(GenerateKind::Clicks, 0.8, total.count.map(|n| n - n / 5)),
        part(GenerateKind::Transactions, 0.2, purchases),
    ]
}

/// Writes each part's records as JSON lines (`clicks.jsonl`, `transactions.jsonl`) and the products of the first as
/// `products.csv` into `out`, which is created. Not paced. `progress` gets the records written so far, now and then.
/// Returns the paths. A part without `count` is refused.
pub fn write_files(
    parts: &[Generate],
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<PathBuf>, ConnectorError> {
    fs::create_dir_all(out).map_err(|cause| ConnectorError::io(out, cause))?;
    let (mut paths, mut written) = (Vec::new(), 0);
    for part in parts {
        let path = out.join(match part.kind {
            GenerateKind::Clicks => "clicks.jsonl",
            GenerateKind::Transactions => "transactions.jsonl",
        });
        let count = part.count.ok_or_else(|| unbounded("a file"))?;
        write_records(part, count, &path, &mut |n| progress(written + n))
            .map_err(|cause| ConnectorError::io(&path, cause))?;
        written += count;
        paths.push(path);
    }
    if let Some(part) = parts.first() {
        let path = out.join("products.csv");
        fs::write(&path, products_csv(part)).map_err(|cause| ConnectorError::io(&path, cause))?;
        paths.push(path);
    }
    Ok(paths)
}

fn write_records(
    part: &Generate,
    count: u64,
    path: &Path,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    const REPORT_EVERY: u64 = 1 << 16;
    let records = Records::new(part);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut line = Vec::new();
    for index in 0..count {
        line.clear();
        records.write(index, &mut line);
        line.push(b'\n');
        file.write_all(&line)?;
        if (index + 1) % REPORT_EVERY == 0 {
            progress(index + 1);
        }
    }
    file.flush()?;
    progress(count);
    Ok(())
}

fn unbounded(what: &str) -> ConnectorError {
    ConnectorError::failed(
        "generator",
        format!("{what} needs an end: give the generator a `count`"),
    )
}

/// Time since some moment; tests move it by hand.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The generator as a source of one partition, paced by a clock.
pub struct GenerateSource {
    generate: Generate,
    clock: Clock,
}

impl GenerateSource {
    pub fn new(generate: &Generate) -> Self {
        let start = Instant::now();
        Self::with_clock(generate, Arc::new(move || start.elapsed()))
    }

    pub fn with_clock(generate: &Generate, clock: Clock) -> Self {
        Self {
            generate: generate.clone(),
            clock,
        }
    }
}

impl Source for GenerateSource {
    fn partitions(
        &self,
        resume: &BTreeMap<u32, Position>,
        ends: &BTreeMap<u32, i64>,
        bounded: bool,
        _stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Partition>, ConnectorError> {
        let end = match (bounded, ends.get(&PARTITION), self.generate.count) {
            (false, _, _) => None,
            (true, Some(end), _) => Some(*end),
            (true, None, Some(count)) => Some(count as i64),
            (true, None, None) => return Err(unbounded("a run with --until-end")),
        };
        let first = Position {
            offset: 0,
            record: 0,
        };
        Ok(vec![Partition {
            id: PARTITION,
            start: resume.get(&PARTITION).copied().unwrap_or(first),
            end,
        }])
    }

    fn reader(&self, partitions: Vec<Partition>) -> Result<Box<dyn Reader>, ConnectorError> {
        let paces = partitions
            .into_iter()
            .map(|partition| Pace {
                next: partition.start.offset as u64,
                stop: match (partition.end, self.generate.count) {
                    (Some(end), _) => end as u64,
                    (None, count) => count.unwrap_or(u64::MAX),
                },
                bounded: partition.end.is_some(),
                from: None,
            })
            .collect();
        Ok(Box::new(GenerateReader {
            paused: false,
            records: Records::new(&self.generate),
            per_second: self.generate.per_second,
            clock: self.clock.clone(),
            paces,
            record: Vec::new(),
        }))
    }

    fn describe(&self, _partition: u32, number: i64) -> Value {
        json!({ "index": number })
    }
}

struct GenerateReader {
    records: Records,
    per_second: f64,
    clock: Clock,
    /// The one partition, or none for a worker that has no part of it.
    paces: Vec<Pace>,
    paused: bool,
    record: Vec<u8>,
}

struct Pace {
    next: u64,
    /// The index that is not made any more.
    stop: u64,
    bounded: bool,
    /// When the first poll was, and with which index.
    from: Option<(Duration, u64)>,
}

impl Pace {
    /// The index up to which records are due at `now`.
    fn due(&mut self, now: Duration, per_second: f64) -> u64 {
        let (start, first) = *self.from.get_or_insert((now, self.next));
        let passed = (now.saturating_sub(start).as_secs_f64() * per_second) as u64;
        first
            .saturating_add(passed)
            .saturating_add(1)
            .min(self.stop)
    }

    /// Time until the next record is due.
    fn pause(&self, now: Duration, per_second: f64) -> Duration {
        let (start, first) = self.from.unwrap_or((now, self.next));
        let due = (self.next - first) as f64 / per_second;
        Duration::try_from_secs_f64(due)
            .unwrap_or(Duration::MAX)
            .saturating_sub(now.saturating_sub(start))
    }
}

impl Reader for GenerateReader {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), ConnectorError> {
        let Some(pace) = self.paces.first_mut().filter(|_| !self.paused) else {
            std::thread::sleep(wait);
            return Ok(());
        };
        let now = (self.clock)();
        let mut due = pace.due(now, self.per_second);
        if due <= pace.next && !wait.is_zero() {
            std::thread::sleep(wait.min(pace.pause(now, self.per_second)));
            due = pace.due((self.clock)(), self.per_second);
        }
        let until = due.min(pace.next.saturating_add(max as u64));
        while pace.next < until {
            let index = pace.next;
            self.record.clear();
            self.records.write(index, &mut self.record);
            pace.next += 1;
            each(Record {
                about: About::default(),
                partition: PARTITION,
                number: index as i64,
                next: at(pace.next),
                value: Some(&self.record),
            });
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[u32]) {
        self.paused = partitions.contains(&PARTITION);
    }

    fn progress(&self) -> Vec<Progress> {
        let now = (self.clock)();
        let progress = |pace: &Pace| {
            let (start, first) = pace.from.unwrap_or((now, pace.next));
            let passed = now.saturating_sub(start).as_secs_f64() * self.per_second;
            let due = first.saturating_add(passed as u64).saturating_add(1);
            let lag = due.min(pace.stop).saturating_sub(pace.next);
            Progress {
                partition: PARTITION,
                next: at(pace.next),
                caught_up: lag == 0,
                finished: pace.bounded && pace.next >= pace.stop,
                lag: Some(lag),
            }
        };
        self.paces.iter().map(progress).collect()
    }
}

fn at(index: u64) -> Position {
    Position {
        offset: index as i64,
        record: index as i64,
    }
}

#[cfg(test)]
mod tests;
