//! The small notations of a pipeline file: ids, durations, sizes, shares, times; and the nearest known name.
//!
//! Text in, value or a sentence out; knows no positions.

use std::time::Duration;

use crate::time::{MICROS_PER_MS, MICROS_PER_SECOND, Micros};

const MINUTE: Micros = 60 * MICROS_PER_SECOND;
const UNITS: [(&str, Micros); 6] = [
    ("us", 1),
    ("ms", MICROS_PER_MS),
    ("s", MICROS_PER_SECOND),
    ("m", MINUTE),
    ("h", 60 * MINUTE),
    ("d", 24 * 60 * MINUTE),
];
/// Longest duration that is taken: 100 years. Sums with event times stay far from overflow.
const DURATION_MAX: Micros = 36_525 * 24 * 60 * MINUTE;

/// `[a-z][a-z0-9_]*`
pub fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
}

/// `[a-z0-9-]+`
pub fn is_pipeline_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
}

/// The id that was probably meant.
pub fn id_like(text: &str) -> Option<String> {
    let id: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .skip_while(|c| !c.is_ascii_lowercase())
        .collect();
    (!id.is_empty()).then_some(id)
}

/// `"500ms"`, `"30s"`, `"5m"`, `"2h"`, `"30d"` in microseconds.
pub fn duration(text: &str) -> Result<Micros, String> {
    let (number, unit) = split_unit(text);
    let count: i64 = whole(number)?;
    let &(_, micros) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| match unit {
            "" => "a duration needs a unit: ms, s, m, h or d".to_string(),
            unit => format!("`{unit}` is no unit of time; there are us, ms, s, m, h and d"),
        })?;
    count
        .checked_mul(micros)
        .filter(|&m| m <= DURATION_MAX)
        .ok_or_else(|| "durations end at 100 years".to_string())
}

/// The shortest notation of a duration: `5m`, `1500ms`.
pub fn show_duration(micros: Micros) -> String {
    let fits = |(_, unit): &&(&str, Micros)| micros % unit == 0;
    match UNITS.iter().rev().find(fits) {
        Some((name, unit)) if micros != 0 => format!("{}{name}", micros / unit),
        _ => "0s".into(),
    }
}

/// A [`duration`] for clocks.
pub fn clock(micros: Micros) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// `"64MB"` in bytes; KB, MB and GB are powers of 1,024, as memory is counted.
pub fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let count: i64 = whole(number)?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "B" => 0,
        "KB" | "KIB" => 10,
        "MB" | "MIB" => 20,
        "GB" | "GIB" => 30,
        "" => return Err("a size needs a unit: B, KB, MB or GB".into()),
        _ => {
            return Err(format!(
                "`{unit}` is no unit of size; there are B, KB, MB and GB"
            ));
        }
    };
    usize::try_from(count)
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|&n| n <= 1 << 44)
        .ok_or_else(|| "sizes end at 16,384 GB".to_string())
}

/// `"10%"` as 0.1.
pub fn share(text: &str) -> Result<f64, String> {
    let number = text
        .strip_suffix('%')
        .ok_or("a share ends in `%`")?
        .trim_end();
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let percent: f64 = number
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| format!("`{number}` is no number"))?;
    if percent > 100.0 {
        return Err("a share is at most 100%".into());
    }
    Ok(percent / 100.0)
}

/// An RFC 3339 time with any offset.
pub fn time(text: &str) -> Result<Micros, String> {
    let wrong = || "a time looks like 2026-01-01T00:00:00Z".to_string();
    let parsed: toml_edit::Datetime = text.parse().map_err(|_| wrong())?;
    let (Some(date), Some(time), Some(offset)) = (parsed.date, parsed.time, parsed.offset) else {
        return Err(format!("{}, with date, time and offset", wrong()));
    };
    let minutes = match offset {
        toml_edit::Offset::Z => 0,
        toml_edit::Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_from_civil(
        i64::from(date.year),
        i64::from(date.month),
        i64::from(date.day),
    );
    let clock = i64::from(time.hour) * 3_600
        + i64::from(time.minute) * 60
        + i64::from(time.second.unwrap_or(0));
    let seconds = days * 86_400 + clock - minutes * 60;
    Ok(seconds * MICROS_PER_SECOND + i64::from(time.nanosecond.unwrap_or(0) / 1_000))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years are counted from March, so that the leap day is the last of a year; 400 years are 146,097 days.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn split_unit(text: &str) -> (&str, &str) {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

fn whole(number: &str) -> Result<i64, String> {
    if number.is_empty() {
        return Err("it must start with a whole number".into());
    }
    number
        .parse()
        .map_err(|_| format!("{number} is too large a number"))
}

/// The candidate that was probably meant by `name`.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .filter(|c| *c != name)
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= (c.chars().count().max(3) / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// "did you mean `x`?", or what there is.
pub fn suggestion<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    what: &str,
) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(near) = nearest(name, candidates.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    if candidates.is_empty() {
        return Some(format!("there are no {what}"));
    }
    let list: Vec<_> = candidates.iter().take(12).copied().collect();
    let more = if candidates.len() > 12 { ", ..." } else { "" };
    Some(format!("{what}: {}{more}", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(500_000));
        assert_eq!(duration("0s"), Ok(0));
        assert_eq!(duration("30d"), Ok(30 * 86_400 * MICROS_PER_SECOND));
        for wrong in [
            "",
            "5",
            "m",
            "5 weeks",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "36526d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_shares() {
        assert_eq!(size("64MB"), Ok(64 << 20));
        assert_eq!(size("1 KiB"), Ok(1_024));
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(share("0.5%"), Ok(0.005));
        for wrong in ["64", "MB", "9999999GB", "1PB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["10", "%", "101%", "-1%", "NaN%", "inf%", "1e1%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_keep_their_offset() {
        assert_eq!(time("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(time("2026-01-01T00:00:00Z"), Ok(1_767_225_600_000_000));
        assert_eq!(
            time("2024-02-29T12:30:00.25+02:00"),
            Ok(1_709_202_600_250_000)
        );
        assert_eq!(time("1969-12-31T23:59:59Z"), Ok(-1_000_000));
        for wrong in [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "12:00:00",
            "yesterday",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nearest_is_near() {
        let names = ["lateness", "field", "idle_after"];
        assert_eq!(nearest("latenes", names), Some("lateness"));
        assert_eq!(nearest("Field", names), Some("field"));
        assert_eq!(nearest("window", names), None);
    }
}
