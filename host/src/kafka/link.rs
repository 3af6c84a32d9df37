//! One place for each source, sink and dead-letter topic that hears whether its broker is there.
//!
//! librdkafka reports a broker that is away many times a second and in many words. Here it is said once, with the cause,
//! and once more when it is back. Errors that no waiting heals (wrong password, unknown certificate) are kept for the next
//! call to fail with.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::connection::is_transient;
use crate::error::ConnectorError;

/// A broker that comes and goes is not spoken of more often than this.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// librdkafka's own lines (seen at log level debug): one a facility in this time.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// State of the connection of one source, sink or dead-letter topic, shared by its clients.
#[derive(Debug)]
pub(super) struct Link {
    /// Who is connected to what, as errors and log lines name it.
    place: String,
    /// Says nothing: whoever asks gets the cause in the error.
    quiet: bool,
    down: AtomicBool,
    state: Mutex<LinkState>,
}

#[derive(Debug, Default)]
struct LinkState {
    /// What librdkafka said last about a single connection.
    cause: Option<String>,
    since: Option<Instant>,
    said: Option<Instant>,
    was_said: bool,
    was_up: bool,
    fatal: Option<String>,
    /// Topics that may not be read any more, each since when and when that was last said.
    denied: BTreeMap<String, (Instant, Instant)>,
    logged: HashMap<String, (Instant, u64)>,
}

