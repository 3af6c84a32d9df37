//! The librdkafka properties a pipeline file may set.
//!
//! An allow-list: librdkafka can run shell commands and load libraries from its properties, and some of them would break
//! what the engine promises. What is not listed is refused, with the reason where there is one.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

/// Which clients a property is for; librdkafka warns about one that is given to the wrong kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Both,
    Consumer,
    Producer,
}

const ALLOWED: &[(&str, Scope)] = &[
    ("batch.num.messages", Scope::Producer),
    ("batch.size", Scope::Producer),
    ("broker.address.family", Scope::Both),
    ("check.crcs", Scope::Consumer),
    ("client.dns.lookup", Scope::Both),
    ("client.id", Scope::Both),
    ("client.rack", Scope::Consumer),
    ("compression.codec", Scope::Producer),
    ("compression.level", Scope::Producer),
    ("compression.type", Scope::Producer),
    ("connections.max.idle.ms", Scope::Both),
    ("delivery.timeout.ms", Scope::Producer),
    ("enable.ssl.certificate.verification", Scope::Both),
    ("fetch.error.backoff.ms", Scope::Consumer),
    ("fetch.max.bytes", Scope::Consumer),
    ("fetch.message.max.bytes", Scope::Consumer),
    ("fetch.min.bytes", Scope::Consumer),
    ("fetch.queue.backoff.ms", Scope::Consumer),
    ("fetch.wait.max.ms", Scope::Consumer),
    ("isolation.level", Scope::Consumer),
    ("linger.ms", Scope::Producer),
    ("max.partition.fetch.bytes", Scope::Consumer),
    ("message.max.bytes", Scope::Both),
    ("message.timeout.ms", Scope::Producer),
    ("metadata.max.age.ms", Scope::Both),
    ("partitioner", Scope::Producer),
    ("queue.buffering.max.kbytes", Scope::Producer),
    ("queue.buffering.max.messages", Scope::Producer),
    ("queue.buffering.max.ms", Scope::Producer),
    ("queued.max.messages.kbytes", Scope::Consumer),
    ("queued.min.messages", Scope::Consumer),
    ("receive.message.max.bytes", Scope::Both),
    ("reconnect.backoff.max.ms", Scope::Both),
    ("reconnect.backoff.ms", Scope::Both),
    ("request.timeout.ms", Scope::Producer),
    ("retry.backoff.max.ms", Scope::Both),
    ("retry.backoff.ms", Scope::Both),
    ("sasl.kerberos.keytab", Scope::Both),
    ("sasl.kerberos.principal", Scope::Both),
    ("sasl.kerberos.service.name", Scope::Both),
    ("sasl.mechanism", Scope::Both),
    ("sasl.mechanisms", Scope::Both),
    ("sasl.password", Scope::Both),
    ("sasl.username", Scope::Both),
    ("security.protocol", Scope::Both),
    ("socket.connection.setup.timeout.ms", Scope::Both),
    ("socket.keepalive.enable", Scope::Both),
    ("socket.nagle.disable", Scope::Both),
    ("socket.receive.buffer.bytes", Scope::Both),
    ("socket.send.buffer.bytes", Scope::Both),
    ("socket.timeout.ms", Scope::Both),
    ("ssl.ca.location", Scope::Both),
    ("ssl.ca.pem", Scope::Both),
    ("ssl.certificate.location", Scope::Both),
    ("ssl.certificate.pem", Scope::Both),
    ("ssl.cipher.suites", Scope::Both),
    ("ssl.crl.location", Scope::Both),
    ("ssl.curves.list", Scope::Both),
    ("ssl.endpoint.identification.algorithm", Scope::Both),
    ("ssl.key.location", Scope::Both),
    ("ssl.key.password", Scope::Both),
    ("ssl.key.pem", Scope::Both),
    ("ssl.keystore.location", Scope::Both),
    ("ssl.keystore.password", Scope::Both),
    ("ssl.sigalgs.list", Scope::Both),
    ("topic.metadata.refresh.interval.ms", Scope::Both),
];

