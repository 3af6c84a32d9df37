//! A connection string of libpq made into connections: what is encrypted, what is trusted, how long a try may take.
//!
//! Invariant: no text made here holds a password.

use std::path::Path;
use std::time::Duration;

use native_tls::Certificate;
use postgres_native_tls::MakeTlsConnector;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::pipeline::plan::Postgres;

/// A try to connect, unless the connection string says otherwise.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A server that does not answer on an idle or busy connection for so long is away.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// What `sslmode` asks for, as libpq defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Opens connections to one database.
pub struct Connector {
    config: Config,
    tls: Option<MakeTlsConnector>,
}

/// Where the connection string `url` leads, in words that can be shown; or what is wrong with it.
pub fn check_url(url: &str) -> Result<String, String> {
    let (config, _) = parse(url)?;
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let mut hosts: Vec<String> = config.get_hosts().iter().map(host).collect();
    hosts.extend(
        config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .filter(|_| config.get_hosts().is_empty()),
    );
    if hosts.is_empty() {
        return Err("it names no host".into());
    }
    let user = config.get_user().ok_or("it names no user")?;
    let database = config.get_dbname().unwrap_or(user);
    Ok(format!("database {database} at {}", hosts.join(", ")))
}

fn parse(url: &str) -> Result<(Config, Tls), String> {
    let (rest, mode) = take_sslmode(url);
    let tls = match mode.as_deref() {
        None | Some("prefer") => Tls::Prefer,
        Some("disable") => Tls::Disable,
        Some("require") => Tls::Require,
        Some("verify-ca") => Tls::VerifyCa,
        Some("verify-full") => Tls::VerifyFull,
        Some(_) => {
            return Err(
                "`sslmode` is one of disable, prefer, require, verify-ca, verify-full".into(),
            );
        }
    };
    if rest.contains("sslrootcert=") {
        return Err("it has `sslrootcert`: give the file as `ca` beside `url` instead".into());
    }
    let mut config: Config = rest.parse().map_err(|error: Error| unreadable(&error))?;
    config.ssl_mode(match tls {
        Tls::Disable => SslMode::Disable,
        Tls::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    config.keepalives_idle(SILENT_MAX);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_WITHIN);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENT_MAX);
    }
    Ok((config, tls))
}

/// The parser's words repeat pieces of the text, which may be pieces of a password: only the safe ones are shown.
fn unreadable(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    match cause.filter(|text| text.starts_with("invalid value for option")) {
        Some(cause) => cause,
        None => {
            "not a connection URL of Postgres, or it has an option that is not known here".into()
        }
    }
}

/// `url` without its `sslmode`, and that: the driver knows three of its values only.
fn take_sslmode(url: &str) -> (String, Option<String>) {
    let of = |part: &str| part.strip_prefix("sslmode=").map(str::to_owned);
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let Some((base, options)) = url.split_once('?') else {
            return (url.to_owned(), None);
        };
        let mode = options.split('&').find_map(of);
        let rest: Vec<_> = options
            .split('&')
            .filter(|part| of(part).is_none())
            .collect();
        return match rest[..] {
            [] => (base.to_owned(), mode),
            _ => (format!("{base}?{}", rest.join("&")), mode),
        };
    }
    let mode = url.split_whitespace().find_map(of);
    match &mode {
        None => (url.to_owned(), None),
        Some(value) => (url.replacen(&format!("sslmode={value}"), "", 1), mode),
    }
}

impl Connector {
    /// Reads the file of `ca`. Connects to nothing yet.
    pub fn new(postgres: &Postgres, application: &str) -> Result<Self, String> {
        let (mut config, tls) = parse(&postgres.url).map_err(|cause| format!("`url`: {cause}"))?;
        if config.get_application_name().is_none() {
            config.application_name(application);
        }
        let tls = match tls {
            Tls::Disable => None,
            tls => Some(MakeTlsConnector::new(trust(tls, postgres.ca.as_deref())?)),
        };
        Ok(Self { config, tls })
    }

