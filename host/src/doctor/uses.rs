//! Which clusters a pipeline uses, and each for what.

use crate::pipeline::plan::{
    Brokers, Cluster, DeadLetters, Plan, SinkConnector, SourceConnector, TableConnector, Topics,
};

/// What one cluster is used for. `who` is a source, table or sink as errors name it.
#[derive(Debug)]
pub(super) struct Uses {
    pub cluster: Cluster,
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
}

#[derive(Debug)]
pub(super) struct Read {
    pub who: String,
    pub topics: Topics,
    /// Its records are a table's changes: the last of a key counts.
    pub is_table: bool,
}

#[derive(Debug)]
pub(super) struct Write {
    pub who: String,
    pub topic: String,
}

impl Uses {
    /// How findings name the cluster.
    pub fn hosts(&self) -> &str {
        match &self.cluster.brokers {
            Brokers::Embedded => "embedded",
            Brokers::At(hosts) => hosts,
        }
    }
}

/// The clusters in the order in which the file's sources, tables and sinks name them. The same brokers with other
/// properties (another user) are another cluster here.
pub(super) fn clusters(plan: &Plan) -> Vec<Uses> {
    let mut all = Vec::new();
    for source in &plan.sources {
        if let SourceConnector::Kafka {
            cluster, topics, ..
        } = &source.connector
        {
            of(&mut all, cluster).reads.push(Read {
                who: format!("source {}", source.name),
                topics: topics.clone(),
                is_table: false,
            });
        }
    }
    for table in &plan.tables {
        if let TableConnector::Kafka { cluster, topic } = &table.connector {
            of(&mut all, cluster).reads.push(Read {
                who: format!("table {}", table.name),
                topics: Topics::Named(vec![topic.clone()]),
                is_table: true,
            });
        }
    }
    for sink in &plan.sinks {
        if let SinkConnector::Kafka { cluster, topic, .. } = &sink.connector {
            of(&mut all, cluster).writes.push(Write {
                who: format!("sink {}", sink.name),
                topic: topic.clone(),
            });
        }
    }
    if let DeadLetters::Kafka { cluster, topic } = &plan.dead_letters {
        of(&mut all, cluster).writes.push(Write {
            who: "dead letters".into(),
            topic: topic.clone(),
        });
    }
    all
}

fn of<'a>(all: &'a mut Vec<Uses>, cluster: &Cluster) -> &'a mut Uses {
    let at = all.iter().position(|uses| uses.cluster == *cluster);
    let at = at.unwrap_or_else(|| {
        all.push(Uses {
            cluster: cluster.clone(),
            reads: Vec::new(),
            writes: Vec::new(),
        });
        all.len() - 1
    });
    &mut all[at]
}
