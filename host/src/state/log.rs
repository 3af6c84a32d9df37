//! `log.redb`: what each checkpoint changed, who this state belongs to, and which checkpoint is decided.
//!
//! Not the place to look a key up: its entries are read in order, at start and by the merge. Invariants: a checkpoint is
//! prepared in one transaction; only a decided one is ever merged; at most one is undecided, and it is the last.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::file::{Fault, OpenFile, RedbFile, plain};
use super::store::{Prepared, Restored};
use super::{FORMAT, blob};
use crate::limits::LOG_CACHE_BYTES;

/// (checkpoint, step, chunk) -> [`blob`].
pub(super) const CHANGES: TableDefinition<(u64, u16, u32), &[u8]> = TableDefinition::new("changes");
/// (checkpoint, step, segment) -> 1 and the segment's bytes, or 0: dropped.
pub(super) const SEGMENTS: TableDefinition<(u64, u16, u128), &[u8]> =
    TableDefinition::new("segments");
/// checkpoint -> changed keys, bytes of keys, values and segments; those not merged yet.
pub(super) const UNMERGED: TableDefinition<u64, (u64, u64)> = TableDefinition::new("unmerged");
/// checkpoint -> flags, [`Meta`] as JSON.
pub(super) const CHECKPOINTS: TableDefinition<u64, &[u8]> = TableDefinition::new("checkpoints");
/// `step/NAME`, `input/NAME` -> number.
pub(super) const NAMES: TableDefinition<&str, u16> = TableDefinition::new("names");
/// Numbers of steps whose state was dropped; never given out again.
pub(super) const DROPPED: TableDefinition<u16, ()> = TableDefinition::new("dropped");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

const DECIDED: u8 = 1;
const FINISHED: u8 = 2;
/// A transaction outside decides this checkpoint: the log alone does not tell whether it is true.
pub(super) const IN_TRANSACTION: u8 = 4;
pub(super) const SEGMENT_DROPPED: u8 = 0;
pub(super) const SEGMENT_PUT: u8 = 1;

/// Who a state belongs to, fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub format: u32,
    pub state_id: [u8; 16],
    pub pipeline: String,
    pub key_groups: u16,
}

/// The number of a checkpoint whose decision is durable. Only [`Log`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decided(u64);

impl Decided {
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Numbers of steps and inputs by name (with its prefix); a number is never given twice.
#[derive(Debug)]
pub(super) struct Names {
    pub by_name: BTreeMap<String, u16>,
    pub dropped: Vec<u16>,
}

/// What waits to be merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Unmerged {
    pub checkpoints: u64,
    pub keys: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct Log {
    file: RedbFile,
}

impl Log {
    /// Opens the log, or makes one for `identity`, which takes the place of the states `supersedes`.
    pub fn open(
        path: &Path,
        open_file: &OpenFile,
        identity: &Identity,
        supersedes: &[[u8; 16]],
    ) -> Result<Self, Fault> {
        let first = |tx: &WriteTransaction| {
            tx.open_table(CHANGES)?;
            tx.open_table(SEGMENTS)?;
            tx.open_table(UNMERGED)?;
            tx.open_table(CHECKPOINTS)?;
            tx.open_table(NAMES)?;
            tx.open_table(DROPPED)?;
            put_meta(tx, "supersedes", supersedes.as_flattened())?;
            write_identity(tx, identity)
        };
        let file = RedbFile::open(path, LOG_CACHE_BYTES, open_file, first)?;
        Ok(Self { file })
    }

    pub fn read(&self) -> Result<ReadTransaction, Fault> {
        self.file.read()
    }

    /// As of [`RedbFile::failed`].
    pub fn failed(&self) -> Option<&str> {
        self.file.failed()
    }

    /// Prepares a checkpoint and decides it, in one transaction.
    pub fn commit(&self, prepared: &Prepared) -> Result<Decided, Fault> {
        self.file.write(|tx| {
            prepare(tx, prepared, 0)?;
            decide(tx, prepared.number)
        })?;
        Ok(Decided(prepared.number))
    }

