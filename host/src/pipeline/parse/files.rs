//! Sinks that write files: `file = { path }`, `file = { dir }` and `parquet = { dir }`.

use crate::limits;
use crate::pipeline::plan::{Existing, LineFormat, Roll};
use crate::pipeline::read::Reader;
use crate::pipeline::spec::SinkConnector;
use crate::pipeline::text::Spanned;
use crate::time::{MICROS_PER_SECOND, Micros};

const MINUTE: Micros = 60 * MICROS_PER_SECOND;
/// What a Parquet file holds unless the sink says otherwise.
const PARQUET_ROLL: Roll = Roll {
    every: 5 * MINUTE,
    bytes: 128 << 20,
};
/// What a file of lines in a directory holds unless the sink says otherwise.
const LINES_ROLL: Roll = Roll {
    every: 60 * MINUTE,
    bytes: 64 << 20,
};

/// One file (`path`) or a directory of files (`dir`).
pub fn file(r: &mut Reader) -> SinkConnector {
    if !r.has("dir") {
        return single(r);
    }
    if let Some(span) = r.key_span("path") {
        r.findings
            .error(span, format!("{} has a `path` and a `dir`", r.place))
            .help("`path` is one file that grows, `dir` a directory of files: keep one of them");
        r.node("path");
    }
    SinkConnector::Files {
        dir: directory(r),
        format: format(r).map_or(LineFormat::Json, |f| f.value),
        roll: roll(r, LINES_ROLL),
        existing: existing_directory(r),
    }
}

pub fn parquet(r: &mut Reader) -> SinkConnector {
    let partition_by = r.strings("partition_by", "[\"category\"]");
    let partition_by = partition_by.map_or_else(Vec::new, |list| list.value);
    for (at, name) in partition_by.iter().enumerate() {
        if let Some(first) = partition_by[..at].iter().find(|n| n.value == name.value) {
            let message = format!("`{}` is named twice in `partition_by`", name.value);
            r.findings.error(name.span, message).first(first.span);
        }
    }
    SinkConnector::Parquet {
        dir: directory(r),
        roll: roll(r, PARQUET_ROLL),
        partition_by,
        existing: existing_directory(r),
    }
}

fn single(r: &mut Reader) -> SinkConnector {
    let format = format(r);
    for key in ["roll", "roll_bytes"] {
        if let Some(span) = r.key_span(key) {
            r.findings
                .error(span, format!("`{key}` is for a directory of files"))
                .help("name the directory with `dir` instead of `path`");
            r.node(key);
        }
    }
    let path = r.required("path", "path = \"out.jsonl\"");
    let path = path.filter(|path| known_extension(r, path, format.as_ref()));
    let words = [
        ("refuse", Existing::Refuse),
        ("append", Existing::Append),
        ("overwrite", Existing::Overwrite),
    ];
    let of_path = |path: &Spanned<String>| match extension(&path.value) {
        "csv" => LineFormat::Csv,
        _ => LineFormat::Json,
    };
    SinkConnector::File {
        existing: r
            .word("existing", &words, &[])
            .map_or(Existing::Refuse, |e| e.value),
        format: format.map(|f| f.value).or(path.as_ref().map(of_path)),
        path,
    }
}

/// Refuses a path that promises what will not be in the file.
fn known_extension(
    r: &mut Reader,
    path: &Spanned<String>,
    format: Option<&Spanned<LineFormat>>,
) -> bool {
    let extension = extension(&path.value);
    let (message, help) = match extension {
        "parquet" => (
            "a file sink writes JSON lines or CSV, not Parquet".into(),
            "write Parquet with parquet = { dir = \"output\" }",
        ),
        "avro" | "gz" | "zst" => (
            format!("a file sink writes JSON lines or CSV; `.{extension}` is not supported yet"),
            "let the path end in .jsonl or .csv",
        ),
        "csv" if format.is_some_and(|f| f.value == LineFormat::Json) => (
            "JSON lines in a file that ends in `.csv`".into(),
            "leave `format` out, or let the path end in .jsonl",
        ),
        _ => return true,
    };
    r.findings.error(path.span, message).help(help);
    false
}

fn extension(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or_default()
}

fn format(r: &mut Reader) -> Option<Spanned<LineFormat>> {
    let words = [("json", LineFormat::Json), ("csv", LineFormat::Csv)];
    r.word("format", &words, &["avro"])
}

fn directory(r: &mut Reader) -> Option<Spanned<String>> {
    r.required("dir", "dir = \"output\"")
}

fn existing_directory(r: &mut Reader) -> Existing {
    // Nothing is ever deleted in a directory: its files may have come from anywhere.
    let words = [("refuse", Existing::Refuse), ("append", Existing::Append)];
    r.word("existing", &words, &[])
        .map_or(Existing::Refuse, |e| e.value)
}

fn roll(r: &mut Reader, default: Roll) -> Roll {
    let every = r.duration("roll");
    let bytes = r.size("roll_bytes");
    let zero = every.as_ref().filter(|e| e.value == 0).map(|e| e.span);
    if let Some(span) = zero {
        r.findings
            .error(span, "`roll` is 0")
            .help("say how long rows may wait for their file to be finished, such as \"5m\"");
    }
    let (least, most) = (limits::ROLL_BYTES_MIN, limits::ROLL_BYTES_MAX);
    if let Some(size) = &bytes
        && !(least..=most).contains(&(size.value as u64))
    {
        let message = format!("`roll_bytes` is {} bytes", size.value);
        r.findings.error(size.span, message).help(format!(
            "{} KB to {} GB",
            least >> 10,
            most >> 30
        ));
    }
    Roll {
        every: every.map_or(default.every, |e| e.value),
        bytes: bytes.map_or(default.bytes, |b| b.value as u64),
    }
}
