//! The protocol of exactly once as a model: every order in which its steps, crashes and delays can come.
//!
//! Not the code: what the code is to follow. A model proves something only if it can fail, so each rule is left out once,
//! and must then be found missing. `TIDEMILL_MODEL=large` explores wider.
//!
//! Group offsets are part of the transaction here, as the first design has it. The code commits them after the decision,
//! which takes steps and hazards away and adds none: nothing reads them.

mod broker;
mod explore;
mod machine;
mod steps;
mod world;

use std::fmt::Write as _;
use std::time::Instant;

use libtest_mimic::Trial;

use self::explore::{Explored, explore};
use self::machine::Rules;
use self::world::{Bounds, Protocol, Violation};
use crate::support::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "the_protocol_loses_doubles_and_tears_nothing",
            nothing_is_violated,
        ),
        trial("the_protocol_needs_each_of_its_rules", every_rule_is_needed),
    ]
}

const NOTHING: Bounds = Bounds {
    checkpoints: 3,
    crashes: 0,
    delays: 0,
    timeouts: 0,
    resets: 0,
    restores: 0,
    renames: 0,
};

/// What is explored with all rules.
fn worlds() -> Vec<(&'static str, Bounds)> {
    let large = std::env::var("TIDEMILL_MODEL").is_ok_and(|size| size == "large");
    let more = u8::from(large);
    let world = |name, bounds| (name, bounds);
    vec![
        world(
            "crashes and delays",
            Bounds {
                checkpoints: 4 + 2 * more,
                crashes: 3 + more,
                delays: 3 + more,
                ..NOTHING
            },
        ),
        world(
            "transactions that take too long",
            Bounds {
                timeouts: 1 + more,
                delays: 1 + more,
                crashes: 1 + more,
                ..NOTHING
            },
        ),
        world(
            "reset",
            Bounds {
                checkpoints: 2 + more,
                crashes: 2,
                delays: 1,
                resets: 1,
                ..NOTHING
            },
        ),
        world(
            "restore elsewhere, the old host still there",
            Bounds {
                checkpoints: 2,
                crashes: 1 + more,
                delays: more,
                restores: 1,
                ..NOTHING
            },
        ),
        world(
            "another transactional id",
            Bounds {
                checkpoints: 3,
                crashes: 2 + more,
                delays: 1 + more,
                renames: 1,
                ..NOTHING
            },
        ),
    ]
}

fn nothing_is_violated() {
    let mut table = String::from(
        "| explored with all rules | states | transitions | seconds |\n|---|---|---|---|\n",
    );
    for (name, bounds) in worlds() {
        let begun = Instant::now();
        let rules = Rules::ALL;
        let found = explore(&Protocol { rules, bounds });
        let seconds = begun.elapsed().as_secs_f64();
        let (states, transitions) = (found.states, found.transitions);
        writeln!(
            table,
            "| {name} | {states} | {transitions} | {seconds:.1} |"
        )
        .unwrap();
        assert_eq!(told(&found), None, "{name}");
    }
    println!("{table}");
}

/// What is wrong, with the way to it.
fn told(found: &Explored<Violation>) -> Option<String> {
    if let Some((violation, way)) = &found.violated {
        return Some(format!("{violation:?} after {}", way.join(", ")));
    }
    let stuck = || {
        format!(
            "{} states lead nowhere, the first after {}",
            found.stuck,
            found.stuck_after.join(", ")
        )
    };
    (found.stuck > 0).then(stuck)
}

/// A rule left out, in the world where it is needed.
struct Without {
    name: &'static str,
    rules: Rules,
    bounds: Bounds,
}

fn every_rule_is_needed() {
    let mut table =
        String::from("| left out | found | states until then | first after |\n|---|---|---|---|\n");
    for Without {
        name,
        rules,
        bounds,
    } in without()
    {
        let with = explore(&Protocol {
            rules: Rules::ALL,
            bounds,
        });
        assert_eq!(told(&with), None, "{name}, with all rules");
        let found = explore(&Protocol { rules, bounds });
        let Some((violation, way)) = &found.violated else {
            panic!(
                "without this rule nothing is found in {} states: {name}",
                found.states
            );
        };
        let way = way.join(", ");
        writeln!(
            table,
            "| {name} | {violation:?} | {} | {way} |",
            found.states
        )
        .unwrap();
    }
    println!("{table}");
}

fn without() -> Vec<Without> {
    let all = Rules::ALL;
    let crash = Bounds {
        checkpoints: 2,
        crashes: 1,
        ..NOTHING
    };
    let delay = Bounds { delays: 1, ..crash };
    let without = |name, rules, bounds| Without {
        name,
        rules,
        bounds,
    };
    vec![
        without(
            "a new producer after any doubt",
            Rules {
                recycle_after_doubt: false,
                ..all
            },
            delay,
        ),
        without(
            "fencing before the decision is read",
            Rules {
                fence_before_read: false,
                ..all
            },
            crash,
        ),
        without(
            "fencing of every id ever used",
            Rules {
                fence_every_id: false,
                ..all
            },
            Bounds {
                renames: 1,
                ..crash
            },
        ),
        without(
            "dropping what is not decided",
            Rules {
                drop_undecided: false,
                ..all
            },
            crash,
        ),
        without(
            "N decided before N + 1 is prepared",
            Rules {
                decided_before_next: false,
                ..all
            },
            crash,
        ),
        without(
            "the decision within the transaction",
            Rules {
                decision_in_transaction: false,
                ..all
            },
            crash,
        ),
        without(
            "the log durable before the commit",
            Rules {
                log_before_commit: false,
                ..all
            },
            crash,
        ),
        without(
            "the offsets taken before the commit",
            Rules {
                offsets_before_commit: false,
                ..all
            },
            crash,
        ),
        without(
            "a state that knows which ones it supersedes",
            Rules {
                supersede: false,
                ..all
            },
            Bounds { resets: 1, ..crash },
        ),
    ]
}
