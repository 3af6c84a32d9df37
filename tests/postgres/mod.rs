//! The Postgres sink against a real server: what rows become, what is refused, and crashes on either side.

mod runs;
mod sink;

use libtest_mimic::Trial;

use crate::support;
use crate::support::postgres;

type Test = (&'static str, fn());

pub fn trials() -> Vec<Trial> {
    let tests = [sink::tests(), runs::tests()].concat();
    tests
        .into_iter()
        .map(|(name, test)| trial(name, test))
        .collect()
}

/// Ignored, with the reason, where there is no server to test with.
fn trial(name: &'static str, test: fn()) -> Trial {
    let trial = support::trial(name, test);
    match postgres::available() {
        Err(reason) if !postgres::required() => trial.with_kind(reason).with_ignored_flag(true),
        _ => trial,
    }
}
