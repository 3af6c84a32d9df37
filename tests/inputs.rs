//! What pipelines read, through the binary: types, compressed files, text, Parquet, tables of every kind.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Pipeline, binary, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("decimals_and_dates_go_through_exactly", decimals_and_dates),
        trial("nested_fields_are_read_by_path", nested_fields),
        trial("compressed_files_give_what_plain_ones_do", compressed),
        trial("a_truncated_compressed_file_is_named", truncated),
        trial("text_is_a_row_a_line", text),
        trial("parquet_files_are_sources_and_tables", parquet_files),
        trial(
            "a_parquet_file_is_checked_against_its_fields",
            parquet_checked,
        ),
        trial("a_parquet_row_too_far_ahead_is_refused", parquet_ahead),
        trial("inner_lookups_drop_what_left_ones_keep", lookups),
    ]
}

/// `sinks.out` of `from` into `out.jsonl`, dead letters into `dead.jsonl`.
fn out_of(from: &str) -> String {
    format!(
        "[dead_letters]\nfile = {{ path = \"dead.jsonl\" }}\n[sinks.out]\nfrom = [\"{from}\"]\nfile = {{ path = \"out.jsonl\" }}\n"
    )
}

fn write(run: &Pipeline, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(run.dir.path().join(name), content).expect("the folder is ours");
}

