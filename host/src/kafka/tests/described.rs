//! Topics as the cluster describes them.

use super::*;
use crate::kafka::link::{Asking, Link};

#[test]
fn topics_are_described_with_their_ids_and_what_is_missing_says_so() {
    let broker = EmbeddedBroker::start(&[("clicks", 3), ("orders", 1)]).unwrap();
    let link = Arc::new(Link::new("test".into()));
    let consumer: rdkafka::consumer::BaseConsumer<Asking> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create_with_context(Asking(link))
        .unwrap();
    let names = ["clicks".to_owned(), "orders".to_owned(), "none".to_owned()];
    let within = Duration::from_secs(10);
    let asked = identity::broker(&consumer, "clicks", within).unwrap();
    let found = identity::describe(&consumer, &names, asked, within).unwrap();
    let clicks = found["clicks"].as_ref().unwrap();
    let orders = found["orders"].as_ref().unwrap();
    assert_eq!((clicks.partitions, orders.partitions), (3, 1));
    assert_ne!(clicks.id, orders.id);
    assert_eq!(clicks.id.as_ref().map(String::len), Some(22));
    assert!(found["none"].is_err(), "{found:?}");
    let again = identity::describe(&consumer, &names[..1], asked, within).unwrap();
    assert_eq!(again["clicks"].as_ref().unwrap(), clicks);
}
