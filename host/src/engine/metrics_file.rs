//! `[host] metrics`: the counts of a run as one JSON file, refreshed with every decided checkpoint.
//!
//! Not the Prometheus text of the admin API, and no history: the file says how things stand, for scripts and dashboards
//! that read files. Names are those of `--summary` and `status`. Readers see a whole file, the old or the new. What cannot
//! be written is said once and stops nothing: results do not depend on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::engine::shared::Shared;
use crate::format::timestamp;
use crate::pipeline::plan::Plan;
use crate::time::{END_OF_TIME, Micros, NO_TIME};

/// Writes the file of one run.
pub struct MetricsFile {
    path: Option<PathBuf>,
    started: Duration,
    /// At the refresh before, for rates.
    before: Counts,
    is_failing: bool,
}

/// Counters at one moment.
#[derive(Debug, Default)]
struct Counts {
    at: Duration,
    sources: Vec<u64>,
    sinks: Vec<u64>,
}

impl MetricsFile {
    /// For a run that begins at `now` on the monotonic clock.
    pub fn new(plan: &Plan, now: Duration) -> Self {
        Self {
            path: plan.host.metrics.clone(),
            started: now,
            before: Counts {
                at: now,
                sources: vec![0; plan.sources.len()],
                sinks: vec![0; plan.sinks.len()],
            },
            is_failing: false,
        }
    }

    /// A checkpoint is decided, with which the state takes `state_disk_bytes` on the disk.
    pub fn refresh(&mut self, shared: &Shared, state_disk_bytes: u64) {
        let Some(path) = &self.path else {
            return;
        };
        let now = Counts::of(shared);
        let document = document(shared, &self.before, &now, self.started, state_disk_bytes);
        self.before = now;
        let text = format!("{document:#}\n");
        match replace(path, &text) {
            Ok(()) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(
                    "[host] metrics: {} cannot be written: {error}; the pipeline goes on without, and tries again with \
                     each checkpoint",
                    path.display()
                );
            }
            Err(_) => {}
        }
    }
}

impl Counts {
    fn of(shared: &Shared) -> Self {
        let m = &shared.metrics;
        Self {
            at: shared.clock.elapsed(),
            sources: m.sources.iter().map(|s| s.records.load(Relaxed)).collect(),
            sinks: m.sinks.iter().map(|s| s.load(Relaxed)).collect(),
        }
    }
}

fn document(
    shared: &Shared,
    before: &Counts,
    now: &Counts,
    started: Duration,
    state_disk_bytes: u64,
) -> Value {
    let (plan, m) = (&shared.plan, &shared.metrics);
    let seconds = now.at.saturating_sub(before.at).as_secs_f64();
    let rate = |now: u64, before: u64| match seconds > 0.0 {
        true => now.saturating_sub(before) as f64 / seconds,
        false => 0.0,
    };
    let coordinator = shared.coordinator();
    let sources = plan.sources.iter().enumerate().map(|(i, s)| {
        let about = json!({
            "records_in": now.sources[i],
            "per_second": rate(now.sources[i], before.sources[i]),
            "lag": coordinator.lag(i),
            "watermark": time(coordinator.source_watermark(i)),
            "bad": m.sources[i].bad.load(Relaxed),
            "lost": coordinator.lost(i),
        });
        (s.name.clone(), about)
    });
    let sources: Map<String, Value> = sources.collect();
    drop(coordinator);
    let steps = plan.steps.iter().zip(&m.steps).map(|(s, m)| {
        let gauges = m.gauges();
        let about = json!({
            "rows_in": m.rows_in.load(Relaxed),
            "rows_out": m.rows_out.load(Relaxed),
            "late": gauges.late,
            "dead_letters": m.dead_letters.load(Relaxed),
            "keys": s.keys.is_some().then_some(gauges.keys),
            "evicted": gauges.evicted,
            "read_back": gauges.read_back,
            "forgotten": gauges.forgotten,
            "state_bytes": gauges.state_bytes,
        });
        (s.name.clone(), about)
    });
    let sinks = plan.sinks.iter().enumerate().map(|(i, s)| {
        let about = json!({
            "records_out": now.sinks[i],
            "per_second": rate(now.sinks[i], before.sinks[i]),
        });
        (s.name.clone(), about)
    });
    let state_bytes: usize = m.steps.iter().map(|s| s.gauges().state_bytes).sum();
    json!({
        "pipeline": plan.name,
        "at": timestamp::show(shared.clock.now()),
        "uptime_s": now.at.saturating_sub(started).as_secs_f64(),
        "workers": plan.host.workers,
        "epochs": m.epochs.load(Relaxed),
        "checkpoints": m.checkpoints.load(Relaxed),
        "checkpoint": {
            "number": shared.last_decided().number,
            "last_ms": m.checkpoint_micros.load(Relaxed) as f64 / 1e3,
        },
        "sources": sources,
        "steps": steps.collect::<Map<_, _>>(),
        "sinks": sinks.collect::<Map<_, _>>(),
        "dead_letters": m.dead_letters.load(Relaxed),
        "state_bytes": state_bytes,
        "state_disk_bytes": state_disk_bytes,
    })
}

