//! TLS, passwords and rights, by the binary as its users run it: what works, what is said where it does not, and that no
//! secret turns up anywhere.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::{PATIENCE, Test};
use crate::support::binary;
use crate::support::kafka::secured::{KEY_PASSWORD, LIMITED, PASSWORD, Secured, USER, Way};
use crate::support::running::wait;

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_tls_reads_and_writes", tls),
        ("kafka_mutual_tls_reads_and_writes", mutual),
        ("kafka_sasl_plain_reads_and_writes", plain),
        ("kafka_sasl_scram_256_reads_and_writes", scram_256),
        ("kafka_sasl_scram_512_reads_and_writes", scram_512),
        ("kafka_a_wrong_password_is_told", wrong_password),
        ("kafka_an_unknown_authority_is_told", unknown_authority),
        ("kafka_a_certificate_for_another_host_is_told", wrong_name),
        ("kafka_a_missing_client_certificate_is_told", no_certificate),
        ("kafka_missing_rights_are_told", no_rights),
    ]
}

/// Words that must be nowhere.
const SECRETS: [&str; 3] = [PASSWORD, KEY_PASSWORD, WRONG];
const WRONG: &str = "canary-09e4-wrong-password";

/// A pipeline that copies a topic, on one of the ways in.
struct Copying {
    dir: TempDir,
    broker: &'static Secured,
    input: String,
    output: String,
}

impl Copying {
    /// `properties` as lines `"name" = "value"`; `{file}` in them is the folder of certificates.
    fn new(way: Way, properties: &[String]) -> Self {
        let broker = Secured::get().unwrap_or_else(|reason| panic!("{reason}"));
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("secret"), PASSWORD).unwrap();
        std::fs::write(dir.path().join("wrong"), WRONG).unwrap();
        let (input, output) = (broker.topic("secured", 1), broker.topic("secured-out", 1));
        broker.produce(
            &input,
            0,
            [(1, Some("{\"id\":\"a\"}")), (2, Some("{\"id\":\"b\"}"))],
        );
        let text = format!(
            "name = \"{input}\"\n[host]\nstate = \"state\"\nworkers = 1\n[kafka]\nbrokers = \"{}\"\n\
             [kafka.properties]\n{}\n[sources.records]\nkafka = {{ topic = \"{input}\" }}\nformat = \"json\"\n\
             fields = {{ id = \"string\" }}\n[sinks.copy]\nfrom = [\"records\"]\nkafka = {{ topic = \"{output}\" }}\n",
            broker.address(way),
            properties.join("\n")
        );
        std::fs::write(dir.path().join("pipeline.toml"), text).unwrap();
        Self {
            dir,
            broker,
            input,
            output,
        }
    }

    fn command(&self, command: &str, more: &[&str]) -> Output {
        let mut child = Command::new(binary())
            .arg(command)
            .arg(self.dir.path().join("pipeline.toml"))
            .args(more)
            .env("TEST_PASSWORD", PASSWORD)
            .env("TEST_KEY_PASSWORD", KEY_PASSWORD)
            .env("TEST_WRONG", WRONG)
            .env("TIDEMILL_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(self.dir.path().join("stdout")).unwrap())
            .stderr(std::fs::File::create(self.dir.path().join("stderr")).unwrap())
            .spawn()
            .expect("the binary starts");
        let ended = wait(&mut child, PATIENCE);
        let read = |name| std::fs::read(self.dir.path().join(name)).unwrap();
        let status = ended.unwrap_or_else(|| {
            child.kill().unwrap();
            let _ = child.wait();
            panic!("no end: {}", String::from_utf8_lossy(&read("stderr")))
        });
        Output {
            status,
            stdout: read("stdout"),
            stderr: read("stderr"),
        }
    }

    /// What `docs/doctor.md` says that its user needs.
    fn rights(&self) -> [String; 9] {
        // The pipeline bears the name of its input.
        let (input, output, name) = (&self.input, &self.output, &self.input);
        let prefixed = "--resource-pattern-type prefixed";
        [
            format!("--topic {input} --operation Read --operation Describe"),
            format!("--topic {output} --operation Write --operation Describe"),
            format!("--topic {input} --topic {output} --operation DescribeConfigs"),
            format!(
                "--topic __tidemill.{name}. {prefixed} --operation Create --operation Read --operation Write --operation \
                 Describe --operation Delete --operation DescribeConfigs"
            ),
            format!("--transactional-id {name}/ {prefixed} --operation Write --operation Describe"),
            format!(
                "--group {name} {prefixed} --operation Read --operation Describe --operation Delete"
            ),
            "--topic __transaction_state --operation Describe --operation DescribeConfigs"
                .to_owned(),
            "--topic __consumer_offsets --operation Describe --operation DescribeConfigs"
                .to_owned(),
            "--cluster --operation DescribeConfigs".to_owned(),
        ]
    }

    /// Both records are copied, and nothing that was said or stored holds a secret.
    fn copies(&self) {
        let output = self.command("run", &["--until-end"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", output.status);
        let source = super::source(
            self.broker,
            &self.output,
            tidemill::pipeline::plan::Start::Earliest,
        );
        let parts = super::partitions(&source, true);
        let mut reader = tidemill::source::Source::reader(&source, parts).unwrap();
        let copied = super::read_until(&mut *reader, super::finished);
        assert_eq!(copied, ["{\"id\":\"a\"}", "{\"id\":\"b\"}"]);
        self.keeps_secrets("run", &output);
        for command in ["check", "status"] {
            self.keeps_secrets(command, &self.command(command, &[]));
        }
    }

    /// The run fails, soon, and says all of `parts`.
    fn fails(&self, parts: &[&str]) {
        let output = self.command("run", &["--until-end"]);
        let said = String::from_utf8_lossy(&output.stderr);
        let error = said.lines().filter(|line| line.starts_with("error: "));
        let error = error.collect::<Vec<_>>().join("\n");
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in parts {
            assert!(error.contains(part), "{error:?} lacks {part:?}\n{said}");
        }
        self.keeps_secrets("run", &output);
    }

    fn keeps_secrets(&self, command: &str, output: &Output) {
        assert_no_secret(&format!("stdout of {command}"), &output.stdout);
        assert_no_secret(&format!("stderr of {command}"), &output.stderr);
        search(&self.dir.path().join("state"));
    }
}

/// Every file below a folder, if there is one.
fn search(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path);
        } else if let Ok(bytes) = std::fs::read(&path) {
            assert_no_secret(&path.display().to_string(), &bytes);
        }
    }
}

