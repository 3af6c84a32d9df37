//! The pipeline file as plain structs: what was written, with its positions, nothing resolved.
//!
//! Not yet a plan: names may lead nowhere and files may be missing. A part that could not be read is `None` and its
//! mistake is in the findings, so that the checks that follow say nothing of it twice.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::plan::WindowKind;
use super::plan::{
    BadRecords, Delivery, Existing, Format, GenerateKind, JoinKind, Limit, LineFormat, LookupKind,
    OnDataLoss, OnReject, Order, RecordPart, Roll, Start, WriteMode,
};
use super::text::{Span, Spanned, Texts};
use crate::time::Micros;

/// A pipeline file as read.
#[derive(Debug, Clone)]
pub struct Spec {
    pub texts: Arc<Texts>,
    /// The directory of the file: what relative paths are relative to.
    pub dir: PathBuf,
    pub name: Option<Spanned<String>>,
    pub host: Host,
    pub kafka: Option<Connection>,
    pub dead_letters: Option<DeadLetters>,
    pub sources: Vec<Source>,
    pub tables: Vec<Table>,
    pub steps: Vec<Step>,
    pub sinks: Vec<Sink>,
}

/// `[host]`
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub state: Option<Spanned<String>>,
    pub workers: Option<usize>,
    pub checkpoint_every: Option<Spanned<Duration>>,
    pub transaction_timeout: Option<Spanned<Duration>>,
    pub delivery: Option<Spanned<Delivery>>,
    pub key_groups: Option<u16>,
    pub state_memory: Option<usize>,
    /// `admin = { port = N }`
    pub admin_port: Option<u16>,
    pub metrics: Option<Spanned<String>>,
}

/// Brokers and properties, of `[kafka]` or of one source or sink.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    pub brokers: Option<Spanned<String>>,
    pub properties: Vec<Property>,
    /// Where the table stands.
    pub span: Span,
    /// `brokers` could not be read: nothing more to say of it.
    pub broken: bool,
}

