//! The cost of JSON in and out, for the budget of 200 and 150 ns a row: `cargo bench --bench format`.
//!
//! Each line is the best and the median of 60 rounds over 8,192 records, in CPU time of this thread.

use std::hint::black_box;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::format::encode::RowWriter;
use tidemill::format::{Decoder, decoder, framing, timestamp};
use tidemill::pipeline::plan::{Format, Generate, GenerateKind};
use tidemill::source::generate::{Records, fields};

const RECORDS: usize = 8_192;
const ROUNDS: usize = 60;

fn main() {
    let generate = Generate {
        kind: GenerateKind::Clicks,
        per_second: 1_000.0,
        count: None,
        seed: 1,
        speed: 1.0,
        start: 1_767_225_600_000_000,
        users: 100_000,
        products: 10_000,
    };
    let records = Records::new(&generate);
    let mut lines = Vec::new();
    for index in 0..RECORDS as u64 {
        records.write(index, &mut lines);
        lines.push(b'\n');
    }
    let (schema, paths, event_time) = fields(generate.kind);
    println!("{} bytes a record", lines.len() / RECORDS - 1);

    let mut out = Vec::with_capacity(lines.len());
    measure("generate", || {
        out.clear();
        for index in 0..RECORDS as u64 {
            records.write(index, &mut out);
        }
    });
    measure("find line ends", || {
        black_box(framing::split(Format::Json, &lines).count());
    });
    let five: SchemaRef = schema
        .project(&[0, 1, 2, 3, 4])
        .expect("five columns")
        .into();
    let mut five = decoder(Format::Json, &five, &paths[..5], Some(event_time), None).unwrap();
    measure("decode 5 of 7 fields", || {
        black_box(decode(&mut *five, &lines, false));
    });
    measure("decode 5 of 7 fields, 1 % refused", || {
        black_box(decode(&mut *five, &lines, true));
    });
    let mut all = decoder(Format::Json, &schema, &paths, Some(event_time), None).unwrap();
    measure("decode 7 of 7 fields", || {
        black_box(decode(&mut *all, &lines, false));
    });
    let rows = decode(&mut *all, &lines, false);
    let writer = RowWriter::new(&schema);
    let mut ends = Vec::with_capacity(RECORDS);
    measure("encode 7 columns", || {
        out.clear();
        ends.clear();
        writer.write(&rows, &mut out, &mut ends);
    });
    measure("parse a timestamp", || {
        for _ in 0..RECORDS {
            black_box(timestamp::parse(black_box(b"2026-01-01T12:34:56.789Z")));
        }
    });
}

fn decode(decoder: &mut dyn Decoder, lines: &[u8], break_some: bool) -> RecordBatch {
    for (line, record) in framing::split(Format::Json, lines) {
        if break_some && line % 100 == 0 {
            decoder.push(&record[..record.len() / 2]).unwrap_err();
        }
        decoder.push(record).expect("generated records are valid");
    }
    decoder.finish()
}

fn measure(name: &str, mut round: impl FnMut()) {
    let mut costs: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let before = cpu_seconds();
            round();
            (cpu_seconds() - before) * 1e9 / RECORDS as f64
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    println!(
        "{name:36} best {:6.1}  median {:6.1} ns a record",
        costs[0],
        costs[ROUNDS / 2]
    );
}

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer, and the clock exists on every system we build for.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
