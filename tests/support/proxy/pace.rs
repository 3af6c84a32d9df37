//! How slow a connection is: a delay for each frame, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What every frame of a proxy takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slowness {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) seed: u64,
}

/// The delays of one way of one connection.
pub(super) struct Pace {
    way: u64,
    drawn_from: Option<(u64, StdRng)>,
}

impl Pace {
    /// `way` is different for each way of each connection.
    pub(super) fn new(way: u64) -> Self {
        Self {
            way,
            drawn_from: None,
        }
    }

    /// The next frame's delay. The same seed and way give the same row of delays.
    pub(super) fn next(&mut self, slowness: Slowness) -> Duration {
        if !matches!(&self.drawn_from, Some((seed, _)) if *seed == slowness.seed) {
            let mixed = slowness.seed ^ self.way.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.drawn_from = Some((slowness.seed, StdRng::seed_from_u64(mixed)));
        }
        let jitter = self
            .drawn_from
            .as_mut()
            .map_or(0.0, |(_, rng)| rng.random::<f64>());
        slowness.latency + slowness.jitter.mul_f64(jitter)
    }
}
