//! `tidemill doctor` where no broker is needed: files alone, a broker that is away, a directory that cannot be written.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::{Pipeline, binary, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("doctor_of_a_pipeline_of_files", files),
        trial("doctor_says_that_a_broker_is_away_and_goes_on", away),
        trial(
            "doctor_finds_a_directory_that_cannot_be_written",
            unwritable,
        ),
        trial("doctor_refuses_a_wrong_file_as_check_does", wrong_file),
        trial("doctor_reads_the_state_and_changes_nothing", state),
    ]
}

const FILES: &str = r#"
[sources.clicks]
file = { path = "clicks.jsonl" }
fields = { user = "string" }
[sinks.out]
from = "clicks"
file = { path = "out.jsonl" }
"#;

/// Exit code, stdout, stderr.
pub fn doctor(pipeline: &Pipeline, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(binary());
    command.arg("doctor").arg(pipeline.file()).args(arguments);
    let output = command.output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The findings of `--json` with this verdict, text and remedy in one.
pub fn findings(json: &str, verdict: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(json).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    let of = findings.iter().filter(|f| f["verdict"] == verdict);
    of.map(|f| format!("{} -> {}", f["text"].as_str().expect("text"), f["remedy"]))
        .collect()
}

fn written(pipeline: &Pipeline) -> Vec<String> {
    let entries = std::fs::read_dir(pipeline.dir.path()).expect("the folder is ours");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries
        .map(|e| name(e).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn files() {
    let pipeline = Pipeline::new(1, FILES);
    std::fs::write(pipeline.dir.path().join("clicks.jsonl"), "").expect("the folder is ours");
    let before = written(&pipeline);
    let (code, out, err) = doctor(&pipeline, &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for part in [
        "pipeline test\n",
        "versions\n",
        "not there yet",
        "fsync takes",
        "0 failures",
    ] {
        assert!(out.contains(part), "no `{part}` in {out}");
    }
    assert!(!out.contains('\x1b'), "colours without a terminal: {out}");
    assert_eq!(written(&pipeline), before);
}

fn away() {
    let text = FILES.replace(
        "file = { path = \"clicks.jsonl\" }",
        "kafka = { topic = \"t\", brokers = \"127.0.0.1:1\" }",
    );
    let (code, out, err) = doctor(&Pipeline::new(1, &text), &["--json"]);
    assert_eq!(code, Some(1), "{out}{err}");
    let failures = findings(&out, "failure");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].contains("no broker answered within 10 s"),
        "{failures:?}"
    );
    assert!(failures[0].contains("Connection refused"), "{failures:?}");
    let ok = findings(&out, "ok");
    assert!(ok.iter().any(|text| text.contains("file locks")), "{ok:?}");
}

fn unwritable() {
    let pipeline = Pipeline::new(1, FILES);
    // No file can be made there, by nobody.
    let (code, out, err) = doctor(&pipeline, &["--json", "--set", "host.state=/proc/tidemill"]);
    assert_eq!(code, Some(1), "{out}{err}");
    let failures = findings(&out, "failure");
    assert!(
        failures[0].contains("/proc cannot be written"),
        "{failures:?}"
    );
    assert!(failures[0].contains("[host] state"), "{failures:?}");
}

fn wrong_file() {
    let text = FILES.replace(
        "file = { path = \"out.jsonl\" }",
        "kafka = { topic = \"t\", brokers = \"h:1\" }",
    );
    let pipeline = Pipeline::new(1, &text);
    let (code, out, err) = doctor(&pipeline, &["--set", "host.checkpoint_every=30s"]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(
        err.contains("more than a third of `transaction_timeout` (1m)"),
        "{err}"
    );
    assert!(err.contains("write checkpoint_every = \"20s\""), "{err}");
}

fn state() {
    let pipeline = Pipeline::new(1, FILES);
    std::fs::write(
        pipeline.dir.path().join("clicks.jsonl"),
        "{\"user\":\"a\"}\n",
    )
    .expect("the folder is ours");
    pipeline.run();
    let log = || std::fs::read(pipeline.dir.path().join("state/log.redb")).expect("a log");
    let before = log();
    let (code, out, err) = doctor(&pipeline, &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("mode 0700") && out.contains("its last checkpoint is"),
        "{out}"
    );
    assert!(before == log(), "the doctor changed the state");

    let (code, out, _) = doctor(&pipeline, &["--json", "--set", "host.key_groups=64"]);
    assert_eq!(code, Some(1));
    let failures = findings(&out, "failure");
    assert!(
        failures[0].contains("made with key_groups = 128"),
        "{failures:?}"
    );

    std::fs::write(
        pipeline.dir.path().join("state/log.redb"),
        "rubbish, and no log",
    )
    .expect("ours");
    let (code, out, _) = doctor(&pipeline, &["--json"]);
    assert_eq!(code, Some(1));
    assert!(
        findings(&out, "failure")[0].contains("was not written by tidemill"),
        "{out}"
    );
}
