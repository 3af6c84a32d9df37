//! One plugin instance with its memory and its functions: what a trap ends.
//!
//! Invariant: a `Live` that failed a call is thrown away by its owner; nothing runs in it again.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use wasmtime::component::{InstancePre, TypedFunc};
use wasmtime::{Store, Trap, UpdateDeadline};

use super::columns::{Lowered, lower, lower_batch, pack};
use super::component::{Exports, other_types};
use super::guest::{Guest, Noted};
use super::limits::{Deadline, printable};
use super::wire::{
    self, BatchIn, ColumnIn, FixedStateIn, KeyedIn, KeyedResult, State, StateIn, Transformed, VarIn,
};
use super::{GroupStates, KeyedInput, Tables};
use crate::limits::CALL_RESULT_BYTES_MAX;

pub struct Live {
    store: Store<Guest>,
    describe: Describe,
    configure: Configure<'static>,
    process: Process,
}

type Describe = TypedFunc<(), (wire::Description,)>;
type Configure<'a> = TypedFunc<(&'a str, &'a [wire::Field]), (Result<wire::Plan, String>,)>;
type ProcessTransform<'a> = TypedFunc<(BatchIn<'a>,), (Result<Transformed, String>,)>;
type ProcessKeyed<'a> = TypedFunc<(KeyedIn<'a>,), (Result<KeyedResult, String>,)>;
type MigrateState<'a> = TypedFunc<(u32, StateIn<'a>), (Result<State, String>,)>;

