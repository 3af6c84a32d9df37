//! A broker with a listener for each way to be secured, and rights that a test gives and takes away.
//!
//! The test itself comes in through a plain listener and may do everything, as may [`USER`] and whoever has a certificate.
//! [`LIMITED`] may do what [`Secured::allow`] says.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::authority::Authority;
use super::node::Node;
use super::settings::{Listener, Settings, free_ports};
use super::{Broker, Own};

pub const USER: &str = "app";
pub const LIMITED: &str = "limited";
/// Passwords of both users, and of the key of the client's certificate: words that must turn up nowhere.
pub const PASSWORD: &str = "canary-5f1c-password";
pub const KEY_PASSWORD: &str = "canary-77ab-key-password";

/// The ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TLS, the broker's certificate alone.
    Tls,
    /// TLS with a certificate that is made out to another host.
    WrongName,
    /// TLS with certificates of both.
    Mutual,
    /// TLS and a password.
    SaslTls,
    /// A password without TLS.
    SaslPlain,
}

const WAYS: [(Way, &str, &str); 5] = [
    (Way::Tls, "TLS", "SSL"),
    (Way::WrongName, "WRONG", "SSL"),
    (Way::Mutual, "MUTUAL", "SSL"),
    (Way::SaslTls, "SASLTLS", "SASL_SSL"),
    (Way::SaslPlain, "SASLPLAIN", "SASL_PLAINTEXT"),
];

pub struct Secured {
    broker: Broker,
    ports: [u16; WAYS.len()],
    dir: PathBuf,
}

impl Deref for Secured {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}

impl Secured {
    /// The one that all tests of this process share.
    pub fn get() -> Result<&'static Secured, String> {
        static SHARED: OnceLock<Result<Secured, String>> = OnceLock::new();
        SHARED
            .get_or_init(Secured::start)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn start() -> Result<Secured, String> {
        let dir = TempDir::new().map_err(|error| error.to_string())?;
        certify(dir.path())?;
        let [port, controller, ports @ ..]: [u16; 2 + WAYS.len()] = free_ports()?;
        let mut listeners = vec![Listener::new("PLAINTEXT", "PLAINTEXT", port)];
        for ((_, name, protocol), port) in WAYS.into_iter().zip(ports) {
            listeners.push(Listener::new(name, protocol, port));
        }
        let settings = Settings {
            id: 1,
            listeners,
            controllers: vec![controller],
            more: security(dir.path()),
        };
        let path = dir.path().to_owned();
        let node = Node::format(dir, "512m", &settings, &scram_users())?;
        let broker = Broker {
            bootstrap: format!("127.0.0.1:{port}"),
            own: Some(Own {
                node,
                tls_port: None,
                proxied: None,
            }),
        };
        broker.up();
        Ok(Secured {
            broker,
            ports,
            dir: path,
        })
    }

    /// `host:port` of a way in.
    pub fn address(&self, way: Way) -> String {
        let index = WAYS.iter().position(|(each, ..)| *each == way);
        format!("127.0.0.1:{}", self.ports[index.expect("a way in")])
    }

    /// A file of the broker's folder: `ca.pem` to trust, `stranger.pem` not to, `client.pem` and `client.key`, which
    /// [`KEY_PASSWORD`] opens.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Lets [`LIMITED`] do something: `&["--topic", "clicks", "--operation", "Read"]`.
    pub fn allow(&self, what: &[&str]) {
        self.rights("--add", what);
    }

    /// Takes it back.
    pub fn forbid(&self, what: &[&str]) {
        self.rights("--remove", what);
    }

    fn rights(&self, change: &str, what: &[&str]) {
        let principal = format!("User:{LIMITED}");
        let server = self.broker.cluster_address();
        let mut arguments = vec!["--bootstrap-server", server, change];
        if change == "--remove" {
            arguments.push("--force");
        }
        arguments.extend(["--allow-principal", &principal]);
        arguments.extend(what);
        let node = self.broker.node();
        node.tool("org.apache.kafka.tools.AclCommand", &arguments);
    }
}

fn certify(dir: &Path) -> Result<(), String> {
    let authority = Authority::new(dir, "ca")?;
    authority.sign("broker-tls", "IP:127.0.0.1,DNS:localhost", None)?;
    authority.sign("broker-elsewhere", "DNS:elsewhere.example", None)?;
    authority.sign("client", "DNS:client.example", Some(KEY_PASSWORD))?;
    Authority::new(dir, "stranger")?;
    debug_assert!(authority.certificate().exists());
    Ok(())
}

fn scram_users() -> Vec<String> {
    let mut arguments = Vec::new();
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        for user in [USER, LIMITED] {
            arguments.push("--add-scram".to_owned());
            arguments.push(format!("{mechanism}=[name={user},password={PASSWORD}]"));
        }
    }
    arguments
}

fn security(dir: &Path) -> String {
    let dir = dir.display();
    let mut text = format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{USER};User:CN=client
"
    );
    for (way, name, protocol) in WAYS {
        let prefix = format!("listener.name.{}", name.to_lowercase());
        if protocol.ends_with("SSL") {
            let key = match way {
                Way::WrongName => "broker-elsewhere",
                _ => "broker-tls",
            };
            let asked = match way {
                Way::Mutual => "required",
                _ => "none",
            };
            text += &format!(
                "{prefix}.ssl.keystore.type=PEM
{prefix}.ssl.keystore.location={dir}/{key}.both
{prefix}.ssl.truststore.type=PEM
{prefix}.ssl.truststore.location={dir}/ca.pem
{prefix}.ssl.client.auth={asked}
"
            );
        }
        if protocol.starts_with("SASL") {
            let modules = "org.apache.kafka.common.security";
            text += &format!(
                "{prefix}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
{prefix}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\" user_{LIMITED}=\"{PASSWORD}\";
{prefix}.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;
{prefix}.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;
"
            );
        }
    }
    text
}