impl Link {
    pub(super) fn new(place: String) -> Self {
        Self {
            place,
            quiet: false,
            down: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// A link that logs no outage.
    pub(super) fn quiet(place: String) -> Self {
        Self {
            quiet: true,
            ..Self::new(place)
        }
    }

    /// What librdkafka said last about a connection, if something went wrong since the broker answered.
    pub(super) fn last_cause(&self) -> Option<String> {
        self.lock().cause.clone()
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The broker answered.
    pub(super) fn seen(&self) {
        if !self.down.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.lock();
        self.down.store(false, Ordering::Relaxed);
        state.was_up = true;
        state.cause = None;
        let away = state.since.take().map(|since| since.elapsed());
        if std::mem::take(&mut state.was_said) {
            let away = away.unwrap_or_default().as_secs_f32();
            tracing::info!("{}: the broker is back after {away:.1} s", self.place);
        }
    }

    /// The broker answered for the first time: TLS works, so that later failures of it are worth a retry.
    pub(super) fn connected(&self) {
        self.lock().was_up = true;
        self.seen();
    }

    /// The broker answers, but has to do something first.
    pub(super) fn waits_for(&self, what: &str) {
        let mut state = self.lock();
        if state
            .said
            .is_some_and(|said| said.elapsed() < SAY_AGAIN_AFTER)
        {
            return;
        }
        state.said = Some(Instant::now());
        tracing::warn!("{}: waiting for {what}", self.place);
    }

    /// The broker does not answer; `cause` unless librdkafka has given a better one.
    pub(super) fn lost(&self, cause: &str) {
        let mut state = self.lock();
        if self.down.swap(true, Ordering::Relaxed) {
            return;
        }
        state.since = Some(Instant::now());
        state.cause.get_or_insert_with(|| cause.to_owned());
        if self.quiet {
            return;
        }
        if state
            .said
            .is_some_and(|said| said.elapsed() < SAY_AGAIN_AFTER)
        {
            return;
        }
        state.said = Some(Instant::now());
        state.was_said = true;
        let cause = state.cause.as_deref().unwrap_or(cause);
        tracing::warn!(
            "{}: no broker can be reached ({cause}); trying again until one is",
            self.place
        );
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// A topic that could be read may not be read any more: said now, and again as long as nothing changes.
    pub(super) fn deny(&self, topic: &str) {
        let mut state = self.lock();
        let now = Instant::now();
        let (since, said) = match state.denied.get(topic) {
            Some(&(_, said)) if said.elapsed() < SAY_AGAIN_AFTER => return,
            Some(&(since, _)) => (since, true),
            None => (now, false),
        };
        state.denied.insert(topic.to_owned(), (since, now));
        let still = if said { " still" } else { "" };
        tracing::warn!(
            "{}: this user may{still} not read topic {topic}, which it could before; reading goes on by itself when it is \
             granted again (READ and DESCRIBE on the topic)",
            self.place
        );
    }

    /// The topic can be read.
    pub(super) fn grant(&self, topic: &str) {
        if let Some((since, _)) = self.lock().denied.remove(topic) {
            let for_s = since.elapsed().as_secs_f32();
            tracing::info!(
                "{}: topic {topic} can be read again after {for_s:.1} s",
                self.place
            );
        }
    }

    /// Why nothing, or not everything, comes for now.
    pub(super) fn waiting(&self) -> Option<String> {
        let state = self.lock();
        if let Some((topic, (since, _))) = state.denied.first_key_value() {
            let for_s = since.elapsed().as_secs();
            return Some(format!(
                "this user may not read topic {topic} any more, for {for_s} s now; grant it READ and DESCRIBE on the topic"
            ));
        }
        let since = state.since.filter(|_| self.is_down())?;
        let cause = state.cause.as_deref().unwrap_or("no connection");
        let for_s = since.elapsed().as_secs();
        Some(format!(
            "no broker can be reached for {for_s} s now ({cause})"
        ))
    }

    /// Fails if something happened that waiting does not heal.
    pub(super) fn check(&self) -> Result<(), ConnectorError> {
        match &self.lock().fatal {
            Some(cause) => Err(self.failed(cause)),
            None => Ok(()),
        }
    }

    pub(super) fn failed(&self, cause: impl ToString) -> ConnectorError {
        ConnectorError::failed(&self.place, cause)
    }

    pub(super) fn changed(&self, cause: impl ToString) -> ConnectorError {
        ConnectorError::Changed {
            place: self.place.clone(),
            cause: cause.to_string(),
        }
    }

    pub(super) fn stopped(&self) -> ConnectorError {
        ConnectorError::Stopped {
            place: self.place.clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LinkState> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn give_up(&self, cause: String) {
        self.lock().fatal.get_or_insert(cause);
    }

    /// What [`ClientContext::error`] of every client of this link does.
    pub(super) fn hear_error(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) | None => {}
            Some(RDKafkaErrorCode::AllBrokersDown) => self.lost("the connection was closed"),
            Some(RDKafkaErrorCode::Authentication) if is_cut_handshake(reason) => {
                self.lock().cause = Some(reason.to_owned());
                self.hear_log("ERROR", reason);
            }
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                self.give_up(format!(
                    "the broker refuses these credentials: {reason}; look at `properties` under [kafka]"
                ));
            }
            Some(RDKafkaErrorCode::SSL) if !self.lock().was_up => {
                self.give_up(format!(
                    "no TLS connection: {reason}; look at security.protocol and the ssl. properties under [kafka]"
                ));
            }
            Some(_) if refuses_certificate(reason) && !self.lock().was_up => {
                self.give_up(format!(
                    "no TLS connection: the broker refuses this client's certificate, or wants one: {reason}; look at \
                     ssl.certificate.location and ssl.key.location under [kafka]"
                ));
            }
            Some(RDKafkaErrorCode::Fatal) => {
                self.give_up(format!("librdkafka cannot go on: {reason}"))
            }
            Some(code) => {
                if is_transient(code) {
                    self.lock().cause = Some(reason.to_owned());
                }
                self.hear_log("ERROR", reason);
            }
        }
    }

    /// What [`ClientContext::log`] of every client of this link does: log level debug, and not a flood even there.
    pub(super) fn hear_log(&self, facility: &str, line: &str) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let mut state = self.lock();
        let entry = state
            .logged
            .entry(facility.to_owned())
            .or_insert_with(|| (Instant::now() - LOG_AGAIN_AFTER, 0));
        if entry.0.elapsed() < LOG_AGAIN_AFTER {
            entry.1 += 1;
            return;
        }
        let skipped = std::mem::take(&mut entry.1);
        entry.0 = Instant::now();
        tracing::debug!(
            "{}: librdkafka {facility}: {line} ({skipped} lines like it left out)",
            self.place
        );
    }
}

/// Context of a client that only asks or administrates.
pub(super) struct Asking(pub(super) Arc<Link>);

impl ClientContext for Asking {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.hear_log(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.hear_error(&error, reason);
    }
}

impl ConsumerContext for Asking {}

/// Whether no answer came to what librdkafka asks before it shows its password. It takes that for a refusal.
fn is_cut_handshake(reason: &str) -> bool {
    reason.contains("mechanism handshake failed: Local:")
}

/// Whether the broker has ended a TLS handshake for the client's certificate. librdkafka takes it for an outage, because
/// the client's side of the handshake was over.
fn refuses_certificate(reason: &str) -> bool {
    let alert = reason
        .split_once("SSL routines")
        .and_then(|(_, alert)| alert.split_once("alert "));
    alert.is_some_and(|(_, what)| what.contains("certificate") || what.contains("unknown ca"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_refused_end_the_waiting_and_an_outage_does_not() {
        let link = Link::new("source clicks".into());
        link.hear_error(
            &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown),
            "1/1 brokers are down",
        );
        assert!(link.is_down());
        link.check().unwrap();
        link.seen();
        assert!(!link.is_down());
        let refused = KafkaError::Global(RDKafkaErrorCode::Authentication);
        link.hear_error(
            &refused,
            "h:1/1: SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: (n/a)",
        );
        link.check().unwrap();
        link.hear_error(&refused, "bad password");
        let error = link.check().unwrap_err().to_string();
        assert!(
            error.contains("source clicks") && error.contains("bad password"),
            "{error}"
        );
    }

    #[test]
    fn what_reading_waits_for_is_known_as_long_as_it_does() {
        let link = Link::new("source clicks".into());
        assert_eq!(link.waiting(), None);
        link.lost("connection refused");
        let waiting = link.waiting().unwrap();
        assert!(waiting.contains("connection refused"), "{waiting}");
        link.seen();
        assert_eq!(link.waiting(), None);
        link.deny("orders");
        link.deny("returns");
        link.deny("orders");
        assert!(link.waiting().unwrap().contains("topic orders"));
        link.grant("orders");
        link.grant("orders");
        assert!(link.waiting().unwrap().contains("topic returns"));
        link.grant("returns");
        assert_eq!(link.waiting(), None);
        link.check().unwrap();
    }

    #[test]
    fn tls_failures_are_final_only_before_the_first_answer() {
        let ssl = KafkaError::Global(RDKafkaErrorCode::SSL);
        let never_up = Link::new("a".into());
        never_up.hear_error(&ssl, "certificate verify failed");
        assert!(never_up.check().is_err());
        let was_up = Link::new("b".into());
        was_up.connected();
        was_up.hear_error(&ssl, "connection reset in handshake");
        was_up.check().unwrap();
    }

    #[test]
    fn a_broker_that_wants_a_certificate_is_not_waited_for() {
        let away = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        for (reason, is_final) in [
            (
                "ssl://h:1/bootstrap: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate",
                true,
            ),
            (
                "ssl://h:1/bootstrap: Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required",
                true,
            ),
            (
                "ssl://h:1/bootstrap: Receive failed: error:0A000418:SSL routines::tlsv1 alert unknown ca",
                true,
            ),
            (
                "ssl://h:1/bootstrap: Receive failed: Connection reset by peer",
                false,
            ),
            (
                "ssl://certificate.example:1: Connect failed: refused",
                false,
            ),
        ] {
            let link = Link::new("source clicks".into());
            link.hear_error(&away, reason);
            assert_eq!(link.check().is_err(), is_final, "{reason}");
        }
    }
}
