//! Where rows go out: ports, and the handle through which a plugin writes to them.

use crate::Timestamp;
use crate::bindings::{Batch, NewRows, Output, Port as PortPlan, Refusal, Selection};
use crate::columns::{Builder, Columns, fields};
use std::ops::{Deref, DerefMut};

/// What can stand as `type Out`: an output row (`Score`, short for `Select<Score>`), one port (`Extend<Score>`), or a struct
/// of ports that derives [`Ports`](macro@crate::Ports).
pub trait Outcome {
    /// The ports behind it.
    type Ports: Ports;
}

impl<C: Columns> Outcome for C {
    type Ports = Select<C>;
}

/// The ports of a plugin, the main one first.
pub trait Ports: Default {
    /// Whether any of them makes new rows.
    #[doc(hidden)]
    const NEW_ROWS: bool;
    #[doc(hidden)]
    fn plan() -> Vec<PortPlan>;
    #[doc(hidden)]
    fn begin(&mut self, origin: Origin);
    /// Checks what became of a row that was not refused, or takes back what a refused one put out.
    #[doc(hidden)]
    fn end(&mut self, refused: bool);
    #[doc(hidden)]
    fn finish(&mut self) -> Vec<Output>;
}

/// What is being handled: a row or a fired alarm.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    pub index: u32,
    pub time: i64,
    pub alarm: bool,
}

/// One port: [`Select`], [`Extend`] or [`Rows`].
#[doc(hidden)]
pub trait Port: Default {
    /// What it adds to a row, or what its new rows are of.
    type Adds: Columns;
    const NEW_ROWS: bool;
    fn plan(name: &str) -> PortPlan {
        PortPlan {
            name: name.to_owned(),
            adds: fields(Self::Adds::COLUMNS),
            new_rows: Self::NEW_ROWS,
        }
    }
    fn begin(&mut self, origin: Origin);
    fn end(&mut self, refused: bool);
    fn finish(&mut self) -> Output;
}

impl<P: Port> Ports for P {
    const NEW_ROWS: bool = P::NEW_ROWS;
    fn plan() -> Vec<PortPlan> {
        vec![P::plan("main")]
    }
    #[inline(always)]
    fn begin(&mut self, origin: Origin) {
        Port::begin(self, origin);
    }
    #[inline(always)]
    fn end(&mut self, refused: bool) {
        Port::end(self, refused);
    }
    fn finish(&mut self) -> Vec<Output> {
        vec![Port::finish(self)]
    }
}

/// A port of some input rows, each with the columns of `C` added.
pub struct Select<C: Columns> {
    origin: Origin,
    rows: Vec<u32>,
    added: C::Builder,
}

/// A port of every input row, each with the columns of `C` added.
pub struct Extend<C: Columns> {
    origin: Origin,
    len: u32,
    added: C::Builder,
}

/// A port of new rows with the columns of `C`.
pub struct Rows<C: Columns> {
    origin: Origin,
    /// Rows there were before the present origin.
    before: usize,
    origins: Vec<u32>,
    times: Vec<i64>,
    /// Whether a row has another time than its origin, so that the times must be sent.
    own_times: bool,
    columns: C::Builder,
}

impl<C: Columns> Select<C> {
    /// Lets the present row out with these columns.
    ///
    /// # Panics
    /// If the row was kept already, or in `alarm`: an alarm has no input row.
    #[inline]
    pub fn keep<D: Columns<Builder = C::Builder>>(&mut self, columns: D) {
        let row = self.origin.index;
        assert!(
            !self.origin.alarm,
            "`keep` in an alarm: it has no input row to keep, make a new one on a `Rows` port"
        );
        assert!(self.rows.last() != Some(&row), "`keep` twice for one row");
        self.rows.push(row);
        columns.push(&mut self.added);
    }
}

impl<C: Columns> Extend<C> {
    /// Adds these columns to the present row. Each row must be extended once or refused.
    ///
    /// # Panics
    /// If the row was extended already, or in `alarm`: an alarm has no input row.
    #[inline]
    pub fn extend<D: Columns<Builder = C::Builder>>(&mut self, columns: D) {
        assert!(
            !self.origin.alarm,
            "`extend` in an alarm: it has no input row to extend, make a new one on a `Rows` port"
        );
        assert!(self.len == self.origin.index, "`extend` twice for one row");
        self.len += 1;
        columns.push(&mut self.added);
    }
}

impl<C: Columns> Rows<C> {
    /// Makes a row whose event time is that of the input row or of the alarm that is being handled.
    #[inline]
    pub fn emit<D: Columns<Builder = C::Builder>>(&mut self, row: D) {
        // What the host would take for an alarm's row is raised to its watermark; the alarm's own time is the same in
        // small and large epochs.
        self.own_times |= self.origin.alarm;
        self.push(self.origin.time, row);
    }

    /// Makes a row with an event time of its own.
    #[inline]
    pub fn emit_at<D: Columns<Builder = C::Builder>>(&mut self, time: Timestamp, row: D) {
        self.own_times = true;
        self.push(time.0, row);
    }

    #[inline]
    fn push<D: Columns<Builder = C::Builder>>(&mut self, time: i64, row: D) {
        self.origins.push(self.origin.index);
        self.times.push(time);
        row.push(&mut self.columns);
    }
}

