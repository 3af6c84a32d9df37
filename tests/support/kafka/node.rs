//! The process of a test's Kafka: its directory, its settings, its life.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};

use tempfile::TempDir;

use super::libraries::libraries;
use super::settings::Settings;
use crate::support::process::spawn_bound;

/// The same for all nodes of a cluster; clusters of two tests never meet.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// One node of Kafka: its directory and, while it runs, its process.
pub(super) struct Node {
    libraries: PathBuf,
    dir: TempDir,
    /// Most memory of the Java heap, as Java writes it.
    heap: &'static str,
    process: Mutex<Option<Child>>,
}

impl Node {
    /// Writes the settings into `dir` and formats the storage, with more arguments of Kafka's tool for that.
    pub(super) fn format(
        dir: TempDir,
        heap: &'static str,
        settings: &Settings,
        more: &[String],
    ) -> Result<Self, String> {
        let file = dir.path().join("server.properties");
        fs::write(&file, settings.text(dir.path())).map_err(|error| error.to_string())?;
        let node = Self {
            libraries: libraries()?,
            dir,
            heap,
            process: Mutex::new(None),
        };
        let output = node
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", CLUSTER_ID, "-c"])
            .arg(file)
            .args(more)
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
            .arg(format!("-Xmx{}", self.heap))
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(self.libraries.join("*"))
            .arg(class);
        command
    }

    /// Runs one of Kafka's tools. Panics if it fails.
    pub(super) fn tool(&self, class: &str, arguments: &[&str]) -> Output {
        let output = self.java(class).args(arguments).output();
        let output = output.expect("java starts");
        assert!(
            output.status.success(),
            "{class} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
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

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.process
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
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
