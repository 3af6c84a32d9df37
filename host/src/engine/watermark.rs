//! Event time of sources: watermarks from the times seen in their partitions.
//!
//! Numbers only: no records, no I/O, no clock. Invariant: a watermark never goes back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::{END_OF_TIME, Micros, NO_TIME};

/// How a run ends, as far as event time is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For ever: a silent partition becomes idle.
    Streaming,
    /// To the ends found at start: a finished partition counts as the end of time and idleness is off.
    UntilEnd,
    /// To the ends, and the next run goes on: a finished partition holds the watermark where its last rows left it.
    KeepOpen,
}

/// Event time of one source.
#[derive(Debug, Clone)]
pub struct SourceTime {
    lateness: Micros,
    idle_after: Duration,
    partitions: BTreeMap<u32, PartitionTime>,
    watermark: Micros,
}

#[derive(Debug, Clone, Copy)]
struct PartitionTime {
    /// Highest event time seen.
    highest: Micros,
    /// When a valid event time was last seen, on the engine's monotonic clock.
    heard: Duration,
    caught_up: bool,
    finished: bool,
}

impl SourceTime {
    /// A source without event time has no watermark until its end.
    pub fn new(lateness: Micros, idle_after: Duration) -> Self {
        Self {
            lateness,
            idle_after,
            partitions: BTreeMap::new(),
            watermark: NO_TIME,
        }
    }

    /// Adds a partition; `highest` and the watermark come from a checkpoint, or are [`NO_TIME`].
    pub fn add(&mut self, partition: u32, highest: Micros, now: Duration) {
        let time = PartitionTime {
            highest,
            heard: now,
            caught_up: false,
            finished: false,
        };
        self.partitions.insert(partition, time);
    }

    /// Goes on at the watermark of a checkpoint.
    pub fn restore(&mut self, watermark: Micros) {
        self.watermark = self.watermark.max(watermark);
    }

    /// What an epoch took from `partition`: the highest valid event time in it, if any.
    pub fn observe(
        &mut self,
        partition: u32,
        highest: Option<Micros>,
        caught_up: bool,
        finished: bool,
        now: Duration,
    ) {
        let Some(p) = self.partitions.get_mut(&partition) else {
            return;
        };
        if let Some(time) = highest {
            p.highest = p.highest.max(time);
            p.heard = now;
        }
        p.caught_up = caught_up;
        p.finished = finished;
    }

    /// The source's watermark now.
    pub fn advance(&mut self, mode: Mode, now: Duration) -> Micros {
        let active = self
            .partitions
            .values()
            .filter(|p| !self.is_idle(p, mode, now));
        let next = match active.map(|p| self.partition_watermark(p, mode)).min() {
            Some(least) => least,
            // All are idle: nobody is left to wait for, so the furthest counts.
            None => self
                .partitions
                .values()
                .map(|p| self.partition_watermark(p, mode))
                .max()
                .unwrap_or(NO_TIME),
        };
        self.watermark = self.watermark.max(next);
        self.watermark
    }

    pub fn watermark(&self) -> Micros {
        self.watermark
    }

    pub fn lateness(&self) -> Micros {
        self.lateness
    }

    /// Each partition with the highest event time seen in it.
    pub fn partitions(&self) -> impl Iterator<Item = (u32, Micros)> + '_ {
        self.partitions.iter().map(|(&id, p)| (id, p.highest))
    }

    /// The highest event time seen by partition, for the checkpoint.
    pub fn highest(&self) -> BTreeMap<u32, Micros> {
        self.partitions
            .iter()
            .map(|(&id, p)| (id, p.highest))
            .collect()
    }

    /// Partitions that hold the watermark where it is: only they can move it.
    pub fn holding(&self, mode: Mode, now: Duration) -> Vec<u32> {
        let active = || {
            self.partitions
                .iter()
                .filter(|(_, p)| !self.is_idle(p, mode, now))
        };
        let least = active()
            .map(|(_, p)| self.partition_watermark(p, mode))
            .min();
        active()
            .filter(|(_, p)| Some(self.partition_watermark(p, mode)) == least)
            .map(|(&id, _)| id)
            .collect()
    }

    fn partition_watermark(&self, p: &PartitionTime, mode: Mode) -> Micros {
        let ended = p.finished
            && (mode == Mode::UntilEnd || mode == Mode::KeepOpen && p.highest == NO_TIME);
        if ended {
            END_OF_TIME
        } else if p.highest == NO_TIME {
            NO_TIME
        } else {
            p.highest.saturating_sub(self.lateness)
        }
    }

    /// Only a partition with nothing left to read can be idle: one that is slow, paused or rate limited never is.
    fn is_idle(&self, p: &PartitionTime, mode: Mode, now: Duration) -> bool {
        mode == Mode::Streaming && p.caught_up && now.saturating_sub(p.heard) >= self.idle_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn source(partitions: u32) -> SourceTime {
        let mut s = SourceTime::new(5, 30 * S);
        for id in 0..partitions {
            s.add(id, NO_TIME, Duration::ZERO);
        }
        s
    }

    #[test]
    fn the_slowest_partition_leads() {
        let mut s = source(2);
        s.observe(0, Some(100), false, false, S);
        assert_eq!(
            s.advance(Mode::Streaming, S),
            NO_TIME,
            "partition 1 has shown no time yet"
        );
        s.observe(1, Some(50), false, false, S);
        assert_eq!(s.advance(Mode::Streaming, S), 45);
        assert_eq!(s.holding(Mode::Streaming, S), [1]);
        s.observe(1, Some(40), false, false, S);
        assert_eq!(s.advance(Mode::Streaming, S), 45, "it never goes back");
    }

    #[test]
    fn a_backlogged_partition_is_never_idle() {
        let mut s = source(2);
        s.observe(0, Some(100), true, false, S);
        s.observe(1, None, false, false, S);
        assert_eq!(s.advance(Mode::Streaming, 1_000 * S), NO_TIME);
        s.observe(1, None, true, false, 1_000 * S);
        assert_eq!(
            s.advance(Mode::Streaming, 1_000 * S),
            95,
            "caught up and silent: idle"
        );
        s.observe(1, Some(60), true, false, 1_000 * S);
        assert_eq!(s.advance(Mode::Streaming, 1_001 * S), 95);
    }

    #[test]
    fn bad_records_are_silence() {
        let mut s = source(2);
        s.observe(0, Some(100), true, false, 40 * S);
        s.observe(1, None, true, false, 40 * S);
        assert_eq!(
            s.advance(Mode::Streaming, 40 * S),
            95,
            "partition 1 gave no valid time for 40 s"
        );
    }

    #[test]
    fn a_finished_partition_ends_time_only_when_the_run_ends_there() {
        let mut s = source(2);
        s.observe(0, Some(100), true, true, S);
        s.observe(1, Some(70), true, false, S);
        assert_eq!(s.clone().advance(Mode::UntilEnd, 1_000 * S), 65);
        s.observe(1, None, true, true, S);
        assert_eq!(s.clone().advance(Mode::UntilEnd, S), END_OF_TIME);
        assert_eq!(s.advance(Mode::KeepOpen, S), 65);
    }

    #[test]
    fn all_idle_takes_the_furthest() {
        let mut s = source(2);
        s.observe(0, Some(100), true, false, S);
        s.observe(1, Some(50), true, false, S);
        assert_eq!(s.advance(Mode::Streaming, 100 * S), 95);
    }
}
