//! Generated records at their time on the clock, for what writes them to Kafka.
//!
//! Invariant: record i of a part comes no earlier than i / per_second after the start; none is left out.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::ConnectorError;
use crate::pipeline::plan::Generate;
use crate::source::generate::Records;

/// The longest wait in one piece, so that a stop is noticed.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Hands over the records of all parts in the order of their time, as part, key (the user) and record, until `stop` or
/// until each part's `count` is reached. Returns how many there were.
pub fn pace(
    parts: &[Generate],
    stop: &dyn Fn() -> bool,
    each: &mut dyn FnMut(usize, &[u8], &[u8]) -> Result<(), ConnectorError>,
) -> Result<u64, ConnectorError> {
    let records: Vec<Records> = parts.iter().map(Records::new).collect();
    let mut next = vec![0_u64; parts.len()];
    let mut record = Vec::new();
    let start = Instant::now();
    while let Some((part, due)) = soonest(parts, &next) {
        if !wait_until(start + due, stop) {
            break;
        }
        record.clear();
        records[part].write(next[part], &mut record);
        each(part, user(&record)?.as_bytes(), &record)?;
        next[part] += 1;
    }
    Ok(next.iter().sum())
}

/// The part whose next record is due first, and when.
fn soonest(parts: &[Generate], next: &[u64]) -> Option<(usize, Duration)> {
    let due = |(part, (generate, &index)): (usize, (&Generate, &u64))| {
        let more = generate.count.is_none_or(|count| index < count);
        more.then(|| {
            (
                part,
                Duration::from_secs_f64(index as f64 / generate.per_second),
            )
        })
    };
    parts
        .iter()
        .zip(next)
        .enumerate()
        .filter_map(due)
        .min_by_key(|(_, due)| *due)
}

/// Whether the time has come; false if `stop` said true first.
fn wait_until(due: Instant, stop: &dyn Fn() -> bool) -> bool {
    loop {
        if stop() {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(WAIT_MAX));
    }
}

#[derive(Deserialize)]
struct User<'a> {
    user_id: &'a str,
}

fn user(record: &[u8]) -> Result<&str, ConnectorError> {
    let user: User<'_> =
        serde_json::from_slice(record).map_err(|e| ConnectorError::failed("generator", e))?;
    Ok(user.user_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::plan::GenerateKind;

    fn part(kind: GenerateKind, per_second: f64, count: Option<u64>) -> Generate {
        Generate {
            kind,
            per_second,
            count,
            seed: 1,
            speed: 1.0,
            start: 1_767_225_600_000_000,
            users: 10,
            products: 5,
        }
    }

    #[test]
    fn every_record_of_every_part_with_its_user() {
        let parts = [
            part(GenerateKind::Clicks, 4e6, Some(40)),
            part(GenerateKind::Transactions, 1e6, Some(10)),
        ];
        let mut seen = [0, 0];
        let sent = pace(&parts, &|| false, &mut |part, key, record| {
            seen[part] += 1;
            let record: serde_json::Value = serde_json::from_slice(record).unwrap();
            assert_eq!(record["user_id"].as_str().unwrap().as_bytes(), key);
            Ok(())
        });
        assert_eq!((sent.unwrap(), seen), (50, [40, 10]));
    }

    #[test]
    fn parts_keep_step_with_each_other() {
        let parts = [
            part(GenerateKind::Clicks, 4.0, None),
            part(GenerateKind::Transactions, 1.0, Some(1)),
        ];
        assert_eq!(soonest(&parts, &[0, 0]), Some((0, Duration::ZERO)));
        assert_eq!(soonest(&parts, &[1, 0]), Some((1, Duration::ZERO)));
        assert_eq!(
            soonest(&parts, &[1, 1]),
            Some((0, Duration::from_millis(250)))
        );
        assert_eq!(soonest(&parts[1..], &[1]), None);
    }

    #[test]
    fn a_stop_ends_it_while_it_waits() {
        let parts = [part(GenerateKind::Clicks, 0.001, None)];
        let sent = std::cell::Cell::new(0);
        let ended = pace(&parts, &|| sent.get() > 0, &mut |_, _, _| {
            sent.set(sent.get() + 1);
            Ok(())
        });
        assert_eq!((ended.unwrap(), sent.get()), (1, 1));
    }
}
