//! `state list` and `state get` of a running pipeline and of a stopped one.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Host, SLOW, refused, succeed};
use crate::support::data::Data;
use crate::support::{Pipeline, plugin, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial("state_is_listed_and_found_by_key", looking)]
}

fn pipeline(data: &Data) -> Pipeline {
    let steps = format!(
        "[steps.anomalies]\nfrom = \"transactions\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\", config = {{ threshold = 3.0, min_count = 5 }} }}\n\
         [steps.sessions]\nfrom = \"clicks\"\nkey = [\"user_id\"]\nplugin = {{ file = \"{}\", config = {{ timeout = \"10m\", end_on = [], converted_by = [\"add_to_cart\"] }} }}\n\
         [steps.visits]\nfrom = \"clicks\"\nkey = [\"user_id\"]\nwindow = {{ session = \"10m\" }}\naggregate = {{ n = \"count(*)\" }}\n\
         [steps.views]\nfrom = \"clicks\"\nkey = [\"product_id\"]\nwindow = {{ tumbling = \"1m\" }}\naggregate = {{ n = \"count(*)\" }}\n\
         [steps.once]\nfrom = \"clicks\"\ndeduplicate = {{ on = [\"user_id\", \"action\"], within = \"60m\" }}\n\
         [sinks.out]\nfrom = [\"anomalies\", \"sessions\", \"visits\", \"views\", \"once\"]\nfile = {{ path = \"out.jsonl\" }}\n",
        plugin("plugins/anomaly").display(),
        plugin("plugins/sessions").display(),
    );
    Pipeline::new(2, &(data.clicks(SLOW) + &data.transactions(SLOW) + &steps))
}

fn looking() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, 17);
    let run = pipeline(&data);
    let mut host = Host::start(&run);
    host.wait_for_checkpoint(&run, 20);
    look(&run);
    host.kill();
    let at = |run: &Pipeline| {
        json_of(&succeed(run, &["state", "list"], &["--json"]))["checkpoint"].clone()
    };
    let checkpoint = at(&run);
    look(&run);
    // To look changes nothing.
    assert_eq!(at(&run), checkpoint);
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn look(run: &Pipeline) {
    let steps = json_of(&succeed(run, &["state", "list"], &["--json"]));
    let names: Vec<&str> = steps["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["anomalies", "once", "sessions", "views", "visits"]);
    let words = succeed(run, &["state", "list"], &[]);
    for part in [
        "its open sessions",
        "the keys that it has seen",
        "user_id string, action string",
        "plugin",
    ] {
        assert!(words.contains(part), "{words}");
    }

    let listing = json_of(&succeed(
        run,
        &["state", "list"],
        &[].into_iter()
            .chain(["anomalies", "--json"])
            .collect::<Vec<_>>(),
    ));
    assert_eq!(
        listing["key"],
        json!([{ "name": "user_id", "type": "string" }])
    );
    let first = &listing["entries"][0];
    let user = first["key"][0].as_str().unwrap();
    // A fixed layout: count, mean and sum of squares, each as integer and float.
    assert_eq!(first["state"].as_array().unwrap().len(), 3, "{first}");
    assert!(first["state"][0]["int"].as_i64().unwrap() > 0, "{first}");
    assert!(
        first["state"][1]["float"].as_f64().unwrap() > 1.0,
        "{first}"
    );
    let found = json_of(&succeed(
        run,
        &["state", "get"],
        &["anomalies", user, "--json"],
    ));
    assert_eq!(found["entry"]["key"], json!([user]));
    let words = succeed(run, &["state", "get"], &["anomalies", user]);
    assert!(
        words.contains("user_id string") && words.contains(user),
        "{words}"
    );

    let cut = succeed(run, &["state", "list"], &["anomalies", "--limit", "2"]);
    assert!(
        cut.contains("more keys: the first 2 are shown, --limit shows more"),
        "{cut}"
    );
    let prefix = json_of(&succeed(
        run,
        &["state", "list"],
        &["anomalies", "--prefix", &user[..2], "--json"],
    ));
    let keys = prefix["entries"].as_array().unwrap();
    assert!(!keys.is_empty());
    assert!(
        keys.iter()
            .all(|e| e["key"][0].as_str().unwrap().starts_with(&user[..2])),
        "{prefix}"
    );

    // A document of MessagePack, with an alarm; sessions with their bounds; a pair of columns as key.
    let sessions = json_of(&succeed(run, &["state", "list"], &["sessions", "--json"]));
    let session = &sessions["entries"][0];
    assert!(
        session["alarm"].as_str().unwrap().ends_with('Z'),
        "{session}"
    );
    assert!(
        session["state"].is_object() || session["state"].is_array(),
        "{session}"
    );
    assert!(session["state"].get("bytes").is_none(), "{session}");
    let visits = json_of(&succeed(run, &["state", "list"], &["visits", "--json"]));
    assert!(
        visits["entries"][0]["state"][0]["start"].is_string(),
        "{visits}"
    );
    let once = json_of(&succeed(
        run,
        &["state", "list"],
        &["once", "--limit", "1", "--json"],
    ));
    let key = once["entries"][0]["key"].to_string();
    let found = json_of(&succeed(run, &["state", "get"], &["once", &key, "--json"]));
    assert!(found["entry"]["state"]["passed"].is_string(), "{found}");
    let views = succeed(run, &["state", "list"], &["views"]);
    assert!(
        views.contains("segment of") && views.contains("key groups"),
        "{views}"
    );

    for (more, part) in [
        (
            &["anomalies", "nobody"][..],
            "no key [\"nobody\"] in the state of checkpoint",
        ),
        (
            &["anomaly", "u1"],
            "there is no step anomaly; steps that keep something are anomalies, once, sessions, views, visits",
        ),
        (
            &["once", "u1"],
            "one value for 2 key columns; its key is (user_id string, action string), written as JSON: '[\"text\", \"text\"]'",
        ),
        (
            &["views", "p1"],
            "it keeps its open windows in segments, which are not found by key",
        ),
    ] {
        let said = refused(run, &["state", "get"], more, 1);
        assert!(said.contains(part), "{said}");
    }
}
