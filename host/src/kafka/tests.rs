//! Source, sink and feed against the embedded broker, whose faults can be ordered. What it cannot do (transactions, offsets
//! by time, deleted records) is tested on a real Kafka in `tests/kafka`.

mod away;
mod denied;
mod described;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch, StringArray};
use serde_json::json;

use super::*;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::pipeline::plan::{self, Brokers, Cluster, Start};
use crate::sink::Sink;
use crate::source::{Partition, Position, Progress, Reader, Source};

/// No test waits longer than this for something to happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster(broker: &EmbeddedBroker) -> Cluster {
    Cluster {
        brokers: Brokers::At(broker.bootstrap()),
        properties: BTreeMap::new(),
    }
}

fn source(broker: &EmbeddedBroker, topic: &str) -> KafkaSource {
    KafkaSource::new("clicks", "test", &cluster(broker), topic, Start::Earliest)
}

fn partitions(source: &KafkaSource, bounded: bool) -> Vec<Partition> {
    source
        .partitions(&BTreeMap::new(), &BTreeMap::new(), bounded, &|| false)
        .unwrap()
}

fn write(broker: &EmbeddedBroker, topic: &str, records: impl Iterator<Item = (u64, String)>) {
    let producer = TopicProducer::open("test", &cluster(broker), topic).unwrap();
    for (key, value) in records {
        producer
            .send(Some(&key.to_be_bytes()), value.as_bytes())
            .unwrap();
    }
    producer.sync(producer.barrier()).unwrap();
}

/// Polls until `done`, handing each record's partition, offset and text to `each`.
fn read(
    reader: &mut dyn Reader,
    max: usize,
    mut each: impl FnMut(u32, i64, &str),
    mut done: impl FnMut(&[Progress]) -> bool,
) {
    let until = Instant::now() + PATIENCE;
    while !done(&reader.progress()) {
        assert!(Instant::now() < until, "stuck at {:?}", reader.progress());
        reader
            .poll(max, Duration::from_millis(20), &mut |record| {
                let text = std::str::from_utf8(record.value.unwrap()).unwrap();
                each(record.partition, record.number, text);
            })
            .unwrap();
    }
}

fn finished(progress: &[Progress]) -> bool {
    progress.iter().all(|p| p.finished)
}

#[test]
fn a_bounded_run_reads_every_record_once_and_in_order() {
    let broker = EmbeddedBroker::start(&[("clicks", 4)]).unwrap();
    write(
        &broker,
        "clicks",
        (0..20_000).map(|i| (i % 97, i.to_string())),
    );
    let source = source(&broker, "clicks");
    let parts = partitions(&source, true);
    assert_eq!(parts.iter().map(|p| p.end.unwrap()).sum::<i64>(), 20_000);
    let mut reader = source.reader(parts).unwrap();
    write(
        &broker,
        "clicks",
        (0..100).map(|i| (i, "beyond the end".into())),
    );

    let mut seen = vec![false; 20_000];
    let mut next: BTreeMap<u32, (i64, BTreeMap<u64, u64>)> = BTreeMap::new();
    read(
        &mut *reader,
        777,
        |partition, offset, text| {
            let number: u64 = text.parse().unwrap();
            assert!(
                !std::mem::replace(&mut seen[number as usize], true),
                "{number} came twice"
            );
            let (expected, last_of_key) = next.entry(partition).or_default();
            assert_eq!(offset, *expected);
            *expected += 1;
            let last = last_of_key.insert(number % 97, number);
            assert!(last.is_none_or(|last| last < number));
        },
        finished,
    );
    assert!(seen.iter().all(|&seen| seen));
    assert_eq!(next.len(), 4, "the keys fall into all partitions");
    assert!(
        reader
            .progress()
            .iter()
            .all(|p| p.caught_up && p.lag == Some(0))
    );
}

#[test]
fn a_partition_is_caught_up_only_while_nothing_is_left() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    write(&broker, "clicks", [(1, "a".into())].into_iter());
    let source = source(&broker, "clicks");
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    assert!(!reader.progress()[0].caught_up);
    read(&mut *reader, 10, |_, _, _| {}, |p| p[0].caught_up);
    assert_eq!(reader.progress()[0].next.offset, 1);

    write(&broker, "clicks", (0..50).map(|i| (i, i.to_string())));
    // A reader that is held back takes nothing and must say so.
    let until = Instant::now() + PATIENCE;
    while reader.progress()[0].caught_up {
        assert!(Instant::now() < until);
        reader
            .poll(1, Duration::from_millis(5), &mut |_| {})
            .unwrap();
    }
    let progress = reader.progress()[0];
    assert!(
        progress.lag.unwrap() > 0 && progress.next.offset < 51,
        "{progress:?}"
    );
    read(&mut *reader, 10, |_, _, _| {}, |p| p[0].caught_up);
    assert_eq!(reader.progress()[0].next.offset, 51);
}

