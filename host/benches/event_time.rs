//! Event time, JSON in: windows, distinct counts, sliding windows with a million keys, joins, and how long a checkpoint of
//! a million changed groups keeps a window waiting.
//!
//! `cargo bench --bench event_time` (`-- --only PART` for one of `tumbling`, `sliding`, `join`, `checkpoint`). CPU a record is
//! of all threads; ratios are to a run of the same bench that only decodes.

#[allow(dead_code)]
mod runs;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tempfile::TempDir;
use tidemill::batch::Batch;
use tidemill::expr::Aggregation;
use tidemill::pipeline::plan;
use tidemill::step::window::{WINDOW_END, WINDOW_START, Window, WindowSpec, bound_field};
use tidemill::step::{Output, Step};

use runs::{clicks_source, dropped, generate, measure, purchases_source, sink};

const CLICKS: u64 = 5_000_000;
const MILLION: usize = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let only = arguments.iter().position(|a| a == "--only");
    let only = only.and_then(|i| arguments.get(i + 1)).cloned();
    let wanted = |part: &str| only.as_ref().is_none_or(|o| o == part);
    let dir = TempDir::new().expect("a temporary folder");
    if wanted("checkpoint") {
        checkpoint();
    }
    if wanted("tumbling") {
        tumbling(dir.path());
    }
    if wanted("sliding") {
        sliding(dir.path());
    }
    if wanted("join") {
        join(dir.path());
    }
}

fn tumbling(dir: &Path) {
    generate(dir, "clicks", CLICKS, 5_000, 1_000_000);
    println!("{CLICKS} clicks, 5,000 a second of event time, 10,000 products");
    let window = |aggregate: &str| {
        format!(
            "{}[steps.views]\nfrom = \"clicks\"\nkey = [\"product_id\"]\nwindow = {{ tumbling = \"1m\" }}\n\
             aggregate = {{ {aggregate} }}\n{}",
            clicks_source(""),
            sink("views", "views")
        )
    };
    for workers in [1, 2] {
        let text = clicks_source("") + &dropped("clicks");
        let decode = Some(measure(dir, "decode only", workers, &text, None));
        let count = "views = \"count(*)\"";
        let plain = measure(
            dir,
            "tumbling count by product",
            workers,
            &window(count),
            decode,
        );
        let distinct = format!("{count}, users = \"count(distinct user_id)\"");
        let with = measure(
            dir,
            "and count(distinct user_id)",
            workers,
            &window(&distinct),
            decode,
        );
        println!("  the distinct count: {:.0} ns a record more", with - plain);
    }
}

fn sliding(dir: &Path) {
    let count = 12_000_000;
    generate(dir, "clicks", count, 15_000, 1_000_000);
    println!("{count} clicks, 15,000 a second of event time, a million users");
    let text = format!(
        "{}[steps.seen]\nfrom = \"clicks\"\nkey = [\"user_id\"]\nwindow = {{ sliding = \"5m\", every = \"1m\" }}\n\
         aggregate = {{ events = \"count(*)\", last = \"max(timestamp)\" }}\n[steps.busy]\nfrom = \"seen\"\n\
         where = \"events > 30\"\n{}",
        clicks_source(""),
        sink("busy", "busy")
    );
    measure(dir, "sliding 5m / 1m by user", 2, &text, None);
}

fn join(dir: &Path) {
    let count = 20_000_000;
    generate(dir, "clicks", count, 20_000, 1_000_000);
    generate(dir, "transactions", count, 20_000, 1_000_000);
    println!(
        "{count} clicks and as many purchases, 20,000 a second of event time each, a million users"
    );
    let text = format!(
        "{}{}[steps.c]\nfrom = \"clicks\"\nselect = [\"substr(event_id, 2) as number\", \"user_id\"]\n\
         [steps.t]\nfrom = \"transactions\"\nselect = [\"substr(transaction_id, 2) as number\", \"amount\"]\n\
         [steps.pairs]\njoin = {{ left = \"c\", right = \"t\", on = [\"number\"], before = \"0s\", after = \"10m\" }}\n\
         select = [\"left.number\", \"left.user_id\", \"right.amount\"]\n{}",
        clicks_source(""),
        purchases_source(),
        sink("pairs", "pairs")
    );
    measure(dir, "join within 10 minutes", 2, &text, None);
}

/// How long a step stands still for a checkpoint in which a million groups changed.
fn checkpoint() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("user_id", DataType::Utf8, false),
        Field::new("amount", DataType::Float64, false),
    ]));
    let items = [
        ("n", "count(*)"),
        ("sum", "sum(amount)"),
        ("max", "max(amount)"),
        ("mean", "avg(amount)"),
    ];
    let items = items.map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    let aggregation = Aggregation::compile(&items, &schema).expect("it compiles");
    let mut fields = vec![Field::new("user_id", DataType::Utf8, false)];
    fields.extend([WINDOW_START, WINDOW_END].map(bound_field));
    fields.extend(
        aggregation
            .schema()
            .fields()
            .iter()
            .map(|f| f.as_ref().clone()),
    );
    let spec = WindowSpec {
        key: vec![0],
        key_groups: 128,
        input: schema.clone(),
        output: Arc::new(Schema::new(fields)),
        window: plan::Window {
            kind: plan::WindowKind::Tumbling(3_600_000_000),
            aggregation,
            allowed_lateness: 0,
            revisions: false,
        },
    };
    let mut window = Window::new(spec).expect("it opens");
    for turn in 0..3 {
        for start in (0..MILLION).step_by(8_192) {
            let rows = start..(start + 8_192).min(MILLION);
            let users: ArrayRef = Arc::new(StringArray::from_iter_values(
                rows.clone().map(|i| format!("u{i:07}")),
            ));
            let amounts: ArrayRef = Arc::new(Float64Array::from_iter_values(
                rows.clone().map(|i| i as f64),
            ));
            let batch = Batch {
                columns: RecordBatch::try_new(schema.clone(), vec![users, amounts])
                    .expect("columns fit"),
                times: vec![0; rows.len()].into(),
                origins: None,
            };
            let mut out = Output::new(2);
            window.process(0, batch, &mut out).expect("it works");
        }
        let start = Instant::now();
        let delta = window.freeze(turn).expect("it freezes");
        let stood = start.elapsed();
        let start = Instant::now();
        let mut bytes = 0;
        for source in &delta.segments {
            source
                .write(&mut |_, segment| {
                    bytes += segment.len();
                    Ok(())
                })
                .expect("it is written");
        }
        println!(
            "checkpoint of a million changed groups: the step stands still for {:.1} ms; {} MB are then encoded in {} ms beside it",
            stood.as_secs_f64() * 1e3,
            bytes >> 20,
            start.elapsed().as_millis()
        );
    }
}
