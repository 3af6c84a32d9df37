//! One HTTP request and what its answer means for the rows in it.
//!
//! Knows no queue and does not wait. Invariant: nothing said here holds a header's value or the path of the URL: both may
//! be secrets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::Response;
use ureq::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body};

use crate::error::ConnectorError;
use crate::format::timestamp;
use crate::limits::{RETRY_AFTER_MS_MAX, WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_ANSWER_SHOWN_BYTES};
use crate::pipeline::plan::Webhook;
use crate::time::MICROS_PER_SECOND;

/// The header by which a receiver knows a request that comes again.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Sends requests to one URL; shared by the senders of a sink.
pub struct Client {
    agent: Agent,
    url: String,
    headers: Vec<(String, String)>,
    /// The receiver has answered: from then on no error means a wrong setting.
    answered: AtomicBool,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// It may succeed later, not before `after` if the receiver says so.
    Again {
        cause: String,
        after: Option<Duration>,
    },
    /// These rows are not wanted; others may be.
    Rejected {
        cause: String,
    },
    /// No request like this will ever succeed.
    Refused {
        cause: String,
    },
}

impl Client {
    /// `place` is how errors name the sink. Fails if the file of `ca` cannot be used. Sends nothing yet.
    pub fn new(place: &str, webhook: &Webhook) -> Result<Self, ConnectorError> {
        let roots = match &webhook.ca {
            None => RootCerts::PlatformVerifier,
            Some(path) => {
                let pem = std::fs::read(path).map_err(|cause| ConnectorError::io(path, cause))?;
                let roots = certificates(&pem).map_err(|cause| {
                    ConnectorError::failed(place, format!("`ca` {}: {cause}", path.display()))
                })?;
                RootCerts::new_with_certs(&roots)
            }
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(roots)
            .build();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(webhook.timeout))
            .max_idle_connections_per_host(webhook.in_flight)
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls);
        if webhook.is_local() {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().new_agent(),
            url: webhook.url.clone(),
            headers: webhook.headers.clone(),
            answered: AtomicBool::new(false),
        })
    }

    /// Sends `body`, a JSON document; returns when it is answered or will not be. `key` is the same for the same rows.
    pub fn post(&self, key: &str, body: &[u8]) -> Answer {
        let mut request = self.agent.post(&self.url);
        let own = |name: &str| {
            self.headers
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        if !own(CONTENT_TYPE.as_str()) {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if !own(IDEMPOTENCY_KEY) {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match request.send(body) {
            Ok(response) => {
                self.answered.store(true, Ordering::Relaxed);
                self.judge(response)
            }
            Err(error) => unsent(&error, self.answered.load(Ordering::Relaxed)),
        }
    }

    fn judge(&self, mut response: Response<Body>) -> Answer {
        let status = response.status().as_u16();
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| retry_after(text, SystemTime::now()));
        // Read even if nobody looks at it: only then is the connection used again.
        let limited = response.body_mut().with_config();
        let body = limited.limit(WEBHOOK_ANSWER_BYTES_MAX).read_to_vec();
        let said = self.shown(&body.unwrap_or_default());
        verdict(status, &said, after)
    }

    /// The beginning of an answer's body on one line, without what may be secret: a receiver may repeat what it was sent.
    fn shown(&self, body: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(body).into_owned();
        let values = self.headers.iter().map(|(_, value)| value.as_str());
        let words = values.flat_map(|v| std::iter::once(v).chain(v.split_whitespace()));
        let path = self.url.splitn(4, '/').nth(3).unwrap_or_default();
        for secret in words.chain([path]).filter(|secret| secret.len() >= 4) {
            text = text.replace(secret, "***");
        }
        let end = text.floor_char_boundary(WEBHOOK_ANSWER_SHOWN_BYTES);
        let cut = text[..end].replace(char::is_control, " ");
        let dots = if end < text.len() { "…" } else { "" };
        format!("{}{dots}", cut.trim())
    }
}

/// Whether a request can have such a header. The error does not show the value.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    HeaderName::try_from(name).map_err(|_| "no name of a header")?;
    HeaderValue::try_from(value)
        .map_err(|_| "its value has characters that a header cannot have")?;
    Ok(())
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| e.to_string())? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err("holds no certificate in PEM form".into());
    }
    Ok(found)
}

/// A request that got no answer.
fn unsent(error: &ureq::Error, answered: bool) -> Answer {
    let cause = error.to_string();
    match error {
        ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => {
            Answer::Refused { cause }
        }
        ureq::Error::NativeTls(_) | ureq::Error::Tls(_) if !answered => Answer::Refused {
            cause: format!("{cause}; give the certificates to trust as `ca`, a file in PEM form"),
        },
        _ => Answer::Again { cause, after: None },
    }
}

/// What `status` and the body's beginning `said` mean.
fn verdict(status: u16, said: &str, after: Option<Duration>) -> Answer {
    let mut cause = format!("it answers with status {status}");
    if !said.is_empty() {
        cause = format!("{cause}: {said}");
    }
    let refused = |remedy: &str| Answer::Refused {
        cause: format!("{cause}; {remedy}"),
    };
    match status {
        200..=299 => Answer::Accepted,
        408 | 425 | 429 | 500..=599 => Answer::Again { cause, after },
        400 | 409 | 413 | 415 | 422 => Answer::Rejected { cause },
        300..=399 => refused("redirects are not followed: give the URL that it leads to"),
        401 | 403 | 407 => refused("look at `headers`: credentials are missing or wrong"),
        404 | 405 | 410 => refused("look at `url`: nothing takes a POST there"),
        _ => refused("no other try can succeed"),
    }
}

/// Reads `Retry-After`, seconds or a date, as a wait from `now` on, with a limit.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let now = now.duration_since(UNIX_EPOCH).ok()?;
            let seconds = u64::try_from(http_date(text.trim())?).ok()?;
            Duration::from_secs(seconds).saturating_sub(now)
        }
    };
    Some(wait.min(Duration::from_millis(RETRY_AFTER_MS_MAX)))
}

/// `Wed, 21 Oct 2015 07:28:00 GMT` in seconds since 1970; the older forms are not sent by anybody.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let parts: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    let text = format!("{year}-{month:02}-{day:0>2}T{time}Z");
    Some(timestamp::parse(text.as_bytes())? / MICROS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for status in [200, 201, 204, 299] {
            assert_eq!(verdict(status, "x", None), Answer::Accepted);
        }
        let after = Some(Duration::from_secs(3));
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            let again = verdict(status, "", after);
            assert!(
                matches!(&again, Answer::Again { after: a, .. } if *a == after),
                "{again:?}"
            );
        }
        for status in [400, 409, 413, 422] {
            let expected = format!("it answers with status {status}: no such field");
            let rejected = verdict(status, "no such field", None);
            assert_eq!(rejected, Answer::Rejected { cause: expected });
        }
        for (status, remedy) in [
            (301, "redirects"),
            (401, "headers"),
            (404, "url"),
            (418, ""),
        ] {
            let Answer::Refused { cause } = verdict(status, "", None) else {
                panic!("{status}");
            };
            assert!(cause.contains(remedy), "{cause}");
        }
    }

    #[test]
    fn patience_that_a_receiver_asks_for() {
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        let cases = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999", Some(RETRY_AFTER_MS_MAX / 1_000)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(10)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("Wed, 21 Okt 2015 07:28:00 GMT", None),
            ("soon", None),
            ("-1", None),
        ];
        for (text, seconds) in cases {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }
}
