//! TOML text as a tree of values that know where they stand.
//!
//! Not a reader of pipelines: it knows no key. Unlike a parser that stops at the first error it goes on after one, so
//! that a forgotten bracket or a duplicate key hides no other mistake.
//! Invariant: every syntax error is in the findings; what could not be read is [`Kind::Broken`] and needs no other word.

mod placing;

use std::borrow::Cow;

use toml_parser::decoder::ScalarKind;
use toml_parser::parser::{Event, EventKind, RecursionGuard, ValidateWhitespace, parse_document};
use toml_parser::{Expected, ParseError};

use self::placing::{insert, new_table, open, reach};
use super::diagnostics::Findings;
use super::text::{Span, Spanned, Texts};

/// Nesting of arrays and inline tables.
const DEPTH_MAX: u32 = 32;

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// As written.
    DateTime(String),
    Array(Vec<Node>),
    Table(Table),
    /// `[[name]]`
    Tables(Vec<Table>),
    /// A syntax error stands here and is reported.
    Broken,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    pub entries: Vec<Entry>,
    pub form: Form,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: Spanned<String>,
    pub value: Node,
}

/// How a table came to be decides who may add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// `[name]`
    Header,
    /// The `a` of `[a.b]`; may still get its own header.
    #[default]
    Implied,
    /// The `a` of `a.b = 1`
    Dotted,
    /// `{ .. }`
    Inline,
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key.value == key)
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|e| e.key.value == key)
    }

    /// Sets what stands under `path`, making tables on the way; what stood there before goes. Used for overrides, whose
    /// word is the last. An `Err` names the part of the path that is no table.
    pub fn set(&mut self, path: &[Spanned<String>], value: Node) -> Result<(), Spanned<String>> {
        let Some((key, rest)) = path.split_first() else {
            return Ok(());
        };
        let at = self.position(&key.value).unwrap_or(self.entries.len());
        if rest.is_empty() {
            let entry = Entry {
                key: key.clone(),
                value,
            };
            if at < self.entries.len() {
                self.entries[at] = entry;
            } else {
                self.entries.push(entry);
            }
            return Ok(());
        }
        if at == self.entries.len() {
            self.entries.push(new_table(key, Form::Implied));
        }
        match &mut self.entries[at].value.kind {
            Kind::Table(table) => table.set(rest, value),
            _ => Err(key.clone()),
        }
    }
}

impl Node {
    /// What it is, for "found ...".
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::String(_) => "a string",
            Kind::Integer(_) => "an integer",
            Kind::Float(_) => "a float",
            Kind::Boolean(_) => "a boolean",
            Kind::DateTime(_) => "a date-time",
            Kind::Array(_) => "an array",
            Kind::Table(_) => "a table",
            Kind::Tables(_) => "an array of tables",
            Kind::Broken => "a syntax error",
        }
    }
}

/// The root table of text number `text`. Errors go to the findings; the rest of the text is read all the same.
pub fn parse(texts: &Texts, text: u16, findings: &mut Findings) -> Table {
    let source = texts.get(text).map_or("", |t| t.text.as_str());
    let source = toml_parser::Source::new(source);
    let tokens = source.lex().into_vec();
    let mut errors: Vec<ParseError> = Vec::new();
    let mut events: Vec<Event> = Vec::new();
    let mut checked = ValidateWhitespace::new(&mut events, source);
    let mut guarded = RecursionGuard::new(&mut checked, DEPTH_MAX);
    parse_document(&tokens, &mut guarded, &mut errors);
    let mut builder = Builder {
        source,
        text,
        events: &events,
        next: 0,
        errors,
        findings,
    };
    let root = builder.document();
    let errors = std::mem::take(&mut builder.errors);
    for error in errors {
        report(text, source.input().len(), error, findings);
    }
    root
}

fn report(text: u16, end: usize, error: ParseError, findings: &mut Findings) {
    let mut message = error.description().to_string();
    if let Some(expected) = error.expected().filter(|e| !e.is_empty()) {
        let words: Vec<_> = expected.iter().map(expectation).collect();
        message += &format!(", expected {}", words.join(" or "));
    }
    let span = error
        .unexpected()
        .or(error.context())
        .map_or(end..end, |s| s.start()..s.end());
    findings
        .error(Span::new(text, span), message)
        .label("not TOML");
}

fn expectation(expected: &Expected) -> String {
    match expected {
        Expected::Literal("\n") => "a line break".into(),
        Expected::Literal(text) => format!("`{text}`"),
        Expected::Description(text) => (*text).into(),
        _ => "something else".into(),
    }
}

struct Builder<'a> {
    source: toml_parser::Source<'a>,
    text: u16,
    events: &'a [Event],
    next: usize,
    errors: Vec<ParseError>,
    findings: &'a mut Findings,
}

