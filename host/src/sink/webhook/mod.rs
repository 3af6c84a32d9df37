//! Rows to an HTTP endpoint as JSON, at least once.
//!
//! A checkpoint waits until the receiver has answered 2xx to every row before it; what was sent after the last decided
//! checkpoint is sent again after a crash. With `batch` above 1 a request is an array of rows and each begins with the
//! member `_id`; otherwise it is one row, and the header `Idempotency-Key` has the id.
//!
//! Invariant: the id is a hash of pipeline, sink, step, event time, the origin as far as it is known, and the row's text.
//! A row that is sent again has the id it had before, whatever request it is in; rows that differ have different ids.
//! Two rows without an origin (results of a plugin) that are equal in time and text share one.
//!
//! Rows of one worker are sent in their order; with `in_flight` above 1 a request may overtake another.

mod queue;
mod reject;
mod request;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use self::queue::{Queue, Row};
use self::reject::Rejects;
pub use self::request::check_header;
use self::request::{Answer, Client};
use super::Sink;
use super::backoff::{Backoff, Outage};
use super::lines::json_writers;
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::format::encode::RowWriter;
use crate::limits::WEBHOOK_BODY_BYTES_MAX;
use crate::pipeline::plan::{self, SinkConnector};

/// The member that a row begins with in a request of several rows.
pub const ID_MEMBER: &str = "_id";

/// Sends rows to a URL. Its threads end with it.
pub struct WebhookSink {
    queue: Arc<Queue>,
    inputs: Vec<Input>,
    rows: AtomicU64,
}

/// How rows of one input become JSON, and what their ids begin with.
struct Input {
    writer: RowWriter,
    prefix: Xxh3,
}

/// What the sending threads share.
struct Sender {
    queue: Arc<Queue>,
    client: Client,
    batch: usize,
    outage: Outage,
    /// `None`: a row that is rejected ends the run.
    rejects: Option<Rejects>,
}

impl WebhookSink {
    /// Starts the senders of `sink`, which must have a webhook connector. `state` is the state directory. Nothing of an
    /// earlier run matters: what it had not delivered comes again. Whether the receiver is there shows with the first row.
    pub fn open(pipeline: &str, state: &Path, sink: &plan::Sink) -> Result<Self, ConnectorError> {
        let SinkConnector::Webhook(webhook) = &sink.connector else {
            panic!("sink {} is not a webhook", sink.name);
        };
        let place = format!("sink {} ({})", sink.name, webhook.place());
        let queue = Arc::new(Queue::new(place.clone()));
        let rejects = match webhook.on_reject {
            plan::OnReject::Stop => None,
            plan::OnReject::DeadLetter => Some(Rejects::open(&sink.name, state)?),
        };
        let sender = Arc::new(Sender {
            queue: queue.clone(),
            client: Client::new(&place, webhook)?,
            batch: webhook.batch,
            outage: Outage::new(place.clone()),
            rejects,
        });
        // From here on a drop ends the threads that were started.
        let this = Self {
            queue,
            inputs: inputs(pipeline, sink),
            rows: AtomicU64::new(0),
        };
        for number in 0..webhook.in_flight {
            let sender = sender.clone();
            thread::Builder::new()
                .name(format!("{}-{number}", sink.name))
                .spawn(move || sender.run())
                .map_err(|cause| ConnectorError::failed(&place, cause))?;
        }
        Ok(this)
    }
}

impl Drop for WebhookSink {
    /// The senders end by themselves, at the latest when the request under way times out.
    fn drop(&mut self) {
        self.queue.stop();
    }
}

impl Sink for WebhookSink {
    fn write(&self, input: usize, batch: &Batch) -> Result<(), ConnectorError> {
        let input = &self.inputs[input];
        let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(batch.rows()));
        input.writer.write(&batch.columns, &mut text, &mut ends);
        let mut start = 0;
        self.queue
            .push(ends.into_iter().enumerate().map(|(row, end)| {
                let json = &text[start..end];
                start = end;
                Row {
                    id: input.id(batch, row, json),
                    json: json.into(),
                }
            }))?;
        self.rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, _last: bool) -> Result<Value, ConnectorError> {
        Ok(json!({ "rows": self.queue.end() }))
    }

    fn sync(&self, cut: &Value) -> Result<(), ConnectorError> {
        let end = cut["rows"].as_u64().ok_or_else(|| {
            ConnectorError::failed(self.queue.place(), format!("{cut} is no cut of a webhook"))
        })?;
        self.queue.wait_for(end)
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.queue.stop();
    }
}

