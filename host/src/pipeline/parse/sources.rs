//! `[sources.X]` and `[tables.X]`: where rows come from and what columns they have.

use super::super::plan::{BadRecords, Format, GenerateKind, Limit, Start};
use super::super::read::Reader;
use super::super::spec::{EventTime, Field, FieldType, Source, SourceConnector, Table};
use super::super::text::Spanned;
use super::super::tree::{Kind, Node};
use super::super::values;
use super::{connection, one_connector, topic};
use crate::time::{MICROS_PER_SECOND, Micros};

const CONNECTORS: [&str; 3] = ["kafka", "file", "generate"];
const FORMATS: [(&str, Format); 2] = [("json", Format::Json), ("csv", Format::Csv)];
const FORMATS_LATER: [&str; 6] = ["avro", "parquet", "protobuf", "text", "raw", "arrow"];
const KINDS: [(&str, GenerateKind); 2] = [
    ("clicks", GenerateKind::Clicks),
    ("transactions", GenerateKind::Transactions),
];
const TYPES: [(&str, FieldType); 7] = [
    ("string", FieldType::String),
    ("int", FieldType::Int),
    ("float", FieldType::Float),
    ("bool", FieldType::Bool),
    ("timestamp", FieldType::Timestamp),
    ("bytes", FieldType::Bytes),
    ("date", FieldType::Date),
];
/// Digits that a decimal of 128 bits can have.
const DECIMAL_DIGITS_MAX: u8 = 38;
/// What other systems call the types.
const OTHER_NAMES: [(&str, &str); 18] = [
    ("str", "string"),
    ("text", "string"),
    ("varchar", "string"),
    ("utf8", "string"),
    ("integer", "int"),
    ("long", "int"),
    ("bigint", "int"),
    ("int64", "int"),
    ("double", "float"),
    ("float64", "float"),
    ("number", "float"),
    ("boolean", "bool"),
    ("datetime", "timestamp"),
    ("time", "timestamp"),
    ("binary", "bytes"),
    ("date32", "date"),
    ("numeric", "decimal(10,2)"),
    ("money", "decimal(10,2)"),
];

/// 2026-01-01T00:00:00Z
const GENERATE_START: Micros = 1_767_225_600 * MICROS_PER_SECOND;
const DAY: Micros = 86_400 * MICROS_PER_SECOND;
const RECORDS_MAX: u64 = i64::MAX as u64;

pub fn source(name: Spanned<String>, r: &mut Reader) -> Source {
    let place = r.place.clone();
    r.later(&["parquet", "http", "postgres"]);
    let connector = connector(r, &place);
    let generated = r.has("generate");
    let brought = ["format", "fields", "event_time"];
    let format = r.word("format", &FORMATS, &FORMATS_LATER);
    let fields = if generated {
        r.node("fields");
        None
    } else {
        r.need(
            "fields",
            "fields = { user_id = \"string\", amount = \"float\" }",
        );
        fields(r)
    };
    let event_time = if generated {
        r.node("event_time");
        None
    } else {
        r.nested("event_time", event_time)
    };
    for key in brought {
        let Some(span) = r.key_span(key).filter(|_| generated) else {
            continue;
        };
        r.findings
            .error(span, format!("the generator brings its own `{key}`"))
            .help(format!("remove `{key}` from {place}"));
    }
    let bad = [
        ("dead-letter", BadRecords::DeadLetter),
        ("skip", BadRecords::Skip),
        ("stop", BadRecords::Stop),
    ];
    let bad_records = r.word("bad_records", &bad, &[]);
    Source {
        name,
        connector,
        format,
        fields,
        event_time,
        bad_records: bad_records.map_or(BadRecords::DeadLetter, |b| b.value),
        limit: r.nested("limit", limit).unwrap_or_default(),
    }
}

fn connector(r: &mut Reader, place: &str) -> Option<SourceConnector> {
    let kafka = r.nested("kafka", kafka);
    let file = r.nested("file", |r| SourceConnector::File {
        path: path(r, "path = \"clicks.jsonl\""),
    });
    let generate = r.nested("generate", generate);
    if !r.has("parquet") && !r.has("http") && !r.has("postgres") {
        one_connector(r, &CONNECTORS, place);
    }
    kafka.or(file).or(generate)
}

