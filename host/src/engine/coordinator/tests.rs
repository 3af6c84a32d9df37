//! Watermarks of a whole pipeline over random partitions, workers, slices, checkpoints and restarts.
//!
//! The world around the coordinator is a model: partitions hold records at most `lateness` out of order; windows give
//! their results in slices; a join gives rows when nothing can match them. What must hold: no record within the lateness
//! and no result is below the watermark of the step that reads it; watermarks never go back; no checkpoint falls between
//! slices; whatever is held back, reading goes on.

mod world;

use std::time::Duration;

use rand::prelude::*;
use rand::rngs::StdRng;

use super::*;
use world::World;

const START: Position = Position {
    offset: 0,
    record: 0,
};
const SECOND: Micros = crate::time::MICROS_PER_SECOND;

/// Two sources that meet, and one without event time that they meet, too.
const PIPELINE: &str = r#"name = "p"
[host]
workers = 1
[sources.a]
file = { path = "a.jsonl" }
fields = { k = "string", at = "timestamp" }
event_time = { field = "at", lateness = "20s" }
[sources.b]
file = { path = "b.jsonl" }
fields = { k = "string", at = "timestamp" }
event_time = { field = "at", lateness = "5s" }
[sources.c]
file = { path = "c.jsonl" }
fields = { k = "string", at = "timestamp" }
[steps.rows]
from = ["a", "b"]
[steps.windows]
from = "rows"
window = { tumbling = "10s" }
aggregate = { n = "count(*)" }
[steps.more]
from = "windows"
window = { tumbling = "20s" }
aggregate = { n = "count(*)" }
[steps.pairs]
join = { left = "a", right = "b", on = ["k"], before = "3s", after = "15s", kind = "full" }
select = ["left.k"]
[steps.of_pairs]
from = "pairs"
window = { tumbling = "10s" }
aggregate = { n = "count(*)" }
[steps.all]
from = ["a", "b", "c"]
"#;

fn plan() -> Plan {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeline.toml");
    std::fs::write(&file, PIPELINE).unwrap();
    let spec = crate::pipeline::load(&file, &Default::default()).unwrap_or_else(|r| panic!("{r}"));
    let runtime = crate::plugin::Runtime::new(None).unwrap();
    crate::pipeline::plan(&spec, &runtime).unwrap_or_else(|r| panic!("{r}"))
}

fn random(mode: Mode, cases: u64) {
    let plan = plan();
    let base: u64 = rand::random();
    println!("seed {base}");
    for case in 0..cases {
        let seed = base.wrapping_add(case);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(&plan, mode, seed, &mut rng);
        world.run(&mut rng);
    }
}

#[test]
fn a_bounded_run_gives_everything_and_nothing_late() {
    random(Mode::UntilEnd, 400);
}

#[test]
fn a_run_that_stays_open_stops_at_its_ends() {
    random(Mode::KeepOpen, 400);
}

#[test]
fn a_run_for_ever_waits_for_all_but_the_idle() {
    random(Mode::Streaming, 400);
}

fn coordinator(mode: Mode, partitions: &[(usize, u32)]) -> Coordinator {
    let mut coordinator = Coordinator::new(&plan(), mode, 0, EngineMeta::default(), Duration::ZERO);
    for &(source, partition) in partitions {
        coordinator.add_partition(source, partition, START, Duration::ZERO);
    }
    coordinator
}

/// What one worker that reads all partitions says: source, partition, seconds seen, caught up.
fn report(partitions: &[(usize, u32, Option<i64>, bool)]) -> Report {
    let mut report = Report::default();
    for source in 0..3 {
        let of = partitions.iter().filter(|p| p.0 == source);
        let one = |&(_, partition, seen, caught_up): &(usize, u32, Option<i64>, bool)| {
            let progress = Progress {
                partition,
                next: START,
                caught_up,
                finished: caught_up,
                lag: None,
            };
            (progress, seen.map(|s| s * SECOND))
        };
        report.sources.push((source, of.map(one).collect()));
    }
    report
}

/// A partition that is not read because a step's waiting rows are at their bound holds nobody back: both would wait for
/// ever.
#[test]
fn the_catch_up_rule_and_the_bound_of_waiting_rows_do_not_wait_for_each_other() {
    let all = [(0, 0), (1, 0), (1, 1)];
    let mut coordinator = coordinator(Mode::KeepOpen, &all);
    let mut report = report(&[
        (0, 0, Some(1_000), false),
        (1, 0, Some(10), true),
        (1, 1, Some(500), false),
    ]);
    let step = coordinator
        .step_names
        .iter()
        .position(|n| n == "rows")
        .unwrap();
    report.full.push((step, Fullness::Full));
    let decision = coordinator.decide(vec![report], Duration::ZERO, 0);
    assert_eq!(decision.stuck, None);
    let paused: Vec<&[u32]> = decision.paused.iter().map(Vec::as_slice).collect();
    assert_eq!(
        paused,
        [&[][..], &[1], &[]],
        "only a can move, so a is read"
    );
}

