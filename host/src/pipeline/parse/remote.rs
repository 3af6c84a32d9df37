//! `webhook` and `postgres` of a sink: sinks on other machines.

use std::time::Duration;

use super::super::plan::{OnReject, WriteMode};
use super::super::read::Reader;
use super::super::secrets;
use super::super::spec::{Postgres, Property, Webhook};
use super::super::text::Spanned;
use super::super::tree::{Kind, Node};

const BATCH_MAX: u64 = 10_000;
const IN_FLIGHT_MAX: u64 = 64;
/// A name of Postgres is cut off behind so many bytes.
const NAME_BYTES_MAX: usize = 63;

pub fn webhook(r: &mut Reader) -> Webhook {
    let webhook = Webhook {
        url: url(r, "url = \"https://example.com/rows\""),
        headers: r.nested("headers", headers).unwrap_or_default(),
        batch: r
            .whole("batch", 1, BATCH_MAX)
            .map_or(100, |n| n.value as usize),
        in_flight: r
            .whole("in_flight", 1, IN_FLIGHT_MAX)
            .map_or(1, |n| n.value as usize),
        timeout: r.clock("timeout").unwrap_or(Duration::from_secs(10)),
        ca: r.string("ca"),
        on_reject: r
            .word(
                "on_reject",
                &[
                    ("stop", OnReject::Stop),
                    ("dead-letter", OnReject::DeadLetter),
                ],
                &[],
            )
            .map_or(OnReject::Stop, |o| o.value),
    };
    r.word("format", &[("json", ())], &["avro", "csv"]);
    if webhook.timeout.is_zero()
        && let Some(span) = r.key_span("timeout")
    {
        r.findings
            .error(span, "`timeout` is no time at all")
            .help("the default is \"10s\"");
    }
    webhook
}

pub fn postgres(r: &mut Reader) -> Postgres {
    let words = [("upsert", WriteMode::Upsert), ("insert", WriteMode::Insert)];
    Postgres {
        url: url(r, "url = \"${env:DATABASE_URL}\""),
        table: table(r),
        key: r
            .strings("key", "[\"product_id\", \"window_start\"]")
            .map_or_else(Vec::new, |k| k.value),
        mode: r.word("mode", &words, &[]),
        create: r.flag("create").unwrap_or(false),
        ca: r.string("ca"),
        span: r.span,
    }
}

/// `url`, in which no password may be written out.
fn url(r: &mut Reader, example: &str) -> Option<Property> {
    let url = r.required("url", example)?;
    if secrets::has_password(&url.value) {
        r.findings
            .error(url.span, "a password is written out in `url`")
            .help("give it as ${env:NAME} or ${file:/path}: the pipeline file is no place for secrets");
        return None;
    }
    Some(Property {
        name: Spanned::new("url".into(), url.span),
        value: url,
    })
}

/// `name` or `schema.name`.
fn table(r: &mut Reader) -> Option<Spanned<String>> {
    let table = r.required("table", "table = \"page_views\"")?;
    let parts: Vec<_> = table.value.split('.').collect();
    let named = |part: &&str| {
        !part.is_empty() && part.len() <= NAME_BYTES_MAX && !part.contains(char::is_control)
    };
    if parts.len() <= 2 && parts.iter().all(named) {
        return Some(table);
    }
    r.findings
        .error(table.span, format!("\"{}\" is no name of a table", table.value))
        .help("a table is \"name\" or \"schema.name\", each of 1 to 63 bytes, written as Postgres stores it, without quotes");
    None
}

fn headers(r: &mut Reader) -> Vec<Property> {
    r.entries()
        .filter_map(|(name, node)| header(r, name, node))
        .collect()
}

fn header(r: &mut Reader, name: &Spanned<String>, node: &Node) -> Option<Property> {
    let Kind::String(value) = &node.kind else {
        r.wrong(&name.value, node, "a string");
        return None;
    };
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.value.is_empty() || !name.value.chars().all(token) {
        r.findings.error(
            name.span,
            format!("\"{}\" is no name of a header", name.value.escape_debug()),
        );
        return None;
    }
    let lower = name.value.to_ascii_lowercase();
    if matches!(
        lower.as_str(),
        "host" | "content-length" | "transfer-encoding" | "connection"
    ) {
        r.findings.error(
            name.span,
            format!("the header `{}` is set by the host itself", name.value),
        );
        return None;
    }
    if secrets::is_secret_header(&name.value) && !secrets::is_reference(value) {
        r.findings
            .error(node.span, format!("the secret `{}` is written out", name.value))
            .help("give it as \"${env:NAME}\" or \"${file:/path}\": the file itself is no place for secrets");
        return None;
    }
    Some(Property {
        name: name.clone(),
        value: Spanned::new(value.clone(), node.span),
    })
}
