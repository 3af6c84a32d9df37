//! `[sources.X]`: where rows come from.

use super::super::plan::{
    BadRecords, Format, GenerateKind, Limit, OnDataLoss, Start, topic_pattern,
};
use super::super::read::Reader;
use super::super::spec::{EventTime, Field, Source, SourceConnector, Topics};
use super::super::text::Spanned;
use super::super::values;
use super::fields::fields;
use super::{connection, one_connector, topic, topic_like};
use crate::time::{MICROS_PER_SECOND, Micros};

const CONNECTORS: [&str; 3] = ["kafka", "file", "generate"];
pub(super) const FORMATS: [(&str, Format); 4] = [
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("text", Format::Text),
    ("parquet", Format::Parquet),
];
pub(super) const FORMATS_LATER: [&str; 4] = ["avro", "protobuf", "raw", "arrow"];
const KINDS: [(&str, GenerateKind); 2] = [
    ("clicks", GenerateKind::Clicks),
    ("transactions", GenerateKind::Transactions),
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
    let text = format.as_ref().is_some_and(|f| f.value == Format::Text);
    let fields = if generated {
        r.node("fields");
        None
    } else if text && !r.has("fields") {
        Some(vec![Field::line()])
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

/// The path of a file that can be read: its extension tells format and compression.
pub(super) fn path(r: &mut Reader, example: &str) -> Option<Spanned<String>> {
    let path = r.required("path", example)?;
    if path.value.ends_with(".avro") {
        r.findings
            .error(path.span, "`.avro` files are not supported yet")
            .help("JSON lines (.jsonl), CSV (.csv), text and Parquet (.parquet) are");
        return None;
    }
    Some(path)
}

fn kafka(r: &mut Reader) -> SourceConnector {
    let topics = topics(r);
    let loss = [
        ("stop", OnDataLoss::Stop),
        ("earliest", OnDataLoss::Earliest),
        ("latest", OnDataLoss::Latest),
    ];
    let on_data_loss = r.word("on_data_loss", &loss, &[]);
    SourceConnector::Kafka {
        topics,
        start: r
            .notation("start", "\"earliest\", \"latest\" or a time", start)
            .map_or(Start::Earliest, |s| s.value),
        on_data_loss: on_data_loss.map_or(OnDataLoss::Stop, |rule| rule.value),
        connection: connection(r, false),
    }
}

/// `topic`, `topics` or `pattern`: exactly one of them.
fn topics(r: &mut Reader) -> Option<Topics> {
    const WAYS: [&str; 3] = ["topic", "topics", "pattern"];
    let written: Vec<_> = WAYS.into_iter().filter(|key| r.has(key)).collect();
    let found = match written.first() {
        Some(&"topics") => listed(r),
        Some(&"pattern") => pattern(r),
        _ => topic(r).map(|topic| Topics::Named(vec![topic])),
    };
    for other in written.iter().skip(1) {
        r.node(other);
        let span = r.key_span(other).unwrap_or(r.span);
        let message = format!("`{}` and `{other}` both name topics", written[0]);
        r.findings
            .error(span, message)
            .help("leave one of them out");
    }
    found
}

fn listed(r: &mut Reader) -> Option<Topics> {
    let list = r.strings("topics", "[\"orders\", \"returns\"]")?;
    if list.value.is_empty() {
        r.findings.error(list.span, "`topics` names no topic");
        return None;
    }
    let mut good = true;
    for (i, topic) in list.value.iter().enumerate() {
        good &= topic_like(r, topic);
        if list.value[..i].iter().any(|t| t.value == topic.value) {
            let message = format!("`topics` names \"{}\" twice", topic.value);
            r.findings.error(topic.span, message);
            good = false;
        }
    }
    good.then_some(Topics::Named(list.value))
}

fn pattern(r: &mut Reader) -> Option<Topics> {
    let pattern = r.required("pattern", "pattern = \"orders-.*\"")?;
    if let Err(cause) = topic_pattern(&pattern.value) {
        let message = format!("\"{}\" is no pattern of topics", pattern.value);
        r.findings
            .error(pattern.span, message)
            .label(cause)
            .help("a pattern is a regular expression for whole names: \"orders-.*\"");
        return None;
    }
    Some(Topics::Pattern(pattern))
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
