//! The HTTP admin API on loopback, metrics.
