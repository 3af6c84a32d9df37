//! A model of what surrounds the coordinator: partitions, workers and the steps of the test's pipeline as far as event
//! time goes. It crashes now and then and goes on from its last checkpoint.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::engine::meta::{SourceMeta, first_steps};
use crate::pipeline::plan::Operator;
use crate::time::MICROS_PER_MS;

const IDLE_AFTER: Duration = Duration::from_secs(30);
const WORKERS: usize = 3;
/// Far more epochs than the longest run needs.
const EPOCHS_MAX: usize = 20_000;

pub struct World<'a> {
    plan: &'a Plan,
    mode: Mode,
    seed: u64,
    coordinator: Coordinator,
    state: State,
    /// The last decided checkpoint, and the one in flight.
    decided: (u64, EngineMeta, State),
    in_flight: Option<(u64, EngineMeta, State)>,
    elapsed: Duration,
    paused: Arc<[Vec<u32>]>,
    drain: bool,
    crashes: usize,
}

/// What a checkpoint holds.
#[derive(Clone)]
struct State {
    partitions: Vec<Partition>,
    /// By worker and step.
    windows: Vec<Vec<Window>>,
    pairs: Vec<Micros>,
    watermarks: Vec<Micros>,
}

#[derive(Clone)]
struct Partition {
    source: usize,
    id: u32,
    times: Vec<Micros>,
    next: usize,
    /// Records that are there to be read.
    there: usize,
    heard: Duration,
    was_caught_up: bool,
    /// It may have been idle: what follows may be late.
    was_idle: bool,
    seen: Option<Micros>,
}

