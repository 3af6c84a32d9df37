//! Where all workers meet: each brings a report, the last one decides for all.
//!
//! Invariant: a decision is made from exactly one report of every worker. Once broken (a worker failed), nobody waits.

use std::sync::{Condvar, Mutex, MutexGuard};

/// A meeting point of a fixed number of threads.
#[derive(Debug)]
pub struct Rendezvous<R, D> {
    size: usize,
    state: Mutex<State<R, D>>,
    turned: Condvar,
}

#[derive(Debug)]
struct State<R, D> {
    reports: Vec<Option<R>>,
    arrived: usize,
    turn: u64,
    decision: Option<D>,
    broken: bool,
}

/// A worker failed: the others must stop too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl<R, D: Clone> Rendezvous<R, D> {
    pub fn new(size: usize) -> Self {
        let state = State {
            reports: (0..size).map(|_| None).collect(),
            arrived: 0,
            turn: 0,
            decision: None,
            broken: false,
        };
        Self {
            size,
            state: Mutex::new(state),
            turned: Condvar::new(),
        }
    }

    /// Waits for all; the last to arrive calls `decide` with the reports in order of workers.
    pub fn meet(
        &self,
        worker: usize,
        report: R,
        decide: impl FnOnce(Vec<R>) -> D,
    ) -> Result<D, Broken> {
        let mut state = self.lock();
        if state.broken {
            return Err(Broken);
        }
        state.reports[worker] = Some(report);
        state.arrived += 1;
        if state.arrived == self.size {
            let reports = state
                .reports
                .iter_mut()
                .map(|r| r.take().expect("every worker has arrived"))
                .collect();
            let decision = decide(reports);
            state.decision = Some(decision.clone());
            state.arrived = 0;
            state.turn += 1;
            self.turned.notify_all();
            return Ok(decision);
        }
        let turn = state.turn;
        while state.turn == turn && !state.broken {
            state = self
                .turned
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if state.turn == turn {
            return Err(Broken);
        }
        Ok(state.decision.clone().expect("a turn has a decision"))
    }

    /// Lets everybody go, now and from now on.
    pub fn break_up(&self) {
        self.lock().broken = true;
        self.turned.notify_all();
    }

    /// Somebody waits already.
    pub fn is_awaited(&self) -> bool {
        self.lock().arrived > 0
    }

    // A panicking worker breaks the rendezvous explicitly; poisoning would only hide its message behind others.
    fn lock(&self) -> MutexGuard<'_, State<R, D>> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_sees_one_report_of_each() {
        let point = Rendezvous::<(usize, u64), u64>::new(3);
        std::thread::scope(|s| {
            for w in 0..3 {
                let point = &point;
                s.spawn(move || {
                    for turn in 0..1_000 {
                        let sum = point
                            .meet(w, (w, turn), |all| {
                                assert!(all.iter().enumerate().all(|(i, r)| *r == (i, turn)));
                                all.iter().map(|r| r.1).sum()
                            })
                            .unwrap();
                        assert_eq!(sum, 3 * turn);
                    }
                });
            }
        });
    }

    #[test]
    fn a_failed_worker_releases_the_others() {
        let point = Rendezvous::<(), ()>::new(2);
        std::thread::scope(|s| {
            let waiting = s.spawn(|| point.meet(0, (), |_| ()));
            while !point.is_awaited() {
                std::thread::yield_now();
            }
            point.break_up();
            assert_eq!(waiting.join().unwrap(), Err(Broken));
        });
        assert_eq!(point.meet(1, (), |_| ()), Err(Broken));
    }
}
