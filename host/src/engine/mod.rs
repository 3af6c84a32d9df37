//! The engine: epochs.
