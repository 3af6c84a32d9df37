//! What a broker's TLS listener needs.

use std::path::Path;
use std::process::Command;

/// Makes a key for the broker, and a certificate that nobody has signed but itself.
pub(super) fn certify(dir: &Path) -> Result<(), String> {
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

/// The settings of the listener SAFE: that key, and user `app` with password `right`.
pub(super) fn with_password(dir: &Path) -> String {
    format!(
        "sasl.enabled.mechanisms=PLAIN
listener.name.safe.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_app=\"right\";
ssl.keystore.location={dir}/broker.p12
ssl.keystore.type=PKCS12
ssl.keystore.password=changeit
ssl.key.password=changeit
",
        dir = dir.display()
    )
}
