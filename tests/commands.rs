//! Commands beside `run`, and what a running host takes up by itself.

use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::pauses::{start, until};
use crate::pipelines::sinks;
use crate::support::data::Data;
use crate::support::{Pipeline, binary, plugin, root, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("the_pipeline_of_the_readme_is_right", readme),
        trial("reset_begins_anew", reset),
        trial("inspect_shows_a_plugin_in_its_step", inspect),
        trial("an_order_a_plugin_was_not_written_for_is_refused", order),
        trial("a_table_is_reread_when_its_file_changes", reread),
    ]
}

fn tidemill(arguments: &[&str], file: &Path, more: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .arg(file)
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn readme() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (pipeline, _) = rest.split_once("```").unwrap();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("pipeline.toml");
    std::fs::write(&file, pipeline).unwrap();
    std::fs::copy(plugin("plugins/anomaly"), dir.path().join("anomaly.wasm")).unwrap();
    let output = tidemill(&["check"], &file, &[]);
    assert!(output.status.success(), "{}", said(&output));
}

fn sessions(data: &Data, more: &str) -> Pipeline {
    let text = format!(
        "{}[steps.sessions]\nfrom = \"clicks\"\nkey = [\"user_id\"]\n{more}\n\
         plugin = {{ file = \"{}\", config = {{ timeout = \"30m\" }} }}\n\
         [sinks.sessions]\nfrom = [\"sessions\"]\nfile = {{ path = \"sessions.jsonl\", existing = \"overwrite\" }}\n",
        data.clicks(""),
        plugin("plugins/sessions").display(),
    );
    Pipeline::new(2, &text)
}

fn reset() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 4_000, 31);
    let run = sessions(&data, "");
    run.run();
    let first = run.rows("sessions.jsonl");
    assert!(!first.is_empty());
    let asked = tidemill(&["reset"], &run.file(), &[]);
    assert!(
        asked.status.success() && said(&asked).contains("--yes"),
        "{}",
        said(&asked)
    );
    let again = run.run();
    assert!(
        said(&again).contains("nothing to do"),
        "it was only asked: {}",
        said(&again)
    );

    let done = tidemill(&["reset"], &run.file(), &["--yes"]);
    assert!(done.status.success(), "{}", said(&done));
    run.run();
    let count = |rows: &[serde_json::Value]| rows.len();
    assert_eq!(count(&run.rows("sessions.jsonl")), count(&first));
}

fn inspect() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 100, 32);
    let run = sessions(&data, "");
    let wasm = plugin("plugins/sessions");
    let pipeline = run.file();
    let inside = [
        "--pipeline",
        pipeline.to_str().unwrap(),
        "--step",
        "sessions",
    ];
    let output = tidemill(&["plugin", "inspect"], &wasm, &inside);
    assert!(output.status.success(), "{}", said(&output));
    for shown in [
        "keyed",
        "event-time",
        "product_id",
        "_time",
        "main: new rows of session_start",
        "sha256",
    ] {
        assert!(
            said(&output).contains(shown),
            "{shown} in {}",
            said(&output)
        );
    }
    let elsewhere = ["--pipeline", pipeline.to_str().unwrap(), "--step", "other"];
    let output = tidemill(&["plugin", "inspect"], &wasm, &elsewhere);
    assert!(
        !output.status.success() && said(&output).contains("sessions"),
        "{}",
        said(&output)
    );
}

fn order() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 100, 33);
    let run = sessions(&data, "order = \"arrival\"");
    let output = run.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    for named in [
        "pipeline.toml",
        "written for another order",
        "remove `order`",
    ] {
        assert!(
            said(&output).contains(named),
            "{named} in {}",
            said(&output)
        );
    }
}

fn reread() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 20_000, 34);
    let text = format!(
        "{}{}[steps.enriched]\nfrom = \"transactions\"\n\
         lookup = {{ table = \"products\", on = \"product_id\", add = [\"category\"] }}\n{}",
        data.transactions("limit = { per_second = 500 }"),
        data.products(),
        sinks(&["enriched"]),
    );
    let run = Pipeline::new(2, &text);
    let mut host = start(&run, 500);
    until(&run, |status| {
        status["steps"][0]["rows_out"].as_u64() > Some(100)
    });
    let old = std::fs::read_to_string(&data.products).unwrap();
    let mut lines = old.lines();
    let head = lines.next().unwrap();
    let new: String = lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let category = head.split(',').position(|name| name == "category").unwrap();
            let of = |(i, field): (usize, &&str)| {
                if i == category {
                    "reread".to_owned()
                } else {
                    (*field).to_owned()
                }
            };
            fields
                .iter()
                .enumerate()
                .map(of)
                .collect::<Vec<_>>()
                .join(",")
                + "\n"
        })
        .collect();
    let beside = dir.path().join("products.new");
    std::fs::write(&beside, format!("{head}\n{new}")).unwrap();
    std::fs::rename(&beside, &data.products).unwrap();
    let categories = |run: &Pipeline| -> Vec<bool> {
        run.rows("enriched.jsonl")
            .iter()
            .filter(|row| !row["category"].is_null())
            .map(|row| row["category"] == "reread")
            .collect()
    };
    until(&run, |_| categories(&run).last() == Some(&true));
    host.terminate();
    let all = categories(&run);
    assert!(all.contains(&false), "rows from before");
    assert!(
        all.is_sorted(),
        "a row found the old table after others found the new one"
    );
}
