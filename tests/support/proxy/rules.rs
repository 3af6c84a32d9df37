//! Which frames are tampered with and how. Knows no sockets.

use std::time::Duration;

use super::frame::{ApiKey, Direction};

#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// The frame is gone; the receiver never hears of it.
    Swallow,
    /// A request reaches the broker twice; the client hears the first answer only.
    Duplicate,
    /// The connection ends instead, both ways.
    Cut,
    /// The frame and what follows it on its way wait so long.
    Delay(Duration),
    /// The frame and what follows it on its way wait until the rule is released.
    Hold,
}

/// Which of the frames that a rule is about it acts on, counted from 1.
#[derive(Debug, Clone, Copy)]
pub(super) enum Selection {
    Every,
    Nth(u64),
    First(u64),
}

impl Selection {
    fn contains(self, number: u64) -> bool {
        match self {
            Self::Every => true,
            Self::Nth(n) => number == n,
            Self::First(n) => number <= n,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) api: ApiKey,
    pub(super) direction: Direction,
    pub(super) selection: Selection,
    /// Acts, and counts, only on frames with these bytes in them.
    pub(super) containing: Option<Vec<u8>>,
    pub(super) action: Action,
    /// Frames it was about since it was made.
    pub(super) seen: u64,
    /// Frames it acted on.
    pub(super) hits: u64,
    /// Over: it acts no more, and what it holds goes on.
    pub(super) over: bool,
}

impl Rule {
    fn is_about(&self, direction: Direction, api: ApiKey, frame: &[u8]) -> bool {
        let holds = |bytes: &Vec<u8>| frame.windows(bytes.len().max(1)).any(|at| at == bytes);
        !self.over
            && self.direction == direction
            && self.api == api
            && self.containing.as_ref().is_none_or(holds)
    }
}

/// What happens to a frame: the number of the first rule that acts on it, and its action. All rules about it count it.
pub(super) fn judge(
    rules: &mut [Rule],
    direction: Direction,
    api: ApiKey,
    frame: &[u8],
) -> Option<(usize, Action)> {
    let mut verdict = None;
    for (number, rule) in rules.iter_mut().enumerate() {
        if !rule.is_about(direction, api, frame) {
            continue;
        }
        rule.seen += 1;
        if verdict.is_none() && rule.selection.contains(rule.seen) {
            rule.hits += 1;
            verdict = Some((number, rule.action));
        }
    }
    verdict
}