#[test]
fn nobody_waits_for_a_source_without_event_time() {
    let mut coordinator = coordinator(Mode::Streaming, &[(0, 0), (1, 0), (2, 0)]);
    let report = report(&[
        (0, 0, Some(1_000), false),
        (1, 0, Some(1_000), false),
        (2, 0, None, false),
    ]);
    let decision = coordinator.decide(vec![report], Duration::ZERO, 0);
    assert!(
        decision.paused.iter().all(Vec::is_empty),
        "{:?}",
        decision.paused
    );
}

#[test]
fn one_record_far_in_the_future_stops_nobody() {
    let mut coordinator = coordinator(Mode::UntilEnd, &[(0, 0), (0, 1)]);
    let report = |caught_up| report(&[(0, 0, Some(1 << 40), false), (0, 1, Some(7), caught_up)]);
    let decision = coordinator.decide(vec![report(false)], Duration::ZERO, 0);
    assert_eq!(decision.paused[0], [0], "the other one is read first");
    assert_eq!(decision.watermarks[0], NO_TIME, "b has shown nothing");
    let decision = coordinator.decide(vec![report(true)], Duration::ZERO, 0);
    assert!(decision.paused[0].is_empty());
}

/// Epochs that take longer than `checkpoint_every` make a checkpoint due at each of them, and a checkpoint makes time
/// stand still while steps give their results in slices: both have their turn.
#[test]
fn checkpoints_that_are_always_due_do_not_hold_event_time() {
    let mut coordinator = coordinator(Mode::Streaming, &[(0, 0), (1, 0)]);
    let (mut checkpoints, mut elapsed) = (0, Duration::ZERO);
    let mut last = NO_TIME;
    for epoch in 1..=10 {
        elapsed += Duration::from_secs(60);
        let seen = Some(100 * epoch);
        let mut report = report(&[(0, 0, seen, false), (1, 0, seen, false)]);
        report.active = true;
        // All steps have given what was due.
        report.done = coordinator.watermarks.iter().map(|w| Some(*w)).collect();
        let decision = coordinator.decide(vec![report], elapsed, 0);
        if let Some(number) = decision.checkpoint {
            coordinator.prepare(number, None, elapsed, 0);
            coordinator.decided();
            checkpoints += 1;
        }
        last = decision.watermarks[0];
    }
    assert_eq!(checkpoints, 5, "every other epoch");
    assert!(last >= (900 - 20) * SECOND, "{last}");
}

#[test]
fn a_pipeline_without_input_has_a_checkpoint_a_day() {
    let plan = plan();
    let mut coordinator = Coordinator::new(
        &plan,
        Mode::Streaming,
        7,
        EngineMeta::default(),
        Duration::ZERO,
    );
    let hour = Duration::from_secs(60 * 60);
    let mut checkpoints = Vec::new();
    for hours in 1..=72 {
        let silent = Report {
            done: vec![None; plan.steps.len()],
            ..Report::default()
        };
        let decision = coordinator.decide(vec![silent], hour * hours, 0);
        if let Some(number) = decision.checkpoint {
            coordinator.prepare(number, None, hour * hours, 0);
            coordinator.decided();
            checkpoints.push((hours, number));
        }
    }
    assert_eq!(checkpoints, [(24, 8), (48, 9), (72, 10)]);
}

/// Nothing is read while the state is written more slowly than it changes, and all is read again afterwards.
#[test]
fn all_partitions_wait_while_the_state_is_behind() {
    let all = [(0, 0), (0, 1), (1, 0)];
    let mut coordinator = coordinator(Mode::Streaming, &all);
    for (behind, held) in [(false, [0, 0, 0]), (true, [2, 1, 0]), (false, [0, 0, 0])] {
        coordinator.hold_all(behind);
        let seen = |source, partition| (source, partition, Some(1), false);
        let report = report(&all.map(|(source, partition)| seen(source, partition)));
        let decision = coordinator.decide(vec![report], Duration::ZERO, 0);
        let found: Vec<usize> = decision.paused.iter().map(Vec::len).collect();
        assert_eq!(found, held);
    }
}