/// The path of a file that can be read as CSV or JSON lines.
fn path(r: &mut Reader, example: &str) -> Option<Spanned<String>> {
    let path = r.required("path", example)?;
    let extension = path.value.rsplit('.').next().unwrap_or_default();
    if matches!(extension, "parquet" | "avro" | "gz" | "zst") {
        r.findings
            .error(
                path.span,
                format!("`.{extension}` files are not supported yet"),
            )
            .help("JSON lines (.jsonl) and CSV (.csv) are");
        return None;
    }
    Some(path)
}

fn kafka(r: &mut Reader) -> SourceConnector {
    r.later(&["topics", "pattern"]);
    let topic = if r.has("topics") || r.has("pattern") {
        r.node("topic");
        None
    } else {
        topic(r)
    };
    let loss = [("stop", ())];
    r.word("on_data_loss", &loss, &["earliest", "latest"]);
    SourceConnector::Kafka {
        topic,
        start: r
            .notation("start", "\"earliest\", \"latest\" or a time", start)
            .map_or(Start::Earliest, |s| s.value),
        connection: connection(r, false),
    }
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        time => values::time(time).map(Start::At),
    }
}

fn generate(r: &mut Reader) -> SourceConnector {
    r.need("kind", "kind = \"clicks\"");
    let kind = r.word("kind", &KINDS, &[]);
    SourceConnector::Generate {
        kind: kind.map(|k| k.value),
        per_second: r.rate("per_second").unwrap_or(100.0),
        count: r.whole("count", 0, RECORDS_MAX).map(|n| n.value),
        seed: r.whole("seed", 0, u64::MAX).map_or(1, |n| n.value),
        speed: r.rate("speed").unwrap_or(1.0),
        start: r
            .notation(
                "start",
                "a time such as \"2026-01-01T00:00:00Z\"",
                values::time,
            )
            .map_or(GENERATE_START, |t| t.value),
        users: r.whole("users", 1, 1 << 32).map_or(1_000, |n| n.value),
        products: r.whole("products", 1, 1 << 32).map_or(100, |n| n.value),
    }
}

fn event_time(r: &mut Reader) -> EventTime {
    EventTime {
        field: r.required("field", "field = \"timestamp\""),
        lateness: r.duration("lateness").map_or(0, |d| d.value),
        idle_after: values::clock(
            r.duration("idle_after")
                .map_or(30 * MICROS_PER_SECOND, |d| d.value),
        ),
        max_ahead: r.duration("max_ahead").map_or(DAY, |d| d.value),
    }
}

fn limit(r: &mut Reader) -> Limit {
    Limit {
        per_second: r.rate("per_second"),
        per_epoch: r.whole("per_epoch", 1, 1 << 40).map(|n| n.value as usize),
    }
}

/// `fields`, in the order written; `None` if any of them could not be read.
fn fields(r: &mut Reader) -> Option<Vec<Field>> {
    let whole = r.nested("fields", |r| {
        let mut all = Vec::new();
        let mut written = 0;
        for (name, node) in r.entries() {
            written += 1;
            all.extend(field(r, name, node));
        }
        if written == 0 {
            let message = format!("{} names no column", r.place);
            r.findings.error(r.span, message);
        }
        (written > 0 && all.len() == written).then_some(all)
    });
    whole.flatten()
}

