//! Rows of a file through the seam: limits, ends, restarts, pauses.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use crate::format::parquet::tests::write;
use crate::pipeline::plan::{BadRecords, Format, Limit};

/// `n` = 0, 1, … in groups of 1,000 rows.
fn source(dir: &std::path::Path, rows: i64) -> ParquetSource {
    let path = dir.join("x.parquet");
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    write(&path, vec![("n", column)], 1_000);
    ParquetSource::new(&plan::Source {
        name: "s".into(),
        connector: SourceConnector::File { path },
        format: Format::Parquet,
        schema: Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])),
        paths: vec![vec!["n".into()]],
        parts: vec![None],
        event_time: None,
        bad_records: BadRecords::DeadLetter,
        limit: Limit::default(),
    })
}

fn opened(
    source: &ParquetSource,
    resume: Option<i64>,
    end: Option<i64>,
    bounded: bool,
) -> Result<Partition, ConnectorError> {
    let resume = resume.map(|row| (PARTITION, at(row))).into_iter().collect();
    let ends = end.map(|end| (PARTITION, end)).into_iter().collect();
    Ok(source
        .partitions(&resume, &ends, bounded, &|| false)?
        .remove(0))
}

/// One poll: the values, and how large the pieces were.
fn poll(reader: &mut dyn Reader, max: usize) -> Vec<i64> {
    let mut values = Vec::new();
    let polled = reader.poll_columns(max, &mut |partition, piece| {
        assert_eq!(partition, PARTITION);
        let column = piece.rows.column(0).as_primitive::<Int64Type>().clone();
        values.extend_from_slice(column.values());
        assert_eq!(piece.numbers.last().copied(), Some(piece.next));
    });
    polled.unwrap();
    values
}

#[test]
fn polls_keep_their_limit_and_go_on_where_the_last_ended() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), 10_000);
    let part = opened(&source, None, None, true).unwrap();
    assert_eq!((part.start, part.end), (at(0), Some(10_000)));
    let mut reader = source.reader(vec![part]).unwrap();
    let mut all = Vec::new();
    for max in [1, 999, 5_000, 3, 100_000] {
        let before = all.len();
        all.extend(poll(&mut *reader, max));
        assert!(all.len() - before <= max);
        let progress = reader.progress()[0];
        assert_eq!(progress.next, at(all.len() as i64));
        assert_eq!(progress.finished, all.len() == 10_000);
        assert_eq!(progress.lag, Some(10_000 - all.len() as u64));
    }
    assert_eq!(all, (0..10_000).collect::<Vec<_>>());
    assert!(poll(&mut *reader, 10).is_empty());
    assert!(source.reader(Vec::new()).unwrap().progress().is_empty());
}

#[test]
fn restarts_pauses_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), 2_500);
    let part = opened(&source, Some(1_234), Some(2_000), true).unwrap();
    let mut reader = source.reader(vec![part]).unwrap();
    reader.pause(&[PARTITION]);
    assert!(poll(&mut *reader, 10).is_empty() && !reader.progress()[0].caught_up);
    reader.pause(&[]);
    assert_eq!(
        poll(&mut *reader, 10_000),
        (1_234..2_000).collect::<Vec<_>>()
    );
    assert!(reader.progress()[0].finished);

    let mut reader = source
        .reader(vec![opened(&source, Some(2_499), None, false).unwrap()])
        .unwrap();
    assert_eq!(poll(&mut *reader, 10), [2_499]);
    let progress = reader.progress()[0];
    assert!(progress.caught_up && !progress.finished);

    let error = opened(&source, Some(2_501), None, true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("source s: ") && error.contains("was replaced"),
        "{error}"
    );
    let place = source.describe(PARTITION, 7);
    assert_eq!(place["row"], 7);
}

#[test]
fn a_file_that_does_not_suit_is_named_with_its_fields() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), 1);
    let other: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    write(&dir.path().join("x.parquet"), vec![("m", other)], 10);
    let error = opened(&source, None, None, true).unwrap_err().to_string();
    assert!(
        error.contains("x.parquet: the file has no column `n`; it has `m`"),
        "{error}"
    );
}
