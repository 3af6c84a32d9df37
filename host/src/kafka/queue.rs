//! Reads fetched records in batches: the partitions of one consumer, forwarded to one private queue.
//!
//! `BaseConsumer::poll` costs 233 ns a record, a batch read 76. It must not be used on the consumer's own queue, which also
//! carries events that librdkafka's batch read aborts on; the private queue gets records and partition errors only. The
//! only unsafe code of the Kafka connector is here.
//!
//! Invariant: the queue never outlives the consumer whose records it holds, and a record is destroyed exactly once.

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::headers::Header;

/// One entry of the queue, valid during the call that hands it over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fetched<'a> {
    Record {
        /// Index of the topic among those given to [`BatchConsumer::new`].
        topic: usize,
        partition: i32,
        offset: i64,
        value: Option<&'a [u8]>,
        key: Option<&'a [u8]>,
        /// JSON; if [`Asked`] for.
        headers: Option<&'a str>,
        /// Milliseconds; if [`Asked`] for, and if the record has one.
        timestamp: Option<i64>,
    },
    /// The end of the partition, or an error; `offset` is where librdkafka stands.
    Event {
        topic: usize,
        partition: i32,
        offset: i64,
        code: RDKafkaErrorCode,
        text: &'a str,
    },
}

/// What costs time to take out of a record, and is taken only where a column holds it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    pub headers: bool,
    pub timestamp: bool,
}

/// A consumer and the private queue that its partitions were forwarded to.
pub(super) struct BatchConsumer<C: ConsumerContext> {
    queue: NonNull<native::rd_kafka_queue_t>,
    partitions: Vec<NonNull<native::rd_kafka_queue_t>>,
    messages: Vec<*mut native::rd_kafka_message_t>,
    topics: Vec<CString>,
    /// librdkafka's handles of the topics seen, each with its index.
    handles: Vec<(*const native::rd_kafka_topic_t, usize)>,
    asked: Asked,
    headers: Vec<u8>,
    // Last: dropped after `Drop::drop` has destroyed the queues.
    consumer: BaseConsumer<C>,
}

// SAFETY: librdkafka's handles may be used from any thread; `messages` is empty between calls.
unsafe impl<C: ConsumerContext> Send for BatchConsumer<C> {}