const REFUSED: &[(&str, &str)] = &[
    (
        "acks",
        "output is always acknowledged by all in-sync replicas",
    ),
    (
        "allow.auto.create.topics",
        "topics are created by you, not by a typing mistake",
    ),
    (
        "auto.commit.interval.ms",
        "positions are part of Tidemill's checkpoint",
    ),
    ("auto.offset.reset", "say it with the source's `start`"),
    ("bootstrap.servers", "write it as `brokers`"),
    (
        "enable.auto.commit",
        "positions are part of Tidemill's checkpoint",
    ),
    (
        "enable.auto.offset.store",
        "positions are part of Tidemill's checkpoint",
    ),
    ("enable.gapless.guarantee", "Tidemill sets it itself"),
    ("enable.idempotence", "output is always idempotent"),
    (
        "enable.partition.eof",
        "Tidemill needs it to know that it has caught up",
    ),
    ("group.id", "the pipeline's name is the group"),
    (
        "group.protocol",
        "partitions are assigned by Tidemill, not by a group",
    ),
    (
        "group.instance.id",
        "partitions are assigned by Tidemill, not by a group",
    ),
    ("max.in.flight", "the order of output depends on it"),
    (
        "max.in.flight.requests.per.connection",
        "the order of output depends on it",
    ),
    (
        "message.send.max.retries",
        "output is written again until it is acknowledged",
    ),
    ("metadata.broker.list", "write it as `brokers`"),
    (
        "partition.assignment.strategy",
        "partitions are assigned by Tidemill, not by a group",
    ),
    ("plugin.library.paths", "it loads native code into the host"),
    (
        "request.required.acks",
        "output is always acknowledged by all in-sync replicas",
    ),
    (
        "retries",
        "output is written again until it is acknowledged",
    ),
    ("sasl.kerberos.kinit.cmd", "it runs a shell command"),
    (
        "session.timeout.ms",
        "partitions are assigned by Tidemill, not by a group",
    ),
    ("ssl.engine.location", "it loads native code into the host"),
    ("ssl.providers", "it loads native code into the host"),
    (
        "statistics.interval.ms",
        "Tidemill sets it: statistics tell whether a request was repeated",
    ),
    (
        "transaction.timeout.ms",
        "say it with `transaction_timeout` under [host]",
    ),
    (
        "transactional.id",
        "Tidemill derives it from the pipeline's name",
    ),
];

/// Properties whose value must not appear in any text.
const SECRET: &[&str] = &[
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// Whether a pipeline file may set the property, and librdkafka takes the value. `Err` says why not and never repeats the
/// value of a secret.
pub fn check_property(name: &str, value: &str) -> Result<(), String> {
    if scope(name).is_some() {
        return check_value(name, value);
    }
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(format!("Kafka property {name:?} cannot be set: {reason}"));
    }
    if name.contains("oauthbearer") {
        return Err(format!(
            "Kafka property {name:?}: SASL/OAUTHBEARER is not supported yet"
        ));
    }
    Err(match nearest(name) {
        Some(near) => format!("Kafka property {name:?} is not allowed; did you mean {near:?}?"),
        None => {
            format!("Kafka property {name:?} is not on the list of allowed librdkafka properties")
        }
    })
}

fn check_value(name: &str, value: &str) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(_) if SECRET.contains(&name) => Err(format!(
            "Kafka property {name:?}: librdkafka does not take its value"
        )),
        Err(KafkaError::ClientConfig(_, cause, _, _)) => {
            Err(format!("Kafka property {name:?}: {cause}"))
        }
        Err(_) => Err(format!(
            "Kafka property {name:?}: its value contains a zero byte"
        )),
    }
}

/// `None` if the property is not allowed.
pub(super) fn scope(name: &str) -> Option<Scope> {
    ALLOWED
        .binary_search_by_key(&name, |(allowed, _)| allowed)
        .ok()
        .map(|at| ALLOWED[at].1)
}

fn nearest(name: &str) -> Option<&'static str> {
    ALLOWED
        .iter()
        .map(|&(allowed, _)| (strsim::damerau_levenshtein(name, allowed), allowed))
        .min()
        .filter(|&(distance, _)| distance <= name.len().div_ceil(3))
        .map(|(_, allowed)| allowed)
}

/// Whether this build can speak the security protocol and mechanism that the properties ask for.
pub fn check_mechanism(properties: &BTreeMap<String, String>) -> Result<(), String> {
    let protocol = properties
        .get("security.protocol")
        .map_or_else(|| "PLAINTEXT".to_owned(), |p| p.to_ascii_uppercase());
    let mechanism = ["sasl.mechanism", "sasl.mechanisms"]
        .iter()
        .find_map(|name| properties.get(*name));
    let features = built_in_features();
    if protocol.ends_with("SSL") && !features.iter().any(|f| f == "ssl") {
        return Err(format!(
            "security.protocol {protocol}: this build of tidemill has no TLS"
        ));
    }
    if !protocol.starts_with("SASL") {
        return match mechanism {
            Some(mechanism) => Err(format!(
                "sasl.mechanism {mechanism} needs security.protocol SASL_SSL (or SASL_PLAINTEXT), it is {protocol}"
            )),
            None => Ok(()),
        };
    }
    let Some(mechanism) = mechanism else {
        return Err(format!(
            "security.protocol {protocol} needs sasl.mechanism ({})",
            offered(&features)
        ));
    };
    if mechanisms(&features).contains(&mechanism.to_ascii_uppercase().as_str()) {
        return Ok(());
    }
    Err(format!(
        "sasl.mechanism {mechanism}: this build of tidemill does not have it; it has {}",
        offered(&features)
    ))
}

