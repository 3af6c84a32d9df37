//! A host on a machine: its state directory, its process, and each step of start, checkpoint and decision.
//!
//! A step is done whole or not at all; between any two the process can be killed. Invariant with all [`Rules`]: the
//! directory can present the checkpoint before the last one prepared until the last one is known to be decided.

use super::broker::{Broker, Decision, IDS, Point, RECORDS, STATES};

/// Records of one checkpoint.
pub const CUT_MAX: u8 = 2;

/// What makes the protocol exact. Each can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After any doubt about a request the producer is thrown away and the host goes through its start.
    pub recycle_after_doubt: bool,
    /// The predecessor is fenced before its decision is read.
    pub fence_before_read: bool,
    /// All transactional ids that the state ever used are fenced, not the current one alone.
    pub fence_every_id: bool,
    /// A prepared checkpoint that was not decided is dropped.
    pub drop_undecided: bool,
    /// N + 1 is not prepared before N is known to be decided.
    pub decided_before_next: bool,
    /// The decision is part of the transaction that it decides.
    pub decision_in_transaction: bool,
    /// The transaction is committed only when the log is durable.
    pub log_before_commit: bool,
    /// Nor before the broker has taken the offsets.
    pub offsets_before_commit: bool,
    /// A state that supersedes another takes the other's decision as the past.
    pub supersede: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        recycle_after_doubt: true,
        fence_before_read: true,
        fence_every_id: true,
        drop_undecided: true,
        decided_before_next: true,
        decision_in_transaction: true,
        log_before_commit: true,
        offsets_before_commit: true,
        supersede: true,
    };
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    pub disk: Disk,
    pub process: Process,
}

/// What is durable in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Which state it is; state 1 supersedes state 0.
    pub state: u8,
    /// The last checkpoint marked as decided.
    pub decided: Point,
    pub prepared: Option<Point>,
    /// The transactional id in use, and all that ever were.
    pub id: usize,
    pub ids: [bool; IDS],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Process {
    Down,
    /// The state is open; some ids are fenced, and perhaps the decision is read.
    Starting {
        fenced: [bool; IDS],
        read: Option<Option<Decision>>,
    },
    Running(Run),
    /// Exit code 3: a newer host took over.
    Fenced,
    /// Stopped with an explanation.
    Stopped(Unexplained),
}

/// Why a host does not resolve what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unexplained {
    /// Of a state that this one does not know.
    Foreign,
    /// Kafka decided what the disk does not have.
    Ahead,
    /// The disk has decided what Kafka does not know.
    Behind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    /// The last decided checkpoint, as far as the host knows.
    pub latest: Point,
    /// The input that is read next.
    pub next: u8,
    pub stage: Stage,
    /// A request was sent again, or its answer was late.
    pub doubt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Output goes into the transaction.
    Filling,
    /// What belongs to the checkpoint is on its way, in any order.
    Preparing {
        decision: bool,
        offsets: bool,
        logged: bool,
    },
    /// EndTxn was sent.
    Deciding { logged: bool },
}

impl Disk {
    pub fn new(state: u8, position: u8, id: usize) -> Self {
        let mut ids = [false; IDS];
        ids[id] = true;
        Self {
            state,
            decided: Point {
                number: 0,
                position,
            },
            prepared: None,
            id,
            ids,
        }
    }

    /// Opening counts the incarnation and notes the id, durably, before either is used.
    pub fn open(&mut self) {
        self.ids[self.id] = true;
    }

    pub fn must_fence(&self, rules: &Rules) -> [bool; IDS] {
        if rules.fence_every_id {
            return self.ids;
        }
        let mut current = [false; IDS];
        current[self.id] = true;
        current
    }

    /// Which checkpoint the state goes on from, given what Kafka decided.
    pub fn resolve(
        &mut self,
        decision: Option<Decision>,
        rules: &Rules,
    ) -> Result<Point, Unexplained> {
        let of_mine = match decision {
            None => 0,
            Some(decision) if decision.state == self.state => decision.point.number,
            Some(decision) if decision.state < self.state && rules.supersede => 0,
            Some(_) => return Err(Unexplained::Foreign),
        };
        match self.prepared.take() {
            Some(prepared) if prepared.number == of_mine => self.decided = prepared,
            Some(prepared) if self.decided.number == of_mine && !rules.drop_undecided => {
                self.decided = prepared;
            }
            _ if self.decided.number == of_mine => {}
            _ if self.decided.number < of_mine => return Err(Unexplained::Ahead),
            _ => return Err(Unexplained::Behind),
        }
        Ok(self.decided)
    }

    /// One transaction of the log: the checkpoint, and that the one before it is decided.
    pub fn prepare(&mut self, before: Point, next: Point) {
        self.decided = before;
        self.prepared = Some(next);
    }
}

impl Run {
    pub fn from(latest: Point) -> Self {
        Self {
            latest,
            next: latest.position,
            stage: Stage::Filling,
            doubt: false,
        }
    }

    /// The checkpoint under way.
    pub fn point(&self) -> Point {
        Point {
            number: self.latest.number + 1,
            position: self.next,
        }
    }

    pub fn may_take(&self) -> bool {
        self.stage == Stage::Filling
            && (self.next as usize) < RECORDS
            && self.next - self.latest.position < CUT_MAX
    }

    /// Whether all is done that has to come before EndTxn.
    pub fn may_commit(&self, broker: &Broker, id: usize, rules: &Rules) -> bool {
        let Stage::Preparing {
            decision,
            offsets,
            logged,
        } = self.stage
        else {
            return false;
        };
        let taken = broker.open[id].as_ref().and_then(|t| t.offsets) == Some(self.next);
        decision
            && offsets
            && (taken || !rules.offsets_before_commit)
            && (logged || !rules.log_before_commit)
    }

    /// Writes one record's output.
    pub fn produce(&mut self, broker: &mut Broker, disk: &Disk) -> bool {
        let Some(transaction) = broker.transaction(disk.id) else {
            return false;
        };
        transaction.outputs[disk.state as usize][self.next as usize] += 1;
        self.next += 1;
        true
    }
}

const _: () = assert!(STATES == 2, "state 1 supersedes state 0");