    /// Prepares a checkpoint that a transaction outside decides. The same write says what is known by now: that the one
    /// before is decided.
    pub fn prepare(&self, prepared: &Prepared) -> Result<(), Fault> {
        self.file.write(|tx| {
            if let Some(before) = prepared.number.checked_sub(1) {
                decide_if_open(tx, before)?;
            }
            prepare(tx, prepared, IN_TRANSACTION)
        })
    }

    /// The outcome of the transaction is known: checkpoint `number` is true.
    pub fn decide(&self, number: u64) -> Result<(), Fault> {
        self.file.write(|tx| decide(tx, number))
    }

    /// Takes back checkpoint `number`, which was prepared and never decided.
    pub fn drop_undecided(&self, number: u64) -> Result<(), Fault> {
        self.file.write(|tx| {
            tx.open_table(CHECKPOINTS)?.remove(number)?;
            tx.open_table(UNMERGED)?.remove(number)?;
            let all = |_, _: &[u8]| false;
            tx.open_table(CHANGES)?
                .retain_in((number, 0, 0)..=(number, u16::MAX, u32::MAX), all)?;
            let all = |_, _: &[u8]| false;
            tx.open_table(SEGMENTS)?
                .retain_in((number, 0, 0)..=(number, u16::MAX, u128::MAX), all)?;
            Ok(())
        })
    }

    /// Drops what every checkpoint up to and with `merged` changed: it is in `state.redb` now.
    pub fn trim(&self, merged: Decided) -> Result<(), Fault> {
        let below = merged.number() + 1;
        self.file.write(|tx| {
            tx.open_table(CHANGES)?
                .retain_in((0, 0, 0)..(below, 0, 0), |_, _| false)?;
            tx.open_table(SEGMENTS)?
                .retain_in((0, 0, 0)..(below, 0, 0), |_, _| false)?;
            tx.open_table(UNMERGED)?.retain_in(..below, |_, _| false)?;
            put_meta(tx, "trimmed_below", &below.to_le_bytes())
        })
    }

    /// Counts this open: the number is larger than at any open before, durably.
    pub fn begin_incarnation(&self) -> Result<u64, Fault> {
        let before = get_number(&self.read()?, "incarnation")?;
        self.file.write(|tx| {
            put_meta(tx, "incarnation", &(before + 1).to_le_bytes())?;
            Ok(before + 1)
        })
    }

    /// Gives `name` (with its prefix) the number `number` for the life of the state.
    pub fn add_name(&self, name: &str, number: u16) -> Result<(), Fault> {
        self.file.write(|tx| {
            tx.open_table(NAMES)?.insert(name, number)?;
            Ok(())
        })
    }

