//! Event time as numbers: microseconds since 1970-01-01 UTC, and the few values with a meaning of their own.
//!
//! Knows no clock: what time it is comes in as an argument.

/// Event time, microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// No alarm is set. Greater than every time that can occur.
pub const NO_ALARM: Micros = i64::MAX;

/// The watermark after a bounded run's last record: every window, join and alarm below it fires.
pub const END_OF_TIME: Micros = i64::MAX - 1;

/// The watermark before the first record, and the event time of rows of a source that has none.
pub const NO_TIME: Micros = i64::MIN;

pub const MICROS_PER_MS: Micros = 1_000;
pub const MICROS_PER_SECOND: Micros = 1_000_000;
