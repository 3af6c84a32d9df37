//! A stateless plugin as a step: every call is a slice of one batch. Keeps nothing; emits in the pass that brought the
//! rows; late rows are rows like others.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::batch::Batch;
use crate::limits;
use crate::plugin::{CallError, FailureRate, Instance, Outcome, PortRows};
use crate::step::{Gauges, Output, Refused, Step, StepError, Tick};

/// Runs a transform plugin.
pub struct Transform {
    instance: Instance,
    /// Time spent in the versions before this one.
    nanos_before: u64,
    ports: Vec<SchemaRef>,
    failures: FailureRate,
}

impl Transform {
    /// `ports`: the schema of each of the plugin's ports; `failed_max`: share of failing rows at which the pipeline pauses.
    pub fn new(instance: Instance, ports: Vec<SchemaRef>, failed_max: f64) -> Self {
        Self {
            instance,
            nanos_before: 0,
            ports,
            failures: FailureRate::new(failed_max),
        }
    }

    fn call(&mut self, batch: &Batch, out: &mut Output) -> Result<(), StepError> {
        let outcome = self.instance.transform(batch).map_err(paused)?;
        report(&outcome, batch, self.instance.component().digest(), out);
        check_failures(
            &mut self.failures,
            batch.rows(),
            outcome.failed.iter().map(|f| f.0),
        )?;
        for (port, parts) in outcome.ports.into_iter().enumerate() {
            for rows in parts {
                out.push(port, port_rows(rows, batch, &self.ports[port]));
            }
        }
        Ok(())
    }
}

impl Step for Transform {
    fn process(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        for start in (0..batch.rows()).step_by(limits::CALL_ROWS_MAX) {
            self.call(
                &batch.slice(start, limits::CALL_ROWS_MAX.min(batch.rows() - start)),
                out,
            )?;
        }
        Ok(())
    }

    fn tick(&mut self, _time: Tick, _out: &mut Output) -> Result<(), StepError> {
        self.instance.begin_epoch();
        Ok(())
    }

    fn swap(&mut self, instance: Instance) {
        self.nanos_before += self.instance.nanos();
        self.instance = instance;
    }

    fn gauges(&self) -> Gauges {
        Gauges {
            plugin_nanos: self.nanos_before + self.instance.nanos(),
            ..Gauges::default()
        }
    }
}

/// What leaves a stateless port: input rows with columns added, or new rows.
fn port_rows(rows: PortRows, batch: &Batch, schema: &SchemaRef) -> Batch {
    match rows {
        PortRows::Kept { rows, added } => kept(&rows, added, batch, schema),
        PortRows::New {
            columns,
            origin,
            times,
        } => {
            let times = times.map_or_else(
                || origin.iter().map(|&o| batch.times[o as usize]).collect(),
                Into::into,
            );
            Batch {
                columns: record_batch(schema, columns, origin.len()),
                times,
                origins: None,
            }
        }
    }
}

/// Input rows `rows` with `added` columns behind their own.
pub fn kept(rows: &[u32], added: Vec<ArrayRef>, batch: &Batch, schema: &SchemaRef) -> Batch {
    let rows = if rows.len() == batch.rows() {
        batch.clone()
    } else {
        batch.take(rows)
    };
    let columns = rows
        .columns
        .columns()
        .iter()
        .cloned()
        .chain(added)
        .collect();
    rows.with_columns(record_batch(schema, columns, rows.rows()))
}

/// Columns under a port's schema; `rows` counts where there is no column.
pub fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("the runtime has checked what the plugin returned against its ports")
}

/// Refused and failed rows on their way to the dead letters.
pub fn report(outcome: &Outcome, batch: &Batch, digest: &str, out: &mut Output) {
    for (row, reason) in &outcome.refused {
        out.refuse(reason.clone(), batch.take(&[*row]));
    }
    for (row, cause) in &outcome.failed {
        out.refused.push(Refused {
            reason: format!("the plugin failed on this row: {cause}"),
            row: Some(batch.take(&[*row])),
            key: None,
            plugin: Some(digest.to_owned()),
        });
    }
}

/// Pauses the pipeline when too large a share of the last rows failed.
pub fn check_failures(
    failures: &mut FailureRate,
    rows: usize,
    failed: impl IntoIterator<Item = u32>,
) -> Result<(), StepError> {
    failures.record(rows, failed);
    if !failures.is_exceeded() {
        return Ok(());
    }
    Err(StepError::Paused(format!(
        "the plugin failed on {} of the last {} rows, more than `limits.failed` allows; the dead letters hold the rows and \
         the causes. Mend the plugin and start again, or raise `limits.failed`",
        failures.failed(),
        failures.rows()
    )))
}

pub fn paused(error: CallError) -> StepError {
    match error {
        CallError::Paused(why) => StepError::Paused(why),
    }
}
