//! Files without mistakes and the plans they give.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};

use super::super::check::Overrides;
use super::super::describe;
use super::super::plan::*;
use super::{here, planned, planned_in, runtime, set};
use crate::pipeline;
use crate::source::generate;

const VALID: &str = include_str!("valid.toml");
const SMALL: &str = r#"
name = "small"
[sources.clicks]
file = { path = "clicks.jsonl" }
fields = { user = "string", n = "int?" }
"#;

fn names(schema: &SchemaRef) -> Vec<&str> {
    schema.fields().iter().map(|f| f.name().as_str()).collect()
}

#[test]
fn what_is_not_written_has_its_default() {
    let plan = planned(SMALL);
    assert_eq!(plan.host.state, here("state/small"));
    assert_eq!(plan.host.checkpoint_every, Duration::from_secs(1));
    assert_eq!(plan.host.transaction_timeout, Duration::from_secs(60));
    assert_eq!(plan.host.delivery, Delivery::Default);
    assert_eq!((plan.host.key_groups, plan.host.admin_port), (128, 0));
    assert!(plan.host.workers >= 1);
    assert_eq!(plan.host.metrics, None);
    let written = planned(VALID).host;
    assert_eq!(written.metrics, Some(here("out/metrics.json")));
    assert_eq!(written.transaction_timeout, Duration::from_secs(90));
    let source = &plan.sources[0];
    assert_eq!(source.format, Format::Json);
    assert_eq!(source.bad_records, BadRecords::DeadLetter);
    assert_eq!(source.limit, Limit::default());
    assert!(source.event_time.is_none());
    let DeadLetters::File { path } = &plan.dead_letters else {
        panic!("{:?}", plan.dead_letters);
    };
    assert_eq!(*path, here("state/small/dead-letters.jsonl"));
}

#[test]
fn sources_have_the_columns_and_paths_of_their_fields() {
    let plan = planned(VALID);
    let clicks = &plan.sources[0];
    assert_eq!(
        names(&clicks.schema),
        ["user_id", "product_id", "n", "city", "at"]
    );
    assert_eq!(clicks.paths[3], ["address", "city"]);
    let field = |i: usize| clicks.schema.field(i);
    assert_eq!(
        (field(0).data_type(), field(0).is_nullable()),
        (&DataType::Utf8, false)
    );
    assert_eq!(
        (field(3).data_type(), field(3).is_nullable()),
        (&DataType::Utf8, true)
    );
    let time = clicks.event_time.as_ref().unwrap();
    assert_eq!((time.column, time.lateness), (4, 300_000_000));
    assert_eq!(
        (time.idle_after, time.max_ahead),
        (Duration::from_secs(30), 86_400_000_000)
    );
    assert_eq!(clicks.limit.per_epoch, Some(10_000));
    let purchases = &plan.sources[2];
    assert_eq!(purchases.format, Format::Csv);
    assert_eq!(
        purchases.paths[1],
        ["amount.eur"],
        "a CSV column has one name"
    );
    let SourceConnector::Kafka { start, .. } = &clicks.connector else {
        panic!("{:?}", clicks.connector);
    };
    assert_eq!(*start, Start::At(1_704_067_200_000_000));
}

#[test]
fn a_generator_brings_its_columns() {
    for (kind, text) in [
        (GenerateKind::Clicks, "clicks"),
        (GenerateKind::Transactions, "transactions"),
    ] {
        let plan = planned(&format!(
            "name = \"g\"\n[sources.s]\ngenerate = {{ kind = \"{text}\" }}\n"
        ));
        let (schema, paths, time) = generate::fields(kind);
        let source = &plan.sources[0];
        assert_eq!((&source.schema, &source.paths), (&schema, &paths));
        let found = source.event_time.as_ref().unwrap();
        assert_eq!((found.column, found.lateness), (time, 300_000_000));
    }
}

