//! What a command line may say over the pipeline file: `--brokers` and `--set path.to.key=value`.

use std::str::FromStr;

use clap::Args;

use crate::pipeline::Overrides;

/// In place of what the file says.
#[derive(Debug, Args)]
pub struct Over {
    /// Kafka, in place of [kafka] brokers in the file
    #[arg(long, value_name = "embedded|HOST:PORT")]
    brokers: Option<String>,
    /// A value of the pipeline file, for example host.workers=2
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<Set>,
}

impl From<Over> for Overrides {
    fn from(over: Over) -> Self {
        let pairs = over.set.into_iter().map(|set| (set.path, set.value));
        Self {
            set: pairs.collect(),
            brokers: over.brokers,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    path: String,
    value: String,
}

impl FromStr for Set {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((path, value)) if !path.trim().is_empty() => Ok(Self {
                path: path.trim().to_owned(),
                value: value.trim().to_owned(),
            }),
            _ => Err("expected path.to.key=value, for example host.workers=2".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_value() {
        for (text, expected) in [
            ("host.workers=2", Some(("host.workers", "2"))),
            ("a.b = x=y", Some(("a.b", "x=y"))),
            ("a=", Some(("a", ""))),
            ("host.workers", None),
            ("=2", None),
        ] {
            let pair = text.parse::<Set>().ok().map(|set| (set.path, set.value));
            let expected = expected.map(|(p, v)| (p.to_owned(), v.to_owned()));
            assert_eq!(pair, expected, "{text:?}");
        }
    }
}
