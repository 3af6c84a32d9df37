//! A TCP proxy between a client and a Kafka that tampers with chosen requests and responses: swallows, delays, holds,
//! repeats them, or cuts the connection. For listeners without TLS.
//!
//! ```ignore
//! let lost = proxy.on(ApiKey::EndTxn).responses().nth(3).swallow();   // applied, and nobody is told
//! let late = proxy.on(ApiKey::EndTxn).requests().nth(1).hold();
//! late.wait_for_hits(1);                                              // the client gave up meanwhile …
//! late.release();                                                     // … and yet the request arrives
//! ```
//! Clients follow the addresses that a broker advertises, so these must be the proxy's: one listener of the proxy for each
//! broker ([`Proxy::forward_to`]).
//!
//! Invariant: frames of a connection keep their order, as in TCP: what is sent behind a frame that waits, waits too. A
//! request that the proxy has taken reaches the broker even if the client has gone since.

mod connection;
mod frame;
mod pace;
mod rules;
mod shared;

pub use frame::{ApiKey, Direction};
pub use shared::Count;

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rules::{Action, Rule, Selection};
use shared::Shared;

/// Whatever is waited for comes this soon, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Listens until it is dropped; its connections end then, too.
pub struct Proxy {
    shared: Arc<Shared>,
    listeners: Vec<(u16, Option<JoinHandle<()>>)>,
}

impl Proxy {
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared::default()),
            listeners: Vec::new(),
        }
    }

    /// Opens a port on loopback whose connections go on to `upstream`, there or not yet; returns the port.
    pub fn forward_to(&mut self, upstream: u16) -> std::io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let link = self.shared.add_link(upstream);
        let shared = self.shared.clone();
        let thread = std::thread::spawn(move || connection::accept(&listener, link, &shared));
        self.listeners.push((port, Some(thread)));
        Ok(port)
    }

    /// A rule about frames of an API; it is about requests and acts on every one unless said otherwise.
    pub fn on(&self, api: ApiKey) -> Choice<'_> {
        Choice {
            proxy: self,
            rule: Rule {
                api,
                direction: Direction::Request,
                selection: Selection::Every,
                containing: None,
                action: Action::Swallow,
                seen: 0,
                hits: 0,
                over: false,
            },
        }
    }

    /// How many frames came and how many were passed on, since the start.
    pub fn count(&self, api: ApiKey, direction: Direction) -> Count {
        self.shared.count(api, direction)
    }

    /// Returns when at least `frames` have been passed on since the start. Panics if that takes too long.
    pub fn wait_for_passed(&self, api: ApiKey, direction: Direction, frames: u64) {
        let passed = self
            .shared
            .wait_until(PATIENCE, |state| state.passed(api, direction) >= frames);
        assert!(
            passed,
            "only {:?} of {api:?} {direction:?}",
            self.count(api, direction)
        );
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Half open: connections stay and are taken, nothing goes through, nobody is told; until [`go_on`](Self::go_on).
    pub fn hold_everything(&self) {
        self.shared.for_links(|link| link.held = true);
    }

    /// As [`hold_everything`](Self::hold_everything), of the listener made as number `link`, from 0, alone.
    pub fn hold_link(&self, link: usize) {
        self.shared.for_link(link, |link| link.held = true);
    }

    /// From now on connections are closed as soon as they are opened, and those that are open are cut.
    pub fn refuse_everything(&self) {
        self.shared.for_links(|link| link.refusing = true);
        self.cut_everything();
    }

    /// Ends holding and refusing.
    pub fn go_on(&self) {
        self.shared.for_links(|link| {
            link.held = false;
            link.refusing = false;
        });
    }

    /// Cuts all connections that are open now.
    pub fn cut_everything(&self) {
        self.shared.cut_all();
    }

    /// Each frame, either way, takes `latency` and up to `jitter` more, drawn from `seed`.
    pub fn slow_down(&self, latency: Duration, jitter: Duration, seed: u64) {
        self.shared.slow_down(pace::Slowness {
            latency,
            jitter,
            seed,
        });
    }

    /// The answers of clients that did not speak Kafka, and the like.
    pub fn complaints(&self) -> Vec<String> {
        self.shared.complaints()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop();
        for (port, thread) in &mut self.listeners {
            // Wakes the thread that waits for connections; it may have ended by itself.
            let _ = TcpStream::connect(("127.0.0.1", *port));
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// A rule in the making.
pub struct Choice<'a> {
    proxy: &'a Proxy,
    rule: Rule,
}

impl Choice<'_> {
    pub fn requests(mut self) -> Self {
        self.rule.direction = Direction::Request;
        self
    }

    pub fn responses(mut self) -> Self {
        self.rule.direction = Direction::Response;
        self
    }

    /// The `n`-th from now on, from 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.rule.selection = Selection::Nth(n);
        self
    }

    /// The first `n` from now on.
    pub fn first(mut self, n: u64) -> Self {
        self.rule.selection = Selection::First(n);
        self
    }

    /// Only frames with these bytes in them, such as a topic's name, are meant and counted.
    pub fn containing(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.rule.containing = Some(bytes.into());
        self
    }

    /// A request never arrives, or a response is lost after the broker has done what it answers.
    pub fn swallow(self) -> Intervention {
        self.with(Action::Swallow)
    }

    /// A request arrives twice, and the client hears of one. Panics for responses.
    pub fn duplicate(self) -> Intervention {
        assert_eq!(
            self.rule.direction,
            Direction::Request,
            "only requests can be repeated"
        );
        self.with(Action::Duplicate)
    }

    /// The connection is cut in place of the frame.
    pub fn cut(self) -> Intervention {
        self.with(Action::Cut)
    }

    pub fn delay(self, by: Duration) -> Intervention {
        self.with(Action::Delay(by))
    }

    /// Waits until [`Intervention::release`].
    pub fn hold(self) -> Intervention {
        self.with(Action::Hold)
    }

    fn with(mut self, action: Action) -> Intervention {
        self.rule.action = action;
        let shared = self.proxy.shared.clone();
        let number = shared.add_rule(self.rule);
        Intervention { shared, number }
    }
}

/// A rule in force. Dropping this leaves it in force.
pub struct Intervention {
    shared: Arc<Shared>,
    number: usize,
}

impl Intervention {
    /// Frames it acted on so far.
    pub fn hits(&self) -> u64 {
        self.shared.hits(self.number)
    }

    /// Returns when it has acted on `hits` frames. Panics if that takes too long.
    pub fn wait_for_hits(&self, hits: u64) {
        let reached = self
            .shared
            .wait_until(PATIENCE, |state| state.hits(self.number) >= hits);
        assert!(
            reached,
            "the proxy acted on {} frames, not {hits}",
            self.hits()
        );
    }

    /// Ends the rule: what it holds goes on, later frames are left alone.
    pub fn release(&self) {
        self.shared.release(self.number);
    }
}
