//! What a person sees of rows.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::*;
use crate::pipeline::plan::{Input, SinkInput};

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("user", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("at", time, true),
    ]))
}

fn batch(rows: &[(&str, Option<f64>)]) -> Batch {
    let times = TimestampMicrosecondArray::from(vec![0; rows.len()]).with_timezone("UTC");
    let columns = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(rows.iter().map(|r| Some(r.0)).collect::<StringArray>()),
            Arc::new(rows.iter().map(|r| r.1).collect::<Float64Array>()),
            Arc::new(times),
        ],
    );
    Batch {
        columns: columns.unwrap(),
        times: vec![0; rows.len()].into(),
        origins: None,
    }
}

fn sink(rows: usize) -> ConsoleSink {
    let input = |step| SinkInput {
        label: format!("step{step}"),
        input: Input::Port { step, port: 0 },
        schema: schema(),
    };
    ConsoleSink::new(&plan::Sink {
        name: "screen".to_owned(),
        inputs: vec![input(0), input(1)],
        connector: SinkConnector::Console { rows },
    })
}

#[test]
fn shows_the_latest_rows_of_each_input() {
    let sink = sink(2);
    assert_eq!(sink.render(), "");
    sink.write(
        1,
        &batch(&[("a", Some(1.0)), ("bob", Some(22.5)), ("c", None)]),
    )
    .unwrap();
    sink.write(1, &batch(&[("d", Some(-3.0))])).unwrap();
    assert_eq!(
        sink.render(),
        "step1\n\
         \x20 user  amount  at\n\
         \x20 ----  ------  --------------------\n\
         \x20 c       null  1970-01-01T00:00:00Z\n\
         \x20 d       -3.0  1970-01-01T00:00:00Z\n"
    );
    assert_eq!(sink.rows(), 4);
    sink.sync(&sink.cut(false).unwrap()).unwrap();
}

#[test]
fn no_row_commands_the_terminal() {
    let sink = sink(9);
    let hostile = "\u{1b}[2J\u{7}\r\n\u{9b}31m\u{202e}évil";
    sink.write(0, &batch(&[(hostile, None), (&"x".repeat(100), None)]))
        .unwrap();
    let text = sink.render();
    assert!(text.chars().all(|c| c == '\n' || !obeyed(c)), "{text:?}");
    assert!(
        text.contains(r"\u{1b}[2J\u{7}\r\n\u{9b}31m\u{202e}évil"),
        "{text}"
    );
    assert!(text.contains(&format!("{}…", "x".repeat(40))), "{text}");
}