/// One worker's share of a window step: ends of windows that have rows, then slices to be given.
#[derive(Clone, Default)]
struct Window {
    open: BTreeSet<Micros>,
    closing: VecDeque<(Micros, u32)>,
    done: Micros,
}

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan, mode: Mode, seed: u64, rng: &mut StdRng) -> Self {
        let partitions = (0..2u32).flat_map(|id| [(0, id, 20), (1, id, 5)]);
        let partitions = partitions.map(|(source, id, lateness)| {
            let times = times(lateness, rng);
            let there = match mode {
                Mode::Streaming => rng.random_range(0..=times.len()),
                _ => times.len(),
            };
            Partition {
                source,
                id,
                times,
                next: 0,
                there,
                heard: Duration::ZERO,
                was_caught_up: false,
                was_idle: false,
                seen: None,
            }
        });
        let mut window = vec![Window::default(); plan.steps.len()];
        window.iter_mut().for_each(|w| w.done = NO_TIME);
        let state = State {
            partitions: partitions.collect(),
            windows: vec![window; WORKERS],
            pairs: Vec::new(),
            watermarks: vec![NO_TIME; plan.steps.len()],
        };
        let mut meta = EngineMeta::default();
        for source in &plan.sources {
            let watermark = NO_TIME;
            let entry = SourceMeta {
                watermark,
                ..SourceMeta::default()
            };
            meta.sources.insert(source.name.clone(), entry);
        }
        meta.steps = first_steps(plan, 0, 0);
        let coordinator = Coordinator::new(plan, mode, 0, meta.clone(), Duration::ZERO);
        let mut world = Self {
            plan,
            mode,
            seed,
            coordinator,
            decided: (0, meta, state.clone()),
            state,
            in_flight: None,
            elapsed: Duration::ZERO,
            paused: vec![Vec::new(); plan.sources.len()].into(),
            drain: false,
            crashes: rng.random_range(0..3),
        };
        world.restart();
        world
    }

    pub fn run(&mut self, rng: &mut StdRng) {
        let stop_at = rng.random_range(100..400);
        for epoch in 0..EPOCHS_MAX {
            if self.mode == Mode::Streaming && epoch == stop_at {
                self.coordinator.stop();
            }
            if self.epoch(rng) {
                return self.end();
            }
            if rng.random_ratio(1, 3) {
                self.decide();
            }
            if self.crashes > 0 && epoch < stop_at && rng.random_ratio(1, 40) {
                self.crashes -= 1;
                self.restart();
            }
        }
        panic!("seed {}: it hangs", self.seed);
    }

    fn decide(&mut self) {
        if let Some(checkpoint) = self.in_flight.take() {
            self.decided = checkpoint;
            self.coordinator.decided();
        }
    }

    fn restart(&mut self) {
        let (number, meta, state) = self.decided.clone();
        self.in_flight = None;
        self.state = state;
        self.drain = false;
        self.paused = vec![Vec::new(); self.plan.sources.len()].into();
        self.coordinator = Coordinator::new(self.plan, self.mode, number, meta, self.elapsed);
        for p in &mut self.state.partitions {
            p.heard = self.elapsed;
            p.was_caught_up = false;
            self.coordinator
                .add_partition(p.source, p.id, START, self.elapsed);
        }
    }

    /// One epoch as the engine turns it; true after the last.
    fn epoch(&mut self, rng: &mut StdRng) -> bool {
        self.elapsed += Duration::from_millis(rng.random_range(0..2_000));
        let rows = self.take(rng);
        let reports = self.reports();
        let decision = self.coordinator.decide(reports, self.elapsed, 0);
        assert_eq!(decision.stuck, None);
        self.someone_is_read(&decision);
        let before = std::mem::replace(&mut self.state.watermarks, decision.watermarks.to_vec());
        for (before, now) in before.iter().zip(&self.state.watermarks) {
            assert!(before <= now, "seed {}: a watermark went back", self.seed);
        }
        self.paused = decision.paused.clone();
        self.drain = decision.drain;
        self.steps(&rows, &before, rng);
        if let Some(number) = decision.checkpoint {
            let closing = self
                .state
                .windows
                .iter()
                .flatten()
                .any(|w| !w.closing.is_empty());
            assert!(!closing, "seed {}: a checkpoint between slices", self.seed);
            assert!(
                self.in_flight.is_none(),
                "seed {}: two in flight",
                self.seed
            );
            let meta = self.coordinator.prepare(number, None, self.elapsed, 0);
            self.in_flight = Some((number, meta, self.state.clone()));
        }
        decision.stop
    }

    /// Source and time of the rows of this epoch.
    fn take(&mut self, rng: &mut StdRng) -> Vec<(usize, Micros)> {
        let mut rows = Vec::new();
        for p in &mut self.state.partitions {
            p.seen = None;
            if self.mode == Mode::Streaming && rng.random_ratio(1, 6) {
                p.there = (p.there + rng.random_range(0..5)).min(p.times.len());
            }
            // It may be told idle at any meeting from now on; one that has unread input never is.
            let silent = self.elapsed.saturating_sub(p.heard) >= IDLE_AFTER;
            p.was_idle |= self.mode == Mode::Streaming && p.was_caught_up && silent;
            if self.drain || self.paused[p.source].contains(&p.id) || rng.random_ratio(1, 4) {
                continue;
            }
            let to = (p.next + rng.random_range(0..6)).min(p.there);
            for &time in &p.times[p.next..to] {
                let floor = if p.was_idle { Micros::MAX } else { time };
                rows.push((p.source, floor));
                p.seen = p.seen.max(Some(time));
                p.heard = self.elapsed;
            }
            p.next = to;
        }
        rows
    }

    fn reports(&mut self) -> Vec<Report> {
        let mut reports: Vec<Report> = Vec::new();
        for worker in 0..WORKERS {
            let mut report = Report {
                active: true,
                ..Report::default()
            };
            for source in 0..self.plan.sources.len() {
                let mine = self.state.partitions.iter_mut().enumerate();
                let mine = mine.filter(|(i, p)| p.source == source && i % WORKERS == worker);
                let one = |(_, p): (usize, &mut Partition)| {
                    p.was_caught_up = p.next == p.there;
                    let progress = Progress {
                        partition: p.id,
                        next: START,
                        caught_up: p.was_caught_up,
                        finished: self.mode != Mode::Streaming && p.next == p.times.len(),
                        lag: None,
                    };
                    (progress, p.seen)
                };
                report.sources.push((source, mine.map(one).collect()));
            }
            let windows = self.state.windows[worker].iter().zip(&self.plan.steps);
            let done = |(w, step): (&Window, &crate::pipeline::plan::Step)| {
                matches!(step.operator, Operator::Window(_)).then_some(w.done)
            };
            report.done = windows.map(done).collect();
            reports.push(report);
        }
        reports
    }

    /// While something is left to read one of those that have it may be read.
    fn someone_is_read(&self, decision: &Decision) {
        let unread = self.state.partitions.iter().filter(|p| p.next < p.there);
        let mut unread = unread.peekable();
        let is_read = |p: &Partition| !decision.paused[p.source].contains(&p.id);
        if unread.peek().is_some() {
            assert!(unread.any(is_read), "seed {}: all wait", self.seed);
        }
    }

    fn steps(&mut self, rows: &[(usize, Micros)], before: &[Micros], rng: &mut StdRng) {
        let mut given: Vec<Vec<Micros>> = vec![Vec::new(); self.plan.steps.len()];
        for index in 0..self.plan.steps.len() {
            let step = &self.plan.steps[index];
            let mut input = Vec::new();
            for from in &step.inputs {
                match *from {
                    Input::Source(s) => input.extend(rows.iter().filter(|r| r.0 == s).map(|r| r.1)),
                    Input::Port { step, .. } => input.extend(given[step].iter().copied()),
                }
            }
            for time in &input {
                assert!(
                    *time >= before[index],
                    "seed {}: {time} comes to {} below {}",
                    self.seed,
                    step.name,
                    before[index]
                );
            }
            // Rows of partitions that were idle have no say.
            input.retain(|&time| time != Micros::MAX);
            let watermark = self.state.watermarks[index];
            given[index] = match &step.operator {
                Operator::Window(window) => {
                    let crate::pipeline::plan::WindowKind::Tumbling(size) = window.kind else {
                        panic!("tumbling windows only");
                    };
                    self.window(index, &input, size, watermark, rng)
                }
                Operator::Join(join) => {
                    self.state.pairs.extend(input);
                    let reach = join.before.max(join.after);
                    let over = |t: &mut Micros| t.saturating_add(reach) < watermark;
                    self.state.pairs.extract_if(.., over).collect()
                }
                _ => input,
            };
        }
    }

    fn window(
        &mut self,
        step: usize,
        input: &[Micros],
        size: Micros,
        watermark: Micros,
        rng: &mut StdRng,
    ) -> Vec<Micros> {
        for time in input {
            let end = time - time.rem_euclid(size) + size;
            let worker = rng.random_range(0..WORKERS);
            self.state.windows[worker][step].open.insert(end);
        }
        let windows = self.state.windows.iter_mut();
        windows.flat_map(|w| w[step].tick(watermark, rng)).collect()
    }

    /// At the end of time nothing is left.
    fn end(&self) {
        if self.mode != Mode::UntilEnd {
            return;
        }
        assert!(self.state.pairs.is_empty(), "seed {}", self.seed);
        for window in self.state.windows.iter().flatten() {
            let left = window.open.is_empty() && window.closing.is_empty();
            assert!(left, "seed {}: windows are left", self.seed);
        }
    }
}