fn assert_no_secret(place: &str, bytes: &[u8]) {
    for secret in SECRETS {
        let found = bytes
            .windows(secret.len())
            .any(|at| at == secret.as_bytes());
        assert!(!found, "{place} holds the secret {secret}");
    }
}

fn file(name: &str) -> String {
    let broker = Secured::get().unwrap_or_else(|reason| panic!("{reason}"));
    broker.file(name).display().to_string()
}

fn property(name: &str, value: &str) -> String {
    format!("\"{name}\" = \"{value}\"")
}

fn with_tls(authority: &str) -> Vec<String> {
    vec![
        property("security.protocol", "SSL"),
        property("ssl.ca.location", &file(authority)),
    ]
}

fn with_password(protocol: &str, mechanism: &str, user: &str, password: &str) -> Vec<String> {
    let mut properties = vec![
        property("security.protocol", protocol),
        property("sasl.mechanism", mechanism),
        property("sasl.username", user),
        property("sasl.password", password),
    ];
    if protocol == "SASL_SSL" {
        properties.push(property("ssl.ca.location", &file("ca.pem")));
    }
    properties
}

fn tls() {
    Copying::new(Way::Tls, &with_tls("ca.pem")).copies();
}

fn mutual() {
    let mut properties = with_tls("ca.pem");
    properties.push(property("ssl.certificate.location", &file("client.pem")));
    properties.push(property("ssl.key.location", &file("client.key")));
    properties.push(property("ssl.key.password", "${env:TEST_KEY_PASSWORD}"));
    Copying::new(Way::Mutual, &properties).copies();
    let pem = vec![
        property("security.protocol", "SSL"),
        property("ssl.ca.pem", &format!("${{file:{}}}", file("ca.pem"))),
        property(
            "ssl.certificate.pem",
            &format!("${{file:{}}}", file("client.pem")),
        ),
        property("ssl.key.pem", &format!("${{file:{}}}", file("client.key"))),
        property("ssl.key.password", "${env:TEST_KEY_PASSWORD}"),
    ];
    Copying::new(Way::Mutual, &pem).copies();
}

fn plain() {
    reads_and_writes("PLAIN");
}

fn scram_256() {
    reads_and_writes("SCRAM-SHA-256");
}

fn scram_512() {
    reads_and_writes("SCRAM-SHA-512");
}

/// With TLS and without, the password from the environment and from a file.
fn reads_and_writes(mechanism: &str) {
    let from_env = with_password("SASL_SSL", mechanism, USER, "${env:TEST_PASSWORD}");
    Copying::new(Way::SaslTls, &from_env).copies();
    let folder = TempDir::new().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, PASSWORD).unwrap();
    let reference = format!("${{file:{}}}", secret.display());
    let from_file = with_password("SASL_PLAINTEXT", mechanism, USER, &reference);
    Copying::new(Way::SaslPlain, &from_file).copies();
}

fn wrong_password() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let properties = with_password("SASL_SSL", mechanism, USER, "${env:TEST_WRONG}");
        Copying::new(Way::SaslTls, &properties)
            .fails(&["refuses these credentials", "`properties` under [kafka]"]);
    }
}

fn unknown_authority() {
    Copying::new(Way::Tls, &with_tls("stranger.pem")).fails(&["no TLS connection", "certificate"]);
}

fn wrong_name() {
    Copying::new(Way::WrongName, &with_tls("ca.pem")).fails(&["no TLS connection", "certificate"]);
}

fn no_certificate() {
    Copying::new(Way::Mutual, &with_tls("ca.pem"))
        .fails(&["no TLS connection", "ssl.certificate.location"]);
}

/// Without rights the run and the doctor say which are missing; those of `docs/doctor.md` are enough for both.
fn no_rights() {
    let properties = with_password("SASL_SSL", "SCRAM-SHA-512", LIMITED, "${env:TEST_PASSWORD}");
    let copying = Copying::new(Way::SaslTls, &properties);
    copying.fails(&["this user may not use", "grant it"]);
    let doctor = copying.command("doctor", &[]);
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(1), "{found}");
    for (operations, of) in [
        ("--operation Read", format!("--topic {}", copying.input)),
        ("--operation Write", format!("--topic {}", copying.output)),
    ] {
        let grant = |line: &str| {
            line.contains("kafka-acls --add") && line.contains(operations) && line.ends_with(&of)
        };
        assert!(found.lines().any(grant), "no {operations} {of} in {found}");
    }

    let rights = copying.rights();
    let each = |what: fn(&Secured, &[&str])| {
        for right in &rights {
            let right: Vec<&str> = right.split(' ').collect();
            what(copying.broker, &right);
        }
    };
    each(Secured::allow);
    let doctor = copying.command("doctor", &[]);
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.status.success(), "{found}");
    assert!(!found.contains("kafka-acls"), "{found}");
    copying.copies();
    each(Secured::forbid);
}
