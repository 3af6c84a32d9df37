//! One broker, up to two machines, and everything that can happen to them; what must hold whatever happens.

use std::fmt;

use super::broker::{Broker, IDS, MARKERS, Marker, RECORDS, STATES};
use super::explore::Model;
use super::machine::{Disk, Machine, Process, Rules, Stage, Unexplained};
use super::steps::Step;

/// How much of each may happen, which bounds the exploration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// The last checkpoint, checkpoint 0 not counted.
    pub checkpoints: u8,
    pub crashes: u8,
    /// Requests sent again, and answers that the host does not wait for any longer.
    pub delays: u8,
    /// Transactions that the broker ends because they take too long.
    pub timeouts: u8,
    /// `reset` between two starts.
    pub resets: u8,
    /// `restore` of a snapshot on another machine, whatever the first one does meanwhile.
    pub restores: u8,
    /// Another transactional id between two starts.
    pub renames: u8,
}

pub struct Protocol {
    pub rules: Rules,
    pub bounds: Bounds,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub broker: Broker,
    pub machines: [Option<Machine>; 2],
    /// Where the output of each state begins.
    pub origins: [u8; STATES],
    pub left: Bounds,
}

#[derive(Clone, Copy)]
pub enum Event {
    Machine(u8, Step),
    EndArrives(usize),
    OffsetsArrive(usize, u8),
    Marked(usize, Marker),
    TimedOut(usize),
    Reset,
    Restored,
    Renamed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A record's output is visible twice.
    Doubled,
    /// Output is visible that no decision covers.
    Torn,
    /// A decision covers output that is not visible.
    Lost,
    /// A host runs from another checkpoint than the decided one.
    StateDiffers,
    /// The consumer group's position is not the decided one.
    GroupDiffers,
    /// A host stopped, though nobody has interfered.
    Stopped(Unexplained),
}

impl Model for Protocol {
    type State = World;
    type Event = Event;
    type Violation = Violation;

    fn first(&self) -> World {
        let machine = Machine {
            disk: Disk::new(0, 0, 0),
            process: Process::Down,
        };
        World {
            broker: Broker::default(),
            machines: [Some(machine), None],
            origins: [0; STATES],
            left: self.bounds,
        }
    }

    fn next(&self, world: &World, each: &mut dyn FnMut(Event, World)) {
        self.network(world, each);
        self.operator(world, each);
        for number in 0..2u8 {
            if world.machines[number as usize].is_some() {
                self.machine(world, number, each);
            }
        }
    }

    fn violation(&self, world: &World) -> Option<Violation> {
        if world.broker.visible.iter().flatten().any(|&n| n > 1) {
            return Some(Violation::Doubled);
        }
        let visible = world.broker.is_settled().then(|| visible_as_decided(world));
        let machines = world.machines.iter().flatten();
        visible
            .flatten()
            .or_else(|| machines.filter_map(|m| agrees(world, m)).next())
    }

    fn is_done(&self, world: &World) -> bool {
        world.machines.iter().flatten().any(|m| match &m.process {
            Process::Running(run) => {
                let all = run.latest.position as usize == RECORDS;
                run.stage == Stage::Filling && (all || run.latest.number == self.bounds.checkpoints)
            }
            _ => false,
        })
    }
}

/// Output is visible exactly up to the decision, for each state.
fn visible_as_decided(world: &World) -> Option<Violation> {
    for state in 0..STATES {
        let from = world.origins[state];
        let to = world.broker.decided[state].map_or(from, |point| point.position);
        for record in 0..RECORDS as u8 {
            let visible = world.broker.visible[state][record as usize] > 0;
            match (visible, (from..to).contains(&record)) {
                (true, false) => return Some(Violation::Torn),
                (false, true) => return Some(Violation::Lost),
                _ => {}
            }
        }
    }
    None
}