impl Window {
    /// Gives a slice at least; the times of its results.
    fn tick(&mut self, watermark: Micros, rng: &mut StdRng) -> Vec<Micros> {
        let later = self.open.split_off(&watermark.saturating_add(1));
        for end in std::mem::replace(&mut self.open, later) {
            self.closing.push_back((end, rng.random_range(1..4)));
        }
        let mut given = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            let Some((end, slices)) = self.closing.front_mut() else {
                break;
            };
            given.push(*end - MICROS_PER_MS);
            *slices -= 1;
            if *slices == 0 {
                self.closing.pop_front();
            }
        }
        self.done = self.closing.front().map_or(watermark, |(end, _)| end - 1);
        given
    }
}

/// Ascending but for `lateness` seconds of disorder, now and then with a leap.
fn times(lateness: i64, rng: &mut StdRng) -> Vec<Micros> {
    let mut now = rng.random_range(-200..200) * SECOND;
    let records = rng.random_range(0..120);
    let mut one = || {
        now += rng.random_range(0..3 * SECOND);
        if rng.random_ratio(1, 60) {
            now += rng.random_range(0..1_000 * SECOND);
        }
        now - rng.random_range(0..=lateness * SECOND)
    };
    let mut times: Vec<Micros> = (0..records).map(|_| one()).collect();
    // The highest so far counts, so the disorder stays within the lateness.
    let mut highest = NO_TIME;
    for time in &mut times {
        highest = highest.max(*time);
        *time = (*time).max(highest.saturating_sub(lateness * SECOND));
    }
    times
}
