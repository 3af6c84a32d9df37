//! What every Kafka client of the host shares: its configuration, and which errors are worth another try.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::properties::{self, Scope, check_mechanism};
use crate::error::ConnectorError;
use crate::pipeline::plan::{Brokers, Cluster};

/// Whether the operation is worth repeating: the broker or a leader is away, or moving.
pub(super) fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        AllBrokersDown
            | BrokerNotAvailable
            | BrokerTransportFailure
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | DestroyBroker
            | FencedLeaderEpoch
            | KafkaStorageError
            | LeaderNotAvailable
            | NetworkException
            | NotCoordinator
            | NotLeaderForPartition
            | OffsetNotAvailable
            | OperationTimedOut
            | ReplicaNotAvailable
            | RequestTimedOut
            | Resolve
            | SSL
            | TimedOutQueue
            | UnknownLeaderEpoch
            | WaitingForCoordinator
    )
}

/// The cause of a failed call without the values of properties, which may be secret.
pub(super) fn cause(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, cause, name, _) => format!("property {name:?}: {cause}"),
        other => other.to_string(),
    }
}

/// The hosts of a cluster, for messages and for `bootstrap.servers`.
pub(super) fn hosts(cluster: &Cluster) -> &str {
    match &cluster.brokers {
        Brokers::At(hosts) => hosts,
        Brokers::Embedded => "embedded",
    }
}

/// Configuration of a client of `kind` (not [`Scope::Both`]): the defaults, what the pipeline file says, what must be.
pub(super) fn config(
    cluster: &Cluster,
    kind: Scope,
    place: &str,
    defaults: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> Result<ClientConfig, ConnectorError> {
    let Brokers::At(hosts) = &cluster.brokers else {
        return Err(ConnectorError::failed(
            place,
            "the embedded broker was not started",
        ));
    };
    check_mechanism(&cluster.properties).map_err(|cause| ConnectorError::failed(place, cause))?;
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info);
    for (name, value) in COMMON.iter().chain(defaults) {
        config.set(*name, *value);
    }
    for (name, value) in &cluster.properties {
        match properties::scope(name) {
            Some(scope) if scope == kind || scope == Scope::Both => {
                remove_synonym(&mut config, name);
                config.set(name, value);
            }
            Some(_) => {}
            None => {
                let refusal = properties::check_property(name, value)
                    .err()
                    .unwrap_or_default();
                return Err(ConnectorError::failed(place, refusal));
            }
        }
    }
    for (name, value) in fixed {
        config.set(*name, *value);
    }
    config.set("bootstrap.servers", hosts);
    Ok(config)
}

const COMMON: &[(&str, &str)] = &[
    ("client.id", "tidemill"),
    ("log.connection.close", "false"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
    // OpenSSL is linked in and does not know where this system keeps its certificates.
    ("ssl.ca.location", "probe"),
];

/// A default of ours must not fight with what the pipeline file says under librdkafka's other name for it.
fn remove_synonym(config: &mut ClientConfig, name: &str) {
    const SYNONYMS: &[(&str, &str)] = &[
        ("compression.type", "compression.codec"),
        ("delivery.timeout.ms", "message.timeout.ms"),
        ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
        ("queue.buffering.max.ms", "linger.ms"),
    ];
    if let Some((_, ours)) = SYNONYMS.iter().find(|(theirs, _)| *theirs == name) {
        config.remove(ours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn cluster(properties: &[(&str, &str)]) -> Cluster {
        Cluster {
            brokers: Brokers::At("localhost:1".into()),
            properties: properties
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
        }
    }

    #[test]
    fn the_pipeline_file_beats_defaults_but_not_what_must_be() {
        let cluster = cluster(&[("compression.type", "zstd"), ("fetch.min.bytes", "9")]);
        let defaults = [("compression.codec", "lz4"), ("linger.ms", "5")];
        let config = config(
            &cluster,
            Scope::Producer,
            "x",
            &defaults,
            &[("acks", "all")],
        )
        .unwrap();
        assert_eq!(config.get("compression.type"), Some("zstd"));
        assert_eq!(config.get("compression.codec"), None);
        assert_eq!(config.get("linger.ms"), Some("5"));
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("fetch.min.bytes"), None);
    }

    #[test]
    fn what_the_list_refuses_reaches_no_client() {
        let refused = cluster(&[("sasl.kerberos.kinit.cmd", "rm")]);
        let error = config(&refused, Scope::Consumer, "source clicks", &[], &[]).unwrap_err();
        assert!(error.to_string().contains("source clicks"), "{error}");
        let embedded = Cluster {
            brokers: Brokers::Embedded,
            properties: BTreeMap::new(),
        };
        assert!(config(&embedded, Scope::Consumer, "x", &[], &[]).is_err());
    }
}
