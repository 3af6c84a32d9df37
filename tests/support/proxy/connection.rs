//! One connection through the proxy: a client's and one to the broker, two threads for each way.
//!
//! A way's first thread reads frames as they come, so that one that waits does not keep the sender from being heard; the
//! second does with each what the rules say and passes it on.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::frame::{self, ApiKey, Direction};
use super::pace::Pace;
use super::rules::Action;
use super::shared::Shared;

/// Frames of one way that wait at most; more wait in the sockets.
const WAITING_MAX: usize = 64;

/// Takes connections of a listener until the proxy stops.
pub(super) fn accept(listener: &TcpListener, link: usize, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_stopped() {
            return;
        }
        let about = shared.link(link);
        let Ok(client) = client else { continue };
        if about.refusing {
            continue;
        }
        // A broker that is away: the client finds its connection closed, as it would find it refused.
        let Ok(broker) = TcpStream::connect(("127.0.0.1", about.upstream)) else {
            continue;
        };
        if let Err(error) = start(client, broker, link, shared) {
            shared.complain(format!("a connection could not be started: {error}"));
        }
    }
}

fn start(
    client: TcpStream,
    broker: TcpStream,
    link: usize,
    shared: &Arc<Shared>,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let Some(number) = shared.open([client.try_clone()?, broker.try_clone()?]) else {
        return Ok(());
    };
    let asked = Arc::new(Mutex::default());
    for direction in [Direction::Request, Direction::Response] {
        let (from, to) = match direction {
            Direction::Request => (client.try_clone()?, broker.try_clone()?),
            Direction::Response => (broker.try_clone()?, client.try_clone()?),
        };
        let way = Way {
            shared: shared.clone(),
            link,
            connection: number,
            direction,
            asked: Arc::clone(&asked),
        };
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let reading = shared.clone();
        std::thread::spawn(move || read(from, &sender, &reading));
        std::thread::spawn(move || way.run(to, &receiver));
    }
    Ok(())
}

struct Arrived {
    frame: Vec<u8>,
    at: Instant,
}

fn read(mut from: TcpStream, to: &SyncSender<Arrived>, shared: &Shared) {
    loop {
        match frame::read(&mut from) {
            Ok(Some(frame)) => {
                let at = Instant::now();
                if to.send(Arrived { frame, at }).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                // A connection that is reset is nothing to speak of.
                if error.kind() == std::io::ErrorKind::InvalidData {
                    shared.complain(error.to_string());
                    let _ = from.shutdown(Shutdown::Both);
                }
                return;
            }
        }
    }
}

/// A request that reached the broker.
struct Asked {
    api: ApiKey,
    /// Answers of its duplicates that are still to come, of which nobody is told.
    surplus: u32,
    answered: bool,
}

type AskedById = Mutex<HashMap<i32, Asked>>;

/// One way of a connection.
struct Way {
    shared: Arc<Shared>,
    link: usize,
    connection: u64,
    direction: Direction,
    asked: Arc<AskedById>,
}

impl Way {
    fn run(self, mut to: TcpStream, from: &Receiver<Arrived>) {
        let mut pace =
            Pace::new(self.connection * 2 + u64::from(self.direction == Direction::Response));
        for arrived in from {
            let due = self
                .shared
                .slowness()
                .map(|slow| arrived.at + pace.next(slow));
            let goes_on = due.is_none_or(|at| self.wait(at))
                && self.shared.wait_for_link(self.link, self.connection)
                && self.pass_on(&mut to, &arrived.frame);
            if !goes_on {
                break;
            }
        }
        match self.direction {
            // What the broker has been sent it may still answer.
            Direction::Request => drop(to.shutdown(Shutdown::Write)),
            Direction::Response => self.shared.cut(self.connection),
        }
    }

    /// Returns whether the connection goes on.
    fn pass_on(&self, to: &mut TcpStream, frame: &[u8]) -> bool {
        let Some((api, correlation)) = self.label(frame) else {
            return true;
        };
        let verdict = self.shared.judge(self.direction, api, frame);
        let (goes_on, copies) = match verdict {
            None => (true, 1),
            Some((_, Action::Swallow)) => (true, 0),
            Some((_, Action::Duplicate)) => (true, 2),
            Some((_, Action::Cut)) => (false, 0),
            Some((_, Action::Delay(by))) => (self.wait(Instant::now() + by), 1),
            Some((rule, Action::Hold)) => (self.shared.wait_for_release(rule, self.connection), 1),
        };
        if !goes_on {
            self.shared.cut(self.connection);
            return false;
        }
        if copies == 0 {
            return true;
        }
        if self.direction == Direction::Request {
            let asked = Asked {
                api,
                surplus: copies - 1,
                answered: false,
            };
            self.asked().insert(correlation, asked);
        }
        (0..copies).all(|_| self.write(to, api, frame))
    }

    fn wait(&self, until: Instant) -> bool {
        self.shared.wait_for_time(until, self.connection)
    }

    fn write(&self, to: &mut TcpStream, api: ApiKey, frame: &[u8]) -> bool {
        if to.write_all(frame).is_ok() {
            self.shared.count_passed(self.direction, api);
            return true;
        }
        // A client that has gone does not keep the answers of what it asked from being counted.
        self.direction == Direction::Response
    }

    /// What a frame belongs to; none for the answer of a duplicate, which nobody asked for.
    fn label(&self, frame: &[u8]) -> Option<(ApiKey, i32)> {
        if self.direction == Direction::Request {
            return Some(frame::request_header(frame).unwrap_or((ApiKey::Other(-1), -1)));
        }
        let correlation = frame::response_correlation(frame)?;
        let mut asked = self.asked();
        let Some(of) = asked.get_mut(&correlation) else {
            return Some((ApiKey::Other(-1), correlation));
        };
        let api = of.api;
        let surplus = of.answered;
        if surplus {
            of.surplus = of.surplus.saturating_sub(1);
        }
        of.answered = true;
        if of.surplus == 0 {
            asked.remove(&correlation);
        }
        (!surplus).then_some((api, correlation))
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<i32, Asked>> {
        self.asked
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
