//! Reads typed values out of a table of the tree and notices what nobody asked for.
//!
//! Knows the notations, not the keys. Invariant: after [`Reader::finish`] every key of the table was asked for or is in
//! the findings; a value that is returned as `None` although it was written is in the findings too.

use std::time::Duration;

use super::diagnostics::Findings;
use super::text::{Span, Spanned};
use super::tree::{Kind, Node, Table};
use super::values;
use crate::time::Micros;

/// A table being read.
pub struct Reader<'t, 'f> {
    table: &'t Table,
    /// As a person would name it: `[sources.clicks]`.
    pub place: String,
    /// Where its header or key stands.
    pub span: Span,
    asked: Vec<&'static str>,
    later: Vec<&'static str>,
    pub findings: &'f mut Findings,
}

impl<'t, 'f> Reader<'t, 'f> {
    pub fn new(table: &'t Table, place: String, span: Span, findings: &'f mut Findings) -> Self {
        Self {
            table,
            place,
            span,
            asked: Vec::new(),
            later: Vec::new(),
            findings,
        }
    }

    /// The value under `key`, which is thereby known; syntax errors are as good as absent.
    pub fn node(&mut self, key: &'static str) -> Option<&'t Node> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table
            .get(key)
            .map(|e| &e.value)
            .filter(|n| n.kind != Kind::Broken)
    }

