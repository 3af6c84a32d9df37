//! Reference tables: immutable snapshots of keyed rows, probed by lookup steps and by plugins.
