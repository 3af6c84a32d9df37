//! What is wrong with a pipeline file, in a form a person reads: message, place, the line itself, what to do.
//!
//! Knows no rules of the file. Invariant: rendering never panics and never shows a hidden part of a text.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::text::{Span, Texts};

/// Diagnostics that are shown; the rest are counted.
const SHOWN_MAX: usize = 100;
/// Characters of a line that are shown; a longer one is cut around the mistake.
const LINE_CHARS_MAX: usize = 160;

/// A mistake, or something odd, while the file is being read.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub span: Span,
    pub message: String,
    /// Stands beside the caret; may be empty.
    pub label: String,
    pub help: Option<String>,
    /// Another place that matters, of the same text: where the first of two stands.
    pub first: Option<Span>,
}

/// Everything found so far.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// All mistakes of a pipeline file at once, and what is odd in it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The mistakes, in the order of the file. Empty: the file can be run.
    pub diagnostics: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
    texts: Arc<Texts>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    pub place: Place,
    pub message: String,
    pub label: String,
    pub help: Option<String>,
    span: Span,
}

/// Where something stands. Line and column count from 1, a column is a character; `span` is in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub span: Range<usize>,
}

impl Findings {
    /// Adds a mistake; the rest of it is filled in through the returned finding.
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Finding {
        push(&mut self.errors, span, message.into())
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Finding {
        push(&mut self.warnings, span, message.into())
    }

    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }
}

fn push(list: &mut Vec<Finding>, span: Span, message: String) -> &mut Finding {
    list.push(Finding {
        span,
        message,
        label: String::new(),
        help: None,
        first: None,
    });
    list.last_mut().expect("one was just added")
}

impl Finding {
    pub fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Tells on which line the first of two stands.
    pub fn first(&mut self, span: Span) -> &mut Self {
        self.first = Some(span);
        self
    }

    /// Help if there is any to give.
    pub fn maybe_help(&mut self, help: Option<String>) -> &mut Self {
        self.help = help.or(self.help.take());
        self
    }
}

impl Report {
    pub fn new(texts: Arc<Texts>, findings: Findings) -> Self {
        let place = |list: Vec<Finding>| {
            let mut list: Vec<_> = list.into_iter().map(|f| diagnostic(&texts, f)).collect();
            list.sort_by(|a, b| {
                let place = |d: &Diagnostic| (d.span.text, d.span.start, d.span.end);
                (place(a), &a.message).cmp(&(place(b), &b.message))
            });
            list.dedup_by(|a, b| a.span == b.span && a.message == b.message);
            list
        };
        Self {
            diagnostics: place(findings.errors),
            warnings: place(findings.warnings),
            texts,
        }
    }

