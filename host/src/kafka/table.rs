//! A compacted topic as a table: its records from the beginning on, and when those are read that were there at first.

use std::collections::BTreeMap;
use std::time::Duration;

use super::source::KafkaSource;
use crate::error::ConnectorError;
use crate::limits::EPOCH_RECORDS_MAX;
use crate::pipeline::plan::{Cluster, Start, Topics};
use crate::source::{Partition, Reader, Source};
use crate::table::{Change, Changelog};

/// The records of one topic, all partitions, read on for ever.
pub struct KafkaTable {
    reader: Box<dyn Reader>,
    /// Where each partition ended when the topic was opened.
    ends: BTreeMap<u32, i64>,
}

impl KafkaTable {
    /// Begins to read `topic` for the table `name`. Waits for a broker that is away until `stop` says true.
    pub fn open(
        name: &str,
        pipeline: &str,
        cluster: &Cluster,
        topic: &str,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, ConnectorError> {
        let topics = Topics::Named(vec![topic.to_owned()]);
        let what = format!("table {name}");
        let source = KafkaSource::of(&what, pipeline, cluster, topics, Start::Earliest);
        let found = source.partitions(&BTreeMap::new(), &BTreeMap::new(), true, stop)?;
        let ends = found.iter().filter_map(|p| Some((p.id, p.end?))).collect();
        let unending = found.into_iter().map(|p| Partition { end: None, ..p });
        Ok(Self {
            reader: source.reader(unending.collect())?,
            ends,
        })
    }
}

impl Changelog for KafkaTable {
    fn poll(
        &mut self,
        wait: Duration,
        each: &mut dyn FnMut(Change<'_>),
    ) -> Result<(), ConnectorError> {
        self.reader.poll(EPOCH_RECORDS_MAX, wait, &mut |record| {
            each(Change {
                key: record.about.key,
                value: record.value,
                partition: record.partition,
                offset: record.number,
            });
        })
    }

    fn is_complete(&self) -> bool {
        let reached = |id: &u32, offset| self.ends.get(id).is_none_or(|&end| offset >= end);
        let progress = self.reader.progress();
        progress
            .iter()
            .all(|p| reached(&p.partition, p.next.offset))
    }
}
