//! Crashes between a cut and the next, and files that are not what the checkpoint says.

use std::fs;

use proptest::prelude::*;

use super::*;

fn open(path: &Path, resume: Option<&Value>) -> Result<LineFile, ConnectorError> {
    LineFile::open(path, Existing::Refuse, resume)
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn refusal(path: &Path, existing: Existing, resume: Option<&Value>) -> String {
    LineFile::open(path, existing, resume)
        .unwrap_err()
        .to_string()
}

#[test]
fn lines_are_in_the_file_after_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/out.jsonl");
    let file = open(&path, None).unwrap();
    file.append(b"a\n").unwrap();
    let cut = file.cut().unwrap();
    file.sync().unwrap();
    assert_eq!(
        (content(&path).as_str(), &cut["length"]),
        ("a\n", &2.into())
    );
    file.append(&b"x\n".repeat(BUFFER_BYTES)).unwrap();
    file.append(b"b\n").unwrap();
    assert_eq!(file.cut().unwrap()["length"], 2 * BUFFER_BYTES + 4);
    assert!(content(&path).ends_with("x\nb\n"));
}

#[test]
fn a_file_of_somebody_else_is_refused_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    fs::write(&path, "theirs").unwrap();
    let error = refusal(&path, Existing::Refuse, None);
    assert!(
        error.contains("not empty, and not written by this pipeline"),
        "{error}"
    );
    assert_eq!(content(&path), "theirs");
    let file = LineFile::open(&path, Existing::Append, None).unwrap();
    file.append(b"ours\n").unwrap();
    file.cut().unwrap();
    assert_eq!(content(&path), "theirs\nours\n");
    let again = LineFile::open(&path, Existing::Append, None).unwrap();
    again.append(b"more\n").unwrap();
    again.cut().unwrap();
    assert_eq!(content(&path), "theirs\nours\nmore\n");
    let file = LineFile::open(&path, Existing::Overwrite, None).unwrap();
    file.append(b"new\n").unwrap();
    file.cut().unwrap();
    assert_eq!(content(&path), "new\n");
    fs::write(&path, "").unwrap();
    assert!(open(&path, None).is_ok());
    assert!(refusal(dir.path(), Existing::Refuse, None).contains("Is a directory"));
}

#[test]
fn a_file_that_is_not_the_checkpoints_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let file = open(&path, None).unwrap();
    file.append(b"one\ntwo\n").unwrap();
    let cut = file.cut().unwrap();
    drop(file);
    let check = |reason: &str| {
        for existing in [Existing::Refuse, Existing::Append, Existing::Overwrite] {
            let error = refusal(&path, existing, Some(&cut));
            assert!(error.contains(reason), "{error}");
            assert!(error.contains("tidemill reset"), "{error}");
        }
    };
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    check("missing, but 8 bytes of output are in it");
    assert!(!path.exists());
    fs::write(&path, "one\ntwo\nthree\n").unwrap();
    check("another file than the one this pipeline wrote 8 bytes to");
    assert_eq!(content(&path), "one\ntwo\nthree\n");
    fs::rename(&moved, &path).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(5)
        .unwrap();
    check("5 bytes long, but 8 were written");
    assert_eq!(content(&path), "one\nt");
    let unreadable = serde_json::json!({ "path": "x" });
    assert!(refusal(&path, Existing::Refuse, Some(&unreadable)).contains("another kind of sink"));
}

#[derive(Debug, Clone)]
enum Event {
    Write(usize),
    Cut,
    Crash,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0usize..200).prop_map(Event::Write),
        2 => Just(Event::Cut),
        1 => Just(Event::Crash),
        1 => Just(Event::Write(BUFFER_BYTES)),
    ];
    prop::collection::vec(event, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever was written since, a restart begins with exactly what the last cut had.
    #[test]
    fn a_crash_leaves_exactly_the_last_cut(events in events()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut file = open(&path, None).unwrap();
        let mut cut = file.cut().unwrap();
        let (mut decided, mut written) = (Vec::new(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            match event {
                Event::Write(length) => {
                    let mut line = vec![b'a' + (index % 26) as u8; *length];
                    line.push(b'\n');
                    file.append(&line).unwrap();
                    written.extend_from_slice(&line);
                }
                Event::Cut => {
                    cut = file.cut().unwrap();
                    file.sync().unwrap();
                    decided.clone_from(&written);
                }
                Event::Crash => {
                    drop(file);
                    file = open(&path, Some(&cut)).unwrap();
                    prop_assert!(fs::read(&path).unwrap() == decided);
                    written.clone_from(&decided);
                }
            }
        }
        file.cut().unwrap();
        prop_assert!(fs::read(&path).unwrap() == written);
    }
}

/// Lines of several threads are never torn.
#[test]
fn calls_of_several_threads_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let file = open(&path, None).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let file = &file;
            scope.spawn(move || {
                for n in 0..500 {
                    let line = format!("{worker} {n} {}\n", "x".repeat(n * 13 % 7_000));
                    file.append(line.as_bytes()).unwrap();
                    if n % 100 == 0 {
                        file.cut().unwrap();
                    }
                }
            });
        }
    });
    file.cut().unwrap();
    let text = content(&path);
    assert_eq!(text.lines().count(), 2_000);
    for worker in 0..4 {
        let prefix = format!("{worker} ");
        let own: Vec<usize> = text
            .lines()
            .filter_map(|l| l.strip_prefix(&prefix))
            .map(|l| l.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(own, (0..500).collect::<Vec<_>>());
    }
}
