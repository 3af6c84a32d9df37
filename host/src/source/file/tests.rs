//! Files against the records they give: line ends, growth, restart at every record, and what is wrong with a file.

use proptest::prelude::*;

use super::*;
use crate::format::compression::tests::{gzip, zstd};

type Got = Vec<(i64, Vec<u8>, Position)>;

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join("in");
        std::fs::write(&path, content).unwrap();
        path
    }

    fn append(&self, content: &str) {
        use std::io::Write as _;
        let path = self.dir.path().join("in");
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }
}

fn opened(
    source: &FileSource,
    resume: Option<Position>,
    end: Option<i64>,
    bounded: bool,
) -> Result<Partition, ConnectorError> {
    let resume = resume.map(|p| (PARTITION, p)).into_iter().collect();
    let ends = end.map(|e| (PARTITION, e)).into_iter().collect();
    let partitions = source.partitions(&resume, &ends, bounded, &|| false)?;
    Ok(partitions[0].clone())
}

fn drain(reader: &mut dyn Reader, max: usize) -> Result<Got, ConnectorError> {
    let mut got = Got::new();
    loop {
        let before = got.len();
        reader.poll(max, Duration::ZERO, &mut |r| {
            got.push((r.number, r.value.unwrap().to_vec(), r.next));
        })?;
        let progress = reader.progress();
        if got.len() == before && progress[0].caught_up {
            return Ok(got);
        }
    }
}

fn read(source: &FileSource, resume: Option<Position>, bounded: bool, max: usize) -> Got {
    let partition = opened(source, resume, None, bounded).unwrap();
    let mut reader = source.reader(vec![partition]).unwrap();
    let got = drain(&mut *reader, max).unwrap();
    assert_eq!(reader.progress()[0].finished, bounded);
    got
}

fn texts(got: &Got) -> Vec<(i64, &str)> {
    got.iter()
        .map(|(number, value, _)| (*number, std::str::from_utf8(value).unwrap()))
        .collect()
}

#[test]
fn lines_of_any_end() {
    let files = Files::new();
    let source = FileSource::of(&files.write("a\r\n\nb\nlast"), Format::Json);
    let bounded = read(&source, None, true, 10);
    assert_eq!(texts(&bounded), [(1, "a"), (2, ""), (3, "b"), (4, "last")]);
    let following = read(&source, None, false, 10);
    assert_eq!(texts(&following), [(1, "a"), (2, ""), (3, "b")]);
    assert_eq!(
        source.describe(0, 3),
        json!({ "file": files.dir.path().join("in").display().to_string(), "line": 3 })
    );
    let empty = FileSource::of(&files.write(""), Format::Json);
    assert_eq!(read(&empty, None, true, 10), []);
}

#[test]
fn csv_has_a_header_and_records_of_several_lines() {
    let files = Files::new();
    let source = FileSource::of(&files.write("a,b\n1,\"x\ny\"\n2,z\n"), Format::Csv);
    assert_eq!(source.header(), None);
    let got = read(&source, None, true, 1);
    assert_eq!(source.header().unwrap(), b"a,b");
    assert_eq!(texts(&got), [(2, "1,\"x\ny\""), (4, "2,z")]);
    let rest = read(&source, Some(got[0].2), true, 1);
    assert_eq!(texts(&rest), [(4, "2,z")]);
}

#[test]
fn a_growing_file_is_followed() {
    let files = Files::new();
    let source = FileSource::of(&files.write("a\nhal"), Format::Json);
    let partition = opened(&source, None, None, false).unwrap();
    let mut reader = source.reader(vec![partition]).unwrap();
    assert_eq!(texts(&drain(&mut *reader, 9).unwrap()), [(1, "a")]);
    let progress = reader.progress()[0];
    assert!(progress.caught_up && !progress.finished);
    assert_eq!((progress.next.offset, progress.lag), (2, Some(3)));
    files.append("f\nb\n");
    assert!(reader.progress()[0].lag == Some(7));
    assert_eq!(
        texts(&drain(&mut *reader, 9).unwrap()),
        [(2, "half"), (3, "b")]
    );
    assert_eq!(reader.progress()[0].lag, Some(0));
}

/// What a bounded run took as its last record may get its newline afterwards; it is no empty record then.
#[test]
fn a_line_that_was_counted_without_newline_is_not_counted_again() {
    let files = Files::new();
    for newline in ["\n", "\r\n"] {
        let source = FileSource::of(&files.write("a\nlast"), Format::Json);
        let got = read(&source, None, true, 9);
        let end = got[1].2;
        assert_eq!(
            end,
            Position {
                offset: 6,
                record: 2
            }
        );
        assert_eq!(read(&source, Some(end), true, 9), []);
        files.append(newline);
        assert_eq!(read(&source, Some(end), true, 9).len(), 0);
        files.append("next\n");
        assert_eq!(texts(&read(&source, Some(end), true, 9)), [(3, "next")]);
        assert_eq!(texts(&read(&source, Some(end), false, 9)), [(3, "next")]);
    }
    let source = FileSource::of(&files.write("a\nlasting\n"), Format::Json);
    let end = Position {
        offset: 6,
        record: 2,
    };
    let error = opened(&source, Some(end), None, true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("byte 6, where reading is to go on, is in the middle of a line"),
        "{error}"
    );
}