fn inputs(pipeline: &str, sink: &plan::Sink) -> Vec<Input> {
    let writers = json_writers(sink).into_iter();
    let input = |(input, writer): (&plan::SinkInput, RowWriter)| {
        let mut prefix = Xxh3::new();
        for part in [pipeline, &sink.name, &input.label] {
            prefix.update(&(part.len() as u64).to_le_bytes());
            prefix.update(part.as_bytes());
        }
        Input { writer, prefix }
    };
    sink.inputs.iter().zip(writers).map(input).collect()
}

impl Input {
    /// The id of row `row`, whose text is `json`. Its definition is for ever: receivers keep ids.
    fn id(&self, batch: &Batch, row: usize, json: &[u8]) -> u128 {
        let mut hash = self.prefix.clone();
        hash.update(&batch.times[row].to_le_bytes());
        if let Some(origins) = &batch.origins {
            hash.update(&origins.inputs[row].to_le_bytes());
            hash.update(&origins.offsets[row].to_le_bytes());
        }
        hash.update(json);
        hash.digest128()
    }
}

impl Sender {
    /// Sends until nothing is to be sent any more.
    fn run(&self) {
        let _watch = Watch(&self.queue);
        while let Some(taken) = self.queue.take(self.batch, WEBHOOK_BODY_BYTES_MAX) {
            match self.deliver(&taken.rows) {
                Ok(()) => self.queue.done(taken.first),
                Err(End::Stopped) => return,
                Err(End::Failed(cause)) => return self.queue.fail(cause),
            }
        }
    }

    /// Returns when every row is accepted or, where that is asked for, kept as a dead letter.
    fn deliver(&self, rows: &[Row]) -> Result<(), End> {
        let (key, body) = self.request(rows);
        let mut backoff = Backoff::default();
        loop {
            match self.client.post(&key, &body) {
                Answer::Accepted => {
                    self.outage.over();
                    return Ok(());
                }
                Answer::Again { cause, after } => {
                    self.outage.lost(&cause);
                    let wait = backoff.next().max(after.unwrap_or_default());
                    if !self.queue.pause(wait) {
                        return Err(End::Stopped);
                    }
                }
                Answer::Rejected { cause } => return self.rejected(rows, cause),
                Answer::Refused { cause } => return Err(End::Failed(cause)),
            }
        }
    }

    /// Finds the rows that are not wanted by halves.
    fn rejected(&self, rows: &[Row], cause: String) -> Result<(), End> {
        let Some(rejects) = &self.rejects else {
            let row = &String::from_utf8_lossy(&rows[0].json);
            let shown = &row[..row.floor_char_boundary(200)];
            let which = match rows.len() {
                1 => format!("the row {shown}"),
                n => format!("one of {n} rows, the first of them {shown}"),
            };
            return Err(End::Failed(format!(
                "{cause}; it rejects {which}. Mend the rows or the receiver, or set on_reject = \"dead-letter\""
            )));
        };
        if let [row] = rows {
            let kept = rejects.keep(&row.json, &cause);
            return kept.map_err(|error| End::Failed(error.to_string()));
        }
        let (left, right) = rows.split_at(rows.len() / 2);
        self.deliver(left)?;
        self.deliver(right)
    }

    /// The idempotency key and the body of a request with `rows`.
    fn request(&self, rows: &[Row]) -> (String, Vec<u8>) {
        if self.batch == 1 {
            return (hex(rows[0].id), rows[0].json.to_vec());
        }
        let mut hash = Xxh3::new();
        let bytes: usize = rows.iter().map(|row| row.json.len() + 48).sum();
        let mut body = Vec::with_capacity(bytes);
        for row in rows {
            hash.update(&row.id.to_le_bytes());
            body.push(if body.is_empty() { b'[' } else { b',' });
            body.extend_from_slice(format!("{{\"{ID_MEMBER}\":\"{}\",", hex(row.id)).as_bytes());
            // A row is an object with at least one member.
            body.extend_from_slice(&row.json[1..]);
        }
        body.push(b']');
        (hex(hash.digest128()), body)
    }
}

/// Why a sender ends before its time.
enum End {
    Stopped,
    Failed(String),
}

/// A sender that panics must not leave a checkpoint waiting for it.
struct Watch<'a>(&'a Queue);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0
                .fail("a sender panicked; its message is above".into());
        }
    }
}

fn hex(id: u128) -> String {
    format!("{id:032x}")
}

#[cfg(test)]
mod tests;
