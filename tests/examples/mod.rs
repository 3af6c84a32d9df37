//! The examples that bring their own data, as a user runs them: a copy of the folder, the built plugins, the binary. What
//! comes out is compared with numbers computed here, from the data and from scratch; what their READMEs show, with what is
//! printed.
//!
//! The e-commerce example needs a broker: `kafka/ecommerce.rs`.

mod fraud;
mod iot;
mod logs;
mod sales;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::Trial;
use serde_json::{Map, Number, Value};
use tempfile::TempDir;

use crate::support::{binary, plugin, read_rows, root, times, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("example_sales_agrees_with_its_orders", sales::agrees),
        trial("example_fraud_finds_what_is_to_be_found", fraud::agrees),
        trial("example_iot_corrects_and_keeps_what_is_late", iot::agrees),
        trial("example_logs_tells_jumps_from_a_slow_rise", logs::agrees),
        trial("examples_print_what_their_readmes_show", readmes),
        trial("example_data_is_what_its_script_makes", data_of_script),
    ]
}

const WITH_DATA: [(&str, &[&str]); 4] = [
    ("sales", &[]),
    ("fraud", &["anomaly", "travel"]),
    ("iot", &[]),
    ("logs", &[]),
];
/// The numbers of workers that each example is run with.
const WORKERS: [usize; 2] = [1, 3];

/// A fresh copy of an example and its plugins, laid out as in the repository.
struct Example {
    dir: TempDir,
    name: &'static str,
}

impl Example {
    fn new(name: &'static str) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let (_, plugins) = WITH_DATA
            .iter()
            .find(|(n, _)| *n == name)
            .expect("a known example");
        for plugin_name in *plugins {
            let folder = format!("plugins/{plugin_name}");
            let to = dir.path().join(&folder);
            fs::create_dir_all(&to).expect("the folder is ours");
            let wasm = to.join(format!("{plugin_name}.wasm"));
            fs::copy(plugin(&folder), wasm).expect("the plugin was built");
        }
        copy_files(
            &root().join("examples").join(name),
            &dir.path().join("examples").join(name),
        );
        Self { dir, name }
    }

    /// The example after a run to the end on `workers` workers, with what it printed.
    fn after_run(name: &'static str, workers: usize) -> (Self, Output) {
        let example = Self::new(name);
        let output = example
            .command()
            .arg("--set")
            .arg(format!("host.workers={workers}"))
            .output()
            .expect("the binary starts");
        example.succeeded(&output);
        (example, output)
    }

    /// The command that its README gives, from the top of the repository.
    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .current_dir(self.dir.path())
            .args([
                "run",
                &format!("examples/{}/pipeline.toml", self.name),
                "--until-end",
            ])
            .stdin(Stdio::null());
        command
    }

    fn succeeded(&self, output: &Output) {
        assert!(
            output.status.success(),
            "{}: exit {:?}: {}",
            self.name,
            output.status.code(),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join("examples").join(self.name).join(file)
    }

    /// The JSON lines of one of its files.
    fn rows(&self, file: &str) -> Vec<Value> {
        read_rows(&self.path(file))
    }

    /// The rows of one of several steps in a file, without the column that tells them apart.
    fn rows_of(&self, file: &str, step: &str) -> Vec<Value> {
        let mut rows = self.rows(file);
        rows.retain(|row| row["step"] == step);
        for row in &mut rows {
            row.as_object_mut()
                .expect("rows are objects")
                .remove("step");
        }
        rows
    }

    /// The lines of one of its CSV files; a cell that reads as a number is one.
    fn cells(&self, file: &str) -> Vec<Value> {
        let path = self.path(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().expect("a header").split(',').collect();
        lines
            .map(|line| {
                names
                    .iter()
                    .map(|n| (*n).to_owned())
                    .zip(line.split(',').map(cell))
                    .collect()
            })
            .map(Value::Object)
            .collect()
    }
}

fn cell(text: &str) -> Value {
    let whole = text.parse::<i64>().ok().map(Number::from);
    let number = whole.or_else(|| text.parse().ok().and_then(Number::from_f64));
    number.map_or_else(|| text.into(), Value::Number)
}

/// The files of a folder, not what runs left below it.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("the example is there") {
        let entry = entry.expect("a readable folder");
        if entry.file_type().expect("a file or folder").is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("the folder is ours");
        }
    }
}

fn millis(time: &Value) -> i64 {
    times::millis(time.as_str().expect("a time"))
}

/// Rows by key and window.
type Windows<K, R> = BTreeMap<(K, i64, i64), Vec<R>>;

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Value::Object(members.collect::<Map<_, _>>())
}

fn float(row: &Value, name: &str) -> f64 {
    row[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} is no number in {row}"))
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} is no text in {row}"))
}

/// To the cent.
fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

/// The first block of text in a README is what the command before it prints, and a second run does nothing.
fn readmes() {
    for (name, _) in WITH_DATA {
        let example = Example::new(name);
        let readme =
            fs::read_to_string(example.path("README.md")).expect("every example has a README");
        let command = format!("tidemill run examples/{name}/pipeline.toml --until-end\n");
        assert!(
            readme.contains(&command),
            "{name}: the README does not say {command}"
        );
        let (_, shown) = readme
            .split_once("```text\n")
            .expect("the README shows what is printed");
        let (shown, _) = shown.split_once("```").expect("a block that ends");
        let output = example.command().output().expect("the binary starts");
        example.succeeded(&output);
        let printed = String::from_utf8_lossy(&output.stdout);
        // On a slow machine earlier pictures come before the last one.
        assert!(
            printed.ends_with(shown),
            "{name}: printed\n{printed}\nand shown in the README\n{shown}"
        );
        let again = example.command().output().expect("the binary starts");
        example.succeeded(&again);
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(said.contains("nothing to do"), "{name}: {said}");
    }
}

/// Whoever changes the script or the data by hand is told of the other.
fn data_of_script() {
    let dir = TempDir::new().expect("a temporary folder");
    let examples = root().join("examples");
    let script = dir.path().join("make-data.py");
    fs::copy(examples.join("make-data.py"), &script).expect("the script is there");
    for (name, _) in WITH_DATA {
        fs::create_dir(dir.path().join(name)).expect("the folder is ours");
    }
    let made = Command::new("python3").arg(&script).output();
    let made = made.unwrap_or_else(|e| panic!("python3, which the script needs: {e}"));
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let said = String::from_utf8_lossy(&made.stdout);
    let files: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, _)| file)
        .collect();
    assert!(files.len() >= 6, "{said}");
    for file in files {
        let same = fs::read(dir.path().join(file)).ok() == fs::read(examples.join(file)).ok();
        assert!(
            same,
            "examples/{file} is not what examples/make-data.py makes"
        );
    }
}
