//! The workers of one step through a script: rows go to the owner of their key, checkpoints freeze and are decided
//! later, a crash goes back to the last decided one, with as many workers as the test likes.
//!
//! Imitates the engine: all input of an epoch, then the tick; no checkpoint between the slices of a closing; checkpoint
//! N + 1 is not frozen before N is decided.

use super::script::{Epoch, In, REFUSED, given};
use super::store::{Memory, Shared, Stored, commit, lock};
use super::{Given, Outputs};
use crate::batch::Batch;
use crate::engine::exchange::owner;
use crate::state::Delta;
use crate::state::key::{KeyEncoder, key_group};
use crate::step::{Output, Step, StepError, Tick};
use crate::time::{END_OF_TIME, Micros, NO_TIME};

/// The step under test.
pub struct Subject<'a> {
    pub make: Box<dyn Fn() -> Box<dyn Step> + 'a>,
    /// Rows of an input as the step reads them.
    pub batch: fn(&[In]) -> Batch,
    /// Key columns of each input.
    pub key: Vec<usize>,
    pub ports: usize,
    pub key_groups: u16,
    /// See [`plan::Step::holds_back`](crate::pipeline::plan::Step::holds_back).
    pub holds_back: Micros,
    /// Results may come in slices, over several epochs.
    pub slices: bool,
}

/// What happens between two epochs.
#[derive(Debug, Clone, Copy)]
pub enum Then {
    /// Freeze a checkpoint, unless one is in flight.
    Freeze,
    /// The checkpoint in flight, if there is one, is decided.
    Decide,
    /// Everything in memory is lost; so many workers go on.
    Crash(usize),
}

#[derive(Debug, Clone)]
pub struct Turn {
    pub then: Vec<Then>,
    /// Rows of one batch.
    pub cut: usize,
}

impl Turn {
    pub fn of(then: &[Then]) -> Self {
        Self {
            then: then.to_vec(),
            cut: 3,
        }
    }
}

/// What a script came to.
pub struct Outcome {
    pub given: Outputs,
    /// Keys and segments in the state after the end of time.
    pub left: (usize, usize),
    /// Bytes of the largest segment left.
    pub largest: usize,
    /// Reads and writes of the state.
    pub operations: usize,
    /// The injected failure was met.
    pub failed: bool,
}

/// A frozen checkpoint, and what it stands for.
struct Frozen {
    deltas: Vec<Delta>,
    at: Place,
}

/// A place in the script.
#[derive(Clone)]
struct Place {
    epoch: usize,
    given: usize,
    watermark: Micros,
    /// The number of the checkpoint.
    number: u64,
}

struct Cluster<'a> {
    subject: &'a Subject<'a>,
    steps: Vec<Box<dyn Step>>,
    encoder: Option<KeyEncoder>,
    store: Shared,
    in_flight: Option<Frozen>,
    decided: Place,
    given: Outputs,
    epoch: usize,
    watermark: Micros,
}

impl Subject<'_> {
    /// Runs `epochs`; after the n-th turn (a crash repeats epochs) what `turns` says happens.
    pub fn run(&self, epochs: &[Epoch], workers: usize, turns: &[Turn]) -> Outcome {
        self.run_failing(epochs, workers, turns, usize::MAX - 1)
    }

    /// As [`run`](Self::run), with operation `failing` of the state failing once.
    pub fn run_failing(
        &self,
        epochs: &[Epoch],
        workers: usize,
        turns: &[Turn],
        failing: usize,
    ) -> Outcome {
        // With an even number of workers nothing stays in memory that can be read back.
        let memory = if workers.is_multiple_of(2) {
            0
        } else {
            1 << 30
        };
        let mut cluster = Cluster::new(self, workers, Memory::new(failing, memory));
        let mut turns = turns.iter();
        let calm = Turn::of(&[]);
        loop {
            let turn = turns.next().unwrap_or(&calm);
            let result = match epochs.get(cluster.epoch) {
                Some(epoch) => cluster.turn(epoch, turn),
                None => cluster.end(),
            };
            match result {
                Ok(()) if cluster.epoch > epochs.len() => break,
                Ok(()) => {}
                Err(e) => {
                    assert!(e.to_string().contains("injected"), "{e}");
                    let again = cluster.crash(workers);
                    again.expect("only one operation fails");
                }
            }
        }
        let state = lock(&cluster.store);
        let left = (state.keys.len(), state.segments.len());
        Outcome {
            given: std::mem::take(&mut cluster.given),
            left,
            largest: state.segments.values().map(Vec::len).max().unwrap_or(0),
            operations: state.operations,
            failed: state.operations > failing,
        }
    }
}

impl<'a> Cluster<'a> {
    fn new(subject: &'a Subject<'a>, workers: usize, store: Shared) -> Self {
        let mut cluster = Self {
            subject,
            steps: Vec::new(),
            encoder: None,
            store,
            in_flight: None,
            decided: Place {
                epoch: 0,
                given: 0,
                watermark: NO_TIME,
                number: 0,
            },
            given: Vec::new(),
            epoch: 0,
            watermark: NO_TIME,
        };
        cluster.crash(workers).expect("a first start reads nothing");
        cluster
    }

    /// One epoch of the script and what follows it.
    fn turn(&mut self, epoch: &Epoch, turn: &Turn) -> Result<(), StepError> {
        let rows: Vec<Vec<Batch>> = self.route(&epoch.rows, turn.cut);
        self.run_epoch(rows, epoch.watermark)?;
        self.epoch += 1;
        for then in &turn.then {
            match then {
                Then::Freeze => self.freeze()?,
                Then::Decide => self.decide()?,
                Then::Crash(workers) => self.crash(*workers)?,
            }
        }
        Ok(())
    }

