//! What an instance's calls cost, counted and logged, beyond the life of any one memory of the plugin.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, trace, warn};

use super::Histogram;
use super::guest::{Guest, Noted};
use super::limits::{Line, LineRate};
use super::wire::Level;

pub struct Meter {
    step: String,
    /// Time in calls of the plugin.
    pub spent: Duration,
    pub counters: BTreeMap<String, u64>,
    pub histograms: BTreeMap<String, Histogram>,
    /// What the last failed call noted: written only if its row turns out to be at fault.
    pub failed: Noted,
    rate: LineRate,
    /// Of the lines that the host writes of it: a plugin's flood does not hide them.
    told: LineRate,
}

impl Meter {
    pub fn new(step: String) -> Self {
        Self {
            step,
            spent: Duration::ZERO,
            counters: BTreeMap::new(),
            histograms: BTreeMap::new(),
            failed: Noted::default(),
            rate: LineRate::default(),
            told: LineRate::default(),
        }
    }

    /// Adds the counters and histograms of a call.
    pub fn count(&mut self, guest: &Guest, noted: &Noted) {
        for (name, n) in guest.counted(noted) {
            let sum = entry(&mut self.counters, name);
            *sum = sum.saturating_add(n);
        }
        for (name, recorded) in guest.recorded(noted) {
            entry(&mut self.histograms, name).merge(recorded);
        }
    }

    /// Writes the log lines of a call.
    pub fn write(&mut self, noted: Noted) {
        self.rate.add_dropped(noted.lines_dropped);
        if noted.lines.is_empty() {
            return;
        }
        let now = Instant::now();
        for (level, line) in noted.lines {
            if let Line::Write { dropped } = self.rate.line(now) {
                self.tell_dropped(dropped);
                self.write_line(level, &line);
            }
        }
    }

    /// Whether the host may write one more line of the plugin.
    pub fn may_tell(&mut self) -> bool {
        let Line::Write { dropped } = self.told.line(Instant::now()) else {
            return false;
        };
        self.tell_dropped(dropped);
        true
    }

    fn tell_dropped(&self, dropped: u64) {
        if dropped > 0 {
            let step = self.step.as_str();
            warn!(target: "plugin", step, "{dropped} log lines of the plugin were left out: too many a second");
        }
    }

    pub fn write_failed(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        self.write(failed);
    }

    fn write_line(&self, level: Level, line: &str) {
        let step = self.step.as_str();
        match level {
            Level::Trace => trace!(target: "plugin", step, "{line}"),
            Level::Debug => debug!(target: "plugin", step, "{line}"),
            Level::Info => info!(target: "plugin", step, "{line}"),
            Level::Warn => warn!(target: "plugin", step, "{line}"),
            Level::Error => error!(target: "plugin", step, "{line}"),
        }
    }
}

fn entry<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    // The name is there after the first call: no allocation a call.
    if !map.contains_key(name) {
        map.insert(name.to_string(), T::default());
    }
    map.get_mut(name).expect("it was just put there")
}
