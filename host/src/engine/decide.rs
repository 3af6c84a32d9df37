//! Which checkpoint is the true one where Kafka decides: at a start, and when one is made.
//!
//! A checkpoint is prepared on disk and in a transaction; the commit of the transaction makes both true. After a crash the
//! disk has checkpoint N, and whether N is true stands in Kafka alone. What the two say together has one explanation, or
//! the start is refused with both sides named: nothing is guessed.

use std::sync::Arc;

use crate::crash;
use crate::engine::meta::EngineMeta;
use crate::engine::open::read_meta;
use crate::error::RunError;
use crate::kafka::TransactionalProducer;
use crate::kafka::decision::Decision;
use crate::pipeline::plan::Plan;
use crate::state::peek::Peeked;
use crate::state::store::{Prepared, Restored, Store};
use crate::state::{parse_state_id, show_state_id};

/// Shuts out the predecessor, learns whether the last prepared checkpoint is true, and takes it back if not. `None` where
/// the state alone decides. `again`: this process has run the pipeline before, with this state.
///
/// # Errors
/// `Refused` if the state and the decision do not belong together; `Fenced` if that is because another host has gone on
/// meanwhile; connector errors; a stop while waiting for the broker.
pub fn open(
    plan: &Plan,
    store: &Store,
    again: bool,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Arc<TransactionalProducer>>, RunError> {
    let (transactional, undecided) = (plan.transactional(), store.undecided());
    let cluster = match (transactional, &undecided) {
        (None, None) => return Ok(None),
        (Some(cluster), _) => cluster,
        (None, Some(open)) => plan
            .kafka_output()
            .ok_or_else(|| RunError::Refused(nobody_to_ask(plan, open)))?,
    };
    crash::point("start-locked");
    let producer = TransactionalProducer::new(&plan.name, cluster, plan.host.transaction_timeout)?;
    let disk = Disk::of(store, undecided)?;
    let refuse = |decision: Option<&Decision>, why: String| match decision {
        // This process held the state all the time and knows of all that was decided with it.
        Some(other) if again && !disk.is_ahead_of(other) => producer.taken_over(other).into(),
        _ => refused(plan, &producer, &why),
    };
    // A topic that should be there and is not is no reason to make a new one: `verdict` tells.
    producer.ensure_topic(stop)?;
    // Whoever writes these decisions may be alive and right: it is not shut out by a stranger.
    if let Some(decision) = producer.visible_decision(stop)? {
        known(&disk, &decision).map_err(|why| refuse(Some(&decision), why))?;
    }
    producer.fence(stop)?;
    crash::point("start-fenced");
    let decision = producer.last_decision(stop)?;
    crash::point("start-decision-read");
    let verdict = verdict(&disk, decision.as_ref());
    match verdict.map_err(|why| refuse(decision.as_ref(), why))? {
        Verdict::Agree => {}
        Verdict::Keep(number) => {
            tracing::info!(
                checkpoint = number,
                "the state had prepared checkpoint {number}, and the decision in Kafka is {number}: kept"
            );
            store.resolve(true)?;
        }
        Verdict::TakeBack(number) => {
            let decided = decision.map_or("none".to_owned(), |d| d.checkpoint.to_string());
            tracing::info!(
                checkpoint = number - 1,
                "the state had prepared checkpoint {number}, and the decision in Kafka is {decided}: {number} is taken back \
                 and its input read again"
            );
            store.resolve(false)?;
        }
    }
    crash::point("start-resolved");
    Ok(transactional.map(|_| Arc::new(producer)))
}

/// Writes checkpoint N to disk and into the transaction, then commits that: N is true.
///
/// # Errors
/// After any error it is open whether N is true; [`open`] tells. `stop` ends the waiting with one.
pub fn commit(
    producer: &TransactionalProducer,
    store: &Store,
    prepared: Prepared,
    meta: &EngineMeta,
    stop: &dyn Fn() -> bool,
) -> Result<(), RunError> {
    let number = prepared.number;
    let decision = decision(store, number, meta);
    std::thread::scope(|threads| {
        let log = threads.spawn(|| {
            let written = store.prepare(prepared);
            crash::point("log-written");
            written
        });
        let sent = producer.prepare(&decision, stop);
        let written = log.join();
        written.map_err(|_| {
            RunError::Worker("writing the checkpoint panicked; its message is above".into())
        })??;
        sent.map_err(RunError::from)
    })?;
    crash::point("prepared");
    producer.commit(number, stop)?;
    store.decide();
    crash::point("decided");
    Ok(())
}

fn decision(store: &Store, number: u64, meta: &EngineMeta) -> Decision {
    let state = show_state_id(&store.state_id());
    let mut decision = Decision::new(state, number, store.incarnation());
    decision.positions = meta.positions_digest();
    let plugins = meta.steps.iter().filter_map(|(step, meta)| {
        let plugin = meta.plugin.as_ref()?;
        Some((step.clone(), plugin.digest.clone()))
    });
    decision.plugins = plugins.collect();
    decision
}

/// What a start would find if it were made now, in words; for who only looks. Nobody is shut out, so a transaction that is
/// open may still change it.
///
/// # Errors
/// Why a start would be refused.
pub fn look(state: &Peeked, decision: Option<&Decision>) -> Result<String, String> {
    let disk = Disk::peeked(state).map_err(|e| e.to_string())?;
    Ok(match verdict(&disk, decision)? {
        Verdict::Agree => match decision {
            Some(decision) => format!(
                "it agrees with the decision in Kafka, checkpoint {}",
                decision.checkpoint
            ),
            None => "nothing was decided in Kafka yet".to_owned(),
        },
        Verdict::Keep(number) => {
            format!("the decision in Kafka is checkpoint {number}: the next start keeps it")
        }
        Verdict::TakeBack(number) => format!(
            "checkpoint {number} was prepared and is not decided in Kafka: the next start takes it back and reads its input again"
        ),
    })
}

/// As [`look`], where there is no state yet: one that takes the place of the states `supersedes` would be made.
///
/// # Errors
/// Why a start would be refused.
pub fn look_anew(supersedes: &[[u8; 16]], decision: Option<&Decision>) -> Result<(), String> {
    let disk = Disk::new("none", supersedes, None, None).map_err(|e| e.to_string())?;
    verdict(&disk, decision).map(|_| ())
}

/// What the state directory says.
struct Disk {
    state: String,
    supersedes: Vec<String>,
    /// The last decided checkpoint.
    latest: Option<Point>,
    /// The one prepared after it.
    undecided: Option<Point>,
}

struct Point {
    number: u64,
    /// A transaction decided it, or is to.
    in_transaction: bool,
    /// Of the host that made it.
    incarnation: u64,
    positions: String,
}

impl Disk {
    fn of(store: &Store, undecided: Option<Restored>) -> Result<Self, RunError> {
        let (id, supersedes) = (store.state_id(), store.supersedes());
        Self::new(&show_state_id(&id), supersedes, store.latest(), undecided)
    }

    fn peeked(state: &Peeked) -> Result<Self, RunError> {
        let (latest, undecided) = (state.latest.clone(), state.undecided.clone());
        let id = show_state_id(&state.state_id);
        Self::new(&id, &state.supersedes, latest, undecided)
    }

    /// The last checkpoint that it knows, decided or not.
    fn last(&self) -> Option<&Point> {
        self.undecided.as_ref().or(self.latest.as_ref())
    }

    /// Whether it has gone further than `decision`, of this state: then Kafka has lost some.
    fn is_ahead_of(&self, decision: &Decision) -> bool {
        let last = self.last().map_or(0, |point| point.number);
        decision.state == self.state && decision.checkpoint < last
    }

    fn new(
        state: &str,
        supersedes: &[[u8; 16]],
        latest: Option<Restored>,
        undecided: Option<Restored>,
    ) -> Result<Self, RunError> {
        let point = |restored: Restored| -> Result<Point, RunError> {
            let (number, in_transaction) = (restored.number, restored.in_transaction);
            let meta = read_meta(restored.meta)?;
            Ok(Point {
                number,
                in_transaction,
                incarnation: meta.incarnation,
                positions: meta.positions_digest(),
            })
        };
        Ok(Self {
            state: state.to_owned(),
            supersedes: supersedes.iter().map(show_state_id).collect(),
            latest: latest.map(point).transpose()?,
            undecided: undecided.map(point).transpose()?,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing is open.
    Agree,
    /// The prepared checkpoint is true.
    Keep(u64),
    /// It is not, and never will be.
    TakeBack(u64),
}

/// Refuses decisions that another state has written.
fn lineage(disk: &Disk, decision: &Decision) -> Result<(), String> {
    if decision.state == disk.state || disk.supersedes.contains(&decision.state) {
        return Ok(());
    }
    let what = match parse_state_id(&decision.state) {
        Some(_) => &decision.state,
        None => "one that cannot be read",
    };
    Err(format!(
        "the last decision there, checkpoint {}, is of the state {what}; the state directory holds {}. Either another host \
         runs this pipeline with a state of its own (then stop here, or give this pipeline another name), or the state \
         directory was lost or exchanged. Bring the right one back (`tidemill restore PIPELINE DIR` from a snapshot); or begin \
         anew and accept that output since then is written again: `tidemill reset PIPELINE --abandon {}`",
        decision.checkpoint, disk.state, decision.state
    ))
}

/// Refuses decisions that this state cannot have written: of another one, or later than all it knows, or not the same as
/// the one of that number that it knows.
fn known(disk: &Disk, decision: &Decision) -> Result<(), String> {
    lineage(disk, decision)?;
    if decision.state != disk.state {
        return Ok(());
    }
    let last = disk.last();
    let number = last.map_or(0, |point| point.number);
    match last {
        _ if decision.checkpoint > number => Err(ahead(Some(decision.checkpoint), number)),
        Some(last) if last.in_transaction && decision.checkpoint == number => same(last, decision),
        _ => Ok(()),
    }
}

/// Refuses a decision that is of the number of `point` and not of the same checkpoint.
fn same(point: &Point, decision: &Decision) -> Result<(), String> {
    if (&decision.positions, decision.incarnation) == (&point.positions, point.incarnation) {
        return Ok(());
    }
    Err(format!(
        "both sides name checkpoint {}, but not the same one (on disk of incarnation {} with the input at {}, in Kafka of \
         incarnation {} at {}): this state directory is a copy that went another way. Use the one that wrote the last decision",
        point.number, point.incarnation, point.positions, decision.incarnation, decision.positions
    ))
}

/// What disk and decision say together.
fn verdict(disk: &Disk, decision: Option<&Decision>) -> Result<Verdict, String> {
    if let Some(decision) = decision {
        lineage(disk, decision)?;
    }
    // What a state wrote that this one takes the place of decides nothing here.
    let decision = decision.filter(|d| d.state == disk.state);
    let decided = decision.map(|d| d.checkpoint);
    let same = |point: &Point, verdict| match decision {
        Some(decision) => same(point, decision).map(|()| verdict),
        None => Ok(verdict),
    };
    let latest = disk.latest.as_ref();
    let last = latest.map_or(0, |l| l.number);
    if let Some(open) = &disk.undecided {
        if decided == Some(open.number) {
            return same(open, Verdict::Keep(open.number));
        }
        if decided.is_some_and(|d| d > open.number) {
            return Err(ahead(decided, open.number));
        }
        // The one before was decided in Kafka, too, unless the state decided it by itself.
        return match latest {
            Some(before) if before.in_transaction && decided != Some(before.number) => {
                Err(lost(decided, before.number))
            }
            Some(before) if before.in_transaction => same(before, Verdict::TakeBack(open.number)),
            _ => Ok(Verdict::TakeBack(open.number)),
        };
    }
    match decided {
        Some(d) if d > last => Err(ahead(decided, last)),
        Some(d) if d == last => match latest {
            Some(latest) if latest.in_transaction => same(latest, Verdict::Agree),
            _ => Ok(Verdict::Agree),
        },
        _ if latest.is_some_and(|l| l.in_transaction) => Err(lost(decided, last)),
        _ => Ok(Verdict::Agree),
    }
}

fn ahead(decided: Option<u64>, disk: u64) -> String {
    format!(
        "the last decision is checkpoint {}, but the state directory has none after {disk}: it is an older copy, or its disk lost \
         what it had acknowledged. Bring the newest one back; or go on from this one and accept that output since \
         checkpoint {disk} is written again: `tidemill snapshot PIPELINE DIR`, then `tidemill restore PIPELINE DIR --replace`",
        decided.unwrap_or_default()
    )
}

fn lost(decided: Option<u64>, disk: u64) -> String {
    let there = match decided {
        Some(decided) => format!("is checkpoint {decided}"),
        None => "is not there".to_owned(),
    };
    format!(
        "the state directory knows that checkpoint {disk} was decided, but the last decision in Kafka {there}: Kafka lost it \
         (topic deleted or cut off, unclean leader election), or these are other brokers. Output since then may be lost. \
         Look at the output topics; then go on from this state with a new record of decisions, after which nothing \
         tells of the loss any more: `tidemill snapshot PIPELINE DIR`, then `tidemill restore PIPELINE DIR --replace`"
    )
}

fn refused(plan: &Plan, producer: &TransactionalProducer, why: &str) -> RunError {
    RunError::Refused(format!(
        "pipeline {}: state {} and {} do not belong together: {why}",
        plan.name,
        plan.host.state.display(),
        producer.place()
    ))
}

fn nobody_to_ask(plan: &Plan, open: &Restored) -> String {
    format!(
        "pipeline {}: its state {} holds checkpoint {}, of which only Kafka knows whether it is true, but the pipeline no longer \
         writes to Kafka. Run it once as it was before, or give up the state: tidemill reset PIPELINE",
        plan.name,
        plan.host.state.display(),
        open.number
    )
}

#[cfg(test)]
mod tests;
