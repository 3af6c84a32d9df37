//! What keyed state costs: encoding and looking up keys, updating states, a checkpoint, a restart.
//!
//! `cargo bench --bench state`. A row's cost is the least of several rounds for each batch, so that other work on the
//! machine does not count; what takes milliseconds is told as time on the clock and time on the processor.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use tidemill::plugin::StateLayout;
use tidemill::state::key::{KeyEncoder, key_hash};
use tidemill::state::keyed::KeyedTable;
use tidemill::state::{Delta, Prepared, Store};

const ROUNDS: usize = 7;
const BATCH_ROWS: usize = 8_192;
const KEY_GROUPS: u16 = 128;

fn main() {
    for keys in [1_000, 100_000, 1_000_000] {
        lookups(keys);
    }
    let dir = tempfile::tempdir().expect("a directory for the state");
    checkpoints(dir.path());
    restart(dir.path());
}

/// Keys in an order that no cache foresees.
fn batches(keys: u64) -> Vec<ArrayRef> {
    let scattered = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
    (0..64)
        .map(|batch| {
            let rows = (0..BATCH_ROWS as u64).map(|row| scattered(batch * BATCH_ROWS as u64 + row));
            let names = rows.map(|i| format!("user_{i:07}"));
            Arc::new(StringArray::from_iter_values(names)) as ArrayRef
        })
        .collect()
}

/// Nanoseconds a row of `round` over all batches, each batch at its best.
fn per_row(batches: &[ArrayRef], mut round: impl FnMut(&ArrayRef)) -> f64 {
    let mut best = vec![f64::INFINITY; batches.len()];
    for _ in 0..ROUNDS {
        for (batch, best) in batches.iter().zip(&mut best) {
            let start = Instant::now();
            round(batch);
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    best.iter().sum::<f64>() * 1e9 / (batches.len() * BATCH_ROWS) as f64
}

/// Time on the clock and time on the processor (of this thread), milliseconds.
fn timed<T>(body: impl FnOnce() -> T) -> (T, f64, f64) {
    let start = (Instant::now(), processor_ms());
    let result = body();
    let clock = start.0.elapsed().as_secs_f64() * 1e3;
    (result, clock, processor_ms() - start.1)
}

fn processor_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
    ns.map_or(f64::NAN, |ns| ns / 1e6)
}

fn encoder() -> KeyEncoder {
    KeyEncoder::new(&[DataType::Utf8]).expect("strings can be keys")
}

fn lookups(keys: u64) {
    let batches = batches(keys);
    let mut encoder = encoder();
    let mut table = KeyedTable::new(StateLayout::Fixed(3), KEY_GROUPS);
    let encode = per_row(&batches, |batch| {
        black_box(encoder.encode(std::slice::from_ref(batch), BATCH_ROWS));
    });
    let mut update = |change: bool| {
        per_row(&batches, |batch| {
            let keys = encoder.encode(std::slice::from_ref(batch), BATCH_ROWS);
            for row in 0..BATCH_ROWS {
                let slot = table.slot(keys.hash(row), keys.key(row));
                if change {
                    table.words_mut(slot)[0] += 1;
                } else {
                    black_box(slot);
                }
            }
        })
    };
    let change = update(true) - encode;
    let lookup = update(false) - encode;
    println!(
        "{keys:>9} keys: encode and hash {encode:.1} ns, lookup {lookup:.1} ns, lookup and update {change:.1} ns a row"
    );
}

/// Checkpoints of 100,000 changed keys with 100-byte states, in a store of a million.
fn checkpoints(dir: &Path) {
    let store = Store::open(dir, "bench", KEY_GROUPS).expect("the state opens");
    let step = store.step_id("step").expect("a number");
    let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
    let mut best = [f64::INFINITY; 3];
    for number in 0..20u64 {
        let count = if number == 0 { 1_000_000 } else { 100_000 };
        for i in 0..count {
            let key = format!("user_{:07}", (i * 7_919 + number * 13) % 1_000_000);
            let slot = table.slot(key_hash(key.as_bytes()), key.as_bytes());
            table.set_blob(slot, &[number as u8; 100]);
        }
        let (changes, frozen, _) = timed(|| table.freeze(number + 1));
        let delta = Delta {
            changes,
            ..Delta::default()
        };
        let prepared = Prepared {
            number,
            deltas: vec![(step, vec![delta])],
            ..Prepared::default()
        };
        let (result, clock, processor) = timed(|| store.commit(prepared));
        result.expect("the checkpoint is written");
        if number == 0 {
            println!("1,000,000 keys: commit {clock:.0} ms ({processor:.0} on the processor)");
        } else {
            best = [
                best[0].min(frozen),
                best[1].min(clock),
                best[2].min(processor),
            ];
        }
    }
    println!(
        "100,000 of 1,000,000 keys: freeze {:.1} ms, commit with sort and sync {:.1} ms ({:.1} on the processor); table {} MB",
        best[0],
        best[1],
        best[2],
        table.bytes() >> 20
    );
}

fn restart(dir: &Path) {
    let opened = timed(|| Store::open(dir, "bench", KEY_GROUPS));
    let store = opened.0.expect("the state opens");
    let step = store.step_id("step").expect("a number");
    let store = Arc::new(store);
    let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
    let keys = store.keys(step, 0..KEY_GROUPS);
    let (result, clock, processor) = timed(|| table.restore(keys, 1 << 30));
    result.expect("the state loads");
    println!(
        "restart with {} keys: open {:.1} ms, restore {clock:.0} ms ({processor:.0} on the processor); files {} MB",
        table.keys_estimate(),
        opened.1,
        store.size_bytes() >> 20
    );
}
