//! Crashes around a cut, generations, and files that were damaged.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::*;

fn rows(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

/// What is staged between two marks, row by row, with the inputs.
fn staged(staging: &Staging, from: Mark, to: Mark) -> Vec<(usize, i64)> {
    let mut all = Vec::new();
    for batch in staging.read(from, to) {
        let (input, batch) = batch.unwrap();
        let values = batch.column(0).as_primitive::<Int64Type>().values().clone();
        all.extend(values.iter().map(|&n| (input, n)));
    }
    all
}

fn files(dir: &Path) -> BTreeSet<u64> {
    let found = generations(dir).unwrap();
    found
        .into_iter()
        .map(|(generation, _)| generation)
        .collect()
}

const FIRST: Mark = Mark {
    generation: 0,
    length: START,
};

#[test]
fn rows_come_back_in_their_order_with_their_inputs_and_schemas() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(&dir.path().join("deep/er"), None).unwrap();
    staging.append(1, &rows([1, 2])).unwrap();
    staging.append(1, &rows([3])).unwrap();
    staging.append(0, &rows([])).unwrap();
    staging.append(0, &rows([4, 5, 6]).slice(1, 2)).unwrap();
    let first = staging.cut().unwrap();
    staging.append(1, &rows([7])).unwrap();
    let second = staging.cut().unwrap();
    let all = [(1, 1), (1, 2), (1, 3), (0, 5), (0, 6), (1, 7)];
    assert_eq!(staged(&staging, FIRST, first), all[..5]);
    assert_eq!(staged(&staging, first, second), all[5..]);
    assert_eq!(staged(&staging, FIRST, second), all);
    assert_eq!(staged(&staging, second, second), []);
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let other = RecordBatch::try_from_iter([("s", text)]).unwrap();
    staging.append(0, &other).unwrap();
    let third = staging.cut().unwrap();
    let read: Vec<_> = staging.read(second, third).map(Result::unwrap).collect();
    assert_eq!(read, [(0, other)]);
}

#[test]
fn what_follows_the_cut_is_cut_off_even_generations() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), None).unwrap();
    staging.append(0, &rows([1])).unwrap();
    let cut = staging.cut().unwrap();
    staging.sync(cut).unwrap();
    staging.append(0, &rows([2])).unwrap();
    staging.turn().unwrap();
    staging.append(0, &rows([3])).unwrap();
    staging.cut().unwrap();
    drop(staging);
    assert_eq!(files(dir.path()), [0, 1].into());
    let again = Staging::open(dir.path(), Some(cut)).unwrap();
    assert_eq!(files(dir.path()), [0].into());
    again.append(0, &rows([4])).unwrap();
    let cut = again.cut().unwrap();
    assert_eq!(staged(&again, FIRST, cut), [(0, 1), (0, 4)]);
    // A first start in the same place begins with nothing.
    drop(again);
    let fresh = Staging::open(dir.path(), None).unwrap();
    assert_eq!(staged(&fresh, FIRST, fresh.cut().unwrap()), []);
}

#[test]
fn generations_follow_each_other_and_leave_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), None).unwrap();
    // An empty generation is not turned.
    assert_eq!(staging.turn().unwrap(), FIRST);
    let mut marks = vec![FIRST];
    for n in 0..4 {
        staging.append(0, &rows([n])).unwrap();
        let bytes = staging.cut().unwrap().length - START;
        assert_eq!(staging.bytes_since(marks[n as usize]), bytes);
        marks.push(staging.turn().unwrap());
    }
    let end = *marks.last().unwrap();
    assert_eq!(end, Mark::start_of(4));
    staging.sync(end).unwrap();
    let values = |from: usize| (from as i64..4).map(|n| (0, n)).collect::<Vec<_>>();
    assert_eq!(staged(&staging, FIRST, end), values(0));
    staging.drop_before(marks[2]).unwrap();
    assert_eq!(files(dir.path()), [2, 3, 4].into());
    assert!(!staging.has(FIRST) && staging.has(marks[2]));
    assert_eq!(staged(&staging, marks[2], end), values(2));
    drop(staging);
    // The last file may not have reached the disk: nothing in it counted.
    fs::remove_file(path_of(dir.path(), 4)).unwrap();
    let again = Staging::open(dir.path(), Some(end)).unwrap();
    assert_eq!(staged(&again, marks[3], end), values(3));
    again.drop_before(end).unwrap();
    assert_eq!(files(dir.path()), [4].into());
}

/// The bytes around the rows are a disk format.
#[test]
fn golden_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), None).unwrap();
    staging.append(0x0102, &rows([1])).unwrap();
    let end = staging.cut().unwrap().length as usize;
    staging.turn().unwrap();
    let bytes = fs::read(path_of(dir.path(), 0)).unwrap();
    assert_eq!(&bytes[..8], b"tmstage1");
    let body = (end - 8 - frame::HEAD_BYTES as usize) as u64;
    assert_eq!(bytes[16..24], body.to_le_bytes());
    assert_eq!(bytes[32..40], [1, 0, 0, 0, 2, 1, 0, 0]);
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[16..end]);
    assert_eq!(bytes[8..16], sum.to_le_bytes());
    let mut last = [0; 32];
    last[..8].copy_from_slice(&GOLDEN_END);
    last[24] = 2;
    assert_eq!(bytes[end..], last);
}

