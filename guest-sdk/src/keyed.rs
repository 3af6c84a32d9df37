//! Plugins with state and an alarm a key.
//!
//! Invariant: in event-time order the rows and alarms of a key are handled in one order of time, whatever the calls they come
//! in. An alarm at or before a row fires before it; an alarm fires once and is cleared before its callback.

use crate::Timestamp;
use crate::bindings::{
    self, AlarmClock, Column, Description, Field, KeyedInput, KeyedResult, Plan, RowOrder,
};
use crate::metrics;
use crate::out::{Origin, Out, Outcome, Ports};
use crate::row::{self, Row, Source};
use crate::setup::{Ready, Setup, configure};
use crate::state::{NewState, OldState, State, Store};
use serde::de::DeserializeOwned;

/// The order in which a plugin wants the rows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they arrive, late ones too: the lowest latency.
    Arrival,
    /// By event time: rows wait until the watermark has passed them. The result is the same for any arrival within the
    /// lateness.
    EventTime,
}

/// The clock of a plugin's alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarms {
    /// It sets none.
    None,
    /// Alarms follow the watermark.
    EventTime,
    /// Alarms follow the host's clock.
    ProcessingTime,
}

/// No alarm is set.
const NONE: i64 = i64::MAX;
/// The watermark after the last row of a bounded input. An alarm set by an alarm does not fire there, or a plugin that
/// always sets the next one would never end.
const END_OF_TIME: i64 = i64::MAX - 1;

/// A plugin with state. The implementing type is its configuration, read from the JSON in the pipeline file.
pub trait Keyed: DeserializeOwned {
    /// What it reads, with `#[derive(Row)]`.
    type Row<'a>: Row<'a>;
    /// What goes out: an output row, a port, or a struct of ports.
    type Out: Outcome;
    /// What it keeps a key.
    type State: State;
    /// The order it wants its rows in, unless the pipeline file says otherwise.
    const ORDER: Order = Order::Arrival;
    /// The clock of its alarms.
    const ALARMS: Alarms = Alarms::None;
    /// Raise it when the layout or meaning of the state changes, and convert older ones in `migrate`.
    const STATE_VERSION: u32 = 1;
    /// A JSON Schema of the configuration.
    const CONFIG_SCHEMA: &'static str = "{}";

    /// Called once, before any row: checks the configuration, names tables, makes counters. An error refuses the pipeline.
    fn setup(&mut self, _setup: &mut Setup<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Handles a row. Its result must depend on nothing but the row, the key's state, the configuration and the tables.
    fn row(&mut self, row: Self::Row<'_>, key: &mut Key<'_, Self::State>, out: &mut Out<Self::Out>);

    /// Handles a key's alarm, which is no longer set.
    fn alarm(&mut self, _key: &mut Key<'_, Self::State>, _out: &mut Out<Self::Out>) {}

    /// Hot swap: converts states that version `from` wrote, with [`OldState::convert`].
    fn migrate(&mut self, from: u32, _old: OldState) -> Result<NewState, String> {
        Err(format!(
            "this version of the plugin does not read state of version {from}, only of version {}",
            Self::STATE_VERSION
        ))
    }
}

/// A key while one of its rows or its alarm is handled.
pub struct Key<'a, S> {
    /// What the plugin keeps for the key; `Default` for a new one.
    pub state: &'a mut S,
    alarm: &'a mut i64,
    now: i64,
    fired: Option<i64>,
    forget: bool,
    alarms: Alarms,
    group: usize,
    keys: &'a [Column],
    groups: usize,
}

impl<S> Key<'_, S> {
    /// Sets the key's alarm in place of one set before. A key has one alarm: keep several deadlines in the state. One set at
    /// or before the present time fires at the next occasion.
    ///
    /// # Panics
    /// If the plugin's `ALARMS` is `Alarms::None`.
    #[inline]
    pub fn wake_at(&mut self, time: Timestamp) {
        assert!(
            self.alarms != Alarms::None,
            "`wake_at` needs a clock: const ALARMS: Alarms = Alarms::EventTime"
        );
        *self.alarm = time.0.min(END_OF_TIME);
    }

