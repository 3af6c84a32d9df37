//! The load: records with ids, all the time, from one application that writes plainly and one that writes in transactions
//! and aborts some of them.
//!
//! What counts is the input topic as it stands in the end, read by a reader of committed records: a transaction whose
//! outcome its writer never learned is in it or is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::times::time;

/// A broker that was killed a moment ago is back by then.
const PATIENCE: Duration = Duration::from_secs(120);
/// Records of one transaction.
const TRANSACTION: u64 = 40;
/// Every so many transactions one is aborted.
const ABORTED: u64 = 5;
/// Every so many records one is refused.
const POISON: u64 = 997;
/// 2026-01-01T00:00:00Z as [`time`] counts.
const START_MS: i64 = (2026 * 12 * 31) * 86_400_000;

/// What is written, where and how fast.
#[derive(Debug, Clone)]
pub struct Load {
    pub servers: String,
    pub topic: String,
    pub partitions: u32,
    pub keys: u32,
    /// Records a second.
    pub rate: u32,
}

/// A load under way: a thread each for the two applications.
pub struct Running {
    stop: Arc<AtomicBool>,
    plain: JoinHandle<u64>,
    in_transactions: JoinHandle<()>,
}

impl Load {
    pub fn start(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let (load, stopped) = (self.clone(), stop.clone());
        let plain = std::thread::spawn(move || load.write_plainly(&stopped));
        let stopped = stop.clone();
        let in_transactions = std::thread::spawn(move || self.write_in_transactions(&stopped));
        Running {
            stop,
            plain,
            in_transactions,
        }
    }

    fn write_plainly(&self, stop: &AtomicBool) -> u64 {
        let producer: BaseProducer = self.client().create().expect("a producer");
        let mut written = 0;
        self.each(stop, false, &mut |partition, record| {
            write(&producer, &self.topic, partition, record);
            producer.poll(Duration::ZERO);
            written += 1;
        });
        producer.flush(PATIENCE).expect("all records acknowledged");
        written
    }

    fn write_in_transactions(&self, stop: &AtomicBool) {
        let mut transactions = Transactions::new(self);
        self.each(stop, true, &mut |partition, record| {
            transactions.write(self, partition, record);
        });
        transactions.end();
    }

    /// The records of one of the applications, at their times. An id belongs to one of them.
    fn each(&self, stop: &AtomicBool, transactions: bool, each: &mut dyn FnMut(i32, &str)) {
        let began = Instant::now();
        for id in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let partition = (self.key(id) % self.partitions) as i32;
            if self.is_in_transactions(partition) == transactions {
                each(partition, &self.record(id));
            }
            self.keep_pace(id, began);
        }
    }

    /// Whether the records of a partition are written in transactions.
    pub fn is_in_transactions(&self, partition: i32) -> bool {
        self.partitions > 1 && partition == self.partitions as i32 - 1
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            // For ever: what is not written would have to be told from what is.
            .set("message.timeout.ms", "0")
            .set("reconnect.backoff.max.ms", "500");
        config
    }

    /// A key whose neighbours are elsewhere, so that every partition is written to all the time.
    fn key(&self, id: u64) -> u32 {
        (id.wrapping_mul(2_654_435_761) >> 7) as u32 % self.keys
    }

    fn record(&self, id: u64) -> String {
        let amount = match id % POISON {
            0 => "\"?\"".to_owned(),
            _ => (id * 7 % 100).to_string(),
        };
        format!(
            "{{\"id\":{id},\"key\":\"k{}\",\"at\":{},\"amount\":{amount}}}",
            self.key(id),
            time(START_MS + id as i64)
        )
    }

    /// Waits as long as the load is ahead of its rate.
    fn keep_pace(&self, id: u64, began: Instant) {
        let due = Duration::from_secs_f64(id as f64 / f64::from(self.rate));
        if let Some(ahead) = due
            .checked_sub(began.elapsed())
            .filter(|a| a.as_millis() > 4)
        {
            std::thread::sleep(ahead);
        }
    }
}

impl Running {
    /// Ends the load; returns when everything is acknowledged: how many records were written plainly, which must all be
    /// in the topic.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.in_transactions.join().expect("the load ends");
        self.plain.join().expect("the load ends")
    }
}

fn write(producer: &BaseProducer, topic: &str, partition: i32, value: &str) {
    let mut record = BaseRecord::<str, str>::to(topic)
        .partition(partition)
        .payload(value);
    // A full queue empties as soon as the broker is there.
    while let Err((error, back)) = producer.send(record) {
        let full = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
        assert!(full, "the load cannot write: {error}");
        producer.poll(Duration::from_millis(50));
        record = back;
    }
}

/// The application that writes in transactions. Whenever one fails it makes a new producer and goes on with the next
/// record.
struct Transactions {
    config: ClientConfig,
    producer: Option<BaseProducer>,
    in_transaction: u64,
    number: u64,
}

impl Transactions {
    fn new(load: &Load) -> Self {
        let mut config = load.client();
        config
            .remove("message.timeout.ms")
            .set("transactional.id", format!("load-{}", load.topic))
            .set("transaction.timeout.ms", "20000");
        Self {
            config,
            producer: None,
            in_transaction: 0,
            number: 0,
        }
    }

    fn write(&mut self, load: &Load, partition: i32, value: &str) {
        let Some(producer) = self.begun() else { return };
        let record = BaseRecord::<str, str>::to(&load.topic)
            .partition(partition)
            .payload(value);
        let written = producer.send(record).is_ok();
        producer.poll(Duration::ZERO);
        if !written {
            self.producer = None;
            return;
        }
        self.in_transaction += 1;
        if self.in_transaction == TRANSACTION {
            self.end();
        }
    }

    /// The producer, in a transaction; none if the broker is away: the record is then not written.
    fn begun(&mut self) -> Option<&BaseProducer> {
        if self.producer.is_none() {
            let producer: BaseProducer = self.config.create().expect("a producer");
            producer.init_transactions(Duration::from_secs(2)).ok()?;
            self.producer = Some(producer);
            self.in_transaction = 0;
        }
        let producer = self.producer.as_ref()?;
        if self.in_transaction == 0 && producer.begin_transaction().is_err() {
            self.producer = None;
            return None;
        }
        self.producer.as_ref()
    }

    /// Commits, or aborts every now and then.
    fn end(&mut self) {
        self.number += 1;
        let Some(producer) = self.producer.as_ref().filter(|_| self.in_transaction > 0) else {
            return;
        };
        self.in_transaction = 0;
        let within = Duration::from_secs(10);
        let ended = match self.number.is_multiple_of(ABORTED) {
            true => producer.abort_transaction(within),
            false => producer.commit_transaction(within),
        };
        if ended.is_err() {
            self.producer = None;
        }
    }
}
