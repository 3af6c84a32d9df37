//! Readers of committed records: one that reads the output while it is made, and the reading of a whole log.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// No log takes longer to read, even right after its broker came back.
const PATIENCE: Duration = Duration::from_secs(180);

/// What was read of each partition, in order: the offset and a hash of the value.
pub type Seen = HashMap<(String, i32), Vec<(i64, u64)>>;

fn consumer(servers: &str, topics: &[String], partitions: u32) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("group.id", "soak-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .set("reconnect.backoff.max.ms", "500");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut from = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..partitions as i32 {
            from.add_partition_offset(topic, partition, Offset::Beginning)
                .expect("a valid offset");
        }
    }
    consumer.assign(&from).expect("an assignment");
    consumer
}

pub fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Gives every committed record of a topic, partition by partition, to `each` with its partition, offset and value.
pub fn read_log(
    servers: &str,
    topic: &str,
    partitions: u32,
    each: &mut dyn FnMut(i32, i64, &[u8]),
) -> Result<(), String> {
    let consumer = consumer(servers, &[topic.to_owned()], partitions);
    let until = Instant::now() + PATIENCE;
    let mut ended = vec![false; partitions as usize];
    while !ended.iter().all(|ended| *ended) {
        if Instant::now() > until {
            return Err(format!("topic {topic} is not read to its end"));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => each(
                message.partition(),
                message.offset(),
                message.payload().unwrap_or_default(),
            ),
            Some(Err(KafkaError::PartitionEOF(partition))) => ended[partition as usize] = true,
            // librdkafka goes on by itself.
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

/// Reads outputs while they are made.
pub struct Concurrent {
    stop: Arc<AtomicBool>,
    watch: Arc<Mutex<Watch>>,
    thread: JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
    servers: String,
    partitions: u32,
}

/// Waits for the first record of `topic` that was not there at the time it began.
#[derive(Debug, Default)]
struct Watch {
    topic: String,
    /// Ends of the topic's partitions when the watch began.
    from: Vec<i64>,
    began: Option<Instant>,
    took: Option<Duration>,
}

impl Concurrent {
    pub fn start(servers: &str, topics: &[String], partitions: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Arc::new(Mutex::new(Watch::default()));
        let consumer = consumer(servers, topics, partitions);
        let seen = Arc::new(Mutex::new(Seen::new()));
        let (stopped, watched, noted) = (stop.clone(), watch.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let place = (message.topic().to_owned(), message.partition());
                note(&watched, &place, message.offset());
                let value = hash(message.payload().unwrap_or_default());
                let row = (message.offset(), value);
                lock(&noted).entry(place).or_default().push(row);
            }
        });
        Self {
            stop,
            watch,
            thread,
            seen,
            servers: servers.to_owned(),
            partitions,
        }
    }

    /// From now on, the time until a record of `topic` comes that is not there yet.
    pub fn watch(&self, topic: &str) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let from = loop {
            if let Some(ends) = self.committed_ends(topic) {
                break ends;
            }
            if Instant::now() > until {
                return Err(format!("the broker does not tell the ends of {topic}"));
            }
        };
        *self.lock() = Watch {
            topic: topic.to_owned(),
            began: Some(Instant::now()),
            from,
            took: None,
        };
        Ok(())
    }

    /// How long the first new record took since [`watch`](Self::watch), if it came.
    pub fn first_output(&self) -> Option<Duration> {
        self.lock().took
    }

    /// The end of each partition for readers of committed records.
    fn committed_ends(&self, topic: &str) -> Option<Vec<i64>> {
        let asking = consumer(&self.servers, &[], 0);
        let end = |partition| {
            let ends = asking.fetch_watermarks(topic, partition, Duration::from_secs(2));
            ends.ok().map(|(_, end)| end)
        };
        (0..self.partitions as i32).map(end).collect()
    }

    /// Stops once it has come to the end of `log`, or has seen too much; gives what is different, in words.
    pub fn compare_with(self, log: &Seen) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let behind = |seen: &Seen| {
            let rows = |of: &Seen, place| of.get(place).map_or(0, Vec::len);
            log.keys().any(|place| rows(seen, place) < rows(log, place))
        };
        while Instant::now() < until && behind(&lock(&self.seen)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the reader ends");
        differences(&lock(&self.seen), log)
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        lock(&self.watch)
    }
}

/// Where what was seen while it was written is not what is in the log now.
fn differences(seen: &Seen, log: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    for place in seen.keys().chain(log.keys()).collect::<BTreeSet<_>>() {
        let empty = Vec::new();
        let was = seen.get(place).unwrap_or(&empty);
        let is = log.get(place).unwrap_or(&empty);
        if was == is {
            continue;
        }
        let first = was.iter().zip(is).position(|(was, is)| was != is);
        let first = first.unwrap_or(was.len().min(is.len()));
        found.push(format!(
            "topic {} partition {}: record {first} was {:?} to the reader and is {:?} in the log (offset, hash; {} \
             seen, {} there)",
            place.0,
            place.1,
            was.get(first),
            is.get(first),
            was.len(),
            is.len()
        ));
    }
    found
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn note(watch: &Mutex<Watch>, (topic, partition): &(String, i32), offset: i64) {
    let mut watch = lock(watch);
    let Some(began) = watch.began.filter(|_| watch.took.is_none()) else {
        return;
    };
    let from = watch.from.get(*partition as usize).copied();
    if watch.topic == *topic && from.is_some_and(|from| offset >= from) {
        watch.took = Some(began.elapsed());
    }
}
