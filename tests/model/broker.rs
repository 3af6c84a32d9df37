//! Kafka as transaction protocol v1 has it: what a host that speaks it can rely on, and what not.
//!
//! A request says which producer epoch it is of, but not which transaction: one that was delayed meets whatever transaction
//! its epoch has open by then. Not modelled: partitions, which all behave as one, and a broker's loss of what it
//! acknowledged. Invariant: a request in the network is of its transactional id's newest epoch; those of older ones would
//! be rejected, so they are dropped when the epoch grows.

/// Records that the input has.
pub const RECORDS: usize = 3;
/// A state, and one made after it by `reset` or `restore`.
pub const STATES: usize = 2;
/// Transactional ids that the pipeline ever had.
pub const IDS: usize = 2;

/// A checkpoint: its number, and the input before which it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Point {
    pub number: u8,
    pub position: u8,
}

/// A record of the decision topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    pub state: u8,
    pub point: Point,
}

/// How often the output of each record was written, on behalf of each state.
pub type Outputs = [[u8; RECORDS]; STATES];

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Transaction {
    pub outputs: Outputs,
    pub decision: Option<Decision>,
    /// The group's position.
    pub offsets: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Broker {
    /// By id: which machine made the newest producer epoch.
    pub owner: [Option<u8>; IDS],
    pub open: [Option<Transaction>; IDS],
    /// Committed, but not all partitions have their marker.
    pub completing: [Option<Transaction>; IDS],
    /// What a reader with `read_committed` sees.
    pub visible: Outputs,
    /// The decision topic's last record, and what was decided last of each state.
    pub last: Option<Decision>,
    pub decided: [Option<Point>; STATES],
    pub group: Option<u8>,
    /// EndTxn requests under way, to commit.
    pub ends: [u8; IDS],
    /// TxnOffsetCommit requests under way, by position.
    pub commits: [[u8; RECORDS + 1]; IDS],
}

/// The partitions that take a marker each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    Output,
    Decision,
    Offsets,
}

pub const MARKERS: [Marker; 3] = [Marker::Output, Marker::Decision, Marker::Offsets];

impl Broker {
    /// `init_transactions`: a new epoch for `machine`, the open transaction aborted. To be called when nothing is
    /// completing: until then Kafka answers that it has to be tried again.
    pub fn init(&mut self, id: usize, machine: u8) {
        self.bump(id, Some(machine));
    }

    /// The transaction has been open for too long.
    pub fn time_out(&mut self, id: usize) {
        self.bump(id, None);
    }

    fn bump(&mut self, id: usize, owner: Option<u8>) {
        self.owner[id] = owner;
        self.open[id] = None;
        self.ends[id] = 0;
        self.commits[id] = [0; RECORDS + 1];
    }

    /// The open transaction of an id; begun if there is none. While the one before is completing nothing can be added.
    pub fn transaction(&mut self, id: usize) -> Option<&mut Transaction> {
        match self.completing[id] {
            Some(_) => None,
            None => Some(self.open[id].get_or_insert_default()),
        }
    }

    /// An EndTxn arrives. Without an open transaction it changes nothing.
    pub fn end(&mut self, id: usize) {
        self.ends[id] -= 1;
        if self.completing[id].is_none() {
            let open = self.open[id].take();
            self.completing[id] = open.filter(|t| *t != Transaction::default());
        }
    }

    /// A TxnOffsetCommit arrives.
    pub fn commit_offsets(&mut self, id: usize, position: u8) {
        self.commits[id][position as usize] -= 1;
        if let Some(open) = &mut self.open[id] {
            open.offsets = Some(position);
        }
    }

    /// One partition of a committed transaction takes its marker; false if it has it already.
    pub fn mark(&mut self, id: usize, marker: Marker) -> bool {
        let Some(transaction) = &mut self.completing[id] else {
            return false;
        };
        let marked = match marker {
            Marker::Output => {
                let outputs = std::mem::take(&mut transaction.outputs);
                add(&mut self.visible, &outputs);
                outputs != Outputs::default()
            }
            Marker::Decision => {
                let decision = transaction.decision.take();
                decision.inspect(|&d| decide(&mut self.last, &mut self.decided, d));
                decision.is_some()
            }
            Marker::Offsets => {
                let offsets = transaction.offsets.take();
                self.group = offsets.or(self.group);
                offsets.is_some()
            }
        };
        if *transaction == Transaction::default() {
            self.completing[id] = None;
        }
        marked
    }

    /// A decision that no transaction holds back.
    pub fn decide_at_once(&mut self, decision: Decision) {
        decide(&mut self.last, &mut self.decided, decision);
    }

    /// Nothing is open, completing or under way.
    pub fn is_at_rest(&self) -> bool {
        self.is_settled() && self.open.iter().all(Option::is_none)
    }

    /// What is visible now is what whole transactions made visible.
    pub fn is_settled(&self) -> bool {
        self.completing.iter().all(Option::is_none)
    }
}

fn decide(last: &mut Option<Decision>, decided: &mut [Option<Point>; STATES], decision: Decision) {
    *last = Some(decision);
    decided[decision.state as usize] = Some(decision.point);
}

fn add(to: &mut Outputs, more: &Outputs) {
    for (to, more) in to.iter_mut().flatten().zip(more.iter().flatten()) {
        *to += more;
    }
}
