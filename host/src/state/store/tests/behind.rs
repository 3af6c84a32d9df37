//! Merges that do not keep up are told, until they have.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn merges_that_do_not_keep_up_are_told_until_they_have() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = temp();
    let rule = MergeRule {
        bytes_max: 20_000,
        ..NEVER
    };
    let store = open(dir.path(), rule);
    let steps = step_ids(&store);
    let behind = store.behind();
    let mut model = Model::default();
    let merging = store.files.pause();
    let bytes = || {
        log::unmerged(&store.files.log.read().unwrap())
            .unwrap()
            .bytes
    };
    while bytes() < 60_000 {
        assert!(!behind.load(Relaxed), "{} bytes", bytes());
        let (prepared, after) = next(&mut rng, &model, &steps);
        store.commit(prepared).unwrap();
        model = after;
    }
    assert!(behind.load(Relaxed), "{} bytes", bytes());
    drop(merging);
    let until = Instant::now() + Duration::from_secs(60);
    while behind.load(Relaxed) {
        assert!(Instant::now() < until, "{} bytes", bytes());
        std::thread::yield_now();
    }
    assert!(bytes() < 60_000);
    assert_eq!(content(&store), model);
}
