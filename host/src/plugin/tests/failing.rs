//! A bad row never stops the stream: traps, loops, memory and `err` cost the rows at fault and no other.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guests::{component, kept, rows, setup, transform};
use crate::limits::{PLUGIN_LOG_LINES_PER_SECOND_MAX, PLUGIN_TEXT_BYTES_MAX};
use crate::plugin::{CallError, Outcome};

/// 100 rows, some of them unlucky.
fn with_13(at: &[usize]) -> Vec<i64> {
    let lucky = |i: usize| if at.contains(&i) { 13 } else { 100 + i as i64 };
    (0..100).map(lucky).collect()
}

fn check(mode: &str, at: &[usize], cause: &str) -> Outcome {
    let x = with_13(at);
    let batch = rows(x.clone());
    let mut instance = transform(mode, &batch).unwrap();
    let outcome = instance.transform(&batch).unwrap();
    let failed: Vec<_> = outcome
        .failed
        .iter()
        .map(|(row, _)| *row as usize)
        .collect();
    assert_eq!(failed, at, "{mode}");
    for (_, text) in &outcome.failed {
        assert!(text.contains(cause), "{mode}: {text} lacks {cause:?}");
    }
    let others = (0..100).filter(|i| !at.contains(i));
    let expected: Vec<_> = others.map(|i| (i as u32, 2 * x[i])).collect();
    assert_eq!(kept(&outcome, 0), expected, "{mode}");
    outcome
}

#[test]
fn the_rows_at_fault_are_found_and_the_others_go_on() {
    let panic = "panicked at src/lib.rs:7:8: thirteen\\n\\u{1b}[31mred (wasm trap";
    for at in [
        &[0][..],
        &[99],
        &[41],
        &[0, 99],
        &[3, 4, 5],
        &[10, 50, 51, 90],
    ] {
        check("panic on 13", at, panic);
        check("err on 13", at, "thirteen is not allowed");
    }
    check(
        "recurse on 13",
        &[17],
        "wasm trap: out of bounds memory access",
    );
    check("grow on 13", &[17, 60], "memory limit of 4 MB reached");
    check("loop on 13", &[17], "ran longer than 10 ms");
}

#[test]
fn all_rows_may_fail() {
    let all: Vec<_> = (0..100).collect();
    check("panic on 13", &all, "thirteen");
    check("err on 13", &all, "thirteen");
}

#[test]
fn a_single_row_is_not_repeated() {
    let batch = rows([13]);
    let mut instance = transform("loop on 13", &batch).unwrap();
    let outcome = instance.transform(&batch).unwrap();
    assert_eq!(outcome.failed.len(), 1);
    assert!(
        outcome.failed[0].1.contains("longer than 50 ms"),
        "{:?}",
        outcome.failed
    );
}

#[test]
fn an_epoch_spent_on_finding_rows_pauses_and_the_next_begins_anew() {
    // Every row loops: each part costs its deadline of at least 10 ms.
    let batch = rows([13; 200]);
    let mut setup = setup("loop on 13", &batch);
    setup.call = Duration::from_millis(20);
    let mut instance = component("transform").instantiate(setup).unwrap();
    for _ in 0..2 {
        instance.begin_epoch();
        let CallError::Paused(text) = instance.transform(&batch).unwrap_err();
        for words in [
            "step `step`",
            "`hostile`",
            "more than 1000 ms",
            "ran longer than",
            "plugin swap",
        ] {
            assert!(text.contains(words), "{text} lacks {words:?}");
        }
        assert!(
            instance.transform(&batch).is_err(),
            "the epoch's time is used up"
        );
    }
}

#[test]
fn memory_that_a_plugin_loses_is_given_back_by_a_new_instance() {
    let batch = rows(1..=10);
    let mut setup = setup("leak", &batch);
    setup.memory_bytes = 16 << 20;
    let mut instance = component("transform").instantiate(setup).unwrap();
    for _ in 0..20 {
        let outcome = instance.transform(&batch).unwrap();
        assert_eq!(kept(&outcome, 0).len(), 10);
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    }
}

/// What was written to the log.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_flood_is_cut_off_and_its_lines_are_short() {
    let written = Written::default();
    let writer = written.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let outcome = tracing::subscriber::with_default(log, || {
        check("flood on 13", &[5], "panicked after the flood")
    });
    assert!(
        outcome.failed[0].1.len() < 1_000,
        "the reason is the last error alone"
    );
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text
        .lines()
        .filter(|l| l.contains("step=\"step\""))
        .collect();
    let of_plugin = lines.iter().filter(|l| l.contains(": line ")).count();
    // The call was made about fifteen times, but only the lines of the row at fault are written.
    assert_eq!(
        of_plugin, PLUGIN_LOG_LINES_PER_SECOND_MAX as usize,
        "{text}"
    );
    let told = lines
        .iter()
        .filter(|l| l.contains("failed at 1 of 100 rows"))
        .count();
    assert_eq!(told, 1, "{text}");
    assert!(lines.iter().all(|l| l.len() < PLUGIN_TEXT_BYTES_MAX + 200));
}

#[test]
fn what_is_counted_is_counted_once() {
    let batch = rows(1..=10);
    let mut instance = transform("double", &batch).unwrap();
    for _ in 0..3 {
        instance.transform(&batch).unwrap();
    }
    assert_eq!(instance.counters()["rows"], 30);
    assert!(instance.nanos() > 0);
    assert!(instance.histograms().is_empty());
}
