//! Decides, once an epoch and for all workers: how far event time is, whether a checkpoint follows, when to stop.
//!
//! Does no I/O: reports come in, a decision goes out. Invariant: checkpoint N + 1 is not prepared before N is decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::catch_up::{self, Lead};
use crate::engine::meta::EngineMeta;
use crate::engine::swap::SwapOrder;
use crate::engine::watermark::{Mode, SourceTime};
use crate::pipeline::plan::{Input, Plan};
use crate::source::{Lost, Position, Progress};
use crate::time::{END_OF_TIME, Micros, NO_TIME};

/// A pipeline without input has a checkpoint all the same after so long.
const HEARTBEAT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a worker brings to the meeting.
#[derive(Debug, Default)]
pub struct Report {
    /// By source this worker reads: its partitions and the highest event time each brought.
    pub sources: Vec<(usize, Vec<(Progress, Option<Micros>)>)>,
    /// Records were taken, or the last epoch gave rows.
    pub active: bool,
    /// Steps whose waiting rows have reached their bound.
    pub full: Vec<(usize, Fullness)>,
    /// By step: [`Step::done`](crate::step::Step::done) after the last epoch.
    pub done: Vec<Option<Micros>>,
}

/// How far a step's waiting rows are beyond their bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fullness {
    /// Only what moves the watermark is read.
    Full,
    /// Twice the bound: reading on does not help.
    Overfull,
}

/// What all workers do in this epoch.
#[derive(Debug, Clone)]
pub struct Decision {
    pub epoch: u64,
    /// By step.
    pub watermarks: Arc<[Micros]>,
    /// Wall time of this epoch.
    pub now: Micros,
    /// Freeze at the end of the epoch, as this checkpoint.
    pub checkpoint: Option<u64>,
    /// Change over to another version after the freeze.
    pub swap: Option<Arc<SwapOrder>>,
    /// Partitions, by source, to be left unread for now.
    pub paused: Arc<[Vec<u32>]>,
    /// Take nothing in the next epochs.
    pub drain: bool,
    /// The last epoch.
    pub stop: bool,
    /// This step's waiting rows are at their bound, and reading on cannot help.
    pub stuck: Option<usize>,
}

pub struct Coordinator {
    mode: Mode,
    times: Vec<SourceTime>,
    positions: Vec<BTreeMap<u32, Progress>>,
    inputs: Vec<Vec<Input>>,
    watermarks: Vec<Micros>,
    /// By step: how far all workers have given its results, where that lags behind its watermark.
    done: Vec<Option<Micros>>,
    /// By step: [`plan::Step::holds_back`](crate::pipeline::plan::Step::holds_back).
    holds_back: Vec<Micros>,
    /// By source: its rows have event times.
    timed: Vec<bool>,
    /// By source: the group of sources whose rows meet in some step.
    meeting: Vec<usize>,
    epoch: u64,
    checkpoint_every: Duration,
    last_checkpoint: Duration,
    /// Nothing was decided since a restart: what is read first is not made to wait.
    restarted: bool,
    /// Something happened since the last checkpoint.
    changed: bool,
    /// Event time had its turn since the last checkpoint.
    time_had_turn: bool,
    next: u64,
    in_flight: bool,
    stop_asked: bool,
    swap: Option<Arc<SwapOrder>>,
    /// What the last prepared checkpoint says; the next goes on from it.
    meta: EngineMeta,
    source_names: Vec<String>,
    step_names: Vec<String>,
    paused: bool,
    /// Nothing is read for now.
    holds_all: bool,
}

