//! Sinks on other machines as the plan has them: an HTTP endpoint, a Postgres table.
//!
//! Invariant: nothing here shows a secret, neither by `Debug` nor by `place`. A URL's path may be one, so only scheme, host
//! and port of a URL are ever shown.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// `webhook = { .. }`
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `http` or `https`, without user and password.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// Rows of one request, at most; 1: the body is the row itself.
    pub batch: usize,
    /// Requests under way at one time.
    pub in_flight: usize,
    /// For one request, from name lookup to the end of the answer.
    pub timeout: Duration,
    /// Certificates to trust instead of the system's, PEM.
    pub ca: Option<PathBuf>,
    pub on_reject: OnReject,
}

/// What becomes of rows that the receiver rejects for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReject {
    Stop,
    DeadLetter,
}

/// `postgres = { .. }`
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Host, database, user and password, as libpq writes them. Never printed.
    pub url: String,
    /// Where it is, without anything secret.
    pub place: String,
    /// Name, or schema and name.
    pub table: Vec<String>,
    /// Columns of the table; empty without `mode` upsert.
    pub key: Vec<String>,
    pub mode: WriteMode,
    /// A table that is not there is made.
    pub create: bool,
    /// Certificates to trust instead of the system's, PEM.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Every row is a new one.
    Insert,
    /// A row takes the place of the one with its key.
    Upsert,
}

impl Webhook {
    /// Where it is, without anything secret.
    pub fn place(&self) -> String {
        format!("webhook at {}", origin(&self.url))
    }

    /// Whether the receiver is this machine, which no proxy leads to.
    pub fn is_local(&self) -> bool {
        let host = origin(&self.url).split_once("://").map_or("", |(_, h)| h);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        matches!(name, "localhost" | "[::1]") || name.starts_with("127.")
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']);
    &url[..end.map_or(url.len(), |end| host + end)]
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Webhook")
            .field("at", &origin(&self.url))
            .field("headers", &names)
            .field("batch", &self.batch)
            .field("in_flight", &self.in_flight)
            .field("timeout", &self.timeout)
            .field("on_reject", &self.on_reject)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("place", &self.place)
            .field("table", &self.table)
            .field("key", &self.key)
            .field("mode", &self.mode)
            .field("create", &self.create)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_shows_neither_path_nor_headers() {
        let webhook = |url: &str| Webhook {
            url: url.into(),
            headers: vec![("Authorization".into(), "s3cret".into())],
            batch: 1,
            in_flight: 1,
            timeout: Duration::from_secs(1),
            ca: None,
            on_reject: OnReject::Stop,
        };
        let cases = [
            (
                "https://h.example/s3cret?s3cret",
                "https://h.example",
                false,
            ),
            ("http://localhost:80?s3cret", "http://localhost:80", true),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("http://[::1]:1/", "http://[::1]:1", true),
        ];
        for (url, shown, local) in cases {
            let webhook = webhook(url);
            assert_eq!(webhook.place(), format!("webhook at {shown}"));
            assert_eq!(webhook.is_local(), local, "{url}");
            assert!(!format!("{webhook:?}").contains("s3cret"));
        }
    }
}