impl<C: ConsumerContext> BatchConsumer<C> {
    /// Forwards `partitions`, each with the index of its topic in `topics`, to a new queue. Before the consumer's `assign`,
    /// so that no record goes elsewhere. `None` if a topic's name holds a zero byte.
    pub(super) fn new(
        consumer: BaseConsumer<C>,
        topics: &[String],
        partitions: &[(usize, i32)],
        asked: Asked,
    ) -> Option<Self> {
        let topics = topics.iter().map(|topic| CString::new(topic.as_str()).ok());
        let topics = topics.collect::<Option<Vec<_>>>()?;
        let client = consumer.client().native_ptr();
        // SAFETY: `client` is alive, `consumer` holds it. `rd_kafka_queue_new` does not return null.
        let queue = NonNull::new(unsafe { native::rd_kafka_queue_new(client) })?;
        let mut this = Self {
            queue,
            partitions: Vec::with_capacity(partitions.len()),
            messages: Vec::new(),
            topics,
            handles: Vec::new(),
            asked,
            headers: Vec::new(),
            consumer,
        };
        for &(topic, partition) in partitions {
            // SAFETY: client and topic name are alive; the returned reference is destroyed in `drop`.
            let forwarded = unsafe {
                native::rd_kafka_queue_get_partition(client, this.topics[topic].as_ptr(), partition)
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
            // SAFETY: the message lives until `batch` is dropped, and nothing borrows it longer than this turn.
            let message = unsafe { &*message };
            let topic = match self.topics.len() {
                1 => 0,
                // SAFETY: the handle is the message's and lives as long as it.
                _ => unsafe { topic_of(message.rkt, &self.topics, &mut self.handles) },
            };
            // SAFETY: as above; `headers` is not touched while the record borrows it.
            each(unsafe { fetched(message, topic, self.asked, &mut self.headers) });
        }
        read
    }

    /// The end of the partition as the last fetch saw it, committed or not. `None` before the first fetch.
    pub(super) fn end_seen(&self, topic: usize, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and topic name are alive; both pointers are to locals.
        let result = unsafe {
            native::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                self.topics[topic].as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        (result == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0)
            .then_some(high)
    }
}

/// The index in `topics` of a message's topic; 0 for an event of none.
///
/// SAFETY: `handle` must be null or a topic handle that is alive.
unsafe fn topic_of(
    handle: *const native::rd_kafka_topic_t,
    topics: &[CString],
    handles: &mut Vec<(*const native::rd_kafka_topic_t, usize)>,
) -> usize {
    if handle.is_null() {
        return 0;
    }
    if let Some((_, index)) = handles.iter().find(|(known, _)| *known == handle) {
        return *index;
    }
    // SAFETY: the handle is alive, and its name lives as long as it.
    let name = unsafe { CStr::from_ptr(native::rd_kafka_topic_name(handle)) };
    let index = topics
        .iter()
        .position(|t| t.as_c_str() == name)
        .unwrap_or(0);
    // A partition that is assigned keeps its topic's handle alive, so an address is one topic's for good.
    handles.push((handle, index));
    index
}

/// SAFETY: `message` must be a message of librdkafka that is alive for `'a`.
unsafe fn fetched<'a>(
    message: &'a native::rd_kafka_message_t,
    topic: usize,
    asked: Asked,
    headers: &'a mut Vec<u8>,
) -> Fetched<'a> {
    let bytes = (!message.payload.is_null())
        // SAFETY: librdkafka's payload is `len` bytes and lives as long as the message.
        .then(|| unsafe { slice::from_raw_parts(message.payload.cast::<u8>(), message.len) });
    if message.err == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        let key = (!message.key.is_null())
            // SAFETY: as the payload.
            .then(|| unsafe { slice::from_raw_parts(message.key.cast::<u8>(), message.key_len) });
        return Fetched::Record {
            topic,
            partition: message.partition,
            offset: message.offset,
            value: bytes,
            key,
            headers: asked.headers.then(|| {
                headers.clear();
                // SAFETY: the message is alive.
                super::headers::write(&unsafe { headers_of(message) }, headers);
                std::str::from_utf8(headers).unwrap_or("{}")
            }),
            timestamp: match asked.timestamp {
                // SAFETY: the message is alive; the kind of its time is not asked for.
                true => {
                    Some(unsafe { native::rd_kafka_message_timestamp(message, ptr::null_mut()) })
                }
                false => None,
            }
            .filter(|&millis| millis >= 0),
        };
    }
    Fetched::Event {
        topic,
        partition: message.partition,
        offset: message.offset,
        code: message.err.into(),
        text: bytes
            .and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or(""),
    }
}

/// SAFETY: `message` must be a message of librdkafka that is alive for `'a`.
unsafe fn headers_of<'a>(message: &'a native::rd_kafka_message_t) -> Vec<Header<'a>> {
    const NO_ERROR: native::rd_kafka_resp_err_t =
        native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut list = ptr::null_mut();
    // SAFETY: the message is alive, and keeps the list it hands out.
    if unsafe { native::rd_kafka_message_headers(message, &mut list) } != NO_ERROR {
        return Vec::new();
    }
    let mut found = Vec::new();
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list is alive; the other pointers are to locals.
        let got = unsafe {
            native::rd_kafka_header_get_all(list, found.len(), &mut name, &mut value, &mut size)
        };
        if got != NO_ERROR || name.is_null() {
            return found;
        }
        // SAFETY: name (ended by a zero) and value (`size` bytes) live as long as the message.
        let (name, value) = unsafe {
            let bytes = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
            (CStr::from_ptr(name).to_bytes(), bytes)
        };
        found.push((name, value));
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
