//! The engine's only view of time that passes: passed in, so that a test can hold it in its hand.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::Micros;

/// Wall and monotonic time.
pub trait Clock: Send + Sync {
    /// Wall time: judges `max_ahead` and fires processing-time alarms.
    fn now(&self) -> Micros;
    /// Time since some fixed moment, never going back: checkpoints, idleness, rates.
    fn elapsed(&self) -> Duration;
    /// Lets `time` pass while there is nothing to do.
    fn wait(&self, time: Duration);
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A clock that stands still until it is moved; waiting moves it.
#[derive(Debug)]
pub struct ManualClock {
    start: Micros,
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that shows `start` and has not run yet.
    pub fn new(start: Micros) -> Self {
        Self {
            start,
            elapsed: Mutex::default(),
        }
    }

    pub fn advance(&self, time: Duration) {
        *self
            .elapsed
            .lock()
            .expect("no panic while the clock is set") += time;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.start + self.elapsed().as_micros() as Micros
    }

    fn elapsed(&self) -> Duration {
        *self
            .elapsed
            .lock()
            .expect("no panic while the clock is set")
    }

    fn wait(&self, time: Duration) {
        self.advance(time);
    }
}
