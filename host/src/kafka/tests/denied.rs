//! Readers that are not read from for long, or may not read: rights that a running source loses and gets back, and a
//! pipeline that takes nothing for longer than a consumer group would stand.

use super::*;

/// Polls until `done`; what goes wrong is returned.
fn poll_until(
    reader: &mut dyn Reader,
    mut done: impl FnMut(&[Progress], &[i64]) -> bool,
) -> Result<Vec<i64>, ConnectorError> {
    let until = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while !done(&reader.progress(), &seen) {
        assert!(Instant::now() < until, "stuck at {:?}", reader.progress());
        reader.poll(100, Duration::from_millis(20), &mut |r| seen.push(r.number))?;
    }
    Ok(seen)
}

#[test]
fn a_topic_that_may_not_be_read_from_the_first_is_an_error() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    write(&broker, "clicks", [(1, "a".into())].into_iter());
    let source = source(&broker, "clicks");
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    broker.deny_fetches(100);
    let error = poll_until(&mut *reader, |_, _| false).unwrap_err();
    let error = error.to_string();
    for part in [
        "source clicks",
        "may not read topic clicks",
        "grant it READ",
    ] {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn rights_that_are_taken_away_are_waited_for() {
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    write(&broker, "clicks", (0..3).map(|i| (i, i.to_string())));
    let source = source(&broker, "clicks");
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    let caught_up = |progress: &[Progress], _: &[i64]| progress[0].caught_up;
    assert_eq!(poll_until(&mut *reader, caught_up).unwrap(), [0, 1, 2]);
    assert_eq!(source.waiting(), None);

    // Nothing new comes, so only that it can be read again tells.
    broker.deny_fetches(3);
    let waits = |progress: &[Progress], _: &[i64]| {
        let waiting = source.waiting();
        assert!(waiting.is_none() || !progress[0].caught_up);
        waiting.is_some_and(|why| why.contains("topic clicks"))
    };
    assert_eq!(poll_until(&mut *reader, waits).unwrap(), Vec::<i64>::new());
    let granted =
        |progress: &[Progress], _: &[i64]| progress[0].caught_up && source.waiting().is_none();
    assert_eq!(
        poll_until(&mut *reader, granted).unwrap(),
        Vec::<i64>::new()
    );

    broker.deny_fetches(3);
    poll_until(&mut *reader, waits).unwrap();
    write(&broker, "clicks", (3..6).map(|i| (i, i.to_string())));
    assert_eq!(poll_until(&mut *reader, granted).unwrap(), [3, 4, 5]);
}

/// A group would throw out a member that polls so seldom; partitions assigned by hand stay.
#[test]
fn backpressure_longer_than_a_group_would_stand_costs_nothing() {
    const PATIENT_FOR: Duration = Duration::from_millis(1_000);
    let broker = EmbeddedBroker::start(&[("clicks", 1)]).unwrap();
    write(&broker, "clicks", (0..500).map(|i| (i, i.to_string())));
    let source = source(&broker, "clicks");
    let parts = partitions(&source, false);
    let link = Arc::new(link::Link::new("source clicks".into()));
    let consumer = || {
        let mut config = rdkafka::ClientConfig::new();
        let millis = PATIENT_FOR.as_millis().to_string();
        config
            .set("bootstrap.servers", broker.bootstrap())
            .set("group.id", "test")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("session.timeout.ms", &millis)
            .set("max.poll.interval.ms", &millis);
        let context = context::SourceContext::new(link.clone());
        Ok(config.create_with_context(context).unwrap())
    };
    let asked = queue::Asked::default();
    let topics = ["clicks".to_owned()];
    let rule = plan::OnDataLoss::Stop;
    let mut reader =
        reader::KafkaReader::open(&topics, link.clone(), parts, asked, rule, consumer).unwrap();
    let some = |_: &[Progress], seen: &[i64]| !seen.is_empty();
    let mut seen = poll_until(&mut reader, some).unwrap();
    // Time is what this is about.
    let until = Instant::now() + 3 * PATIENT_FOR;
    while Instant::now() < until {
        std::thread::park_timeout(until - Instant::now());
    }
    let caught_up = |progress: &[Progress], _: &[i64]| progress[0].caught_up;
    seen.extend(poll_until(&mut reader, caught_up).unwrap());
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
}
