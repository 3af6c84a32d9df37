//! What a hot table's time brings: alarms that are due, and keys that nobody touched for too long, those on disk included.
//!
//! Knows no clock: what time it is comes in. Invariant: a key with an alarm at or before `Round::taken` is in the table.

use super::super::alarms::Alarms;
use super::super::stored::Timer;
use super::KeyedTable;
use crate::state::key::key_hash;
use crate::time::{END_OF_TIME, Micros, NO_ALARM, NO_TIME};

/// An expiry may stand in the index this share of the time to live too late: a key that is touched again before is not
/// moved there.
const EXPIRY_SHARE: Micros = 32;

/// The alarms that are due at one tick.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// All stored alarms at or before it have come into the table; `None` before the first round.
    pub taken: Option<Micros>,
    until: Micros,
    /// Slots that were in the table when the round began, descending by alarm and key.
    waiting: Vec<u32>,
    /// The index has more: behind this time and key.
    stored: Option<Option<(Micros, Vec<u8>)>>,
    done: bool,
}

/// Keys are forgotten that were not touched for `micros`.
#[derive(Debug)]
pub(super) struct Ttl {
    micros: Micros,
    /// Alarms are in event time, as the touches are.
    event_time: bool,
    pub shift: u8,
    /// When a slot's key is forgotten.
    pub hot: Alarms,
    /// The watermark at which keys were last forgotten.
    watermark: Micros,
    /// Stored keys are forgotten up to this time and key.
    taken: Option<(Micros, Vec<u8>)>,
    /// ... or up to this time, whatever the key.
    taken_until: Option<Micros>,
}

impl KeyedTable {
    /// Keys are forgotten once event time is `micros` behind their last [touch](Self::touch); `event_time` says that alarms
    /// are in event time. Only for a table that is empty.
    pub fn with_ttl(mut self, micros: Micros, event_time: bool) -> Self {
        debug_assert!(self.slots.is_empty());
        let step = (micros / EXPIRY_SHARE).max(1);
        self.ttl = Some(Ttl {
            micros,
            event_time,
            shift: step.ilog2() as u8,
            hot: Alarms::default(),
            watermark: NO_TIME,
            taken: None,
            taken_until: None,
        });
        self
    }

    /// The watermark that keys were forgotten at before the state was stored: those that the sweep had not come to are as
    /// good as forgotten still.
    pub fn resume_at(&mut self, watermark: Micros) {
        if let Some(ttl) = self.ttl.as_mut().filter(|_| watermark != END_OF_TIME) {
            ttl.watermark = watermark;
        }
    }

    /// Begins a round of the alarms at or before `until`, each once: one that is set during the round waits for the next.
    /// [`next_due`](Self::next_due) gives them.
    pub fn ring(&mut self, until: Micros) {
        let mut waiting = std::mem::take(&mut self.round.waiting);
        waiting.clear();
        self.alarms.due(until, &mut waiting);
        waiting.retain(|&slot| self.rings(slot));
        waiting.sort_unstable_by(|a, b| self.ring_order(*b).cmp(&self.ring_order(*a)));
        let taken = self.round.taken;
        let stored = !self.residence.complete && taken < Some(until);
        self.round = Round {
            taken,
            until,
            waiting,
            stored: stored.then(|| taken.map(|t| (t.saturating_add(1), Vec::new()))),
            done: false,
        };
    }

