//! What `demo` shows every two seconds: the latest sessions and anomalies and one line on the whole. A pure function of
//! a status and some rows; it knows no terminal and no clock.

use super::table::{self, Align};
use super::terminal::escape;
use crate::admin::{RunState, Status};
use crate::format::timestamp;
use crate::time::{END_OF_TIME, MICROS_PER_SECOND, Micros};

/// Rows of one console sink, latest last, as they would be printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// One picture.
#[derive(Debug)]
pub struct Frame<'a> {
    pub status: &'a Status,
    pub sessions: &'a Rows,
    pub anomalies: &'a Rows,
    /// Columns of the terminal; `None`: lines are not cut.
    pub width: Option<usize>,
}

/// Rows of each table that fit a small terminal.
const ROWS_MAX: usize = 6;
/// A cell longer than this is cut, so that one value does not push out the others.
const CELL_CHARS_MAX: usize = 32;

/// The lines of a frame, with a line end each.
pub fn render(frame: &Frame<'_>) -> String {
    let mut out = String::new();
    for (title, rows) in [("sessions", frame.sessions), ("anomalies", frame.anomalies)] {
        out.push_str(&section(title, rows, frame.width));
    }
    out.push_str(&table::cut(&line(frame.status), frame.width));
    out.push('\n');
    out
}

fn section(title: &str, rows: &Rows, width: Option<usize>) -> String {
    if rows.rows.is_empty() {
        return format!("latest {title}: none yet\n");
    }
    let names: Vec<String> = rows.columns.iter().map(|c| cell(c)).collect();
    let latest = &rows.rows[rows.rows.len().saturating_sub(ROWS_MAX)..];
    let latest: Vec<Vec<String>> =
        latest.iter().map(|row| row.iter().map(|c| cell(c)).collect()).collect();
    let head: Vec<(&str, Align)> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_str(), alignment(latest.iter().filter_map(|r| r.get(i)))))
        .collect();
    format!("latest {title}:\n{}", table::render(&head, &latest, width))
}

/// Numbers lean right.
fn alignment<'a>(mut cells: impl Iterator<Item = &'a String>) -> Align {
    match cells.all(|c| c.parse::<f64>().is_ok()) {
        true => Align::Right,
        false => Align::Left,
    }
}

fn cell(text: &str) -> String {
    table::cut(&escape(text), Some(CELL_CHARS_MAX))
}

/// The one line on the whole.
fn line(status: &Status) -> String {
    let state = match &status.state {
        RunState::Running => String::new(),
        RunState::Finished => "finished · ".into(),
        RunState::Paused(reason) => format!("PAUSED: {} · ", escape(reason)),
    };
    let read: f64 = status.sources.iter().map(|s| s.per_second).sum();
    let written: f64 = status.sinks.iter().map(|s| s.per_second).sum();
    let lag = status.sources.iter().filter_map(|s| s.lag).reduce(|a, b| a + b);
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
        .filter_map(|s| Some(format!("{} {:.0}", escape(&s.name), s.plugin.as_ref()?.ns_per_row)))
        .collect();
    match times.is_empty() {
        true => "none".into(),
        false => format!("{} ns/row", times.join(", ")),
    }
}

/// What a demo did, when it ends.
pub fn summary(status: &Status) -> String {
    let count = |n: u64, what: &str| format!("{} {what}", table::thousands(n));
    let sources = status.sources.iter().map(|s| count(s.records_in, &escape(&s.name)));
    let steps = status.steps.iter().map(|s| count(s.rows_out, &escape(&s.name)));
    format!(
        "ran {} with {} workers and {} checkpoints\n  records in:   {}\n  rows out:     {}\n  dead letters: {}, late rows: {}\n",
        duration(status.uptime_s),
        status.workers,
        table::thousands(status.checkpoint.number),
        sources.collect::<Vec<_>>().join(", "),
        steps.collect::<Vec<_>>().join(", "),
        table::thousands(status.dead_letters),
        table::thousands(status.steps.iter().map(|s| s.late).sum()),
    )
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

    fn rows(columns: &[&str], rows: &[&[&str]]) -> Rows {
        let owned = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect();
        Rows { columns: owned(columns), rows: rows.iter().map(|r| owned(r)).collect() }
    }

    fn picture(sessions: &Rows, anomalies: &Rows, width: Option<usize>) -> String {
        render(&Frame { status: &sample::status(), sessions, anomalies, width })
    }

    #[test]
    fn sessions_anomalies_and_the_line() {
        let sessions = rows(
            &["user_id", "events", "converted"],
            &[&["user-1", "12", "true"], &["user-22", "3", "false"]],
        );
        let anomalies = rows(&["user_id", "amount", "z_score"], &[&["user-1", "9100.5", "5.25"]]);
        insta::assert_snapshot!(picture(&sessions, &anomalies, None), @"");
    }

    #[test]
    fn nothing_yet() {
        let none = Rows::default();
        let text = picture(&none, &none, None);
        assert!(text.starts_with("latest sessions: none yet\nlatest anomalies: none yet\n"), "{text}");
    }

    #[test]
    fn only_the_latest_rows_and_no_line_wider_than_the_terminal() {
        let many: Vec<Vec<String>> =
            (0..20).map(|i| vec![format!("user-{i}"), "x".repeat(500)]).collect();
        let sessions = Rows { columns: vec!["user_id".into(), "note".into()], rows: many };
        for width in [1, 20, 40, 80, 200] {
            let text = picture(&sessions, &Rows::default(), Some(width));
            let widest = text.lines().skip(1).map(|l| l.chars().count()).max().unwrap();
            assert!(widest <= width.max(27), "{width}: {text}");
        }
        let text = picture(&sessions, &Rows::default(), Some(80));
        assert!(text.contains("user-19") && text.contains("user-14") && !text.contains("user-13 "));
    }

    #[test]
    fn data_cannot_reach_the_terminal() {
        let sessions = rows(&["\x1b[31muser"], &[&["\x1b]0;owned\x07"], &["a\nb"]]);
        let text = picture(&sessions, &Rows::default(), None);
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
        assert!(text.contains("a\\nb"), "{text}");
    }

    #[test]
    fn the_end() {
        insta::assert_snapshot!(summary(&sample::status()), @"");
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
        for (seconds, expected) in
            [(0.0, "0.0s"), (59.94, "59.9s"), (62.5, "1m 2s"), (7_260.0, "2h 1m"), (180_000.0, "2d 2h")]
        {
            assert_eq!(duration(seconds), expected);
        }
    }
}
