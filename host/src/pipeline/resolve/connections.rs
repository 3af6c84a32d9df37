//! Which Kafka cluster a source, sink or the dead letters use.
//!
//! A connection that names brokers stands for itself. One that does not is `[kafka]`, its own properties over those.

use std::collections::BTreeMap;

use super::Resolver;
use crate::kafka::{check_property, check_security, is_path, security_risks};
use crate::pipeline::plan::{Brokers, Cluster};
use crate::pipeline::secrets;
use crate::pipeline::spec::{Connection, Property};
use crate::pipeline::text::{Span, Spanned};

/// `"embedded"` or a list of addresses.
pub fn brokers(text: &str) -> Brokers {
    match text {
        "embedded" => Brokers::Embedded,
        hosts => Brokers::At(hosts.to_string()),
    }
}

impl<'s> Resolver<'s> {
    pub(super) fn cluster(&mut self, own: &Connection) -> Option<Cluster> {
        let common = self.spec.kafka.as_ref();
        let named = own.brokers.as_ref();
        let Some(written) = named.or_else(|| common?.brokers.as_ref()) else {
            self.no_brokers(own);
            return None;
        };
        let resolved = self.reference("brokers", written)?;
        let brokers = self.checked_brokers(written, &resolved)?;
        let inherited = match common {
            Some(common) if named.is_none() => common.properties.as_slice(),
            _ => &[],
        };
        let mut properties = BTreeMap::new();
        // The embedded broker takes neither passwords nor certificates: nothing of this is for it.
        if brokers != Brokers::Embedded {
            let common = self.properties(inherited, &mut properties);
            let own_span = own.properties.first().map(|p| p.name.span);
            let own = self.properties(&own.properties, &mut properties);
            common.and(own)?;
            self.mechanism(own_span, &properties)?;
        }
        Some(Cluster {
            brokers,
            properties,
        })
    }

    /// The brokers of a connection, as written.
    pub(super) fn brokers_of(&self, own: &'s Connection) -> Option<&'s str> {
        let common = self.spec.kafka.as_ref().and_then(|k| k.brokers.as_ref());
        let named = own.brokers.as_ref().map(|b| b.value.as_str());
        named.or(common.map(|b| b.value.as_str()))
    }

    fn no_brokers(&mut self, own: &Connection) {
        let known = self.spec.kafka.as_ref().is_some_and(|k| k.broken);
        if !known && !own.broken {
            self.findings
                .error(own.span, "no brokers are named for this")
                .help("add [kafka] with brokers = \"localhost:9092\" (or \"embedded\"), or run with --brokers");
        }
    }

    fn checked_brokers(&mut self, written: &Spanned<String>, text: &str) -> Option<Brokers> {
        let brokers = brokers(text);
        let wrong = match &brokers {
            Brokers::Embedded => None,
            Brokers::At(hosts) => hosts.split(',').map(str::trim).find(|h| !is_address(h)),
        };
        if let Some(wrong) = wrong {
            self.findings
                .error(
                    written.span,
                    format!("`brokers`: \"{wrong}\" is no address"),
                )
                .help("brokers are host:port, with commas between them, or \"embedded\"");
            return None;
        }
        Some(brokers)
    }

    fn properties(
        &mut self,
        written: &[Property],
        properties: &mut BTreeMap<String, String>,
    ) -> Option<()> {
        let mut all = Some(());
        for property in written {
            let name = &property.name.value;
            let Some(value) = self.reference(name, &property.value) else {
                all = None;
                continue;
            };
            let checked = match check_property(name, &value) {
                Ok(()) if is_path(name, &value) => self.file_of(property, &value),
                Ok(()) => Some(value),
                Err(reason) => {
                    self.findings.error(property.name.span, reason);
                    None
                }
            };
            let Some(value) = checked else {
                all = None;
                continue;
            };
            properties.insert(name.clone(), value);
        }
        all
    }

    /// Refuses security settings that do not go together, at the properties that were written last.
    fn mechanism(
        &mut self,
        own: Option<Span>,
        properties: &BTreeMap<String, String>,
    ) -> Option<()> {
        let common = self.spec.kafka.as_ref().and_then(|k| k.properties.first());
        let span = own.or(common.map(|p| p.name.span)).unwrap_or_default();
        if let Err(reason) = check_security(properties) {
            self.findings.error(span, reason);
            return None;
        }
        for (name, risk) in security_risks(properties) {
            let common = self.spec.kafka.as_ref();
            let mut written = common.into_iter().flat_map(|k| &k.properties);
            let place = written.find(|p| p.name.value == name);
            let span = place.map_or(span, |p| p.name.span);
            self.findings.warning(span, format!("{name}: {risk}"));
        }
        Some(())
    }

    /// The path of a property, relative to the pipeline file as all paths in it; there must be something.
    fn file_of(&mut self, property: &Property, path: &str) -> Option<String> {
        let file = self.spec.dir.join(path);
        if let Err(error) = std::fs::metadata(&file) {
            let name = &property.name.value;
            self.findings
                .error(
                    property.value.span,
                    format!("`{name}`: {}: {error}", file.display()),
                )
                .help("relative paths are relative to the pipeline file");
            return None;
        }
        Some(file.display().to_string())
    }

    /// The text with its references resolved.
    pub(super) fn reference(&mut self, key: &str, text: &Spanned<String>) -> Option<String> {
        match secrets::resolve(&text.value, &self.spec.dir) {
            Ok(value) => Some(value),
            Err(cause) => {
                self.findings.error(text.span, format!("`{key}`: {cause}"));
                None
            }
        }
    }
}

/// `host:port`; an IPv6 address stands in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    !host.is_empty()
        && (bracketed || !host.contains(':'))
        && !host.contains(|c: char| c.is_whitespace() || c == '/')
        && port.parse::<u16>().is_ok_and(|p| p > 0)
}
