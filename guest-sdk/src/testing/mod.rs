//! Plugins in native tests: rows in, rows out, alarms fired by moving the watermark.
//!
//! A test drives the functions that the component exports, on the same columns, so what passes here holds in the host. Rows
//! are JSON objects; timestamps are microseconds, bytes lists of numbers, and `_time` is the event time (0 if left out).
//! Members that the plugin does not read pass through, as in the host. Whatever a plugin answers is checked as the host
//! checks it. Tables, log lines and metrics belong to the thread, that is to the test.
//!
//! ```
//! use tidemill_guest::prelude::*;
//! use tidemill_guest::testing::{self, json};
//! # #[derive(serde::Deserialize)]
//! # struct Above { limit: f64 }
//! # #[derive(Row)]
//! # struct Purchase { amount: f64 }
//! # impl Transform for Above {
//! #     type Row<'a> = Purchase;
//! #     type Out = ();
//! #     fn row(&mut self, row: Purchase, out: &mut Out<()>) {
//! #         if row.amount > self.limit { out.keep(()) }
//! #     }
//! # }
//!
//! let mut test = testing::transform::<Above>(json!({ "limit": 100.0 })).unwrap();
//! test.push(json!({ "user": "anna", "amount": 120.0 }));
//! test.push(json!({ "user": "ben", "amount": 99.0 }));
//! assert_eq!(test.output("main"), [json!({ "user": "anna", "amount": 120.0 })]);
//! ```

pub(crate) mod host;
pub(crate) mod json;
mod keyed;
mod outputs;
mod table;
mod transform;

pub use host::{counter_value, histogram_values, log_lines};
pub use keyed::{KeyedTest, keyed};
pub use serde_json::{Value as Json, json};
pub use transform::{TransformTest, transform};

/// Makes a reference table for the plugins of this test. The type of a column is that of its first value.
///
/// # Panics
/// If the rows are no JSON objects with the key.
pub fn table(name: &str, key: &str, rows: Json) {
    host::put_table(
        name,
        table::Table::new(key, &rows).unwrap_or_else(|error| panic!("table `{name}`: {error}")),
    );
}