impl<C: Columns> Default for Select<C> {
    fn default() -> Self {
        Select {
            origin: Origin::default(),
            rows: Vec::new(),
            added: C::Builder::default(),
        }
    }
}

impl<C: Columns> Default for Extend<C> {
    fn default() -> Self {
        Extend {
            origin: Origin::default(),
            len: 0,
            added: C::Builder::default(),
        }
    }
}

impl<C: Columns> Default for Rows<C> {
    fn default() -> Self {
        Rows {
            origin: Origin::default(),
            before: 0,
            origins: Vec::new(),
            times: Vec::new(),
            own_times: false,
            columns: C::Builder::default(),
        }
    }
}

impl<C: Columns> Port for Select<C> {
    type Adds = C;
    const NEW_ROWS: bool = false;
    #[inline(always)]
    fn begin(&mut self, origin: Origin) {
        self.origin = origin;
    }
    #[inline(always)]
    fn end(&mut self, refused: bool) {
        if refused && self.rows.last() == Some(&self.origin.index) {
            self.rows.pop();
            self.added.truncate(self.rows.len());
        }
    }
    fn finish(&mut self) -> Output {
        let Select { rows, added, .. } = std::mem::take(self);
        if rows.is_empty() {
            return Output::Nothing;
        }
        Output::Select(Selection {
            rows,
            added: added.finish(),
        })
    }
}

impl<C: Columns> Port for Extend<C> {
    type Adds = C;
    const NEW_ROWS: bool = false;
    #[inline(always)]
    fn begin(&mut self, origin: Origin) {
        self.origin = origin;
    }
    #[inline(always)]
    fn end(&mut self, refused: bool) {
        if !self.origin.alarm && self.len == self.origin.index {
            assert!(
                refused,
                "a row was neither extended nor refused: an `Extend` port needs one of them for every row"
            );
            self.len += 1;
            self.added.push_filler();
        }
    }
    fn finish(&mut self) -> Output {
        let Extend { len, added, .. } = std::mem::take(self);
        if len == 0 {
            return Output::Nothing;
        }
        Output::Extend(added.finish())
    }
}

impl<C: Columns> Port for Rows<C> {
    type Adds = C;
    const NEW_ROWS: bool = true;
    #[inline(always)]
    fn begin(&mut self, origin: Origin) {
        self.origin = origin;
        self.before = self.origins.len();
    }
    #[inline(always)]
    fn end(&mut self, refused: bool) {
        if refused {
            self.origins.truncate(self.before);
            self.times.truncate(self.before);
            self.columns.truncate(self.before);
        }
    }
    fn finish(&mut self) -> Output {
        let Rows {
            origins,
            times,
            own_times,
            columns,
            ..
        } = std::mem::take(self);
        if origins.is_empty() {
            return Output::Nothing;
        }
        let rows = u32::try_from(origins.len()).expect("a call makes less than 2^32 rows");
        Output::Rows(NewRows {
            batch: Batch {
                rows,
                columns: columns.finish(),
            },
            origin: origins,
            times: own_times.then_some(times),
        })
    }
}

/// What a plugin writes to while it handles a row or an alarm. It stands for its port (`out.keep(…)`) or, with several, for
/// the struct of them (`out.alerts.keep(…)`).
pub struct Out<O: Outcome> {
    ports: O::Ports,
    origin: Origin,
    refused: Vec<Refusal>,
    refusing: bool,
}

impl<O: Outcome> Out<O> {
    /// Refuses the present row: it becomes a dead letter with this reason, and what it put out is taken back. Changes of
    /// state stay, so refuse before you change any.
    ///
    /// # Panics
    /// In `alarm`: there is no row to refuse.
    pub fn refuse(&mut self, reason: impl Into<String>) {
        assert!(
            !self.origin.alarm,
            "`refuse` in an alarm: it has no input row to refuse"
        );
        if !self.refusing {
            self.refused.push(Refusal {
                row: self.origin.index,
                reason: reason.into(),
            });
            self.refusing = true;
        }
    }

    pub(crate) fn new() -> Self {
        Out {
            ports: O::Ports::default(),
            origin: Origin::default(),
            refused: Vec::new(),
            refusing: false,
        }
    }

    #[inline(always)]
    pub(crate) fn begin(&mut self, origin: Origin) {
        self.origin = origin;
        self.refusing = false;
        self.ports.begin(origin);
    }

    #[inline(always)]
    pub(crate) fn end(&mut self) {
        self.ports.end(self.refusing);
    }

    pub(crate) fn finish(mut self) -> (Vec<Output>, Vec<Refusal>) {
        (self.ports.finish(), self.refused)
    }
}

impl<O: Outcome> Deref for Out<O> {
    type Target = O::Ports;
    fn deref(&self) -> &O::Ports {
        &self.ports
    }
}

impl<O: Outcome> DerefMut for Out<O> {
    fn deref_mut(&mut self) -> &mut O::Ports {
        &mut self.ports
    }
}

impl<C: Columns> Outcome for Select<C> {
    type Ports = Self;
}

impl<C: Columns> Outcome for Extend<C> {
    type Ports = Self;
}

impl<C: Columns> Outcome for Rows<C> {
    type Ports = Self;
}