#[test]
fn reading_goes_on_where_the_checkpoint_says() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    write(&broker, "clicks", (0..10).map(|i| (0, i.to_string())));
    let source = KafkaSource::new("clicks", "test", &cluster(&broker), "clicks", Start::Latest);
    let at = |offset| {
        BTreeMap::from([(
            0,
            Position {
                offset,
                record: offset,
            },
        )])
    };
    let parts = source
        .partitions(&at(7), &BTreeMap::from([(0, 9)]), true, &|| false)
        .unwrap();
    assert_eq!((parts[0].start.offset, parts[0].end), (7, Some(9)));
    let mut reader = source.reader(parts).unwrap();
    let mut texts = Vec::new();
    read(
        &mut *reader,
        10,
        |_, _, text| texts.push(text.to_owned()),
        finished,
    );
    assert_eq!(texts, ["7", "8"]);

    for (wanted, why) in [(11, "created anew"), (-1, "deleted before")] {
        let error = source
            .partitions(&at(wanted), &BTreeMap::new(), false, &|| false)
            .unwrap_err();
        let text = error.to_string();
        for part in [
            "source clicks",
            "topic clicks",
            "partition 0",
            "0 to 10",
            "tidemill reset",
            why,
        ] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }
    let gone = BTreeMap::from([(
        5,
        Position {
            offset: 0,
            record: 0,
        },
    )]);
    let error = source
        .partitions(&gone, &BTreeMap::new(), false, &|| false)
        .unwrap_err();
    assert!(error.to_string().contains("partition 5"), "{error}");
}

#[test]
fn latest_begins_at_the_end_and_a_partition_that_is_new_at_its_beginning() {
    let broker = EmbeddedBroker::start(&[("clicks", 2)]).unwrap();
    write(&broker, "clicks", (0..100).map(|i| (i, i.to_string())));
    let source = KafkaSource::new("clicks", "test", &cluster(&broker), "clicks", Start::Latest);
    let first = partitions(&source, false);
    assert_eq!(first.iter().map(|p| p.start.offset).sum::<i64>(), 100);
    let known = BTreeMap::from([(0, first[0].start)]);
    let later = source
        .partitions(&known, &BTreeMap::new(), false, &|| false)
        .unwrap();
    assert_eq!((later[0].start, later[1].start.offset), (first[0].start, 0));
}

#[test]
fn a_topic_that_does_not_exist_is_an_error_and_is_not_created() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    for _ in 0..2 {
        let source = source(&broker, "clickz");
        let error = source
            .partitions(&BTreeMap::new(), &BTreeMap::new(), false, &|| false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("topic clickz at 127.0.0.1") && error.contains("does not exist"),
            "{error}"
        );
        let error = TopicProducer::open("sink results", &cluster(&broker), "clickz")
            .err()
            .unwrap();
        assert!(error.to_string().contains("sink results"), "{error}");
    }
    let topics = admin::topics(&cluster(&broker), PATIENCE).unwrap();
    assert_eq!(topics, [("clicks".to_owned(), 1)]);
}

#[test]
fn a_broker_that_is_away_at_start_is_waited_for() {
    let broker = EmbeddedBroker::start(&[("clicks", 2)]).unwrap();
    broker.set_down(true);
    let asked = Cell::new(0);
    let back_after_some_attempts = || {
        asked.set(asked.get() + 1);
        if asked.get() == 4 {
            broker.set_down(false);
        }
        false
    };
    let source = source(&broker, "clicks");
    let parts = source
        .partitions(
            &BTreeMap::new(),
            &BTreeMap::new(),
            false,
            &back_after_some_attempts,
        )
        .unwrap();
    assert_eq!(parts.len(), 2);
    assert!(asked.get() >= 4);
}

#[test]
fn waiting_for_a_broker_ends_when_the_host_stops() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    let sink = TopicProducer::open("sink results", &cluster(&broker), "clicks").unwrap();
    broker.set_down(true);
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 2;
    let result =
        source(&broker, "clicks").partitions(&BTreeMap::new(), &BTreeMap::new(), false, &stop);
    assert!(
        matches!(result, Err(ConnectorError::Stopped { .. })),
        "{result:?}"
    );

    sink.send(None, b"never acknowledged").unwrap();
    let cut = sink.barrier();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sink.sync(cut));
        sink.stop();
        let result = waiting.join().unwrap();
        assert!(
            matches!(result, Err(ConnectorError::Stopped { .. })),
            "{result:?}"
        );
    });
}

