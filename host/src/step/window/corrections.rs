//! Corrected results: late rows within the allowed lateness change windows that were given already.
//!
//! Keeps in memory, and by key in the state, how often the result of a window and key was given anew. Invariant: a
//! window and key that is not in `revisions` was given once if it has rows of before, and never if not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::closing::{self, Merger, only};
use super::frozen::{Frozen, Rows};
use super::part::Part;
use super::table::Table;
use super::{Window, failed};
use crate::expr::Aggregation;
use crate::state::Changes;
use crate::state::key::{key_group, key_hash};
use crate::state::value::Value;
use crate::step::{Output, StepError};
use crate::time::Micros;

/// Bytes of a window's end in front of a key.
const END_BYTES: usize = 8;

pub struct Corrections {
    /// Late rows of this epoch.
    pub table: Table,
    /// By window end and key: the last revision given.
    revisions: BTreeMap<Micros, HashMap<Vec<u8>, u64>>,
    /// Changed since the last checkpoint.
    dirty: HashSet<(Micros, Vec<u8>)>,
    /// Windows whose entries go with the next checkpoint.
    over: Vec<(Micros, Vec<u8>)>,
}

impl Corrections {
    pub fn new(aggregation: &Aggregation) -> Self {
        Self {
            table: Table::new(aggregation),
            revisions: BTreeMap::new(),
            dirty: HashSet::new(),
            over: Vec::new(),
        }
    }

    /// The revision of a result that is given now; `known` says whether there were rows of it before.
    fn next(&mut self, end: Micros, key: &[u8], known: bool) -> u64 {
        let of_window = self.revisions.entry(end).or_default();
        let revision = match of_window.get(key) {
            Some(last) => last + 1,
            None => u64::from(known),
        };
        of_window.insert(key.to_vec(), revision);
        self.dirty.insert((end, key.to_vec()));
        revision
    }

    /// No window that ends by `until` is corrected any more.
    pub fn forget(&mut self, until: Micros) {
        while let Some(entry) = self.revisions.first_entry() {
            if *entry.key() > until {
                return;
            }
            let (end, keys) = entry.remove_entry();
            self.over.extend(keys.into_keys().map(|key| (end, key)));
        }
    }

    /// What changed since the last checkpoint.
    pub fn freeze(&mut self, key_groups: u16, changes: &mut Changes) {
        for (end, key) in self.over.drain(..) {
            self.dirty.remove(&(end, key.clone()));
            changes.delete(key_group(key_hash(&key), key_groups), &entry_key(end, &key));
        }
        for (end, key) in self.dirty.drain() {
            let revision = self.revisions.get(&end).and_then(|keys| keys.get(&key));
            if let Some(revision) = revision {
                let group = key_group(key_hash(&key), key_groups);
                let value = Value::of_state(&revision.to_le_bytes());
                changes.put(group, &entry_key(end, &key), &value);
            }
        }
    }

    /// Takes an entry of a checkpoint back.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let malformed = || "a revision in the state is malformed".to_owned();
        let (end, key) = key.split_first_chunk::<END_BYTES>().ok_or_else(malformed)?;
        let end = (u64::from_be_bytes(*end) ^ (1 << 63)) as Micros;
        let state = Value::read(value)?.state.and_then(|s| s.try_into().ok());
        let revision = u64::from_le_bytes(state.ok_or_else(malformed)?);
        self.revisions
            .entry(end)
            .or_default()
            .insert(key.to_vec(), revision);
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        let entries: usize = self.revisions.values().map(HashMap::len).sum();
        entries * 64 + self.table.bytes()
    }
}

/// `window end i64 BE, sign flipped | key`
fn entry_key(end: Micros, key: &[u8]) -> Vec<u8> {
    let mut bytes = ((end as u64) ^ (1 << 63)).to_be_bytes().to_vec();
    bytes.extend_from_slice(key);
    bytes
}

impl Window {
    /// Gives the results anew that this epoch's late rows changed, then adds these rows to their panes.
    pub(super) fn correct(&mut self, out: &mut Output) -> Result<(), StepError> {
        let Some(corrections) = self.corrections.as_mut().filter(|c| !c.table.is_empty()) else {
            return Ok(());
        };
        let late = corrections
            .table
            .freeze(self.spec.key_groups)
            .map_err(StepError::Failed)?;
        // Rows of before may still be in the table.
        self.rotate()?;
        let given = self.watermark.saturating_sub(self.lateness());
        let ends: BTreeSet<Micros> = late
            .panes()
            .iter()
            .flat_map(|(pane, _)| self.shape.ends(*pane, given, self.watermark))
            .collect();
        for end in ends {
            self.correct_window(end, &late, out)?;
        }
        self.add(late);
        Ok(())
    }

    fn correct_window(
        &mut self,
        end: Micros,
        late: &Arc<Frozen>,
        out: &mut Output,
    ) -> Result<(), StepError> {
        let groups = self.groups.clone();
        let panes = self.shape.of_window(end);
        let mut touched = Merger::new(&self.source, &self.spec.window.aggregation);
        let late_panes = late.panes().iter().filter(|(pane, _)| panes.contains(pane));
        let late_parts: Vec<(Micros, Part)> = late_panes
            .map(|(pane, _)| (*pane, Part::Frozen(late.clone())))
            .collect();
        touched.add(&late_parts, &groups).map_err(failed)?;
        let older = self.of_before(&touched, panes, &groups)?;
        let keys = |rows: &Rows| {
            let keys = (0..rows.len()).map(|row| rows.keys.value(row).to_vec());
            keys.collect::<Vec<_>>()
        };
        let known: HashSet<Vec<u8>> = older.iter().flat_map(keys).collect();
        for rows in &older {
            touched.merge(rows).map_err(failed)?;
        }
        let corrections = self.corrections.as_mut().expect("checked by the caller");
        let corrections = std::cell::RefCell::new(corrections);
        let revision =
            |key: &[u8]| corrections.borrow_mut().next(end, key, known.contains(key)) as i64;
        let window = closing::Window {
            start: end.saturating_sub(self.shape.size),
            end,
            encoder: &self.encoder,
            schema: &self.spec.output,
            revision: Some(&revision),
        };
        touched.finish(&window, out)
    }

    /// The partial results of before of the groups in `touched`.
    fn of_before(
        &self,
        touched: &Merger<'_>,
        panes: Range<Micros>,
        groups: &Range<u16>,
    ) -> Result<Vec<Rows>, StepError> {
        let mut older = Vec::new();
        for (pane, parts) in self.panes.range(panes) {
            for part in parts {
                for rows in self.source.read(part, *pane, groups).map_err(failed)? {
                    let rows = only(&rows, &|key| touched.contains(key));
                    if rows.len() > 0 {
                        older.push(rows);
                    }
                }
            }
        }
        Ok(older)
    }
}
