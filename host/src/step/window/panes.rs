//! Windows and the panes they are made of, as numbers: a row belongs to one pane, a window is some panes in a row.
//!
//! Knows no rows and no state. Panes and windows are half-open and aligned to 1970.

use crate::pipeline::plan::WindowKind;
use crate::time::Micros;

/// Windows of `size` that begin every `every`; `every` divides `size` and is the length of a pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panes {
    pub size: Micros,
    pub every: Micros,
}

impl Panes {
    /// `None` for sessions, which have no panes.
    pub fn new(kind: WindowKind) -> Option<Self> {
        match kind {
            WindowKind::Tumbling(size) => Some(Self { size, every: size }),
            WindowKind::Sliding { size, every } => Some(Self { size, every }),
            WindowKind::Session(_) => None,
        }
    }

    /// The start of the pane that `time` lies in.
    pub fn pane(&self, time: Micros) -> Micros {
        time - time.rem_euclid(self.every)
    }

    /// The end of the first window that has this pane.
    pub fn first_end(&self, pane: Micros) -> Micros {
        pane.saturating_add(self.every)
    }

    /// The end of the last window that has this pane.
    pub fn last_end(&self, pane: Micros) -> Micros {
        pane.saturating_add(self.size)
    }

    /// The ends of the windows that have this pane and end after `after` and not after `until`.
    pub fn ends(
        &self,
        pane: Micros,
        after: Micros,
        until: Micros,
    ) -> impl Iterator<Item = Micros> + use<> {
        let Self { every, .. } = *self;
        let first = self.first_end(pane);
        let skipped = match after.checked_sub(first) {
            Some(over) if over >= 0 => (over / every + 1).saturating_mul(every),
            _ => 0,
        };
        let last = self.last_end(pane).min(until);
        let next = move |end: &Micros| end.checked_add(every);
        std::iter::successors(first.checked_add(skipped), next).take_while(move |end| *end <= last)
    }

    /// The panes of the window that ends at `end`.
    pub fn of_window(&self, end: Micros) -> std::ops::Range<Micros> {
        end.saturating_sub(self.size)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(
        size: Micros,
        every: Micros,
        pane: Micros,
        after: Micros,
        until: Micros,
    ) -> Vec<Micros> {
        Panes { size, every }.ends(pane, after, until).collect()
    }

    #[test]
    fn panes_are_aligned_before_1970_too() {
        let panes = Panes {
            size: 10,
            every: 10,
        };
        assert_eq!(
            [-11, -10, -1, 0, 9, 10].map(|t| panes.pane(t)),
            [-20, -10, -10, 0, 0, 10]
        );
    }

    #[test]
    fn a_pane_is_in_size_by_every_windows() {
        assert_eq!(ends(10, 10, 20, i64::MIN, i64::MAX), [30]);
        assert_eq!(ends(6, 2, 20, i64::MIN, i64::MAX), [22, 24, 26]);
        assert_eq!(ends(6, 2, 20, 21, i64::MAX), [22, 24, 26]);
        assert_eq!(ends(6, 2, 20, 22, i64::MAX), [24, 26]);
        assert_eq!(ends(6, 2, 20, 23, 25), [24]);
        assert_eq!(ends(6, 2, 20, 26, i64::MAX), [0; 0]);
        assert_eq!(ends(6, 2, 20, i64::MIN, 21), [0; 0]);
    }
}