    /// A new connection. Must be called within a Tokio runtime, which also drives the connection.
    pub async fn connect(&self) -> Result<Client, Error> {
        let client = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                // Its error is also that of the call that is under way.
                tokio::spawn(connection);
                client
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                tokio::spawn(connection);
                client
            }
        };
        // Times are written and read in UTC. A checkpoint that Postgres confirms must be on its disk. Of a host that
        // disappears the server learns late, and the next one waits for its locks: not for long, and not without words.
        const SETTINGS: &str = "SELECT set_config('TimeZone', 'UTC', false), \
             set_config('idle_in_transaction_session_timeout', '60s', false), set_config('lock_timeout', '30s', false), \
             CASE WHEN current_setting('synchronous_commit') = 'off' \
             THEN set_config('synchronous_commit', 'on', false) END";
        client.batch_execute(SETTINGS).await?;
        Ok(client)
    }
}

/// As libpq has it: `prefer` and `require` trust any certificate unless they are told whom to trust.
fn trust(tls: Tls, ca: Option<&Path>) -> Result<native_tls::TlsConnector, String> {
    let mut builder = native_tls::TlsConnector::builder();
    if let Some(path) = ca {
        let failed = |cause: String| format!("`ca` {}: {cause}", path.display());
        let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let certificates = Certificate::stack_from_pem(&pem).map_err(|e| failed(e.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("holds no certificate in PEM form".into()));
        }
        builder.disable_built_in_roots(true);
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
    }
    let trusting = matches!(tls, Tls::Prefer | Tls::Require);
    builder.danger_accept_invalid_certs(trusting && ca.is_none());
    builder.danger_accept_invalid_hostnames(tls != Tls::VerifyFull);
    builder.build().map_err(|error| format!("TLS: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_what_is_shown_of_them() {
        let cases = [
            (
                "postgres://app:s3cret@db.example:5433/shop",
                Ok("database shop at db.example"),
            ),
            (
                "postgresql://app@a,b/shop?sslmode=verify-full&connect_timeout=3",
                Ok("database shop at a, b"),
            ),
            (
                "host=/run/pg user=app password=s3cret sslmode=disable",
                Ok("database app at /run/pg"),
            ),
            (
                "postgres://app@db/x?sslmode=allow",
                Err("`sslmode` is one of"),
            ),
            ("postgres://app@db/x?sslrootcert=/x", Err("`ca`")),
            (
                "postgres://app:s3cret@db/x?s3cret=1",
                Err("not a connection URL"),
            ),
            ("postgres://app@db:port/x", Err("port")),
            ("s3cret", Err("not a connection URL")),
            ("postgres:///x", Err("no host")),
            ("postgres://db/x", Err("no user")),
        ];
        for (url, expected) in cases {
            let said = check_url(url);
            match (&said, expected) {
                (Ok(place), Ok(expected)) => assert_eq!(place, expected),
                (Err(cause), Err(part)) => assert!(cause.contains(part), "{url}: {cause}"),
                _ => panic!("{url}: {said:?}"),
            }
            assert!(!format!("{said:?}").contains("s3cret"), "{said:?}");
        }
    }

    #[test]
    fn the_driver_never_sees_an_sslmode_it_does_not_know() {
        let cases = [
            (
                "postgres://h/x?sslmode=verify-ca",
                "postgres://h/x",
                Tls::VerifyCa,
            ),
            (
                "postgres://h/x?a=b&sslmode=require&c=d",
                "postgres://h/x?a=b&c=d",
                Tls::Require,
            ),
            (
                "host=h sslmode=verify-full user=u",
                "host=h  user=u",
                Tls::VerifyFull,
            ),
        ];
        for (url, rest, tls) in cases {
            assert_eq!(take_sslmode(url).0, rest);
            if !rest.contains("a=b") {
                assert_eq!(parse(url).map(|p| p.1), Ok(tls), "{url}");
            }
        }
        assert_eq!(parse("host=h user=u").map(|p| p.1), Ok(Tls::Prefer));
    }
}
