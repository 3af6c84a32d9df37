//! What the tests have in common: the binary, built plugins, generated data, pipelines in a folder of their own.

pub mod data;
pub mod ecommerce;
pub mod kafka;
pub mod oracle;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod running;
pub mod shop;
pub mod times;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use tempfile::TempDir;

/// The built host.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_tidemill")
}

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the host is a folder of the repository")
        .to_owned()
}

/// A test that takes longer hangs; the slowest needs three minutes.
const HANGS_AFTER: Duration = Duration::from_secs(900);
/// Ask for more rounds than by default, which take hours.
const MORE_ROUNDS: [&str; 2] = ["TIDEMILL_CRASHES", "TIDEMILL_MODEL"];
const HANGS_AFTER_MORE: Duration = Duration::from_secs(6 * 3_600);

/// A test; its panic is its failure. One that hangs ends the whole run, with its name: waiting for it tells nobody anything.
pub fn trial(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || {
        let more = MORE_ROUNDS
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        let patience = if more { HANGS_AFTER_MORE } else { HANGS_AFTER };
        let (done, ends) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if ends.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                eprintln!("test {name} hangs: no end after {patience:?}");
                std::process::exit(101);
            }
        });
        let result = std::panic::catch_unwind(test);
        drop(done);
        result.map_err(|cause| {
            let text = cause.downcast_ref::<String>().cloned();
            Failed::from(
                text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_default(),
            )
        })
    })
}

/// The component of a plugin crate, built once a test run. `folder` is relative to the repository.
pub fn plugin(folder: &str) -> PathBuf {
    plugin_variant(folder, &[])
}

/// A build of a plugin crate under the environment variables `env`, which its source may read.
pub fn plugin_variant(folder: &str, env: &[(&str, &str)]) -> PathBuf {
    static BUILT: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    static OUT: OnceLock<TempDir> = OnceLock::new();
    let label = format!("{folder}{env:?}");
    let mut built = BUILT
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let number = built.len();
    built
        .entry(label)
        .or_insert_with(|| {
            let dir = OUT.get_or_init(|| TempDir::new().expect("a temporary folder"));
            let out = dir.path().join(format!("{number}.wasm"));
            let mut command = Command::new(binary());
            command
                .args(["plugin", "build"])
                .arg(root().join(folder))
                .arg("--out")
                .arg(&out);
            command.envs(env.iter().copied());
            let output = command.output().expect("the binary starts");
            assert!(
                output.status.success(),
                "building {folder}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            out
        })
        .clone()
}

/// A folder with a pipeline file, its state and its output.
pub struct Pipeline {
    pub dir: TempDir,
}

impl Pipeline {
    /// `text` is the file without `name` and `[host]`; `{dir}` in it is the folder.
    pub fn new(workers: usize, text: &str) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let head = format!(
            "name = \"test\"\n[host]\nstate = \"state\"\nworkers = {workers}\ncheckpoint_every = \"100ms\"\n"
        );
        let text = text.replace("{dir}", &dir.path().display().to_string());
        std::fs::write(dir.path().join("pipeline.toml"), head + &text).expect("the folder is ours");
        Self { dir }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("pipeline.toml")
    }

    /// `tidemill run --until-end` with more arguments, not yet started.
    pub fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(self.file())
            .arg("--until-end")
            .args(more);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs to the end and expects success.
    pub fn run(&self) -> Output {
        let output = self.command(&[]).output().expect("the binary starts");
        assert!(
            output.status.success(),
            "exit {:?}: {}",
            output.status.code(),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// The JSON lines of an output file.
    pub fn rows(&self, file: &str) -> Vec<Value> {
        read_rows(&self.dir.path().join(file))
    }
}

/// The JSON lines of a file; none if there is no file.
pub fn read_rows(path: &Path) -> Vec<Value> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Vec::new();
    };
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{}: {e}: {l}", path.display())))
        .collect()
}

/// Panics with the first difference unless both hold the same rows, in whatever order; floats to 1e-9.
pub fn assert_same_rows(what: &str, mut got: Vec<Value>, mut expected: Vec<Value>) {
    // Floats may differ in their last digits and must not decide which rows are compared.
    let order = |v: &Value| {
        let object = v.as_object().expect("rows are objects");
        let exact = object.iter().filter(|(_, v)| !v.is_f64());
        let mut members: Vec<String> = exact.map(|(k, v)| format!("{k}={v}")).collect();
        members.sort();
        members
    };
    got.sort_by_cached_key(order);
    expected.sort_by_cached_key(order);
    let first = got.iter().zip(&expected).find(|(g, e)| !same(g, e));
    assert!(
        first.is_none(),
        "{what}: first difference: got {}, expected {}",
        first.unwrap().0,
        first.unwrap().1
    );
    assert_eq!(
        got.len(),
        expected.len(),
        "{what}: number of rows; the first ones agree"
    );
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(1.0)
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

/// Panics unless every key's rows stand in the same order in both.
pub fn assert_same_order(key: &str, got: &[Value], expected: &[Value]) {
    let by_key = |rows: &[Value]| {
        let mut all: HashMap<String, Vec<Value>> = HashMap::new();
        rows.iter()
            .for_each(|r| all.entry(r[key].to_string()).or_default().push(r.clone()));
        all
    };
    let (got, expected) = (by_key(got), by_key(expected));
    for (key, rows) in expected {
        assert_eq!(got.get(&key), Some(&rows), "order of the rows of key {key}");
    }
}