/// A host between two checkpoints, with nothing under way, has the decided state, and so has the group.
fn agrees(world: &World, machine: &Machine) -> Option<Violation> {
    let broker = &world.broker;
    match &machine.process {
        Process::Stopped(Unexplained::Foreign) => {
            let newer = broker.last.is_some_and(|d| d.state > machine.disk.state);
            (!newer).then_some(Violation::Stopped(Unexplained::Foreign))
        }
        Process::Stopped(why) => Some(Violation::Stopped(*why)),
        Process::Running(run)
            if run.stage == Stage::Filling
                && run.next == run.latest.position
                && broker.is_at_rest() =>
        {
            let decided = broker.decided[machine.disk.state as usize];
            let number = decided.map_or(0, |point| point.number);
            let same = decided.is_none_or(|point| point == run.latest);
            if number != run.latest.number || !same {
                return Some(Violation::StateDiffers);
            }
            let last_is_mine = broker.last.is_some_and(|d| d.state == machine.disk.state);
            let differs = last_is_mine && broker.group != Some(run.latest.position);
            differs.then_some(Violation::GroupDiffers)
        }
        _ => None,
    }
}

impl Protocol {
    /// What the broker and the network do on their own.
    fn network(&self, world: &World, each: &mut dyn FnMut(Event, World)) {
        for id in 0..IDS {
            if world.broker.ends[id] > 0 {
                let mut next = world.clone();
                next.broker.end(id);
                each(Event::EndArrives(id), next);
            }
            for position in 0..=RECORDS as u8 {
                if world.broker.commits[id][position as usize] > 0 {
                    let mut next = world.clone();
                    next.broker.commit_offsets(id, position);
                    each(Event::OffsetsArrive(id, position), next);
                }
            }
            for marker in MARKERS {
                let mut next = world.clone();
                if next.broker.mark(id, marker) {
                    each(Event::Marked(id, marker), next);
                }
            }
            if world.left.timeouts > 0 && world.broker.open[id].is_some() {
                let mut next = world.clone();
                next.left.timeouts -= 1;
                next.broker.time_out(id);
                each(Event::TimedOut(id), next);
            }
        }
    }

    /// What people do.
    fn operator(&self, world: &World, each: &mut dyn FnMut(Event, World)) {
        let Some(first) = &world.machines[0] else {
            return;
        };
        let is_down = first.process == Process::Down;
        if world.left.resets > 0 && is_down && first.disk.state == 0 {
            let mut next = world.clone();
            next.left.resets -= 1;
            // Of the old state only the ids are needed: what it left open has to be fenced.
            let mut disk = Disk::new(1, 0, first.disk.id);
            disk.ids = first.disk.ids;
            next.machines[0] = Some(Machine {
                disk,
                process: Process::Down,
            });
            each(Event::Reset, next);
        }
        if world.left.restores > 0 && world.machines[1].is_none() {
            let mut next = world.clone();
            next.left.restores -= 1;
            let snapshot = match &first.process {
                Process::Running(run) => run.latest,
                _ => first.disk.decided,
            };
            let mut disk = Disk::new(1, snapshot.position, first.disk.id);
            disk.ids = first.disk.ids;
            next.origins[1] = snapshot.position;
            next.machines[1] = Some(Machine {
                disk,
                process: Process::Down,
            });
            each(Event::Restored, next);
        }
        if world.left.renames > 0 && is_down {
            let mut next = world.clone();
            next.left.renames -= 1;
            if let Some(machine) = &mut next.machines[0] {
                machine.disk.id = (machine.disk.id + 1) % IDS;
            }
            each(Event::Renamed, next);
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(0, step) => write!(f, "{step}"),
            Self::Machine(_, step) => write!(f, "the new host {step}"),
            Self::EndArrives(id) => write!(f, "EndTxn of id {id} arrives"),
            Self::OffsetsArrive(id, position) => {
                write!(f, "offsets {position} of id {id} arrive")
            }
            Self::Marked(id, marker) => write!(f, "{marker:?} of id {id} visible"),
            Self::TimedOut(id) => write!(f, "the transaction of id {id} times out"),
            Self::Reset => f.write_str("reset"),
            Self::Restored => f.write_str("restored elsewhere"),
            Self::Renamed => f.write_str("the id changes"),
        }
    }
}