fn field<'t>(r: &mut Reader<'t, '_>, name: &Spanned<String>, node: &'t Node) -> Option<Field> {
    if name.value.is_empty() || name.value.starts_with('_') {
        r.findings
            .error(name.span, format!("`{}` is no name for a column", name.value))
            .help("names that start with `_` are reserved; rename it: city = { path = \"_city\", type = \"string\" }");
        return None;
    }
    let (path, ty) = match &node.kind {
        Kind::Table(_) => {
            let place = format!("field `{}`", name.value);
            r.table_at(node, &name.value, place, name.span, |r| {
                let path = r.required("path", "path = \"address.city\"");
                let ty = r.required("type", "type = \"string\"");
                Some((Some(path?), ty?))
            })??
        }
        Kind::String(text) => (None, Spanned::new(text.clone(), node.span)),
        _ => {
            r.wrong(
                &name.value,
                node,
                "a type such as \"string\" or { path, type }",
            );
            return None;
        }
    };
    let (ty, nullable) = field_type(r, &ty)?;
    let path = match path {
        None => vec![name.value.clone()],
        Some(path) => split_path(r, &path)?,
    };
    Some(Field {
        name: name.clone(),
        path,
        ty,
        nullable,
    })
}

fn split_path(r: &mut Reader, path: &Spanned<String>) -> Option<Vec<String>> {
    let parts: Vec<String> = path.value.split('.').map(str::to_string).collect();
    if parts.iter().any(String::is_empty) {
        r.findings
            .error(path.span, format!("\"{}\" is no path", path.value))
            .help("a path is names with dots between them: \"address.city\"");
        return None;
    }
    Some(parts)
}

/// The type and whether it may be null.
fn field_type(r: &mut Reader, text: &Spanned<String>) -> Option<(FieldType, bool)> {
    let (base, nullable) = match text.value.strip_suffix('?') {
        Some(base) => (base, true),
        None => (text.value.as_str(), false),
    };
    if let Some((_, ty)) = TYPES.iter().find(|(name, _)| *name == base) {
        return Some((*ty, nullable));
    }
    if let Some(rest) = base.strip_prefix("decimal") {
        return decimal(r, text, rest).map(|ty| (ty, nullable));
    }
    let lower = base.to_lowercase();
    let names = TYPES.iter().map(|(name, _)| *name);
    let near = OTHER_NAMES
        .iter()
        .find(|(other, _)| *other == lower)
        .map(|(_, name)| *name)
        .or_else(|| values::nearest(base, names));
    let help = match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            "types: string, int, float, bool, timestamp, date, decimal(10,2), bytes; with `?` they may be null".into()
        }
    };
    r.findings
        .error(text.span, format!("\"{}\" is no type", text.value))
        .help(help);
    None
}

/// The `(p,s)` of `decimal(p,s)`.
fn decimal(r: &mut Reader, text: &Spanned<String>, rest: &str) -> Option<FieldType> {
    let inner = rest
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'));
    let digits = inner.and_then(|inner| {
        let (precision, scale) = inner.split_once(',')?;
        let precision: u8 = precision.trim().parse().ok()?;
        let scale: u8 = scale.trim().parse().ok()?;
        Some((precision, scale))
    });
    match digits {
        Some((precision @ 1..=DECIMAL_DIGITS_MAX, scale)) if scale <= precision => {
            Some(FieldType::Decimal(precision, scale as i8))
        }
        Some(_) => {
            r.findings
                .error(text.span, format!("\"{}\" cannot be held", text.value))
                .help("decimal(p,s): 1 to 38 digits in all, at most all of them behind the point");
            None
        }
        None => {
            r.findings
                .error(text.span, format!("\"{}\" is no type", text.value))
                .help(
                    "a decimal has its digits in all and those behind the point: \"decimal(10,2)\"",
                );
            None
        }
    }
}

pub fn table(name: Spanned<String>, r: &mut Reader) -> Table {
    r.later(&["kafka", "parquet", "postgres", "refresh"]);
    let later = r.has("kafka") || r.has("parquet") || r.has("postgres");
    if !later {
        r.need("file", "file = { path = \"products.csv\" }");
    }
    let path = r
        .nested("file", |r| path(r, "path = \"products.csv\""))
        .flatten();
    r.need(
        "fields",
        "fields = { product_id = \"string\", price = \"float\" }",
    );
    Table {
        name,
        path,
        format: r.word("format", &FORMATS, &FORMATS_LATER),
        key: r.required("key", "key = \"product_id\""),
        fields: fields(r),
    }
}