/// Checksum of an end frame.
const GOLDEN_END: [u8; 8] = [231, 251, 249, 106, 182, 248, 6, 61];

#[test]
fn a_large_file_turns_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), None).unwrap();
    // Numbers that do not compress.
    let noise = |seed: u64| {
        let mix = move |n: u64| {
            (n ^ seed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        };
        rows((0..1 << 20).map(move |n: u64| (mix(mix(n + 1)) as i64) >> 1))
    };
    let mut cut = FIRST;
    let mut rounds = 0;
    while cut.generation == 0 {
        staging.append(0, &noise(rounds)).unwrap();
        cut = staging.cut().unwrap();
        rounds += 1;
    }
    assert_eq!(cut, Mark::start_of(1));
    assert!(staging.bytes_since(FIRST) >= limits::STAGED_FILE_BYTES - START);
    assert_eq!(staged(&staging, FIRST, cut).len() as u64, rounds << 20);
}

/// Every single damaged byte, and every length, is an error that names the file: never other rows, never a panic.
#[test]
fn damage_is_told_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), None).unwrap();
    staging.append(0, &rows([1, 2, 3])).unwrap();
    staging.turn().unwrap();
    staging.append(0, &rows([4])).unwrap();
    let cut = staging.cut().unwrap();
    let path = path_of(dir.path(), 0);
    let whole = fs::read(&path).unwrap();
    let outcome = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let read: Result<Vec<_>, _> = staging.read(FIRST, cut).collect();
        read.map(|r| r.len()).map_err(|e| e.to_string())
    };
    let told = |outcome: Result<usize, String>, what: String| {
        let error = outcome.expect_err(&what);
        assert!(error.contains("0000000000.rows"), "{error}");
        assert!(error.contains("tidemill reset"), "{error}");
    };
    assert_eq!(outcome(&whole), Ok(2));
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        told(outcome(&bytes), format!("byte {at}"));
        told(outcome(&whole[..at]), format!("length {at}"));
    }
    fs::remove_file(&path).unwrap();
    let missing: Result<Vec<_>, _> = staging.read(FIRST, cut).collect();
    assert!(missing.unwrap_err().to_string().contains("missing"));
    drop(staging);
    let last = path_of(dir.path(), 1);
    fs::write(&last, &fs::read(&last).unwrap()[..20]).unwrap();
    let short = Staging::open(dir.path(), Some(cut))
        .unwrap_err()
        .to_string();
    assert!(short.contains("20 bytes long, but"), "{short}");
    fs::remove_file(&last).unwrap();
    let gone = Staging::open(dir.path(), Some(cut))
        .unwrap_err()
        .to_string();
    assert!(gone.contains("missing, but the last checkpoint"), "{gone}");
}

#[test]
fn threads_append_beside_cuts_and_reading() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), None).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4_i64 {
            let staging = &staging;
            scope.spawn(move || {
                for n in 0..300 {
                    staging
                        .append(worker as usize, &rows([n * 2, n * 2 + 1]))
                        .unwrap();
                    if n % 50 == worker * 10 {
                        let cut = staging.cut().unwrap();
                        staging.sync(cut).unwrap();
                        staged(staging, FIRST, cut);
                    }
                }
            });
        }
    });
    let all = staged(&staging, FIRST, staging.cut().unwrap());
    for worker in 0..4 {
        let own = all.iter().filter(|(input, _)| *input == worker);
        assert!(own.map(|(_, n)| *n).eq(0..600));
    }
}

#[derive(Debug, Clone)]
enum Event {
    Append(u8),
    Cut,
    Turn,
    Drop,
    Crash,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1u8..20).prop_map(Event::Append),
        2 => Just(Event::Cut),
        1 => Just(Event::Turn),
        1 => Just(Event::Drop),
        1 => Just(Event::Crash),
    ];
    prop::collection::vec(event, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever happened since, a restart begins with exactly what the last cut had.
    #[test]
    fn a_crash_leaves_exactly_the_last_cut(events in events()) {
        let dir = tempfile::tempdir().unwrap();
        let mut staging = Staging::open(dir.path(), None).unwrap();
        let (mut from, mut cut) = (FIRST, FIRST);
        let (mut decided, mut written, mut next) = (Vec::new(), Vec::new(), 0);
        for event in events {
            match event {
                Event::Append(count) => {
                    let values = next..next + i64::from(count);
                    next = values.end;
                    staging.append(0, &rows(values.clone())).unwrap();
                    written.extend(values.map(|n| (0, n)));
                }
                Event::Cut | Event::Turn => {
                    cut = match event {
                        Event::Cut => staging.cut().unwrap(),
                        _ => staging.turn().unwrap(),
                    };
                    staging.sync(cut).unwrap();
                    decided.clone_from(&written);
                }
                Event::Drop => {
                    staging.drop_before(cut).unwrap();
                    if from.generation < cut.generation {
                        let start = Mark::start_of(cut.generation);
                        let kept = staged(&staging, start, cut).len();
                        let gone = decided.len() - kept;
                        decided.drain(..gone);
                        written.drain(..gone);
                        from = start;
                    }
                }
                Event::Crash => {
                    drop(staging);
                    staging = Staging::open(dir.path(), Some(cut)).unwrap();
                    written.clone_from(&decided);
                }
            }
            prop_assert_eq!(&staged(&staging, from, cut), &decided);
        }
    }
}