#[test]
fn steps_stand_after_what_they_read() {
    let plan = planned(VALID);
    let order: Vec<_> = plan.steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(order, ["views", "named", "rest"]);
    assert_eq!(plan.steps[0].inputs, [Input::Source(0)]);
    assert_eq!(plan.steps[1].inputs, [Input::Port { step: 0, port: 0 }]);
    assert!(plan.steps[1].has_event_time && !plan.steps[2].has_event_time);
    let named = &plan.steps[1].ports[0].schema;
    assert_eq!(names(named), ["user_id", "product_id", "name", "category"]);
    assert!(
        named.field(3).is_nullable(),
        "a key that the table lacks gives null"
    );
    assert_eq!(
        names(&plan.steps[2].ports[0].schema),
        ["user_id", "amount.eur", "paid"]
    );
    let Operator::Lookup(lookup) = &plan.steps[1].operator else {
        panic!("{:?}", plan.steps[1].operator);
    };
    assert_eq!((lookup.table, lookup.on, &lookup.add[..]), (0, 1, &[1][..]));
}

#[test]
fn sinks_know_the_columns_of_each_input() {
    let plan = planned(VALID);
    let labels: Vec<_> = plan.sinks[0]
        .inputs
        .iter()
        .map(|i| i.label.as_str())
        .collect();
    assert_eq!(labels, ["named", "views"]);
    let SinkConnector::Kafka { key, topic, .. } = &plan.sinks[0].connector else {
        panic!("{:?}", plan.sinks[0].connector);
    };
    assert_eq!(
        (topic.as_str(), &key[..]),
        ("results", &[vec![0], vec![0]][..])
    );
    let SinkConnector::File { path, existing, .. } = &plan.sinks[1].connector else {
        panic!("{:?}", plan.sinks[1].connector);
    };
    assert_eq!((path, *existing), (&here("rest.jsonl"), Existing::Append));
}

fn clusters(plan: &Plan) -> Vec<&Cluster> {
    let sources = plan.sources.iter().filter_map(|s| match &s.connector {
        SourceConnector::Kafka { cluster, .. } => Some(cluster),
        _ => None,
    });
    sources.collect()
}

#[test]
fn a_connection_that_names_brokers_stands_for_itself() {
    let plan = planned(VALID);
    let found = clusters(&plan);
    assert_eq!(
        found[0].brokers,
        Brokers::At("localhost:9092,[::1]:9093".into())
    );
    assert_eq!(found[0].properties["client.id"], "p");
    assert_eq!(found[1].brokers, Brokers::At("elsewhere:9092".into()));
    assert!(found[1].properties.is_empty(), "not sent to other brokers");
}

#[test]
fn own_properties_go_over_the_common_ones() {
    let text = VALID.replace(
        "on_data_loss = \"stop\" }",
        "properties = { \"client.id\" = \"q\", \"fetch.min.bytes\" = 10 } }",
    );
    let plan = planned(&text);
    let found = &clusters(&plan)[0].properties;
    assert_eq!(
        (
            found["client.id"].as_str(),
            found["fetch.min.bytes"].as_str()
        ),
        ("q", "10")
    );
}

#[test]
fn brokers_of_the_command_line_win_and_the_embedded_one_needs_no_secrets() {
    let text = VALID.replace(
        "\"client.id\" = \"p\"",
        "\"sasl.password\" = \"${env:TIDEMILL_NO_SUCH_VARIABLE}\"",
    );
    let overrides = Overrides {
        brokers: Some("embedded".into()),
        ..Overrides::default()
    };
    let (plan, _) = planned_in(Path::new("/here"), &text, &overrides);
    let found = clusters(&plan);
    assert_eq!(
        (&found[0].brokers, found[0].properties.len()),
        (&Brokers::Embedded, 0)
    );
    assert_eq!(found[1].brokers, Brokers::At("elsewhere:9092".into()));
}

#[test]
fn secrets_are_resolved_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pass"), "hunter2\n").unwrap();
    let text = VALID.replace(
        "\"client.id\" = \"p\"",
        "\"sasl.password\" = \"${file:pass}\", \"sasl.username\" = \"app\", \"sasl.mechanism\" = \"PLAIN\", \
         \"security.protocol\" = \"SASL_SSL\", \"ssl.ca.location\" = \"pass\"",
    );
    let (plan, _) = planned_in(dir.path(), &text, &Overrides::default());
    let properties = &clusters(&plan)[0].properties;
    assert_eq!(properties["sasl.password"], "hunter2");
    let beside = dir.path().join("pass").display().to_string();
    assert_eq!(
        properties["ssl.ca.location"], beside,
        "relative to the pipeline file"
    );
    assert!(!format!("{plan:?}{}", describe(&plan)).contains("hunter2"));
}

