//! The engine: epochs, workers, event time, checkpoints and swaps.
//!
//! Synchronous and blind to formats and protocols: sources, steps and sinks are behind their traits. `run` has the threads;
//! everything else is the same under `testing::Driver`, with one worker and a clock that is moved by hand.

pub mod assemble;
pub mod catch_up;
mod checkpoint;
pub mod clock;
pub mod control;
pub mod coordinator;
pub mod decide;
pub mod edit;
pub mod embedded;
pub mod exchange;
pub mod handle;
pub mod inspect;
pub mod intake;
pub mod meta;
pub mod metrics;
mod metrics_file;
pub mod open;
pub mod rate;
pub mod rendezvous;
pub mod reposition;
pub mod run;
pub mod shared;
pub mod snapshot;
pub mod states;
pub mod supervisor;
pub mod swap;
pub mod take;
pub mod versions;
pub mod watermark;
pub mod worker;
