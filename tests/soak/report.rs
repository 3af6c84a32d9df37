//! What a soak found, as a table.

use std::time::Duration;

use crate::arguments::{Arguments, Delivery};
use crate::blows::Blow;
use crate::expected::{Output, Verdict};

#[derive(Debug, Default)]
pub struct Report {
    /// Blows by their place in [`Blow::ALL`]; how many of them fell before the host had written anything.
    pub blows: [(u32, u32); Blow::ALL.len()],
    /// From a start to the first record that a reader of committed records saw.
    pub restarts: Vec<Duration>,
    /// The same from the end of a pause, or from a broker's return, under a host that lived on.
    pub resumptions: Vec<Duration>,
    pub inputs: u64,
    /// Acknowledged inputs that the input topic does not hold: Kafka's fault, or the load's.
    pub inputs_lost: u64,
    pub verdicts: Vec<(Output, Verdict)>,
    /// What the concurrent reader saw otherwise than it is now.
    pub unstable: Vec<String>,
    pub took: Duration,
}

impl Report {
    pub fn print(&self, arguments: &Arguments) {
        let rounds: u32 = self.blows.iter().map(|(count, _)| count).sum();
        println!(
            "\n{rounds} rounds in {:.0} s, delivery {}, {} broker(s), {} worker(s), checkpoint every {}, {} records in",
            self.took.as_secs_f64(),
            arguments.delivery.name(),
            arguments.brokers,
            arguments.workers,
            arguments.checkpoint_every,
            self.inputs
        );
        println!("\n| blow | rounds | before the first output |\n|---|---|---|");
        for (blow, (count, early)) in Blow::ALL.iter().zip(self.blows) {
            println!("| {} | {count} | {early} |", blow.name());
        }
        println!(
            "\n| output | rows due | lost | doubled | foreign | out of order |\n|---|---|---|---|---|---|"
        );
        for (output, v) in &self.verdicts {
            println!(
                "| {} | {} | {} | {} | {} | {} |",
                output.name(),
                v.expected,
                v.lost,
                v.doubled,
                v.foreign,
                v.disordered
            );
        }
        println!();
        print_times("a start", &self.restarts);
        print_times("a pause or a broker's return", &self.resumptions);
        println!(
            "concurrent reader: {} partitions differ from the log",
            self.unstable.len()
        );
        self.unstable.iter().for_each(|line| println!("  {line}"));
        println!("seed {}; again: {}", arguments.seed, arguments.command());
    }

    /// Why this is not what was promised, if it is not.
    pub fn failure(&self, delivery: Delivery) -> Option<String> {
        let sum = |of: fn(&Verdict) -> u64| self.verdicts.iter().map(|(_, v)| of(v)).sum::<u64>();
        if self.inputs_lost > 0 {
            return Some(format!("{} acknowledged inputs are gone", self.inputs_lost));
        }
        if self.verdicts.iter().any(|(_, v)| v.expected == 0) {
            return Some("an output has nothing to compare: let it run longer".to_owned());
        }
        if !self.unstable.is_empty() {
            return Some("a reader of committed records saw what is not so".to_owned());
        }
        match delivery {
            Delivery::ExactlyOnce if self.verdicts.iter().all(|(_, v)| v.is_clean()) => None,
            Delivery::ExactlyOnce => Some("not exactly once".to_owned()),
            Delivery::AtLeastOnce if sum(|v| v.lost) > 0 => {
                Some("not even at least once".to_owned())
            }
            Delivery::AtLeastOnce if sum(|v| v.doubled) == 0 => {
                Some("nothing came twice: that this check would see it is not shown".to_owned())
            }
            Delivery::AtLeastOnce => None,
        }
    }
}

fn print_times(since: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let seconds = |share| quantile(&sorted, share).map(|time| time.as_secs_f64());
    if let (Some(half), Some(most)) = (seconds(0.5), seconds(0.99)) {
        println!(
            "first committed output after {since}: p50 {half:.2} s, p99 {most:.2} s, {} times",
            sorted.len()
        );
    }
}

/// The value that a share of all is not above.
fn quantile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}
