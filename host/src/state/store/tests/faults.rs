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

/// Runs the same checkpoints and merges each time under `limit`. Gives the last state whose commit returned, with the one
/// whose commit failed.
fn run(dir: &Path, limit: &Arc<Limit>, seed: u64) -> Vec<Model> {
    let mut possible = vec![Model::default()];
    let Ok(store) = limit.open(dir) else {
        return possible;
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let steps = || STEPS.map(|name| store.step_id(name)).into_iter().collect();
    let steps: Result<Vec<u16>, _> = steps();
    if let Ok(steps) = steps {
        for round in 0..4 {
            let (prepared, after) = next(&mut rng, &possible[possible.len() - 1], &steps);
            if store.commit(prepared).is_err() {
                possible.push(after);
                let (again, _) = next(&mut rng, &possible[0], &steps);
                assert!(store.commit(again).is_err(), "a failed store takes no more");
                break;
            }
            possible = vec![after];
            if round % 2 == 1 && store.merge().is_err() {
                break;
            }
        }
    }
    possible
}

#[test]
fn row_19_whichever_write_or_sync_fails_a_checkpoint_is_there_whole() {
    let seed = rand::random();
    println!("seed {seed}");
    let unlimited = Limit::new(UNLIMITED, Then::AllFail, false);
    let complete = run(temp().path(), &unlimited, seed);
    assert_eq!(complete[0].number, Some(3));
    let operations = unlimited.used(UNLIMITED);
    assert!(operations > 50, "{operations}");
    println!("{operations} operations");
    for then in [Then::AllFail, Then::Recovers] {
        let mut cut_commits = 0;
        for allowed in 0..operations {
            let dir = temp_in_memory();
            let possible = run(dir.path(), &Limit::new(allowed, then, false), seed);
            cut_commits += usize::from(possible.len() == 2);
            let store = open(dir.path(), NEVER);
            let found = content(&store);
            assert!(
                possible.contains(&found),
                "operation {allowed} of {operations} failed, {then:?}: found {:?}, possible {:?}",
                found.number,
                possible.iter().map(|m| m.number).collect::<Vec<_>>()
            );
            store.merge().unwrap();
            assert_eq!(content(&store), found, "a merge changes nothing");
        }
        assert!(cut_commits > 10, "{cut_commits}");
    }
}

#[test]
fn row_19_whichever_read_fails_nothing_else_is_read() {
    let seed = rand::random();
    println!("seed {seed}");
    let dir = temp_in_memory();
    let complete = run(
        dir.path(),
        &Limit::new(UNLIMITED, Then::AllFail, true),
        seed,
    );
    let read = |limit: &Arc<Limit>, dir: &Path| {
        let store = limit.open(dir)?;
        let before = try_content(&store)?;
        store.merge()?;
        let after = try_content(&store)?;
        assert_eq!(before, after, "a merge changes nothing");
        Ok::<_, StateError>(before)
    };
    let all = Limit::new(UNLIMITED, Then::AllFail, true);
    assert_eq!(read(&all, copy(dir.path()).path()).unwrap(), complete[0]);
    let reads = all.used(UNLIMITED);
    assert!(reads > 20, "{reads}");
    for then in [Then::AllFail, Then::Recovers] {
        let mut told = 0;
        for allowed in 0..reads {
            let copied = copy(dir.path());
            match read(&Limit::new(allowed, then, true), copied.path()) {
                Ok(found) => assert_eq!(found, complete[0], "read {allowed} of {reads}, {then:?}"),
                Err(_) => told += 1,
            }
            assert_eq!(content(&open(copied.path(), NEVER)), complete[0]);
        }
        assert!(told > reads / 2, "{told} of {reads}");
    }
}
