//! Where the sources of a pipeline are to go on, and the positions that this means: asked of the sources, checked against
//! what they have. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::clock::SystemClock;
use crate::engine::open::open_sources;
use crate::error::RunError;
use crate::pipeline::plan::{self, Generate, Plan, SourceConnector, Start};
use crate::source::{Partition, Position, Source};
use crate::time::{MICROS_PER_SECOND, Micros};

/// By source and partition, where it goes on.
pub type Offsets = BTreeMap<String, BTreeMap<u32, i64>>;

/// Where sources are to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// At the first record that there still is.
    Earliest,
    /// Kafka: at the first record with a timestamp not before it. Generator: at the first record of this time. A file's
    /// records cannot be found by time: it is read from its beginning.
    Time(Micros),
    /// Exactly there. What is not named stays where it is.
    Offsets(Offsets),
}

/// By source, the positions that `target` gives; partitions that it leaves alone are missing.
pub(super) fn find(
    plan: &Plan,
    target: &Target,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<BTreeMap<u32, Position>>, RunError> {
    if let Target::Offsets(offsets) = target {
        known_sources(plan, offsets)?;
    }
    let mut from = plan.clone();
    for source in &mut from.sources {
        if let SourceConnector::Kafka { start, .. } = &mut source.connector {
            *start = match target {
                Target::Time(time) => Start::At(*time),
                Target::Earliest | Target::Offsets(_) => Start::Earliest,
            };
        }
    }
    let opened = open_sources(&from, &(Arc::new(SystemClock::default()) as _))?;
    let mut all = Vec::new();
    let mut mistakes = Vec::new();
    for (source, opened) in plan.sources.iter().zip(&opened) {
        all.push(match target {
            Target::Offsets(offsets) => match offsets.get(&source.name) {
                Some(named) => named_positions(source, &**opened, named, stop, &mut mistakes)?,
                None => BTreeMap::new(),
            },
            Target::Earliest | Target::Time(_) => {
                let first = opened.partitions(&BTreeMap::new(), &BTreeMap::new(), false, stop)?;
                let then = |start| match (&source.connector, target) {
                    (SourceConnector::Generate(generate), Target::Time(time)) => {
                        at(index(generate, *time))
                    }
                    _ => start,
                };
                first.iter().map(|p| (p.id, then(p.start))).collect()
            }
        });
    }
    match mistakes.is_empty() {
        true => Ok(all),
        false => Err(RunError::Refused(format!(
            "the offsets do not fit the sources; nothing was changed\n  - {}",
            mistakes.join("\n  - ")
        ))),
    }
}

/// The positions that offsets name of one source, which reads from its beginning.
fn named_positions(
    source: &plan::Source,
    opened: &dyn Source,
    named: &BTreeMap<u32, i64>,
    stop: &dyn Fn() -> bool,
    mistakes: &mut Vec<String>,
) -> Result<BTreeMap<u32, Position>, RunError> {
    let is_kafka = matches!(source.connector, SourceConnector::Kafka { .. });
    // The ends of a topic bound what may be named; a generator may have none.
    let partitions = opened.partitions(&BTreeMap::new(), &BTreeMap::new(), is_kafka, stop)?;
    let bounds: Vec<_> = (partitions.iter())
        .map(|p| (p.id, bounds(source, p.start.offset, p.end)))
        .collect();
    mistakes.extend(misfits(&source.name, named, &bounds));
    let position = |p: &Partition| match (*named.get(&p.id)?, is_kafka) {
        // Behind the header, where there is one.
        (0, false) => Some((p.id, p.start)),
        (offset, _) => Some((p.id, at(offset))),
    };
    Ok(partitions.iter().filter_map(position).collect())
}

fn at(offset: i64) -> Position {
    Position {
        offset,
        record: offset,
    }
}

/// The offsets that may be named of a partition.
fn bounds(source: &plan::Source, first: i64, end: Option<i64>) -> (i64, i64) {
    match &source.connector {
        SourceConnector::Kafka { .. } => (first, end.unwrap_or(i64::MAX)),
        SourceConnector::Generate(generate) => {
            let count = generate.count.and_then(|n| i64::try_from(n).ok());
            (0, count.unwrap_or(i64::MAX))
        }
        // Whether a record begins at another byte is not known without reading all before it.
        SourceConnector::File { .. } => (0, 0),
    }
}

fn known_sources(plan: &Plan, offsets: &Offsets) -> Result<(), RunError> {
    let is_unknown = |name: &&String| plan.sources.iter().all(|s| s.name != **name);
    let unknown: Vec<&str> = (offsets.keys().filter(is_unknown))
        .map(String::as_str)
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = plan.sources.iter().map(|s| s.name.as_str()).collect();
    Err(RunError::Refused(format!(
        "the offsets name {}, but the sources of pipeline {} are {}; nothing was changed",
        unknown.join(", "),
        plan.name,
        names.join(", ")
    )))
}

/// What is wrong with the offsets named of a source, whose partitions have `bounds`.
fn misfits(source: &str, named: &BTreeMap<u32, i64>, bounds: &[(u32, (i64, i64))]) -> Vec<String> {
    let mut all = Vec::new();
    for (id, &offset) in named {
        let wrong = match bounds.iter().find(|(known, _)| known == id) {
            None => format!("there are only its partitions {}", ids(bounds)),
            Some((_, (low, high))) if (*low..=*high).contains(&offset) => continue,
            Some((_, (0, 0))) => "a file can only be read from its beginning, 0".into(),
            Some((_, (low, i64::MAX))) => format!("offsets begin at {low}"),
            Some((_, (low, high))) => format!("it has offsets {low} to {high}"),
        };
        all.push(format!(
            "{source}, partition {id}, offset {offset}: {wrong}"
        ));
    }
    all
}

fn ids(bounds: &[(u32, (i64, i64))]) -> String {
    match bounds {
        [] => "(none)".into(),
        [(only, _)] => only.to_string(),
        [(first, _), .., (last, _)] => format!("{first} to {last}"),
    }
}

/// The first record of the generator that is not before `time`: record i is at start + i * speed / per_second.
pub(super) fn index(generate: &Generate, time: Micros) -> i64 {
    let seconds = time.saturating_sub(generate.start) as f64 / MICROS_PER_SECOND as f64;
    let records = (seconds * generate.per_second / generate.speed)
        .ceil()
        .max(0.0);
    // A float beyond the integers becomes the greatest of them.
    let index = records as i64;
    let count = generate.count.and_then(|n| i64::try_from(n).ok());
    count.map_or(index, |count| index.min(count))
}
