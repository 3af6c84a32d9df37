//! The e-commerce example without a broker: its own pipeline file, with generators in place of the topics it reads and
//! files in place of those it writes. Its steps, windows and plugins are as they stand in the repository.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, value};

use super::{plugin, root};

/// A generator's keys (`per_second = 10, speed = 60`) and the source's `limit`, if any.
pub struct Made<'a> {
    pub generate: &'a str,
    pub per_epoch: Option<usize>,
}

/// Writes the pipeline and its products to `dir`, with the keys of `host`; returns the pipeline file.
pub fn write(dir: &Path, host: &str, clicks: &Made, transactions: &Made) -> PathBuf {
    let example = root().join("examples/ecommerce");
    let text = std::fs::read_to_string(example.join("pipeline.toml")).expect("the example");
    let mut file: DocumentMut = text.parse().expect("the example is valid");
    file.remove("kafka");
    file["host"] = table(host);
    file["dead_letters"] = table("file = { path = \"dead-letters.jsonl\" }");
    file["sources"]["clicks"] = source("clicks", clicks);
    file["sources"]["transactions"] = source("transactions", transactions);
    into_files(&mut file["sinks"]);
    for (name, step) in file["steps"].as_table_mut().expect("steps").iter_mut() {
        let step = step.as_table_mut().expect("a step");
        let Some(plugged) = step.get_mut("plugin") else {
            continue;
        };
        let wasm = plugged["file"]
            .as_str()
            .unwrap_or_else(|| panic!("a file in {name}"));
        let folder = Path::new(wasm).file_stem().expect("a file name");
        let built = plugin(&format!("plugins/{}", folder.to_string_lossy()));
        plugged["file"] = value(built.display().to_string());
    }
    std::fs::copy(example.join("products.csv"), dir.join("products.csv")).expect("the products");
    let path = dir.join("pipeline.toml");
    std::fs::write(&path, file.to_string()).expect("the folder is ours");
    path
}

/// Topics become files of the sinks' names; nothing is shown.
fn into_files(sinks: &mut Item) {
    let sinks = sinks.as_table_mut().expect("sinks");
    sinks.retain(|_, sink| sink.get("console").is_none());
    for (name, sink) in sinks.iter_mut() {
        let sink = sink.as_table_mut().expect("a sink");
        if sink.remove("kafka").is_some() {
            sink["file"] = table(&format!("path = \"{name}.jsonl\""));
        }
    }
}

fn source(kind: &str, made: &Made) -> Item {
    let limit = made.per_epoch.map_or(String::new(), |records| {
        format!("limit = {{ per_epoch = {records} }}\n")
    });
    table(&format!(
        "generate = {{ kind = \"{kind}\", {} }}\n{limit}",
        made.generate
    ))
}

fn table(text: &str) -> Item {
    let parsed: DocumentMut = text.parse().expect("valid TOML");
    Item::Table(parsed.as_table().clone())
}
