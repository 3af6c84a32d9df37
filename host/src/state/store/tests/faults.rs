//! The n-th write, resize, sync or read of either file fails, for every n: what is there after the next open is the
//! state before or after the checkpoint that failed, never a mix.

use std::io;
use std::sync::atomic::AtomicI64;

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};

use super::*;

/// What happens after the operation that fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// The disk is gone.
    AllFail,
    /// The disk is as if nothing had been.
    Recovers,
}

/// Which operations count, and how many of them succeed.
#[derive(Debug)]
struct Limit {
    left: AtomicI64,
    then: Then,
    reads: bool,
}

const UNLIMITED: i64 = 1 << 40;

impl Limit {
    fn new(left: i64, then: Then, reads: bool) -> Arc<Self> {
        let left = AtomicI64::new(left);
        Arc::new(Self { left, then, reads })
    }

    fn count(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            ..0 if self.then == Then::AllFail => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }

    fn changes(&self) -> io::Result<()> {
        if self.reads { Ok(()) } else { self.count() }
    }

    /// Operations that were asked for.
    fn used(&self, of: i64) -> i64 {
        of - self.left.load(Ordering::SeqCst)
    }

    fn open(self: &Arc<Self>, dir: &Path) -> Result<Store, StateError> {
        let limit = self.clone();
        let open_file = move |file: File| -> Result<Box<dyn StorageBackend>, DatabaseError> {
            let file = FileBackend::new(file)?;
            let limit = limit.clone();
            Ok(Box::new(Failing { file, limit }))
        };
        Store::open_with(dir, "test", KEY_GROUPS, NEVER, &open_file)
    }
}