impl Coordinator {
    /// Goes on from checkpoint `number`, which says `meta`.
    pub fn new(plan: &Plan, mode: Mode, number: u64, meta: EngineMeta, now: Duration) -> Self {
        let times = plan.sources.iter().map(|s| {
            let (lateness, idle) = s
                .event_time
                .as_ref()
                .map_or((0, Duration::MAX), |t| (t.lateness, t.idle_after));
            let mut time = SourceTime::new(lateness, idle);
            if let Some(old) = meta.sources.get(&s.name) {
                time.restore(old.watermark);
            }
            time
        });
        let watermark = |name: &String| meta.steps.get(name).map_or(NO_TIME, |s| s.watermark);
        Self {
            mode,
            times: times.collect(),
            positions: plan.sources.iter().map(|_| BTreeMap::new()).collect(),
            inputs: plan.steps.iter().map(|s| s.inputs.clone()).collect(),
            watermarks: plan.steps.iter().map(|s| watermark(&s.name)).collect(),
            done: vec![None; plan.steps.len()],
            holds_back: plan.steps.iter().map(|s| s.holds_back).collect(),
            timed: plan
                .sources
                .iter()
                .map(|s| s.event_time.is_some())
                .collect(),
            meeting: catch_up::groups(plan),
            epoch: 0,
            checkpoint_every: plan.host.checkpoint_every,
            last_checkpoint: now,
            restarted: number > 0 && mode == Mode::Streaming,
            changed: false,
            time_had_turn: false,
            next: number + 1,
            in_flight: false,
            stop_asked: false,
            swap: None,
            source_names: plan.sources.iter().map(|s| s.name.clone()).collect(),
            step_names: plan.steps.iter().map(|s| s.name.clone()).collect(),
            meta,
            paused: false,
            holds_all: false,
        }
    }

    /// A partition that will be read from `start`.
    pub fn add_partition(&mut self, source: usize, partition: u32, start: Position, now: Duration) {
        let highest = self
            .meta
            .sources
            .get(&self.source_names[source])
            .and_then(|s| s.highest.get(&partition));
        self.times[source].add(partition, highest.copied().unwrap_or(NO_TIME), now);
        let progress = Progress {
            partition,
            next: start,
            caught_up: false,
            finished: false,
            lag: None,
        };
        self.positions[source].insert(partition, progress);
    }

