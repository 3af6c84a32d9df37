//! Rows on their way to a webhook: taken from workers, handed to senders, and known to be acknowledged or not.
//!
//! Knows no HTTP. Rows are numbered in the order they come. Invariant: [`Queue::wait_for`] returns `Ok` only if every row
//! below the number has been [`done`](Queue::done); bytes waiting stay below [`WEBHOOK_QUEUE_BYTES_MAX`] plus one row.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ConnectorError;
use crate::limits::WEBHOOK_QUEUE_BYTES_MAX;

/// A row as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Stays the same when the row is sent again, whichever request it is in.
    pub id: u128,
    /// A JSON object.
    pub json: Box<[u8]>,
}

/// Rows of one request, from number `first` on.
#[derive(Debug)]
pub struct Taken {
    pub first: u64,
    pub rows: Vec<Row>,
}

/// Shared by the workers that write, the senders, and the checkpoint thread that waits.
#[derive(Debug)]
pub struct Queue {
    /// How errors name the sink.
    place: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Row>,
    bytes: usize,
    /// Number of the next row to come.
    next: u64,
    /// First numbers of the requests under way.
    sending: BTreeSet<u64>,
    failed: Option<String>,
    stopped: bool,
}

impl State {
    /// All rows below this number are acknowledged.
    fn done_below(&self) -> u64 {
        let unsent = self.next - self.waiting.len() as u64;
        self.sending.first().map_or(unsent, |&first| first)
    }
}

impl Queue {
    pub fn new(place: String) -> Self {
        Self {
            place,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// Adds rows, waiting for room as long as it takes.
    pub fn push(&self, rows: impl IntoIterator<Item = Row>) -> Result<(), ConnectorError> {
        let mut state = self.lock();
        for row in rows {
            while state.bytes >= WEBHOOK_QUEUE_BYTES_MAX {
                self.check(&state)?;
                self.changed.notify_all();
                state = self.wait(state);
            }
            state.bytes += row.json.len();
            state.waiting.push_back(row);
            state.next += 1;
        }
        self.changed.notify_all();
        self.check(&state)
    }

    /// The number of the next row to come: what a checkpoint waits for.
    pub fn end(&self) -> u64 {
        self.lock().next
    }

    /// Up to `rows_max` rows, or fewer once they have `bytes_max` bytes; waits for a first one. `None`: nothing is to be
    /// sent any more.
    pub fn take(&self, rows_max: usize, bytes_max: usize) -> Option<Taken> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if self.check(&state).is_err() {
                return None;
            }
            state = self.wait(state);
        }
        self.check(&state).ok()?;
        let first = state.next - state.waiting.len() as u64;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = state.waiting.front() {
            let size = row.json.len();
            if rows.len() == rows_max || (!rows.is_empty() && bytes + size > bytes_max) {
                break;
            }
            bytes += size;
            rows.extend(state.waiting.pop_front());
        }
        state.bytes -= bytes;
        state.sending.insert(first);
        self.changed.notify_all();
        Some(Taken { first, rows })
    }

    /// All rows of the request that began with `first` are acknowledged.
    pub fn done(&self, first: u64) {
        self.lock().sending.remove(&first);
        self.changed.notify_all();
    }

    /// Returns when all rows below `end` are acknowledged.
    pub fn wait_for(&self, end: u64) -> Result<(), ConnectorError> {
        let mut state = self.lock();
        loop {
            if state.done_below() >= end {
                return Ok(());
            }
            self.check(&state)?;
            state = self.wait(state);
        }
    }

    /// Waits; false if nothing is to be sent any more.
    pub fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        loop {
            if self.check(&state).is_err() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Some row can never be delivered: everybody who waits, now or later, hears why.
    pub fn fail(&self, cause: String) {
        self.lock().failed.get_or_insert(cause);
        self.changed.notify_all();
    }

    /// Ends all waiting, now and later, with [`ConnectorError::Stopped`].
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn check(&self, state: &State) -> Result<(), ConnectorError> {
        if let Some(cause) = &state.failed {
            return Err(ConnectorError::failed(&self.place, cause));
        }
        if state.stopped {
            return Err(ConnectorError::Stopped {
                place: self.place.clone(),
            });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rows(ids: std::ops::Range<u128>) -> impl Iterator<Item = Row> {
        ids.map(|id| Row {
            id,
            json: b"{}".to_vec().into(),
        })
    }

    #[test]
    fn a_number_is_reached_when_all_requests_before_it_are_done() {
        let queue = Queue::new("sink s".into());
        queue.push(rows(0..5)).unwrap();
        assert_eq!(queue.end(), 5);
        let (a, b) = (queue.take(2, 99).unwrap(), queue.take(2, 99).unwrap());
        assert_eq!((a.first, a.rows.len(), b.first), (0, 2, 2));
        assert_eq!(queue.lock().done_below(), 0);
        queue.done(b.first);
        assert_eq!(queue.lock().done_below(), 0, "an earlier one is under way");
        queue.done(a.first);
        assert_eq!(queue.lock().done_below(), 4);
        queue.wait_for(4).unwrap();
        let last = queue.take(2, 99).unwrap();
        assert_eq!((last.first, last.rows.len()), (4, 1));
        queue.done(4);
        queue.wait_for(5).unwrap();
    }

    #[test]
    fn a_request_is_limited_in_bytes_but_has_a_row() {
        let queue = Queue::new("sink s".into());
        queue.push(rows(0..5)).unwrap();
        assert_eq!(queue.take(9, 5).unwrap().rows.len(), 2);
        assert_eq!(queue.take(9, 1).unwrap().rows.len(), 1);
    }

    #[test]
    fn whoever_waits_hears_of_the_end() {
        let big = |id| Row {
            id,
            json: vec![b' '; WEBHOOK_QUEUE_BYTES_MAX].into(),
        };
        for failure in [Some("refused"), None] {
            let queue = Arc::new(Queue::new("sink s".into()));
            queue.push([big(0)]).unwrap();
            let (writer, waiter) = (queue.clone(), queue.clone());
            let writer = std::thread::spawn(move || writer.push([big(1)]));
            let waiter = std::thread::spawn(move || waiter.wait_for(1));
            match failure {
                Some(cause) => queue.fail(cause.into()),
                None => queue.stop(),
            }
            for ended in [writer.join().unwrap(), waiter.join().unwrap()] {
                match ended {
                    Err(ConnectorError::Failed { place, cause }) => {
                        assert_eq!(
                            Some((place, cause)),
                            Some(("sink s".into(), "refused".into()))
                        );
                    }
                    Err(ConnectorError::Stopped { .. }) => assert!(failure.is_none()),
                    other => panic!("{other:?}"),
                }
            }
            assert!(queue.take(1, 1).is_none() && !queue.pause(Duration::from_secs(3600)));
        }
    }
}
