//! What the commands write, and what they may assume of where it goes.

use std::io::{self, IsTerminal, Write};

use super::Failure;

/// Writes `text` and a line end to stdout. A reader that went away ends the command quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    out.flush()?;
    Ok(())
}

/// `value` as JSON for programs to read.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.to_string()))?;
    print(&text)
}

/// A line on stderr that says what goes on; an empty one is left out.
pub fn progress(line: &str) {
    if line.is_empty() {
        return;
    }
    // Nobody reads it: go on all the same.
    let _ = writeln!(io::stderr(), "{line}");
}

/// The columns of the terminal on stdout; `None` if stdout is none.
pub fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, and `size` lives through the call.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    const USUAL: usize = 80;
    Some(if asked == 0 && size.ws_col > 0 {
        usize::from(size.ws_col)
    } else {
        USUAL
    })
}

pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// <https://no-color.org>: set and not empty means none.
pub fn wants_color(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// `text` with nothing in it that moves a cursor or changes a terminal's state.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if c.is_control() || is_direction(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Marks that reorder the text around them.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_lose_their_power() {
        for (text, expected) in [
            ("plain ü 漢", "plain ü 漢"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}txt", "\\u{202e}txt"),
            ("\0\u{7f}", "\\u{0}\\u{7f}"),
        ] {
            assert_eq!(escape(text), expected, "{text:?}");
        }
    }
}
