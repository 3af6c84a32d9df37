//! Several topics in one source, parts of records as columns, topics as tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};
use tidemill::kafka::KafkaTable;
use tidemill::pipeline::plan;
use tidemill::table::{Connect, TableSet};

use super::{PATIENCE, Test, broker};
use crate::support::kafka::Broker;
use crate::support::{Pipeline, assert_same_rows};

pub fn tests() -> Vec<Test> {
    vec![
        ("kafka_several_topics_and_parts_of_records", several_topics),
        (
            "kafka_a_topic_that_appears_keeps_the_numbers",
            appearing_topic,
        ),
        ("kafka_text_values_and_times_of_records", text_values),
        ("kafka_a_table_is_read_before_the_first_record", table_first),
        ("kafka_a_table_follows_its_topic", table_follows),
    ]
}

/// `source` and `more` with a file sink of `from`.
fn pipeline(broker: &Broker, source: &str, more: &str, from: &str) -> Pipeline {
    Pipeline::new(
        2,
        &format!(
            "[kafka]\nbrokers = \"{}\"\n[dead_letters]\nfile = {{ path = \"dead.jsonl\" }}\n[sources.s]\n{source}\n{more}\n\
             [sinks.out]\nfrom = [\"{from}\"]\nfile = {{ path = \"out.jsonl\" }}\n",
            broker.cluster_address()
        ),
    )
}

