//! Named points of the checkpoint protocol at which a drill may end the process, as a power cut would.
//!
//! `TIDEMILL_CRASH_AT=NAME` aborts at the first pass of the point `NAME`, `NAME:3` at the third. Always compiled in: what
//! is drilled is what runs. Costs a look at one variable a pass; no point lies on the way of a record.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const VARIABLE: &str = "TIDEMILL_CRASH_AT";

/// The points, in the order in which a start and a checkpoint come by.
pub const POINTS: &[&str] = &[
    "start-locked",
    "start-fenced",
    "start-decision-read",
    "start-resolved",
    "start-prepared",
    "start-decided",
    "frozen",
    "followers-synced",
    "decision-sent",
    "flushed",
    "offsets-sent",
    "log-written",
    "prepared",
    "committed",
    "decided",
    "followers-done",
    "released",
];

struct Drill {
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
        eprintln!("{VARIABLE}: ending at `{name}`");
        std::process::abort();
    }
}

fn drill() -> Option<Drill> {
    let asked = std::env::var(VARIABLE).ok()?;
    let (point, pass) = asked.split_once(':').unwrap_or((&asked, "1"));
    let pass: u64 = pass.parse().unwrap_or(0);
    if pass == 0 || !POINTS.contains(&point) {
        let known = POINTS.join(", ");
        eprintln!("{VARIABLE}={asked}: not NAME or NAME:COUNT with one of {known}; no drill");
        return None;
    }
    Some(Drill {
        point: point.to_owned(),
        left: AtomicU64::new(pass),
    })
}
