//! A broker that is away must not hold up who closes.

use super::*;

#[test]
fn what_is_open_closes_quickly_while_the_broker_is_away() {
    let broker = EmbeddedBroker::start(&[("clicks", 2)]).unwrap();
    write(&broker, "clicks", (0..10).map(|i| (i, i.to_string())));
    let source = source(&broker, "clicks");
    let mut reader = source.reader(partitions(&source, false)).unwrap();
    let producer = TopicProducer::open("sink results", &cluster(&broker), "clicks").unwrap();
    read(
        &mut *reader,
        10,
        |_, _, _| {},
        |p| p.iter().all(|p| p.caught_up),
    );
    broker.set_down(true);
    producer.send(None, b"never acknowledged").unwrap();
    reader
        .poll(10, Duration::from_millis(20), &mut |_| {})
        .unwrap();
    let begun = Instant::now();
    drop((reader, source, producer));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}