/// One librdkafka property. The value may be a secret: it is not shown.
#[derive(Clone)]
pub struct Property {
    pub name: Spanned<String>,
    pub value: Spanned<String>,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property")
            .field("name", &self.name.value)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub enum DeadLetters {
    Kafka {
        topic: Option<Spanned<String>>,
        connection: Connection,
    },
    File {
        path: Option<Spanned<String>>,
    },
}

#[derive(Debug, Clone)]
pub struct Source {
    pub name: Spanned<String>,
    pub connector: Option<SourceConnector>,
    /// `None`: not written; implied by a file's extension, otherwise JSON.
    pub format: Option<Spanned<Format>>,
    pub fields: Option<Vec<Field>>,
    pub event_time: Option<EventTime>,
    pub bad_records: BadRecords,
    pub limit: Limit,
}

#[derive(Debug, Clone)]
pub enum SourceConnector {
    Kafka {
        topics: Option<Topics>,
        start: Start,
        on_data_loss: OnDataLoss,
        connection: Connection,
    },
    File {
        path: Option<Spanned<String>>,
    },
    Generate {
        kind: Option<GenerateKind>,
        per_second: f64,
        count: Option<u64>,
        seed: u64,
        speed: f64,
        start: Micros,
        users: u64,
        products: u64,
    },
}

/// The topics of a source, as written.
#[derive(Debug, Clone)]
pub enum Topics {
    Named(Vec<Spanned<String>>),
    Pattern(Spanned<String>),
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: Spanned<String>,
    /// Where the value stands in a record.
    pub path: Vec<String>,
    pub ty: FieldType,
    pub nullable: bool,
    /// The column holds this part of the record, not one of its value.
    pub part: Option<RecordPart>,
}

impl Field {
    /// The one column of text whose fields are not written.
    pub fn line() -> Self {
        Self {
            name: Spanned::new("line".into(), Span::default()),
            path: vec!["line".into()],
            ty: FieldType::String,
            nullable: false,
            part: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    String,
    Int,
    Float,
    Bool,
    Timestamp,
    Bytes,
    Date,
    /// Digits in all, and how many of them stand behind the point.
    Decimal(u8, i8),
}

#[derive(Debug, Clone)]
pub struct EventTime {
    pub field: Option<Spanned<String>>,
    pub lateness: Micros,
    pub idle_after: Duration,
    pub max_ahead: Micros,
}

#[derive(Debug, Clone)]
pub struct Table {
    pub name: Spanned<String>,
    pub connector: Option<TableConnector>,
    pub format: Option<Spanned<Format>>,
    pub key: Option<Spanned<String>>,
    pub fields: Option<Vec<Field>>,
}

#[derive(Debug, Clone)]
pub enum TableConnector {
    File {
        path: Option<Spanned<String>>,
    },
    Kafka {
        topic: Option<Spanned<String>>,
        connection: Connection,
    },
}

#[derive(Debug, Clone)]
pub struct Step {
    pub name: Spanned<String>,
    /// What it reads: of a join the left and the right side, otherwise rows that are read as one.
    pub from: Vec<Spanned<String>>,
    /// `None`: belongs to a later version, or could not be read.
    pub operator: Option<Operator>,
}

#[derive(Debug, Clone)]
pub enum Operator {
    Project {
        filter: Option<Spanned<String>>,
        select: Option<Vec<Spanned<String>>>,
    },
    Lookup(Lookup),
    Plugin(Box<Plugin>),
    Window(Box<Window>),
    Join(Box<Join>),
    Deduplicate(Deduplicate),
}

#[derive(Debug, Clone)]
pub struct Window {
    /// `None`: could not be read.
    pub kind: Option<WindowKind>,
    pub key: Option<Spanned<Vec<Spanned<String>>>>,
    /// Name and SQL of each result.
    pub aggregate: Vec<(Spanned<String>, Spanned<String>)>,
    pub allowed_lateness: Option<Spanned<Micros>>,
    pub top: Option<Top>,
}

#[derive(Debug, Clone)]
pub struct Top {
    pub n: usize,
    /// `revenue desc, product_id`
    pub by: Spanned<String>,
}

#[derive(Debug, Clone)]
pub struct Join {
    pub on: Vec<Spanned<String>>,
    pub before: Micros,
    pub after: Micros,
    pub kind: JoinKind,
    pub select: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Clone)]
pub struct Deduplicate {
    pub on: Spanned<Vec<Spanned<String>>>,
    pub within: Micros,
}

#[derive(Debug, Clone)]
pub struct Lookup {
    pub table: Option<Spanned<String>>,
    pub on: Option<Spanned<String>>,
    pub add: Vec<Spanned<String>>,
    pub kind: LookupKind,
}

#[derive(Debug, Clone)]
pub struct Plugin {
    pub file: Option<Spanned<String>>,
    pub config: Spanned<serde_json::Value>,
    pub sha256: Option<Spanned<String>>,
    /// Where the key `key` stands and the columns it names; `None`: not written.
    pub key: Option<Spanned<Vec<Spanned<String>>>>,
    pub order: Option<Spanned<Order>>,
    pub state_ttl: Option<Spanned<Micros>>,
    pub limits: PluginLimits,
    /// Some part could not be read: instantiating it would tell nothing.
    pub broken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PluginLimits {
    pub memory: usize,
    pub call: Duration,
    /// Share, 0 to 1.
    pub failed: f64,
    pub wait: usize,
}

#[derive(Debug, Clone)]
pub struct Sink {
    pub name: Spanned<String>,
    pub from: Vec<Spanned<String>>,
    pub connector: Option<SinkConnector>,
}

#[derive(Debug, Clone)]
pub enum SinkConnector {
    Kafka {
        topic: Option<Spanned<String>>,
        key: Vec<Spanned<String>>,
        connection: Connection,
    },
    File {
        path: Option<Spanned<String>>,
        existing: Existing,
        format: Option<LineFormat>,
    },
    Files {
        dir: Option<Spanned<String>>,
        existing: Existing,
        format: LineFormat,
        roll: Roll,
    },
    Parquet {
        dir: Option<Spanned<String>>,
        existing: Existing,
        roll: Roll,
        partition_by: Vec<Spanned<String>>,
    },
    Console {
        rows: usize,
    },
    Webhook(Webhook),
    Postgres(Postgres),
}

/// `webhook = { .. }`; URL and headers as written, references not resolved.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub url: Option<Property>,
    pub headers: Vec<Property>,
    pub batch: usize,
    pub in_flight: usize,
    pub timeout: Duration,
    pub ca: Option<Spanned<String>>,
    pub on_reject: OnReject,
}

/// `postgres = { .. }`
#[derive(Debug, Clone)]
pub struct Postgres {
    pub url: Option<Property>,
    pub table: Option<Spanned<String>>,
    pub key: Vec<Spanned<String>>,
    /// `None`: not written; upsert if there is a key.
    pub mode: Option<Spanned<WriteMode>>,
    pub create: bool,
    pub ca: Option<Spanned<String>>,
    /// Where the table stands.
    pub span: Span,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            call: Duration::from_millis(200),
            failed: 0.1,
            wait: 256 << 20,
        }
    }
}