    /// The report as text, with terminal colours if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        let lists = [
            ("error", "1;31", &self.diagnostics),
            ("warning", "1;33", &self.warnings),
        ];
        for (word, code, list) in lists {
            for diagnostic in list.iter().take(SHOWN_MAX) {
                self.render_one(diagnostic, &paint(colour, code, word), colour, &mut out);
            }
            if list.len() > SHOWN_MAX {
                out += &format!("... and {} more\n\n", count(list.len() - SHOWN_MAX, word));
            }
        }
        out + &self.summary()
    }

    fn summary(&self) -> String {
        let file = self
            .texts
            .get(0)
            .map_or_else(String::new, |t| visible(&t.path.display().to_string()));
        match (self.diagnostics.len(), self.warnings.len()) {
            (0, 0) => format!("no mistakes in {file}"),
            (0, w) => format!("{} in {file}", count(w, "warning")),
            (e, 0) => format!("{} in {file}", count(e, "error")),
            (e, w) => format!(
                "{} and {} in {file}",
                count(e, "error"),
                count(w, "warning")
            ),
        }
    }

    fn render_one(&self, d: &Diagnostic, word: &str, colour: bool, out: &mut String) {
        let place = &d.place;
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let bar = paint(colour, "1;34", "|");
        let file = visible(&place.file.display().to_string());
        *out += &format!("{word}: {}\n", visible(&d.message));
        *out += &format!("{margin}--> {file}:{}:{}\n", place.line, place.column);
        // A file that could not be read has no line to show.
        if self
            .texts
            .get(d.span.text)
            .is_some_and(|t| !t.text.is_empty())
        {
            let (line, blank, carets) = self.excerpt(d.span);
            *out += &format!("{margin} {bar}\n{number} {bar} {line}\n");
            let label = visible(&d.label);
            let marks = paint(colour, "1;31", format!("{carets} {label}").trim_end());
            *out += &format!("{margin} {bar} {blank}{marks}\n");
        }
        if let Some(help) = &d.help {
            *out += &format!("{margin} = help: {}\n", visible(help));
        }
        out.push('\n');
    }

    /// The line of `span`, cut to a width that can be read; what stands before the carets; the carets.
    fn excerpt(&self, span: Span) -> (String, String, String) {
        let line = self.texts.line_range(span);
        let marked = self.texts.clamp(span);
        let text = self.texts.get(span.text).map_or("", |t| t.text.as_str());
        let chars: Vec<(usize, char)> = text[line.clone()]
            .char_indices()
            .map(|(i, c)| (line.start + i, c))
            .collect();
        let from = chars.iter().take_while(|(i, _)| *i < marked.start).count();
        let to = chars.iter().take_while(|(i, _)| *i < marked.end).count();
        // A line that is too long is shown from a little before the mistake.
        let first = if chars.len() > LINE_CHARS_MAX {
            from.saturating_sub(LINE_CHARS_MAX / 4)
        } else {
            0
        };
        let last = chars.len().min(first + LINE_CHARS_MAX);
        let show = |&(i, c): &(usize, char)| {
            if self.texts.is_hidden(span.text, i) {
                '*'
            } else {
                visible_char(c)
            }
        };
        let mut shown: String = chars[first..last].iter().map(show).collect();
        let mut blank = " ".repeat(from - first);
        if first > 0 {
            shown.insert_str(0, "...");
            blank += "   ";
        }
        if last < chars.len() {
            shown += "...";
        }
        let carets = "^".repeat(to.min(last).saturating_sub(from).max(1));
        (shown.trim_end().to_string(), blank, carets)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

fn diagnostic(texts: &Texts, finding: Finding) -> Diagnostic {
    let (line, column) = texts.line_column(finding.span);
    let file = texts
        .get(finding.span.text)
        .map_or_else(PathBuf::new, |t| t.path.clone());
    Diagnostic {
        place: Place {
            file,
            line,
            column,
            span: texts.clamp(finding.span),
        },
        message: finding.message,
        label: match finding.first {
            Some(first) => format!("first on line {}", texts.line_column(first).0),
            None => finding.label,
        },
        help: finding.help,
        span: finding.span,
    }
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour && !text.is_empty() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

fn count(n: usize, word: &str) -> String {
    if n == 1 {
        format!("1 {word}")
    } else {
        format!("{n} {word}s")
    }
}

/// Text from a file must not steer the terminal.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' { '\n' } else { visible_char(c) })
        .collect()
}

fn visible_char(c: char) -> char {
    match c {
        '\t' | '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Marks that reorder what is read.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::Text;
    use super::*;

    fn report(text: &str, spans: &[Range<usize>]) -> Report {
        let mut texts = Texts::default();
        texts.add(Text::new("p.toml", text));
        let mut findings = Findings::default();
        for span in spans {
            findings
                .error(Span::new(0, span.clone()), "wrong")
                .label("here")
                .help("do this");
        }
        Report::new(Arc::new(texts), findings)
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_and_a_caret() {
        let text = report("a = 1\nbb = 22\n", &[11..13]).to_string();
        let expected = "\
error: wrong
 --> p.toml:2:6
  |
2 | bb = 22
  |      ^^ here
  = help: do this

1 error in p.toml";
        assert_eq!(text, expected);
    }

    #[test]
    fn mistakes_stand_in_the_order_of_the_file_once_each() {
        let report = report("a = 1\nbb = 22\n", &[11..13, 0..1, 11..13]);
        let lines: Vec<_> = report.diagnostics.iter().map(|d| d.place.line).collect();
        assert_eq!(lines, [1, 2]);
        assert!(report.to_string().ends_with("2 errors in p.toml"));
    }

    #[test]
    fn hidden_parts_and_control_characters_are_not_shown() {
        let mut texts = Texts::default();
        texts.add(Text::new("p.toml", "p = 'hunter2' \x1b[2J x"));
        texts.hide(Span::new(0, 5..12));
        let mut findings = Findings::default();
        findings.error(Span::new(0, 20..21), "wrong");
        let text = Report::new(Arc::new(texts), findings).to_string();
        assert!(text.contains("p = '*******' \u{fffd}[2J x"), "{text}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let line = "x".repeat(5_000);
        let text = report(&line, &[3_000..3_002]).to_string();
        assert!(text.lines().all(|l| l.chars().count() < 200), "{text}");
        assert!(text.contains("^^ here"));
    }

    #[test]
    fn colours_only_when_asked_for() {
        let report = report("a", &[0..1]);
        assert!(!report.render(false).contains('\x1b'));
        assert!(report.render(true).contains("\x1b[1;31merror\x1b[0m"));
    }
}
