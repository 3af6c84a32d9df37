//! The catch-up rule: partitions that lead in event time wait for those behind that have unread input, so that state
//! stays bounded while a backlog is read and nothing waits longer than the order of reading makes it.
//!
//! Numbers only. Invariant: of the partitions with unread input the one that is furthest behind never waits, so reading
//! goes on: one that is caught up, finished or silent holds nobody back, however far behind it is.

use crate::pipeline::plan::{Input, Plan};
use crate::time::{MICROS_PER_SECOND, Micros, NO_TIME};

/// A partition may lead by this much event time at least: less would pause and resume it with every epoch.
pub const SLACK: Micros = 10 * MICROS_PER_SECOND;

/// A partition and how far it is.
#[derive(Debug, Clone, Copy)]
pub struct Lead {
    pub source: usize,
    pub partition: u32,
    /// Sources of one group wait for each other.
    pub group: usize,
    /// Highest event time seen, or [`NO_TIME`].
    pub highest: Micros,
    /// How far it may lead.
    pub slack: Micros,
    /// It has input that was not read yet.
    pub unread: bool,
}

/// The partitions, as (source, partition), that are to be left unread for now.
pub fn waiting(all: &[Lead]) -> Vec<(usize, u32)> {
    let behind = |group: usize| {
        let unread = all.iter().filter(|p| p.group == group && p.unread);
        unread.map(|p| p.highest).min()
    };
    let leads = |p: &&Lead| {
        p.highest != NO_TIME
            && behind(p.group).is_some_and(|least| least < p.highest.saturating_sub(p.slack))
    };
    all.iter()
        .filter(leads)
        .map(|p| (p.source, p.partition))
        .collect()
}

/// By source: a number that those have in common whose rows meet in some step, directly or through others.
pub fn groups(plan: &Plan) -> Vec<usize> {
    let mut group: Vec<usize> = (0..plan.sources.len()).collect();
    let mut of_step: Vec<Option<usize>> = Vec::new();
    for step in &plan.steps {
        let mut mine: Option<usize> = None;
        for input in &step.inputs {
            let theirs = match *input {
                Input::Source(i) => Some(group[i]),
                Input::Port { step, .. } => of_step[step],
            };
            let Some(theirs) = theirs else { continue };
            match mine {
                None => mine = Some(theirs),
                Some(mine) => {
                    let join = |g: &mut usize| {
                        if *g == theirs {
                            *g = mine
                        }
                    };
                    group.iter_mut().for_each(join);
                    of_step.iter_mut().flatten().for_each(join);
                }
            }
        }
        of_step.push(mine);
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(partition: u32, group: usize, highest: Micros, unread: bool) -> Lead {
        Lead {
            source: group,
            partition,
            group,
            highest,
            slack: 10,
            unread,
        }
    }

    #[test]
    fn leaders_wait_for_those_behind_with_unread_input() {
        let check = |all: &[Lead], expected: &[u32]| {
            let found: Vec<u32> = waiting(all).into_iter().map(|(_, p)| p).collect();
            assert_eq!(found, expected, "{all:?}");
        };
        check(&[lead(0, 0, 100, true), lead(1, 0, 50, true)], &[0]);
        check(&[lead(0, 0, 60, true), lead(1, 0, 50, true)], &[]);
        // Caught up or finished: nobody waits for it, however far behind.
        check(&[lead(0, 0, 100, true), lead(1, 0, 50, false)], &[]);
        check(&[lead(0, 0, 100, true), lead(1, 0, NO_TIME, false)], &[]);
        // Nothing of it is known yet: it may hold the earliest rows of all.
        check(&[lead(0, 0, 100, true), lead(1, 0, NO_TIME, true)], &[0]);
        // One record far in the future: its partition waits until the others are caught up.
        check(
            &[
                lead(0, 0, i64::MAX - 2, true),
                lead(1, 0, 50, true),
                lead(2, 0, 55, true),
            ],
            &[0],
        );
        check(
            &[
                lead(0, 0, i64::MAX - 2, true),
                lead(1, 0, 50, false),
                lead(2, 0, 55, false),
            ],
            &[],
        );
        // Of other groups nobody knows.
        check(&[lead(0, 0, 100, true), lead(1, 1, 50, true)], &[]);
    }

    proptest::proptest! {
        /// Whatever the partitions look like, one with unread input goes on if there is one.
        #[test]
        fn it_cannot_hang(all in proptest::collection::vec(
            (0usize..3, proptest::prelude::any::<i64>(), proptest::prelude::any::<bool>()), 1..12)
        ) {
            let all: Vec<Lead> = (all.iter().enumerate())
                .map(|(i, &(group, highest, unread))| lead(i as u32, group, highest, unread)).collect();
            let waiting = waiting(&all);
            for group in 0..3 {
                let mut unread = all.iter().filter(|p| p.group == group && p.unread).peekable();
                if unread.peek().is_some() {
                    proptest::prop_assert!(unread.any(|p| !waiting.contains(&(p.source, p.partition))));
                }
            }
        }
    }
}