#[test]
fn a_bounded_end_stays_where_it_was_found() {
    let files = Files::new();
    let source = FileSource::of(&files.write("a\nb\n"), Format::Json);
    let end = opened(&source, None, None, true).unwrap().end;
    assert_eq!(end, Some(4));
    files.append("c\n");
    let partition = opened(&source, None, end, true).unwrap();
    let mut reader = source.reader(vec![partition]).unwrap();
    assert_eq!(
        texts(&drain(&mut *reader, 9).unwrap()),
        [(1, "a"), (2, "b")]
    );
    assert!(reader.progress()[0].finished);
}

#[test]
fn an_overlong_record_is_cut_and_the_next_one_is_whole() {
    let files = Files::new();
    for length in [
        RECORD_BYTES_MAX,
        RECORD_BYTES_MAX + 1,
        3 * RECORD_BYTES_MAX + 17,
    ] {
        let mut content = vec![b'x'; length];
        content.extend_from_slice(b"\nnext\n");
        let source = FileSource::of(&files.write(content), Format::Json);
        let got = read(&source, None, true, 9);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].1.len(), length.min(RECORD_BYTES_MAX + 1));
        assert_eq!(got[0].2.offset, length as i64 + 1);
        assert_eq!(texts(&got[1..].to_vec()), [(2, "next")]);
    }
}

#[test]
fn says_what_is_wrong_with_a_file() {
    let files = Files::new();
    let error = |path: &Path, format, resume, end| {
        let source = FileSource::of(path, format);
        opened(&source, resume, end, true).unwrap_err().to_string()
    };
    let missing = files.dir.path().join("missing");
    assert!(error(&missing, Format::Json, None, None).contains("No such file"));
    assert!(error(files.dir.path(), Format::Json, None, None).contains("not a regular file"));
    let path = files.write("a\nb\n");
    let far = Some(Position {
        offset: 5,
        record: 2,
    });
    assert!(
        error(&path, Format::Json, far, None)
            .contains("4 bytes long, but the checkpoint has seen 5")
    );
    assert!(
        error(&path, Format::Json, None, Some(9))
            .contains("4 bytes long, but the checkpoint has seen 9")
    );
    assert!(error(&files.write(""), Format::Csv, None, None).contains("begins with a header"));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let files = Files::new();
    for bounded in [true, false] {
        let source = FileSource::of(&files.write("a\nb\nc\n"), Format::Json);
        let partition = opened(&source, None, None, bounded).unwrap();
        let mut reader = source.reader(vec![partition]).unwrap();
        if !bounded {
            assert_eq!(drain(&mut *reader, 9).unwrap().len(), 3);
        }
        files.write("a\n");
        let error = drain(&mut *reader, 9).unwrap_err().to_string();
        assert!(
            error.contains("2 bytes long, but 6 were there before"),
            "{error}"
        );
    }
}

proptest! {
    /// From the position after any record, exactly the records behind it come, whatever the size of a poll.
    #[test]
    fn resumes_at_every_record(content in "[ab,\"\n\r]{0,80}", csv: bool, max in 1usize..5) {
        let files = Files::new();
        let (format, head) = if csv { (Format::Csv, "h\n") } else { (Format::Json, "") };
        let source = FileSource::of(&files.write(format!("{head}{content}")), format);
        let all = read(&source, None, true, 1_000);
        prop_assert_eq!(&read(&source, None, true, max), &all);
        let whole = format!("{head}{content}");
        let expected: Vec<_> = crate::format::framing::split(format, whole.as_bytes())
            .skip(usize::from(csv))
            .map(|(line, value)| (line, value.to_vec()))
            .collect();
        let got: Vec<_> = all.iter().map(|(line, value, _)| (*line, value.clone())).collect();
        prop_assert_eq!(got, expected);
        for (index, (_, _, next)) in all.iter().enumerate() {
            prop_assert_eq!(&read(&source, Some(*next), true, max)[..], &all[index + 1..]);
        }
    }
}