#[test]
fn secrets_of_remote_sinks_are_resolved_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pass"), "hunter2\n").unwrap();
    let sinks = "[sinks.hook]\nfrom = \"clicks\"\n\
        webhook = { url = \"https://h/${file:pass}\", headers = { Authorization = \"Bearer ${file:pass}\" } }\n\
        [sinks.table]\nfrom = \"clicks\"\n\
        postgres = { url = \"postgres://app:${file:pass}@db/shop\", table = \"t\", key = [\"user\"] }\n";
    let (plan, _) = planned_in(
        dir.path(),
        &format!("{SMALL}{sinks}"),
        &Overrides::default(),
    );
    let (SinkConnector::Webhook(hook), SinkConnector::Postgres(table)) =
        (&plan.sinks[0].connector, &plan.sinks[1].connector)
    else {
        panic!("{:?}", plan.sinks);
    };
    assert_eq!(hook.url, "https://h/hunter2");
    assert_eq!(hook.headers[0].1, "Bearer hunter2");
    assert_eq!(
        (hook.batch, hook.in_flight, hook.on_reject),
        (100, 1, OnReject::Stop)
    );
    assert_eq!(table.url, "postgres://app:hunter2@db/shop");
    assert_eq!((table.mode, table.create), (WriteMode::Upsert, false));
    assert!(!format!("{plan:?}{}", describe(&plan)).contains("hunter2"));
}

#[test]
fn overrides_set_values_of_every_type() {
    let overrides = set(&[
        ("host.workers", "3"),
        ("host.state", "elsewhere/state"),
        ("host.checkpoint_every", "200ms"),
        ("sources.clicks.limit", "{ per_second = 2.5 }"),
        ("sources.clicks.fields.\"new one\"", "int?"),
        ("steps.big.from", "clicks"),
        ("steps.big.where", "n > 5"),
    ]);
    let (plan, _) = planned_in(Path::new("/here"), SMALL, &overrides);
    assert_eq!(
        (plan.host.workers, &plan.host.state),
        (3, &here("elsewhere/state"))
    );
    assert_eq!(plan.host.checkpoint_every, Duration::from_millis(200));
    assert_eq!(plan.sources[0].limit.per_second, Some(2.5));
    assert_eq!(names(&plan.sources[0].schema), ["user", "n", "new one"]);
    assert_eq!(plan.steps[0].name, "big");
}

