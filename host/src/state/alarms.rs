//! The alarm index of a hot table: which slot wants to be called next.
//!
//! Knows slots and times, no keys and no clock. Invariant: every slot with an alarm is either in the heap with a time at
//! or before its alarm, or was handed out by [`Alarms::due`] and not yet looked at again. Alarms that move later cost
//! nothing until their old time comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::{Micros, NO_ALARM};

#[derive(Debug, Default)]
pub(super) struct Alarms {
    slots: Vec<SlotAlarm>,
    heap: BinaryHeap<Reverse<(Micros, u32)>>,
    /// Slots last handed out as due: those that keep their alarm go back into the heap.
    fired: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct SlotAlarm {
    alarm: Micros,
    /// Time of the slot's one live heap entry, [`NO_ALARM`] if it has none. Other entries of the slot are stale.
    queued: Micros,
}

impl Alarms {
    /// Makes room for a slot without an alarm.
    pub fn push_slot(&mut self) {
        self.slots.push(SlotAlarm {
            alarm: NO_ALARM,
            queued: NO_ALARM,
        });
    }

    pub fn get(&self, slot: u32) -> Micros {
        self.slots[slot as usize].alarm
    }

    pub fn set(&mut self, slot: u32, alarm: Micros) {
        let entry = &mut self.slots[slot as usize];
        entry.alarm = alarm;
        if alarm < entry.queued {
            entry.queued = alarm;
            self.heap.push(Reverse((alarm, slot)));
            self.drop_stale_entries();
        }
    }

    /// Appends the slots whose alarm is at or before `until`, in no particular order, each once. Alarms stay as they are.
    pub fn due(&mut self, until: Micros, out: &mut Vec<u32>) {
        self.requeue_fired();
        while let Some(&Reverse((time, slot))) = self.heap.peek() {
            if time > until {
                break;
            }
            self.heap.pop();
            if !self.unqueue(time, slot) {
                continue;
            }
            let alarm = self.get(slot);
            if alarm <= until && alarm != NO_ALARM {
                out.push(slot);
                self.fired.push(slot);
            } else {
                self.set(slot, alarm);
            }
        }
    }

    /// The slot's alarm is being looked at outside a round of [`due`](Self::due): it is due again in the next.
    pub fn hand_out(&mut self, slot: u32) {
        self.slots[slot as usize].queued = NO_ALARM;
        self.fired.push(slot);
    }

    /// What the alarms that are set take besides their slots.
    pub fn queue_bytes(&self) -> usize {
        self.heap.len() * size_of::<(Micros, u32)>()
    }

    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<SlotAlarm>()
            + self.heap.capacity() * size_of::<(Micros, u32)>()
            + self.fired.capacity() * size_of::<u32>()
    }

    /// The entry popped was the slot's live one.
    fn unqueue(&mut self, time: Micros, slot: u32) -> bool {
        let entry = &mut self.slots[slot as usize];
        let live = entry.queued == time;
        if live {
            entry.queued = NO_ALARM;
        }
        live
    }

    fn requeue_fired(&mut self) {
        while let Some(slot) = self.fired.pop() {
            let alarm = self.get(slot);
            self.set(slot, alarm);
        }
    }

    /// Alarms that move earlier again and again leave entries behind: bounded to as many as there are slots.
    fn drop_stale_entries(&mut self) {
        if self.heap.len() <= 2 * self.slots.len() + 64 {
            return;
        }
        self.heap.clear();
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            entry.queued = entry.alarm;
            if entry.alarm != NO_ALARM {
                self.heap.push(Reverse((entry.alarm, slot as u32)));
            }
        }
    }
}
