//! Where reading begins and ends, and which records there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidemill::kafka::{KafkaSource, TopicProducer, admin};
use tidemill::pipeline::plan::Start;
use tidemill::source::{Partition, Progress, Source};

use super::{PATIENCE, Test, at, broker, caught_up, finished, partitions, read_until, source};

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_start_rules", start_rules),
        (
            "kafka_only_committed_records_are_read",
            only_committed_records,
        ),
        (
            "kafka_an_open_transaction_is_unread_input",
            open_transaction,
        ),
        ("kafka_deleted_records_are_an_error", deleted_records),
        (
            "kafka_deleted_while_running_begins_again",
            deleted_while_running,
        ),
        (
            "kafka_uncommitted_records_are_read_where_that_is_asked_for",
            uncommitted_records,
        ),
        ("kafka_unknown_topic_is_not_created", unknown_topic),
        (
            "kafka_tombstones_and_large_records",
            tombstones_and_large_records,
        ),
        ("kafka_partitions_take_turns", partitions_take_turns),
        ("kafka_a_held_partition_loses_nothing", held_partition),
        ("kafka_group_offsets_of_decided_checkpoints", group_offsets),
    ]
}

fn start_rules() {
    let broker = broker();
    let topic = broker.topic("start", 2);
    broker.produce(
        &topic,
        0,
        [(1_000, Some("a")), (2_000, Some("b")), (3_000, Some("c"))],
    );
    broker.produce(&topic, 1, [(2_500, Some("d"))]);
    let starts = |start| {
        let parts = partitions(&source(broker, &topic, start), false);
        parts.iter().map(|p| p.start.offset).collect::<Vec<_>>()
    };
    assert_eq!(starts(Start::Earliest), [0, 0]);
    assert_eq!(starts(Start::Latest), [3, 1]);
    // Microseconds; a record of just that time is read.
    assert_eq!(starts(Start::At(2_000_000)), [1, 0]);
    assert_eq!(starts(Start::At(2_000_001)), [2, 0]);
    assert_eq!(starts(Start::At(2_600_000)), [2, 1]);
    assert_eq!(starts(Start::At(9_000_000)), [3, 1]);
    assert_eq!(starts(Start::At(-5_000_000)), [0, 0]);

    let latest = source(broker, &topic, Start::At(2_600_000));
    let mut reader = latest.reader(partitions(&latest, true)).unwrap();
    assert_eq!(read_until(&mut *reader, finished), ["c"]);
}

fn only_committed_records() {
    let broker = broker();
    let topic = broker.topic("committed", 1);
    broker.transaction(&topic, 0, &["a", "b"]).commit();
    broker.transaction(&topic, 0, &["never"]).abort();
    broker.produce(&topic, 0, [(1, Some("c"))]);
    broker.transaction(&topic, 0, &["never"]).abort();

    let source = source(broker, &topic, Start::Earliest);
    // 5 records and a control record for each of 3 transactions.
    let parts = ended_at(&source, 8);
    let mut reader = source.reader(parts).unwrap();
    assert_eq!(read_until(&mut *reader, finished), ["a", "b", "c"]);
    assert_eq!(reader.progress()[0].next.offset, 8);

    // The position beyond control records is one to go on from.
    broker.produce(&topic, 0, [(1, Some("d"))]);
    let parts = source
        .partitions(&at(8), &BTreeMap::new(), true, &|| false)
        .unwrap();
    let mut reader = source.reader(parts).unwrap();
    assert_eq!(read_until(&mut *reader, finished), ["d"]);
}

/// The one partition once it ends at `end`: the broker writes the marker of an ended transaction after it has answered.
fn ended_at(source: &KafkaSource, end: i64) -> Vec<Partition> {
    let until = Instant::now() + PATIENCE;
    loop {
        let parts = partitions(source, true);
        if parts[0].end == Some(end) {
            return parts;
        }
        assert!(
            Instant::now() < until,
            "ends at {:?}, expected {end}",
            parts[0].end
        );
    }
}

