//! State larger than memory: what 10 million keys of 100 bytes cost in memory, how long a start takes whatever there is,
//! how fast keys come back from disk, how long a checkpoint stops the rows.
//!
//! `cargo bench --bench scale` (`-- KEYS` for another size). Each size is made once, by a process of its own, that then
//! kills itself; what is measured begins in a new process, so that its resident memory is its own. Last come the syncs of
//! this disk, without which no number of a checkpoint says anything.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::prelude::*;
use rand::rngs::StdRng;
use tidemill::plugin::StateLayout;
use tidemill::state::key::{key_group, key_hash};
use tidemill::state::keyed::KeyedTable;
use tidemill::state::{Delta, Prepared, Store};

const KEY_GROUPS: u16 = 128;
const VALUE_BYTES: usize = 100;
const BUDGET: usize = 400 << 20;
/// Keys of one batch, as a step reads them back.
const BATCH: usize = 8_192;
const CHANGED: u64 = 100_000;
const CHECKPOINTS: u64 = 40;
/// Keys of one merge while a state is made.
const MADE_AT_ONCE: u64 = 500_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = (arguments.iter().map(String::as_str))
        .filter(|word| !word.starts_with("--"))
        .collect();
    match words[..] {
        ["make", dir, keys] => make(Path::new(dir), number(keys)),
        ["measure", dir, keys] => measure(Path::new(dir), number(keys)),
        [] => [100_000, 1_000_000, 10_000_000].into_iter().for_each(run),
        [keys] => run(number(keys)),
        _ => panic!("usage: cargo bench --bench scale [-- KEYS]"),
    }
    if words.len() < 2 {
        syncs();
    }
}

fn number(text: &str) -> u64 {
    text.replace('_', "").parse().expect("a number of keys")
}

fn run(keys: u64) {
    let dir = tempfile::tempdir().expect("a directory for the state");
    for part in ["make", "measure"] {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([part, dir.path().to_str().expect("UTF-8"), &keys.to_string()]);
        let status = command.status().expect("it runs");
        assert!(status.success() || part == "make", "{part}: {status}");
    }
}

