//! Apache Kafka's libraries, fetched through Maven once for a build directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// 4.3.0 and 4.3.1 lose the marks of transactions when a broker is killed, see `docs/operations.md`: no client can keep its
/// word there.
const VERSION: &str = "4.2.0";

/// The directory of Kafka's libraries, fetched through Maven at first.
pub(super) fn libraries() -> Result<PathBuf, String> {
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
