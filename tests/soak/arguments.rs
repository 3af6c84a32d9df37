//! What the soak is asked for on its command line.

use std::time::Duration;

pub const USAGE: &str = "\
cargo test --release --test soak -- [options]
  --rounds N             disturbances of the pipeline (default 25)
  --minutes M            disturb for so long instead
  --seed S               of all that is drawn; printed (default: from the clock)
  --delivery D           exactly-once (default) | at-least-once, which must double something:
                         the check can fail
  --workers W            worker threads of the pipeline (default 2)
  --partitions P         of each topic (default 4)
  --keys K               different keys (default 200)
  --rate R               records a second (default 2000)
  --brokers B            1 | 3; one at a time is killed, too (default 1)
  --checkpoint-every D   as in the pipeline file (default 100ms)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

impl Delivery {
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }
}

/// How long it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Rounds(usize),
    Time(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    pub length: Length,
    pub seed: u64,
    pub delivery: Delivery,
    pub workers: usize,
    pub partitions: u32,
    pub keys: u32,
    pub rate: u32,
    pub brokers: usize,
    pub checkpoint_every: String,
}

impl Arguments {
    pub fn new(seed: u64) -> Self {
        Self {
            length: Length::Rounds(25),
            seed,
            delivery: Delivery::ExactlyOnce,
            workers: 2,
            partitions: 4,
            keys: 200,
            rate: 2_000,
            brokers: 1,
            checkpoint_every: "100ms".to_owned(),
        }
    }

    /// The command that does the same again; how long each thing takes is not in it.
    pub fn command(&self) -> String {
        let length = match self.length {
            Length::Rounds(rounds) => format!("--rounds {rounds}"),
            Length::Time(time) => format!("--minutes {}", time.as_secs_f64() / 60.0),
        };
        format!(
            "cargo test --release --test soak -- {length} --seed {} --delivery {} --workers {} --partitions {} --keys {} \
             --rate {} --brokers {} --checkpoint-every {}",
            self.seed,
            self.delivery.name(),
            self.workers,
            self.partitions,
            self.keys,
            self.rate,
            self.brokers,
            self.checkpoint_every
        )
    }
}

/// What to do; `Asked` if there are options, in which case only that is done.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    Default(Arguments),
    Asked(Arguments),
    /// Other tests were named, or only a list of tests is wanted.
    Nothing,
    Help,
}

/// Reads the arguments. Those of the test runner itself, which `cargo test` hands to every target, are left alone.
pub fn read(arguments: impl Iterator<Item = String>, seed: u64) -> Result<Task, String> {
    let mut arguments = arguments;
    let mut read = Arguments::new(seed);
    let mut asked = false;
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--list" => return Ok(Task::Nothing),
            "--help" | "-h" => return Ok(Task::Help),
            "--nocapture" | "--exact" | "--include-ignored" | "--quiet" | "-q" => continue,
            "--skip" | "--test-threads" | "--format" | "--color" => {
                arguments.next();
                continue;
            }
            word if !word.starts_with('-') => match "soak".contains(word) {
                true => continue,
                false => return Ok(Task::Nothing),
            },
            _ => {}
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{option} lacks its value\n{USAGE}"))?;
        set(&mut read, &option, &value)?;
        asked |= option != "--seed";
    }
    Ok(match asked {
        true => Task::Asked(read),
        false => Task::Default(read),
    })
}

fn set(read: &mut Arguments, option: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("{option} cannot be {value:?}\n{USAGE}");
    let number = || value.parse::<u64>().map_err(|_| wrong());
    let positive = || number().and_then(|n| if n > 0 { Ok(n) } else { Err(wrong()) });
    match option {
        "--rounds" => read.length = Length::Rounds(positive()? as usize),
        "--minutes" => {
            let minutes: f64 = value.parse().map_err(|_| wrong())?;
            let time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| wrong())?;
            read.length = Length::Time(time);
        }
        "--seed" => read.seed = number()?,
        "--delivery" => {
            let all = [Delivery::ExactlyOnce, Delivery::AtLeastOnce];
            let found = all.into_iter().find(|d| d.name() == value);
            read.delivery = found.ok_or_else(wrong)?;
        }
        "--workers" => read.workers = positive()? as usize,
        "--partitions" => read.partitions = positive()?.min(1_000) as u32,
        "--keys" => read.keys = positive()?.min(1_000_000) as u32,
        "--rate" => read.rate = positive()?.min(1_000_000) as u32,
        "--brokers" if value == "1" || value == "3" => read.brokers = number()? as usize,
        "--checkpoint-every" => read.checkpoint_every = value.to_owned(),
        "--brokers" => return Err(wrong()),
        _ => return Err(format!("unknown option {option}\n{USAGE}")),
    }
    Ok(())
}
