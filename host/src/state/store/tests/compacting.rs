//! Checkpoints that read stored segments while they are written, beside merges.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::state::segment::{PutSegment, SegmentSource};

/// Long enough for the slowest machine; nothing here waits for anybody.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes the segment before once more, as a compaction does.
struct Again {
    store: Arc<Store>,
    step: u16,
    before: SegmentId,
    id: SegmentId,
}

impl SegmentSource for Again {
    fn write(&self, put: &mut PutSegment<'_>) -> Result<(), Fault> {
        let found = self.store.segment_bytes(self.step, &[self.before]);
        let found = found.map_err(|e| Fault(e.to_string()))?;
        put(self.id, &found.expect("of the checkpoint before")[0])
    }
}

#[test]
fn checkpoints_that_compact_and_merges_do_not_wait_for_each_other() {
    let dir = temp();
    let store = Arc::new(open(dir.path(), ALWAYS));
    let step = store.step_id("a").unwrap();
    let id = |checkpoint| SegmentId {
        millis: 0,
        checkpoint,
        serial: 0,
        first: 0,
        last: 0,
    };
    let (done, end) = mpsc::channel();
    let writer = std::thread::spawn(move || {
        for number in 0..400 {
            let source: Box<dyn SegmentSource> = match number {
                0 => Box::new((id(0), vec![7; 100])),
                _ => Box::new(Again {
                    store: store.clone(),
                    step,
                    before: id(number - 1),
                    id: id(number),
                }),
            };
            let delta = Delta {
                segments: vec![source],
                dropped: number.checked_sub(2).map(id).into_iter().collect(),
                ..Delta::default()
            };
            let prepared = Prepared {
                number,
                meta: Meta::default(),
                deltas: vec![(step, vec![delta])],
                finished: false,
            };
            store.commit(prepared).unwrap();
        }
        let found = store.segment_bytes(step, &[id(399)]).unwrap();
        assert_eq!(found, Some(vec![vec![7; 100]]));
        done.send(()).unwrap();
    });
    assert_eq!(end.recv_timeout(PATIENCE), Ok(()), "it hangs, or panicked");
    writer.join().unwrap();
}