    /// The reports of all workers become one decision. `elapsed` is monotonic, `now` wall time.
    pub fn decide(&mut self, reports: Vec<Report>, elapsed: Duration, now: Micros) -> Decision {
        self.epoch += 1;
        let mut full = Vec::new();
        self.done.fill(None);
        for report in reports {
            self.changed |= report.active;
            full.extend(report.full);
            for (step, done) in report.done.into_iter().enumerate() {
                self.done[step] = match (self.done[step], done) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            for (source, partitions) in report.sources {
                for (progress, highest) in partitions {
                    let p = progress;
                    self.times[source].observe(
                        p.partition,
                        highest,
                        p.caught_up,
                        p.finished,
                        elapsed,
                    );
                    self.positions[source].insert(p.partition, p);
                }
            }
        }
        let ended = self.mode != Mode::Streaming && self.all_finished();
        let finishing = ended || self.stop_asked;
        let start = self.advance_or_start(ended, elapsed);
        let (mut paused, stuck) = self.hold_back(&full, elapsed);
        self.let_behind_catch_up(&mut paused);
        if self.holds_all {
            for (held, positions) in paused.iter_mut().zip(&self.positions) {
                *held = positions.keys().copied().collect();
            }
        }
        Decision {
            epoch: self.epoch,
            watermarks: self.watermarks.clone().into(),
            now,
            checkpoint: start.then_some(self.next),
            swap: if start { self.swap.take() } else { None },
            paused: paused.into(),
            drain: finishing,
            stop: start && finishing,
            stuck,
        }
    }

    /// What checkpoint `number` says: the state of the engine now.
    pub fn prepare(
        &mut self,
        number: u64,
        swap: Option<&SwapOrder>,
        elapsed: Duration,
        now: Micros,
    ) -> EngineMeta {
        self.next = number + 1;
        self.in_flight = true;
        self.changed = false;
        self.time_had_turn = false;
        self.last_checkpoint = elapsed;
        self.restarted = false;
        for (source, name) in self.source_names.iter().enumerate() {
            let positions = self.positions[source].iter();
            // What else is said of a source stays what it was when the run began.
            let entry = self.meta.sources.entry(name.clone()).or_default();
            entry.positions = positions.map(|(&id, p)| (id, p.next)).collect();
            entry.highest = self.times[source].highest();
            entry.watermark = self.times[source].watermark();
        }
        for (step, name) in self.step_names.iter().enumerate() {
            self.meta.steps.entry(name.clone()).or_default().watermark = self.watermarks[step];
        }
        if let Some(swap) = swap {
            let plugin = self
                .meta
                .steps
                .entry(swap.step_name.clone())
                .or_default()
                .plugin
                .get_or_insert_default();
            plugin.record(&swap.digest, &swap.file, number, now);
        }
        self.meta.finished = self.mode == Mode::UntilEnd && self.has_read_all();
        if self.mode == Mode::KeepOpen && self.all_finished() {
            // The next run goes on to ends of its own.
            self.meta.ends = None;
        }
        self.meta.clone()
    }

    /// A bounded run has read everything and was not told to stop before.
    pub fn has_read_all(&self) -> bool {
        self.mode != Mode::Streaming && self.all_finished() && !self.stop_asked
    }

    /// The next checkpoint is not left out although nothing happened.
    pub fn want_checkpoint(&mut self) {
        self.changed = true;
    }

    /// Whether nothing is read from the next epoch on, as the state is written more slowly than it changes.
    pub fn hold_all(&mut self, hold: bool) {
        self.holds_all = hold;
    }

    /// The checkpoint in flight is decided.
    pub fn decided(&mut self) {
        self.in_flight = false;
    }

    /// Finish the epoch, commit and end.
    pub fn stop(&mut self) {
        self.stop_asked = true;
    }

    /// Queues a change of version; `Err` if one is under way.
    pub fn queue_swap(&mut self, swap: Arc<SwapOrder>) -> Result<(), String> {
        if self.swap.is_some() {
            return Err(
                "another swap of this pipeline is under way; try again when it is done".into(),
            );
        }
        self.swap = Some(swap);
        Ok(())
    }

    pub fn meta(&self) -> &EngineMeta {
        &self.meta
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Records or bytes left to read in a source, where known.
    pub fn lag(&self, source: usize) -> Option<u64> {
        self.positions[source].values().map(|p| p.lag).sum()
    }

    /// Where reading of a partition goes on, as last reported.
    pub fn position(&self, source: usize, partition: u32) -> Option<Position> {
        self.positions[source].get(&partition).map(|p| p.next)
    }

    /// What was gone before it could be read of a source, since the state was made.
    pub fn lost(&self, source: usize) -> Lost {
        let meta = self.meta.sources.get(&self.source_names[source]);
        Lost::total(meta.into_iter().flat_map(|m| m.lost.values()))
    }

    pub fn source_watermark(&self, source: usize) -> Micros {
        self.times[source].watermark()
    }

    /// Every partition of a bounded run is read.
    pub fn all_finished(&self) -> bool {
        self.positions
            .iter()
            .flat_map(BTreeMap::values)
            .all(|p| p.finished)
    }

    /// Moves event time on, or says that a checkpoint follows this epoch. While a step gives its results in slices none
    /// can, so once one is wanted time stands still until the slices are through; they end then. Between two checkpoints
    /// time has its turn, however long an epoch takes: due at each of them, they would hold it for good.
    fn advance_or_start(&mut self, ended: bool, elapsed: Duration) -> bool {
        let closing = self.is_closing();
        if ended && !self.stop_asked {
            // Results of the end go down step by step, some an epoch later than others.
            let moved = self.advance(true, elapsed);
            return !moved && !closing && !self.in_flight;
        }
        let slices = self.done.iter().any(Option::is_some);
        let since = elapsed.saturating_sub(self.last_checkpoint);
        let due = self.changed
            && (self.time_had_turn || !slices)
            && (since >= self.checkpoint_every || self.restarted);
        // Kafka forgets producers and offsets of a pipeline that says nothing for a week.
        let due = due || since >= HEARTBEAT;
        let wanted = !self.in_flight && (self.stop_asked || due || self.swap.is_some());
        if !(wanted && slices) {
            self.advance(false, elapsed);
            self.time_had_turn = true;
        }
        wanted && !closing
    }

    fn is_closing(&self) -> bool {
        let behind =
            |(done, watermark): (&Option<Micros>, &Micros)| done.is_some_and(|d| d < *watermark);
        self.done.iter().zip(&self.watermarks).any(behind)
    }

    /// True if some step's watermark moved.
    fn advance(&mut self, ended: bool, elapsed: Duration) -> bool {
        let to_the_end = ended && self.mode == Mode::UntilEnd;
        let sources: Vec<Micros> = self
            .times
            .iter_mut()
            .map(|t| t.advance(self.mode, elapsed))
            .map(|t| if to_the_end { END_OF_TIME } else { t })
            .collect();
        let mut moved = false;
        for step in 0..self.inputs.len() {
            let of = |input: &Input| match *input {
                Input::Source(i) => sources[i],
                Input::Port { step, .. } => self.output_watermark(step),
            };
            let least = self.inputs[step].iter().map(of).min().unwrap_or(NO_TIME);
            let next = least.max(self.watermarks[step]);
            moved |= next != self.watermarks[step];
            self.watermarks[step] = next;
        }
        self.changed |= moved;
        moved
    }

    /// No row that the step gives from now on has an event time below this.
    fn output_watermark(&self, step: usize) -> Micros {
        match self.done[step].unwrap_or(self.watermarks[step]) {
            meaning @ (NO_TIME | END_OF_TIME) => meaning,
            given => given.saturating_sub(self.holds_back[step]),
        }
    }

    /// Partitions that lead in event time wait for those behind that have unread input.
    fn let_behind_catch_up(&self, paused: &mut [Vec<u32>]) {
        let partitions = self.times.iter().enumerate().flat_map(|(source, time)| {
            // Nobody waits for what has no event time, nor for what is not read because it waits itself.
            let held = &paused[source];
            let unread = move |id: u32| {
                let p = &self.positions[source][&id];
                self.timed[source] && !p.caught_up && !p.finished && !held.contains(&id)
            };
            time.partitions().map(move |(id, highest)| Lead {
                source,
                partition: id,
                group: self.meeting[source],
                highest,
                slack: time.lateness().max(catch_up::SLACK),
                unread: unread(id),
            })
        });
        let partitions: Vec<Lead> = partitions.collect();
        for (source, partition) in catch_up::waiting(&partitions) {
            if !paused[source].contains(&partition) {
                paused[source].push(partition);
            }
        }
    }

    /// At the bound of a step's waiting rows only the partitions that hold its watermark back are read.
    fn hold_back(
        &mut self,
        full: &[(usize, Fullness)],
        elapsed: Duration,
    ) -> (Vec<Vec<u32>>, Option<usize>) {
        let mut paused: Vec<Vec<u32>> = vec![Vec::new(); self.times.len()];
        let mut stuck = None;
        for &(step, fullness) in full {
            let mut movable = false;
            for source in self.sources_of(step) {
                let holding = self.times[source].holding(self.mode, elapsed);
                movable |= holding.iter().any(|p| {
                    !self.positions[source][p].caught_up && !self.positions[source][p].finished
                });
                paused[source] = self.positions[source]
                    .keys()
                    .copied()
                    .filter(|p| !holding.contains(p))
                    .collect();
            }
            if fullness == Fullness::Overfull
                || !movable && self.mode != Mode::Streaming && !self.all_finished()
                || !movable && self.paused
            {
                stuck = Some(step);
            }
        }
        self.paused = !full.is_empty();
        (paused, stuck)
    }

    fn sources_of(&self, step: usize) -> Vec<usize> {
        let of = |input: &Input| match *input {
            Input::Source(i) => vec![i],
            Input::Port { step, .. } => self.sources_of(step),
        };
        let mut all: Vec<usize> = self.inputs[step].iter().flat_map(of).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests;