    /// Takes the key's alarm back.
    #[inline]
    pub fn clear_alarm(&mut self) {
        *self.alarm = NONE;
    }

    /// Forgets the key's state when this row or alarm is done; the alarm stays as it is.
    #[inline]
    pub fn forget(&mut self) {
        self.forget = true;
    }

    /// When the alarm is set for. In `alarm`: what the fired one was set for.
    pub fn alarm_time(&self) -> Option<Timestamp> {
        let set = (*self.alarm != NONE).then_some(*self.alarm);
        self.fired.or(set).map(Timestamp)
    }

    /// The time at which this happens: in event-time order that of the row or alarm, otherwise that of the clock of the
    /// alarms, which differs from run to run.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// The value of a key column, counted from 0 in the order of `key = […]` in the pipeline file.
    pub fn get<'k, F: row::Field<'k>>(&'k self, index: usize) -> Result<F, String> {
        let column = self
            .keys
            .get(index)
            .ok_or_else(|| format!("the key has no column {index}"))?;
        let reader = F::bind(column, self.groups)
            .map_err(|reason| format!("key column {index} {reason}"))?;
        Ok(F::get(reader, self.group))
    }
}

/// A configured [`Keyed`], with the calls that the host makes.
#[doc(hidden)]
pub struct KeyedRuntime<P>(Option<Ready<P>>);

impl<P: Keyed> KeyedRuntime<P> {
    pub const fn new() -> Self {
        KeyedRuntime(None)
    }

    pub fn describe(name: &str, version: &str) -> Description {
        Description {
            name: name.to_owned(),
            version: version.to_owned(),
            config_schema: P::CONFIG_SCHEMA.to_owned(),
            state: P::State::layout(),
            state_version: P::STATE_VERSION,
            alarms: match P::ALARMS {
                Alarms::None => AlarmClock::None,
                Alarms::EventTime => AlarmClock::EventTime,
                Alarms::ProcessingTime => AlarmClock::ProcessingTime,
            },
            order: match P::ORDER {
                Order::Arrival => RowOrder::Arrival,
                Order::EventTime => RowOrder::EventTime,
            },
        }
    }

    pub fn configure(&mut self, config: &str, input: &[Field]) -> Result<Plan, String> {
        type PortsOf<P> = <<P as Keyed>::Out as Outcome>::Ports;
        let needs_time = P::ORDER == Order::EventTime || PortsOf::<P>::NEW_ROWS;
        let (ready, plan) =
            configure::<P, P::Row<'static>, PortsOf<P>>(config, input, needs_time, P::setup)?;
        self.0 = Some(ready);
        Ok(plan)
    }

    pub fn process(&mut self, input: KeyedInput) -> Result<KeyedResult, String> {
        let ready = self.0.as_mut().ok_or("process before configure")?;
        let result = run(ready, input);
        metrics::flush(result.is_ok());
        result
    }

    pub fn migrate_state(
        &mut self,
        from: u32,
        old: bindings::State,
    ) -> Result<bindings::State, String> {
        let ready = self.0.as_mut().ok_or("migrate-state before configure")?;
        Ok(ready.plugin.migrate(from, OldState(old))?.0)
    }
}

impl<P: Keyed> Default for KeyedRuntime<P> {
    fn default() -> Self {
        Self::new()
    }
}

