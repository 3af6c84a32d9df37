//! A status with a number in every place, for tests.

use crate::engine::control::{
    CheckpointStatus, PluginStatus, RunState, SinkStatus, SourceStatus, Status, StepStatus,
};
use crate::source::Lost;

pub(crate) fn status() -> Status {
    Status {
        pipeline: "shop".into(),
        state: RunState::Running,
        uptime_s: 62.5,
        workers: 2,
        epoch: 5_200,
        checkpoint: CheckpointStatus {
            count: 7,
            number: 61,
            age_ms: 400,
            last_ms: 3.25,
        },
        sources: vec![
            SourceStatus {
                name: "clicks".into(),
                records_in: 48_000,
                per_second: 812.4,
                lag: Some(120),
                watermark: Some(1_767_225_600_000_000),
                bad: 3,
                lost: Lost {
                    records: 41,
                    unknown: 1,
                },
                waiting: None,
            },
            SourceStatus {
                name: "transactions".into(),
                records_in: 12_000,
                per_second: 203.0,
                lag: None,
                watermark: None,
                bad: 0,
                lost: Lost::default(),
                waiting: Some("no broker can be reached".into()),
            },
        ],
        steps: vec![
            StepStatus {
                name: "sessions".into(),
                rows_in: 48_000,
                rows_out: 5_100,
                late: 2,
                dead_letters: 1,
                keys: Some(900),
                evicted: 120,
                read_back: 80,
                forgotten: 7,
                plugin: Some(PluginStatus {
                    digest: "abab".into(),
                    version: "0.1.0".into(),
                    ns_per_row: 21.7,
                }),
            },
            StepStatus {
                name: "valid".into(),
                rows_in: 48_100,
                rows_out: 48_000,
                late: 0,
                dead_letters: 0,
                keys: None,
                evicted: 0,
                read_back: 0,
                forgotten: 0,
                plugin: None,
            },
        ],
        sinks: vec![SinkStatus {
            name: "results".into(),
            records_out: 77,
            per_second: 1.5,
        }],
        tables: vec![crate::engine::control::TableStatus {
            name: "products".into(),
            rows: 1_200,
            broken: 3,
        }],
        dead_letters: 4,
        state_bytes: 3_500_000,
    }
}
