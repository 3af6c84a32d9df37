//! What happens to the pipeline: one blow a round, drawn from the seed.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::host::{Host, Pipeline};
use crate::support::kafka::Broker;
use crate::support::kafka::cluster::{self, Brokers};

/// A host that is asked to stop ends within this time.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// The Kafka of a soak.
pub enum Kafka {
    One(Broker),
    Three(Brokers),
}

impl std::ops::Deref for Kafka {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        match self {
            Self::One(broker) => broker,
            Self::Three(brokers) => brokers,
        }
    }
}

impl Kafka {
    pub fn start(brokers: usize) -> Result<Self, String> {
        match brokers {
            1 => Broker::start().map(Self::One),
            _ => Brokers::start(None).map(Self::Three),
        }
    }

    /// Returns when every replica of a topic is in sync.
    pub fn wait_until_in_sync(&self, topic: &str) {
        if let Self::Three(brokers) = self {
            brokers.wait_until_in_sync(topic);
        }
    }

    /// Kills a broker, and starts it again after a time; returns when it serves.
    fn bounce(&self, which: i32, away: Duration) {
        match self {
            Self::One(broker) => {
                broker.kill();
                std::thread::sleep(away);
                broker.up();
            }
            Self::Three(brokers) => {
                brokers.kill_one(which);
                std::thread::sleep(away);
                brokers.start_again(which);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// `kill -9` while it runs.
    Kill,
    /// `kill -9` while it starts and recovers.
    KillEarly,
    /// SIGSTOP, and SIGCONT a while later.
    Pause,
    /// SIGTERM: a clean end.
    Terminate,
    /// `kill -9` to a broker, which comes back.
    KillBroker,
    /// The same, and the host dies meanwhile.
    KillBoth,
}

impl Blow {
    pub const ALL: [Self; 6] = [
        Self::Kill,
        Self::KillEarly,
        Self::Pause,
        Self::Terminate,
        Self::KillBroker,
        Self::KillBoth,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 while running",
            Self::KillEarly => "kill -9 while starting",
            Self::Pause => "SIGSTOP, SIGCONT",
            Self::Terminate => "SIGTERM",
            Self::KillBroker => "kill -9 of a broker",
            Self::KillBoth => "kill -9 of broker and host",
        }
    }

    /// Of a hundred rounds 50 kill, 20 kill early, the others have what is left. Only a host that was started for this
    /// round can be killed early.
    pub fn draw(rng: &mut StdRng, fresh: bool) -> Self {
        match rng.random_range(0..100) {
            0..50 => Self::Kill,
            50..70 if fresh => Self::KillEarly,
            50..70 => Self::Kill,
            70..80 => Self::Pause,
            80..90 => Self::Terminate,
            90..96 => Self::KillBroker,
            _ => Self::KillBoth,
        }
    }

    /// How long the host goes on before it: since it started, if it is to be killed early, otherwise since its first
    /// output.
    pub fn after(self, rng: &mut StdRng) -> Duration {
        let millis = match self {
            Self::KillEarly => rng.random_range(0..1_000),
            _ => rng.random_range(0..2_000),
        };
        Duration::from_millis(millis)
    }

    /// Strikes. The host runs on after some blows and has ended after others. Fails if it ends otherwise than it must.
    pub fn strike(
        self,
        host: &mut Host,
        pipeline: &Pipeline,
        kafka: &Kafka,
        rng: &mut StdRng,
    ) -> Result<(), String> {
        let by_itself = |status| {
            Err(format!(
                "the host ended by itself: {status}\n{}",
                pipeline.said()
            ))
        };
        if let Some(status) = host.ended() {
            return by_itself(status);
        }
        match self {
            Self::Kill | Self::KillEarly => host.kill().map_or(Ok(()), by_itself),
            Self::Pause => {
                host.signal(libc::SIGSTOP);
                std::thread::sleep(Duration::from_millis(rng.random_range(200..2_000)));
                host.signal(libc::SIGCONT);
                Ok(())
            }
            Self::Terminate => {
                host.signal(libc::SIGTERM);
                match host.wait(STOPS_WITHIN) {
                    Some(status) if status.success() => Ok(()),
                    Some(status) => by_itself(status),
                    None => Err(format!(
                        "SIGTERM does not end the host\n{}",
                        pipeline.said()
                    )),
                }
            }
            Self::KillBroker | Self::KillBoth => {
                let which = rng.random_range(1..=cluster::NODES as i32);
                let away = Duration::from_millis(rng.random_range(0..1_500));
                let ended = std::thread::scope(|scope| {
                    scope.spawn(|| kafka.bounce(which, away));
                    match self {
                        Self::KillBoth => {
                            std::thread::sleep(away / 2);
                            host.kill()
                        }
                        _ => None,
                    }
                });
                ended
                    .or_else(|| host.ended().filter(|_| self == Self::KillBroker))
                    .map_or(Ok(()), by_itself)
            }
        }
    }
}
