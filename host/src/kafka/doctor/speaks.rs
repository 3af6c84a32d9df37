//! Which requests a broker understands, as librdkafka learns it when it connects.
//!
//! librdkafka does not hand the list out; it logs it, and that is read here. Lines of another form are passed over: then
//! less is known, and nothing is guessed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::kafka::link::Link;

/// Kafka's number of a request.
pub type Api = i16;

const PRODUCE: Api = 0;
/// What exactly-once output needs.
const TRANSACTIONAL: &[(Api, &str)] = &[
    (22, "InitProducerId"),
    (24, "AddPartitionsToTxn"),
    (25, "AddOffsetsToTxn"),
    (26, "EndTxn"),
    (28, "TxnOffsetCommit"),
];
/// The first Kafka release that understands a version of Produce, newest first.
const RELEASES: &[(i16, &str)] = &[
    (13, "4.1"),
    (12, "4.0"),
    (11, "3.8"),
    (10, "3.7"),
    (9, "2.8"),
    (8, "2.4"),
    (7, "2.1"),
    (3, "0.11"),
];

/// The version of DescribeLogDirs that came with 4.3, in which nothing about transactions changed.
const WITH_4_3: (Api, i16) = (35, 5);

/// The requests of a broker with their highest versions. Empty: unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Speaks(BTreeMap<Api, i16>);

impl Speaks {
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest Apache Kafka that understands as much; others that speak its protocol have versions of their own.
    pub fn release(&self) -> Option<&'static str> {
        if self.is_4_3() {
            return Some("4.3");
        }
        let highest = *self.0.get(&PRODUCE)?;
        let known = RELEASES.iter().find(|(version, _)| *version <= highest);
        known.map(|(_, release)| *release)
    }

    /// Apache Kafka 4.3 or newer. 4.3.0 and 4.3.1 lose the marks of transactions when a broker is killed.
    pub fn is_4_3(&self) -> bool {
        let (api, version) = WITH_4_3;
        self.0.get(&api).is_some_and(|highest| *highest >= version)
    }

    /// Names of the requests that transactions need and the broker does not understand.
    pub fn lacks_for_transactions(&self) -> Vec<&'static str> {
        let lacks = |(api, _): &&(Api, &str)| !self.0.contains_key(api);
        TRANSACTIONAL
            .iter()
            .filter(lacks)
            .map(|(_, name)| *name)
            .collect()
    }

    /// Takes what a line of librdkafka's log says: `.. ApiKey Produce (0) Versions 0..13`.
    fn hear(&mut self, line: &str) {
        if let Some((api, highest)) = spoken(line) {
            self.0.insert(api, highest);
        }
    }
}

impl FromIterator<(Api, i16)> for Speaks {
    fn from_iter<I: IntoIterator<Item = (Api, i16)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

fn spoken(line: &str) -> Option<(Api, i16)> {
    let (_, rest) = line.split_once("ApiKey ")?;
    let (_, rest) = rest.split_once(" (")?;
    let (api, rest) = rest.split_once(") Versions ")?;
    let (_, highest) = rest.trim_end().split_once("..")?;
    Some((api.parse().ok()?, highest.parse().ok()?))
}

/// Context of a client that listens to what the broker speaks.
pub(super) struct Hearing {
    link: Arc<Link>,
    heard: Heard,
}

/// What was heard so far.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Speaks>>);

impl Heard {
    pub fn speaks(&self) -> Speaks {
        self.with(|speaks| speaks.clone())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Speaks) -> T) -> T {
        f(&mut self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl Hearing {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            heard: Heard::default(),
        }
    }

    pub(super) fn spoken(&self) -> Heard {
        self.heard.clone()
    }
}

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        match facility {
            "APIVERSION" => self.heard.with(|speaks| speaks.hear(line)),
            _ if matches!(level, RDKafkaLogLevel::Debug) => {}
            _ => self.link.hear_log(facility, line),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.link.hear_error(&error, reason);
    }
}

impl ConsumerContext for Hearing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_what_a_broker_speaks() {
        let mut speaks = Speaks::default();
        assert!(speaks.is_unknown() && speaks.release().is_none());
        for line in [
            "[thrd:localhost:9092/bootstrap]: localhost:9092/bootstrap: Broker API support:",
            "[thrd:localhost:9092/bootstrap]: localhost:9092/bootstrap:   ApiKey Produce (0) Versions 0..12",
            "[thrd:localhost:9092/bootstrap]: localhost:9092/bootstrap:   ApiKey EndTxn (26) Versions 0..5",
            "ApiKey Unknown-99? (99) Versions 0..x",
            "ApiKey",
        ] {
            speaks.hear(line);
        }
        assert_eq!(speaks, Speaks::from_iter([(0, 12), (26, 5)]));
        assert_eq!(speaks.release(), Some("4.0"));
        assert_eq!(speaks.lacks_for_transactions().len(), 4);
    }

    #[test]
    fn a_broker_older_than_all_we_know_has_no_release() {
        assert_eq!(Speaks::from_iter([(0, 2)]).release(), None);
        assert_eq!(Speaks::from_iter([(0, 99)]).release(), Some("4.1"));
        let newer = Speaks::from_iter([(0, 13), (35, 5)]);
        assert!(newer.is_4_3() && newer.release() == Some("4.3"));
        assert!(!Speaks::from_iter([(0, 13), (35, 4)]).is_4_3());
    }
}
