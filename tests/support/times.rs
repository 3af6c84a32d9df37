//! Times of the data as numbers, and windows over them, without the host's code.
//!
//! Every month has 31 days here: each data set lies in one such month or around a new year, where that is true.

use serde_json::Value;

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Milliseconds from some midnight, of a time as data and results write it: with three digits of a second or none.
pub fn millis(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| {
        text[range]
            .parse::<i64>()
            .expect("a timestamp as the data write it")
    };
    let days = (number(0..4) * 12 + number(5..7) - 1) * 31 + number(8..10) - 1;
    let seconds = number(11..13) * 3_600 + number(14..16) * 60 + number(17..19);
    let fraction = match &text[19..] {
        "Z" => 0,
        _ => number(20..23),
    };
    days * DAY + seconds * 1_000 + fraction
}

/// The opposite of [`millis`], as the host writes it: no fraction where there is none.
pub fn time(millis: i64) -> Value {
    let (days, seconds) = (millis.div_euclid(DAY), millis.rem_euclid(DAY) / 1_000);
    let (months, day) = (days / 31, days % 31 + 1);
    let (year, month) = (months / 12, months % 12 + 1);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = match millis.rem_euclid(1_000) {
        0 => String::new(),
        rest => format!(".{rest:03}"),
    };
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z").into()
}

/// The windows `[start, end)` of `size`, one every `every`, that hold `time`. Both divide a day.
pub fn windows(time: i64, size: i64, every: i64) -> impl Iterator<Item = (i64, i64)> {
    let last = time.div_euclid(every) * every;
    (0..size / every).map(move |i| (last - i * every, last - i * every + size))
}
