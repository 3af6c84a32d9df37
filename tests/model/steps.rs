//! What a machine can do next: its start, an epoch, and a checkpoint on its way to the decision.
//!
//! Knows what the rules leave open, and lets each order of it happen.

use std::fmt;

use super::broker::{Decision, IDS, Point};
use super::machine::{Disk, Machine, Process, Run, Stage};
use super::world::{Event, Protocol, World};

#[derive(Clone, Copy)]
pub enum Step {
    Killed,
    Opened,
    Fenced(usize),
    Read,
    Resolved,
    TookRecord,
    Froze,
    SentDecision,
    SentOffsets,
    SentOffsetsAgain,
    WroteLog,
    SentEnd,
    SentEndAgain,
    GaveUpWaiting,
    PreparedNext,
    Decided,
    Recycled,
    ReplacedProducer,
    FoundItselfFenced,
}

/// Takes a step of a machine: its name, and what it does; false: it cannot be done now.
type MachineSteps<'a> = dyn FnMut(Step, &mut dyn FnMut(&mut World, &mut Machine) -> bool) + 'a;
/// The same, of a host that runs.
type RunSteps<'a> = dyn FnMut(Step, &mut dyn FnMut(&mut World, &mut Disk, &mut Run) -> bool) + 'a;

impl Protocol {
    pub fn machine(&self, world: &World, number: u8, each: &mut dyn FnMut(Event, World)) {
        let Some(machine) = &world.machines[number as usize] else {
            return;
        };
        let mut step = |step: Step, change: &mut dyn FnMut(&mut World, &mut Machine) -> bool| {
            let mut next = world.clone();
            let mut changed = machine.clone();
            if change(&mut next, &mut changed) {
                next.machines[number as usize] = Some(changed);
                each(Event::Machine(number, step), next);
            }
        };
        let alive = matches!(
            machine.process,
            Process::Starting { .. } | Process::Running(_)
        );
        if alive && world.left.crashes > 0 {
            step(Step::Killed, &mut |world, machine| {
                world.left.crashes -= 1;
                machine.process = Process::Down;
                true
            });
        }
        match &machine.process {
            Process::Down | Process::Fenced if self.may_start(world, number) => {
                step(Step::Opened, &mut |_, machine| {
                    machine.disk.open();
                    machine.process = starting();
                    true
                });
            }
            Process::Starting { fenced, read } => {
                self.start(world, number, &machine.disk, *fenced, *read, &mut step);
            }
            Process::Running(run) => {
                if world.broker.owner[machine.disk.id] == Some(number) {
                    self.run(world, &machine.disk, run, &mut step);
                } else {
                    step(Step::FoundItselfFenced, &mut |_, machine| {
                        machine.process = Process::Fenced;
                        true
                    });
                }
            }
            _ => {}
        }
    }

    /// A host that was fenced is started again only by somebody who knows that no newer one is alive.
    fn may_start(&self, world: &World, number: u8) -> bool {
        let alive =
            |m: &Machine| matches!(m.process, Process::Starting { .. } | Process::Running(_));
        let fenced = |m: &Machine| m.process == Process::Fenced;
        let own = world.machines[number as usize].as_ref();
        let other = world.machines[1 - number as usize].as_ref();
        !(own.is_some_and(fenced) && other.is_some_and(alive))
    }

    fn start(
        &self,
        world: &World,
        number: u8,
        disk: &Disk,
        fenced: [bool; IDS],
        read: Option<Option<Decision>>,
        step: &mut MachineSteps<'_>,
    ) {
        let must = disk.must_fence(&self.rules);
        let all_fenced = must == fenced;
        for id in (0..IDS).filter(|&id| must[id] && !fenced[id]) {
            // `init_transactions` is answered only when no commit is half done.
            let in_turn = self.rules.fence_before_read || read.is_some();
            if in_turn && world.broker.completing[id].is_none() {
                step(Step::Fenced(id), &mut |world, machine| {
                    world.broker.init(id, number);
                    let mut fenced = fenced;
                    fenced[id] = true;
                    machine.process = Process::Starting { fenced, read };
                    true
                });
            }
        }
        if read.is_none() && (all_fenced || !self.rules.fence_before_read) {
            step(Step::Read, &mut |world, machine| {
                let read = Some(world.broker.last);
                machine.process = Process::Starting { fenced, read };
                true
            });
        }
        if let (Some(read), true) = (read, all_fenced) {
            step(Step::Resolved, &mut |_, machine| {
                machine.process = match machine.disk.resolve(read, &self.rules) {
                    Ok(point) => Process::Running(Run::from(point)),
                    Err(why) => Process::Stopped(why),
                };
                true
            });
        }
    }

    fn run(&self, world: &World, disk: &Disk, run: &Run, step: &mut MachineSteps<'_>) {
        let mut go =
            |name: Step, change: &mut dyn FnMut(&mut World, &mut Disk, &mut Run) -> bool| {
                step(name, &mut |world, machine| {
                    let mut run = run.clone();
                    let done = change(world, &mut machine.disk, &mut run);
                    machine.process = Process::Running(run);
                    done
                });
            };
        match run.stage {
            Stage::Filling => self.fill(run, &mut go),
            Stage::Preparing {
                decision,
                offsets,
                logged,
            } => self.prepare(world, disk, run, (decision, offsets, logged), &mut go),
            Stage::Deciding { logged } => {
                self.decide(world, disk, run, logged, &mut go);
                let doubtful = world.left.delays > 0 && self.rules.recycle_after_doubt;
                let ended = world.broker.open[disk.id].is_none();
                let recycle = [
                    (doubtful, Step::GaveUpWaiting),
                    (
                        ended && run.doubt && self.rules.recycle_after_doubt,
                        Step::Recycled,
                    ),
                ];
                for (may, name) in recycle {
                    if may {
                        step(name, &mut |world, machine| {
                            world.left.delays -= u8::from(matches!(name, Step::GaveUpWaiting));
                            machine.process = starting();
                            true
                        });
                    }
                }
            }
        }
    }

