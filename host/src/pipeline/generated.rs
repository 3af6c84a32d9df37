//! The columns that a generator's records have.
//!
//! Not the generator: what the records hold is made in `source`.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::plan::{EventTime, GenerateKind};
use crate::time::MICROS_PER_SECOND;

/// Columns in the order of the records' members, the path of each, and their event time (lateness 5 minutes).
pub fn columns(kind: GenerateKind) -> (SchemaRef, Vec<Vec<String>>, EventTime) {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let time = Field::new("timestamp", utc, false);
    let fields = match kind {
        GenerateKind::Clicks => vec![
            text("event_id"),
            text("user_id"),
            text("product_id"),
            text("action"),
            time,
            text("page"),
            text("device"),
        ],
        GenerateKind::Transactions => vec![
            text("transaction_id"),
            text("user_id"),
            text("product_id"),
            Field::new("quantity", DataType::Int64, false),
            Field::new("amount", DataType::Float64, false),
            time,
            text("currency"),
        ],
    };
    let schema = Arc::new(Schema::new(fields));
    let paths = schema
        .fields()
        .iter()
        .map(|f| vec![f.name().clone()])
        .collect();
    let event_time = EventTime {
        column: schema.index_of("timestamp").expect("both kinds have it"),
        lateness: 300 * MICROS_PER_SECOND,
        idle_after: Duration::from_secs(30),
        max_ahead: 86_400 * MICROS_PER_SECOND,
    };
    (schema, paths, event_time)
}