/// RFC 3339; null before the first record, at the end of time and without event time.
fn time(watermark: Micros) -> Value {
    match watermark {
        NO_TIME | END_OF_TIME => Value::Null,
        watermark => timestamp::show(watermark).into(),
    }
}

/// Written beside and renamed: a reader never sees half of it. Not synced: it is told anew with the next checkpoint.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = path.with_file_name(beside);
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::{Driven, Driver};

    const START: &str = "2026-02-01T00:00:0";

    fn pipeline(dir: &Path, metrics: &str) -> PathBuf {
        let text = format!(
            "name = \"shop\"\n[host]\nstate = \"state\"\nmetrics = \"{metrics}\"\n\
             [sources.buys]\ngenerate = {{ kind = \"transactions\", per_second = 1000, count = 4000, seed = 1 }}\n\
             limit = {{ per_epoch = 500 }}\n\
             [steps.spent]\nfrom = \"buys\"\nkey = [\"user_id\"]\nwindow = {{ tumbling = \"1s\" }}\n\
             aggregate = {{ total = \"sum(amount)\" }}\n\
             [sinks.out]\nfrom = [\"spent\"]\nfile = {{ path = \"out.jsonl\" }}\n"
        );
        let path = dir.join("pipeline.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn read(path: &Path) -> Value {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn a_checkpoint_refreshes_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = pipeline(dir.path(), "output/deep/metrics.json");
        let metrics = dir.path().join("output/deep/metrics.json");
        let mut driver = Driver::open(&file, &[]).unwrap().unwrap();
        driver.epoch().unwrap();
        assert!(!metrics.exists(), "no checkpoint was decided yet");
        driver.advance(Duration::from_secs(2));
        driver.epoch().unwrap();
        let first = read(&metrics);
        assert_eq!(first["pipeline"], "shop");
        assert!(first["at"].as_str().unwrap().starts_with(START), "{first}");
        let records = first["sources"]["buys"]["records_in"].as_u64().unwrap();
        assert_eq!(first["sources"]["buys"]["per_second"], records as f64 / 2.0);
        assert!(first["sources"]["buys"]["lag"].is_u64(), "{first}");
        assert_eq!(first["checkpoint"]["number"], driver.checkpoint());
        assert_eq!(first["steps"]["spent"]["rows_in"], records);
        assert!(first["state_disk_bytes"].as_u64().unwrap() > 0);

        // Between two checkpoints event time has its turn.
        driver.epoch().unwrap();
        driver.advance(Duration::from_secs(4));
        driver.epoch().unwrap();
        let second = read(&metrics);
        let more = second["sources"]["buys"]["records_in"].as_u64().unwrap() - records;
        assert_eq!(second["sources"]["buys"]["per_second"], more as f64 / 4.0);
        while driver.epoch().unwrap() == Driven::On {}
        let last = read(&metrics);
        assert_eq!(last["sources"]["buys"]["records_in"], 4_000);
        assert_eq!(last["sources"]["buys"]["watermark"], Value::Null);
        assert_eq!(
            last["sinks"]["out"]["records_out"],
            last["steps"]["spent"]["rows_out"]
        );
        let beside: Vec<_> = std::fs::read_dir(metrics.parent().unwrap())
            .unwrap()
            .collect();
        assert_eq!(beside.len(), 1, "only the file itself stays");
    }

    #[test]
    fn a_file_that_cannot_be_written_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("taken"), "a file").unwrap();
        let file = pipeline(dir.path(), "taken/metrics.json");
        let mut driver = Driver::open(&file, &[]).unwrap().unwrap();
        driver.run_to_end().unwrap();
        assert!(dir.path().join("out.jsonl").exists());
    }
}
