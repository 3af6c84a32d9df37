//! What of a topic is gone before it was read, and what a source does about it.
//!
//! Numbers and words only: no cluster is asked here. Invariant: a position that the topic does not have is never read from;
//! where reading goes on instead is the pipeline file's choice, and counted.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::format::timestamp;
use crate::pipeline::plan::OnDataLoss;
use crate::source::Lost;

/// The ways out of a stop, as every refusal here ends.
const WAYS_OUT: &str = "To go on without what is gone, counted as a loss: on_data_loss = \"earliest\" or \"latest\" in the \
     `kafka` table of the source. To begin somewhere else: tidemill reset PIPELINE --to earliest, a time or a file of offsets. \
     `tidemill reset` alone gives up the pipeline's state and starts anew";

/// Where reading goes on in a partition that has offsets from `range.0` up to `range.1`, and what is lost by that. `None` if
/// the position is not there any more and the rule is to stop.
pub(super) fn resume(rule: OnDataLoss, position: i64, range: (i64, i64)) -> Option<(i64, Lost)> {
    let (low, high) = range;
    if (low..=high).contains(&position) {
        return Some((position, Lost::default()));
    }
    let start = match rule {
        OnDataLoss::Stop => return None,
        OnDataLoss::Earliest => low,
        OnDataLoss::Latest => high,
    };
    // Beyond the end nobody knows what stood between there and here.
    let lost = match u64::try_from(start - position) {
        Ok(skipped) if position < low => Lost::records(skipped),
        _ => Lost::unknown(),
    };
    Some((start, lost))
}

/// What is wrong with a position that the partition does not have: `partition 0: reading goes on at ...`.
pub(super) fn out_of_range(partition: i32, position: i64, range: (i64, i64)) -> String {
    let (low, high) = range;
    let what = match position < low {
        true => format!(
            "{} were deleted before they were read",
            Lost::records(u64::try_from(low - position).unwrap_or(0))
        ),
        false => {
            "the topic is shorter than what was read: was it deleted and created anew, or cut off?"
                .into()
        }
    };
    format!(
        "partition {partition}: reading goes on at offset {position}, but the topic has offsets {low} to {high} ({what})"
    )
}

pub(super) fn refusal(what: &str) -> String {
    format!("{what}. {WAYS_OUT}")
}

/// What tells that a topic was deleted and created anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Anew {
    /// The id that its positions are of, and the one it has now.
    Id { was: String, is: String },
    /// A partition of which there is a position, and which the topic does not have. Topics do not shrink.
    Without { partition: i32 },
}

impl Anew {
    /// `found` is when, as text.
    pub(super) fn told(&self, topic: &str, found: &str) -> String {
        let sign = match self {
            Self::Id { was, is } => format!("its id was {was}, now it is {is}"),
            Self::Without { partition } => {
                format!("it has no partition {partition}, of which the state has a position")
            }
        };
        format!(
            "topic {topic} was deleted and created anew ({sign}; found at {found}): what was not read of the old one is gone, \
             and offsets in it say nothing of the new one"
        )
    }
}

/// Wall time as text, for messages.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    timestamp::show(i64::try_from(micros).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_is_there_is_kept_whatever_the_rule() {
        for rule in [OnDataLoss::Stop, OnDataLoss::Earliest, OnDataLoss::Latest] {
            for position in [5, 7, 10] {
                let kept = Some((position, Lost::default()));
                assert_eq!(resume(rule, position, (5, 10)), kept);
            }
        }
    }

    #[test]
    fn what_is_skipped_is_counted_exactly_and_what_cannot_be_known_is_said() {
        use OnDataLoss::{Earliest, Latest, Stop};
        let range = (5, 10);
        assert_eq!(resume(Stop, 2, range), None);
        assert_eq!(resume(Stop, 11, range), None);
        assert_eq!(resume(Earliest, 2, range), Some((5, Lost::records(3))));
        assert_eq!(resume(Latest, 2, range), Some((10, Lost::records(8))));
        assert_eq!(resume(Earliest, 11, range), Some((5, Lost::unknown())));
        assert_eq!(resume(Latest, 11, range), Some((10, Lost::unknown())));
    }

    #[test]
    fn a_refusal_names_both_sides_and_the_ways_out() {
        let text = refusal(&out_of_range(3, 2, (5, 10)));
        for part in [
            "partition 3",
            "offset 2,",
            "5 to 10",
            "3 records were deleted before they were read",
            "on_data_loss",
            "tidemill reset PIPELINE --to",
        ] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert!(out_of_range(3, 11, (5, 10)).contains("shorter than what was read"));
        let anew = Anew::Id {
            was: "a".into(),
            is: "b".into(),
        };
        let text = anew.told("orders", "2026-01-01T00:00:00Z");
        assert!(text.contains("orders") && text.contains("was a, now it is b"));
    }
}