#[derive(Clone, Copy)]
enum Process {
    Transform(ProcessTransform<'static>),
    Keyed(ProcessKeyed<'static>),
}

/// Why a call gave nothing.
#[derive(Debug)]
pub enum Stop {
    /// The instance is of no use any more.
    Trap(String),
    /// The plugin returned `err` with this text; the instance can go on.
    Err(String),
}

impl Stop {
    pub fn into_cause(self) -> String {
        match self {
            Self::Trap(cause) | Self::Err(cause) => cause,
        }
    }
}

impl Live {
    /// Starts an instance and compares the types of its functions with this host's.
    pub fn start(
        pre: &InstancePre<Guest>,
        exports: &Exports,
        tables: Arc<dyn Tables>,
        memory_bytes: usize,
        call: Duration,
    ) -> Result<Self, String> {
        let mut store = store(pre, tables, memory_bytes, call);
        let instance = pre
            .instantiate(&mut store)
            .map_err(|e| format!("it cannot be started: {}", cause_of(&e, store.data())))?;
        let lifecycle = |e: wasmtime::Error| other_types(wire::LIFECYCLE, &e);
        let describe = instance
            .get_typed_func(&mut store, exports.describe)
            .map_err(lifecycle)?;
        let configure = instance
            .get_typed_func(&mut store, exports.configure)
            .map_err(lifecycle)?;
        let process = match &exports.migrate_state {
            None => Process::Transform(
                instance
                    .get_typed_func(&mut store, exports.process)
                    .map_err(|e| other_types(wire::TRANSFORM, &e))?,
            ),
            Some(migrate_state) => {
                let keyed = |e: wasmtime::Error| other_types(wire::KEYED, &e);
                let _: MigrateState = instance
                    .get_typed_func(&mut store, migrate_state)
                    .map_err(keyed)?;
                Process::Keyed(
                    instance
                        .get_typed_func(&mut store, exports.process)
                        .map_err(keyed)?,
                )
            }
        };
        Ok(Self {
            store,
            describe,
            configure,
            process,
        })
    }

    pub fn describe(&mut self, limit: Duration) -> Result<wire::Description, String> {
        let describe = self.describe;
        self.call(limit, |store| Ok((Ok(describe.call(store, ())?.0),)))
            .map_err(Stop::into_cause)
    }

    pub fn configure(
        &mut self,
        config: &str,
        input: &[wire::Field],
        limit: Duration,
    ) -> Result<wire::Plan, Stop> {
        let configure: Configure = self.configure;
        self.call(limit, |store| configure.call(store, (config, input)))
    }

    pub fn transform(&mut self, reads: &RecordBatch, limit: Duration) -> Result<Transformed, Stop> {
        let Process::Transform(process) = self.process else {
            return Err(Stop::Err("it is a keyed plugin".into()));
        };
        let process: ProcessTransform = process;
        let lowered = lower_batch(reads);
        let columns = borrow(&lowered);
        let input = BatchIn {
            rows: reads.num_rows() as u32,
            columns: &columns,
        };
        self.call(limit, |store| process.call(store, (input,)))
    }

    pub fn keyed(&mut self, input: &KeyedInput, limit: Duration) -> Result<KeyedResult, Stop> {
        let Process::Keyed(process) = self.process else {
            return Err(Stop::Err("it is a stateless plugin".into()));
        };
        let process: ProcessKeyed = process;
        let lowered = lower_batch(&input.reads);
        let columns = borrow(&lowered);
        let lowered_keys: Vec<_> = input.keys.iter().map(|k| lower(k)).collect();
        let keys = borrow(&lowered_keys);
        let present = present(&input.state);
        let input = KeyedIn {
            rows: BatchIn {
                rows: input.reads.num_rows() as u32,
                columns: &columns,
            },
            group_of_row: &input.group_of_row,
            groups: input.groups,
            keys: &keys,
            state: state(&input.state, present.as_deref()),
            alarms: &input.alarms,
            due: &input.due,
            now: input.now,
        };
        self.call(limit, |store| process.call(store, (input,)))
    }

    /// What the last call noted; the counters of one that failed are not to be counted.
    pub fn take_noted(&mut self) -> Noted {
        std::mem::take(&mut self.store.data_mut().call)
    }

    pub fn guest(&self) -> &Guest {
        self.store.data()
    }

    fn call<R>(
        &mut self,
        limit: Duration,
        call: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<(Result<R, String>,)>,
    ) -> Result<R, Stop> {
        let deadline = Deadline::start(limit);
        let guest = self.store.data_mut();
        guest.deadline = deadline;
        guest.call = Noted::default();
        self.store.set_epoch_deadline(deadline.ticks());
        match call(&mut self.store) {
            Ok((Ok(result),)) => Ok(result),
            Ok((Err(text),)) => Err(Stop::Err(printable(&text))),
            Err(e) => Err(Stop::Trap(cause_of(&e, self.store.data()))),
        }
    }
}

fn store(
    pre: &InstancePre<Guest>,
    tables: Arc<dyn Tables>,
    memory_bytes: usize,
    call: Duration,
) -> Store<Guest> {
    let deadline = Deadline::start(call);
    let mut store = Store::new(pre.engine(), Guest::new(tables, memory_bytes, deadline));
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(CALL_RESULT_BYTES_MAX);
    store.epoch_deadline_callback(|store| match store.data().deadline.ticks_left() {
        Ok(ticks) => Ok(UpdateDeadline::Continue(ticks)),
        Err(cause) => Err(wasmtime::Error::msg(cause)),
    });
    store.set_epoch_deadline(deadline.ticks());
    store
}

/// The trap in words, with the last error the plugin logged: the SDK's panic hook writes the panic's text there.
fn cause_of(error: &wasmtime::Error, guest: &Guest) -> String {
    let trap = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    match &guest.call.last_error {
        Some(line) => format!("{line} ({trap})"),
        None => trap,
    }
}

fn borrow<'a>(lowered: &'a [Lowered<'_>]) -> Vec<ColumnIn<'a>> {
    lowered.iter().map(Lowered::column).collect()
}

/// The bitmap of groups that have fixed state; `None`: all.
fn present(states: &GroupStates) -> Option<Vec<u8>> {
    match states {
        GroupStates::Fixed { present, .. } if !present.iter().all(|p| *p) => Some(pack(present)),
        _ => None,
    }
}

fn state<'a>(states: &'a GroupStates, present: Option<&'a [u8]>) -> StateIn<'a> {
    match states {
        GroupStates::None => StateIn::None,
        GroupStates::Fixed { words, .. } => StateIn::Fixed(FixedStateIn { words, present }),
        GroupStates::Blob { offsets, data } => StateIn::Blob(VarIn { offsets, data }),
    }
}
