//! Counts of a run, kept by the workers and read by status, metrics and the summary.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::pipeline::plan::Plan;
use crate::step::Gauges;

/// All counters of a run; indices are those of the plan.
#[derive(Debug)]
pub struct Metrics {
    pub sources: Vec<SourceMetrics>,
    pub steps: Vec<StepMetrics>,
    pub sinks: Vec<AtomicU64>,
    pub dead_letters: AtomicU64,
    pub epochs: AtomicU64,
    pub checkpoints: AtomicU64,
    /// Duration of the last checkpoint from its freeze to its decision, microseconds.
    pub checkpoint_micros: AtomicU64,
    /// How long the workers stood still at the last checkpoint, microseconds.
    pub pause_micros: AtomicU64,
}

#[derive(Debug, Default)]
pub struct SourceMetrics {
    pub records: AtomicU64,
    pub bad: AtomicU64,
}

#[derive(Debug)]
pub struct StepMetrics {
    pub rows_in: AtomicU64,
    pub rows_out: AtomicU64,
    pub dead_letters: AtomicU64,
    /// By worker.
    gauges: Vec<Mutex<Gauges>>,
}

impl Metrics {
    pub fn new(plan: &Plan) -> Self {
        let step = || StepMetrics {
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            gauges: (0..plan.host.workers).map(|_| Mutex::default()).collect(),
        };
        Self {
            sources: plan
                .sources
                .iter()
                .map(|_| SourceMetrics::default())
                .collect(),
            steps: plan.steps.iter().map(|_| step()).collect(),
            sinks: plan.sinks.iter().map(|_| AtomicU64::new(0)).collect(),
            dead_letters: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            checkpoint_micros: AtomicU64::new(0),
            pause_micros: AtomicU64::new(0),
        }
    }
}

impl StepMetrics {
    pub fn set_gauges(&self, worker: usize, gauges: Gauges) {
        *self.gauges[worker]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = gauges;
    }

    /// Readings of all workers together.
    pub fn gauges(&self) -> Gauges {
        self.gauges.iter().fold(Gauges::default(), |sum, g| {
            let g = *g.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Gauges {
                keys: sum.keys + g.keys,
                evicted: sum.evicted + g.evicted,
                read_back: sum.read_back + g.read_back,
                forgotten: sum.forgotten + g.forgotten,
                state_bytes: sum.state_bytes + g.state_bytes,
                waiting_bytes: sum.waiting_bytes + g.waiting_bytes,
                plugin_nanos: sum.plugin_nanos + g.plugin_nanos,
                late: sum.late + g.late,
            }
        })
    }
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    if n > 0 {
        counter.fetch_add(n as u64, Relaxed);
    }
}
