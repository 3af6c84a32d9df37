//! `state_ttl` of a keyed plugin: a key that no row and no alarm touched for so long in event time is forgotten, state
//! and alarm.
//!
//! A row touches its key at its event time, or at the watermark if that is later; an alarm at its own. Whether a key is
//! forgotten follows from these times alone: a row finds its key forgotten also if the sweep of the table has not come to
//! it, and also within one batch, so that how rows are cut into calls and epochs does not matter.

use super::{Keyed, Settled};
use crate::batch::Batch;
use crate::plugin::AlarmClock;
use crate::step::{Output, StepError};
use crate::time::{Micros, NO_ALARM, NO_TIME};

impl Keyed {
    /// Forgets keys of the call whose time was over before their first row in it, and touches all.
    pub(super) fn settle(
        &mut self,
        batch: &Batch,
        ttl: Micros,
        out: &mut Output,
    ) -> Result<Settled, StepError> {
        let groups = self.groups.slots.len();
        // By group: when its key is forgotten if no other row comes.
        let mut expires = vec![NO_TIME; groups];
        let mut over = Vec::new();
        for (row, (&group, &time)) in
            (self.groups.of_row.iter().zip(batch.times.iter())).enumerate()
        {
            let (group, at) = (group as usize, time.max(self.watermark));
            let slot = self.groups.slots[group];
            let is_first = self.groups.first_rows[group] == row as u32;
            let before = match is_first {
                true => self.table.expires(slot),
                false => expires[group],
            };
            if before <= at && !is_first {
                return Ok(Settled::First(row));
            }
            let touched = at.saturating_add(ttl).min(NO_ALARM - 1);
            expires[group] = match before <= at || before == NO_ALARM {
                true => touched,
                false => before.max(touched),
            };
            if before <= at {
                over.push((slot, at));
            }
        }
        if self.forget(&over, out)? {
            return Ok(Settled::Again);
        }
        for (&slot, &expires) in self.groups.slots.iter().zip(&expires) {
            self.table.touch(slot, expires.saturating_sub(ttl));
        }
        Ok(Settled::All)
    }

    /// Forgets slots that are over at a time each, after alarms that were due before. True if there were some.
    fn forget(&mut self, over: &[(u32, Micros)], out: &mut Output) -> Result<bool, StepError> {
        let rings = |slot: u32| {
            self.instance.component().description().alarms == AlarmClock::EventTime
                && self.table.alarm(slot) < self.table.expires(slot)
        };
        let mut ringing: Vec<u32> = over
            .iter()
            .map(|o| o.0)
            .filter(|&slot| rings(slot))
            .collect();
        if !ringing.is_empty() {
            let order = |&slot: &u32| (self.table.alarm(slot), self.table.key(slot));
            ringing.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
            // They are due all the same, though the watermark that fires alarms is not there yet.
            let last = ringing
                .last()
                .map_or(NO_TIME, |&slot| self.table.alarm(slot));
            self.fire_slots(&ringing, self.watermark.max(last), out)?;
        }
        let mut forgotten = 0;
        for &(slot, at) in over {
            if self.table.expires(slot) <= at {
                self.table.forget(slot);
                forgotten += 1;
            }
        }
        self.table.count_forgotten(forgotten);
        Ok(!ringing.is_empty())
    }

    /// Alarms of these slots fire: that touches their keys.
    pub(super) fn touch_fired(&mut self, slots: &[u32]) {
        if self.spec.state_ttl.is_none() {
            return;
        }
        let in_event_time = self.instance.component().description().alarms == AlarmClock::EventTime;
        for &slot in slots {
            let time = match in_event_time {
                true => self.table.alarm(slot).max(self.watermark),
                false => self.watermark,
            };
            if time != NO_TIME {
                self.table.touch(slot, time);
            }
        }
    }
}
