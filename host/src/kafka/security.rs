//! Whether the security settings of a cluster go together: what would be ignored in silence is refused, since a password or
//! a certificate that is not used is a connection less safe than it was meant to be.
//!
//! Knows no value of a secret.

use std::collections::BTreeMap;

use super::properties::check_mechanism;

/// librdkafka's word for the authorities that the system trusts, in place of a file.
const PROBE: &str = "probe";

/// Refuses settings that contradict each other or have no effect.
pub fn check_security(properties: &BTreeMap<String, String>) -> Result<(), String> {
    if let (Some(one), Some(other)) = (
        properties.get("sasl.mechanism"),
        properties.get("sasl.mechanisms"),
    ) && one != other
    {
        return Err(format!(
            "sasl.mechanism is {one} and sasl.mechanisms, which is the same, is {other}: write one of them"
        ));
    }
    check_mechanism(properties)?;
    let protocol = protocol(properties);
    let has = |name: &str| properties.contains_key(name);
    if !protocol.ends_with("SSL")
        && let Some(name) = properties.keys().find(|name| name.starts_with("ssl."))
    {
        return Err(format!(
            "{name} has no effect: security.protocol is {protocol}, not SSL or SASL_SSL"
        ));
    }
    if !protocol.starts_with("SASL") {
        let unused = ["sasl.username", "sasl.password"]
            .into_iter()
            .find(|n| has(n));
        return match unused {
            Some(name) => Err(format!(
                "{name} has no effect: security.protocol is {protocol}, not SASL_SSL (or SASL_PLAINTEXT)"
            )),
            None => client_certificate(properties),
        };
    }
    let mechanism = mechanism(properties);
    let by_password = mechanism == "PLAIN" || mechanism.starts_with("SCRAM");
    for name in ["sasl.username", "sasl.password"] {
        if by_password && !has(name) {
            return Err(format!("sasl.mechanism {mechanism} needs {name}"));
        }
    }
    client_certificate(properties)
}

/// A certificate of the client and its key come together.
fn client_certificate(properties: &BTreeMap<String, String>) -> Result<(), String> {
    let any = |names: [&'static str; 2]| names.into_iter().find(|n| properties.contains_key(*n));
    let certificate = any(["ssl.certificate.location", "ssl.certificate.pem"]);
    let key = any(["ssl.key.location", "ssl.key.pem"]);
    match (certificate, key) {
        (Some(name), None) => Err(format!("{name} needs its key: ssl.key.location")),
        (None, Some(name)) => Err(format!(
            "{name} needs its certificate: ssl.certificate.location"
        )),
        _ => Ok(()),
    }
}

/// What is allowed, and less safe than a reader of the file may think.
pub fn security_risks(properties: &BTreeMap<String, String>) -> Vec<(&'static str, &'static str)> {
    let is = |name: &str, value: &str| {
        properties
            .get(name)
            .is_some_and(|v| v.eq_ignore_ascii_case(value))
    };
    let mut risks = Vec::new();
    if is("enable.ssl.certificate.verification", "false") {
        risks.push((
            "enable.ssl.certificate.verification",
            "the broker's certificate is not verified: whoever is in between can read and change everything",
        ));
    } else if is("ssl.endpoint.identification.algorithm", "none") {
        risks.push((
            "ssl.endpoint.identification.algorithm",
            "the broker's name is not compared with its certificate: any server with a certificate of that authority is taken for it",
        ));
    }
    if protocol(properties) == "SASL_PLAINTEXT" && mechanism(properties) == "PLAIN" {
        risks.push((
            "security.protocol",
            "the password goes over the network in the clear: use SASL_SSL, or SCRAM",
        ));
    }
    risks
}

/// Whether the value is the path of a file, or of a directory.
pub fn is_path(name: &str, value: &str) -> bool {
    let is_word = name == "ssl.ca.location" && value == PROBE;
    (name.ends_with(".location") || name.ends_with(".keytab")) && !is_word
}

fn protocol(properties: &BTreeMap<String, String>) -> String {
    let written = properties.get("security.protocol");
    written.map_or_else(|| "PLAINTEXT".to_owned(), |p| p.to_ascii_uppercase())
}

fn mechanism(properties: &BTreeMap<String, String>) -> String {
    let names = ["sasl.mechanism", "sasl.mechanisms"];
    let written = names.iter().find_map(|name| properties.get(*name));
    written.map_or_else(String::new, |m| m.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pair = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        pairs.iter().map(pair).collect()
    }

    const SCRAM: [(&str, &str); 4] = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", "app"),
        ("sasl.password", "hunter2"),
    ];

    #[test]
    fn what_goes_together() {
        let mutual = [
            ("security.protocol", "ssl"),
            ("ssl.ca.location", "ca.pem"),
            ("ssl.certificate.location", "app.pem"),
            ("ssl.key.location", "app.key"),
            ("ssl.key.password", "hunter2"),
        ];
        let keystore = [
            ("security.protocol", "SSL"),
            ("ssl.keystore.location", "app.p12"),
        ];
        for fine in [&[][..], &SCRAM, &mutual, &keystore] {
            assert_eq!(check_security(&properties(fine)), Ok(()));
            assert_eq!(security_risks(&properties(fine)), []);
        }
    }

    #[test]
    fn what_contradicts_itself_or_would_be_ignored_is_refused() {
        let without = |name: &str| {
            let mut left = properties(&SCRAM);
            left.remove(name);
            left
        };
        for (wrong, part) in [
            (without("sasl.password"), "needs sasl.password"),
            (without("sasl.username"), "needs sasl.username"),
            (without("sasl.mechanism"), "needs sasl.mechanism"),
            (properties(&SCRAM[2..]), "sasl.username has no effect"),
            (
                properties(&[("ssl.ca.location", "ca.pem")]),
                "ssl.ca.location has no effect",
            ),
            (
                properties(&[("security.protocol", "SSL"), ("ssl.key.location", "k")]),
                "needs its certificate",
            ),
            (
                properties(&[("security.protocol", "SSL"), ("ssl.certificate.pem", "c")]),
                "needs its key",
            ),
            (
                properties(&[
                    ("sasl.mechanism", "PLAIN"),
                    ("sasl.mechanisms", "SCRAM-SHA-512"),
                ]),
                "write one of them",
            ),
        ] {
            let refusal = check_security(&wrong).unwrap_err();
            assert!(
                refusal.contains(part) && !refusal.contains("hunter2"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn what_is_allowed_and_unsafe_is_told() {
        let said = |pairs: &[(&str, &str)]| {
            let risks = security_risks(&properties(pairs));
            risks.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let unverified = ("enable.ssl.certificate.verification", "false");
        assert_eq!(said(&[unverified]), [unverified.0]);
        let nameless = ("ssl.endpoint.identification.algorithm", "none");
        assert_eq!(said(&[nameless]), [nameless.0]);
        let plain = ("sasl.mechanism", "PLAIN");
        assert_eq!(
            said(&[("security.protocol", "SASL_PLAINTEXT"), plain]),
            ["security.protocol"]
        );
        assert_eq!(said(&[("security.protocol", "SASL_SSL"), plain]), [""; 0]);
    }

    #[test]
    fn paths_are_known_by_their_names() {
        assert!(is_path("ssl.ca.location", "ca.pem") && is_path("sasl.kerberos.keytab", "k"));
        assert!(!is_path("ssl.ca.location", "probe") && !is_path("ssl.ca.pem", "x"));
    }
}