    /// Where the key itself stands, if it is there.
    pub fn key_span(&self, key: &str) -> Option<Span> {
        self.table.get(key).map(|e| e.key.span)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Some key was not asked for so far.
    pub fn has_unknown(&self) -> bool {
        let mut keys = self.table.entries.iter().map(|e| e.key.value.as_str());
        keys.any(|key| !self.asked.contains(&key))
    }

    /// Says that `key` is missing, unless it is there (and wrong, which has been said).
    pub fn need(&mut self, key: &'static str, example: &str) {
        if !self.has(key) {
            let message = format!("`{key}` is missing in {}", self.place);
            self.findings
                .error(self.span, message)
                .help(format!("add {example}"));
        }
    }

    pub fn string(&mut self, key: &'static str) -> Option<Spanned<String>> {
        let node = self.node(key)?;
        self.as_string(key, node)
    }

    /// A string with something in it that must be there.
    pub fn required(&mut self, key: &'static str, example: &str) -> Option<Spanned<String>> {
        self.need(key, example);
        let text = self.string(key)?;
        if text.value.trim().is_empty() {
            self.findings.error(text.span, format!("`{key}` is empty"));
            return None;
        }
        Some(text)
    }

    fn as_string(&mut self, key: &str, node: &Node) -> Option<Spanned<String>> {
        match &node.kind {
            Kind::String(text) => Some(Spanned::new(text.clone(), node.span)),
            Kind::Broken => None,
            _ => {
                self.wrong(key, node, "a string");
                None
            }
        }
    }

    /// A list of strings; anything else in it is a mistake of its own.
    pub fn strings(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Spanned<Vec<Spanned<String>>>> {
        let node = self.node(key)?;
        let Kind::Array(items) = &node.kind else {
            self.wrong(key, node, &format!("a list such as {example}"));
            return None;
        };
        let list: Vec<_> = items
            .iter()
            .filter_map(|item| self.as_string(key, item))
            .collect();
        (list.len() == items.len()).then(|| Spanned::new(list, node.span))
    }

    pub fn duration(&mut self, key: &'static str) -> Option<Spanned<Micros>> {
        self.notation(key, "a duration such as \"5m\"", values::duration)
    }

    pub fn clock(&mut self, key: &'static str) -> Option<Duration> {
        self.duration(key).map(|d| values::clock(d.value))
    }

    pub fn size(&mut self, key: &'static str) -> Option<Spanned<usize>> {
        self.notation(key, "a size such as \"64MB\"", values::size)
    }

    pub fn share(&mut self, key: &'static str) -> Option<Spanned<f64>> {
        self.notation(key, "a share such as \"10%\"", values::share)
    }

    /// A string in one of the notations of [`values`].
    pub fn notation<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: fn(&str) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        let node = self.node(key)?;
        let text = match &node.kind {
            Kind::String(text) | Kind::DateTime(text) => text,
            _ => {
                self.wrong(key, node, expected);
                return None;
            }
        };
        match read(text) {
            Ok(value) => Some(Spanned::new(value, node.span)),
            Err(cause) => {
                let message = format!("`{key}`: expected {expected}, found \"{text}\"");
                self.findings.error(node.span, message).label(cause);
                None
            }
        }
    }

    /// A whole number within `min..=max`.
    pub fn whole(&mut self, key: &'static str, min: u64, max: u64) -> Option<Spanned<u64>> {
        let node = self.node(key)?;
        let Kind::Integer(value) = node.kind else {
            self.wrong(key, node, "a whole number");
            return None;
        };
        let fits = u64::try_from(value)
            .ok()
            .filter(|v| (min..=max).contains(v));
        if fits.is_none() {
            let bounds = match max {
                u64::MAX => format!("at least {min}"),
                max => format!("{min} to {max}"),
            };
            self.findings
                .error(node.span, format!("`{key}` is {value}, expected {bounds}"));
        }
        fits.map(|v| Spanned::new(v, node.span))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        let Kind::Boolean(value) = node.kind else {
            self.wrong(key, node, "true or false");
            return None;
        };
        Some(value)
    }

    /// A number above 0, whole or not.
    pub fn rate(&mut self, key: &'static str) -> Option<f64> {
        let node = self.node(key)?;
        let value = match node.kind {
            Kind::Integer(value) => value as f64,
            Kind::Float(value) => value,
            _ => {
                self.wrong(key, node, "a number");
                return None;
            }
        };
        if value > 0.0 && value.is_finite() {
            return Some(value);
        }
        let message = format!("`{key}` is {value}, expected a number above 0");
        self.findings.error(node.span, message);
        None
    }

    /// One of the words; those of `later` are known and refused.
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<Spanned<T>> {
        let text = self.string(key)?;
        if let Some((_, value)) = words.iter().find(|(w, _)| *w == text.value) {
            return Some(Spanned::new(*value, text.span));
        }
        let message = if later.contains(&text.value.as_str()) {
            format!("`{key} = \"{}\"` is not supported yet", text.value)
        } else {
            format!("`{key}` is \"{}\"", text.value)
        };
        let names = || words.iter().map(|(w, _)| *w);
        let list: Vec<_> = names().map(|w| format!("\"{w}\"")).collect();
        let help = match values::nearest(&text.value, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("expected {}", list.join(" or ")),
        };
        self.findings.error(text.span, message).help(help);
        None
    }

    /// The table under `key`, read by `read` to its end.
    pub fn nested<R>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'t, '_>) -> R,
    ) -> Option<R> {
        let node = self.node(key)?;
        let place = format!("`{key}` of {}", self.place);
        let span = self.key_span(key).unwrap_or(node.span);
        self.table_at(node, key, place, span, read)
    }

    /// `node`, which stands under `key`, as a table read to its end.
    pub fn table_at<R>(
        &mut self,
        node: &'t Node,
        key: &str,
        place: String,
        span: Span,
        read: impl FnOnce(&mut Reader<'t, '_>) -> R,
    ) -> Option<R> {
        let Kind::Table(table) = &node.kind else {
            self.wrong(key, node, "a table");
            return None;
        };
        let mut reader = Reader::new(table, place, span, &mut *self.findings);
        let result = read(&mut reader);
        reader.finish();
        Some(result)
    }

    /// Every key of the table with its value, all of them thereby known.
    pub fn entries(&mut self) -> impl Iterator<Item = (&'t Spanned<String>, &'t Node)> + use<'t> {
        self.asked.push("*");
        self.table.entries.iter().map(|e| (&e.key, &e.value))
    }

    /// Keys that a later version knows: refused by name.
    pub fn later(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.later.push(key);
            if let Some(span) = self.key_span(key) {
                let message = format!("`{key}` in {} is not supported yet", self.place);
                self.findings.error(span, message);
            }
        }
    }

    /// Says that `node` under `key` has the wrong type.
    pub fn wrong(&mut self, key: &str, node: &Node, expected: &str) {
        if node.kind != Kind::Broken {
            let message = format!("`{key}`: expected {expected}, found {}", node.describe());
            self.findings.error(node.span, message);
        }
    }

    /// Reports every key that was not asked for.
    pub fn finish(self) {
        if self.asked.contains(&"*") {
            return;
        }
        for entry in &self.table.entries {
            let key = entry.key.value.as_str();
            if self.asked.contains(&key) || self.later.contains(&key) {
                continue;
            }
            let help = values::suggestion(key, self.asked.iter().copied(), "known keys");
            let message = format!("unknown key `{key}` in {}", self.place);
            self.findings
                .error(entry.key.span, message)
                .maybe_help(help);
        }
    }
}
