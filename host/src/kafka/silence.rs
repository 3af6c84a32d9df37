//! Partitions of which nothing is heard: when to ask whether there is something to hear.
//!
//! Asks nothing itself. A record may have come this moment, so one answer proves nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How often it is asked. A record that is there and was not given for so long was forgotten.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Partitions asked for at a time, and how long each may hold up a worker.
const ASKED_AT_A_TIME: usize = 2;
pub(super) const ASK_WAIT: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Silence {
    asked: Instant,
    /// Of the partitions that are read, the first to ask for next.
    next: usize,
    /// By partition, the offset that had a record when it was asked for last.
    waiting: HashMap<u32, i64>,
}

impl Silence {
    pub fn new() -> Self {
        Self {
            asked: Instant::now(),
            next: 0,
            waiting: HashMap::new(),
        }
    }

    /// Whether to ask now; then not again for a while.
    pub fn is_due(&mut self) -> bool {
        let due = self.asked.elapsed() >= ASK_EVERY;
        if due {
            self.asked = Instant::now();
        }
        due
    }

    /// A partition was not read for a while: what was heard of it says nothing any more.
    pub fn forget(&mut self, partition: u32) {
        self.waiting.remove(&partition);
    }

    /// So it is with all of them, while no broker answers.
    pub fn forget_all(&mut self) {
        self.waiting.clear();
    }

    /// Which of `count` partitions to ask for now; all have their turn.
    pub fn turn(&mut self, count: usize) -> Range<usize> {
        let first = if self.next < count { self.next } else { 0 };
        let end = (first + ASKED_AT_A_TIME).min(count);
        self.next = end;
        first..end
    }

    /// A partition was asked for: at which offset a record `waits`, if one does. True if the same one waited before.
    pub fn heard_of(&mut self, partition: u32, waits: Option<i64>) -> bool {
        match waits {
            Some(offset) => self.waiting.insert(partition, offset) == Some(offset),
            None => {
                self.waiting.remove(&partition);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waits_twice_is_not_given() {
        let mut silence = Silence::new();
        assert!(!silence.heard_of(1, Some(7)));
        assert!(!silence.heard_of(2, Some(7)), "another partition");
        assert!(!silence.heard_of(1, Some(8)), "it was given");
        assert!(!silence.heard_of(1, None), "it was given");
        assert!(!silence.heard_of(1, Some(8)));
        assert!(silence.heard_of(1, Some(8)));
        silence.forget(1);
        assert!(!silence.heard_of(1, Some(8)), "it was held");
        silence.forget_all();
        assert!(!silence.heard_of(1, Some(8)), "no broker answered");
    }

    #[test]
    fn all_partitions_have_their_turn() {
        let mut silence = Silence::new();
        let turns: Vec<Range<usize>> = (0..4).map(|_| silence.turn(5)).collect();
        assert_eq!(turns, [0..2, 2..4, 4..5, 0..2]);
        assert_eq!(silence.turn(0), 0..0);
        assert_eq!(silence.turn(1), 0..1);
    }
}