/// Files of the same content, compressed in several ways.
fn packed(files: &Files, content: &[u8]) -> Vec<PathBuf> {
    let half = content.len() / 2;
    let ways: [(&str, Vec<u8>); 4] = [
        ("in.jsonl.gz", gzip(content)),
        ("in.jsonl.zst", zstd(content)),
        (
            "two.jsonl.gz",
            [gzip(&content[..half]), gzip(&content[half..])].concat(),
        ),
        (
            "two.jsonl.zst",
            [zstd(&content[..half]), zstd(&content[half..])].concat(),
        ),
    ];
    let write = |(name, bytes): (&str, Vec<u8>)| {
        let path = files.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    ways.into_iter().map(write).collect()
}

#[test]
fn compressed_files_are_read_as_their_content_and_go_on_anywhere() {
    for content in ["a\r\n\nb\nlast", "a\nb\n", "one", ""] {
        let files = Files::new();
        let plain = FileSource::of(&files.write(content), Format::Json);
        let expected = read(&plain, None, true, 10);
        for path in packed(&files, content.as_bytes()) {
            let open = || FileSource::of(&path, Format::Json);
            for (bounded, max) in [(true, 10), (true, 1), (false, 10)] {
                assert_eq!(read(&open(), None, bounded, max), expected, "{path:?}");
            }
            for (at, (.., next)) in expected.iter().enumerate() {
                let rest = read(&open(), Some(*next), true, 10);
                assert_eq!(rest, expected[at + 1..], "{path:?} from {next:?}");
            }
        }
    }
}

#[test]
fn a_compressed_run_is_finished_at_the_end_of_the_stream() {
    let files = Files::new();
    for path in packed(&files, b"a\nb\n") {
        let source = FileSource::of(&path, Format::Text);
        let part = opened(&source, None, None, true).unwrap();
        assert!(part.end.unwrap() > part.start.offset, "something is left");
        let mut reader = source.reader(vec![part.clone()]).unwrap();
        drain(&mut *reader, 10).unwrap();
        let progress = reader.progress()[0];
        assert!(progress.finished && progress.caught_up);
        assert_eq!((progress.next.offset, progress.lag), (4, Some(0)));

        // Nothing is left: the end is where reading would begin.
        let done = opened(&source, Some(progress.next), None, true).unwrap();
        assert_eq!(done.end, Some(4));
        assert!(source.reader(vec![done]).unwrap().progress()[0].finished);

        // A member added later is not part of the run that began before, but of a new one.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(if Compression::of(&path) == Compression::Gzip {
            gzip(b"c\n")
        } else {
            zstd(b"c\n")
        });
        std::fs::write(&path, bytes).unwrap();
        let again = opened(&source, None, part.end, true).unwrap();
        assert_eq!(again.end, part.end);
        let mut reader = source.reader(vec![again]).unwrap();
        assert_eq!(drain(&mut *reader, 10).unwrap().len(), 2);
        assert!(reader.progress()[0].finished);
        let new = read(&source, Some(progress.next), true, 10);
        assert_eq!(new[0].1, b"c");

        // Unbounded it is caught up, and never finished.
        let mut reader = source
            .reader(vec![opened(&source, None, None, false).unwrap()])
            .unwrap();
        drain(&mut *reader, 10).unwrap();
        assert!(reader.progress()[0].caught_up && !reader.progress()[0].finished);
    }
}

#[test]
fn damage_to_a_compressed_file_names_it() {
    let files = Files::new();
    let content = "some line of text\n".repeat(1_000);
    for path in packed(&files, content.as_bytes()) {
        let whole = std::fs::read(&path).unwrap();
        let failed = |source: &FileSource, resume| {
            let part = opened(source, resume, None, true)?;
            drain(&mut *source.reader(vec![part])?, 100).map(|_| ())
        };
        std::fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        let error = failed(&FileSource::of(&path, Format::Text), None)
            .unwrap_err()
            .to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name) && error.contains("cut off"), "{error}");

        let mut wrong = whole.clone();
        wrong.truncate(4);
        wrong.extend_from_slice(b"this is not what it says it is");
        std::fs::write(&path, wrong).unwrap();
        let error = failed(&FileSource::of(&path, Format::Text), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(name) && (error.contains("damaged") || error.contains("cut off")),
            "{error}"
        );

        // A shorter one in its place.
        std::fs::write(&path, gzip(b"x\n")).unwrap();
        if Compression::of(&path) == Compression::Gzip {
            let beyond = Position {
                offset: 1_000,
                record: 50,
            };
            let error = failed(&FileSource::of(&path, Format::Text), Some(beyond)).unwrap_err();
            assert!(error.to_string().contains("was cut or replaced"), "{error}");
        }
    }
}

#[test]
fn a_compressed_csv_file_has_its_header() {
    let files = Files::new();
    let path = files.dir.path().join("x.csv.gz");
    std::fs::write(&path, gzip(b"a,b\n1,\"x\ny\"\n2,z\n")).unwrap();
    let source = FileSource::of(&path, Format::Csv);
    let got = read(&source, None, true, 10);
    assert_eq!(source.header().unwrap(), b"a,b");
    let lines: Vec<_> = got.iter().map(|(number, ..)| *number).collect();
    assert_eq!(lines, [2, 4]);
}
