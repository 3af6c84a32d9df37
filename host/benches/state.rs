//! What keyed state costs: encoding and looking up keys, updating states, a checkpoint, a restart.
//!
//! `cargo bench --bench state`. Prints the least of several rounds; the budget is section 9 of ARCHITECTURE.md.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use tidemill::plugin::StateLayout;
use tidemill::state::key::KeyEncoder;
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

fn least(mut round: impl FnMut()) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

fn encoder() -> KeyEncoder {
    KeyEncoder::new(&[DataType::Utf8]).expect("strings can be keys")
}

fn lookups(keys: u64) {
    let batches = batches(keys);
    let rows = (batches.len() * BATCH_ROWS) as f64;
    let mut encoder = encoder();
    let mut table = KeyedTable::new(StateLayout::Fixed(3), KEY_GROUPS);
    let encode = least(|| {
        for batch in &batches {
            black_box(encoder.encode(std::slice::from_ref(batch), BATCH_ROWS));
        }
    });
    let mut update = |change: bool| {
        least(|| {
            for batch in &batches {
                let keys = encoder.encode(std::slice::from_ref(batch), BATCH_ROWS);
                for row in 0..BATCH_ROWS {
                    let slot = table.slot(keys.hash(row), keys.key(row));
                    if change {
                        table.words_mut(slot)[0] += 1;
                    } else {
                        black_box(slot);
                    }
                }
            }
        })
    };
    update(true);
    let lookup = update(false) - encode;
    let change = update(true) - encode;
    let ns = 1e9 / rows;
    println!(
        "{keys:>9} keys: encode and hash {:.1} ns, lookup {:.1} ns, lookup and update {:.1} ns a row",
        encode * ns,
        lookup * ns,
        change * ns
    );
}

/// Checkpoints of 100,000 changed keys with 100-byte states, in a store of a million.
fn checkpoints(dir: &std::path::Path) {
    let store = Store::open(dir, "bench", KEY_GROUPS).expect("the state opens");
    let step = store.step_id("step").expect("a number");
    let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
    let mut freeze = f64::INFINITY;
    let mut commit = f64::INFINITY;
    for number in 0..20u64 {
        let count = if number == 0 { 1_000_000 } else { 100_000 };
        for i in 0..count {
            let key = format!("user_{:07}", (i * 7_919 + number * 13) % 1_000_000);
            let hash = tidemill::state::key::key_hash(key.as_bytes());
            let slot = table.slot(hash, key.as_bytes());
            table.set_blob(slot, &[number as u8; 100]);
        }
        let start = Instant::now();
        let delta = Delta {
            changes: table.freeze(),
            ..Delta::default()
        };
        let frozen = start.elapsed().as_secs_f64();
        let prepared = Prepared {
            number,
            deltas: vec![(step, vec![delta])],
            ..Prepared::default()
        };
        store.commit(prepared).expect("the checkpoint is written");
        let total = start.elapsed().as_secs_f64();
        if number > 0 {
            freeze = freeze.min(frozen);
            commit = commit.min(total - frozen);
        } else {
            println!("1,000,000 keys: checkpoint {:.0} ms", total * 1e3);
        }
    }
    println!(
        "100,000 of 1,000,000 keys: freeze {:.1} ms, commit with sort and fsync {:.1} ms; table {} MB",
        freeze * 1e3,
        commit * 1e3,
        table.bytes() >> 20
    );
}

fn restart(dir: &std::path::Path) {
    let start = Instant::now();
    let store = Store::open(dir, "bench", KEY_GROUPS).expect("the state opens");
    let opened = start.elapsed().as_secs_f64();
    let step = store.step_id("step").expect("a number");
    let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
    let mut each = |_: u16, key: &[u8], value: &[u8]| table.load(key, value);
    store.load(step, &mut each).expect("the state loads");
    println!(
        "restart with {} keys: open {:.1} ms, load {:.0} ms; files {} MB",
        table.len(),
        opened * 1e3,
        (start.elapsed().as_secs_f64() - opened) * 1e3,
        store.size_bytes() >> 20
    );
}
