//! `state_ttl` of a keyed plugin: a key that no row and no alarm touched for so long in event time is forgotten, state
//! and alarm.
//!
//! A row touches its key at its event time, or at the watermark if that is later; an alarm at its own. Whether a key is
//! forgotten follows from these times alone: a row finds its key forgotten also if the sweep of the table has not come to
//! it, and also within one batch, so that how rows are cut into calls and epochs does not matter.

use std::collections::HashMap;

use super::{Keyed, Settled};
use crate::batch::Batch;
use crate::plugin::AlarmClock;
use crate::state::keyed::KeyedTable;
use crate::step::{Output, StepError};
use crate::time::{Micros, NO_ALARM, NO_TIME};

/// When the alarms of slots fired last. One that an alarm sets at or before itself waits for the next tick: it would fire
/// for ever.
#[derive(Default)]
struct Fired(HashMap<u32, Micros>);

impl Fired {
    fn may_fire(&self, slot: u32, table: &KeyedTable) -> bool {
        self.0
            .get(&slot)
            .is_none_or(|&last| table.alarm(slot) > last)
    }

    fn note(&mut self, slots: &[u32], at: Micros) {
        self.0.extend(slots.iter().map(|&slot| (slot, at)));
    }

    fn has_some(&self) -> bool {
        !self.0.is_empty()
    }
}

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
        // They are due all the same, though the watermark that fires alarms is not there yet.
        let mut fired = Fired::default();
        while self.alarms_touch() {
            // No further than to where the key is not over any more: what is due then fires with the row.
            let rings = |&(slot, at): &(u32, Micros)| {
                let expires = self.table.expires(slot);
                expires <= at
                    && self.table.alarm(slot) < expires
                    && fired.may_fire(slot, &self.table)
            };
            let ringing = over.iter().copied().filter(rings);
            let mut ringing: Vec<u32> = ringing.map(|(slot, _)| slot).collect();
            if ringing.is_empty() {
                break;
            }
            let order = |&slot: &u32| (self.table.alarm(slot), self.table.key(slot));
            ringing.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
            self.fire_each(&ringing, &mut fired, out)?;
        }
        let mut forgotten = 0;
        for &(slot, at) in over {
            if self.table.expires(slot) <= at {
                self.table.forget(slot);
                forgotten += 1;
            }
        }
        self.table.count_forgotten(forgotten);
        Ok(fired.has_some())
    }

    /// Whether an alarm touches its key at a time of its own. Then it fires alone: one that it sets touches the key again,
    /// and how far event time has come at once must not decide whether it does.
    pub(super) fn alarms_touch(&self) -> bool {
        let alarms = self.instance.component().description().alarms;
        self.spec.state_ttl.is_some() && alarms == AlarmClock::EventTime
    }

    /// All alarms that are due by `until`, also those that alarms set.
    pub(super) fn fire_in_turn(
        &mut self,
        until: Micros,
        out: &mut Output,
    ) -> Result<(), StepError> {
        let (mut fired, mut due) = (Fired::default(), Vec::new());
        loop {
            let mut any = false;
            self.table.ring(until);
            while self.table.next_due(&mut due).map_err(StepError::Failed)? {
                due.retain(|&slot| fired.may_fire(slot, &self.table));
                any |= !due.is_empty();
                self.fire_each(&due, &mut fired, out)?;
            }
            if !any {
                return Ok(());
            }
        }
    }

    /// The alarms of these slots, which are in their order, as at their own times.
    fn fire_each(
        &mut self,
        due: &[u32],
        fired: &mut Fired,
        out: &mut Output,
    ) -> Result<(), StepError> {
        let mut rest = due;
        while let Some(&first) = rest.first() {
            let at = self.table.alarm(first);
            let same = rest
                .iter()
                .take_while(|&&slot| self.table.alarm(slot) == at);
            let (slots, later) = rest.split_at(same.count());
            fired.note(slots, at);
            self.fire_slots(slots, at, out)?;
            rest = later;
        }
        Ok(())
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
