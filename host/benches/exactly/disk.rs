//! What the machine gives at the time: how long the disk takes to make a page durable, where the state directories of the
//! benchmarks are, and how many others want its cores.

use std::io::Write;
use std::time::{Duration, Instant};

const SYNCS: usize = 200;
const PAGE_BYTES: usize = 4_096;

/// Writes pages of 4 KB, each with its sync, and prints what that took, and the load.
pub fn report() {
    let dir = tempfile::TempDir::new().expect("a temporary folder");
    let mut file = tempfile::tempfile_in(dir.path()).expect("the folder is ours");
    let mut times: Vec<Duration> = (0..SYNCS).map(|_| sync(&mut file)).collect();
    times.sort_unstable();
    let millis = |at: usize| times[at].as_secs_f64() * 1e3;
    println!(
        "fsync of 4 KB: median {:.2} ms, p99 {:.2} ms ({SYNCS} writes); load {}",
        millis(SYNCS / 2),
        millis((SYNCS * 99).div_ceil(100) - 1),
        load()
    );
}

/// Processes that ran or wanted to, on average of the last minute, of how many cores.
fn load() -> String {
    let averages = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = averages.split(' ').next().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{minute} on {cores} cores")
}

fn sync(file: &mut std::fs::File) -> Duration {
    let at = Instant::now();
    file.write_all(&[0x5a; PAGE_BYTES])
        .and_then(|()| file.sync_data())
        .expect("room on the disk");
    at.elapsed()
}
