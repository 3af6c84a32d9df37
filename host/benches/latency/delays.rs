//! Delays, in one line.

use tidemill::time::Micros;

/// Prints how many there are and how they are spread; returns the 99th percentile, in milliseconds, if there are any.
pub fn report(what: &str, mut delays: Vec<Micros>) -> Option<f64> {
    if delays.is_empty() {
        println!("{what}: no results");
        return None;
    }
    delays.sort_unstable();
    let at = |share: f64| {
        let index = ((delays.len() - 1) as f64 * share).round() as usize;
        delays[index] as f64 / 1e3
    };
    println!(
        "{what}: {} results; p50 {:.1} ms, p95 {:.1}, p99 {:.1}, max {:.1}",
        delays.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
    Some(at(0.99))
}
