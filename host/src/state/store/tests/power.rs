//! Power cuts: whatever of the unsynced writes a disk keeps, what opens afterwards is a checkpoint that was decided, or
//! the one that was being decided.
//!
//! `TIDEMILL_POWER_CUTS=N` sets how many are tried.

use std::time::{Duration, Instant};

use super::disk::{Contents, Disk, Operation, Unsynced, after_power_cut};
use super::*;

const CUTS: u64 = 3_000;
/// A slow machine tries fewer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run of checkpoints and merges on a disk that wrote down what it was told.
struct Recorded {
    dir: TempDir,
    base: Contents,
    journal: Vec<Operation>,
    /// What was decided after how many operations, in order; begun with the one before.
    decided: Vec<(usize, Model)>,
    /// Which of them the log left open.
    by_kafka: Vec<bool>,
}

impl Recorded {
    fn new(rng: &mut StdRng) -> Self {
        let dir = temp_in_memory();
        let first = Disk::new(Contents::new());
        let store = first.open(dir.path()).unwrap();
        let steps = step_ids(&store);
        drop(store);
        let base = first.contents();
        let disk = Disk::new(base.clone());
        let store = disk.open(dir.path()).unwrap();
        let mut decided = vec![(0, Model::default())];
        let mut by_kafka = vec![false];
        for round in 0..10 {
            let before = &decided[decided.len() - 1].1;
            let (mut prepared, mut after) = next(rng, before, &steps);
            if round % 3 == 2 {
                grow(rng, steps[0], &mut prepared, &mut after);
            }
            if round % 2 == 0 {
                store.commit(prepared).unwrap();
            } else {
                store.prepare(prepared).unwrap();
                store.decide();
            }
            decided.push((disk.changes(), after));
            by_kafka.push(round % 2 == 1);
            if round % 4 == 3 {
                store.merge().unwrap();
            }
        }
        drop(store);
        let journal = disk.journal();
        Self {
            dir,
            base,
            journal,
            decided,
            by_kafka,
        }
    }

    /// What may be found after a cut behind so many operations: the last that was decided, or the one under way.
    fn possible(&self, cut: usize) -> &[(usize, Model)] {
        let known = self.decided.partition_point(|(at, _)| *at <= cut);
        &self.decided[known - 1..(known + 1).min(self.decided.len())]
    }

    /// The checkpoint before the last one written, if that was left for Kafka to decide.
    fn before(&self, cut: usize) -> Option<&Model> {
        let known = self.decided.partition_point(|(at, _)| *at <= cut);
        let by_kafka = known >= 2 && self.by_kafka[known - 1];
        by_kafka.then(|| &self.decided[known - 2].1)
    }

    /// Opens what a cut left. `keep`: what Kafka says of a checkpoint of which it alone knows.
    fn check(&self, contents: Contents, cut: usize, keep: bool, what: &str) -> Model {
        let disk = Disk::new(contents);
        let store = disk.open(self.dir.path());
        let store = store.unwrap_or_else(|e| panic!("{what}: {e}"));
        let possible: Vec<&Model> = match store.undecided() {
            None => {
                // A start that was cut off may have taken back what Kafka had not decided.
                let taken_back = self.before(cut).filter(|_| !keep);
                let possible = self.possible(cut).iter().map(|(_, model)| model);
                possible.chain(taken_back).collect()
            }
            Some(open) => {
                let numbers = || self.possible(cut).iter().map(|(_, model)| model.number);
                assert!(
                    numbers().any(|n| n == Some(open.number)),
                    "{what}: {}",
                    open.number
                );
                store.resolve(keep).unwrap();
                let number = open.number.checked_sub(u64::from(!keep));
                let models = self.decided.iter().map(|(_, model)| model);
                models.filter(|model| model.number == number).collect()
            }
        };
        let found = content(&store);
        assert!(
            possible.contains(&&found),
            "{what}: found {:?}, possible {:?}",
            found.number,
            possible.iter().map(|m| m.number).collect::<Vec<_>>()
        );
        store.merge().unwrap();
        assert_eq!(content(&store), found, "{what}: a merge changes nothing");
        found
    }
}

