//! Topics as the cluster describes them: the id of each (KIP-516) and how many partitions it has.
//!
//! A topic that was deleted and created anew bears its old name, and only its id tells that its offsets are other ones. The
//! Rust client does not give ids, so librdkafka is asked: what is unsafe about it is here.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// How much longer than the request itself its answer is waited for.
const GRACE: Duration = Duration::from_millis(100);

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// As Kafka's own tools write it, 22 characters. None from a cluster that gives none (before Kafka 2.8).
    pub id: Option<String>,
    pub partitions: usize,
}

/// A broker to ask: the leader of some partition of `topic`, which must be reachable for the topic to be read.
pub(super) fn broker<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    within: Duration,
) -> KafkaResult<i32> {
    let metadata = consumer.client().fetch_metadata(Some(topic), within)?;
    let partitions = metadata.topics().iter().flat_map(|t| t.partitions());
    let mut leaders = partitions.map(|p| p.leader()).filter(|&id| id >= 0);
    leaders
        .next()
        .ok_or(failed(RDKafkaErrorCode::LeaderNotAvailable))
}

/// Asks `broker` for `topics`, waiting up to `within`; creates none. A topic that cannot be described has the reason.
///
/// Not the controller, which librdkafka would ask: it may be any broker, and is not needed to read.
pub(super) fn describe<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
    broker: i32,
    within: Duration,
) -> KafkaResult<BTreeMap<String, Result<Described, RDKafkaErrorCode>>> {
    let names: Vec<CString> = topics
        .iter()
        .map(|name| CString::new(name.as_str()))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let client = consumer.client().native_ptr();
    // SAFETY: the pointers are to `names`, which outlive the call; the collection holds copies.
    let collection = Owned::new(
        unsafe {
            native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len())
        },
        native::rd_kafka_TopicCollection_destroy,
    )?;
    // SAFETY: the client is alive for all of this function: `consumer` holds it.
    let options = Owned::new(
        unsafe {
            native::rd_kafka_AdminOptions_new(
                client,
                native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            )
        },
        native::rd_kafka_AdminOptions_destroy,
    )?;
    // SAFETY: as above.
    let queue = Owned::new(
        unsafe { native::rd_kafka_queue_new(client) },
        native::rd_kafka_queue_destroy,
    )?;
    // SAFETY: the options are alive; a null buffer of no bytes takes no error text. What is refused leaves the default.
    unsafe {
        native::rd_kafka_AdminOptions_set_broker(options.get(), broker, ptr::null_mut(), 0);
        native::rd_kafka_AdminOptions_set_request_timeout(
            options.get(),
            millis(within),
            ptr::null_mut(),
            0,
        );
        native::rd_kafka_DescribeTopics(client, collection.get(), options.get(), queue.get());
    }
    // SAFETY: the queue is alive. An answer that comes after this goes with the queue.
    let event = unsafe { native::rd_kafka_queue_poll(queue.get(), millis(within + GRACE)) };
    if event.is_null() {
        return Err(failed(RDKafkaErrorCode::OperationTimedOut));
    }
    let event = Owned::new(event, native::rd_kafka_event_destroy)?;
    // SAFETY: the event is alive.
    let code = unsafe { native::rd_kafka_event_error(event.get()) };
    if code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(failed(code.into()));
    }
    // SAFETY: the event answers this function's request, and lives until the end of it.
    unsafe { described(event.get()) }
}

/// SAFETY: `event` must be an event of librdkafka, alive during the call.
unsafe fn described(
    event: *mut native::rd_kafka_event_t,
) -> KafkaResult<BTreeMap<String, Result<Described, RDKafkaErrorCode>>> {
    // SAFETY: null if the event is the answer to something else.
    let result = unsafe { native::rd_kafka_event_DescribeTopics_result(event) };
    if result.is_null() {
        return Err(failed(RDKafkaErrorCode::BadMessage));
    }
    let mut count = 0;
    // SAFETY: the result is alive as long as its event.
    let topics = unsafe { native::rd_kafka_DescribeTopics_result_topics(result, &mut count) };
    let mut all = BTreeMap::new();
    for at in 0..count {
        // SAFETY: librdkafka has said that there are `count`, each alive as long as the event.
        let (name, topic) = unsafe { description(*topics.add(at)) };
        all.insert(name, topic);
    }
    Ok(all)
}

/// SAFETY: `topic` must be a description of librdkafka, alive during the call.
unsafe fn description(
    topic: *const native::rd_kafka_TopicDescription_t,
) -> (String, Result<Described, RDKafkaErrorCode>) {
    // SAFETY: name, error, id and partitions are the description's own, and only read. An error may be null, which is none.
    unsafe {
        let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic));
        let error = native::rd_kafka_TopicDescription_error(topic);
        let code = native::rd_kafka_error_code(error);
        let mut partitions = 0;
        native::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let id = native::rd_kafka_TopicDescription_topic_id(topic);
        let described = match code {
            native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(Described {
                id: id_text(id),
                partitions,
            }),
            code => Err(code.into()),
        };
        (name.to_string_lossy().into_owned(), described)
    }
}

/// SAFETY: `id` must be null or an id of librdkafka, alive during the call.
unsafe fn id_text(id: *const native::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: the id is alive and owns its text, which ends in a zero.
    unsafe {
        let bits = (
            native::rd_kafka_Uuid_most_significant_bits(id),
            native::rd_kafka_Uuid_least_significant_bits(id),
        );
        let text = native::rd_kafka_Uuid_base64str(id);
        (bits != (0, 0) && !text.is_null()).then(|| {
            let text = CStr::from_ptr(text).to_string_lossy();
            // librdkafka writes the other base64.
            text.replace('+', "-").replace('/', "_")
        })
    }
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// In the one wrapping whose code the callers look into.
fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::MetadataFetch(code)
}

/// Something of librdkafka that is destroyed with this.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> KafkaResult<Self> {
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Self { pointer, destroy }),
            None => Err(failed(RDKafkaErrorCode::InvalidArgument)),
        }
    }

    fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: ours alone since librdkafka gave it, and destroyed once.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}
