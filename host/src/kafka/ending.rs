//! The end of librdkafka's clients, which nobody waits for longer than a moment.
//!
//! When a client ends just as one of its brokers disappears, threads of librdkafka (2.10 to 2.12) may wait for each other
//! for ever (its issue 5476). Then the client is left behind: it does nothing any more, and the pipeline goes on.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc;
use std::thread::Builder;
use std::time::Duration;

/// A client that is sound ends in milliseconds; one that waits for an answer of its broker, in seconds.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A client; dropping it ends it.
pub(super) struct Ending<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Ending<T> {
    pub(super) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for Ending<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("taken only by drop")
    }
}

impl<T: Send + 'static> DerefMut for Ending<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("taken only by drop")
    }
}

impl<T: Send + 'static> Drop for Ending<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        let (ended, end) = mpsc::channel::<()>();
        let thread = Builder::new().name("kafka-end".into()).spawn(move || {
            drop(client);
            drop(ended);
        });
        // Without a thread the client has ended here, with the closure.
        if thread.is_ok() && end.recv_timeout(END_WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!(
                "a client of Kafka does not end and is left behind; it does nothing any more"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender};
    use std::time::Instant;

    use super::*;

    struct Client(Receiver<()>, Sender<()>);

    impl Drop for Client {
        fn drop(&mut self) {
            let _ = self.0.recv();
            let _ = self.1.send(());
        }
    }

    #[test]
    fn a_client_that_does_not_end_is_left_behind() {
        let (release, held) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let begun = Instant::now();
        drop(Ending::new(Client(held, tell)));
        assert!(begun.elapsed() >= END_WITHIN);
        assert!(told.try_recv().is_err(), "it ended");
        drop(release);
        assert_eq!(told.recv(), Ok(()));
    }

    #[test]
    fn a_client_has_ended_when_it_is_dropped() {
        let (release, held) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        release.send(()).unwrap();
        drop(Ending::new(Client(held, tell)));
        assert_eq!(told.try_recv(), Ok(()));
    }
}