fn lines(run: &Pipeline, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(run.dir.path().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn decimals_and_dates() {
    let run = Pipeline::new(
        2,
        &format!(
            "[sources.orders]\nfile = {{ path = \"orders.jsonl\" }}\n\
             fields = {{ id = \"int\", amount = \"decimal(10,2)\", day = \"date?\" }}\n\
             [steps.taxed]\nfrom = \"orders\"\nwhere = \"amount > 0.1 and (day is null or day >= '2026-01-01')\"\n\
             select = [\"id\", \"cast(amount * cast('1.19' as decimal(3,2)) as decimal(12,2)) as gross\", \"day\", \"cast(day as timestamp) as at\"]\n{}",
            out_of("taxed")
        ),
    );
    write(
        &run,
        "orders.jsonl",
        "{\"id\":1,\"amount\":0.30,\"day\":\"2026-02-28\"}\n{\"id\":2,\"amount\":99999999.99,\"day\":null}\n\
         {\"id\":3,\"amount\":1.005,\"day\":null}\n{\"id\":4,\"amount\":100000000,\"day\":null}\n\
         {\"id\":5,\"amount\":\"1.00\",\"day\":null}\n{\"id\":6,\"amount\":1,\"day\":\"2026-02-29\"}\n\
         {\"id\":7,\"amount\":5,\"day\":\"2025-12-31\"}\n{\"id\":8,\"amount\":0.1}\n",
    );
    run.run();
    assert_eq!(
        lines(&run, "out.jsonl"),
        [
            r#"{"id":1,"gross":0.36,"day":"2026-02-28","at":"2026-02-28T00:00:00Z"}"#,
            r#"{"id":2,"gross":118999999.99,"day":null,"at":null}"#,
        ]
    );
    let reasons: Vec<String> = run
        .rows("dead.jsonl")
        .iter()
        .map(|letter| letter["reason"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "2 digits behind",
        "8 digits before",
        "found a string",
        "not a date",
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for (reason, part) in reasons.iter().zip(expected) {
        assert!(reason.contains(part), "{reason}");
    }
}

fn nested_fields() {
    let run = Pipeline::new(
        1,
        &format!(
            "[sources.orders]\nfile = {{ path = \"orders.jsonl\" }}\nfields = {{ \
             city = {{ path = \"address.city\", type = \"string?\" }}, \
             zip = {{ path = \"address.geo.zip\", type = \"int\" }}, \
             sku = {{ path = \"items.0.sku\", type = \"string?\" }} }}\n{}",
            out_of("orders")
        ),
    );
    write(
        &run,
        "orders.jsonl",
        "{\"address\":{\"city\":\"Ulm\",\"geo\":{\"zip\":89073}},\"items\":[{\"sku\":\"a\"},{\"sku\":\"b\"}]}\n\
         {\"address\":{\"geo\":{\"zip\":1}},\"items\":[]}\n{\"address\":null}\n{\"address\":{\"geo\":null}}\n",
    );
    run.run();
    assert_eq!(
        run.rows("out.jsonl"),
        [
            json!({"city": "Ulm", "zip": 89073, "sku": "a"}),
            json!({"city": null, "zip": 1, "sku": null}),
        ]
    );
    let dead = run.rows("dead.jsonl");
    assert_eq!(dead.len(), 2);
    assert!(dead.iter().all(|d| {
        d["reason"]
            .as_str()
            .unwrap()
            .contains("`address.geo.zip`) is missing")
    }));
}

fn compressed() {
    let content: String = (0..5_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let half = content.len() / 2;
    let (a, b) = (&content.as_bytes()[..half], &content.as_bytes()[half..]);
    let files: [(&str, Vec<u8>); 3] = [
        ("in.jsonl", content.clone().into_bytes()),
        ("in.jsonl.gz", [gzip(a), gzip(b)].concat()),
        (
            "in.jsonl.zst",
            [
                zstd::encode_all(a, 1).unwrap(),
                zstd::encode_all(b, 1).unwrap(),
            ]
            .concat(),
        ),
    ];
    for (name, bytes) in files {
        let run = Pipeline::new(
            2,
            &format!(
                "[sources.s]\nfile = {{ path = \"{name}\" }}\nfields = {{ n = \"int\", _offset = \"int\" }}\n\
                 limit = {{ per_epoch = 700 }}\n{}",
                out_of("s")
            ),
        );
        write(&run, name, bytes);
        run.run();
        let rows = run.rows("out.jsonl");
        assert_eq!(rows.len(), 5_000, "{name}");
        assert_eq!(rows[4_999], json!({"n": 4_999, "_offset": 5_000}), "{name}");
        // Nothing new: nothing is done.
        run.run();
        assert_eq!(run.rows("out.jsonl").len(), 5_000, "{name}");
    }
}

fn truncated() {
    let run = Pipeline::new(
        1,
        &format!(
            "[sources.s]\nfile = {{ path = \"in.csv.gz\" }}\nfields = {{ n = \"int\" }}\n{}",
            out_of("s")
        ),
    );
    let bytes = gzip("n\n1\n2\n3\n".repeat(100).as_bytes());
    write(&run, "in.csv.gz", &bytes[..bytes.len() - 3]);
    let output = run.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("in.csv.gz") && said.contains("cut off"),
        "{said}"
    );
}

fn text() {
    let run = Pipeline::new(
        1,
        &format!(
            "[sources.log]\nfile = {{ path = \"app.log\" }}\nformat = \"text\"\n\
             [steps.errors]\nfrom = \"log\"\nwhere = \"line like 'ERROR%'\"\nselect = [\"substr(line, 7) as message\"]\n{}",
            out_of("errors")
        ),
    );
    write(
        &run,
        "app.log",
        "INFO start\nERROR {not json\r\n\nERROR \"quoted\nERROR last",
    );
    run.run();
    let messages: Vec<Value> = run
        .rows("out.jsonl")
        .iter()
        .map(|r| r["message"].clone())
        .collect();
    assert_eq!(messages, ["{not json", "\"quoted", "last"]);
}

/// `id` text, `n` 32-bit, `at` milliseconds, null in `n` at every tenth row.
fn write_parquet(path: &Path, rows: i32) {
    use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
    use std::sync::Arc;
    let ids: StringArray = (0..rows).map(|n| Some(format!("k{n}"))).collect();
    let numbers: Int32Array = (0..rows).map(|n| (n % 10 != 9).then_some(n)).collect();
    let times: TimestampMillisecondArray = (0..rows)
        .map(|n| Some(1_767_225_600_000 + i64::from(n)))
        .collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids)),
        ("n", Arc::new(numbers)),
        ("at", Arc::new(times)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(333))
        .build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn parquet_files() {
    let run = Pipeline::new(
        2,
        &format!(
            "[sources.s]\nfile = {{ path = \"in.parquet\" }}\n\
             fields = {{ n = \"int\", id = \"string\", at = \"timestamp\", _offset = \"int\" }}\n\
             event_time = {{ field = \"at\" }}\nlimit = {{ per_epoch = 100 }}\n\
             [tables.t]\nfile = {{ path = \"in.parquet\" }}\nkey = \"id\"\nfields = {{ id = \"string\", n = \"int?\" }}\n\
             [steps.next]\nfrom = \"s\"\nselect = [\"n\", \"_offset\", \"at\", \"concat('k', cast(n + 1 as string)) as next\"]\n\
             [steps.found]\nfrom = \"next\"\nlookup = {{ table = \"t\", on = \"next\", add = [\"id\"], kind = \"inner\" }}\n{}",
            out_of("found")
        ),
    );
    write_parquet(&run.dir.path().join("in.parquet"), 1_000);
    run.run();
    let rows = run.rows("out.jsonl");
    // A tenth is null and refused.
    assert_eq!(rows.len(), 900);
    assert_eq!(
        rows[10],
        json!({"n": 11, "_offset": 12, "at": "2026-01-01T00:00:00.011Z", "next": "k12", "id": "k12"})
    );
    let dead = run.rows("dead.jsonl");
    assert_eq!(dead.len(), 100);
    assert_eq!(dead[0]["position"]["row"], 10);
    assert!(
        dead[0]["reason"].as_str().unwrap().contains("field `n`"),
        "{}",
        dead[0]
    );
    assert!(
        dead[0]["raw"].as_str().unwrap().contains("\"id\":\"k9\""),
        "{}",
        dead[0]
    );
    run.run();
    assert_eq!(run.rows("out.jsonl").len(), 900);
}

/// The third row lies a century ahead: a dead letter, no watermark.
fn parquet_ahead() {
    use arrow::array::{ArrayRef, RecordBatch, TimestampSecondArray};
    use std::sync::Arc;
    let run = Pipeline::new(
        1,
        &format!(
            "[sources.s]\nfile = {{ path = \"in.parquet\" }}\nfields = {{ at = \"timestamp\" }}\nevent_time = {{ field = \"at\" }}\n{}",
            out_of("s")
        ),
    );
    let times: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1, 2, 7_000_000_000, 3]));
    let batch = RecordBatch::try_from_iter(vec![("at", times)]).unwrap();
    let file = std::fs::File::create(run.dir.path().join("in.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    run.run();
    assert_eq!(run.rows("out.jsonl").len(), 3);
    let dead = run.rows("dead.jsonl");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["position"]["row"], 3);
    assert!(
        dead[0]["reason"].as_str().unwrap().contains("max_ahead"),
        "{}",
        dead[0]
    );
}

fn parquet_checked() {
    let run = Pipeline::new(
        1,
        &format!(
            "[sources.s]\nfile = {{ path = \"in.parquet\" }}\nfields = {{ n = \"string\", idd = \"string\" }}\n{}",
            out_of("s")
        ),
    );
    write_parquet(&run.dir.path().join("in.parquet"), 10);
    let output = Command::new(binary())
        .arg("check")
        .arg(run.file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("column `n` of the file is int, which a field of type string cannot hold"),
        "{said}"
    );
    assert!(
        said.contains("the file has no column `idd`; it has `id`, `n`, `at`"),
        "{said}"
    );
}

fn lookups() {
    for (kind, expected) in [
        (
            "",
            vec![
                json!({"id": "a", "name": "A"}),
                json!({"id": null, "name": null}),
                json!({"id": "x", "name": null}),
            ],
        ),
        ("kind = \"inner\", ", vec![json!({"id": "a", "name": "A"})]),
    ] {
        let run = Pipeline::new(
            1,
            &format!(
                "[sources.s]\nfile = {{ path = \"in.jsonl\" }}\nfields = {{ id = \"string?\" }}\n\
                 [tables.t]\nfile = {{ path = \"t.jsonl.gz\" }}\nkey = \"id\"\nfields = {{ id = \"string\", name = \"string\" }}\n\
                 [steps.named]\nfrom = \"s\"\nlookup = {{ table = \"t\", on = \"id\", {kind}add = [\"name\"] }}\n{}",
                out_of("named")
            ),
        );
        write(
            &run,
            "in.jsonl",
            "{\"id\":\"a\"}\n{\"id\":null}\n{\"id\":\"x\"}\n",
        );
        write(
            &run,
            "t.jsonl.gz",
            gzip(b"{\"id\":\"a\",\"name\":\"A\"}\n{\"id\":\"\",\"name\":\"E\"}\n"),
        );
        run.run();
        assert_eq!(run.rows("out.jsonl"), expected);
    }
}
