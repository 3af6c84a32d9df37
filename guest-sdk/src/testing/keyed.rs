//! A test of a plugin with state: keeps the keys' states and alarms between calls as the host does.

use super::Json;
use super::outputs::{Input, Rows, schema};
use crate::bindings::{
    Column, FixedState, KeyedInput, State as WireState, StateLayout, Values, VarValues,
};
use crate::bits::{Bits, is_set};
use crate::row::Row;
use crate::state::Store;
use crate::{Alarms, Keyed, KeyedRuntime, Order, State, Timestamp};
use std::collections::BTreeSet;

const NO_ALARM: i64 = i64::MAX;
const END_OF_TIME: i64 = i64::MAX - 1;
/// Ticks after which alarms that set each other are called endless.
const TICKS_MAX: usize = 1_000;

/// A configured [`Keyed`] under test.
pub struct KeyedTest<P: Keyed> {
    runtime: KeyedRuntime<P>,
    rows: Rows,
    keys: Vec<Entry>,
    pending: Vec<Input>,
    rows_per_call: usize,
    now: i64,
}

struct Entry {
    name: String,
    state: Option<Stored>,
    alarm: i64,
}

/// The state of one key as it crosses.
enum Stored {
    Words(Vec<u64>),
    Bytes(Vec<u8>),
}

/// Configures a plugin for a test. Its input has the columns that it reads, its key is one text column, `key`. An error is what
/// `configure` would answer.
pub fn keyed<P: Keyed>(config: Json) -> Result<KeyedTest<P>, String> {
    let reads = <P::Row<'static> as Row<'static>>::COLUMNS;
    let mut runtime = KeyedRuntime::new();
    let plan = runtime.configure(&config.to_string(), &schema(reads))?;
    Ok(KeyedTest {
        runtime,
        rows: Rows::new(plan, reads),
        keys: Vec::new(),
        pending: Vec::new(),
        rows_per_call: usize::MAX,
        now: i64::MIN,
    })
}

impl<P: Keyed> KeyedTest<P> {
    /// Cuts the rows into calls of at most this many. The result must be the same for any number.
    pub fn rows_per_call(mut self, rows: usize) -> Self {
        self.rows_per_call = rows.max(1);
        self
    }

    /// Hands a row of a key in, as a JSON object with its event time in `_time`. In event-time order it waits for the
    /// watermark; below it, it goes to the port `late`.
    ///
    /// # Panics
    /// If a column that the plugin reads has another type, or a null it does not expect.
    pub fn push(&mut self, key: &str, row: Json) {
        let known = self.keys.iter().position(|entry| entry.name == key);
        let key = known.unwrap_or_else(|| {
            self.keys.push(Entry {
                name: key.to_owned(),
                state: None,
                alarm: NO_ALARM,
            });
            self.keys.len() - 1
        });
        let input = self.rows.input(row, key);
        if P::ORDER == Order::EventTime && input.time < self.now {
            self.rows.late(input);
        } else {
            self.pending.push(input);
        }
    }

    /// Moves the watermark (or, for alarms of processing time, the clock) to this time: rows that waited for it are handled,
    /// then alarms at or before it fire.
    ///
    /// # Panics
    /// If it goes back, if the plugin fails, or if alarms set each other without end.
    pub fn watermark(&mut self, time: i64) {
        assert!(time >= self.now, "a watermark never goes back");
        self.now = time;
        let rows = self.take_ready();
        let chunks = rows.chunks(self.rows_per_call).len();
        for (i, rows) in rows.chunks(self.rows_per_call).enumerate() {
            // At the end of time alarms get one tick of their own, because those that alarms set must not fire.
            let with_due = i + 1 == chunks && time < END_OF_TIME;
            let due = if with_due { self.due() } else { Vec::new() };
            self.call(rows, &due);
        }
        for _ in 0..TICKS_MAX {
            let due = self.due();
            if due.is_empty() {
                return;
            }
            self.call(&[], &due);
            if time >= END_OF_TIME {
                return;
            }
        }
        panic!("after {TICKS_MAX} ticks alarms at or before {time} are still set");
    }

    /// Ends the input: moves the watermark to the end of time.
    pub fn finish(&mut self) {
        self.watermark(END_OF_TIME);
    }

    /// Takes what came out of a port since the last time.
    ///
    /// # Panics
    /// If there is no such port, or the plugin fails.
    pub fn output(&mut self, port: &str) -> Vec<Json> {
        self.run();
        self.rows.take(port)
    }

    /// The event times of what [`output`](Self::output) would take.
    pub fn times(&mut self, port: &str) -> Vec<i64> {
        self.run();
        self.rows.times(port)
    }

    /// Takes the rows refused since the last time, each with its reason.
    pub fn refused(&mut self) -> Vec<(Json, String)> {
        self.run();
        self.rows.take_refused()
    }

    /// The state of a key, none if it has none.
    pub fn state(&mut self, key: &str) -> Option<P::State> {
        self.run();
        let entry = self.keys.iter().find(|entry| entry.name == key)?;
        entry.state.as_ref()?;
        let wire = wire_state::<P>(&[entry]);
        let mut store = <P::State as State>::Store::open(wire, 1).expect("its own state");
        let mut taken = None;
        let read = store.change(0, |state| {
            taken = Some(std::mem::take(state));
            false
        });
        read.unwrap_or_else(|error| panic!("{error}"));
        taken
    }