#[test]
fn a_wrong_override_is_shown_as_it_was_given() {
    let overrides = set(&[
        ("host.workers", "many"),
        ("steps.big.from", "clicks"),
        ("steps.big.where", "m > 5"),
        ("name.x", "1"),
        ("= 3", "1"),
    ]);
    let (plan, report) = super::check_text(Path::new("/here"), SMALL, &overrides);
    assert!(plan.is_none());
    let text = report.to_string();
    for part in [
        "--> --set:1:14\n",
        "host.workers=many",
        "--> --set:1:17\n",
        "steps.big.where=m > 5",
        "`name` is no table",
        "`= 3` is no path",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn what_does_nothing_is_warned_of() {
    let text = format!(
        "{SMALL}[tables.t]\nfile = {{ path = \"t.csv\" }}\nkey = \"a\"\nfields = {{ a = \"string\" }}\n[steps.idle]\nfrom = \"clicks\"\n"
    );
    let (_, report) = planned_in(Path::new("/here"), &text, &Overrides::default());
    let said: Vec<_> = report.warnings.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(
        said,
        ["no step uses table `t`", "nothing reads step `idle`"]
    );
}

#[test]
fn a_topic_that_is_read_and_written_is_warned_of() {
    let text = VALID.replace("topic = \"results\"", "topic = \"clickstream\"");
    let (_, report) = planned_in(Path::new("/here"), &text, &Overrides::default());
    assert_eq!(report.warnings.len(), 1, "{report}");
    assert!(report.warnings[0].message.contains("both read and written"));
    assert!(report.diagnostics.is_empty());
}

#[test]
fn signatures_do_not_change_with_what_keeps_no_state() {
    let plan = planned(VALID);
    assert_eq!(
        plan.steps[0].signature.to_string(),
        r#"{"operator":"project"}"#
    );
    assert_eq!(
        plan.steps[1].signature.to_string(),
        r#"{"operator":"lookup"}"#
    );
}

#[test]
fn a_plan_in_a_few_lines() {
    let text = describe(&planned(VALID));
    for part in [
        "pipeline everything\n",
        "source clicks: topic clickstream at localhost:9092,[::1]:9093, event time at\n",
        "    user_id string, product_id string?, n int, city string?, at timestamp\n",
        "step views: clicks -> where and select\n",
        "step named: views -> lookup in products\n",
        "sink results: named, views -> topic results at localhost:9092,[::1]:9093\n",
        "sink hook: named -> webhook at https://hooks.example.com, up to 50 rows a request\n",
        "sink table: named, views -> table public.views in database shop at db.example.com, one row for each user_id, step\n",
        "dead letters: file /here/dead.jsonl\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn sinks_that_write_files() {
    let plan = planned(
        "name = \"p\"\n[sources.clicks]\nfile = { path = \"clicks.jsonl\" }\n\
         fields = { kind = \"string?\", n = \"int\" }\n\
         [steps.more]\nfrom = \"clicks\"\nselect = [\"'x' as kind\", \"n\"]\n\
         [sinks.a]\nfrom = [\"clicks\", \"more\"]\n\
         parquet = { dir = \"out\", partition_by = [\"step\", \"kind\"], existing = \"append\" }\n\
         [sinks.b]\nfrom = \"clicks\"\nfile = { dir = \"lines\", roll = \"2h\", roll_bytes = \"100KB\", format = \"csv\" }\n\
         [sinks.c]\nfrom = \"clicks\"\nfile = { path = \"c.csv\" }\n\
         [sinks.d]\nfrom = \"clicks\"\nfile = { path = \"d.txt\", format = \"csv\" }\n",
    );
    let SinkConnector::Parquet {
        dir,
        existing,
        roll,
        partition_by,
    } = &plan.sinks[0].connector
    else {
        panic!("{:?}", plan.sinks[0].connector);
    };
    assert_eq!((dir, *existing), (&here("out"), Existing::Append));
    assert_eq!((roll.every, roll.bytes), (300_000_000, 128 << 20));
    assert_eq!(partition_by, &["step", "kind"]);
    let schema = plan.sinks[0].schema();
    assert_eq!(names(&schema), ["step", "kind", "n"]);
    assert!(schema.field(1).is_nullable(), "it is in one of the inputs");
    let csv = |sink: usize| match &plan.sinks[sink].connector {
        SinkConnector::Files { format, .. } | SinkConnector::File { format, .. } => {
            *format == LineFormat::Csv
        }
        _ => false,
    };
    assert!((1..4).all(csv));
    let text = describe(&plan);
    for line in [
        "sink a: clicks, more -> Parquet files in /here/out, partitioned by step, kind, a new one after 300 s or 128 MB",
        "sink b: clicks -> files in /here/lines, a new one after 7200 s or 100 KB",
        "sink c: clicks -> file /here/c.csv",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
}

#[test]
fn files_that_cannot_be_read_are_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let load = |path: &Path| {
        pipeline::load(path, &Overrides::default())
            .unwrap_err()
            .to_string()
    };
    assert!(load(&path).contains("cannot be read"));
    assert!(load(dir.path()).contains("it is a directory"));
    std::fs::write(&path, b"name = \"p\"\n# \xff\n").unwrap();
    let text = load(&path);
    assert!(
        text.contains("not UTF-8") && text.contains("p.toml:2:3"),
        "{text}"
    );
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(load(&path).contains("1048577 bytes are more than"));
}

#[test]
fn load_then_plan_is_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    std::fs::write(&path, VALID).unwrap();
    let overrides = Overrides::default();
    let runtime: &Arc<_> = runtime();
    let spec = pipeline::load(&path, &overrides).unwrap();
    let plan = pipeline::plan(&spec, runtime).unwrap();
    let (same, warnings) = pipeline::check(&path, &overrides, runtime).unwrap();
    assert_eq!(describe(&plan), describe(&same));
    assert!(warnings.diagnostics.is_empty());
    assert_eq!(plan.host.state, dir.path().join("state/here"));
}