fn offered(features: &[String]) -> String {
    mechanisms(features).join(", ")
}

fn mechanisms(features: &[String]) -> Vec<&'static str> {
    let built: &[(&str, &[&str])] = &[
        ("sasl_plain", &["PLAIN"]),
        ("sasl_scram", &["SCRAM-SHA-256", "SCRAM-SHA-512"]),
        ("sasl_gssapi", &["GSSAPI"]),
    ];
    built
        .iter()
        .filter(|(feature, _)| features.iter().any(|f| f == feature))
        .flat_map(|(_, names)| names.iter().copied())
        .collect()
}

/// What librdkafka was built with, as it says itself.
fn built_in_features() -> Vec<String> {
    ClientConfig::new()
        .create_native_config()
        .and_then(|native| native.get("builtin.features"))
        .map(|list| list.split(',').map(|f| f.trim().to_owned()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_known_to_librdkafka() {
        assert!(ALLOWED.is_sorted_by_key(|(name, _)| name));
        for (name, _) in ALLOWED {
            // No property takes this value, or all text; only the name is of interest.
            if let Err(refusal) = check_property(name, "no such value") {
                assert!(!refusal.contains("No such configuration"), "{refusal}");
            }
        }
        let unknown = check_value("no.such.name", "1").unwrap_err();
        assert!(unknown.contains("No such configuration"), "{unknown}");
    }

    #[test]
    fn what_would_run_code_or_break_a_promise_is_refused_with_its_reason() {
        for (name, reason) in [
            ("sasl.kerberos.kinit.cmd", "shell command"),
            ("plugin.library.paths", "native code"),
            ("ssl.engine.location", "native code"),
            ("enable.auto.commit", "checkpoint"),
            ("transactional.id", "pipeline's name"),
            (
                "transaction.timeout.ms",
                "`transaction_timeout` under [host]",
            ),
            ("statistics.interval.ms", "Tidemill sets it"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "not supported yet"),
        ] {
            let refusal = check_property(name, "x").unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_allowed_one() {
        let refusal = check_property("sasl.pasword", "hunter2").unwrap_err();
        assert!(refusal.contains("\"sasl.password\""), "{refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
        let refusal = check_property("zzzzzzzzzzz", "1").unwrap_err();
        assert!(refusal.contains("not on the list"), "{refusal}");
    }

    #[test]
    fn values_are_checked_and_secrets_are_not_repeated() {
        check_property("linger.ms", "7").unwrap();
        check_property("sasl.password", "hunter2").unwrap();
        let refusal = check_property("linger.ms", "soon").unwrap_err();
        assert!(refusal.contains("linger.ms"), "{refusal}");
        let refusal = check_property("sasl.password", "hunter\0").unwrap_err();
        assert!(!refusal.contains("hunter"), "{refusal}");
    }

    #[test]
    fn mechanisms_of_this_build() {
        let with = |pairs: &[(&str, &str)]| {
            check_mechanism(
                &pairs
                    .iter()
                    .map(|(k, v)| (k.to_string(), v.to_string()))
                    .collect(),
            )
        };
        with(&[]).unwrap();
        with(&[("security.protocol", "ssl")]).unwrap();
        for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
            with(&[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", mechanism),
            ])
            .unwrap();
        }
        let refusal = with(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "OAUTHBEARER"),
        ])
        .unwrap_err();
        assert!(
            refusal.contains("OAUTHBEARER") && refusal.contains("SCRAM-SHA-256"),
            "{refusal}"
        );
        let refusal = with(&[("sasl.mechanism", "PLAIN")]).unwrap_err();
        assert!(refusal.contains("security.protocol"), "{refusal}");
        let refusal = with(&[("security.protocol", "SASL_SSL")]).unwrap_err();
        assert!(refusal.contains("needs sasl.mechanism"), "{refusal}");
    }
}
