//! Named points of checkpoints, snapshots and restores at which a drill may end the process, as a power cut would.
//!
//! `TIDEMILL_CRASH_AT=NAME` aborts at the first pass of the point `NAME`, `NAME:3` at the third. Always compiled in: what
//! is drilled is what runs. Costs a look at one variable a pass; no point lies on the way of a record.
//! `TIDEMILL_PANIC_AT` is the same for a panic of the thread that comes by.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const CRASH: &str = "TIDEMILL_CRASH_AT";
const PANIC: &str = "TIDEMILL_PANIC_AT";

/// The points, in the order in which a start and a checkpoint come by.
pub const POINTS: &[&str] = &[
    "start-locked",
    "start-fenced",
    "start-decision-read",
    "start-resolved",
    "start-prepared",
    "start-decided",
    "epoch",
    "frozen",
    "followers-synced",
    "decision-sent",
    "flushed",
    "log-written",
    "prepared",
    "committed",
    "decided",
    "followers-done",
    "released",
    "snapshot-begun",
    "snapshot-copied",
    "snapshot-hashed",
    "snapshot-whole",
    "restore-copied",
    "restore-ready",
    "restore-marked",
    "restore-aside",
    "restore-cleared",
    "restore-placing",
    "restore-placed",
];

struct Drill {
    variable: &'static str,
    point: String,
    left: AtomicU64,
}

/// Ends the process here if that is asked for.
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is no known point");
    static DRILL: OnceLock<Option<Drill>> = OnceLock::new();
    let Some(drill) = DRILL.get_or_init(drill) else {
        return;
    };
    if drill.point == name && drill.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        if drill.variable == PANIC {
            panic!("{PANIC}: a panic at `{name}`");
        }
        eprintln!("{CRASH}: ending at `{name}`");
        std::process::abort();
    }
}

fn drill() -> Option<Drill> {
    let asked = |variable| Some((variable, std::env::var(variable).ok()?));
    let (variable, asked) = asked(CRASH).or_else(|| asked(PANIC))?;
    let (point, pass) = asked.split_once(':').unwrap_or((&asked, "1"));
    let pass: u64 = pass.parse().unwrap_or(0);
    if pass == 0 || !POINTS.contains(&point) {
        let known = POINTS.join(", ");
        eprintln!("{variable}={asked}: not NAME or NAME:COUNT with one of {known}; no drill");
        return None;
    }
    Some(Drill {
        variable,
        point: point.to_owned(),
        left: AtomicU64::new(pass),
    })
}
