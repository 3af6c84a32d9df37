//! What the plugin boundary costs: `anomaly` as WebAssembly beside the same rule in Rust, and a stateless selection.
//!
//! `cargo bench --bench plugin`. Nanoseconds a row, the least of several rounds, so that other work on the machine does not
//! count. The keyed lines hold everything between a batch and the new states: grouping rows by key, looking up and storing
//! states, and the call; the native twin has a map of structs and no boundary.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rand::prelude::*;
use rand::rngs::StdRng;
use tidemill::batch::Batch;
use tidemill::plugin::{
    Component, GroupStates, Instance, KeyedInput, NoTables, Runtime, Setup, build,
};

const ROUNDS: usize = 40;
const ROWS: usize = 64 * 1_024;
const USERS: usize = 10_000;
const THRESHOLD: f64 = 3.0;

fn main() {
    let dir = tempfile::tempdir().expect("a directory for the plugins");
    let runtime = Runtime::new(None).expect("a runtime");
    let anomaly = load(
        &runtime,
        "plugins/anomaly",
        &dir.path().join("anomaly.wasm"),
    );
    let select = load(
        &runtime,
        "tests/guests/hostile/transform",
        &dir.path().join("select.wasm"),
    );
    println!("rows a call | stateless: native wasm ratio | keyed: native wasm ratio");
    for rows in [1, 16, 256, 1_024, 4_096] {
        let batches = purchases(rows);
        let stateless = (
            least(&batches, select_native),
            least(&batches, select_wasm(&select, &batches[0])),
        );
        let keyed = (
            least(&batches, keyed_native()),
            least(&batches, keyed_wasm(&anomaly, &batches[0])),
        );
        println!("{rows:>11} | {} | {}", compared(stateless), compared(keyed));
    }
    starting(&anomaly, &purchases(1)[0]);
}

fn compared((native, wasm): (f64, f64)) -> String {
    format!("{native:>7.1} {wasm:>7.1} {:>5.1}x", wasm / native)
}

fn load(runtime: &Arc<Runtime>, plugin: &str, out: &Path) -> Arc<Component> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(plugin);
    build::build(&dir, Some(out), &mut |_| ()).expect("the plugin builds");
    let wasm = std::fs::read(out).expect("the plugin was built");
    runtime.load(plugin, &wasm).expect("the plugin loads")
}

fn instance(component: &Arc<Component>, config: &str, batch: &Batch) -> Instance {
    let setup = Setup {
        step: "bench".into(),
        config: config.into(),
        input: batch.schema(),
        tables: Arc::new(NoTables),
        memory_bytes: 64 << 20,
        call: Duration::from_millis(200),
    };
    component
        .instantiate(setup)
        .expect("the plugin is configured")
}

/// `ROWS` purchases, `rows` a batch: few users buy much, most little; `x` for the stateless plugin.
fn purchases(rows: usize) -> Vec<Batch> {
    let mut random = StdRng::seed_from_u64(1);
    let mut batch = || {
        let users: Vec<i64> = (0..rows)
            .map(|_| (USERS as f64).powf(random.random::<f64>()) as i64)
            .collect();
        let amounts: Vec<f64> = (0..rows)
            .map(|_| -83.0 * (1.0 - random.random::<f64>()).ln())
            .collect();
        let x: Vec<i64> = (0..rows).map(|_| random.random_range(0..1_000)).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("user", Arc::new(Int64Array::from(users))),
            ("amount", Arc::new(Float64Array::from(amounts))),
            ("x", Arc::new(Int64Array::from(x))),
        ];
        Batch {
            columns: RecordBatch::try_from_iter(columns).expect("columns of one length"),
            times: (0..rows as i64).collect(),
            origins: None,
        }
    };
    (0..ROWS / rows).map(|_| batch()).collect()
}

/// Nanoseconds a row of the best round over all batches.
fn least(batches: &[Batch], mut call: impl FnMut(&Batch)) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        batches.iter().for_each(&mut call);
        best = best.min(start.elapsed().as_secs_f64());
    }
    best * 1e9 / ROWS as f64
}

fn ints<'a>(batch: &'a Batch, name: &str) -> &'a [i64] {
    batch.columns[name].as_primitive::<Int64Type>().values()
}

