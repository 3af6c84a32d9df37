//! A checked pipeline as the engine runs it: names resolved, schemas known, expressions compiled, plugins loaded.
//!
//! Steps stand in topological order: every input of a step is a source or an earlier step.

mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

pub use super::remote::{OnReject, Postgres, Webhook, WriteMode};
use crate::expr::{Predicate, Projection};
use crate::plugin::{Component, Kind};
use crate::time::Micros;
pub use windows::{Deduplicate, Join, JoinKind, Top, Window, WindowKind};

/// The column that tells which step a row came from, in a sink with several inputs.
pub const STEP_COLUMN: &str = "step";

#[derive(Debug, Clone)]
pub struct Plan {
    /// Prefix of internal topics and ids: `[a-z0-9-]+`.
    pub name: String,
    pub host: Host,
    pub sources: Vec<Source>,
    pub tables: Vec<Table>,
    pub steps: Vec<Step>,
    pub sinks: Vec<Sink>,
    pub dead_letters: DeadLetters,
}

impl Plan {
    /// Bytes of keyed state that one step keeps in memory on one worker: each has the same share of `state_memory`.
    pub fn memory_of_table(&self) -> usize {
        let tables = self.steps.iter().filter(|s| s.operator.has_hot_table());
        self.host.state_memory / (self.host.workers * tables.count()).max(1)
    }

    /// The cluster whose transactions decide the checkpoints; `None` where the state alone does.
    pub fn transactional(&self) -> Option<&Cluster> {
        let exactly = self.host.delivery != Delivery::AtLeastOnce;
        self.kafka_output()
            .filter(|cluster| exactly && cluster.brokers != Brokers::Embedded)
    }

    /// The cluster of the Kafka sinks; without any, that of the dead letters.
    pub fn kafka_output(&self) -> Option<&Cluster> {
        let of_letters = match &self.dead_letters {
            DeadLetters::Kafka { cluster, .. } => Some(cluster),
            DeadLetters::File { .. } => None,
        };
        let of_sinks = self.sinks.iter().find_map(|sink| match &sink.connector {
            SinkConnector::Kafka { cluster, .. } => Some(cluster),
            _ => None,
        });
        of_sinks.or(of_letters)
    }
}

#[derive(Debug, Clone)]
pub struct Host {
    /// The state directory, absolute or relative to the working directory.
    pub state: PathBuf,
    pub workers: usize,
    pub checkpoint_every: Duration,
    /// How long a transaction of output to Kafka may stay open before the brokers abort it; whole milliseconds.
    pub transaction_timeout: Duration,
    pub key_groups: u16,
    /// Keyed state that stays in memory, bytes over all workers and steps.
    pub state_memory: usize,
    pub delivery: Delivery,
    /// Port of the admin API on loopback; 0 = chosen by the system.
    pub admin_port: u16,
    /// A JSON file with the counts of the run.
    pub metrics: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing was written in the file.
    Default,
    ExactlyOnce,
    AtLeastOnce,
}

/// Connection to a Kafka cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Cluster {
    pub brokers: Brokers,
    /// librdkafka properties that passed the allow-list, secrets resolved. Never printed.
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may hold secrets: names only.
        f.debug_struct("Cluster")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brokers {
    Embedded,
    /// `host:port,host:port`
    At(String),
}

#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub connector: SourceConnector,
    pub format: Format,
    /// Columns in the order of the file's `fields`: Utf8, Int64, Float64, Boolean, Timestamp(µs, "UTC"), Binary, Date32,
    /// Decimal128.
    pub schema: SchemaRef,
    /// Where each column's value stands in a record: path of member names (one name unless nested).
    pub paths: Vec<Vec<String>>,
    /// For each column the part of the record that it holds, if it is not one of its value.
    pub parts: Vec<Option<RecordPart>>,
    pub event_time: Option<EventTime>,
    pub bad_records: BadRecords,
    pub limit: Limit,
}

impl Source {
    /// The columns that a record's value has, and where each stands in it.
    pub fn of_value(&self) -> (SchemaRef, Vec<Vec<String>>) {
        let columns = self.schema.fields().iter().zip(&self.paths);
        let of_value = columns
            .zip(&self.parts)
            .filter(|(_, part)| part.is_none())
            .map(|((field, path), _)| (field.clone(), path.clone()));
        let (fields, paths): (Vec<_>, Vec<_>) = of_value.unzip();
        (Arc::new(Schema::new(fields)), paths)
    }

    /// Whether some column holds this part of records.
    pub fn has_part(&self, part: RecordPart) -> bool {
        self.parts.contains(&Some(part))
    }
}

