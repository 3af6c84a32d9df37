//! What a reader is not sure of: whether a topic is still there, whether it may be read. Says when to ask.
//!
//! Asks nothing itself. A broker that starts does not know its topics for a moment, and rights come and go, so one answer
//! proves nothing.

use std::time::{Duration, Instant};

/// While something is in doubt it is asked for this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long a probe may hold up a worker.
pub(super) const PROBE_WAIT: Duration = Duration::from_millis(50);
/// So many probes in a row must say that a topic is gone.
const GONE_AFTER_PROBES: u32 = 20;

/// The doubts of one reader; topics are by their index.
#[derive(Debug)]
pub(super) struct Doubts {
    probed: Instant,
    /// How many times in a row the topic was said to be unknown.
    unknown: u32,
    suspect: usize,
    /// Something of the topic was read, or its end.
    pub proven: Vec<bool>,
}

impl Doubts {
    /// Of `topics` topics, of which `first` is asked for if nothing else is in doubt.
    pub fn new(topics: usize, first: usize) -> Self {
        Self {
            probed: Instant::now(),
            unknown: 0,
            suspect: first,
            proven: vec![false; topics],
        }
    }

    /// The broker does not know the topic.
    pub fn unknown(&mut self, topic: usize) {
        self.unknown = self.unknown.max(1);
        self.suspect = topic;
    }

    /// A record of the topic came.
    pub fn read(&mut self, topic: usize) {
        if topic == self.suspect {
            self.unknown = 0;
        }
    }

    /// The topic to ask for now, if any: one that is unknown, or `denied`, or any while the broker is away (`down`).
    pub fn due(&mut self, down: bool, denied: Option<usize>) -> Option<usize> {
        let topic = match denied {
            Some(topic) if self.unknown == 0 => topic,
            None if self.unknown == 0 && !down => return None,
            _ => self.suspect,
        };
        if self.probed.elapsed() < PROBE_EVERY {
            return None;
        }
        self.probed = Instant::now();
        Some(topic)
    }

    /// What a probe of a topic was told: it is there, or not. True once it was told too often that there is none.
    pub fn answered(&mut self, topic: usize, known: bool) -> bool {
        if topic != self.suspect {
            return false;
        }
        self.unknown = if known { 0 } else { self.unknown + 1 };
        self.unknown > GONE_AFTER_PROBES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_gone_only_if_it_is_unknown_again_and_again() {
        let mut doubts = Doubts::new(2, 0);
        doubts.unknown(1);
        for _ in 1..GONE_AFTER_PROBES {
            assert!(!doubts.answered(1, false));
        }
        assert!(!doubts.answered(1, true));
        doubts.unknown(1);
        doubts.read(0);
        for _ in 1..GONE_AFTER_PROBES {
            assert!(!doubts.answered(1, false));
            assert!(!doubts.answered(0, false), "another one says nothing of it");
        }
        assert!(doubts.answered(1, false));
    }

    #[test]
    fn asks_only_when_in_doubt_and_not_too_often() {
        let mut doubts = Doubts::new(2, 0);
        let long_ago = Instant::now() - 2 * PROBE_EVERY;
        doubts.probed = long_ago;
        assert_eq!(doubts.due(false, None), None);
        assert_eq!(doubts.due(true, None), Some(0));
        assert_eq!(doubts.due(true, None), None, "it was asked just now");
        doubts.probed = long_ago;
        assert_eq!(doubts.due(false, Some(1)), Some(1));
        doubts.unknown(0);
        doubts.probed = long_ago;
        assert_eq!(doubts.due(false, Some(1)), Some(0), "the worse doubt first");
    }
}
