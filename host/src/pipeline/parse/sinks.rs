//! `[sinks.X]`: which rows go where.

use super::super::read::Reader;
use super::super::spec::{Sink, SinkConnector};
use super::super::text::Spanned;
use super::super::tree::Kind;
use super::{connection, files, one_connector, remote, topic};

const CONNECTORS: [&str; 6] = ["kafka", "file", "parquet", "console", "webhook", "postgres"];
const LATER: [&str; 1] = ["format"];
/// Rows a console keeps on screen.
const CONSOLE_ROWS_MAX: u64 = 1_000;

pub fn sink(name: Spanned<String>, r: &mut Reader) -> Sink {
    let place = r.place.clone();
    r.later(&LATER);
    let from = inputs(r);
    let kafka = r.nested("kafka", |r| SinkConnector::Kafka {
        topic: topic(r),
        key: r
            .strings("key", "[\"product_id\"]")
            .map_or_else(Vec::new, |k| k.value),
        connection: connection(r, false),
    });
    let file = r.nested("file", files::file);
    let parquet = r.nested("parquet", files::parquet);
    let console = r.nested("console", |r| SinkConnector::Console {
        rows: r
            .whole("rows", 1, CONSOLE_ROWS_MAX)
            .map_or(20, |n| n.value as usize),
    });
    let webhook = r.nested("webhook", |r| SinkConnector::Webhook(remote::webhook(r)));
    let postgres = r.nested("postgres", |r| SinkConnector::Postgres(remote::postgres(r)));
    if !LATER.iter().any(|key| r.has(key)) {
        one_connector(r, &CONNECTORS, &place);
    }
    Sink {
        name,
        from,
        connector: (kafka.or(file).or(parquet).or(console))
            .or(webhook)
            .or(postgres),
    }
}

/// `from`: a list; one name alone will do.
fn inputs(r: &mut Reader) -> Vec<Spanned<String>> {
    r.need("from", "from = [\"my_step\"]");
    if let Some(node) = r.node("from")
        && matches!(node.kind, Kind::String(_))
    {
        return r.string("from").into_iter().collect();
    }
    let Some(list) = r.strings("from", "[\"my_step\", \"my_step.port\"]") else {
        return Vec::new();
    };
    if list.value.is_empty() {
        r.findings
            .error(list.span, "`from` names nothing")
            .help("name at least one step or source");
    }
    list.value
}
