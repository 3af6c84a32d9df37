//! Points in event time and spans between them, as the microseconds that cross the boundary.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::ops::{Add, Sub};

/// A point in time: microseconds since 1970-01-01 00:00 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A span of time in microseconds. Read from configuration as text: `"30m"`, `"1h30m"`, `"200ms"`, `"2d"`.
///
/// ```
/// use tidemill_guest::Duration;
/// assert_eq!(Duration::parse("1h30m").unwrap(), Duration::from_secs(5400));
/// assert!(Duration::parse("30").unwrap_err().contains("unit"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub i64);

/// Units with their microseconds. Longer names stand before those that begin them.
const UNITS: [(&str, i64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

impl Timestamp {
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub const fn micros(self) -> i64 {
        self.0
    }
}

impl Duration {
    /// The shortest span that event time can tell apart.
    pub const MICROSECOND: Duration = Duration(1);

    /// A span of whole seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Duration(seconds * 1_000_000)
    }

    /// A span of whole milliseconds.
    pub const fn from_millis(milliseconds: i64) -> Self {
        Duration(milliseconds * 1_000)
    }

    /// The span in microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Reads whole numbers, each with its unit (`d h m s ms us`), one after the other.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "`{text}` is no duration: write numbers with units, as `30m` or `1h30m` (d h m s ms us)"
            )
        };
        let mut rest = text.trim();
        let mut total = 0i64;
        if rest.is_empty() {
            return Err(wanted());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let end = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let (_, micros) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(wanted)?;
            let number: i64 = number.parse().map_err(|_| wanted())?;
            total = number
                .checked_mul(*micros)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(|| format!("`{text}` is longer than 292,000 years"))?;
            rest = after.trim_start();
        }
        Ok(Duration(total))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Duration::parse(&text).map_err(D::Error::custom)
    }
}

impl fmt::Display for Duration {
    /// In the largest unit that divides it, so that what was written can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().rev().find(|(_, micros)| self.0 % micros == 0);
        let (name, micros) = unit.unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.0 / micros)
    }
}

// Saturating: a point beyond the end of time is the end of time, not a trap on a wild timestamp.
impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(span.0))
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, earlier: Timestamp) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, micros) in [
            ("30m", 1_800_000_000),
            ("5s", 5_000_000),
            ("1h30m", 5_400_000_000),
            ("200ms", 200_000),
            ("2d", 172_800_000_000),
            ("0s", 0),
            (" 1h 5us ", 3_600_000_005),
        ] {
            assert_eq!(Duration::parse(text), Ok(Duration(micros)), "{text}");
        }
        for text in ["", "30", "m", "1.5h", "-5s", "5 parsecs", "9999999999999d"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_can_be_read() {
        for text in ["30m", "90s", "200ms", "2d", "7us"] {
            assert_eq!(Duration::parse(text).unwrap().to_string(), text);
        }
    }
}
