//! Whatever is done to a pipeline file: no panic, and every mistake has a place in it.

use std::path::Path;

use proptest::prelude::*;

use super::super::check::{Overrides, draft};
use super::super::diagnostics::Report;
use super::super::resolve;

const VALID: &str = include_str!("valid.toml");

/// Pieces that matter to TOML, to the file's notations or to a terminal.
const PIECES: [&str; 34] = [
    "[",
    "]",
    "{",
    "}",
    "[[",
    "]]",
    "=",
    ",",
    ".",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "\\u12",
    "#",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\u{feff}",
    "ü",
    "😀",
    "\u{202e}",
    "\x1b[2J",
    "1e999",
    "-",
    "5m",
    "${env:",
    "a.b",
    "from = \"clicks\"",
    "[steps.clicks]",
    "true",
    "9223372036854775808",
];

#[derive(Debug, Clone)]
enum Change {
    Delete(usize, usize),
    Repeat(usize, usize),
    Insert(usize, usize),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..10_000usize;
    prop_oneof![
        (at.clone(), 1..60usize).prop_map(|(at, len)| Change::Delete(at, len)),
        (at.clone(), 1..60usize).prop_map(|(at, len)| Change::Repeat(at, len)),
        (at.clone(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (at.clone(), at).prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

fn apply(text: &mut Vec<char>, change: &Change) {
    let length = text.len().max(1);
    match *change {
        Change::Delete(at, len) => {
            let at = at % length;
            text.drain(at.min(text.len())..(at + len).min(text.len()));
        }
        Change::Repeat(at, len) => {
            let at = (at % length).min(text.len());
            let part = text[at..(at + len).min(text.len())].to_vec();
            text.splice(at..at, part);
        }
        Change::Insert(at, piece) => {
            let at = (at % length).min(text.len());
            text.splice(at..at, PIECES[piece].chars());
        }
        Change::Swap(a, b) if !text.is_empty() => text.swap(a % length, b % length),
        Change::Swap(..) => {}
    }
}

/// Reads and resolves `text`, and holds the report to what is promised of it.
fn holds(text: &str, overrides: &Overrides) -> Result<(), TestCaseError> {
    let mut draft = draft(Path::new("/nowhere/p.toml"), text.to_string(), overrides);
    let plan = resolve::resolve(&draft.spec, None, &mut draft.findings);
    let report = Report::new(draft.spec.texts, draft.findings);
    prop_assert!(plan.is_none() || report.diagnostics.is_empty());
    let lines = text.split('\n').count();
    for found in report.diagnostics.iter().chain(&report.warnings) {
        prop_assert!(!found.message.is_empty());
        if found.place.file.ends_with("p.toml") {
            prop_assert!((1..=lines).contains(&found.place.line));
            prop_assert!(text.get(found.place.span.clone()).is_some());
        }
    }
    let shown = report.render(true);
    prop_assert!(!shown.contains('\0') && !shown.contains("\x1b[2J"));
    Ok(())
}

#[test]
fn the_file_that_is_changed_is_valid() {
    let mut draft = draft(
        Path::new("/nowhere/p.toml"),
        VALID.into(),
        &Overrides::default(),
    );
    assert!(draft.findings.is_empty());
    resolve::resolve(&draft.spec, None, &mut draft.findings);
    let report = Report::new(draft.spec.texts, draft.findings);
    assert!(report.diagnostics.is_empty(), "{report}");
    assert!(report.warnings.is_empty(), "{report}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_makes_it_panic(changes in prop::collection::vec(change(), 1..8)) {
        let mut text: Vec<char> = VALID.chars().collect();
        for change in &changes {
            apply(&mut text, change);
        }
        holds(&text.into_iter().collect::<String>(), &Overrides::default())?;
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        holds(&text, &Overrides::default())?;
    }

    #[test]
    fn no_override_makes_it_panic(path in "[a-z.\"\\[= ]{0,20}", value in "\\PC{0,40}") {
        let overrides = Overrides { set: vec![(path, value.clone())], brokers: Some(value) };
        holds(VALID, &overrides)?;
    }
}