#[derive(Debug, Clone)]
pub enum SourceConnector {
    Kafka {
        cluster: Cluster,
        topics: Topics,
        start: Start,
        on_data_loss: OnDataLoss,
    },
    File {
        path: PathBuf,
    },
    Generate(Generate),
}

/// The topics of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    Named(Vec<String>),
    /// A regular expression for whole names; the topics there are at a start.
    Pattern(String),
}

/// The expression that matches whole names of topics. `Err` says what is wrong with it.
pub fn topic_pattern(pattern: &str) -> Result<regex::Regex, String> {
    let wrong = |cause: regex::Error| {
        let text = cause.to_string();
        text.lines().last().unwrap_or(&text).trim().to_owned()
    };
    // Alone first, so that a bracket without its other does not close the group it is put in.
    regex::Regex::new(pattern).map_err(wrong)?;
    regex::Regex::new(&format!("^(?:{pattern})$")).map_err(wrong)
}

/// What a source knows of a record besides its value; a field with such a name holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordPart {
    Key,
    /// A JSON object, text.
    Headers,
    Topic,
    Partition,
    /// Kafka offset, or number of a file's line or row.
    Offset,
    /// Kafka's own time of the record.
    Timestamp,
}

impl RecordPart {
    pub const ALL: [(&str, Self); 6] = [
        ("_key", Self::Key),
        ("_headers", Self::Headers),
        ("_topic", Self::Topic),
        ("_partition", Self::Partition),
        ("_offset", Self::Offset),
        ("_timestamp", Self::Timestamp),
    ];

    /// The part that a field of this name holds.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, part)| *part)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    At(Micros),
}

/// What a source does when the position it goes on from is not in its topic any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDataLoss {
    /// Ends the run with an error.
    #[default]
    Stop,
    /// Goes on with the first record that there is.
    Earliest,
    /// Goes on behind the last one.
    Latest,
}