    /// The next slots of the round, in order of alarm, then key; some thousands at a time where they come from disk. False
    /// when there are no more. The alarms stay: set new ones, or the same slots are due in the next round.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn next_due(&mut self, out: &mut Vec<u32>) -> Result<bool, String> {
        out.clear();
        if self.round.done {
            return Ok(false);
        }
        let more = self.take_stored(out)?;
        match &more {
            Some((time, key)) => {
                let mut waiting = std::mem::take(&mut self.round.waiting);
                let first =
                    waiting.partition_point(|&s| self.ring_order(s) > (*time, key.as_slice()));
                out.extend(waiting.drain(first..));
                self.round.waiting = waiting;
            }
            None => {
                out.append(&mut self.round.waiting);
                self.round.taken = self.round.taken.max(Some(self.round.until));
                self.round.done = true;
            }
        }
        out.sort_unstable_by(|a, b| self.ring_order(*a).cmp(&self.ring_order(*b)));
        self.round.stored = more.map(Some);
        Ok(true)
    }

    /// The next keys of the index come into the table, and into `out`. The last of them, if there may be more.
    fn take_stored(&mut self, out: &mut Vec<u32>) -> Result<Option<(Micros, Vec<u8>)>, String> {
        let (Some(after), Some(store)) = (self.round.stored.take(), self.residence.store.clone())
        else {
            return Ok(None);
        };
        let after = after.as_ref().map(|(time, key)| (*time, key.as_slice()));
        let mut found = Vec::new();
        let more = store.timers(
            Timer::Alarm,
            after,
            self.round.until,
            self.residence.slice,
            &mut |time, key| found.push((time, key.to_vec())),
        )?;
        for (_, key) in &found {
            let hash = key_hash(key);
            // Of a key that is here the alarm is known; the index may have an older one.
            if self.find(hash, key).is_none() {
                let slot = self.insert_clean(hash, key);
                self.residence.unread.push(slot);
            }
        }
        let mut lost = false;
        self.read_unread(|table, (slot, is_stored)| {
            lost |= !is_stored || table.alarm(slot) == NO_ALARM;
            table.alarms.hand_out(slot);
            if table.rings(slot) {
                out.push(slot);
            }
        })?;
        if lost {
            return Err("the index of alarms in state.redb names a key that has none; restore the state directory from a snapshot".into());
        }
        Ok(if more { found.pop() } else { None })
    }

    fn ring_order(&self, slot: u32) -> (Micros, &[u8]) {
        (self.alarm(slot), self.key(slot))
    }

    /// Whether the key is still remembered at its alarm.
    fn rings(&self, slot: u32) -> bool {
        match &self.ttl {
            None => true,
            Some(ttl) if ttl.event_time => self.alarm(slot) < ttl.hot.get(slot),
            Some(ttl) => ttl.watermark < ttl.hot.get(slot),
        }
    }

    /// When the key of a slot is forgotten if nobody touches it; [`NO_ALARM`]: never.
    pub fn expires(&self, slot: u32) -> Micros {
        self.ttl.as_ref().map_or(NO_ALARM, |ttl| ttl.hot.get(slot))
    }

    /// A row or an alarm of the key at this event time.
    pub fn touch(&mut self, slot: u32, time: Micros) {
        let Some(ttl) = &mut self.ttl else {
            return;
        };
        let (at, before) = (
            time.saturating_add(ttl.micros).min(NO_ALARM - 1),
            ttl.hot.get(slot),
        );
        if before == NO_ALARM || at > before {
            ttl.hot.set(slot, at);
            self.mark_dirty(slot);
        }
    }

    /// Forgets the keys that nobody touched for so long, of those on disk a bounded number a call: the others are as good
    /// as forgotten, which [`expires`](Self::expires) tells. The end of time is no time that passes.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn expire(&mut self, watermark: Micros) -> Result<(), String> {
        let Some(ttl) = &mut self.ttl else {
            return Ok(());
        };
        if matches!(watermark, NO_TIME | END_OF_TIME) {
            return Ok(());
        }
        ttl.watermark = watermark;
        let mut over = Vec::new();
        ttl.hot.due(watermark, &mut over);
        let mut forgotten = 0;
        for slot in over {
            forgotten += u64::from(self.is_live(slot));
            self.forget(slot);
        }
        forgotten += self.expire_stored(watermark)?;
        self.count_forgotten(forgotten);
        Ok(())
    }

    fn expire_stored(&mut self, watermark: Micros) -> Result<u64, String> {
        let (Some(ttl), Some(store)) = (&mut self.ttl, &self.residence.store) else {
            return Ok(0);
        };
        if self.residence.complete || ttl.taken_until >= Some(watermark) {
            return Ok(0);
        }
        let after = ttl
            .taken
            .as_ref()
            .map(|(time, key)| (*time, key.as_slice()));
        let mut found = Vec::new();
        let more = store.timers(
            Timer::Expiry,
            after,
            watermark,
            self.residence.slice,
            &mut |time, key| found.push((time, key.to_vec())),
        )?;
        let mut forgotten = 0;
        for (_, key) in &found {
            let hash = key_hash(key);
            if self.find(hash, key).is_none() {
                // What it had need not be known to end it.
                let slot = self.insert_clean(hash, key);
                self.slots[slot as usize].stored = true;
                self.mark_dirty(slot);
                forgotten += 1;
            }
        }
        let ttl = self.ttl.as_mut().expect("looked at above");
        ttl.taken = found.pop().or(ttl.taken.take());
        if !more {
            ttl.taken_until = Some(watermark);
        }
        Ok(forgotten)
    }
}