fn key(i: u64) -> String {
    format!("user_{:012}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24)
}

fn value(number: u64) -> [u8; VALUE_BYTES] {
    [number as u8; VALUE_BYTES]
}

/// What a freeze takes on the clock, which other work on the machine makes longer, and on the processor.
struct Pause {
    clock: Duration,
    processor: Duration,
}

/// Time of this thread on the processor.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

fn commit(store: &Store, step: u16, number: u64, table: &mut KeyedTable) -> Pause {
    let start = (Instant::now(), processor());
    let changes = table.freeze(number);
    let frozen = Pause {
        clock: start.0.elapsed(),
        processor: processor().saturating_sub(start.1),
    };
    let delta = Delta {
        changes,
        ..Delta::default()
    };
    let prepared = Prepared {
        number,
        deltas: vec![(step, vec![delta])],
        ..Prepared::default()
    };
    store.commit(prepared).expect("the checkpoint is written");
    frozen
}

/// A state of `keys` keys with some changes that only the log has, left as a kill leaves it.
fn make(dir: &Path, keys: u64) {
    let store = Arc::new(Store::open(dir, "bench", KEY_GROUPS).expect("the state opens"));
    let step = store.step_id("step").expect("a number");
    store.commit(Prepared::default()).expect("checkpoint 0");
    let mut number = 0;
    // Some key groups after the other, so that each merge appends to the B-tree.
    let mut by_group: Vec<Vec<u64>> = vec![Vec::new(); usize::from(KEY_GROUPS)];
    for i in 0..keys {
        let group = key_group(key_hash(key(i).as_bytes()), KEY_GROUPS);
        by_group[usize::from(group)].push(i);
    }
    let groups = (MADE_AT_ONCE * u64::from(KEY_GROUPS) / keys).clamp(1, u64::from(KEY_GROUPS));
    for part in by_group.chunks(groups as usize) {
        // A table of its own for each part: what it had is merged, then forgotten.
        let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
        part.iter()
            .flatten()
            .for_each(|&i| update(&mut table, i, 0));
        number += 1;
        commit(&store, step, number, &mut table);
        store.merge().expect("it is merged");
    }
    let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
    let keys_store = store.keys(step, 0..KEY_GROUPS);
    table
        .restore(keys_store, BUDGET)
        .expect("the state is taken back");
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..3 {
        number += 1;
        touch(&mut table, &mut rng, keys, CHANGED, number);
        commit(&store, step, number, &mut table);
    }
    std::process::abort();
}

fn update(table: &mut KeyedTable, i: u64, number: u64) {
    let key = key(i);
    let slot = table.slot(key_hash(key.as_bytes()), key.as_bytes());
    table.set_blob(slot, &value(number));
}

/// Changes `count` random keys, in batches. The longest batch.
fn touch(table: &mut KeyedTable, rng: &mut StdRng, keys: u64, count: u64, number: u64) {
    let mut left = count as usize;
    while left > 0 {
        let batch = left.min(BATCH);
        let names: Vec<String> = (0..batch).map(|_| key(rng.random_range(0..keys))).collect();
        let slots: Vec<u32> = (names.iter())
            .map(|k| table.slot(key_hash(k.as_bytes()), k.as_bytes()))
            .collect();
        table.read_back().expect("the disk can be read");
        (slots.iter()).for_each(|&slot| table.set_blob(slot, &value(number)));
        table.maintain().expect("the disk can be read");
        left -= batch;
    }
}

fn measure(dir: &Path, keys: u64) {
    let start = Instant::now();
    let store = Arc::new(Store::open(dir, "bench", KEY_GROUPS).expect("the state opens"));
    let step = store.step_id("step").expect("a number");
    let mut number = store.latest().expect("checkpoints").number;
    let mut table = KeyedTable::new(StateLayout::Blob, KEY_GROUPS);
    let opened = start.elapsed();
    let keys_store = store.keys(step, 0..KEY_GROUPS);
    table
        .restore(keys_store, BUDGET)
        .expect("the state is taken back");
    let restored = start.elapsed();
    let mut rng = StdRng::seed_from_u64(2);
    touch(&mut table, &mut rng, keys, 1_000, 9);
    number += 1;
    commit(&store, step, number, &mut table);
    println!(
        "{keys} keys of {VALUE_BYTES} bytes: after a kill open {:.1} ms, restored {:.0} ms, first checkpoint with 1,000 random keys decided {:.0} ms; {} keys taken back",
        ms(opened),
        ms(restored),
        ms(start.elapsed()),
        table.len()
    );
    reads(&mut table, keys);
    checkpoints(&store, step, &mut table, &mut number, keys);
    println!(
        "  resident {} MB at most, {} MB now; table {} MB of a budget of {} MB; files {} MB",
        status_mb("VmHWM"),
        status_mb("VmRSS"),
        table.bytes() >> 20,
        BUDGET >> 20,
        store.size_bytes() >> 20
    );
    drop(table);
}

/// Random keys that are asked for and not changed, until as many were read as fit twice.
fn reads(table: &mut KeyedTable, keys: u64) {
    let mut rng = StdRng::seed_from_u64(3);
    let before = table.counts().read_back;
    let (mut worst, mut spent, mut rows) = (Duration::ZERO, Duration::ZERO, 0);
    while rows < 2_000_000 {
        let names: Vec<String> = (0..BATCH).map(|_| key(rng.random_range(0..keys))).collect();
        let start = Instant::now();
        for k in &names {
            table.slot(key_hash(k.as_bytes()), k.as_bytes());
        }
        table.read_back().expect("the disk can be read");
        let read = start.elapsed();
        table.maintain().expect("the disk can be read");
        spent += start.elapsed();
        worst = worst.max(read);
        rows += BATCH as u64;
    }
    let read = table.counts().read_back - before;
    println!(
        "  {rows} random rows, {read} read back: {:.0} ns a row, {:.0} reads a second; the slowest batch of {BATCH} took {:.0} ms; {} evicted",
        spent.as_secs_f64() * 1e9 / rows as f64,
        read as f64 / spent.as_secs_f64(),
        ms(worst),
        table.counts().evicted
    );
}

/// The pause of a checkpoint at 100,000 changed keys, while merges run.
fn checkpoints(store: &Store, step: u16, table: &mut KeyedTable, number: &mut u64, keys: u64) {
    let mut rng = StdRng::seed_from_u64(4);
    let mut pauses = Vec::new();
    let start = Instant::now();
    for _ in 0..CHECKPOINTS {
        *number += 1;
        touch(table, &mut rng, keys, CHANGED, *number);
        pauses.push(commit(store, step, *number, table));
    }
    let every = start.elapsed() / CHECKPOINTS as u32;
    let sorted = |of: fn(&Pause) -> Duration| {
        let mut times: Vec<Duration> = pauses.iter().map(of).collect();
        times.sort();
        times
    };
    let (clock, processor) = (sorted(|p| p.clock), sorted(|p| p.processor));
    let (middle, last) = (pauses.len() / 2, pauses.len() - 1);
    println!(
        "  {CHECKPOINTS} checkpoints of {CHANGED} changed keys: pause {:.1} ms in the middle, {:.1} ms at most (on the processor {:.1} and {:.1}); one each {:.0} ms",
        ms(clock[middle]),
        ms(clock[last]),
        ms(processor[middle]),
        ms(processor[last]),
        ms(every)
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A line of this process's status, in MB.
fn status_mb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kb.unwrap_or(0) >> 10
}

/// What a sync of 4 KiB takes on this disk.
fn syncs() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut handle: &File = file.as_file();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            handle.write_all(&[7; 4096]).expect("written");
            let start = Instant::now();
            handle.sync_data().expect("synced");
            start.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "fdatasync of 4 KiB: {:.3} ms in the middle, {:.3} ms at most",
        ms(times[times.len() / 2]),
        ms(times[times.len() - 1])
    );
}