#[test]
fn a_broker_that_goes_and_comes_back_costs_nothing() {
    let broker = EmbeddedBroker::start(&[("clicks", 2)]).unwrap();
    write(&broker, "clicks", (0..1_000).map(|i| (i, i.to_string())));
    let source = source(&broker, "clicks");
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    let producer = TopicProducer::open("sink results", &cluster(&broker), "clicks").unwrap();
    let mut seen = vec![0; 2_000];
    let mut count = 0;
    let mut take = |_: u32, _: i64, text: &str| {
        seen[text.parse::<usize>().unwrap()] += 1;
        count += 1;
    };
    read(&mut *reader, 100, &mut take, |p| {
        p.iter().map(|p| p.next.offset).sum::<i64>() >= 500
    });

    broker.set_down(true);
    for i in 1_000..2_000_u64 {
        producer
            .send(Some(&i.to_be_bytes()), i.to_string().as_bytes())
            .unwrap();
    }
    let cut = producer.barrier();
    // Empty turns while the broker is away are no errors.
    for _ in 0..20 {
        reader
            .poll(100, Duration::from_millis(20), &mut |r| {
                take(
                    r.partition,
                    r.number,
                    std::str::from_utf8(r.value.unwrap()).unwrap(),
                );
            })
            .unwrap();
    }
    broker.set_down(false);
    producer.sync(cut).unwrap();
    read(&mut *reader, 100, &mut take, |p| {
        p.iter().map(|p| p.next.offset).sum::<i64>() >= 2_000
    });
    assert!(seen.iter().all(|&times| times == 1));
}

#[test]
fn the_feed_waits_for_the_slowest_reader_and_loses_nothing() {
    const RECORDS: u64 = 12_000;
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    let consumed = Arc::new(AtomicI64::new(0));
    let position = consumed.clone();
    let feed = GeneratorFeed::open(
        &cluster(&broker),
        "clicks",
        Box::new(move |_| position.load(Ordering::Relaxed)),
    )
    .unwrap();
    // 12 MB through a partition that keeps 5.
    let filler = "x".repeat(1_000);
    let written = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..RECORDS {
                feed.send(None, format!("{i} {filler}").as_bytes(), &|| false)
                    .unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let until = Instant::now() + PATIENCE;
        while written.load(Ordering::Relaxed) < 2_000 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        let source = source(&broker, "clicks");
        let mut reader = source.reader(partitions(&source, false)).unwrap();
        let mut expected = 0;
        read(
            &mut *reader,
            300,
            |_, offset, text| {
                assert_eq!(offset, expected, "the broker dropped records");
                assert_eq!(text.split(' ').next(), Some(expected.to_string().as_str()));
                expected += 1;
            },
            |p| {
                consumed.store(p[0].next.offset, Ordering::Relaxed);
                p[0].next.offset == RECORDS as i64
            },
        );
    });
    feed.finish().unwrap();
}

#[test]
fn rows_become_json_records_with_the_name_of_their_step() {
    let broker = EmbeddedBroker::start(&[("results", 1)]).unwrap();
    let columns = RecordBatch::try_from_iter([
        (
            "user",
            Arc::new(StringArray::from(vec!["ann", "bob"])) as Arc<dyn arrow::array::Array>,
        ),
        ("count", Arc::new(Int64Array::from(vec![Some(1), None]))),
    ])
    .unwrap();
    let input = |label: &str| plan::SinkInput {
        label: label.to_owned(),
        input: plan::Input::Source(0),
        schema: columns.schema(),
    };
    let sink = KafkaSink::open(
        &plan::Sink {
            name: "results".into(),
            inputs: vec![input("sessions"), input("anomalies.late")],
            connector: plan::SinkConnector::Kafka {
                cluster: cluster(&broker),
                topic: "results".into(),
                key: vec![vec![0], vec![]],
            },
        },
        None,
    )
    .unwrap();
    let batch = Batch {
        columns,
        times: vec![0, 0].into(),
        origins: None,
    };
    sink.write(0, &batch).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    sink.write(1, &batch.slice(1, 1)).unwrap();
    sink.sync(&sink.cut(false).unwrap()).unwrap();
    assert_eq!(sink.rows(), 3);

    let source = source(&broker, "results");
    let mut reader = source.reader(partitions(&source, true)).unwrap();
    let mut texts = Vec::new();
    read(
        &mut *reader,
        10,
        |_, _, text| texts.push(text.to_owned()),
        finished,
    );
    assert_eq!(
        texts,
        [
            r#"{"step":"sessions","user":"ann","count":1}"#,
            r#"{"step":"sessions","user":"bob","count":null}"#,
            r#"{"step":"anomalies.late","user":"bob","count":null}"#,
        ]
    );
}

#[test]
fn a_dead_letter_names_topic_partition_and_offset() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    let position = source(&broker, "clicks").describe(3, 41);
    assert_eq!(
        position,
        json!({ "topic": "clicks", "partition": 3, "offset": 41 })
    );
}

#[test]
fn positions_of_decided_checkpoints_are_committed_for_monitors() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    write(&broker, "clicks", (0..10).map(|i| (0, i.to_string())));
    let source = source(&broker, "clicks");
    let parts = partitions(&source, false);
    let until = Instant::now() + PATIENCE;
    while source.committed(&parts) != [Some(8)] {
        assert!(Instant::now() < until);
        source.decided(&BTreeMap::from([(
            0,
            Position {
                offset: 8,
                record: 8,
            },
        )]));
    }
}