fn open_transaction() {
    let broker = broker();
    let topic = broker.topic("open", 1);
    broker.produce(&topic, 0, [(1, Some("a"))]);
    let open = broker.transaction(&topic, 0, &["b"]);

    let source = source(broker, &topic, Start::Earliest);
    // A bounded run ends before it.
    let parts = partitions(&source, true);
    assert_eq!(parts[0].end, Some(1));
    let mut bounded = source.reader(parts).unwrap();
    assert_eq!(read_until(&mut *bounded, finished), ["a"]);

    // One that is not bounded has unread input until it is decided.
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    assert_eq!(read_until(&mut *reader, |_, count| count == 1), ["a"]);
    let mut values = Vec::new();
    let until = Instant::now() + Duration::from_millis(400);
    while Instant::now() < until {
        reader
            .poll(10, Duration::from_millis(50), &mut |r| {
                values.push(r.number)
            })
            .unwrap();
        assert!(!reader.progress()[0].caught_up);
    }
    assert!(values.is_empty());
    open.commit();
    assert_eq!(read_until(&mut *reader, caught_up), ["b"]);
    assert_eq!(reader.progress()[0].lag, Some(0));
}

fn deleted_records() {
    let broker = broker();
    let topic = broker.topic("deleted", 1);
    broker.produce(&topic, 0, (0..10).map(|_| (1, Some("x"))));
    broker.delete_records(&topic, 0, 5);
    let source = source(broker, &topic, Start::Earliest);
    assert_eq!(partitions(&source, false)[0].start.offset, 5);
    for (wanted, cause) in [(3, "deleted before they were read"), (11, "created anew")] {
        let error = source
            .partitions(&at(wanted), &BTreeMap::new(), false, &|| false)
            .unwrap_err();
        let error = error.to_string();
        let offset = format!("at offset {wanted}");
        for part in [
            "source clicks",
            &topic,
            "partition 0",
            &offset,
            "5 to 10",
            cause,
            "tidemill reset",
        ] {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }
    assert_eq!(
        source
            .partitions(&at(5), &BTreeMap::new(), false, &|| false)
            .unwrap()[0]
            .start
            .offset,
        5
    );
}

fn deleted_while_running() {
    let broker = broker();
    let topic = broker.topic("deleted-later", 1);
    broker.produce(&topic, 0, (0..10).map(|_| (1, Some("x"))));
    let source = source(broker, &topic, Start::Earliest);
    let parts = partitions(&source, false);
    broker.delete_records(&topic, 0, 5);
    let mut reader = source.reader(parts).unwrap();
    let until = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < until);
        if let Err(error) =
            reader.poll(10, Duration::from_millis(50), &mut |r| panic!("read {r:?}"))
        {
            break error.to_string();
        }
    };
    for part in [&topic, "partition 0", "offset 0"] {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
    // What follows is found out where the source is opened again.
    let again = source.partitions(&at(0), &BTreeMap::new(), false, &|| false);
    let error = again.unwrap_err().to_string();
    assert!(error.contains("tidemill reset"), "{error}");
}

/// Where the pipeline file asks for it, records of open and aborted transactions, too.
fn uncommitted_records() {
    let broker = broker();
    let topic = broker.topic("uncommitted", 1);
    broker.transaction(&topic, 0, &["a"]).commit();
    broker.transaction(&topic, 0, &["taken back"]).abort();
    let open = broker.transaction(&topic, 0, &["open"]);
    let mut cluster = broker.cluster();
    let level = ("isolation.level".to_owned(), "read_uncommitted".to_owned());
    cluster.properties.extend([level]);
    let source = KafkaSource::new("clicks", "kafka-tests", &cluster, &topic, Start::Earliest);
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    assert_eq!(
        read_until(&mut *reader, |_, count| count == 3),
        ["a", "taken back", "open"]
    );
    open.abort();
}

