//! Cost of conditions, select lists and lookups in ns a row: the least of several runs, one thread.
//!
//! `cargo bench --bench expr`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill::batch::{Batch, Origins};
use tidemill::expr::{Predicate, Projection};
use tidemill::table::Snapshot;

const ROWS: usize = 8_192;
const RUNS: usize = 15;
const CALLS: usize = 60;

fn main() {
    let batch = purchases();
    let schema = batch.schema();
    for sql in [
        "true",
        "action = 'view'",
        "quantity >= 0",
        "amount > 100 and quantity >= 2",
        "quantity <> 0 and 100 / quantity > 30",
        "regexp_like(user_id, '^u0+1')",
    ] {
        let predicate = Predicate::compile(sql, &schema).expect(sql);
        let passed = predicate.filter(&batch, &mut Vec::new()).rows();
        let ns = ns_per_row(|| predicate.filter(black_box(&batch), &mut Vec::new()));
        println!("{ns:8.2} ns  where {sql}  ({passed} of {ROWS} rows)");
    }
    for items in [
        &["*"][..],
        &["user_id", "amount"],
        &["user_id", "amount * quantity as total"],
        &["upper(user_id) as who"],
        &["case when amount > 100 then 'big' when amount > 10 then 'mid' else 'small' end as size"],
    ] {
        let list: Vec<String> = items.iter().map(|i| i.to_string()).collect();
        let projection = Projection::compile(&list, &schema).expect("the items compile");
        let ns = ns_per_row(|| projection.apply(black_box(&batch), &mut Vec::new()));
        println!("{ns:8.2} ns  select {}", items.join(", "));
    }
    lookups(&batch);
    let start = Instant::now();
    black_box(Predicate::compile("amount > 100 and quantity >= 2", &schema).expect("compiles"));
    println!(
        "{:8.0} us  to compile a condition",
        start.elapsed().as_micros()
    );
}

fn lookups(batch: &Batch) {
    let table = products(10_000);
    let keys = batch.columns.column(2).clone();
    let ns = ns_per_row(|| {
        let rows = table.probe(black_box(&keys)).expect("keys are texts");
        (table.gather(1, &rows), table.gather(2, &rows))
    });
    println!("{ns:8.2} ns  lookup of 2 columns in 10,000 rows");
}

fn ns_per_row<T>(mut work: impl FnMut() -> T) -> f64 {
    let run = |_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(work());
        }
        start.elapsed().as_nanos() as f64 / (CALLS * ROWS) as f64
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

fn purchases() -> Batch {
    // Numbers without a pattern that a branch predictor could learn.
    let number = |i: usize| (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    let texts = |f: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new((0..ROWS).map(|i| Some(f(i))).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        texts(&|i| format!("u{:07}", number(i) % 100_000)),
        texts(&|i| ["view", "click", "add_to_cart"][number(i) as usize % 3].to_string()),
        texts(&|i| format!("p{}", number(i) % 12_000)),
        Arc::new(Float64Array::from_iter_values(
            (0..ROWS).map(|i| (number(i) % 500) as f64),
        )),
        Arc::new(Int64Array::from_iter_values(
            (0..ROWS).map(|i| (number(i) % 6) as i64),
        )),
    ];
    let fields = [
        ("user_id", DataType::Utf8),
        ("action", DataType::Utf8),
        ("product_id", DataType::Utf8),
        ("amount", DataType::Float64),
        ("quantity", DataType::Int64),
    ];
    Batch {
        columns: RecordBatch::try_new(schema(&fields), columns).expect("columns fit"),
        times: (0..ROWS as i64).collect(),
        origins: Some(Origins {
            inputs: vec![0; ROWS].into(),
            offsets: (0..ROWS as i64).collect(),
        }),
    }
}

fn products(rows: usize) -> Snapshot {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            (0..rows)
                .map(|i| Some(format!("p{i}")))
                .collect::<StringArray>(),
        ),
        Arc::new(
            (0..rows)
                .map(|i| Some(format!("category {}", i % 20)))
                .collect::<StringArray>(),
        ),
        Arc::new(Float64Array::from_iter_values(
            (0..rows).map(|i| i as f64 / 10.0),
        )),
    ];
    let fields = [
        ("product_id", DataType::Utf8),
        ("category", DataType::Utf8),
        ("price", DataType::Float64),
    ];
    let rows = RecordBatch::try_new(schema(&fields), columns).expect("columns fit");
    Snapshot::new("products", rows, 0).expect("keys are texts")
}

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields = fields
        .iter()
        .map(|(name, kind)| Field::new(*name, kind.clone(), false));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
