//! A test of a plugin without state.

use super::Json;
use super::outputs::{Input, Rows, schema};
use crate::row::Row;
use crate::{Transform, TransformRuntime};

/// A configured [`Transform`] under test.
pub struct TransformTest<P: Transform> {
    runtime: TransformRuntime<P>,
    rows: Rows,
    pending: Vec<Input>,
    rows_per_call: usize,
}

/// Configures a plugin for a test. Its input has the columns that it reads. An error is what `configure` would answer.
pub fn transform<P: Transform>(config: Json) -> Result<TransformTest<P>, String> {
    let reads = <P::Row<'static> as Row<'static>>::COLUMNS;
    let mut runtime = TransformRuntime::new();
    let plan = runtime.configure(&config.to_string(), &schema(reads))?;
    Ok(TransformTest {
        runtime,
        rows: Rows::new(plan, reads),
        pending: Vec::new(),
        rows_per_call: usize::MAX,
    })
}

impl<P: Transform> TransformTest<P> {
    /// Cuts the rows into calls of at most this many. The result must be the same for any number.
    pub fn rows_per_call(mut self, rows: usize) -> Self {
        self.rows_per_call = rows.max(1);
        self
    }

    /// Hands a row in, as a JSON object.
    ///
    /// # Panics
    /// If a column that the plugin reads has another type, or a null it does not expect.
    pub fn push(&mut self, row: Json) {
        self.pending.push(self.rows.input(row, 0));
    }

    /// Takes what came out of a port since the last time.
    ///
    /// # Panics
    /// If there is no such port, or the plugin fails.
    pub fn output(&mut self, port: &str) -> Vec<Json> {
        self.run();
        self.rows.take(port)
    }

    /// The event times of what [`output`](Self::output) would take.
    pub fn times(&mut self, port: &str) -> Vec<i64> {
        self.run();
        self.rows.times(port)
    }

    /// Takes the rows refused since the last time, each with its reason.
    pub fn refused(&mut self) -> Vec<(Json, String)> {
        self.run();
        self.rows.take_refused()
    }

    fn run(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for rows in pending.chunks(self.rows_per_call) {
            let batch = self.rows.batch(rows);
            let result = self
                .runtime
                .process(&batch)
                .unwrap_or_else(|error| panic!("the call failed: {error}"));
            self.rows
                .collect(rows, &[], &[], result.ports, result.refused);
        }
    }
}
