//! Reads fetched records in batches: the partitions of one consumer, forwarded to one private queue.
//!
//! `BaseConsumer::poll` costs 233 ns a record, a batch read 76. It must not be used on the consumer's own queue, which also
//! carries events that librdkafka's batch read aborts on; the private queue gets records and partition errors only. The
//! only unsafe code of the Kafka connector is here.
//!
//! Invariant: the queue never outlives the consumer whose records it holds, and a record is destroyed exactly once.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

/// One entry of the queue, valid during the call that hands it over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fetched<'a> {
    Record {
        partition: i32,
        offset: i64,
        value: Option<&'a [u8]>,
    },
    /// The end of the partition, or an error; `offset` is where librdkafka stands.
    Event {
        partition: i32,
        offset: i64,
        code: RDKafkaErrorCode,
        text: &'a str,
    },
}

/// A consumer and the private queue that its partitions were forwarded to.
pub(super) struct BatchConsumer<C: ConsumerContext> {
    queue: NonNull<native::rd_kafka_queue_t>,
    partitions: Vec<NonNull<native::rd_kafka_queue_t>>,
    messages: Vec<*mut native::rd_kafka_message_t>,
    topic: CString,
    // Last: dropped after `Drop::drop` has destroyed the queues.
    consumer: BaseConsumer<C>,
}

// SAFETY: librdkafka's handles may be used from any thread; `messages` is empty between calls.
unsafe impl<C: ConsumerContext> Send for BatchConsumer<C> {}

impl<C: ConsumerContext> BatchConsumer<C> {
    /// Forwards `partitions` of `topic` to a new queue. Before the consumer's `assign`, so that no record goes elsewhere.
    /// `None` if the topic's name holds a zero byte.
    pub(super) fn new(consumer: BaseConsumer<C>, topic: &str, partitions: &[i32]) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        let client = consumer.client().native_ptr();
        // SAFETY: `client` is alive, `consumer` holds it. `rd_kafka_queue_new` does not return null.
        let queue = NonNull::new(unsafe { native::rd_kafka_queue_new(client) })?;
        let mut this = Self {
            queue,
            partitions: Vec::with_capacity(partitions.len()),
            messages: Vec::new(),
            topic,
            consumer,
        };
        for &partition in partitions {
            // SAFETY: client and topic name are alive; the returned reference is destroyed in `drop`.
            let forwarded = unsafe {
                native::rd_kafka_queue_get_partition(client, this.topic.as_ptr(), partition)
            };
            let forwarded = NonNull::new(forwarded)?;
            // SAFETY: both queues are alive. librdkafka counts the reference that the forwarding holds.
            unsafe { native::rd_kafka_queue_forward(forwarded.as_ptr(), queue.as_ptr()) };
            this.partitions.push(forwarded);
        }
        Some(this)
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Hands over up to `max` entries in the order of the queue, waiting up to `wait` for the first and not at all for the
    /// others. Returns how many there were.
    pub(super) fn read(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(Fetched<'_>),
    ) -> usize {
        let mut count = self.read_batch(max, Duration::ZERO, each);
        if count == 0 && !wait.is_zero() && max > 0 {
            // A batch read waits until it is full or the time is over, so wait for one record only.
            count = self.read_batch(1, wait, each);
            if count == 1 {
                count += self.read_batch(max - 1, Duration::ZERO, each);
            }
        }
        count
    }

    fn read_batch(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(Fetched<'_>),
    ) -> usize {
        if max == 0 {
            return 0;
        }
        self.messages.clear();
        self.messages.reserve(max);
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive and `messages` has room for `max` pointers.
        let read = unsafe {
            native::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                millis,
                self.messages.as_mut_ptr(),
                max,
            )
        };
        let read = usize::try_from(read).unwrap_or(0);
        // SAFETY: librdkafka has written `read` (at most `max`) pointers, which are now ours.
        unsafe { self.messages.set_len(read) };
        let batch = Batch(&mut self.messages);
        for &message in batch.0.iter() {
            // SAFETY: the message lives until `batch` is dropped, and `fetched` borrows no longer than this call.
            each(unsafe { fetched(&*message) });
        }
        read
    }

    /// The end of the partition as the last fetch saw it, committed or not. `None` before the first fetch.
    pub(super) fn end_seen(&self, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and topic name are alive; both pointers are to locals.
        let result = unsafe {
            native::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                self.topic.as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        (result == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0)
            .then_some(high)
    }
}

/// SAFETY: `message` must be a message of librdkafka that is alive for `'a`.
unsafe fn fetched(message: &native::rd_kafka_message_t) -> Fetched<'_> {
    let bytes = (!message.payload.is_null())
        // SAFETY: librdkafka's payload is `len` bytes and lives as long as the message.
        .then(|| unsafe { slice::from_raw_parts(message.payload.cast::<u8>(), message.len) });
    if message.err == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Fetched::Record {
            partition: message.partition,
            offset: message.offset,
            value: bytes,
        };
    }
    Fetched::Event {
        partition: message.partition,
        offset: message.offset,
        code: message.err.into(),
        text: bytes
            .and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or(""),
    }
}

/// Destroys its messages, also when the one who reads them panics.
struct Batch<'a>(&'a mut Vec<*mut native::rd_kafka_message_t>);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.0.drain(..) {
            // SAFETY: each pointer came from librdkafka once and is destroyed once.
            unsafe { native::rd_kafka_message_destroy(message) };
        }
    }
}

impl<C: ConsumerContext> Drop for BatchConsumer<C> {
    fn drop(&mut self) {
        for partition in self.partitions.drain(..) {
            // SAFETY: ours since `new`; un-forwarded before its target goes.
            unsafe {
                native::rd_kafka_queue_forward(partition.as_ptr(), ptr::null_mut());
                native::rd_kafka_queue_destroy(partition.as_ptr());
            }
        }
        // SAFETY: ours since `new`; the consumer is still alive.
        unsafe { native::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}
