//! The binary as its users meet it: pipelines of files and Kafka topics, plugins on real Wasm, crashes by kill -9.
//!
//! `cargo test --release --test integration` runs all; a word behind `--` picks by name. Tests that need Apache Kafka or
//! PostgreSQL are shown as ignored, with the reason, where there is none.

mod bounded;
mod commands;
mod crash;
mod doctor;
mod driver;
mod duckdb;
mod editing;
mod errors;
mod examples;
mod faults;
mod files;
mod inputs;
mod kafka;
mod memory;
mod model;
mod pauses;
mod pipelines;
mod postgres;
mod proxy;
mod snapshots;
mod support;
mod swaps;
mod webhook;

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    trials.extend(pipelines::trials());
    trials.extend(commands::trials());
    trials.extend(errors::trials());
    trials.extend(examples::trials());
    trials.extend(inputs::trials());
    trials.extend(editing::trials());
    trials.extend(crash::trials());
    trials.extend(files::trials());
    trials.extend(faults::trials());
    trials.extend(driver::trials());
    trials.extend(model::trials());
    trials.extend(bounded::trials());
    trials.extend(memory::trials());
    trials.extend(duckdb::trials());
    trials.extend(doctor::trials());
    trials.extend(snapshots::trials());
    trials.extend(swaps::trials());
    trials.extend(pauses::trials());
    trials.extend(webhook::trials());
    trials.extend(postgres::trials());
    trials.extend(proxy::trials());
    trials.extend(kafka::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::postgres::end();
    conclusion.exit();
}