/// A segment that the file has to grow for.
fn grow(rng: &mut StdRng, step: u16, prepared: &mut Prepared, after: &mut Model) {
    let id = SegmentId {
        millis: 5_000,
        checkpoint: prepared.number,
        serial: 0,
        first: 0,
        last: KEY_GROUPS - 1,
    };
    let mut bytes = vec![0; 600_000];
    rng.fill(&mut bytes[..]);
    after.segments.insert((step, id), bytes.clone());
    let delta = &mut prepared.deltas[0].1[0];
    delta.segments.push(Box::new((id, bytes)));
}

#[test]
fn row_21_torn_and_lost_pages_leave_a_decided_checkpoint() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let recorded = Recorded::new(&mut rng);
    let given = std::env::var("TIDEMILL_POWER_CUTS").ok();
    let asked = given.as_deref().map(|n| n.parse().unwrap());
    let (begun, mut tried, mut twice, mut other) = (Instant::now(), 0u64, 0u64, 0u64);
    while tried < asked.unwrap_or(CUTS) && (asked.is_some() || begun.elapsed() < PATIENCE) {
        let cut = rng.random_range(0..=recorded.journal.len());
        let unsynced = *[
            Unsynced::Torn,
            Unsynced::Torn,
            Unsynced::Kept,
            Unsynced::Lost,
        ]
        .choose(&mut rng)
        .unwrap();
        let keep = rng.random();
        let what = format!("cut {tried} after operation {cut}, {unsynced:?}, keep {keep}");
        let mut contents =
            after_power_cut(&recorded.base, &recorded.journal[..cut], unsynced, &mut rng);
        if rng.random_ratio(1, 4) {
            // Once more, while the state is opened after the first.
            contents = cut_while_opening(&recorded, contents, keep, &mut rng);
            twice += 1;
        }
        let found = recorded.check(contents, cut, keep, &what);
        other += u64::from(found != recorded.possible(cut)[0].1);
        tried += 1;
    }
    println!(
        "{tried} power cuts ({twice} with a second while it opened) of {} operations in {:.1} s: {other} times the \
         checkpoint under way or, as Kafka said, the one before was found, else the last decided one; none else",
        recorded.journal.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(tried >= 50, "too slow to say anything: {tried}");
}

fn cut_while_opening(
    recorded: &Recorded,
    contents: Contents,
    keep: bool,
    rng: &mut StdRng,
) -> Contents {
    let disk = Disk::new(contents.clone());
    if let Ok(store) = disk.open(recorded.dir.path()) {
        // Resolving and merging are part of what a start leads to.
        let _ = store.resolve(keep).and_then(|()| store.merge());
    }
    let journal = disk.journal();
    let cut = rng.random_range(0..=journal.len());
    after_power_cut(&contents, &journal[..cut], Unsynced::Torn, rng)
}

#[test]
fn row_22_a_file_cut_off_while_it_grows_opens() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let recorded = Recorded::new(&mut rng);
    let lengths = recorded.journal.iter().enumerate();
    let grows: Vec<usize> = lengths
        .filter(|(_, operation)| matches!(operation, Operation::SetLen { .. }))
        .map(|(i, _)| i)
        .collect();
    assert!(grows.len() >= 4, "the files grow {} times", grows.len());
    for &grow in &grows {
        for cut in grow..(grow + 4).min(recorded.journal.len()) {
            for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn] {
                let what = format!("cut after operation {cut}, {unsynced:?}");
                let contents =
                    after_power_cut(&recorded.base, &recorded.journal[..cut], unsynced, &mut rng);
                recorded.check(contents, cut, true, &what);
            }
        }
    }
}
