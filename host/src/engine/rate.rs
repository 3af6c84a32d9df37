//! A source's `limit.per_second`, shared by the workers that read it.
//!
//! Knows no clock: time comes in as an argument.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest silence that is made up for: more would let a burst through after a pause.
const BURST: Duration = Duration::from_millis(100);

/// A bucket of allowances that fills with time.
#[derive(Debug)]
pub struct RateLimit {
    per_second: Option<f64>,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    allowed: f64,
    filled: Duration,
}

impl RateLimit {
    /// `None`: no limit.
    pub fn new(per_second: Option<f64>, now: Duration) -> Self {
        Self {
            per_second,
            bucket: Mutex::new(Bucket {
                allowed: 0.0,
                filled: now,
            }),
        }
    }

    /// How many of `wanted` records may be taken now.
    pub fn allow(&self, wanted: usize, now: Duration) -> usize {
        let Some(rate) = self.per_second else {
            return wanted;
        };
        let mut b = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_sub(b.filled);
        b.filled = now;
        let full = (rate * BURST.as_secs_f64()).max(1.0);
        b.allowed = (b.allowed + rate * passed.as_secs_f64()).min(full);
        // What is allowed is taken at once, so that two workers do not take the same allowance.
        let granted = (b.allowed.floor().max(0.0) as usize).min(wanted);
        b.allowed -= granted as f64;
        granted
    }

    /// Gives back what was allowed and not taken.
    pub fn give_back(&self, records: usize) {
        if self.per_second.is_some() {
            self.bucket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .allowed += records as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_any_epochs() {
        for step_ms in [1u64, 7, 50] {
            let limit = RateLimit::new(Some(1_000.0), Duration::ZERO);
            let taken: usize = (1..=10_000 / step_ms)
                .map(|i| limit.allow(1_000, Duration::from_millis(i * step_ms)))
                .sum();
            assert!(
                (9_900..=10_000).contains(&taken),
                "{taken} records in 10 s in steps of {step_ms} ms"
            );
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let limit = RateLimit::new(Some(1_000.0), Duration::ZERO);
        assert_eq!(limit.allow(5_000, Duration::from_secs(60)), 100);
    }

    #[test]
    fn what_is_not_taken_is_not_lost() {
        let limit = RateLimit::new(Some(1_000.0), Duration::ZERO);
        assert_eq!(limit.allow(50, Duration::from_millis(50)), 50);
        limit.give_back(50);
        assert_eq!(limit.allow(50, Duration::from_millis(50)), 50);
    }
}
