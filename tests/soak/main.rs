//! The soak: the real binary under load against a real Kafka, killed at random times, its output compared with what the
//! input gives when it is computed from scratch.
//!
//! `cargo test --release --test soak` runs short ones, fit for every change; `-- --minutes 60 --seed 7` a long one. Run at
//! least once it must find records doubled, or the comparison proves nothing.

mod arguments;
mod blows;
mod expected;
mod host;
mod load;
mod reader;
mod report;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use arguments::{Arguments, Delivery, Length, Task};
use blows::{Blow, Kafka};
use expected::{Books, Output};
use host::{Host, Pipeline, Topics};
use load::Load;
use reader::{Concurrent, Seen};
use report::Report;

/// Whatever happened, new output comes within this time.
const OUTPUT_WITHIN: Duration = Duration::from_secs(120);
/// The rest of the input is read within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(600);

fn main() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = clock.map_or(1, |since| u64::from(since.subsec_nanos()));
    let task = match arguments::read(std::env::args().skip(1), seed) {
        Ok(task) => task,
        Err(usage) => {
            eprintln!("{usage}");
            std::process::exit(2);
        }
    };
    expected::check_itself();
    let all = match task {
        Task::Nothing => return,
        Task::Help => {
            println!("{}", arguments::USAGE);
            return;
        }
        Task::Asked(asked) => vec![asked],
        Task::Default(default) => by_default(&default),
    };
    if let Err(reason) = support::kafka::available()
        && !support::kafka::required()
    {
        println!("soak ... ignored: {reason}");
        return;
    }
    for arguments in all {
        println!("seed {}", arguments.seed);
        let outcome = soak(&arguments);
        let why = match outcome {
            Ok(report) => {
                report.print(&arguments);
                report.failure(arguments.delivery)
            }
            Err(why) => Some(why),
        };
        if let Some(why) = why {
            println!("soak ... FAILED: {why}\nagain: {}", arguments.command());
            std::process::exit(1);
        }
        println!("soak, {} ... ok", arguments.delivery.name());
    }
}

/// A seed whose first rounds kill a running host often enough to double something at any speed.
const DOUBLES: u64 = 4;

/// What a run without options does: few rounds, in which the comparison must find something.
fn by_default(arguments: &Arguments) -> Vec<Arguments> {
    let doubles = Arguments {
        length: Length::Rounds(5),
        delivery: Delivery::AtLeastOnce,
        seed: DOUBLES,
        ..arguments.clone()
    };
    let doubles_nothing = Arguments {
        length: Length::Rounds(15),
        ..arguments.clone()
    };
    vec![doubles, doubles_nothing]
}

fn soak(arguments: &Arguments) -> Result<Report, String> {
    let began = Instant::now();
    let kafka = Kafka::start(arguments.brokers)?;
    let topics = make_topics(&kafka, arguments.partitions);
    let servers = kafka.cluster_address();
    let pipeline = Pipeline::new(arguments, servers, &topics);
    let concurrent = Concurrent::start(servers, &topics.outputs, arguments.partitions);
    let load = Load {
        servers: servers.to_owned(),
        topic: topics.input.clone(),
        partitions: arguments.partitions,
        keys: arguments.keys,
        rate: arguments.rate,
    };
    let running = load.clone().start();
    let mut report = Report::default();
    let disturbed = disturb(
        arguments,
        &kafka,
        &pipeline,
        &topics,
        &concurrent,
        &mut report,
    )
    .and_then(|()| {
        let plain = running.stop();
        finish(&pipeline)?;
        let log = judge(&load, plain, servers, &topics, &mut report)?;
        report.unstable = concurrent.compare_with(&log);
        Ok(())
    });
    report.took = began.elapsed();
    match disturbed {
        Ok(()) => Ok(report),
        Err(why) => {
            let kept = pipeline.keep();
            Err(format!(
                "{why}\npipeline, state and log: {}",
                kept.display()
            ))
        }
    }
}

fn make_topics(kafka: &Kafka, partitions: u32) -> Topics {
    let topic = |what: &str| {
        let topic = kafka.topic(what, partitions);
        kafka.wait_until_in_sync(&topic);
        topic
    };
    Topics {
        input: topic("soak-input"),
        outputs: Output::ALL
            .map(|output| topic(&format!("soak-{}", output.name().replace(' ', "-")))),
    }
}

