//! A certificate authority of the tests, made with OpenSSL's command line, and what it signs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority whose files are in a folder.
pub(super) struct Authority<'a> {
    dir: &'a Path,
    name: &'a str,
}

impl<'a> Authority<'a> {
    /// Makes `NAME.pem`, to be trusted, and `NAME.key`.
    pub(super) fn new(dir: &'a Path, name: &'a str) -> Result<Self, String> {
        let this = Self { dir, name };
        let subject = format!("/CN={name}");
        let files = [this.path("key"), this.path("pem")];
        this.openssl(
            &[
                "req", "-x509", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes", "-days", "2",
            ],
            &["-subj", &subject, "-keyout", &files[0], "-out", &files[1]],
        )?;
        Ok(this)
    }

    pub(super) fn certificate(&self) -> PathBuf {
        PathBuf::from(self.path("pem"))
    }

    /// Makes `OWNER.pem`, signed by this authority for `names` (as `IP:127.0.0.1`), `OWNER.key` and, as Kafka wants it,
    /// `OWNER.both`. The key is encrypted if there is a password.
    pub(super) fn sign(
        &self,
        owner: &str,
        names: &str,
        password: Option<&str>,
    ) -> Result<(), String> {
        let file = |kind: &str| {
            self.dir
                .join(format!("{owner}.{kind}"))
                .display()
                .to_string()
        };
        let (key, request, signed) = (file("key"), file("csr"), file("pem"));
        let subject = format!("/CN={owner}");
        let secret = password.map(|password| format!("pass:{password}"));
        let locked: &[&str] = match &secret {
            Some(secret) => &["-passout", secret],
            None => &["-nodes"],
        };
        let make = ["req", "-newkey", "ec", "-pkeyopt", CURVE, "-subj", &subject];
        self.openssl(
            &make,
            &[locked, &["-keyout", &key, "-out", &request]].concat(),
        )?;
        let extensions = file("ext");
        let names = format!("subjectAltName={names}\n");
        std::fs::write(&extensions, names).map_err(|error| error.to_string())?;
        let (ca, ca_key) = (self.path("pem"), self.path("key"));
        self.openssl(
            &[
                "x509", "-req", "-days", "2", "-in", &request, "-out", &signed,
            ],
            &[
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-extfile",
                &extensions,
            ],
        )?;
        let read = |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string());
        std::fs::write(file("both"), read(&key)? + &read(&signed)?)
            .map_err(|error| error.to_string())
    }

    fn path(&self, kind: &str) -> String {
        self.dir
            .join(format!("{}.{kind}", self.name))
            .display()
            .to_string()
    }

    fn openssl(&self, what: &[&str], more: &[&str]) -> Result<(), String> {
        let output = Command::new("openssl").args(what).args(more).output();
        let output = output.map_err(|error| format!("openssl: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "openssl {}: {}",
                what[0],
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
}

const CURVE: &str = "ec_paramgen_curve:prime256v1";