fn several_topics() {
    let broker = broker();
    let (a, b) = (broker.topic("several-a", 2), broker.topic("several-b", 1));
    broker.produce_keyed(
        &a,
        1,
        "k1",
        &[("trace", Some("x")), ("trace", None)],
        Some("{\"n\":1}"),
    );
    broker.produce_keyed(&b, 0, "k2", &[], Some("{\"n\":2}"));
    broker.produce(&b, 0, [(1_767_225_600_500, Some("{\"n\":3}"))]);
    broker.produce(&b, 0, [(1, Some("broken"))]);
    let run = pipeline(
        broker,
        &format!(
            "kafka = {{ topics = [\"{a}\", \"{b}\"] }}\nfields = {{ _topic = \"string\", n = \"int\", \
             _partition = \"int\", _offset = \"int\", _key = \"string?\", _headers = \"string\", _timestamp = \"timestamp\" }}\n\
             event_time = {{ field = \"_timestamp\" }}"
        ),
        "",
        "s",
    );
    run.run();
    let time = "2026-01-01T00:00:00Z";
    let row = |topic: &str, n: i64, place: (i64, i64), key: Value, headers: &str, at: &str| {
        json!({"_topic": topic, "n": n, "_partition": place.0, "_offset": place.1, "_key": key,
               "_headers": headers, "_timestamp": at})
    };
    assert_same_rows(
        "rows of both topics",
        run.rows("out.jsonl"),
        vec![
            row(&a, 1, (1, 0), json!("k1"), r#"{"trace":["x",null]}"#, time),
            row(&b, 2, (0, 0), json!("k2"), "{}", time),
            row(&b, 3, (0, 1), Value::Null, "{}", "2026-01-01T00:00:00.500Z"),
        ],
    );
    let dead = run.rows("dead.jsonl");
    assert_eq!(dead.len(), 1);
    assert_eq!(
        dead[0]["position"],
        json!({"topic": b, "partition": 0, "offset": 2})
    );
}

fn appearing_topic() {
    let broker = broker();
    let middle = broker.topic("appear-m", 1);
    let stem = middle.trim_start_matches("appear-m").to_owned();
    let number: u32 = stem.rsplit('-').next().unwrap().parse().unwrap();
    let prefix = &stem[..stem.len() - number.to_string().len()];
    let run = pipeline(
        broker,
        &format!(
            "kafka = {{ pattern = \"appear-[a-z]{prefix}[0-9]+\" }}\nfields = {{ n = \"int\", _topic = \"string\" }}"
        ),
        "",
        "s",
    );
    let go_on = || {
        let output = run.command(&["--keep-open"]).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut found: Vec<_> = run
            .rows("out.jsonl")
            .iter()
            .map(|r| r["n"].as_i64().unwrap())
            .collect();
        found.sort_unstable();
        found
    };
    broker.produce(&middle, 0, [(1, Some("{\"n\":1}"))]);
    assert_eq!(go_on(), [1]);
    // By name it comes before the one that is known.
    let first = broker.topic("appear-a", 1);
    broker.topic("no-appear-a", 1);
    broker.produce(
        &first,
        0,
        [(1, Some("{\"n\":10}")), (2, Some("{\"n\":11}"))],
    );
    broker.produce(&middle, 0, [(2, Some("{\"n\":2}"))]);
    assert_eq!(go_on(), [1, 2, 10, 11]);
    broker.produce(&first, 0, [(1, Some("{\"n\":12}"))]);
    broker.produce(&middle, 0, [(2, Some("{\"n\":3}"))]);
    assert_eq!(go_on(), [1, 2, 3, 10, 11, 12]);
}

fn text_values() {
    let broker = broker();
    let topic = broker.topic("text", 1);
    broker.produce(
        &topic,
        0,
        [
            (1_767_225_600_000, Some("first\nof two lines")),
            (2, Some("")),
        ],
    );
    let run = pipeline(
        broker,
        &format!(
            "kafka = {{ topic = \"{topic}\" }}\nformat = \"text\"\nfields = {{ line = \"string\", _offset = \"int\" }}"
        ),
        "",
        "s",
    );
    run.run();
    assert_eq!(
        run.rows("out.jsonl"),
        [
            json!({"line": "first\nof two lines", "_offset": 0}),
            json!({"line": "", "_offset": 1})
        ]
    );
}

fn table_first() {
    let broker = broker();
    let (orders, products) = (broker.topic("orders", 1), broker.topic("products", 3));
    let set = |partition, key: &str, value: Option<&str>| {
        broker.produce_keyed(&products, partition, key, &[], value);
    };
    set(0, "a", Some("{\"id\":\"a\",\"price\":1.5}"));
    set(0, "a", Some("{\"id\":\"a\",\"price\":2.50}"));
    set(0, "a", Some("{\"id\":\"a\",\"price\":\"broken\"}"));
    set(1, "b", Some("{\"id\":\"b\",\"price\":3}"));
    set(1, "b", None);
    set(2, "c", Some("{\"id\":\"c\",\"price\":4}"));
    for id in ["a", "b", "c", "d"] {
        let value = format!("{{\"product\":\"{id}\"}}");
        broker.produce(&orders, 0, [(1, Some(value.as_str()))]);
    }
    let run = pipeline(
        broker,
        &format!("kafka = {{ topic = \"{orders}\" }}\nfields = {{ product = \"string\" }}"),
        &format!(
            "[tables.products]\nkafka = {{ topic = \"{products}\" }}\nkey = \"id\"\n\
             fields = {{ id = \"string\", price = \"decimal(8,2)\" }}\n\
             [steps.priced]\nfrom = \"s\"\nlookup = {{ table = \"products\", on = \"product\", add = [\"price\"], kind = \"inner\" }}"
        ),
        "priced",
    );
    let output = run.run();
    let found: Vec<_> = run
        .rows("out.jsonl")
        .iter()
        .map(|r| {
            (
                r["product"].as_str().unwrap().to_owned(),
                r["price"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [("a".to_owned(), 2.5), ("c".to_owned(), 4.0)]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("table products: the record at partition 0 offset 2"),
        "{said}"
    );
}

fn table_follows() {
    let broker = broker();
    let topic = broker.topic("follow", 2);
    let set = |partition, key: &str, value: Option<&str>| {
        broker.produce_keyed(&topic, partition, key, &[], value);
    };
    set(0, "k1", Some("{\"id\":\"a\",\"name\":\"first\"}"));
    let fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, false),
    ];
    let table = plan::Table {
        name: "names".into(),
        connector: plan::TableConnector::Kafka {
            cluster: broker.cluster(),
            topic: topic.clone(),
        },
        format: plan::Format::Json,
        key: 0,
        schema: Arc::new(Schema::new(fields)),
        paths: vec![vec!["id".into()], vec!["name".into()]],
    };
    let connect: Arc<Connect> = Arc::new(|table, stop| {
        let plan::TableConnector::Kafka { cluster, topic } = &table.connector else {
            unreachable!("the test has one table")
        };
        Ok(Box::new(KafkaTable::open(
            &table.name,
            "test",
            cluster,
            topic,
            stop,
        )?))
    });
    let tables = TableSet::open(&[table], &connect, &|| false).unwrap();
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let names = || {
        let snapshot = tables.snapshot(0);
        let found = snapshot.gather(1, &snapshot.probe(&keys).unwrap());
        let names: Vec<_> = found
            .as_string::<i32>()
            .iter()
            .map(|n| n.map(str::to_owned))
            .collect();
        names
    };
    let wait_for = |expected: [Option<&str>; 2]| {
        let until = Instant::now() + PATIENCE;
        while names().iter().map(Option::as_deref).ne(expected) {
            assert!(Instant::now() < until, "{:?}", names());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(names(), [Some("first".to_owned()), None]);
    let before = tables.snapshot(0);
    set(1, "k2", Some("{\"id\":\"b\",\"name\":\"second\"}"));
    set(0, "k1", Some("{\"id\":\"a\",\"name\":\"changed\"}"));
    wait_for([Some("changed"), Some("second")]);
    set(1, "k2", None);
    set(0, "k1", Some("nonsense"));
    wait_for([Some("changed"), None]);
    assert_eq!(
        before.rows().num_rows(),
        1,
        "a snapshot taken stays as it was"
    );
    let until = Instant::now() + PATIENCE;
    while tables.counts()[0].2 == 0 {
        assert!(Instant::now() < until, "the broken record is counted");
        std::thread::sleep(Duration::from_millis(20));
    }
    let began = Instant::now();
    drop(tables);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the thread ends with its table"
    );
}
