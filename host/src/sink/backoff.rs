//! How long to wait before a remote system is asked again, and how often to speak of it.
//!
//! Not a timer: whoever waits does so where `stop` wakes it. Invariant: waits grow up to [`RETRY_MS_MAX`], and no two
//! clients that failed together come back together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{RETRY_MS_FIRST, RETRY_MS_MAX};

/// A system that comes and goes is not spoken of more often than this.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The waits between tries that fail one after the other.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub fn next(&mut self) -> Duration {
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        let wait = wait(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// After `failures` earlier ones: between half of the doubled wait and all of it.
fn wait(failures: u32, random: u32) -> Duration {
    let doubled = RETRY_MS_FIRST.saturating_mul(1 << failures.min(16));
    let full = Duration::from_millis(doubled.min(RETRY_MS_MAX));
    full.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// Says once that a system is away, and once more that it is back.
#[derive(Debug)]
pub(super) struct Outage {
    place: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    said: Option<Instant>,
    was_said: bool,
}

impl Outage {
    pub fn new(place: String) -> Self {
        Self {
            place,
            state: Mutex::default(),
        }
    }

    /// A try failed, and another will follow.
    pub fn lost(&self, cause: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since.get_or_insert_with(Instant::now);
        if state.said.is_some_and(|s| s.elapsed() < SAY_AGAIN_AFTER) {
            return;
        }
        state.said = Some(Instant::now());
        state.was_said = true;
        tracing::warn!("{}: {cause}; trying again until it succeeds", self.place);
    }

    /// A try succeeded.
    pub fn over(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = state.since.take() else {
            return;
        };
        if std::mem::take(&mut state.was_said) {
            let away = since.elapsed().as_secs_f32();
            tracing::info!("{}: works again after {away:.1} s", self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_differ() {
        let cases = [
            (0, 0, RETRY_MS_FIRST / 2),
            (0, u32::MAX, RETRY_MS_FIRST),
            (1, u32::MAX, 2 * RETRY_MS_FIRST),
            (3, 0, 4 * RETRY_MS_FIRST),
            (40, u32::MAX, RETRY_MS_MAX),
            (u32::MAX, 0, RETRY_MS_MAX / 2),
        ];
        for (failures, random, millis) in cases {
            let expected = Duration::from_millis(millis);
            assert_eq!(wait(failures, random), expected, "{failures} {random}");
        }
    }
}
