//! The records and variants of `wit/` as Rust types: borrowed ones that go into a plugin, owned ones that come out.
//!
//! Derived by hand instead of generated: the borrowed ones lower a column as one memory copy each. What comes out of a
//! plugin is unchecked here; `check.rs` looks at every length, offset and index before anything else uses it.
//! Invariant: names and order of fields and cases are those of the WIT files; loading a component compares them.

use wasmtime::component::{ComponentType, Lift, Lower};

pub const HOST: &str = "tidemill:plugin/host@0.1.0";
pub const LIFECYCLE: &str = "tidemill:plugin/lifecycle@0.1.0";
pub const TRANSFORM: &str = "tidemill:plugin/transform@0.1.0";
pub const KEYED: &str = "tidemill:plugin/keyed@0.1.0";
pub const COLUMNS: &str = "tidemill:plugin/columns@0.1.0";
pub const OUTCOME: &str = "tidemill:plugin/outcome@0.1.0";
pub const PACKAGE: &str = "tidemill:plugin/";
pub const VERSION: &str = "0.1.0";

// ---- into a plugin ----

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct VarIn<'a> {
    pub offsets: &'a [i32],
    pub data: &'a [u8],
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(variant)]
pub enum ValuesIn<'a> {
    #[component(name = "boolean")]
    Boolean(&'a [u8]),
    #[component(name = "int64")]
    Int64(&'a [i64]),
    #[component(name = "float64")]
    Float64(&'a [f64]),
    #[component(name = "timestamp")]
    Timestamp(&'a [i64]),
    #[component(name = "utf8")]
    Utf8(VarIn<'a>),
    #[component(name = "binary")]
    Binary(VarIn<'a>),
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct ColumnIn<'a> {
    pub values: ValuesIn<'a>,
    pub validity: Option<&'a [u8]>,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct BatchIn<'a> {
    pub rows: u32,
    pub columns: &'a [ColumnIn<'a>],
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct FixedStateIn<'a> {
    pub words: &'a [u64],
    pub present: Option<&'a [u8]>,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(variant)]
pub enum StateIn<'a> {
    #[component(name = "none")]
    None,
    #[component(name = "fixed")]
    Fixed(FixedStateIn<'a>),
    #[component(name = "blob")]
    Blob(VarIn<'a>),
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub struct KeyedIn<'a> {
    pub rows: BatchIn<'a>,
    #[component(name = "group-of-row")]
    pub group_of_row: &'a [u32],
    pub groups: u32,
    pub keys: &'a [ColumnIn<'a>],
    pub state: StateIn<'a>,
    pub alarms: &'a [i64],
    pub due: &'a [u32],
    pub now: i64,
}

// ---- out of a plugin, and both ways where the host answers ----

#[derive(ComponentType, Lift, Lower, Debug, Clone, PartialEq)]
#[component(record)]
pub struct Var {
    pub offsets: Vec<i32>,
    pub data: Vec<u8>,
}

#[derive(ComponentType, Lift, Lower, Debug, Clone, PartialEq)]
#[component(variant)]
pub enum Values {
    #[component(name = "boolean")]
    Boolean(Vec<u8>),
    #[component(name = "int64")]
    Int64(Vec<i64>),
    #[component(name = "float64")]
    Float64(Vec<f64>),
    #[component(name = "timestamp")]
    Timestamp(Vec<i64>),
    #[component(name = "utf8")]
    Utf8(Var),
    #[component(name = "binary")]
    Binary(Var),
}

#[derive(ComponentType, Lift, Lower, Debug, Clone, PartialEq)]
#[component(record)]
pub struct Column {
    pub values: Values,
    pub validity: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct BatchOut {
    pub rows: u32,
    pub columns: Vec<Column>,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct Selection {
    pub rows: Vec<u32>,
    pub added: Vec<Column>,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct NewRows {
    pub batch: BatchOut,
    pub origin: Vec<u32>,
    pub times: Option<Vec<i64>>,
}

#[derive(ComponentType, Lift, Debug)]
#[component(variant)]
pub enum Output {
    #[component(name = "nothing")]
    Nothing,
    #[component(name = "extend")]
    Extend(Vec<Column>),
    #[component(name = "select")]
    Select(Selection),
    #[component(name = "rows")]
    Rows(NewRows),
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct Refusal {
    pub row: u32,
    pub reason: String,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct Transformed {
    pub ports: Vec<Output>,
    pub refused: Vec<Refusal>,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct FixedState {
    pub words: Vec<u64>,
    pub present: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift, Debug)]
#[component(variant)]
pub enum State {
    #[component(name = "none")]
    None,
    #[component(name = "fixed")]
    Fixed(FixedState),
    #[component(name = "blob")]
    Blob(Var),
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct KeyedResult {
    pub ports: Vec<Output>,
    pub refused: Vec<Refusal>,
    pub state: State,
    pub dirty: Option<Vec<u8>>,
    pub alarms: Vec<i64>,
}

// ---- lifecycle and host ----

#[derive(ComponentType, Lift, Lower, Debug, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub enum ValueType {
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "int64")]
    Int64,
    #[component(name = "float64")]
    Float64,
    #[component(name = "timestamp")]
    Timestamp,
    #[component(name = "utf8")]
    Utf8,
    #[component(name = "binary")]
    Binary,
}

#[derive(ComponentType, Lift, Lower, Debug, Clone)]
#[component(record)]
pub struct Field {
    pub name: String,
    pub ty: ValueType,
    pub nullable: bool,
}

#[derive(ComponentType, Lift, Debug, Clone, Copy)]
#[component(variant)]
pub enum StateLayout {
    #[component(name = "none")]
    None,
    #[component(name = "fixed")]
    Fixed(u32),
    #[component(name = "blob")]
    Blob,
}

#[expect(dead_code, reason = "Lift makes the variants, unseen by the compiler")]
#[derive(ComponentType, Lift, Debug, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum AlarmClock {
    #[component(name = "none")]
    None,
    #[component(name = "event-time")]
    EventTime,
    #[component(name = "processing-time")]
    ProcessingTime,
}

#[expect(dead_code, reason = "Lift makes the variants, unseen by the compiler")]
#[derive(ComponentType, Lift, Debug, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum RowOrder {
    #[component(name = "arrival")]
    Arrival,
    #[component(name = "event-time")]
    EventTime,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct Description {
    pub name: String,
    pub version: String,
    #[component(name = "config-schema")]
    pub config_schema: String,
    pub state: StateLayout,
    #[component(name = "state-version")]
    pub state_version: u32,
    pub alarms: AlarmClock,
    pub order: RowOrder,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct Port {
    pub name: String,
    pub adds: Vec<Field>,
    #[component(name = "new-rows")]
    pub new_rows: bool,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub struct Plan {
    pub reads: Vec<String>,
    pub ports: Vec<Port>,
}

#[expect(dead_code, reason = "Lift makes the variants, unseen by the compiler")]
#[derive(ComponentType, Lift, Debug, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
