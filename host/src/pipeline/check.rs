//! Reads a pipeline file and finds all its mistakes at once.
//!
//! Starts nothing and writes nothing: files are read, plugins configured, environment variables looked up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostics::{Findings, Report};
use super::plan::Plan;
use super::spec::Spec;
use super::text::{Span, Spanned, Text, Texts};
use super::tree::{self, Form, Kind, Node, Table};
use super::{parse, resolve, secrets};
use crate::limits::PIPELINE_FILE_BYTES_MAX;
use crate::plugin::Runtime;

/// What the command line says over the file.
#[derive(Clone, Default)]
pub struct Overrides {
    /// `--set path.to.key=value`: the value is TOML, or a string where it is not.
    pub set: Vec<(String, String)>,
    /// `--brokers embedded|HOST:PORT`: `[kafka].brokers`.
    pub brokers: Option<String>,
}

/// The file as read, with what could be read of it, and the mistakes so far.
pub(super) struct Draft {
    pub spec: Spec,
    pub findings: Findings,
}

/// Reads the file and checks what can be checked without loading plugins. The error holds every mistake found.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Spec, Report> {
    let mut draft = read(path, overrides)?;
    if draft.findings.is_empty() {
        return Ok(draft.spec);
    }
    resolve::resolve(&draft.spec, None, &mut draft.findings);
    Err(Report::new(draft.spec.texts, draft.findings))
}

/// Resolves names, types, expressions and plugins; each plugin file is loaded once. The error holds every mistake found.
pub fn plan(spec: &Spec, runtime: &Arc<Runtime>) -> Result<Plan, Report> {
    planned(spec, runtime, Findings::default()).map(|(plan, _)| plan)
}

/// [`load`] and [`plan`] in one, so that mistakes of the one do not hide those of the other. With the plan comes a
/// report of warnings alone.
pub fn check(
    path: &Path,
    overrides: &Overrides,
    runtime: &Arc<Runtime>,
) -> Result<(Plan, Report), Report> {
    let draft = read(path, overrides)?;
    planned(&draft.spec, runtime, draft.findings)
}

fn planned(
    spec: &Spec,
    runtime: &Arc<Runtime>,
    mut findings: Findings,
) -> Result<(Plan, Report), Report> {
    let plan = resolve::resolve(spec, Some(runtime), &mut findings);
    let report = Report::new(spec.texts.clone(), findings);
    match plan {
        Some(plan) => Ok((plan, report)),
        None => Err(report),
    }
}

fn read(path: &Path, overrides: &Overrides) -> Result<Draft, Report> {
    match read_text(path) {
        Ok(text) => Ok(draft(path, text, overrides)),
        Err((text, at, cause)) => {
            let mut texts = Texts::default();
            let mut findings = Findings::default();
            texts.add(Text::new(path, text));
            findings.error(Span::new(0, at..at), cause);
            Err(Report::new(Arc::new(texts), findings))
        }
    }
}

/// `text` as the file at `path`, read as far as it can be read.
pub(super) fn draft(path: &Path, text: String, overrides: &Overrides) -> Draft {
    let mut texts = Texts::default();
    let mut findings = Findings::default();
    texts.add(Text::new(path, text));
    let mut root = tree::parse(&texts, 0, &mut findings);
    override_all(&mut root, overrides, &mut texts, &mut findings);
    secrets::hide(&mut texts, 0);
    hide_secrets(&root, &mut texts);
    let texts = Arc::new(texts);
    stray_references(&root, false, &mut findings);
    let dir = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let spec = parse::spec(texts, dir, &root, &mut findings);
    Draft { spec, findings }
}

/// The text of the file; otherwise what can be shown of it, where it is wrong, and why.
fn read_text(path: &Path) -> Result<String, (String, usize, String)> {
    let unreadable = |cause: String| {
        (
            String::new(),
            0,
            format!("the pipeline file cannot be read: {cause}"),
        )
    };
    let about = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?;
    if about.is_dir() {
        return Err(unreadable("it is a directory".into()));
    }
    if about.len() > PIPELINE_FILE_BYTES_MAX as u64 {
        return Err(unreadable(format!(
            "{} bytes are more than the {PIPELINE_FILE_BYTES_MAX} that a pipeline may have",
            about.len()
        )));
    }
    let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let shown = String::from_utf8_lossy(e.as_bytes()).into_owned();
        (shown, at, "the pipeline file is not UTF-8".into())
    })
}

