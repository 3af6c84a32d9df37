//! The process of a test's Kafka: its libraries, its settings, its life.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

use crate::support::process::spawn_bound;

const VERSION: &str = "4.3.0";

/// One node of Kafka: its directory, its port and, while it runs, its process.
pub(super) struct Node {
    libraries: PathBuf,
    dir: TempDir,
    pub(super) port: u16,
    pub(super) tls_port: u16,
    process: Mutex<Option<Child>>,
}

impl Node {
    /// Writes the settings and formats the storage.
    pub(super) fn format() -> Result<Self, String> {
        let libraries = libraries()?;
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let ports = free_ports().map_err(|error| error.to_string())?;
        certify(dir.path())?;
        let settings = settings(dir.path(), ports);
        fs::write(dir.path().join("server.properties"), settings)
            .map_err(|error| error.to_string())?;
        let node = Self {
            libraries,
            dir,
            port: ports[0],
            tls_port: ports[1],
            process: Mutex::new(None),
        };
        let output = node
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(node.dir.path().join("server.properties"))
            .output()
            .map_err(|error| format!("java: {error}"))?;
        match output.status.success() {
            true => Ok(node),
            false => Err(format!(
                "formatting Kafka's storage failed: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args([
                "-Xmx512m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
            ])
            .arg(self.libraries.join("*"))
            .arg(class);
        command
    }

    pub(super) fn launch(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log file");
        let mut command = self.java("kafka.Kafka");
        command
            .arg(self.dir.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let child = spawn_bound(command).expect("java starts");
        let before = self.lock().replace(child);
        assert!(before.is_none(), "the broker runs already");
    }

    pub(super) fn kill(&self) {
        if let Some(mut child) = self.lock().take() {
            // Already ended is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.lock()
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What the TLS listener's clients are to trust.
    pub(super) fn certificate(&self) -> PathBuf {
        self.dir.path().join("broker.pem")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("kafka.log")
    }

    pub(super) fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let from = log.len().saturating_sub(4_000);
        log.get(log.ceil_char_boundary(from)..)
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that nobody listened on a moment ago.
fn free_ports() -> std::io::Result<[u16; 3]> {
    let listen = || TcpListener::bind("127.0.0.1:0");
    let sockets = [listen()?, listen()?, listen()?];
    let port = |socket: &TcpListener| socket.local_addr().map(|address| address.port());
    Ok([port(&sockets[0])?, port(&sockets[1])?, port(&sockets[2])?])
}

/// Makes a key for the broker, and a certificate that nobody has signed but itself.
fn certify(dir: &Path) -> Result<(), String> {
    let common = [
        "-keystore",
        "broker.p12",
        "-storetype",
        "PKCS12",
        "-storepass",
        "changeit",
        "-alias",
        "broker",
    ];
    let make: &[&str] = &[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=127.0.0.1",
        "-ext",
        "san=ip:127.0.0.1",
    ];
    let export: &[&str] = &["-exportcert", "-rfc", "-file", "broker.pem"];
    for step in [make, export] {
        let output = Command::new("keytool")
            .args(step)
            .args(common)
            .current_dir(dir)
            .output();
        let output = output.map_err(|error| format!("keytool: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "keytool: {}",
                String::from_utf8_lossy(&output.stdout)
            ));
        }
    }
    Ok(())
}

/// One node with a plain listener and one with TLS and passwords.
fn settings(dir: &Path, [port, tls, controller]: [u16; 3]) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SAFE://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SAFE://127.0.0.1:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SAFE:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.safe.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_app=\"right\";
ssl.keystore.location={dir}/broker.p12
ssl.keystore.type=PKCS12
ssl.keystore.password=changeit
ssl.key.password=changeit
log.dirs={dir}/data
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
",
        dir = dir.display()
    )
}

/// The directory of Kafka's libraries, fetched through Maven at first.
fn libraries() -> Result<PathBuf, String> {
    static FETCHED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FETCHED.get_or_init(fetch).clone()
}

fn fetch() -> Result<PathBuf, String> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let complete = base.join(format!("kafka-{VERSION}"));
    if complete.is_dir() {
        return Ok(complete);
    }
    let told = |error: std::io::Error| format!("{}: {error}", base.display());
    fs::create_dir_all(base).map_err(told)?;
    let work = tempfile::tempdir_in(base).map_err(told)?;
    fs::write(work.path().join("pom.xml"), pom()).map_err(told)?;
    let output = Command::new("mvn")
        .args([
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DoutputDirectory=libs",
        ])
        .current_dir(work.path())
        .output()
        .map_err(|error| format!("mvn: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "Maven could not fetch Kafka: {}",
            String::from_utf8_lossy(&output.stdout)
        ));
    }
    match fs::rename(work.path().join("libs"), &complete) {
        // Another test process was faster.
        Err(_) if complete.is_dir() => Ok(complete),
        Err(error) => Err(told(error)),
        Ok(()) => Ok(complete),
    }
}

fn pom() -> String {
    let dependency = |(group, artifact, version): (&str, &str, &str)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let dependencies: String = [
        ("org.apache.kafka", "kafka_2.13", VERSION),
        ("org.apache.kafka", "kafka-tools", VERSION),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.3"),
    ]
    .map(dependency)
    .concat();
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>tidemill</groupId><artifactId>test-kafka</artifactId>\
         <version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
}
