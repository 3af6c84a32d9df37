//! The topics of a source and the numbers of their partitions.
//!
//! A partition's number is its topic's place in the order in which topics were first seen, then its number in the topic.
//! That order is kept in the state, so numbers stay what they are when topics come and go.
//! Invariant: a topic is only ever added behind the others.

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::admin;
use super::link::Link;
use crate::error::ConnectorError;
use crate::pipeline::plan::{Topics, topic_pattern};

/// Partitions that one topic may have, and topics that one source may have.
const PARTITIONS_MAX: u32 = 1 << 16;

/// Topics in the order in which they got their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbering(Vec<String>);

impl Numbering {
    pub fn new(topics: Vec<String>) -> Self {
        Self(topics)
    }

    pub fn topics(&self) -> &[String] {
        &self.0
    }

    /// The place of `topic`, behind the others if it is new.
    pub fn place(&mut self, topic: &str) -> usize {
        match self.0.iter().position(|known| known == topic) {
            Some(place) => place,
            None => {
                self.0.push(topic.to_owned());
                self.0.len() - 1
            }
        }
    }

    /// The topic and the partition's number in it; `None` for a number that was never given.
    pub fn split(&self, id: u32) -> Option<(&str, i32)> {
        let (place, partition) = split(id);
        Some((self.0.get(place)?, partition))
    }
}

/// The number of a partition; `None` if there are too many.
pub(super) fn id(place: usize, partition: u32) -> Option<u32> {
    let place = u32::try_from(place).ok().filter(|&p| p < PARTITIONS_MAX)?;
    (partition < PARTITIONS_MAX).then_some(place * PARTITIONS_MAX + partition)
}

/// The place of the topic, and the partition's number in it.
pub(super) fn split(id: u32) -> (usize, i32) {
    ((id / PARTITIONS_MAX) as usize, (id % PARTITIONS_MAX) as i32)
}

/// The topics there are: those named, which must exist by themselves, or those like the pattern, by name.
pub(super) fn find<C: ConsumerContext>(
    topics: &Topics,
    consumer: &BaseConsumer<C>,
    link: &Link,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<String>, ConnectorError> {
    let pattern = match topics {
        Topics::Named(names) => return Ok(names.clone()),
        Topics::Pattern(pattern) => pattern,
    };
    let all = admin::ask(consumer, link, stop, |timeout| {
        let metadata = consumer.client().fetch_metadata(None, timeout)?;
        let names = metadata.topics().iter().map(|t| t.name().to_owned());
        Ok(names.collect::<Vec<_>>())
    })?;
    let found = like(pattern, all).map_err(|cause| link.failed(cause))?;
    if found.is_empty() {
        return Err(link.failed(format!(
            "no topic is like `{pattern}`; create one, or correct the pattern in the pipeline file"
        )));
    }
    Ok(found)
}

/// The topics of `all` that the pattern matches as a whole, in order; Kafka's and the host's own are left out.
pub(super) fn like(pattern: &str, all: Vec<String>) -> Result<Vec<String>, String> {
    let pattern = topic_pattern(pattern)?;
    let mut found: Vec<String> = all
        .into_iter()
        .filter(|name| !name.starts_with("__") && pattern.is_match(name))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The topics as an error or a log line names them.
pub(super) fn shown(topics: &Topics) -> String {
    match topics {
        Topics::Named(names) if names.len() == 1 => format!("topic {}", names[0]),
        Topics::Named(names) => format!("topics {}", names.join(", ")),
        Topics::Pattern(pattern) => format!("topics like {pattern}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_when_topics_come() {
        let mut numbering = Numbering::new(vec!["b".into()]);
        assert_eq!(numbering.place("b"), 0);
        assert_eq!(numbering.place("a"), 1);
        assert_eq!(numbering.place("b"), 0);
        assert_eq!(
            id(0, 7),
            Some(7),
            "a single topic's partitions have their own numbers"
        );
        let number = id(1, 7).unwrap();
        assert_eq!(split(number), (1, 7));
        assert_eq!(numbering.split(number), Some(("a", 7)));
        assert_eq!(numbering.split(id(2, 0).unwrap()), None);
        assert_eq!(id(0, 1 << 16), None);
        assert_eq!(id(1 << 16, 0), None);
    }

    #[test]
    fn a_pattern_is_for_whole_names() {
        let all = [
            "orders-2",
            "orders-1",
            "my-orders-1",
            "orders-1-old",
            "__orders-1",
            "orders",
        ];
        let all: Vec<String> = all.map(String::from).to_vec();
        assert_eq!(
            like("orders-[0-9]+", all.clone()).unwrap(),
            ["orders-1", "orders-2"]
        );
        assert_eq!(like("orders|x", all.clone()).unwrap(), ["orders"]);
        assert!(like("nothing", all.clone()).unwrap().is_empty());
        assert!(like("a(", all).is_err());
    }
}