#[derive(Debug)]
struct Failing {
    file: FileBackend,
    limit: Arc<Limit>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.limit.reads {
            self.limit.count()?;
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.limit.changes()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.limit.changes()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.limit.changes()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// What a run left behind.
#[derive(Default)]
struct Left {
    /// The last checkpoint that was decided, by the log or, as the test knows, by Kafka.
    decided: Model,
    /// One whose write failed, and whether the log alone decides it.
    open: Option<(Model, bool)>,
}

/// Runs the same checkpoints of both kinds, and merges, each time under `limit`.
fn run(dir: &Path, limit: &Arc<Limit>, seed: u64) -> Left {
    let mut left = Left::default();
    let Ok(store) = limit.open(dir) else {
        return left;
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let steps = STEPS.map(|name| store.step_id(name)).into_iter();
    let Ok(steps) = steps.collect::<Result<Vec<u16>, _>>() else {
        return left;
    };
    for round in 0..6 {
        let (prepared, after) = next(&mut rng, &left.decided, &steps);
        let (by_log, kept) = (round % 3 == 0, round % 3 != 2);
        let written = match (by_log, kept) {
            (true, _) => store.commit(prepared),
            (_, true) => store.prepare(prepared).map(|()| store.decide()),
            (_, false) => store.prepare(prepared).and_then(|()| store.resolve(false)),
        };
        if written.is_err() {
            let (again, _) = next(&mut rng, &left.decided, &steps);
            assert!(store.commit(again).is_err(), "a failed store takes no more");
            left.open = Some((after, by_log));
            return left;
        }
        if kept {
            left.decided = after;
        }
        if round % 2 == 1 && (store.settle().is_err() || store.merge().is_err()) {
            // Whoever meets the files after that hears what it was that failed.
            if let Err(after) = try_content(&store) {
                assert!(after.to_string().contains("(os error 5)"), "{after}");
            }
            return left;
        }
    }
    left
}

/// Opens what a run left and resolves what is open; `keep` says how, where both would be right. What is there then must
/// be what it can be.
fn resume(dir: &Path, left: &Left, keep: bool, what: &str) -> Store {
    let store = open(dir, NEVER);
    let mut possible = vec![&left.decided];
    match store.undecided() {
        // Kafka has decided it, the log has not heard.
        Some(open) if Some(open.number) == left.decided.number => store.resolve(true).unwrap(),
        Some(open) => {
            let (after, _) = left
                .open
                .as_ref()
                .unwrap_or_else(|| panic!("{what}: {open:?}"));
            assert_eq!(Some(open.number), after.number, "{what}");
            store.resolve(keep).unwrap();
            possible = vec![if keep { after } else { &left.decided }];
        }
        None => possible.extend(left.open.iter().filter(|open| open.1).map(|open| &open.0)),
    }
    let found = content(&store);
    assert!(
        possible.contains(&&found),
        "{what}: found {:?}, possible {:?}",
        found.number,
        possible.iter().map(|m| m.number).collect::<Vec<_>>()
    );
    store.merge().unwrap();
    assert_eq!(content(&store), found, "{what}: a merge changes nothing");
    store
}

#[test]
fn row_19_whichever_write_or_sync_fails_a_checkpoint_is_there_whole() {
    let seed = rand::random();
    println!("seed {seed}");
    let unlimited = Limit::new(UNLIMITED, Then::AllFail, false);
    let complete = run(temp_in_memory().path(), &unlimited, seed);
    assert_eq!(complete.decided.number, Some(3));
    let operations = unlimited.used(UNLIMITED);
    assert!(operations > 50, "{operations}");
    println!("{operations} operations");
    for then in [Then::AllFail, Then::Recovers] {
        let mut cut = 0;
        for allowed in 0..operations {
            let dir = temp_in_memory();
            let left = run(dir.path(), &Limit::new(allowed, then, false), seed);
            cut += usize::from(left.open.is_some());
            let what = format!("operation {allowed} of {operations} failed, {then:?}");
            resume(dir.path(), &left, allowed % 2 == 0, &what);
        }
        assert!(cut > 10, "{cut}");
    }
}

#[test]
fn row_19_whichever_write_of_a_start_fails_the_next_start_finds_the_same() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = temp_in_memory();
    let store = open(dir.path(), NEVER);
    let steps = step_ids(&store);
    let (prepared, decided) = next(&mut rng, &Model::default(), &steps);
    store.commit(prepared).unwrap();
    let (prepared, after) = next(&mut rng, &decided, &steps);
    store.prepare(prepared).unwrap();
    drop(store);
    for keep in [true, false] {
        let start = |limit: &Arc<Limit>, dir: &Path| {
            let store = limit.open(dir)?;
            store.resolve(keep)?;
            store.merge()?;
            drop(store);
            Ok::<_, StateError>(())
        };
        let unlimited = Limit::new(UNLIMITED, Then::AllFail, false);
        start(&unlimited, copy(dir.path()).path()).unwrap();
        let operations = unlimited.used(UNLIMITED);
        assert!(operations > 10, "{operations}");
        for allowed in 0..operations {
            let copied = copy(dir.path());
            let _ = start(&Limit::new(allowed, Then::AllFail, false), copied.path());
            // Kafka says the same at every start.
            let store = open(copied.path(), NEVER);
            store.resolve(keep).unwrap();
            let expected = if keep { &after } else { &decided };
            assert_eq!(
                &content(&store),
                expected,
                "operation {allowed} failed, keep {keep}"
            );
        }
    }
}

#[test]
fn row_19_whichever_read_fails_nothing_else_is_read() {
    let seed = rand::random();
    println!("seed {seed}");
    let dir = temp_in_memory();
    let left = run(
        dir.path(),
        &Limit::new(UNLIMITED, Then::AllFail, true),
        seed,
    );
    let read = |limit: &Arc<Limit>, dir: &Path| {
        let store = limit.open(dir)?;
        store.resolve(true)?;
        let before = try_content(&store)?;
        store.merge()?;
        let after = try_content(&store)?;
        assert_eq!(before, after, "a merge changes nothing");
        Ok::<_, StateError>(before)
    };
    let all = Limit::new(UNLIMITED, Then::AllFail, true);
    assert_eq!(read(&all, copy(dir.path()).path()).unwrap(), left.decided);
    let reads = all.used(UNLIMITED);
    assert!(reads > 20, "{reads}");
    for then in [Then::AllFail, Then::Recovers] {
        let mut told = 0;
        for allowed in 0..reads {
            let copied = copy(dir.path());
            let what = format!("read {allowed} of {reads}, {then:?}");
            match read(&Limit::new(allowed, then, true), copied.path()) {
                Ok(found) => assert_eq!(found, left.decided, "{what}"),
                Err(_) => told += 1,
            }
            resume(copied.path(), &left, true, &what);
        }
        assert!(told > reads / 2, "{told} of {reads}");
    }
}