    /// The alarm of a key.
    pub fn alarm(&mut self, key: &str) -> Option<Timestamp> {
        self.run();
        let entry = self.keys.iter().find(|entry| entry.name == key)?;
        (entry.alarm != NO_ALARM).then_some(Timestamp(entry.alarm))
    }

    /// In arrival order rows wait for nothing.
    fn run(&mut self) {
        if P::ORDER == Order::Arrival {
            let rows = std::mem::take(&mut self.pending);
            for rows in rows.chunks(self.rows_per_call) {
                self.call(rows, &[]);
            }
        }
    }

    fn take_ready(&mut self) -> Vec<Input> {
        let pending = std::mem::take(&mut self.pending);
        if P::ORDER == Order::Arrival {
            return pending;
        }
        let (mut ready, waiting): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|row| row.time < self.now);
        self.pending = waiting;
        ready.sort_by_key(|row| row.time);
        ready
    }

    fn due(&self) -> Vec<usize> {
        (0..self.keys.len())
            .filter(|key| self.keys[*key].alarm <= self.now)
            .collect()
    }

    /// One call: rows, then the keys whose alarm is due.
    fn call(&mut self, rows: &[Input], due: &[usize]) {
        let groups: Vec<usize> = rows
            .iter()
            .map(|row| row.key)
            .chain(due.iter().copied())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let group_of = |key: usize| {
            groups
                .binary_search(&key)
                .expect("each key of the call is a group")
        };
        let entries: Vec<&Entry> = groups.iter().map(|key| &self.keys[*key]).collect();
        let uses_alarms = P::ALARMS != Alarms::None;
        let alarms: Vec<i64> = entries.iter().map(|entry| entry.alarm).collect();
        let input = KeyedInput {
            rows: self.rows.batch(rows),
            group_of_row: rows.iter().map(|row| group_of(row.key) as u32).collect(),
            groups: groups.len() as u32,
            keys: vec![key_column(&entries)],
            state: wire_state::<P>(&entries),
            alarms: if uses_alarms {
                alarms.clone()
            } else {
                Vec::new()
            },
            due: due.iter().map(|key| group_of(*key) as u32).collect(),
            now: self.now,
        };
        let names: Vec<_> = entries
            .iter()
            .map(|entry| Some(entry.name.clone()))
            .collect();
        let result = self
            .runtime
            .process(input)
            .unwrap_or_else(|error| panic!("the call failed: {error}"));
        let by_group: Vec<Input> = rows
            .iter()
            .map(|row| Input {
                key: group_of(row.key),
                ..row.clone()
            })
            .collect();
        self.rows
            .collect(&by_group, &names, &alarms, result.ports, result.refused);
        for (group, key) in groups.iter().enumerate() {
            if uses_alarms {
                self.keys[*key].alarm = result.alarms[group];
            }
            if is_set(result.dirty.as_deref(), group) {
                self.keys[*key].state = stored(&result.state, group, groups.len());
            }
        }
    }
}

fn key_column(entries: &[&Entry]) -> Column {
    let mut names = VarValues {
        offsets: vec![0],
        data: Vec::new(),
    };
    for entry in entries {
        names.data.extend_from_slice(entry.name.as_bytes());
        names.offsets.push(names.data.len() as i32);
    }
    Column {
        values: Values::Utf8(names),
        validity: None,
    }
}

fn wire_state<P: Keyed>(entries: &[&Entry]) -> WireState {
    match P::State::layout() {
        StateLayout::None => WireState::None,
        StateLayout::Fixed(width) => {
            let (mut words, mut present) = (Vec::new(), Bits::default());
            for entry in entries {
                match &entry.state {
                    Some(Stored::Words(state)) => words.extend_from_slice(state),
                    _ => words.extend(std::iter::repeat_n(0, width as usize)),
                }
                present.push(entry.state.is_some());
            }
            let present = (!present.all()).then(|| present.into_bytes());
            WireState::Fixed(FixedState { words, present })
        }
        StateLayout::Blob => {
            let mut values = VarValues {
                offsets: vec![0],
                data: Vec::new(),
            };
            for entry in entries {
                if let Some(Stored::Bytes(bytes)) = &entry.state {
                    values.data.extend_from_slice(bytes);
                }
                values.offsets.push(values.data.len() as i32);
            }
            WireState::Blob(values)
        }
    }
}

/// The state of a group in an answer; none if it is to be forgotten.
fn stored(state: &WireState, group: usize, groups: usize) -> Option<Stored> {
    match state {
        WireState::None => None,
        WireState::Fixed(state) => {
            let width = state.words.len() / groups;
            let words = &state.words[group * width..(group + 1) * width];
            is_set(state.present.as_deref(), group).then(|| Stored::Words(words.to_vec()))
        }
        WireState::Blob(values) => {
            let at = |i: usize| (values.offsets[i] - values.offsets[0]) as usize;
            let bytes = &values.data[at(group)..at(group + 1)];
            (!bytes.is_empty()).then(|| Stored::Bytes(bytes.to_vec()))
        }
    }
}