    /// What changed in the last epochs, and what that made superfluous, comes into the state.
    fn end(&mut self) -> Result<(), StepError> {
        for _ in 0..3 {
            self.decide()?;
            self.freeze()?;
        }
        self.decide()?;
        self.epoch += 1;
        Ok(())
    }

    /// By worker: its rows, input by input, in batches of `cut`.
    fn route(&mut self, rows: &[In], cut: usize) -> Vec<Vec<Batch>> {
        let mut routed = Vec::new();
        for input in 0..2 {
            let mine: Vec<In> = rows.iter().filter(|r| r.input == input).cloned().collect();
            for piece in mine.chunks(cut) {
                routed.push((input, (self.subject.batch)(piece)));
            }
        }
        let mut all: Vec<Vec<Batch>> = Vec::new();
        all.resize_with(self.steps.len() * 2, Vec::new);
        for (input, batch) in routed {
            let columns: Vec<_> = (self.subject.key.iter())
                .map(|&i| batch.columns.column(i).clone())
                .collect();
            let types: Vec<_> = columns.iter().map(|c| c.data_type().clone()).collect();
            let encoder = self
                .encoder
                .get_or_insert_with(|| KeyEncoder::new(&types).expect("keys"));
            let keys = encoder.encode(&columns, batch.rows());
            let groups = self.subject.key_groups;
            for worker in 0..self.steps.len() {
                let mine = |&row: &u32| {
                    let group = key_group(keys.hash(row as usize), groups);
                    owner(group, groups, self.steps.len()) == worker
                };
                let mine: Vec<u32> = (0..batch.rows() as u32).filter(mine).collect();
                all[worker * 2 + input].push(batch.take(&mine));
            }
        }
        all
    }

    fn run_epoch(&mut self, rows: Vec<Vec<Batch>>, watermark: Micros) -> Result<(), StepError> {
        let before = self.output_watermark();
        let mut out: Vec<Output> = Vec::new();
        for (worker, step) in self.steps.iter_mut().enumerate() {
            let mut mine = Output::new(self.subject.ports);
            for (input, batches) in rows
                .get(worker * 2..)
                .into_iter()
                .flatten()
                .take(2)
                .enumerate()
            {
                for batch in batches {
                    step.process(input, batch.clone(), &mut mine)?;
                }
            }
            let now = 0;
            step.tick(Tick { watermark, now }, &mut mine)?;
            out.push(mine);
        }
        self.watermark = watermark;
        for mine in out {
            self.take(mine, before);
        }
        Ok(())
    }

    fn take(&mut self, out: Output, before: Micros) {
        for (port, batches) in out.ports.iter().enumerate() {
            for batch in batches {
                for row in given(port, batch) {
                    assert!(
                        port > 0 || row.time >= before,
                        "{row:?} is below the output watermark {before}"
                    );
                    self.given.push((self.epoch, row));
                }
            }
        }
        for refused in out.refused {
            let row = refused.row.map(|r| given(REFUSED, &r));
            let cells = row.map_or_else(String::new, |r| r[0].cells.clone());
            let key = refused.key.map(|k| k.to_string()).unwrap_or_default();
            let row = Given {
                port: REFUSED,
                time: 0,
                cells: cells + &key,
            };
            self.given.push((self.epoch, row));
        }
    }

    /// As the coordinator works it out for the steps behind.
    fn output_watermark(&self) -> Micros {
        let done = self.steps.iter().filter_map(|s| s.done()).min();
        match done.unwrap_or(self.watermark) {
            meaning @ (NO_TIME | END_OF_TIME) => meaning,
            given => given.saturating_sub(self.subject.holds_back),
        }
    }

    fn is_closing(&self) -> bool {
        let mut done = self.steps.iter().filter_map(|s| s.done());
        done.any(|done| done < self.watermark)
    }

    fn freeze(&mut self) -> Result<(), StepError> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        while self.is_closing() {
            self.epoch -= 1;
            self.run_epoch(Vec::new(), self.watermark)?;
            self.epoch += 1;
        }
        let number = self.decided.number + 1;
        let deltas = self.steps.iter_mut().map(|s| s.freeze(number));
        self.in_flight = Some(Frozen {
            deltas: deltas.collect::<Result<_, _>>()?,
            at: Place {
                epoch: self.epoch,
                given: self.given.len(),
                watermark: self.watermark,
                number,
            },
        });
        Ok(())
    }

    fn decide(&mut self) -> Result<(), StepError> {
        let Some(Frozen { deltas, at }) = self.in_flight.take() else {
            return Ok(());
        };
        commit(&self.store, at.number, &deltas, at.watermark)
            .map_err(|e| StepError::Failed(e.0))?;
        self.decided = at;
        Ok(())
    }

    /// Back to the last decided checkpoint.
    fn crash(&mut self, workers: usize) -> Result<(), StepError> {
        self.in_flight = None;
        self.epoch = self.decided.epoch;
        self.watermark = self.decided.watermark;
        self.given.truncate(self.decided.given);
        self.steps = (0..workers).map(|_| (self.subject.make)()).collect();
        let restore = |this: &mut Self| {
            for (worker, step) in this.steps.iter_mut().enumerate() {
                step.restore(&mut Stored {
                    store: this.store.clone(),
                    worker,
                    workers,
                    key_groups: this.subject.key_groups,
                })?;
            }
            Ok(())
        };
        match restore(self) {
            // A start that fails is tried again, as the supervisor does.
            Err(StepError::Failed(why)) if why.contains("injected") => self.crash(workers),
            result => result,
        }
    }
}
