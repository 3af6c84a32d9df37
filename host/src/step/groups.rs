//! Rows of one call by key: slots of the state's table become dense group numbers.
//!
//! Invariant: groups are numbered from 0 in the order in which they are first seen in the call.

/// Numbers the keys of a call 0.. in order of their first row.
#[derive(Debug, Default)]
pub struct Groups {
    /// By slot: the call that last saw it, and its group there.
    seen: Vec<(u32, u32)>,
    call: u32,
    /// The slot of each group in the table.
    pub slots: Vec<u32>,
    pub of_row: Vec<u32>,
    /// The first row of each group that has rows.
    pub first_rows: Vec<u32>,
}

impl Groups {
    /// A new call: forgets the groups of the last one.
    pub fn begin(&mut self) {
        self.call = self.call.wrapping_add(1);
        if self.call == 0 {
            self.seen.fill((0, 0));
            self.call = 1;
        }
        self.slots.clear();
        self.of_row.clear();
        self.first_rows.clear();
    }

    /// Row `row` belongs to the key in `slot`.
    pub fn add(&mut self, slot: u32, row: u32) {
        if self.seen.len() <= slot as usize {
            self.seen
                .resize((slot as usize + 1).next_power_of_two(), (0, 0));
        }
        let seen = &mut self.seen[slot as usize];
        if seen.0 != self.call {
            *seen = (self.call, self.slots.len() as u32);
            self.slots.push(slot);
            self.first_rows.push(row);
        }
        self.of_row.push(seen.1);
    }

    /// A group without rows.
    pub fn push(&mut self, slot: u32) {
        self.slots.push(slot);
    }
}
