//! The n-th write, resize or sync of either file fails, for every n: what is there after the next open is the state
//! before or after the checkpoint that failed, never a mix.

use std::io;
use std::sync::atomic::AtomicI64;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::*;

/// A file that fails at one operation and, as a disk gone, at every later one.
#[derive(Debug)]
struct Failing {
    file: FileBackend,
    /// Operations left until the first that fails.
    left: Arc<AtomicI64>,
}

impl Failing {
    fn count(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.count()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.count()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.count()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Runs the same checkpoints and merges each time, with `left` operations allowed. Gives the operations that were left
/// and the last state whose commit returned, with the one whose commit failed.
fn run(dir: &Path, left: i64, seed: u64) -> (i64, Vec<Model>) {
    let counter = Arc::new(AtomicI64::new(left));
    let open_file = {
        let left = counter.clone();
        move |builder: &Builder, file: File| -> Result<Database, DatabaseError> {
            let file = FileBackend::new(file)?;
            let left = left.clone();
            builder.create_with_backend(Failing { file, left })
        }
    };
    let mut possible = vec![Model::default()];
    let Ok(store) = Store::open_with(dir, "test", KEY_GROUPS, NEVER, &open_file) else {
        return (counter.load(Ordering::SeqCst), possible);
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
    (counter.load(Ordering::SeqCst), possible)
}

#[test]
fn whichever_write_fails_a_checkpoint_is_there_whole() {
    let seed = rand::random();
    println!("seed {seed}");
    let unlimited = 1 << 40;
    let (left, complete) = run(temp().path(), unlimited, seed);
    assert_eq!(complete[0].number, Some(3));
    let operations = unlimited - left;
    assert!(operations > 50, "{operations}");
    let mut cut_commits = 0;
    for allowed in 0..operations {
        let dir = temp();
        let (_, possible) = run(dir.path(), allowed, seed);
        cut_commits += usize::from(possible.len() == 2);
        let store = open(dir.path(), NEVER);
        let found = content(&store);
        assert!(
            possible.contains(&found),
            "operation {allowed} of {operations} failed: found {:?}, possible {:?}",
            found.number,
            possible.iter().map(|m| m.number).collect::<Vec<_>>()
        );
        store.merge().unwrap();
        assert_eq!(content(&store), found, "a merge changes nothing");
    }
    assert!(cut_commits > 10, "{cut_commits}");
}
