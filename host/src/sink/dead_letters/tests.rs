//! Dead letters as they stand in the file.

use serde_json::json;

use super::*;

fn letter(raw: Raw) -> DeadLetter {
    DeadLetter {
        place: Place::Source("clicks".to_owned()),
        position: json!({ "file": "in.jsonl", "line": 3 }),
        reason: "field `f`: \"odd\"\n".to_owned(),
        raw,
        plugin: None,
        key: None,
    }
}

fn written(letter: &DeadLetter) -> Value {
    let text = letter.to_json();
    assert!(!text.contains('\n'));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn records_are_kept_as_text_or_base64() {
    let text = written(&letter(Raw::Bytes("é\u{1}\n".into())));
    let mut expected = json!({
        "source": "clicks",
        "position": { "file": "in.jsonl", "line": 3 },
        "reason": "field `f`: \"odd\"\n",
        "raw": "é\u{1}\n",
    });
    assert_eq!(text, expected);
    let fields = expected.as_object_mut().unwrap();
    fields.remove("raw");
    fields.insert("raw_base64".to_owned(), "//4A".into());
    assert_eq!(
        written(&letter(Raw::Bytes(b"\xff\xfe\x00".to_vec()))),
        expected
    );
}

#[test]
fn rows_and_alarms_name_their_step() {
    let mut row = letter(Raw::Row("{\"a\":1}".to_owned()));
    row.place = Place::Step("anomalies".to_owned());
    row.position = Value::Null;
    row.plugin = Some("abc".to_owned());
    assert_eq!(
        written(&row),
        json!({ "step": "anomalies", "position": null, "reason": "field `f`: \"odd\"\n", "raw": "{\"a\":1}", "plugin": "abc" })
    );
    row.raw = Raw::None;
    row.key = Some(json!(["u1", null]));
    assert_eq!(
        written(&row),
        json!({ "step": "anomalies", "position": null, "reason": "field `f`: \"odd\"\n", "plugin": "abc", "key": ["u1", null] })
    );
}

#[test]
fn large_records_are_cut_and_their_length_told() {
    let text = format!("x{}", "é".repeat(DEAD_LETTER_RAW_BYTES_MAX));
    let cut = written(&letter(Raw::Bytes(text.clone().into_bytes())));
    assert_eq!(
        cut["raw"].as_str().unwrap().len(),
        DEAD_LETTER_RAW_BYTES_MAX - 1
    );
    assert_eq!(cut["raw_bytes"], text.len());
    let bytes = vec![0xff; DEAD_LETTER_RAW_BYTES_MAX + 1];
    let cut = written(&letter(Raw::Bytes(bytes)));
    assert_eq!(
        cut["raw_base64"].as_str().unwrap().len(),
        DEAD_LETTER_RAW_BYTES_MAX.div_ceil(3) * 4
    );
    assert_eq!(cut["raw_bytes"], DEAD_LETTER_RAW_BYTES_MAX + 1);
    let whole = written(&letter(Raw::Bytes(vec![b'x'; DEAD_LETTER_RAW_BYTES_MAX])));
    assert_eq!(whole.get("raw_bytes"), None);
}

#[test]
fn letters_after_the_checkpoint_are_cut_off_and_earlier_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/dead-letters.jsonl");
    let letters = FileDeadLetters::open(&path, None).unwrap();
    let one = letter(Raw::None);
    letters.write(&[one.clone(), one.clone()]).unwrap();
    let cut = letters.cut().unwrap();
    letters.sync(&cut).unwrap();
    letters.write(std::slice::from_ref(&one)).unwrap();
    letters.cut().unwrap();
    assert_eq!(letters.count(), 3);
    let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(lines(), 3);
    let letters = FileDeadLetters::open(&path, Some(&cut)).unwrap();
    assert_eq!((lines(), letters.count()), (2, 0));
    let letters = FileDeadLetters::open(&path, None).unwrap();
    letters.write(&[one]).unwrap();
    letters.cut().unwrap();
    assert_eq!(lines(), 3);
}
