//! Limits with hand-made numbers and, for the failure rate, against a count of the last rows from scratch.

use proptest::prelude::*;

use super::*;

#[test]
fn memory_counts_over_all_memories() {
    let mut limit = MemoryLimit::new(100);
    assert!(limit.memory_growing(0, 40, None).unwrap());
    assert!(limit.memory_growing(0, 40, None).unwrap(), "a second one");
    assert!(limit.memory_growing(40, 60, None).unwrap());
    let error = limit.memory_growing(40, 41, None).unwrap_err().to_string();
    assert!(
        error.contains("memory limit of 100 bytes") && error.contains("101 bytes"),
        "{error}"
    );
    assert!(
        limit.memory_growing(0, usize::MAX, None).is_err(),
        "no overflow"
    );
    assert!(
        limit
            .table_growing(0, PLUGIN_TABLE_ELEMENTS_MAX, None)
            .unwrap()
    );
    assert!(limit.table_growing(0, 1, None).is_err());
}

#[test]
fn a_deadline_is_over_once_its_time_was_computed_not_waited() {
    let deadline = Deadline::start(Duration::from_millis(20));
    assert!(deadline.ticks() >= 4 && deadline.ticks_left().is_ok());
    let began = thread_cpu_time();
    while thread_cpu_time() - began < Duration::from_millis(20) {
        std::hint::black_box(began);
    }
    assert!(deadline.ticks_left().unwrap_err().contains("20 ms"));
}

proptest! {
    #[test]
    fn the_failure_rate_is_that_of_the_last_rows(
        calls in proptest::collection::vec((1usize..4_000, 0.0..0.3f64), 1..20),
    ) {
        let mut rate = FailureRate::new(0.1);
        let mut all: Vec<bool> = Vec::new();
        for (rows, share) in calls {
            let failed: Vec<u32> = (0..rows as u32).filter(|i| f64::from(i % 10) < share * 10.0).collect();
            let base = all.len();
            all.resize(base + rows, false);
            failed.iter().for_each(|&row| all[base + row as usize] = true);
            rate.record(rows, failed);
            let last = &all[all.len().saturating_sub(FAILED_WINDOW_ROWS as usize)..];
            let failed = last.iter().filter(|f| **f).count();
            prop_assert_eq!((rate.rows(), rate.failed()), (last.len() as u64, failed as u64));
            let exceeded = failed >= 100 && failed as f64 > 0.1 * last.len() as f64;
            prop_assert_eq!(rate.is_exceeded(), exceeded);
        }
    }
}

#[test]
fn fewer_failures_than_a_hundred_never_exceed() {
    let mut rate = FailureRate::new(0.1);
    rate.record(99, 0..99);
    assert!(!rate.is_exceeded(), "all rows failed, but they are few");
    rate.record(1, [0]);
    assert!(rate.is_exceeded());
}

#[test]
fn log_lines_are_limited_a_second_and_the_rest_is_told() {
    let mut rate = LineRate::default();
    let start = Instant::now();
    for _ in 0..PLUGIN_LOG_LINES_PER_SECOND_MAX {
        assert_eq!(rate.line(start), Line::Write { dropped: 0 });
    }
    assert_eq!(rate.line(start), Line::Drop);
    rate.add_dropped(6);
    let next = start + Duration::from_secs(1);
    assert_eq!(rate.line(next), Line::Write { dropped: 7 });
    assert_eq!(rate.line(next), Line::Write { dropped: 0 });
}

#[test]
fn text_of_a_plugin_is_one_printable_line() {
    let cases = [
        ("plain é 漢", "plain é 漢"),
        (
            "two\nlines\tand\u{1b}[31m red",
            "two\\nlines\\tand\\u{1b}[31m red",
        ),
        ("right\u{202e}left", "right\\u{202e}left"),
    ];
    for (text, expected) in cases {
        assert_eq!(printable(text), expected);
    }
    let long = printable(&"é".repeat(PLUGIN_TEXT_BYTES_MAX));
    assert!(
        long.ends_with(&format!("… ({PLUGIN_TEXT_BYTES_MAX} bytes more)")),
        "{long}"
    );
    assert!(long.len() < PLUGIN_TEXT_BYTES_MAX + 64);
}