/// The broker would create it: automatic creation is on, as it is by default.
fn unknown_topic() {
    let broker = broker();
    let topic = format!("no-such-topic-{}", std::process::id());
    let source = source(broker, &topic, Start::Earliest);
    let error = source
        .partitions(&BTreeMap::new(), &BTreeMap::new(), false, &|| false)
        .unwrap_err();
    assert!(
        error.to_string().contains(&topic) && error.to_string().contains("does not exist"),
        "{error}"
    );
    let error = TopicProducer::open("sink results", &broker.cluster(), &topic)
        .err()
        .expect("no topic");
    assert!(
        error.to_string().contains("sink results") && error.to_string().contains("does not exist"),
        "{error}"
    );
    let topics = admin::topics(&broker.cluster(), PATIENCE).unwrap();
    assert!(topics.iter().all(|(name, _)| *name != topic));
}

fn tombstones_and_large_records() {
    let broker = broker();
    let topic = broker.topic("odd", 1);
    let large = "x".repeat(900_000);
    broker.produce(
        &topic,
        0,
        [(1, Some("a")), (1, None), (1, Some(&large)), (1, Some(""))],
    );
    let source = source(broker, &topic, Start::Earliest);
    let mut reader = source.reader(partitions(&source, true)).unwrap();
    assert_eq!(
        read_until(&mut *reader, finished),
        ["a", "(none)", &large, ""]
    );
}

/// With fetches of some 1,000 records, half of the input is some of every partition.
fn partitions_take_turns() {
    const RECORDS: u64 = 200_000;
    let broker = broker();
    let topic = broker.topic("turns", 4);
    let mut cluster = broker.cluster();
    for (name, value) in [
        ("fetch.message.max.bytes", "65536"),
        ("batch.num.messages", "500"),
        ("compression.codec", "none"),
    ] {
        cluster.properties.insert(name.to_owned(), value.to_owned());
    }
    let producer = TopicProducer::open("test", &cluster, &topic).unwrap();
    for i in 0..RECORDS {
        producer
            .send(Some(&i.to_be_bytes()), format!("{i:0>60}").as_bytes())
            .unwrap();
    }
    producer.sync(producer.barrier()).unwrap();

    let source = KafkaSource::new("clicks", "kafka-tests", &cluster, &topic, Start::Earliest);
    let mut reader = source.reader(partitions(&source, true)).unwrap();
    let read =
        |progress: &[Progress]| -> Vec<i64> { progress.iter().map(|p| p.next.offset).collect() };
    let mut halfway = Vec::new();
    read_until(&mut *reader, |progress, count| {
        halfway = read(progress);
        count as u64 >= RECORDS / 2
    });
    // A quarter of the input lies in each.
    assert!(halfway.iter().all(|&offset| offset > 5_000), "{halfway:?}");
}

/// A partition that is held when its end was reported, and freed when there is more.
fn held_partition() {
    let broker = broker();
    let topic = broker.topic("held", 2);
    broker.produce(&topic, 0, [(1, Some("a"))]);
    let source = source(broker, &topic, Start::Earliest);
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    assert_eq!(read_until(&mut *reader, caught_up), ["a"]);

    for round in ["b", "c"] {
        reader.pause(&[0]);
        broker.produce(&topic, 0, [(1, Some(round)), (1, Some("more"))]);
        broker.produce(&topic, 1, [(1, Some("not held"))]);
        assert_eq!(
            read_until(&mut *reader, |_, count| count == 1),
            ["not held"]
        );
        let progress = reader.progress();
        assert!(!progress[0].caught_up, "{progress:?}");
        reader.pause(&[]);
        assert_eq!(read_until(&mut *reader, caught_up), [round, "more"]);
    }
}

fn group_offsets() {
    let broker = broker();
    let topic = broker.topic("group", 1);
    broker.produce(&topic, 0, (0..10).map(|_| (1, Some("x"))));
    let source = source(broker, &topic, Start::Earliest);
    partitions(&source, false);
    let until = Instant::now() + PATIENCE;
    while broker.committed("kafka-tests", &topic, 0) != Some(7) {
        assert!(Instant::now() < until);
        source.decided(&at(7));
    }
    // Only for monitors: reading begins where the pipeline says.
    assert_eq!(partitions(&source, false)[0].start.offset, 0);
}
