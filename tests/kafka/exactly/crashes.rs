//! The process ends at every step of a checkpoint and of a start: rows 2, 3, 5 and 18 of the fault matrix.
//!
//! `TIDEMILL_CRASHES=50` ends it so many times at each point.

use tidemill::crash::POINTS;

use super::super::{Test, broker};
use super::{Scene, told};

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_exactly_row_02_crash_at_every_step", every_step),
        ("kafka_exactly_row_03_crash_twice_in_recovery", in_recovery),
        (
            "kafka_exactly_row_18_another_number_of_workers",
            other_workers,
        ),
    ]
}

pub fn rounds() -> usize {
    let asked = std::env::var("TIDEMILL_CRASHES").ok();
    asked.and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

pub fn is_of_start(point: &str) -> bool {
    point.starts_with("start-")
}

pub fn is_of_checkpoint(point: &str) -> bool {
    !["start-", "snapshot-", "restore-"]
        .iter()
        .any(|other| point.starts_with(other))
}

/// At the n-th pass of each point of a checkpoint, then at a point of the start that follows, then to the end.
fn every_step() {
    let starts: Vec<&str> = POINTS.iter().copied().filter(|p| is_of_start(p)).collect();
    let mut crashed = 0;
    for (at, point) in POINTS.iter().filter(|p| is_of_checkpoint(p)).enumerate() {
        for round in 0..rounds() {
            let scene = Scene::new(broker(), 2_400);
            scene.write_plain();
            let pass = 1 + (round * 5 + at) % 12;
            let drill = format!("{point}:{pass}");
            let output = scene.run_with_drill(&drill);
            assert!(
                !output.status.success(),
                "{drill} was never reached: {}",
                told(&output)
            );
            let start = starts[(at + round) % starts.len()];
            let output = scene.run_with_drill(start);
            assert!(
                !output.status.success(),
                "{drill}, then {start}: {}",
                told(&output)
            );
            scene.finish();
            scene.assert_exact(&format!("{drill}, then {start}"));
            crashed += 2;
        }
    }
    println!("{crashed} crashes: nothing lost, nothing doubled");
}

/// At every point of a start after a crash with the transaction open or committed, each twice in a row.
fn in_recovery() {
    let starts = POINTS.iter().filter(|p| is_of_start(p));
    for (at, point) in starts.enumerate() {
        let scene = Scene::new(broker(), 1_200);
        scene.write_plain();
        let first = ["prepared:3", "committed:3", "flushed:2"][at % 3];
        assert!(!scene.run_with_drill(first).status.success(), "{first}");
        for _ in 0..2 {
            let output = scene.run_with_drill(point);
            assert!(
                !output.status.success(),
                "{first}, then {point}: {}",
                told(&output)
            );
        }
        scene.finish();
        scene.assert_exact(&format!("{first}, then {point} twice"));
    }
}

/// The id of the transactions does not depend on the workers: what a run of two left open is ended by a run of one.
fn other_workers() {
    let scene = Scene::new(broker(), 1_200);
    scene.write_plain();
    for (workers, drill) in [
        ("2", "prepared:3"),
        ("1", "flushed:2"),
        ("3", "committed:2"),
    ] {
        let set = format!("host.workers={workers}");
        let mut command = scene.command(&["--until-end", "--set", &set]);
        let output = command.env("TIDEMILL_CRASH_AT", drill).output().unwrap();
        assert!(!output.status.success(), "{drill}: {}", told(&output));
    }
    scene.finish();
    scene.assert_exact("workers 2, 1, 3, 2");
}