    fn fill(&self, run: &Run, go: &mut RunSteps<'_>) {
        if run.latest.number == self.bounds.checkpoints {
            return;
        }
        if run.may_take() {
            go(Step::TookRecord, &mut |world, disk, run| {
                run.produce(&mut world.broker, disk)
            });
        }
        // Without a record: a heartbeat.
        go(Step::Froze, &mut |_, _, run| {
            run.stage = Stage::Preparing {
                decision: false,
                offsets: false,
                logged: false,
            };
            true
        });
    }

    fn prepare(
        &self,
        world: &World,
        disk: &Disk,
        run: &Run,
        (decision, offsets, logged): (bool, bool, bool),
        go: &mut RunSteps<'_>,
    ) {
        let preparing = |decision, offsets, logged| Stage::Preparing {
            decision,
            offsets,
            logged,
        };
        if !decision {
            go(Step::SentDecision, &mut |world, disk, run| {
                let record = Decision {
                    state: disk.state,
                    point: run.point(),
                };
                run.stage = preparing(true, offsets, logged);
                if !self.rules.decision_in_transaction {
                    world.broker.decide_at_once(record);
                    return true;
                }
                let transaction = world.broker.transaction(disk.id);
                transaction.map(|t| t.decision = Some(record)).is_some()
            });
        }
        if decision && !offsets {
            go(Step::SentOffsets, &mut |world, disk, run| {
                world.broker.commits[disk.id][run.next as usize] += 1;
                run.stage = preparing(decision, true, logged);
                // A transaction begins with the first request that adds to it.
                world.broker.transaction(disk.id).is_some()
            });
        }
        if offsets && world.left.delays > 0 {
            go(Step::SentOffsetsAgain, &mut |world, disk, run| {
                world.left.delays -= 1;
                world.broker.commits[disk.id][run.next as usize] += 1;
                run.doubt = true;
                true
            });
        }
        if !logged {
            go(Step::WroteLog, &mut |_, disk, run| {
                disk.prepare(run.latest, run.point());
                run.stage = preparing(decision, offsets, true);
                true
            });
        }
        if run.may_commit(&world.broker, disk.id, &self.rules) {
            go(Step::SentEnd, &mut |world, disk, run| {
                world.broker.ends[disk.id] += 1;
                run.stage = Stage::Deciding { logged };
                true
            });
        }
    }

    fn decide(&self, world: &World, disk: &Disk, run: &Run, logged: bool, go: &mut RunSteps<'_>) {
        let ended = world.broker.open[disk.id].is_none();
        if world.left.delays > 0 {
            go(Step::SentEndAgain, &mut |world, disk, run| {
                world.left.delays -= 1;
                world.broker.ends[disk.id] += 1;
                run.doubt = true;
                true
            });
        }
        if !logged {
            go(Step::WroteLog, &mut |_, disk, run| {
                disk.prepare(run.latest, run.point());
                run.stage = Stage::Deciding { logged: true };
                true
            });
        }
        if !ended && !self.rules.decided_before_next {
            go(Step::PreparedNext, &mut |_, disk, run| {
                let next = Point {
                    number: run.latest.number + 2,
                    position: run.next,
                };
                let is_news = disk.prepared != Some(next);
                disk.prepare(run.point(), next);
                is_news
            });
        }
        let settled = world.broker.completing[disk.id].is_none();
        if ended && settled && logged && run.doubt && self.rules.recycle_after_doubt {
            go(Step::ReplacedProducer, &mut |world, disk, run| {
                let Some(machine) = world.broker.owner[disk.id] else {
                    return false;
                };
                world.broker.init(disk.id, machine);
                *run = Run::from(run.point());
                true
            });
        }
        if ended && logged && !(run.doubt && self.rules.recycle_after_doubt) {
            go(Step::Decided, &mut |_, _, run| {
                *run = Run::from(run.point());
                true
            });
        }
    }
}

fn starting() -> Process {
    Process::Starting {
        fenced: [false; IDS],
        read: None,
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::Opened => "opens its state",
            Self::Fenced(id) => return write!(f, "fences id {id}"),
            Self::Read => "reads the decision",
            Self::Resolved => "resolves",
            Self::TookRecord => "writes a record's output",
            Self::Froze => "freezes",
            Self::SentDecision => "sends the decision",
            Self::SentOffsets => "sends offsets",
            Self::SentOffsetsAgain => "sends offsets again",
            Self::WroteLog => "writes the log",
            Self::SentEnd => "sends EndTxn",
            Self::SentEndAgain => "sends EndTxn again",
            Self::GaveUpWaiting => "waits no longer",
            Self::PreparedNext => "prepares the next checkpoint",
            Self::Decided => "knows the decision",
            Self::Recycled => "starts anew after a doubt",
            Self::ReplacedProducer => "knows the decision and replaces its producer",
            Self::FoundItselfFenced => "finds itself fenced",
        })
    }
}
