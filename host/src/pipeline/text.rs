//! The texts a pipeline is read from (the file, and what the command line overrides) and positions in them.
//!
//! Knows no TOML. Invariant: a [`Span`] made for a text lies within it and on character boundaries once it has passed
//! [`Texts::clamp`]; nothing here panics on any other span.

use std::ops::Range;
use std::path::PathBuf;

/// Bytes `start..end` of one of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Index into [`Texts`]: 0 is the file.
    pub text: u16,
    pub start: u32,
    pub end: u32,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

/// One text as it was read.
#[derive(Clone, Default)]
pub struct Text {
    /// The file, or the command-line argument (`--set`) the text stands for.
    pub path: PathBuf,
    pub text: String,
    /// Parts that are never shown: secrets written out instead of referred to.
    hidden: Vec<Range<usize>>,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The text may hold a secret.
        f.debug_struct("Text")
            .field("path", &self.path)
            .field("bytes", &self.text.len())
            .finish()
    }
}

/// The file first, then one text an override.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    texts: Vec<Text>,
}

impl Span {
    pub fn new(text: u16, range: Range<usize>) -> Self {
        Self {
            text,
            start: u32::try_from(range.start).unwrap_or(u32::MAX),
            end: u32::try_from(range.end).unwrap_or(u32::MAX),
        }
    }

    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// From the start of `self` to the end of `other`, if both are of one text.
    pub fn to(self, other: Span) -> Span {
        if self.text != other.text {
            return self;
        }
        Span {
            end: self.end.max(other.end),
            ..self
        }
    }
}

impl<T> Spanned<T> {
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned {
            value: f(self.value),
            span: self.span,
        }
    }
}

impl Text {
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            hidden: Vec::new(),
        }
    }
}

impl Texts {
    /// Adds a text and returns its index; `None` once there are 65,535.
    pub fn add(&mut self, text: Text) -> Option<u16> {
        let index = u16::try_from(self.texts.len()).ok()?;
        self.texts.push(text);
        Some(index)
    }

    pub fn get(&self, index: u16) -> Option<&Text> {
        self.texts.get(usize::from(index))
    }

    /// The file itself.
    pub fn file(&self) -> &Text {
        &self.texts[0]
    }

    /// What stands at `span`.
    pub fn slice(&self, span: Span) -> &str {
        let range = self.clamp(span);
        self.get(span.text).map_or("", |t| &t.text[range])
    }

    /// `span` as a range that is safe to slice with.
    pub fn clamp(&self, span: Span) -> Range<usize> {
        let Some(text) = self.get(span.text) else {
            return 0..0;
        };
        let start = floor(&text.text, span.start as usize);
        let end = floor(&text.text, span.end as usize).max(start);
        start..end
    }

    /// Line and column of the start of `span`, from 1; a column is a character.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let Some(text) = self.get(span.text) else {
            return (1, 1);
        };
        let before = &text.text[..self.clamp(span).start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// Keeps what stands at `span` out of everything that is shown.
    pub fn hide(&mut self, span: Span) {
        let range = self.clamp(span);
        if let Some(text) = self.texts.get_mut(usize::from(span.text)) {
            text.hidden.push(range);
        }
    }

    /// The bytes of the line that holds the start of `span`, without its line break.
    pub fn line_range(&self, span: Span) -> Range<usize> {
        let Some(text) = self.get(span.text) else {
            return 0..0;
        };
        let at = self.clamp(span).start;
        let start = text.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let end = text.text[at..]
            .find('\n')
            .map_or(text.text.len(), |i| at + i);
        start..end
    }

    /// Whether the byte at `at` must not be shown.
    pub fn is_hidden(&self, text: u16, at: usize) -> bool {
        self.get(text)
            .is_some_and(|t| t.hidden.iter().any(|r| r.contains(&at)))
    }
}

/// The nearest character boundary at or below `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Texts {
        let mut texts = Texts::default();
        texts.add(Text::new("p.toml", text));
        texts
    }

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let texts = texts("a\nbü = 1\n");
        let at = |start| texts.line_column(Span::new(0, start..start));
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (2, 1));
        assert_eq!(at(5), (2, 3), "after a character of two bytes");
        assert_eq!(at(4), (2, 2), "within a character: its start");
        assert_eq!(at(9_999), (3, 1), "beyond the end");
    }

    #[test]
    fn a_line_ends_before_its_break() {
        let texts = texts("ab\ncd");
        assert_eq!(texts.line_range(Span::new(0, 1..1)), 0..2);
        assert_eq!(texts.line_range(Span::new(0, 4..4)), 3..5);
        assert_eq!(texts.line_range(Span::new(7, 4..4)), 0..0);
    }
}
