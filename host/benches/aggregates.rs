//! Cost of aggregates by group: ns a row to update, ns a group to take partial states out, to merge them and to compute
//! results; bytes a group in memory. The least of several runs, one thread.
//!
//! `cargo bench --bench aggregates`, or `cargo bench --bench aggregates -- distinct` for those whose SQL contains the word.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use tidemill::batch::Batch;
use tidemill::expr::{Aggregation, Inputs};

const ROWS: usize = 1 << 20;
const BATCH: usize = 8_192;
const GROUPS: usize = 10_000;
const RUNS: usize = 3;

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(*) filter (where amount > 100)",
    "sum(quantity)",
    "sum(amount)",
    "sum(price)",
    "avg(quantity)",
    "avg(amount)",
    "min(amount)",
    "max(user_id)",
    "stddev(amount)",
    "median(amount)",
    "approx_percentile_cont(amount, 0.95)",
    "approx_distinct(user_id)",
    "count(distinct user_id)",
    "count(distinct quantity)",
    "count(distinct order_id)",
    "count(distinct amount)",
    "first_value(amount order by ts)",
    "last_value(user_id order by ts)",
    "array_agg(user_id order by ts)",
    "string_agg(user_id, ',' order by ts)",
];

/// What a set of partial results costs: nanoseconds in all, and bytes.
#[derive(Clone, Copy)]
struct Cost {
    update: f64,
    state: f64,
    merge: f64,
    evaluate: f64,
    bytes: usize,
}

fn main() {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let batches: Vec<Batch> = (0..ROWS / BATCH).map(rows).collect();
    let groups: Vec<Vec<usize>> = (0..ROWS / BATCH)
        .map(|batch| (0..BATCH).map(|row| group(batch * BATCH + row)).collect())
        .collect();
    println!("{ROWS} rows, {GROUPS} groups");
    println!("  update    state    merge evaluate    bytes");
    println!("  ns/row ns/group ns/group ns/group  /group");
    for sql in AGGREGATES {
        if wanted
            .as_ref()
            .is_some_and(|word| !sql.contains(word.as_str()))
        {
            continue;
        }
        let cost = (0..RUNS).map(|_| measure(sql, &batches, &groups));
        let least = cost.reduce(Cost::least).expect("some runs");
        println!(
            "{:8.1} {:8.1} {:8.1} {:8.1} {:7}  {sql}",
            least.update / ROWS as f64,
            least.state / GROUPS as f64,
            least.merge / GROUPS as f64,
            least.evaluate / GROUPS as f64,
            least.bytes / GROUPS,
        );
    }
}

fn measure(sql: &str, batches: &[Batch], groups: &[Vec<usize>]) -> Cost {
    let items = [("value".to_string(), sql.to_string())];
    let aggregation = Aggregation::compile(&items, &batches[0].schema()).expect(sql);
    let inputs: Vec<Inputs> = batches
        .iter()
        .map(|batch| aggregation.inputs(batch, &mut Vec::new()).0)
        .collect();
    let mut accumulators = aggregation.accumulators();
    let (update, ()) = timed(|| {
        for (inputs, groups) in inputs.iter().zip(groups) {
            accumulators
                .update(inputs, groups, GROUPS)
                .expect("the inputs fit");
        }
    });
    let bytes = accumulators.bytes();
    let (state, states) = timed(|| accumulators.state().expect("states"));
    let all: Vec<usize> = (0..GROUPS).collect();
    let mut merged = aggregation.accumulators();
    let (merge, ()) = timed(|| merged.merge(&states, &all, GROUPS).expect("states fit"));
    let (evaluate, results) = timed(|| merged.evaluate(&mut Vec::new()).expect("results"));
    black_box(results);
    Cost {
        update,
        state,
        merge,
        evaluate,
        bytes,
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let value = work();
    (start.elapsed().as_nanos() as f64, value)
}

impl Cost {
    fn least(self, other: Self) -> Self {
        Self {
            update: self.update.min(other.update),
            state: self.state.min(other.state),
            merge: self.merge.min(other.merge),
            evaluate: self.evaluate.min(other.evaluate),
            bytes: self.bytes,
        }
    }
}

/// Numbers without a pattern that a branch predictor could learn.
fn number(i: usize) -> u64 {
    (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

fn group(i: usize) -> usize {
    (number(i * 7 + 3) >> 5) as usize % GROUPS
}

fn rows(batch: usize) -> Batch {
    let all = || (0..BATCH).map(|row| batch * BATCH + row);
    let ints = |f: fn(usize) -> i64| -> ArrayRef {
        Arc::new(all().map(f).map(Some).collect::<Int64Array>())
    };
    let times: TimestampMicrosecondArray = all()
        .map(|i| Some(i as i64 * 1_000 + number(i) as i64 % 5_000))
        .collect();
    let prices: Decimal128Array = all()
        .map(|i| Some(i128::from(number(i) % 99_999)))
        .collect();
    let prices = prices.with_precision_and_scale(12, 2).expect("12 digits");
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "user_id",
            Arc::new(
                all()
                    .map(|i| Some(format!("u{:07}", number(i) % 100_000)))
                    .collect::<StringArray>(),
            ),
        ),
        ("quantity", ints(|i| number(i) as i64 % 6)),
        ("order_id", ints(|i| number(i) as i64)),
        (
            "amount",
            Arc::new(Float64Array::from_iter_values(
                all().map(|i| (number(i) % 5_000) as f64 / 4.0),
            )),
        ),
        ("price", Arc::new(prices)),
        ("ts", Arc::new(times.with_timezone("UTC"))),
    ];
    Batch {
        columns: RecordBatch::try_from_iter(columns).expect("columns fit"),
        times: vec![0; BATCH].into(),
        origins: None,
    }
}
