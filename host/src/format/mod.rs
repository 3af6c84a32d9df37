//! Records to columns and back: the seam between bytes of a source or sink and Arrow.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::time::Micros;

/// Decodes records of one worker and source into columns.
///
/// Invariant: a record that is refused leaves nothing behind; the rows decoded are exactly the records accepted, in order.
pub trait Decoder: Send {
    /// Adds one record. Returns its event time if the decoder was given an event-time column, else [`crate::time::NO_TIME`].
    /// `Err` is the reason, in words for a dead letter.
    fn push(&mut self, record: &[u8]) -> Result<Micros, String>;

    /// Takes back the record last pushed.
    fn undo(&mut self);

    fn rows(&self) -> usize;

    fn schema(&self) -> SchemaRef;

    /// The rows so far as columns; the decoder is empty afterwards.
    fn finish(&mut self) -> RecordBatch;
}