/// Blow after blow; a host that has ended is started again at once.
fn disturb(
    arguments: &Arguments,
    kafka: &Kafka,
    pipeline: &Pipeline,
    topics: &Topics,
    concurrent: &Concurrent,
    report: &mut Report,
) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    let began = Instant::now();
    let mut host: Option<Host> = None;
    for round in 0.. {
        let over = match arguments.length {
            Length::Rounds(rounds) => round == rounds,
            Length::Time(time) => began.elapsed() >= time,
        };
        if over {
            break;
        }
        let fresh = host.is_none();
        concurrent.watch(&topics.outputs[0])?;
        let mut up = host.take().unwrap_or_else(|| pipeline.start(&[]));
        let blow = Blow::draw(&mut rng, fresh);
        if blow != Blow::KillEarly {
            let first = first_output(&mut up, concurrent);
            let took = first.map_err(|why| format!("round {round}: {why}\n{}", pipeline.said()))?;
            match fresh {
                true => report.restarts.push(took),
                false => report.resumptions.push(took),
            }
        }
        if let Some(status) = up.wait(blow.after(&mut rng)) {
            return Err(format!(
                "round {round}: the host ended by itself: {status}\n{}",
                pipeline.said()
            ));
        }
        let counted = &mut report.blows[blow as usize];
        counted.0 += 1;
        counted.1 += u32::from(concurrent.first_output().is_none());
        blow.strike(&mut up, pipeline, kafka, &mut rng)
            .map_err(|why| format!("round {round}, {}: {why}", blow.name()))?;
        host = up.ended().is_none().then_some(up);
    }
    Ok(())
}

/// Returns when a reader of committed records has seen something new, and how long that took.
fn first_output(host: &mut Host, concurrent: &Concurrent) -> Result<Duration, String> {
    let until = Instant::now() + OUTPUT_WITHIN;
    loop {
        if let Some(took) = concurrent.first_output() {
            return Ok(took);
        }
        if let Some(status) = host.wait(Duration::from_millis(5)) {
            return Err(format!("the host ended by itself: {status}"));
        }
        if Instant::now() > until {
            return Err(format!("no output for {} s", OUTPUT_WITHIN.as_secs()));
        }
    }
}

/// The last run, which nobody disturbs: reads what is left, closes all windows.
fn finish(pipeline: &Pipeline) -> Result<(), String> {
    let mut last = pipeline.start(&["--until-end"]);
    match last.wait(ENDS_WITHIN) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!(
            "the last run ended with {status}\n{}",
            pipeline.said()
        )),
        None => Err(format!("the last run does not end\n{}", pipeline.said())),
    }
}

/// Computes what is due from the input and compares; returns the log of the outputs.
fn judge(
    load: &Load,
    plain: u64,
    servers: &str,
    topics: &Topics,
    report: &mut Report,
) -> Result<Seen, String> {
    let mut books = Books::default();
    let (mut inputs, mut plain_inputs) = (0, 0);
    let mut broken = None;
    reader::read_log(
        servers,
        &topics.input,
        load.partitions,
        &mut |partition, offset, value| {
            inputs += 1;
            plain_inputs += u64::from(!load.is_in_transactions(partition));
            match serde_json::from_slice::<Value>(value) {
                Ok(record) => books.input(&record),
                Err(error) => broken = Some(format!("input {partition}/{offset}: {error}")),
            }
        },
    )?;
    books.close();
    report.inputs = inputs;
    report.inputs_lost = plain.saturating_sub(plain_inputs);
    let mut log: Seen = HashMap::new();
    for (output, topic) in Output::ALL.into_iter().zip(&topics.outputs) {
        reader::read_log(
            servers,
            topic,
            load.partitions,
            &mut |partition, offset, value| {
                let place = (topic.clone(), partition);
                log.entry(place)
                    .or_default()
                    .push((offset, reader::hash(value)));
                match serde_json::from_slice::<Value>(value) {
                    Ok(row) => books.output(output, &row),
                    Err(error) => broken = Some(format!("{topic} {partition}/{offset}: {error}")),
                }
            },
        )?;
        report.verdicts.push((output, books.verdict(output)));
    }
    match broken {
        None => Ok(log),
        Some(broken) => Err(format!("not JSON: {broken}")),
    }
}