    /// Forgets the step `name`; its number stays used.
    pub fn drop_name(&self, name: &str, number: u16) -> Result<(), Fault> {
        self.file.write(|tx| {
            tx.open_table(NAMES)?.remove(name)?;
            tx.open_table(DROPPED)?.insert(number, ())?;
            Ok(())
        })
    }
}

/// Writes all of a checkpoint but its decision.
fn prepare(tx: &WriteTransaction, prepared: &Prepared, flags: u8) -> Result<(), Fault> {
    let mut keys = 0;
    let mut bytes = 0;
    let mut changes = tx.open_table(CHANGES)?;
    let mut segments = tx.open_table(SEGMENTS)?;
    for (step, deltas) in &prepared.deltas {
        let mut chunk = 0;
        blob::pack(deltas, |blob| {
            changes.insert((prepared.number, *step, chunk), blob)?;
            chunk += 1;
            Ok(())
        })?;
        for delta in deltas {
            keys += delta.changes.len() as u64;
            bytes += delta.changes.bytes() as u64;
            for source in &delta.segments {
                source.write(&mut |id, segment| {
                    let key = (prepared.number, *step, id.pack());
                    let mut row = segments.insert_reserve(key, segment.len() + 1)?;
                    row.as_mut()[0] = SEGMENT_PUT;
                    row.as_mut()[1..].copy_from_slice(segment);
                    bytes += segment.len() as u64;
                    Ok(())
                })?;
            }
            for id in &delta.dropped {
                let key = (prepared.number, *step, id.pack());
                segments.insert(key, &[SEGMENT_DROPPED][..])?;
            }
        }
    }
    tx.open_table(UNMERGED)?
        .insert(prepared.number, (keys, bytes))?;
    let mut record = vec![flags | if prepared.finished { FINISHED } else { 0 }];
    serde_json::to_writer(&mut record, &prepared.meta).map_err(|e| Fault(e.to_string()))?;
    tx.open_table(CHECKPOINTS)?
        .insert(prepared.number, record.as_slice())?;
    Ok(())
}

/// [`decide`], if that was not written yet.
fn decide_if_open(tx: &WriteTransaction, number: u64) -> Result<(), Fault> {
    let flags = {
        let checkpoints = tx.open_table(CHECKPOINTS)?;
        let record = checkpoints.get(number)?;
        record.and_then(|record| record.value().first().copied())
    };
    match flags {
        Some(flags) if flags & DECIDED == 0 => decide(tx, number),
        _ => Ok(()),
    }
}

/// Makes the prepared checkpoint `number` the true one; the record of the one before is needed no more.
fn decide(tx: &WriteTransaction, number: u64) -> Result<(), Fault> {
    let mut checkpoints = tx.open_table(CHECKPOINTS)?;
    let mut record = match checkpoints.get(number)? {
        Some(record) => record.value().to_vec(),
        None => return Err(Fault(format!("checkpoint {number} was not prepared"))),
    };
    *record.first_mut().ok_or_else(|| malformed(number))? |= DECIDED;
    checkpoints.insert(number, record.as_slice())?;
    checkpoints.retain_in(..number, |_, _| false)?;
    Ok(())
}

/// The last decided checkpoint.
pub(super) fn latest(tx: &ReadTransaction) -> Result<Option<(Decided, Restored)>, Fault> {
    for row in tx.open_table(CHECKPOINTS)?.iter()?.rev() {
        let (number, record) = row?;
        let (flags, restored) = restored(number.value(), record.value())?;
        if flags & DECIDED != 0 {
            return Ok(Some((Decided(restored.number), restored)));
        }
    }
    Ok(None)
}

/// The checkpoint after the last decided one, if one was prepared.
pub(super) fn undecided(tx: &ReadTransaction) -> Result<Option<Restored>, Fault> {
    let checkpoints = tx.open_table(CHECKPOINTS)?;
    let Some((number, record)) = checkpoints.last()? else {
        return Ok(None);
    };
    let (flags, restored) = restored(number.value(), record.value())?;
    Ok((flags & DECIDED == 0).then_some(restored))
}

fn restored(number: u64, record: &[u8]) -> Result<(u8, Restored), Fault> {
    let (&flags, meta) = record.split_first().ok_or_else(|| malformed(number))?;
    let restored = Restored {
        number,
        meta: serde_json::from_slice(meta).map_err(|_| malformed(number))?,
        finished: flags & FINISHED != 0,
        in_transaction: flags & IN_TRANSACTION != 0,
    };
    Ok((flags, restored))
}

fn malformed(number: u64) -> Fault {
    Fault(format!("the record of checkpoint {number} is malformed"))
}

/// Numbers of the checkpoints with `from <= number <= to` that are not merged, ascending.
pub(super) fn unmerged_numbers(
    tx: &ReadTransaction,
    from: u64,
    to: Decided,
) -> Result<Vec<u64>, Fault> {
    let rows = tx.open_table(UNMERGED)?.range(from..=to.number())?;
    rows.map(|row| Ok(row?.0.value())).collect()
}

pub(super) fn unmerged(tx: &ReadTransaction) -> Result<Unmerged, Fault> {
    let mut sum = Unmerged::default();
    for row in tx.open_table(UNMERGED)?.iter()? {
        let (keys, bytes) = row?.1.value();
        sum.checkpoints += 1;
        sum.keys += keys;
        sum.bytes += bytes;
    }
    Ok(sum)
}

/// All names with their numbers, and the numbers of dropped steps.
pub(super) fn names(tx: &ReadTransaction) -> Result<Names, Fault> {
    let by_name = (tx.open_table(NAMES)?.iter()?)
        .map(|row| row.map(|(name, number)| (name.value().to_string(), number.value())))
        .collect::<Result<_, _>>()?;
    let dropped = (tx.open_table(DROPPED)?.iter()?)
        .map(|row| row.map(|(number, _)| number.value()))
        .collect::<Result<_, _>>()?;
    Ok(Names { by_name, dropped })
}

/// Checkpoints below this one left the log because they were merged.
pub(super) fn trimmed_below(tx: &ReadTransaction) -> Result<u64, Fault> {
    get_number(tx, "trimmed_below")
}

/// Writes who the state belongs to; both files carry it.
pub(super) fn write_identity(tx: &WriteTransaction, identity: &Identity) -> Result<(), Fault> {
    put_meta(tx, "format", &identity.format.to_le_bytes())?;
    put_meta(tx, "state_id", &identity.state_id)?;
    put_meta(tx, "pipeline", identity.pipeline.as_bytes())?;
    put_meta(tx, "key_groups", &identity.key_groups.to_le_bytes())
}

/// Who the state belongs to. Of another format only the number is read: the rest may stand elsewhere.
pub(super) fn read_identity(tx: &ReadTransaction) -> Result<Identity, Fault> {
    let foreign = || Fault("the file was not written by tidemill".into());
    let meta = tx.open_table(META).map_err(|error| match error {
        TableError::Storage(error) => error.into(),
        _ => foreign(),
    })?;
    let bytes = |name: &str| -> Result<Vec<u8>, Fault> {
        Ok(meta.get(name)?.ok_or_else(foreign)?.value().to_vec())
    };
    let format = u32::from_le_bytes(bytes("format")?.try_into().map_err(|_| foreign())?);
    if format != FORMAT {
        return Ok(Identity {
            format,
            state_id: [0; 16],
            pipeline: String::new(),
            key_groups: 0,
        });
    }
    Ok(Identity {
        format,
        state_id: bytes("state_id")?.try_into().map_err(|_| foreign())?,
        pipeline: String::from_utf8(bytes("pipeline")?).map_err(|_| foreign())?,
        key_groups: u16::from_le_bytes(bytes("key_groups")?.try_into().map_err(|_| foreign())?),
    })
}

/// Who the state at `path` belongs to.
pub(super) fn identity_at(path: &Path) -> Result<Identity, Fault> {
    let never = |_: &WriteTransaction| Err(Fault("there is no state".into()));
    let file = RedbFile::open(path, LOG_CACHE_BYTES, &plain, never)?;
    read_identity(&file.read()?)
}

/// The ids of the state at `path` and of those that it takes the place of, as far as it can be read.
pub(super) fn past(path: &Path) -> Result<Vec<[u8; 16]>, Fault> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let never = |_: &WriteTransaction| Err(Fault("there is no state".into()));
    let file = RedbFile::open(path, LOG_CACHE_BYTES, &super::file::plain, never)?;
    let tx = file.read()?;
    let identity = read_identity(&tx)?;
    let mut ids = supersedes(&tx)?;
    if identity.format == FORMAT {
        ids.push(identity.state_id);
    }
    Ok(ids)
}

/// The states that this one takes the place of.
pub(super) fn supersedes(tx: &ReadTransaction) -> Result<Vec<[u8; 16]>, Fault> {
    let meta = tx.open_table(META)?;
    let bytes = meta.get("supersedes")?;
    let ids = bytes.as_ref().map_or(&[][..], |bytes| bytes.value());
    Ok(ids.as_chunks().0.to_vec())
}

pub(super) fn put_meta(tx: &WriteTransaction, name: &str, value: &[u8]) -> Result<(), Fault> {
    tx.open_table(META)?.insert(name, value)?;
    Ok(())
}

/// A counter of the meta table, 0 if it was never written.
pub(super) fn get_number(tx: &ReadTransaction, name: &str) -> Result<u64, Fault> {
    let meta = tx.open_table(META)?;
    let Some(bytes) = meta.get(name)? else {
        return Ok(0);
    };
    let bytes = bytes.value().try_into();
    let bytes = bytes.map_err(|_| Fault(format!("the counter `{name}` is malformed")))?;
    Ok(u64::from_le_bytes(bytes))
}
