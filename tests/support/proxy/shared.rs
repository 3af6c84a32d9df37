//! What all connections of a proxy share: rules, counts, and whether anything may go on at all.

use std::collections::{BTreeMap, HashMap};
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::frame::{ApiKey, Direction};
use super::pace::Slowness;
use super::rules::{Action, Rule, judge};

/// Frames of one API and direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// That came in.
    pub seen: u64,
    /// That went out; a duplicate counts twice.
    pub passed: u64,
}

#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    rules: Vec<Rule>,
    counts: BTreeMap<(ApiKey, Direction), Count>,
    links: Vec<Link>,
    open: HashMap<u64, [TcpStream; 2]>,
    connections: u64,
    slowness: Option<Slowness>,
    complaints: Vec<String>,
    stopped: bool,
}

/// A listener and the broker behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) upstream: u16,
    pub(super) held: bool,
    pub(super) refusing: bool,
}

impl State {
    pub(super) fn passed(&self, api: ApiKey, direction: Direction) -> u64 {
        self.counts
            .get(&(api, direction))
            .map_or(0, |count| count.passed)
    }

    pub(super) fn hits(&self, rule: usize) -> u64 {
        self.rules[rule].hits
    }

    /// Whether a connection is to end: it was cut, or the proxy stops.
    fn is_over(&self, connection: u64) -> bool {
        self.stopped || !self.open.contains_key(&connection)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Returns whether `done` came true within a time.
    pub(super) fn wait_until(&self, within: Duration, done: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + within;
        let mut state = self.lock();
        while !done(&state) {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .0;
        }
        true
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_all();
        value
    }

    pub(super) fn add_link(&self, upstream: u16) -> usize {
        self.change(|state| {
            state.links.push(Link {
                upstream,
                held: false,
                refusing: false,
            });
            state.links.len() - 1
        })
    }

    pub(super) fn link(&self, link: usize) -> Link {
        self.lock().links[link]
    }

    pub(super) fn for_links(&self, change: impl FnMut(&mut Link)) {
        self.change(|state| state.links.iter_mut().for_each(change));
    }

    pub(super) fn for_link(&self, link: usize, change: impl FnOnce(&mut Link)) {
        self.change(|state| change(&mut state.links[link]));
    }

    pub(super) fn add_rule(&self, rule: Rule) -> usize {
        self.change(|state| {
            state.rules.push(rule);
            state.rules.len() - 1
        })
    }

    pub(super) fn hits(&self, rule: usize) -> u64 {
        self.lock().hits(rule)
    }

    pub(super) fn release(&self, rule: usize) {
        self.change(|state| state.rules[rule].over = true);
    }

    pub(super) fn count(&self, api: ApiKey, direction: Direction) -> Count {
        let counts = &self.lock().counts;
        counts.get(&(api, direction)).copied().unwrap_or_default()
    }

    pub(super) fn slow_down(&self, slowness: Slowness) {
        self.change(|state| state.slowness = Some(slowness));
    }

    pub(super) fn slowness(&self) -> Option<Slowness> {
        self.lock().slowness
    }

    pub(super) fn complain(&self, what: String) {
        self.change(|state| state.complaints.push(what));
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    /// A connection's number, unless the proxy has stopped.
    pub(super) fn open(&self, sockets: [TcpStream; 2]) -> Option<u64> {
        self.change(|state| {
            if state.stopped {
                return None;
            }
            state.connections += 1;
            state.open.insert(state.connections, sockets);
            Some(state.connections)
        })
    }

    pub(super) fn connections(&self) -> usize {
        self.lock().open.len()
    }

    pub(super) fn cut(&self, connection: u64) {
        self.change(|state| state.open.remove(&connection).iter().for_each(end));
    }

    pub(super) fn cut_all(&self) {
        self.change(|state| state.open.drain().for_each(|(_, sockets)| end(&sockets)));
    }

    pub(super) fn stop(&self) {
        self.change(|state| {
            state.stopped = true;
            state.open.drain().for_each(|(_, sockets)| end(&sockets));
        });
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Returns when nothing holds the link up; false if the connection is over.
    pub(super) fn wait_for_link(&self, link: usize, connection: u64) -> bool {
        self.wait_while(connection, None, |state| state.links[link].held)
    }

    /// Returns when the rule is over; false if the connection is.
    pub(super) fn wait_for_release(&self, rule: usize, connection: u64) -> bool {
        self.wait_while(connection, None, |state| !state.rules[rule].over)
    }

    /// Returns at that time; false, and earlier, if the connection is over.
    pub(super) fn wait_for_time(&self, at: Instant, connection: u64) -> bool {
        self.wait_while(connection, Some(at), |_| true)
    }

    fn wait_while(
        &self,
        connection: u64,
        until: Option<Instant>,
        busy: impl Fn(&State) -> bool,
    ) -> bool {
        let mut state = self.lock();
        while !state.is_over(connection) && busy(&state) {
            // Without an end a change is waited for; the time here is only a number to give.
            let left = match until.map(|at| at.checked_duration_since(Instant::now())) {
                Some(None) => return true,
                Some(Some(left)) => left,
                None => Duration::from_secs(60),
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .0;
        }
        !state.is_over(connection)
    }

    /// Counts a frame that came in, and says what is to happen to it.
    pub(super) fn judge(
        &self,
        direction: Direction,
        api: ApiKey,
        frame: &[u8],
    ) -> Option<(usize, Action)> {
        self.change(|state| {
            state.counts.entry((api, direction)).or_default().seen += 1;
            judge(&mut state.rules, direction, api, frame)
        })
    }

    pub(super) fn count_passed(&self, direction: Direction, api: ApiKey) {
        self.change(|state| state.counts.entry((api, direction)).or_default().passed += 1);
    }
}

fn end(sockets: &[TcpStream; 2]) {
    for socket in sockets {
        // It may have ended already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}
