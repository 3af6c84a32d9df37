//! `tidemill generate`: made-up shop records, to files or to a Kafka cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Failure, pace, table, terminal};
use crate::kafka::TopicProducer;
use crate::pipeline::plan::{Brokers, Cluster, Generate, GenerateKind};
use crate::source::generate::{ecommerce, write_files};
use crate::time::Micros;

/// 2026-01-01T00:00:00Z
pub const START: Micros = 1_767_225_600_000_000;

/// Make up clicks and purchases of a shop
///
/// The same seed gives the same records. With --out they are written as fast as they are made; to Kafka at --per-second.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill generate --kind ecommerce --count 1000000 --out data\n  tidemill generate --kind ecommerce --per-second 500 --brokers localhost:9092"
)]
pub struct Arguments {
    /// Clicks, transactions, or both as a shop has them (80 % and 20 %)
    #[arg(long, value_enum, default_value = "ecommerce")]
    kind: Kind,
    /// Records a second; their event times are that far apart (times --speed)
    #[arg(long, value_name = "N", default_value = "100", value_parser = positive)]
    per_second: f64,
    /// Records in all; with --brokers the default is no end
    #[arg(long, value_name = "N", required_unless_present = "brokers")]
    count: Option<u64>,
    /// Another seed gives other records
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Seconds of event time a second
    #[arg(long, value_name = "X", default_value = "1", value_parser = positive)]
    speed: f64,
    /// Users that the records are of
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    users: u64,
    /// Products that the records are of
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    products: u64,
    /// Write to the topics clickstream and transactions of this cluster, which must exist
    #[arg(
        long,
        value_name = "HOST:PORT",
        conflicts_with = "out",
        required_unless_present = "out"
    )]
    brokers: Option<String>,
    /// Write clicks.jsonl, transactions.jsonl and products.csv into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Clicks,
    Transactions,
    Ecommerce,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let parts = parts(arguments);
    match (&arguments.out, &arguments.brokers) {
        (Some(out), _) => to_files(&parts, out),
        (None, Some(brokers)) => to_kafka(&parts, brokers),
        (None, None) => Err(Failure::Refused(
            "say where to write: --out DIR or --brokers HOST:PORT".into(),
        )),
    }
}

fn parts(arguments: &Arguments) -> Vec<Generate> {
    let all = Generate {
        kind: GenerateKind::Clicks,
        per_second: arguments.per_second,
        count: arguments.count,
        seed: arguments.seed,
        speed: arguments.speed,
        start: START,
        users: arguments.users,
        products: arguments.products,
    };
    match arguments.kind {
        Kind::Clicks => vec![all],
        Kind::Transactions => vec![Generate {
            kind: GenerateKind::Transactions,
            ..all
        }],
        Kind::Ecommerce => ecommerce(&all).into(),
    }
}

fn to_files(parts: &[Generate], out: &Path) -> Result<(), Failure> {
    const SAY_EVERY: u64 = 1_000_000;
    let mut said = 0;
    let paths = write_files(parts, out, &mut |written| {
        if written / SAY_EVERY > said {
            said = written / SAY_EVERY;
            terminal::progress(&format!("{} records written", table::thousands(written)));
        }
    })?;
    let lines: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    terminal::print(&lines.join("\n"))
}

/// The topic that records of a kind go to.
pub fn topic(kind: GenerateKind) -> &'static str {
    match kind {
        GenerateKind::Clicks => "clickstream",
        GenerateKind::Transactions => "transactions",
    }
}

fn to_kafka(parts: &[Generate], brokers: &str) -> Result<(), Failure> {
    if brokers == "embedded" {
        let why = "the embedded broker lives in a `run` or `demo`: use a `generate` source, or `tidemill demo`";
        return Err(Failure::Refused(why.into()));
    }
    let cluster = Cluster {
        brokers: Brokers::At(brokers.into()),
        properties: BTreeMap::new(),
    };
    let producers = parts
        .iter()
        .map(|part| TopicProducer::open("generate", &cluster, topic(part.kind)))
        .collect::<Result<Vec<_>, _>>()?;
    let topics: Vec<&str> = producers.iter().map(TopicProducer::topic).collect();
    terminal::progress(&format!(
        "writing to {} at {brokers}; Ctrl-C ends it",
        topics.join(" and ")
    ));
    let sent = pace::pace(parts, &|| false, &mut |part, key, record| {
        producers[part].send(Some(key), record)
    })?;
    for producer in &producers {
        producer.sync(producer.barrier())?;
    }
    terminal::print(&format!("{} records written", table::thousands(sent)))
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(n),
        _ => Err("expected a number above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Line::try_parse_from(["generate"].into_iter().chain(line.split_whitespace()))
            .map(|l| l.arguments)
    }

    #[test]
    fn a_shop_is_clicks_and_purchases() {
        let both = parts(&parsed("--count 100 --per-second 10 --out x").unwrap());
        let counts: Vec<_> = both.iter().map(|p| (p.kind, p.count)).collect();
        assert_eq!(
            counts,
            [
                (GenerateKind::Clicks, Some(80)),
                (GenerateKind::Transactions, Some(20))
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--count 1",
            "--out x",
            "--out x --count 1 --brokers y:9092",
            "--out x --count 1 --per-second 0",
            "--out x --count 1 --speed -1",
            "--out x --count 1 --users 0",
            "--out x --count 1 --kind sales",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        let embedded = run(&parsed("--brokers embedded").unwrap()).unwrap_err();
        assert!(matches!(embedded, Failure::Refused(_)), "{embedded:?}");
    }

    #[test]
    fn files_for_a_pipeline() {
        let out = tempfile::tempdir().unwrap();
        let line = format!("--count 50 --out {}", out.path().display());
        run(&parsed(&line).unwrap()).unwrap();
        let lines = |file| {
            std::fs::read_to_string(out.path().join(file))
                .unwrap()
                .lines()
                .count()
        };
        assert_eq!(
            (
                lines("clicks.jsonl"),
                lines("transactions.jsonl"),
                lines("products.csv")
            ),
            (40, 10, 101)
        );
    }
}