fn override_all(
    root: &mut Table,
    overrides: &Overrides,
    texts: &mut Texts,
    findings: &mut Findings,
) {
    for (path, value) in &overrides.set {
        let Some(text) = texts.add(Text::new("--set", format!("{path}={value}"))) else {
            return;
        };
        secrets::hide(texts, text);
        override_one(root, path.len(), texts, text, findings);
    }
    let Some(brokers) = &overrides.brokers else {
        return;
    };
    if let Some(text) = texts.add(Text::new("--brokers", brokers.as_str())) {
        let span = Span::new(text, 0..brokers.len());
        let path = ["kafka", "brokers"].map(|key| Spanned::new(key.to_string(), span));
        let value = Node {
            kind: Kind::String(brokers.clone()),
            span,
        };
        set(root, &path, value, findings);
    }
}

/// Sets what text number `text`, `path=value` with a path of `length` bytes, says.
fn override_one(
    root: &mut Table,
    length: usize,
    texts: &Texts,
    text: u16,
    findings: &mut Findings,
) {
    let whole = texts.get(text).map_or("", |t| t.text.as_str());
    let mut tried = Findings::default();
    let parsed = tree::parse(texts, text, &mut tried);
    if let (true, Some((path, value))) = (tried.is_empty(), single(&parsed)) {
        set(root, &path, value, findings);
        return;
    }
    // Not TOML: then the value is a string, if the path at least is one.
    let mut keys = Texts::default();
    keys.add(Text::new("--set", format!("{}=0", &whole[..length])));
    let mut tried = Findings::default();
    let parsed = tree::parse(&keys, 0, &mut tried);
    let span = Span::new(text, 0..length);
    match single(&parsed) {
        Some((mut path, _)) if tried.is_empty() => {
            path.iter_mut().for_each(|key| key.span.text = text);
            let value = Node {
                kind: Kind::String(whole[length + 1..].to_string()),
                span: Span::new(text, length + 1..whole.len()),
            };
            set(root, &path, value, findings);
        }
        _ => {
            findings
                .error(span, format!("`{}` is no path to a key", &whole[..length]))
                .help("--set looks like steps.anomalies.plugin.config.threshold=2.5");
        }
    }
}

/// The one key of a table, through dotted tables, and its value.
fn single(table: &Table) -> Option<(Vec<Spanned<String>>, Node)> {
    let [entry] = table.entries.as_slice() else {
        return None;
    };
    let mut path = vec![entry.key.clone()];
    match &entry.value.kind {
        Kind::Table(inner) if inner.form == Form::Dotted => {
            let (rest, value) = single(inner)?;
            path.extend(rest);
            Some((path, value))
        }
        Kind::Table(inner) if inner.form != Form::Inline => None,
        _ => Some((path, entry.value.clone())),
    }
}

fn set(root: &mut Table, path: &[Spanned<String>], value: Node, findings: &mut Findings) {
    if let Err(key) = root.set(path, value) {
        let message = format!("`{}` is no table: nothing can be set below it", key.value);
        findings.error(key.span, message);
    }
}

/// Keeps the values of secret settings from view.
fn hide_secrets(table: &Table, texts: &mut Texts) {
    for entry in &table.entries {
        match &entry.value.kind {
            Kind::Table(inner) => hide_secrets(inner, texts),
            Kind::Tables(all) => all.iter().for_each(|inner| hide_secrets(inner, texts)),
            Kind::String(text) if secrets::is_reference(text) => {}
            _ if secrets::is_secret(&entry.key.value)
                || secrets::is_secret_header(&entry.key.value) =>
            {
                texts.hide(entry.value.span)
            }
            _ => {}
        }
    }
}

/// Refuses `${env:..}` where nothing would resolve it.
fn stray_references(table: &Table, resolved: bool, findings: &mut Findings) {
    for entry in &table.entries {
        let resolved = resolved || matches!(entry.key.value.as_str(), "properties" | "brokers");
        match (entry.key.value.as_str(), &entry.value.kind) {
            ("webhook" | "postgres", Kind::Table(remote)) => {
                for entry in &remote.entries {
                    let of_it = matches!(entry.key.value.as_str(), "headers" | "url");
                    stray_reference(&entry.value, resolved || of_it, findings);
                }
            }
            _ => stray_reference(&entry.value, resolved, findings),
        }
    }
}

fn stray_reference(node: &Node, resolved: bool, findings: &mut Findings) {
    match &node.kind {
        Kind::Table(table) => stray_references(table, resolved, findings),
        Kind::Tables(all) => all
            .iter()
            .for_each(|table| stray_references(table, resolved, findings)),
        Kind::Array(items) => items
            .iter()
            .for_each(|item| stray_reference(item, resolved, findings)),
        Kind::String(text) if !resolved && secrets::is_reference(text) => {
            findings
                .error(node.span, "references are not resolved here")
                .help("${env:NAME} and ${file:/path} work in Kafka `properties` and `brokers`");
        }
        _ => {}
    }
}
