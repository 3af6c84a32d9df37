//! The engine without threads and clocks, for tests.
