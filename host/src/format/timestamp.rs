//! RFC 3339 text to microseconds or days, and back. Knows neither records nor columns.
//!
//! Invariant: what [`write()`] makes of a time within the years 0000 to 9999, [`parse`] reads as the same time.

use crate::time::{MICROS_PER_SECOND, Micros};

const SECONDS_PER_DAY: i64 = 86_400;

/// Reads an RFC 3339 date and time with any offset, for example `2026-01-01T00:00:00.5+02:00`. `T` may also be `t` or
/// a space. Digits beyond microseconds are cut off. The leap second 23:59:60 UTC is read as the next day's first
/// second, as Unix time counts it. `None`: not such a text, or no such day.
pub fn parse(text: &[u8]) -> Option<Micros> {
    if text.len() < 20 || !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    if text[4] != b'-' || text[7] != b'-' || text[13] != b':' || text[16] != b':' {
        return None;
    }
    let year = two_digits(text, 0)? * 100 + two_digits(text, 2)?;
    let (month, day) = (two_digits(text, 5)?, two_digits(text, 8)?);
    let (hour, minute) = (two_digits(text, 11)?, two_digits(text, 14)?);
    let second = two_digits(text, 17)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = fraction_micros(&text[19..])?;
    let offset = offset_seconds(rest)?;
    let of_day = (hour * 60 + minute) * 60 + second;
    let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY + of_day - offset;
    if second == 60 && seconds.rem_euclid(SECONDS_PER_DAY) != 0 {
        return None;
    }
    Some(seconds * MICROS_PER_SECOND + fraction)
}

