//! What a record costs on its way from and to a real Apache Kafka, in our thread and in librdkafka's.
//!
//! `cargo bench --bench kafka`. Takes the broker that the tests take: its own, through Java and Maven, or the one that
//! `TIDEMILL_KAFKA=host:port` names. CPU time of this process alone; the broker's is not in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidemill::kafka::{KafkaSource, TopicProducer};
use tidemill::pipeline::plan::Start;
use tidemill::source::Source;

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;

use support::kafka::{self, Broker};

const RECORDS: u64 = 1_000_000;
/// As long as a click of the generator.
const RECORD_BYTES: usize = 168;
const PARTITIONS: u32 = 4;
/// Records asked for at once, as an epoch does.
const BATCH: usize = 16_384;

fn main() {
    if let Err(reason) = kafka::available() {
        println!("not measured: {reason}");
        return;
    }
    let broker = Broker::get().unwrap_or_else(|reason| panic!("{reason}"));
    let topic = broker.topic("bench", PARTITIONS);
    println!("{RECORDS} records of {RECORD_BYTES} bytes, {PARTITIONS} partitions");
    println!("       | ns a record: our thread  librdkafka's threads | records/s");
    measure("write", || write(broker, &topic));
    measure("read", || read(broker, &topic));
}

fn write(broker: &Broker, topic: &str) {
    let sink = TopicProducer::open("bench", &broker.cluster(), topic).expect("a producer");
    let record = [b'x'; RECORD_BYTES];
    for number in 0..RECORDS {
        let key = (number % 10_000).to_le_bytes();
        sink.send(Some(&key), &record).expect("a broker");
    }
    sink.sync(sink.barrier()).expect("acknowledgements");
}

fn read(broker: &Broker, topic: &str) {
    let source = KafkaSource::new("clicks", "bench", &broker.cluster(), topic, Start::Earliest);
    let partitions = source
        .partitions(&BTreeMap::new(), &BTreeMap::new(), true, &|| false)
        .expect("partitions");
    let mut reader = source.reader(partitions).expect("a reader");
    let (mut records, mut bytes) = (0, 0);
    while !reader.progress().iter().all(|p| p.finished) {
        let each = &mut |record: tidemill::source::Record<'_>| {
            records += 1;
            bytes += record.value.map_or(0, <[u8]>::len);
        };
        reader
            .poll(BATCH, Duration::from_millis(5), each)
            .expect("a broker");
    }
    assert_eq!((records, bytes), (RECORDS, RECORDS as usize * RECORD_BYTES));
}

fn measure(what: &str, work: impl FnOnce()) {
    let (wall, ours, all) = (
        Instant::now(),
        cpu(libc::RUSAGE_THREAD),
        cpu(libc::RUSAGE_SELF),
    );
    work();
    let ours = cpu(libc::RUSAGE_THREAD) - ours;
    let all = cpu(libc::RUSAGE_SELF) - all;
    let each = |seconds: f64| seconds * 1e9 / RECORDS as f64;
    println!(
        "{what:>6} | {:>23.0} {:>21.0} | {:>9.0}",
        each(ours),
        each(all - ours),
        RECORDS as f64 / wall.elapsed().as_secs_f64()
    );
}

/// CPU seconds of the calling thread or of the process.
fn cpu(who: i32) -> f64 {
    // SAFETY: all-zero bytes are a valid rusage, which getrusage fills.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