/// The generator's data; record i is at `start + i * speed / per_second`.
#[derive(Debug, Clone, PartialEq)]
pub struct Generate {
    pub kind: GenerateKind,
    pub per_second: f64,
    /// `None`: for ever.
    pub count: Option<u64>,
    pub seed: u64,
    /// Event seconds a second.
    pub speed: f64,
    pub start: Micros,
    pub users: u64,
    pub products: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerateKind {
    Clicks,
    Transactions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
    /// Each line, or each Kafka value, is one string.
    Text,
    /// Columns, not records.
    Parquet,
}

#[derive(Debug, Clone)]
pub struct EventTime {
    /// Index of the column in the source's schema.
    pub column: usize,
    pub lateness: Micros,
    pub idle_after: Duration,
    pub max_ahead: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecords {
    DeadLetter,
    Skip,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limit {
    pub per_second: Option<f64>,
    pub per_epoch: Option<usize>,
}

/// Reference data with one key column.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub connector: TableConnector,
    pub format: Format,
    /// Index of the key in `schema`.
    pub key: usize,
    pub schema: SchemaRef,
    pub paths: Vec<Vec<String>>,
}

#[derive(Debug, Clone)]
pub enum TableConnector {
    /// Read again when it changes.
    File { path: PathBuf },
    /// A compacted topic: the last record of a key counts.
    Kafka { cluster: Cluster, topic: String },
}

/// What a step reads: a source's rows, or a port of an earlier step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    Source(usize),
    Port { step: usize, port: usize },
}

#[derive(Debug, Clone)]
pub struct Step {
    pub name: String,
    /// Stable number of the step in the state; assigned by the engine from the name when state is opened.
    pub inputs: Vec<Input>,
    /// For each input the indices of its key columns: rows go to the worker that owns their key. No columns: to the one
    /// that owns the empty key. `None`: rows stay with the worker they are on.
    pub keys: Option<Vec<Vec<usize>>>,
    pub operator: Operator,
    /// The first is the main one, read as `step`; the others as `step.name`.
    pub ports: Vec<Port>,
    /// Event time is known at this step's input (its sources all have `event_time`).
    pub has_event_time: bool,
    /// How far the event times of its rows may lie below its watermark, microseconds.
    pub holds_back: Micros,
    /// What must stay the same for the step's state to stay valid (operator, keys, types, ...).
    pub signature: Value,
}

/// Reserved name of the port for rows that came too late.
pub const LATE_PORT: &str = "late";

#[derive(Debug, Clone)]
pub struct Port {
    pub name: String,
    pub schema: SchemaRef,
}

#[derive(Debug, Clone)]
pub enum Operator {
    /// Filter, then project; each optional.
    Project {
        filter: Option<Predicate>,
        projection: Option<Projection>,
    },
    Lookup(Lookup),
    Plugin(Box<Plugin>),
    Window(Box<Window>),
    Top(Box<Top>),
    Join(Box<Join>),
    Deduplicate(Deduplicate),
}

impl Operator {
    /// Whether the step keeps a value a key that can be evicted and read back.
    pub fn has_hot_table(&self) -> bool {
        match self {
            Self::Plugin(plugin) => plugin.component.kind() == Kind::Keyed,
            Self::Window(window) => matches!(window.kind, WindowKind::Session(_)),
            Self::Deduplicate(_) => true,
            _ => false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Lookup {
    /// Index into the plan's tables.
    pub table: usize,
    /// Index of the column in the input schema.
    pub on: usize,
    /// Indices of the columns in the table's schema that are appended.
    pub add: Vec<usize>,
    pub kind: LookupKind,
}

/// What becomes of a row whose key the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupKind {
    /// It stays, the added columns null.
    Left,
    /// It is dropped.
    Inner,
}

#[derive(Debug, Clone)]
pub struct Plugin {
    pub component: Arc<Component>,
    /// As the pipeline file names it.
    pub file: PathBuf,
    /// The JSON document handed to `configure`.
    pub config: String,
    pub limits: PluginLimits,
    pub order: Order,
    /// Keys not touched for so long in event time are forgotten.
    pub state_ttl: Option<Micros>,
    /// Index of the reserved port `late`, if there is one.
    pub late_port: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PluginLimits {
    pub memory: usize,
    pub call: Duration,
    /// Share of failed rows, 0 to 1.
    pub failed: f64,
    /// Bytes of rows held for event-time order.
    pub wait: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Arrival,
    EventTime,
}

#[derive(Debug, Clone)]
pub struct Sink {
    pub name: String,
    pub inputs: Vec<SinkInput>,
    pub connector: SinkConnector,
}

#[derive(Debug, Clone)]
pub struct SinkInput {
    /// As written in `from`: `step` or `step.port`; the value of the column `step` when a sink has several inputs.
    pub label: String,
    pub input: Input,
    pub schema: SchemaRef,
}

#[derive(Debug, Clone)]
pub enum SinkConnector {
    Kafka {
        cluster: Cluster,
        topic: String,
        /// For each input, the indices of the key columns; empty = no key.
        key: Vec<Vec<usize>>,
    },
    File {
        path: PathBuf,
        existing: Existing,
        format: LineFormat,
    },
    /// A directory of files of lines.
    Files {
        dir: PathBuf,
        existing: Existing,
        format: LineFormat,
        roll: Roll,
    },
    /// A directory of Parquet files. `partition_by` names columns of [`Sink::schema`].
    Parquet {
        dir: PathBuf,
        existing: Existing,
        roll: Roll,
        partition_by: Vec<String>,
    },
    Console {
        rows: usize,
    },
    Webhook(Webhook),
    Postgres(Postgres),
}

/// What a line of a file sink holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// One JSON object.
    Json,
    /// One CSV record, after a first line with the names of the columns.
    Csv,
}

/// When a file of a directory is finished and the next one begun: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roll {
    /// Wall time since its first row.
    pub every: Micros,
    pub bytes: u64,
}

impl Roll {
    /// Whether a file whose first row came at `since` and that has `bytes` is finished at `now`. A clock that was set
    /// back does not hold it open.
    pub fn is_due(&self, since: Micros, now: Micros, bytes: u64) -> bool {
        bytes >= self.bytes || now.saturating_sub(since) >= self.every || now < since
    }
}

impl Sink {
    /// The columns of a row as it is written to a table of all inputs: with several of them the column `step` comes
    /// first. Inputs have equal columns, of which one is nullable if it is in any input.
    pub fn schema(&self) -> SchemaRef {
        let first = &self.inputs[0].schema;
        let nullable = |at: usize| self.inputs.iter().any(|i| i.schema.field(at).is_nullable());
        let columns = first.fields().iter().enumerate();
        let columns = columns.map(|(at, f)| f.as_ref().clone().with_nullable(nullable(at)));
        let step = (self.inputs.len() > 1).then(|| Field::new(STEP_COLUMN, DataType::Utf8, false));
        Arc::new(Schema::new(
            step.into_iter().chain(columns).collect::<Vec<_>>(),
        ))
    }
}

impl SinkConnector {
    /// Whether output becomes visible only by a decided checkpoint, so that a start may have to make up for it.
    pub fn follows(&self) -> bool {
        match self {
            Self::Files { .. } | Self::Parquet { .. } | Self::Postgres(_) => true,
            Self::Kafka { .. } | Self::File { .. } | Self::Console { .. } | Self::Webhook(_) => {
                false
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// A non-empty file that this sink did not write is an error.
    Refuse,
    Append,
    Overwrite,
}

#[derive(Debug, Clone)]
pub enum DeadLetters {
    Kafka { cluster: Cluster, topic: String },
    File { path: PathBuf },
}