/// As text, for messages.
pub fn show(time: Micros) -> String {
    let mut text = Vec::new();
    write(time, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Appends `time` as RFC 3339 in UTC with `Z`, its fraction as short as it can be: none, 3 or 6 digits. Years outside
/// 0000 to 9999, which RFC 3339 cannot say, get a sign and as many digits as they need.
pub fn write(time: Micros, out: &mut Vec<u8>) {
    let seconds = time.div_euclid(MICROS_PER_SECOND);
    let micros = time.rem_euclid(MICROS_PER_SECOND) as u32;
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let of_day = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
    if (0..=9999).contains(&year) {
        let year = year as u32;
        let mut text = *b"0000-00-00T00:00:00";
        put_two(&mut text, 0, year / 100);
        put_two(&mut text, 2, year % 100);
        put_two(&mut text, 5, month);
        put_two(&mut text, 8, day);
        put_two(&mut text, 11, of_day / 3600);
        put_two(&mut text, 14, of_day / 60 % 60);
        put_two(&mut text, 17, of_day % 60);
        out.extend_from_slice(&text);
    } else {
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let text = format!("{year:+05}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        out.extend_from_slice(text.as_bytes());
    }
    write_fraction(micros, out);
    out.push(b'Z');
}

/// Reads a full date of RFC 3339, `2026-01-31`, as days since 1970-01-01. `None`: not such a text, or no such day.
pub fn parse_date(text: &[u8]) -> Option<i32> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = two_digits(text, 0)? * 100 + two_digits(text, 2)?;
    let (month, day) = (two_digits(text, 5)?, two_digits(text, 8)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    i32::try_from(days_from_civil(year, month, day)).ok()
}

/// Appends the day `days` after 1970-01-01 as `2026-01-31`. Years outside 0000 to 9999 get a sign and as many digits as
/// they need.
pub fn write_date(days: i32, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(i64::from(days));
    let text = match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:+05}-{month:02}-{day:02}"),
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_fraction(micros: u32, out: &mut Vec<u8>) {
    if micros == 0 {
        return;
    }
    let mut text = *b".000000";
    text[1] = b'0' + (micros / 100_000) as u8;
    put_two(&mut text, 2, micros / 1_000 % 100);
    text[4] = b'0' + (micros / 100 % 10) as u8;
    put_two(&mut text, 5, micros % 100);
    let digits = if micros.is_multiple_of(1_000) { 3 } else { 6 };
    out.extend_from_slice(&text[..=digits]);
}

#[inline]
fn put_two(text: &mut [u8], at: usize, value: u32) {
    text[at] = b'0' + (value / 10) as u8;
    text[at + 1] = b'0' + (value % 10) as u8;
}

#[inline]
fn two_digits(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

/// Microseconds of `.123...`, if it is there, and what follows.
#[inline]
fn fraction_micros(text: &[u8]) -> Option<(i64, &[u8])> {
    if text.first() != Some(&b'.') {
        return Some((0, text));
    }
    let digits = text[1..].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let mut micros = 0;
    for i in 0..6 {
        let digit = if i < digits { text[1 + i] - b'0' } else { 0 };
        micros = micros * 10 + i64::from(digit);
    }
    Some((micros, &text[1 + digits..]))
}

/// Seconds east of UTC of `Z` or `+hh:mm`.
#[inline]
fn offset_seconds(text: &[u8]) -> Option<i64> {
    if matches!(text, b"Z" | b"z") {
        return Some(0);
    }
    if text.len() != 6 || text[3] != b':' {
        return None;
    }
    let (hours, minutes) = (two_digits(text, 1)?, two_digits(text, 4)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    match text[0] {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

#[inline]
fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
#[inline]
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = (if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    }) as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(time: Micros) -> String {
        let mut out = Vec::new();
        write(time, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reads_what_rfc_3339_allows() {
        let table: &[(&str, Micros)] = &[
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01 00:00:00Z", 0),
            ("1970-01-01T01:30:00+01:30", 0),
            ("1969-12-31T23:00:00-01:00", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2026-01-01T00:00:00.123Z", 1_767_225_600_123_000),
            ("2026-01-01T00:00:00.1234567Z", 1_767_225_600_123_456),
            ("2026-01-01T00:00:00.123456789Z", 1_767_225_600_123_456),
            ("2026-01-01T00:00:00.5+00:00", 1_767_225_600_500_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("2017-01-01T00:59:60.25+01:00", 1_483_228_800_250_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ];
        for (input, expected) in table {
            assert_eq!(parse(input.as_bytes()), Some(*expected), "{input}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        let table = [
            "",
            "yesterday",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00Z ",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+01",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00*01:00",
            "2026/01/01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01X00:00:00Z",
        ];
        for input in table {
            assert_eq!(parse(input.as_bytes()), None, "{input}");
        }
    }

    #[test]
    fn writes_as_few_digits_as_needed() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_767_225_600_120_000, "2026-01-01T00:00:00.120Z"),
            (1_767_225_600_000_100, "2026-01-01T00:00:00.000100Z"),
            (i64::MAX, "+294247-01-10T04:00:54.775807Z"),
            (i64::MIN, "-290308-12-21T19:59:05.224192Z"),
        ];
        for (time, expected) in table {
            assert_eq!(text(time), expected);
        }
    }

    #[test]
    fn dates_are_days_of_the_calendar() {
        let table = [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2024-02-29", 19_782),
            ("2026-01-31", 20_484),
            ("0000-01-01", -719_528),
            ("9999-12-31", 2_932_896),
        ];
        for (text, days) in table {
            assert_eq!(parse_date(text.as_bytes()), Some(days), "{text}");
            let mut out = Vec::new();
            write_date(days, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        for wrong in [
            "",
            "2026-1-31",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-00",
            "2026-01-31T00:00:00Z",
            "2026/01/31",
            "20260131  ",
            "+026-01-01",
        ] {
            assert_eq!(parse_date(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(time in -62_167_219_200_000_000i64..=253_402_300_799_999_999) {
            prop_assert_eq!(parse(text(time).as_bytes()), Some(time));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9TZ:. ]{0,40}") {
            let _ = parse(text.as_bytes());
        }
    }
}
