//! Descriptions of a cluster that rust-rdkafka does not offer: topics with their replicas, and which operations this user
//! may do. A small safe wrapper of librdkafka's admin API.
//!
//! Nothing here changes anything at the broker. Invariant: what librdkafka hands out lives as long as its event and is
//! copied before that is destroyed; each handle is freed exactly once.

use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::{Operation, Operations, Replicas};

/// How much longer than the broker librdkafka may take to say that there is no answer.
const GRACE: Duration = Duration::from_secs(1);

const NO_ERROR: native::rd_kafka_resp_err_t =
    native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A topic, or why the broker does not describe it.
pub(super) type Described = (String, Result<Description, RDKafkaErrorCode>);

pub(super) struct Description {
    pub partitions: Vec<Replicas>,
    pub operations: Option<Operations>,
}

pub(super) struct ClusterDescription {
    /// Ids of the brokers.
    pub brokers: Vec<i32>,
    pub id: Option<String>,
    pub operations: Option<Operations>,
}

/// Why a question has no answer: the code, and what librdkafka says to it.
pub(super) type Unanswered = (RDKafkaErrorCode, String);

/// Describes topics; those that do not exist are not made.
pub(super) fn topics<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    within: Duration,
) -> Result<Vec<Described>, Unanswered> {
    let op = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let question = Question::new(client, op, within)?;
    let names: Vec<CString> = names
        .iter()
        .filter_map(|n| CString::new(n.as_str()).ok())
        .collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
    // SAFETY: the pointers are to strings that outlive the call, which copies them; librdkafka's handles are alive, and
    // the collection is destroyed once.
    unsafe {
        let all =
            native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        native::rd_kafka_DescribeTopics(question.client, all, question.options(), question.queue());
        native::rd_kafka_TopicCollection_destroy(all);
    }
    let event = question.answer(within)?;
    // SAFETY: the event is the answer to DescribeTopics and outlives what is read of it here.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        if result.is_null() {
            return Err(no_result());
        }
        let mut count = 0;
        let list = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        Ok(list_of(list.cast_const(), count)
            .iter()
            .map(|&topic| described(topic))
            .collect())
    }
}

/// Describes the cluster itself.
pub(super) fn cluster<C: ClientContext>(
    client: &Client<C>,
    within: Duration,
) -> Result<ClusterDescription, Unanswered> {
    let op = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER;
    let question = Question::new(client, op, within)?;
    // SAFETY: all three handles are alive.
    unsafe {
        native::rd_kafka_DescribeCluster(question.client, question.options(), question.queue());
    }
    let event = question.answer(within)?;
    // SAFETY: the event is the answer to DescribeCluster and outlives what is read of it here.
    unsafe {
        let result = native::rd_kafka_event_DescribeCluster_result(event.0.as_ptr());
        if result.is_null() {
            return Err(no_result());
        }
        let mut count = 0;
        let nodes = native::rd_kafka_DescribeCluster_result_nodes(result, &mut count);
        let nodes = list_of(nodes.cast_const(), count).iter();
        let brokers = nodes.map(|&node| native::rd_kafka_Node_id(node)).collect();
        let mut count = 0;
        let allowed =
            native::rd_kafka_DescribeCluster_result_authorized_operations(result, &mut count);
        Ok(ClusterDescription {
            brokers,
            id: text(native::rd_kafka_DescribeCluster_result_cluster_id(result)),
            operations: operations(allowed, count),
        })
    }
}

/// What this user may do with a consumer group, which need not exist; `None` where the broker does not tell.
pub(super) fn group<C: ClientContext>(
    client: &Client<C>,
    name: &str,
    within: Duration,
) -> Result<Option<Operations>, Unanswered> {
    let op = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let question = Question::new(client, op, within)?;
    let name = CString::new(name).unwrap_or_default();
    let mut pointers = [name.as_ptr()];
    // SAFETY: the name outlives the call, which copies it; librdkafka's handles are alive.
    unsafe {
        native::rd_kafka_DescribeConsumerGroups(
            question.client,
            pointers.as_mut_ptr(),
            pointers.len(),
            question.options(),
            question.queue(),
        );
    }
    let event = question.answer(within)?;
    // SAFETY: the event is the answer to DescribeConsumerGroups and outlives what is read of it here.
    unsafe {
        let result = native::rd_kafka_event_DescribeConsumerGroups_result(event.0.as_ptr());
        if result.is_null() {
            return Err(no_result());
        }
        let mut count = 0;
        let list = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        let Some(&group) = list_of(list.cast_const(), count).first() else {
            return Err(no_result());
        };
        if let Some(code) = code_of(native::rd_kafka_ConsumerGroupDescription_error(group)) {
            return Err((code, code.to_string()));
        }
        let mut count = 0;
        let allowed =
            native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut count);
        Ok(operations(allowed, count))
    }
}

/// One question: what it asks for, and where the answer comes.
struct Question {
    client: *mut native::rd_kafka_t,
    options: NonNull<native::rd_kafka_AdminOptions_t>,
    queue: NonNull<native::rd_kafka_queue_t>,
}