/// Even `x`, doubled: positions and new values.
fn select_native(batch: &Batch) {
    let x = ints(batch, "x");
    let mut rows = Vec::with_capacity(x.len());
    let mut doubled = Vec::with_capacity(x.len());
    for (row, x) in x.iter().enumerate().filter(|(_, x)| *x % 2 == 0) {
        rows.push(row as u32);
        doubled.push(x * 2);
    }
    black_box((rows, doubled));
}

fn select_wasm(component: &Arc<Component>, batch: &Batch) -> impl FnMut(&Batch) {
    let mut instance = instance(component, "even", batch);
    move |batch| {
        let outcome = instance.transform(batch).expect("a call");
        assert!(outcome.failed.is_empty());
        black_box(outcome);
    }
}

/// The words of the plugin's state: count, mean, sum of squared distances.
#[derive(Default, Clone, Copy)]
struct Moments {
    count: u64,
    mean: f64,
    m2: f64,
}

impl Moments {
    /// The score of an amount that is flagged; then it is added.
    fn judge(&mut self, amount: f64) -> Option<f64> {
        let mut score = None;
        if self.count >= 5 {
            let deviation = (self.m2 / (self.count - 1) as f64).sqrt();
            if deviation > 0.0 && (amount - self.mean).abs() > THRESHOLD * deviation {
                score = Some((amount - self.mean) / deviation);
            }
        }
        self.count += 1;
        let distance = amount - self.mean;
        self.mean += distance / self.count as f64;
        self.m2 += distance * (amount - self.mean);
        score
    }
}

fn keyed_native() -> impl FnMut(&Batch) {
    let mut states: HashMap<i64, Moments, FixedState> = HashMap::default();
    move |batch| {
        let amounts = batch.columns["amount"].as_primitive::<Float64Type>();
        let (mut rows, mut scores) = (Vec::new(), Vec::new());
        for (row, (user, amount)) in ints(batch, "user").iter().zip(amounts.values()).enumerate() {
            if let Some(score) = states.entry(*user).or_default().judge(*amount) {
                rows.push(row as u32);
                scores.push(score);
            }
        }
        black_box((rows, scores));
    }
}

/// Keys get numbers for good; a call's groups are found through `group_of_user`.
fn keyed_wasm(component: &Arc<Component>, batch: &Batch) -> impl FnMut(&Batch) {
    let config = format!(r#"{{"threshold":{THRESHOLD},"min_count":5}}"#);
    let mut instance = instance(component, &config, batch);
    let mut numbers: HashMap<i64, u32, FixedState> = HashMap::default();
    let mut states: Vec<[u64; 3]> = Vec::new();
    let mut group_of_number: Vec<u32> = Vec::new();
    move |batch| {
        let mut users = Vec::new();
        let mut held: Vec<u32> = Vec::new();
        let group_of_row = ints(batch, "user")
            .iter()
            .map(|user| {
                let number = *numbers.entry(*user).or_insert_with(|| {
                    states.push([0; 3]);
                    group_of_number.push(u32::MAX);
                    states.len() as u32 - 1
                });
                let group = &mut group_of_number[number as usize];
                if *group == u32::MAX {
                    *group = held.len() as u32;
                    held.push(number);
                    users.push(*user);
                }
                *group
            })
            .collect();
        let words: Vec<_> = held.iter().flat_map(|n| states[*n as usize]).collect();
        let groups = held.len();
        let input = KeyedInput {
            reads: instance.reads(batch),
            group_of_row,
            keys: vec![Arc::new(Int64Array::from(users))],
            groups: groups as u32,
            state: GroupStates::Fixed {
                words,
                present: vec![true; groups],
            },
            alarms: vec![],
            due: vec![],
            now: 0,
        };
        let done = instance.keyed(input).expect("a call");
        let GroupStates::Fixed { words, .. } = &done.state else {
            panic!("the state of `anomaly` is fixed");
        };
        for (number, words) in held.iter().zip(words.chunks_exact(3)) {
            states[*number as usize].copy_from_slice(words);
            group_of_number[*number as usize] = u32::MAX;
        }
        assert!(done.outcome.failed.is_empty());
        black_box(done);
    }
}

/// What a trap costs beyond the rows at fault: a new instance, configured.
fn starting(component: &Arc<Component>, batch: &Batch) {
    let config = format!(r#"{{"threshold":{THRESHOLD},"min_count":5}}"#);
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        black_box(instance(component, &config, batch));
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("a new instance, configured: {:.1} us", best * 1e6);
}