fn run<P: Keyed>(ready: &mut Ready<P>, input: KeyedInput) -> Result<KeyedResult, String> {
    let rows = input.rows.rows as usize;
    let found = ready.look_up(&input.rows)?;
    let times = ready.times(&input.rows)?;
    let reader = P::Row::bind(Source {
        rows,
        columns: &input.rows.columns,
        found: &found,
    })?;
    if input.group_of_row.len() != rows {
        return Err(format!(
            "{} groups for {rows} rows",
            input.group_of_row.len()
        ));
    }
    let mut call = Call::<P>::open(
        &mut ready.plugin,
        input.state,
        input.alarms,
        input.groups,
        rows,
    )?;
    (call.keys, call.now) = (&input.keys, input.now);
    for (row, &group) in input.group_of_row.iter().enumerate() {
        let time = times.map_or(0, |times| times[row]);
        if P::ORDER == Order::EventTime && P::ALARMS == Alarms::EventTime {
            call.fire_up_to(group as usize, time, false)?;
        }
        let origin = Origin {
            index: row as u32,
            time,
            alarm: false,
        };
        call.handle(group as usize, origin, |plugin, key, out| {
            plugin.row(P::Row::get(&reader, row), key, out);
        })?;
    }
    for &group in &input.due {
        call.fire_up_to(group as usize, input.now, input.now >= END_OF_TIME)?;
    }
    call.finish()
}

/// One call under way.
struct Call<'a, P: Keyed> {
    plugin: &'a mut P,
    store: <P::State as State>::Store,
    alarms: Vec<i64>,
    /// Stands for the alarm of every key where the plugin has none.
    no_alarm: i64,
    out: Out<P::Out>,
    keys: &'a [Column],
    groups: usize,
    rows: usize,
    now: i64,
}

impl<'a, P: Keyed> Call<'a, P> {
    fn open(
        plugin: &'a mut P,
        state: bindings::State,
        alarms: Vec<i64>,
        groups: u32,
        rows: usize,
    ) -> Result<Self, String> {
        let groups = groups as usize;
        if P::ALARMS != Alarms::None && alarms.len() != groups {
            return Err(format!("{} alarms for {groups} keys", alarms.len()));
        }
        Ok(Call {
            plugin,
            store: Store::open(state, groups)?,
            alarms,
            no_alarm: NONE,
            out: Out::new(),
            keys: &[],
            groups,
            rows,
            now: 0,
        })
    }

    /// Fires the alarm of a group while it is at or before `time`. One that an alarm sets at or before itself waits for the
    /// host's next tick: it would fire for ever.
    #[inline]
    fn fire_up_to(&mut self, group: usize, time: i64, once: bool) -> Result<(), String> {
        if P::ALARMS == Alarms::None {
            return Ok(());
        }
        let mut last = None;
        loop {
            let at = self.alarms[group];
            if at > time || at == NONE || last.is_some_and(|last| at <= last || once) {
                return Ok(());
            }
            self.alarms[group] = NONE;
            let origin = Origin {
                index: (self.rows + group) as u32,
                time: at,
                alarm: true,
            };
            self.handle(group, origin, |plugin, key, out| plugin.alarm(key, out))?;
            last = Some(at);
        }
    }

    #[inline(always)]
    fn handle(
        &mut self,
        group: usize,
        origin: Origin,
        act: impl FnOnce(&mut P, &mut Key<'_, P::State>, &mut Out<P::Out>),
    ) -> Result<(), String> {
        let Call {
            plugin,
            store,
            alarms,
            no_alarm,
            out,
            keys,
            groups,
            now,
            ..
        } = self;
        let alarm = if P::ALARMS == Alarms::None {
            no_alarm
        } else {
            &mut alarms[group]
        };
        out.begin(origin);
        store.change(group, |state| {
            let mut key = Key {
                state,
                alarm,
                now: if P::ORDER == Order::EventTime {
                    origin.time
                } else {
                    *now
                },
                fired: origin.alarm.then_some(origin.time),
                forget: false,
                alarms: P::ALARMS,
                group,
                keys,
                groups: *groups,
            };
            act(plugin, &mut key, out);
            key.forget
        })?;
        out.end();
        Ok(())
    }

    fn finish(self) -> Result<KeyedResult, String> {
        let (state, dirty) = self.store.finish()?;
        let (ports, refused) = self.out.finish();
        let dirty = (!dirty.all()).then(|| dirty.into_bytes());
        Ok(KeyedResult {
            ports,
            refused,
            state,
            dirty,
            alarms: self.alarms,
        })
    }
}
