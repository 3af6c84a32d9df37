//! Builds the plugins of `tests/guests/hostile` and makes calls short to write.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use wit_component::ComponentEncoder;

use crate::batch::Batch;
use crate::error::PluginError;
use crate::plugin::{Component, Instance, NoTables, Outcome, PortRows, Runtime, Setup, Tables};

/// Core modules of all hostile plugins, built once a test process.
static MODULES: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/hostile");
    // target/release/deps/tidemill-… -> target/guests: cargo's own directory, wherever it is.
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().nth(3).unwrap().join("guests");
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--target", "wasm32-unknown-unknown", "--target-dir"])
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(built.success(), "the hostile plugins do not build: {built}");
    target.join("wasm32-unknown-unknown/release")
});

pub static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| Runtime::new(None).unwrap());

/// The core module of a hostile plugin.
pub fn module(name: &str) -> Vec<u8> {
    std::fs::read(MODULES.join(format!("hostile_{name}.wasm"))).unwrap()
}

pub fn wasm(name: &str) -> Vec<u8> {
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module(name)).unwrap().encode().unwrap()
}

static TRANSFORM: LazyLock<Arc<Component>> = LazyLock::new(|| load("transform"));
static KEYED: LazyLock<Arc<Component>> = LazyLock::new(|| load("keyed"));
static KEYED_BLOB: LazyLock<Arc<Component>> = LazyLock::new(|| load("keyed_blob"));

fn load(name: &str) -> Arc<Component> {
    let file = format!("{name}.wasm");
    RUNTIME.load(&file, &wasm(name)).unwrap()
}

pub fn component(name: &str) -> Arc<Component> {
    match name {
        "transform" => TRANSFORM.clone(),
        "keyed" => KEYED.clone(),
        "keyed_blob" => KEYED_BLOB.clone(),
        _ => load(name),
    }
}

/// What `mode` is configured with: an input of `batch`'s columns, 4 MB of memory, 50 ms a call.
pub fn setup(mode: &str, batch: &Batch) -> Setup {
    Setup {
        step: "step".into(),
        config: mode.into(),
        input: batch.schema(),
        tables: Arc::new(NoTables),
        memory_bytes: 4 << 20,
        call: Duration::from_millis(50),
    }
}

pub fn transform(mode: &str, batch: &Batch) -> Result<Instance, PluginError> {
    component("transform").instantiate(setup(mode, batch))
}

pub fn with_tables(mode: &str, batch: &Batch, tables: Arc<dyn Tables>) -> Instance {
    let setup = Setup {
        tables,
        ..setup(mode, batch)
    };
    component("transform").instantiate(setup).unwrap()
}

/// Rows of one column `x`; row i has the event time i.
pub fn rows(x: impl IntoIterator<Item = i64>) -> Batch {
    let x: ArrayRef = Arc::new(Int64Array::from_iter_values(x));
    batch(vec![("x", x)])
}

pub fn batch(columns: Vec<(&str, ArrayRef)>) -> Batch {
    let columns = RecordBatch::try_from_iter(columns).unwrap();
    Batch {
        times: (0..columns.num_rows() as i64).collect(),
        columns,
        origins: None,
    }
}

/// Input rows that left through a port, with their first added column.
pub fn kept(outcome: &Outcome, port: usize) -> Vec<(u32, i64)> {
    let mut all = Vec::new();
    for rows in &outcome.ports[port] {
        let PortRows::Kept { rows, added } = rows else {
            panic!("new rows instead of input rows");
        };
        let added = added[0].as_primitive::<Int64Type>().values();
        all.extend(rows.iter().copied().zip(added.iter().copied()));
    }
    all
}

/// Origin and first column of the new rows of a port.
pub fn new(outcome: &Outcome, port: usize) -> Vec<(u32, i64)> {
    let mut all = Vec::new();
    for rows in &outcome.ports[port] {
        let PortRows::New {
            columns, origin, ..
        } = rows
        else {
            panic!("input rows instead of new rows");
        };
        let first = columns[0].as_primitive::<Int64Type>().values();
        all.extend(origin.iter().copied().zip(first.iter().copied()));
    }
    all
}
