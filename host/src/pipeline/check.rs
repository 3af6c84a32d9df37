//! Finds all mistakes of a pipeline file at once.