impl Question {
    fn new<C: ClientContext>(
        client: &Client<C>,
        op: native::rd_kafka_admin_op_t,
        within: Duration,
    ) -> Result<Self, Unanswered> {
        let client = client.native_ptr();
        // SAFETY: the client is alive.
        let (options, queue) = unsafe {
            (
                native::rd_kafka_AdminOptions_new(client, op),
                native::rd_kafka_queue_new(client),
            )
        };
        let (Some(options), Some(queue)) = (NonNull::new(options), NonNull::new(queue)) else {
            // SAFETY: both functions give null only where they made nothing; what was made is destroyed once.
            unsafe {
                if !options.is_null() {
                    native::rd_kafka_AdminOptions_destroy(options);
                }
                if !queue.is_null() {
                    native::rd_kafka_queue_destroy(queue);
                }
            }
            return Err(no_result());
        };
        let question = Self {
            client,
            options,
            queue,
        };
        let mut text = [0; 256];
        // SAFETY: the options are alive, `text` is as long as is said, and an error is destroyed once.
        unsafe {
            native::rd_kafka_AdminOptions_set_request_timeout(
                question.options.as_ptr(),
                millis(within),
                text.as_mut_ptr(),
                text.len(),
            );
            let error = native::rd_kafka_AdminOptions_set_include_authorized_operations(
                question.options.as_ptr(),
                1,
            );
            if !error.is_null() {
                native::rd_kafka_error_destroy(error);
            }
        }
        Ok(question)
    }

    fn options(&self) -> *const native::rd_kafka_AdminOptions_t {
        self.options.as_ptr()
    }

    fn queue(&self) -> *mut native::rd_kafka_queue_t {
        self.queue.as_ptr()
    }

    fn answer(&self, within: Duration) -> Result<Event, Unanswered> {
        // SAFETY: the queue is alive; the event is ours from now on.
        let event = unsafe { native::rd_kafka_queue_poll(self.queue(), millis(within + GRACE)) };
        let Some(event) = NonNull::new(event).map(Event) else {
            let code = RDKafkaErrorCode::OperationTimedOut;
            return Err((code, code.to_string()));
        };
        // SAFETY: the event is alive, and so is its text.
        unsafe {
            let code = native::rd_kafka_event_error(event.0.as_ptr());
            match code {
                NO_ERROR => Ok(event),
                code => {
                    let said = text(native::rd_kafka_event_error_string(event.0.as_ptr()));
                    Err((code.into(), said.unwrap_or_default()))
                }
            }
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // SAFETY: both are ours since `new` and destroyed once.
        unsafe {
            native::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
            native::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// An answer of librdkafka.
struct Event(NonNull<native::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours since it was polled, and destroyed once.
        unsafe { native::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

/// SAFETY: `topic` must be of a result that is alive.
unsafe fn described(topic: *const native::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: as the caller promises; all that is read lives as long as the topic.
    unsafe {
        let name = text(native::rd_kafka_TopicDescription_name(topic)).unwrap_or_default();
        if let Some(code) = code_of(native::rd_kafka_TopicDescription_error(topic)) {
            return (name, Err(code));
        }
        let mut count = 0;
        let list = native::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let partitions = list_of(list.cast_const(), count).iter();
        let partitions = partitions.map(|&partition| replicas(partition)).collect();
        let mut count = 0;
        let allowed = native::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        let description = Description {
            partitions,
            operations: operations(allowed, count),
        };
        (name, Ok(description))
    }
}

/// SAFETY: `partition` must be of a result that is alive.
unsafe fn replicas(partition: *const native::rd_kafka_TopicPartitionInfo_t) -> Replicas {
    // SAFETY: as the caller promises; the counts are locals.
    unsafe {
        let (mut all, mut in_sync) = (0, 0);
        native::rd_kafka_TopicPartitionInfo_replicas(partition, &mut all);
        native::rd_kafka_TopicPartitionInfo_isr(partition, &mut in_sync);
        Replicas {
            partition: native::rd_kafka_TopicPartitionInfo_partition(partition),
            all,
            in_sync,
            has_leader: !native::rd_kafka_TopicPartitionInfo_leader(partition).is_null(),
        }
    }
}

/// SAFETY: `list` must be null, or `count` values that live for `'a`.
unsafe fn list_of<'a, T>(list: *const T, count: usize) -> &'a [T] {
    match list.is_null() || count == 0 {
        true => &[],
        // SAFETY: as the caller promises.
        false => unsafe { slice::from_raw_parts(list, count) },
    }
}

/// SAFETY: `list` must be null, or `count` operations that are alive.
unsafe fn operations(
    list: *const native::rd_kafka_AclOperation_t,
    count: usize,
) -> Option<Operations> {
    if list.is_null() {
        return None;
    }
    // Read as numbers: a broker may know operations that the enumeration does not.
    // SAFETY: as the caller promises; an operation is a C enumeration, which is an `int`.
    let numbers = unsafe { list_of(list.cast::<i32>(), count) };
    Some(numbers.iter().filter_map(|&n| operation(n)).collect())
}

fn operation(number: i32) -> Option<Operation> {
    Some(match number {
        3 => Operation::Read,
        4 => Operation::Write,
        5 => Operation::Create,
        6 => Operation::Delete,
        7 => Operation::Alter,
        8 => Operation::Describe,
        10 => Operation::DescribeConfigs,
        11 => Operation::AlterConfigs,
        _ => return None,
    })
}

/// SAFETY: `error` must be null or alive.
unsafe fn code_of(error: *const native::rd_kafka_error_t) -> Option<RDKafkaErrorCode> {
    if error.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let code = unsafe { native::rd_kafka_error_code(error) };
    (code != NO_ERROR).then(|| code.into())
}

/// SAFETY: `text` must be null, or end with a zero and be alive.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| {
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    })
}

fn no_result() -> Unanswered {
    let code = RDKafkaErrorCode::Fail;
    (code, "librdkafka gave no result".into())
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
