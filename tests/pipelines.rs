//! File to file with every plugin: against oracles, over workers and epoch sizes, and in scheduled pieces.

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::data::Data;
use crate::support::{Pipeline, assert_same_order, assert_same_rows, oracle, plugin, trial};

const SEED: u64 = 20_260_101;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "plugins_agree_with_their_oracles_for_any_workers_and_epochs",
            any_workers_and_epochs,
        ),
        trial("sessions_end_on_actions", sessions_end_on_actions),
        trial("expressions_filter_and_project", expressions),
        trial(
            "a_finished_run_has_nothing_to_do_and_takes_nothing_new",
            finished,
        ),
        trial("keep_open_goes_on_where_it_stopped", keep_open),
        trial("several_inputs_of_a_sink_are_told_apart", several_inputs),
    ]
}

/// Sources and steps of all three plugins; `more` goes into both sources.
pub fn all_plugins(data: &Data, more: &str, end_on: &str) -> String {
    format!(
        "{}{}{}\
         [steps.enriched]\nfrom = \"transactions\"\nplugin = {{ file = \"{}\", config = {{ table = \"products\", high_value = 250.0 }} }}\n\
         [steps.anomalies]\nfrom = \"transactions\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\", config = {{ threshold = 3.0, min_count = 5 }} }}\n\
         [steps.sessions]\nfrom = \"clicks\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\", config = {{ timeout = \"10m\", end_on = [{end_on}], converted_by = [\"add_to_cart\"] }} }}\n{}",
        data.clicks(more),
        data.transactions(more),
        data.products(),
        plugin("plugins/enrich").display(),
        plugin("plugins/anomaly").display(),
        plugin("plugins/sessions").display(),
        sinks(&["enriched", "enriched.alerts", "anomalies", "sessions"]),
    )
}

/// A file sink a step, `{dir}/STEP.jsonl`.
pub fn sinks(steps: &[&str]) -> String {
    let sink = |(i, s): (usize, &&str)| {
        format!("[sinks.out{i}]\nfrom = [\"{s}\"]\nfile = {{ path = \"{{dir}}/{s}.jsonl\" }}\n")
    };
    steps.iter().enumerate().map(sink).collect()
}

/// The outputs of [`all_plugins`] are those of the oracles.
pub fn assert_all_plugins(run: &Pipeline, data: &Data, label: &str) {
    let what = |s: &str| format!("{s}, {label}, seed {}", data.seed);
    let enriched = oracle::enriched(&data.transactions, &data.products);
    let alerts: Vec<Value> = enriched
        .iter()
        .filter(|r| r["high_value"] == true)
        .cloned()
        .collect();
    assert!(!alerts.is_empty(), "the data hold no alert to compare");
    assert_same_rows(&what("enriched"), run.rows("enriched.jsonl"), enriched);
    assert_same_rows(&what("alerts"), run.rows("enriched.alerts.jsonl"), alerts);
    let anomalies = oracle::anomalies(&data.transactions);
    assert!(!anomalies.is_empty(), "the data hold no anomaly to compare");
    assert_same_rows(&what("anomalies"), run.rows("anomalies.jsonl"), anomalies);
    assert_same_rows(
        &what("sessions"),
        run.rows("sessions.jsonl"),
        oracle::sessions(&data.clicks, &[]),
    );
}

fn any_workers_and_epochs() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 12_000, SEED);
    let mut first: Option<Vec<Value>> = None;
    for (workers, per_epoch) in [(1, 16_000), (1, 37), (2, 1_000), (3, 199), (4, 5_000)] {
        let limit = format!("limit = {{ per_epoch = {per_epoch} }}");
        let run = Pipeline::new(workers, &all_plugins(&data, &limit, ""));
        run.run();
        assert_all_plugins(
            &run,
            &data,
            &format!("{workers} workers, {per_epoch} records an epoch"),
        );
        let anomalies = run.rows("anomalies.jsonl");
        assert_same_order(
            "user_id",
            &anomalies,
            first.get_or_insert(anomalies.clone()),
        );
    }
}

fn sessions_end_on_actions() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 12_000, SEED + 1);
    for workers in [1, 3] {
        let run = Pipeline::new(workers, &all_plugins(&data, "", "\"logout\""));
        run.run();
        assert_same_rows(
            "sessions",
            run.rows("sessions.jsonl"),
            oracle::sessions(&data.clicks, &["logout"]),
        );
    }
}

fn expressions() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 4_000, SEED + 2);
    let run = Pipeline::new(
        2,
        &format!(
            "{}[steps.big]\nfrom = \"transactions\"\nwhere = \"amount > 40 and quantity >= 2\"\n\
             select = [\"transaction_id\", \"upper(user_id) as who\", \"amount * quantity as total\"]\n{}",
            data.transactions(""),
            sinks(&["big"])
        ),
    );
    run.run();
    let expected = crate::support::read_rows(&data.transactions)
        .iter()
        .filter(|x| {
            x["amount"].as_f64().unwrap() > 40.0 && x["quantity"].as_i64().is_some_and(|q| q >= 2)
        })
        .map(|x| {
            serde_json::json!({
                "transaction_id": x["transaction_id"],
                "who": x["user_id"].as_str().unwrap().to_uppercase(),
                "total": x["amount"].as_f64().unwrap() * x["quantity"].as_f64().unwrap(),
            })
        })
        .collect();
    assert_same_rows("big", run.rows("big.jsonl"), expected);
}

fn finished() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, SEED + 3);
    let run = Pipeline::new(2, &all_plugins(&data, "", ""));
    run.run();
    let before = run.rows("sessions.jsonl");
    run.run();
    assert_eq!(
        run.rows("sessions.jsonl"),
        before,
        "a second run did something"
    );
    let mut more = std::fs::read_to_string(&data.clicks).unwrap();
    let again = more.lines().next().unwrap().to_owned();
    more.push_str(&again);
    std::fs::write(&data.clicks, more + "\n").unwrap();
    let refused = run.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("reset"),
        "{said}"
    );
    assert_eq!(run.rows("sessions.jsonl"), before);
}

fn keep_open() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 4_000, SEED + 4);
    let whole = std::fs::read_to_string(&data.clicks).unwrap();
    let half = whole.len() / 2 + whole[whole.len() / 2..].find('\n').unwrap() + 1;
    let run = Pipeline::new(2, &all_plugins(&data, "", ""));
    std::fs::write(&data.clicks, &whole[..half]).unwrap();
    let first = run.command(&["--keep-open"]).output().unwrap();
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    std::fs::write(&data.clicks, &whole).unwrap();
    run.run();
    assert_all_plugins(&run, &data, "in two pieces");
}

fn several_inputs() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, SEED + 5);
    let run = Pipeline::new(
        1,
        &format!(
            "{}[steps.small]\nfrom = \"transactions\"\nwhere = \"amount <= 40\"\nselect = [\"transaction_id\"]\n\
             [steps.large]\nfrom = \"transactions\"\nwhere = \"amount > 40\"\nselect = [\"transaction_id\"]\n\
             [sinks.out]\nfrom = [\"small\", \"large\"]\nfile = {{ path = \"{{dir}}/out.jsonl\" }}\n",
            data.transactions("")
        ),
    );
    run.run();
    let expected = crate::support::read_rows(&data.transactions)
        .iter()
        .map(|x| {
            let step = if x["amount"].as_f64().unwrap() > 40.0 {
                "large"
            } else {
                "small"
            };
            serde_json::json!({ "step": step, "transaction_id": x["transaction_id"] })
        })
        .collect();
    assert_same_rows("out", run.rows("out.jsonl"), expected);
}