impl Builder<'_> {
    fn document(&mut self) -> Table {
        let mut root = Table {
            form: Form::Header,
            ..Table::default()
        };
        // Where keys go: below the last header. `None` after a header that could not be used.
        let mut at: Option<Vec<Spanned<String>>> = Some(Vec::new());
        while let Some(event) = self.peek() {
            match event.kind() {
                EventKind::StdTableOpen | EventKind::ArrayTableOpen => {
                    self.next += 1;
                    let path = self.header();
                    let list = event.kind() == EventKind::ArrayTableOpen;
                    at = open(&mut root, path, list, self.findings);
                }
                EventKind::SimpleKey => {
                    let (path, value) = self.key_value();
                    if let Some(table) = at.as_ref().and_then(|p| reach(&mut root, p)) {
                        insert(table, &path, value, self.findings);
                    }
                }
                _ => self.next += 1,
            }
        }
        root
    }

    fn peek(&self) -> Option<Event> {
        self.events.get(self.next).copied()
    }

    fn span(&self, event: Event) -> Span {
        Span::new(self.text, event.span().start()..event.span().end())
    }

    /// The keys of a header; its bracket is behind us.
    fn header(&mut self) -> Vec<Spanned<String>> {
        let mut path = Vec::new();
        while let Some(event) = self.peek() {
            match event.kind() {
                EventKind::SimpleKey => path.push(self.simple_key(event)),
                EventKind::Whitespace | EventKind::KeySep | EventKind::Error => {}
                EventKind::StdTableClose | EventKind::ArrayTableClose => {
                    self.next += 1;
                    break;
                }
                _ => break,
            }
            self.next += 1;
        }
        path
    }

    /// `a.b = value`, from its first key on.
    fn key_value(&mut self) -> (Vec<Spanned<String>>, Node) {
        let mut path = Vec::new();
        while let Some(event) = self.peek() {
            match event.kind() {
                EventKind::SimpleKey => path.push(self.simple_key(event)),
                EventKind::Whitespace | EventKind::KeySep | EventKind::Error => {}
                EventKind::KeyValSep => {
                    self.next += 1;
                    return (path, self.value());
                }
                // No value: the parser has said so.
                _ => break,
            }
            self.next += 1;
        }
        let span = path.last().map_or(Span::default(), |k| k.span);
        (path, broken(span))
    }

    fn simple_key(&mut self, event: Event) -> Spanned<String> {
        let mut key = Cow::Borrowed("");
        if let Some(raw) = self.source.get(event) {
            raw.decode_key(&mut key, &mut self.errors);
        }
        Spanned::new(key.into_owned(), self.span(event))
    }

    fn value(&mut self) -> Node {
        while let Some(event) = self.peek() {
            match event.kind() {
                EventKind::Whitespace | EventKind::Error => self.next += 1,
                EventKind::Scalar => {
                    self.next += 1;
                    return self.scalar(event);
                }
                EventKind::ArrayOpen => {
                    self.next += 1;
                    return self.array(event);
                }
                EventKind::InlineTableOpen => {
                    self.next += 1;
                    return self.inline_table(event);
                }
                _ => return broken(self.span(event)),
            }
        }
        let end = self.source.input().len();
        broken(Span::new(self.text, end..end))
    }

    fn scalar(&mut self, event: Event) -> Node {
        let span = self.span(event);
        let Some(raw) = self.source.get(event).filter(|r| !r.is_empty()) else {
            return broken(span);
        };
        let mut text = Cow::Borrowed("");
        let errors = self.errors.len();
        let scalar = raw.decode_scalar(&mut text, &mut self.errors);
        if self.errors.len() > errors {
            return broken(span);
        }
        let kind = match scalar {
            ScalarKind::String => Some(Kind::String(text.into_owned())),
            ScalarKind::Boolean(value) => Some(Kind::Boolean(value)),
            ScalarKind::DateTime => Some(Kind::DateTime(text.into_owned())),
            ScalarKind::Float => text.parse().ok().map(Kind::Float),
            ScalarKind::Integer(radix) => i64::from_str_radix(&text, radix.value())
                .ok()
                .map(Kind::Integer),
        };
        let Some(kind) = kind else {
            let message = format!("{}: it does not fit 64 bits", scalar.invalid_description());
            self.findings.error(span, message);
            return broken(span);
        };
        Node { kind, span }
    }

    fn array(&mut self, open: Event) -> Node {
        let mut items = Vec::new();
        let mut span = self.span(open);
        while let Some(event) = self.peek() {
            match event.kind() {
                EventKind::Scalar | EventKind::ArrayOpen | EventKind::InlineTableOpen => {
                    items.push(self.value());
                    continue;
                }
                EventKind::ArrayClose => {
                    span = span.to(self.span(event));
                    self.next += 1;
                    break;
                }
                EventKind::StdTableOpen | EventKind::ArrayTableOpen | EventKind::KeyValSep => {
                    // The array was not closed.
                    break;
                }
                _ => self.next += 1,
            }
        }
        Node {
            kind: Kind::Array(items),
            span,
        }
    }

    fn inline_table(&mut self, open: Event) -> Node {
        let mut table = Table::default();
        let mut span = self.span(open);
        while let Some(event) = self.peek() {
            match event.kind() {
                EventKind::SimpleKey => {
                    let (path, value) = self.key_value();
                    insert(&mut table, &path, value, self.findings);
                }
                EventKind::InlineTableClose => {
                    span = span.to(self.span(event));
                    self.next += 1;
                    break;
                }
                EventKind::StdTableOpen | EventKind::ArrayTableOpen => break,
                _ => self.next += 1,
            }
        }
        table.form = Form::Inline;
        Node {
            kind: Kind::Table(table),
            span,
        }
    }
}

fn broken(span: Span) -> Node {
    Node {
        kind: Kind::Broken,
        span,
    }
}
