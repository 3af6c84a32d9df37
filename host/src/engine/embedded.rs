//! A pipeline on the embedded broker: its topics are made, its connections point there, its checkpoints begin anew.
//!
//! The broker forgets all at exit, so positions of an earlier run mean nothing: they live in a directory of their own,
//! emptied at start.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::RunError;
use crate::kafka::EmbeddedBroker;
use crate::pipeline::plan::{
    Brokers, Cluster, DeadLetters, Delivery, Plan, SinkConnector, SourceConnector, TableConnector,
    Topics,
};
use crate::state::store::Store;

/// Partitions of each topic on the embedded broker.
const PARTITIONS: u32 = 4;

/// Starts the embedded broker if `plan` names it, and points the plan at it.
pub fn embed(plan: &mut Plan) -> Result<Option<Arc<EmbeddedBroker>>, RunError> {
    let mut topics = BTreeSet::new();
    for (cluster, named) in connections(plan) {
        if cluster.brokers == Brokers::Embedded {
            topics.extend(named);
        }
    }
    if topics.is_empty() {
        return Ok(None);
    }
    let topics: Vec<_> = topics.iter().map(|t| (t.as_str(), PARTITIONS)).collect();
    let broker = EmbeddedBroker::start(&topics)?;
    for (cluster, _) in connections(plan) {
        if cluster.brokers == Brokers::Embedded {
            cluster.brokers = Brokers::At(broker.bootstrap());
            // Those of the broker that the file is written for: it may want a password, this one knows none.
            cluster.properties.clear();
        }
    }
    // It has no transactions.
    plan.host.delivery = Delivery::AtLeastOnce;
    plan.host.state = plan.host.state.join("embedded");
    if plan.host.state.exists() {
        Store::reset(&plan.host.state)?;
    }
    Ok(Some(Arc::new(broker)))
}

/// Every cluster that the plan names, with its topics there.
fn connections(plan: &mut Plan) -> Vec<(&mut Cluster, Vec<String>)> {
    let mut all = Vec::new();
    for source in &mut plan.sources {
        if let SourceConnector::Kafka {
            cluster,
            topics: Topics::Named(topics),
            ..
        } = &mut source.connector
        {
            all.push((cluster, topics.clone()));
        }
    }
    for table in &mut plan.tables {
        if let TableConnector::Kafka { cluster, topic } = &mut table.connector {
            all.push((cluster, vec![topic.clone()]));
        }
    }
    for sink in &mut plan.sinks {
        if let SinkConnector::Kafka { cluster, topic, .. } = &mut sink.connector {
            all.push((cluster, vec![topic.clone()]));
        }
    }
    if let DeadLetters::Kafka { cluster, topic } = &mut plan.dead_letters {
        all.push((cluster, vec![topic.clone()]));
    }
    all
}
