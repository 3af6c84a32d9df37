//! What `demo` and `run` show every two seconds: the tables of the console sinks and one line on the whole. Pure: a status
//! and a text in, a text out; it knows no terminal and no clock.

use super::table;
use super::terminal::escape;
use crate::admin::{RunState, Status};
use crate::format::timestamp;
use crate::time::{END_OF_TIME, MICROS_PER_SECOND, Micros};

/// The lines of one picture, with a line end each. `tables` is what the console sink shows
/// ([`crate::sink::console::ConsoleSink::render`]); `width`: columns of the terminal, `None` cuts nothing.
pub fn render(status: &Status, tables: &str, width: Option<usize>) -> String {
    let mut out = String::new();
    if tables.is_empty() {
        out.push_str("no results yet\n");
    }
    for text in tables.lines().map(escape).chain([line(status)]) {
        out.push_str(&table::cut(&text, width));
        out.push('\n');
    }
    out
}

/// The one line on the whole.
fn line(status: &Status) -> String {
    let state = match &status.state {
        RunState::Running => String::new(),
        RunState::Finished => "finished · ".into(),
        RunState::Paused(reason) => format!("PAUSED: {} · ", escape(reason)),
        RunState::Restarting(reason) => format!("starting again: {} · ", escape(reason)),
    };
    let read: f64 = status.sources.iter().map(|s| s.per_second).sum();
    let written: f64 = status.sinks.iter().map(|s| s.per_second).sum();
    let lag = status
        .sources
        .iter()
        .filter_map(|s| s.lag)
        .reduce(|a, b| a + b);
    let watermark = status.sources.iter().map(|s| s.watermark).min().flatten();
    format!(
        "{state}in {read:.0}/s · out {written:.1}/s · lag {} · watermark {} · checkpoint {} ({:.1} s ago) · plugins {}",
        lag.map_or("-".into(), table::thousands),
        watermark.map_or("-".into(), time),
        status.checkpoint.number,
        status.checkpoint.age_ms as f64 / 1e3,
        plugins(status),
    )
}

fn plugins(status: &Status) -> String {
    let times: Vec<String> = status
        .steps
        .iter()
        .filter_map(|s| {
            Some(format!(
                "{} {:.0}",
                escape(&s.name),
                s.plugin.as_ref()?.ns_per_row
            ))
        })
        .collect();
    match times.is_empty() {
        true => "none".into(),
        false => format!("{} ns/row", times.join(", ")),
    }
}

/// What a demo did, when it ends.
pub fn summary(status: &Status) -> String {
    let count = |n: u64, what: &str| format!("{} {what}", table::thousands(n));
    let sources = status
        .sources
        .iter()
        .map(|s| count(s.records_in, &escape(&s.name)));
    let steps = status
        .steps
        .iter()
        .map(|s| count(s.rows_out, &escape(&s.name)));
    format!(
        "ran {} with {} and {}\n  records in:   {}\n  rows out:     {}\n  dead letters: {}, late rows: {}\n",
        duration(status.uptime_s),
        some(status.workers as u64, "worker"),
        some(status.checkpoint.number, "checkpoint"),
        sources.collect::<Vec<_>>().join(", "),
        steps.collect::<Vec<_>>().join(", "),
        table::thousands(status.dead_letters),
        table::thousands(status.steps.iter().map(|s| s.late).sum()),
    ) + &lost(status)
}

/// A line for each source that has lost records.
fn lost(status: &Status) -> String {
    let sources = status.sources.iter().filter(|s| !s.lost.is_none());
    let line = |s: &crate::engine::control::SourceStatus| {
        format!("  lost:         {}: {}\n", escape(&s.name), s.lost)
    };
    sources.map(line).collect()
}

/// `1 worker`, `2 workers`
fn some(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {what}{plural}", table::thousands(n))
}

/// Event time to the second, in UTC.
pub fn time(at: Micros) -> String {
    if at >= END_OF_TIME {
        return "end of time".into();
    }
    let mut text = Vec::new();
    timestamp::write(at - at.rem_euclid(MICROS_PER_SECOND), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// `62.5` seconds as `1m 2s`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3_600 => format!("{}m {}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d {}h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    const TABLES: &str = "sessions\n  user_id  events\n  -------  ------\n  u1           12\n";

    #[test]
    fn tables_and_the_line() {
        insta::assert_snapshot!(render(&sample::status(), TABLES, None), @r"
        sessions
          user_id  events
          -------  ------
          u1           12
        in 1015/s · out 1.5/s · lag 120 · watermark - · checkpoint 61 (0.4 s ago) · plugins sessions 22 ns/row
        ");
    }

    #[test]
    fn nothing_yet() {
        let text = render(&sample::status(), "", None);
        assert!(text.starts_with("no results yet\nin 1015/s"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let tables = format!("sessions\n  {}\n", "x".repeat(500));
        for width in [1, 20, 80, 200] {
            let text = render(&sample::status(), &tables, Some(width));
            let widest = text.lines().map(|l| l.chars().count()).max();
            assert_eq!(widest, Some(width), "{text}");
        }
    }

    #[test]
    fn data_cannot_reach_the_terminal() {
        let mut status = sample::status();
        status.state = RunState::Paused("\x1b[31mred".into());
        let text = render(&status, "\x1b]0;owned\x07\n", None);
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
    }

    #[test]
    fn the_end() {
        insta::assert_snapshot!(summary(&sample::status()), @r"
        ran 1m 2s with 2 workers and 61 checkpoints
          records in:   48,000 clicks, 12,000 transactions
          rows out:     5,100 sessions, 48,000 valid
          dead letters: 4, late rows: 2
          lost:         clicks: 41 records and an unknown number of records, once
        ");
    }

    #[test]
    fn times_and_durations() {
        for (at, expected) in [
            (1_767_225_600_999_999, "2026-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (END_OF_TIME, "end of time"),
        ] {
            assert_eq!(time(at), expected);
        }
        for (seconds, expected) in [
            (0.0, "0.0s"),
            (59.94, "59.9s"),
            (62.5, "1m 2s"),
            (7_260.0, "2h 1m"),
            (180_000.0, "2d 2h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
