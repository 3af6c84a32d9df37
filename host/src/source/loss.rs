//! Input that is gone unread: how much of it, as far as that can be known.
//!
//! Counts only; a source finds losses, the checkpoint keeps them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was lost of a partition, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Offsets that were left out. Of Kafka: records, and the markers of transactions, which take offsets too.
    pub records: u64,
    /// How many times more was lost than anybody can know: a topic was created anew, or ends before what was read of it.
    pub unknown: u64,
}

impl Lost {
    /// So many records.
    pub fn records(records: u64) -> Self {
        Self {
            records,
            unknown: 0,
        }
    }

    /// Nobody knows how many.
    pub fn unknown() -> Self {
        Self {
            records: 0,
            unknown: 1,
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub fn add(&mut self, other: Self) {
        self.records = self.records.saturating_add(other.records);
        self.unknown = self.unknown.saturating_add(other.unknown);
    }

    /// Of all partitions together.
    pub fn total<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut total = Self::default();
        all.into_iter().for_each(|lost| total.add(*lost));
        total
    }
}

/// `380 records`, `an unknown number of records, once`, or both.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.records == 1 { "" } else { "s" };
        let known = format!("{} record{plural}", self.records);
        let unknown = match self.unknown {
            0 => return f.write_str(&known),
            1 => "an unknown number of records, once".to_owned(),
            n => format!("an unknown number of records, {n} times"),
        };
        match self.records {
            0 => f.write_str(&unknown),
            _ => write!(f, "{known} and {unknown}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_add_up_and_say_what_is_not_known() {
        let shown = |records, unknown| Lost { records, unknown }.to_string();
        assert_eq!(shown(0, 0), "0 records");
        assert_eq!(shown(1, 0), "1 record");
        assert_eq!(shown(0, 1), "an unknown number of records, once");
        assert_eq!(
            shown(380, 2),
            "380 records and an unknown number of records, 2 times"
        );
        let total = Lost::total(&[Lost::records(3), Lost::unknown(), Lost::records(u64::MAX)]);
        assert_eq!((total.records, total.unknown), (u64::MAX, 1));
        assert!(Lost::default().is_none() && !total.is_none());
    }
}
