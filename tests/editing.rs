//! Pipelines whose file is edited between two runs, or whose sources are moved: what goes on, what begins anew, what is
//! refused.

use std::process::Output;

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::data::Data;
use crate::support::{Pipeline, assert_same_rows, binary, plugin, plugin_variant, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("state_moves_to_other_workers", other_workers),
        trial(
            "an_edit_that_loses_state_is_refused_until_it_is_allowed",
            refused_edits,
        ),
        trial("other_key_groups_are_refused", key_groups),
        trial(
            "a_source_that_comes_back_goes_on_where_it_stood",
            removed_source,
        ),
        trial(
            "a_sink_that_comes_back_goes_on_behind_what_it_wrote",
            removed_sink,
        ),
        trial("a_changed_plugin_file_may_begin_anew", changed_plugin),
        trial("reset_to_reads_again_what_it_says", reset_to),
        trial("a_running_host_keeps_its_positions", reset_while_running),
        trial("check_draws_and_explains", drawn),
        trial("metrics_are_a_file", metrics),
    ]
}

const SEED: u64 = 57;

/// Every operator with state, over both sources.
fn steps() -> &'static str {
    "[steps.once]\nfrom = \"clicks\"\ndeduplicate = { on = [\"user_id\", \"action\"], within = \"10m\" }\n\
     [steps.views]\nfrom = \"clicks\"\nkey = [\"action\"]\nwindow = { sliding = \"10m\", every = \"5m\" }\n\
     aggregate = { rows = \"count(*)\", users = \"count(distinct user_id)\" }\ntop = { n = 3, by = \"rows desc, action\" }\n\
     [steps.visits]\nfrom = \"clicks\"\nkey = [\"user_id\"]\nwindow = { session = \"10m\" }\naggregate = { rows = \"count(*)\" }\n\
     [steps.bought]\njoin = { left = \"clicks\", right = \"transactions\", on = [\"user_id\"], after = \"5m\" }\n\
     select = [\"left.event_id\", \"right.transaction_id\"]\n\
     [steps.big]\nfrom = \"transactions\"\nwhere = \"amount > 10\"\n"
}

const NAMES: [&str; 5] = ["once", "views", "visits", "bought", "big"];

fn text(data: &Data) -> String {
    let sinks = crate::pipelines::sinks(&NAMES);
    format!(
        "{}{}{}{sinks}",
        data.clicks(""),
        data.transactions(""),
        steps()
    )
}

/// The first half of both files, as whole lines; returns the whole.
fn halve(data: &Data) -> [String; 2] {
    [&data.clicks, &data.transactions].map(|path| {
        let whole = std::fs::read_to_string(path).unwrap();
        let half = whole.len() / 2;
        let half = half + whole[half..].find('\n').unwrap() + 1;
        std::fs::write(path, &whole[..half]).unwrap();
        whole
    })
}

fn restore(data: &Data, whole: &[String; 2]) {
    std::fs::write(&data.clicks, &whole[0]).unwrap();
    std::fs::write(&data.transactions, &whole[1]).unwrap();
}

fn succeeds(run: &Pipeline, more: &[&str]) {
    let output = run.command(more).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn edit(run: &Pipeline, from: &str, to: &str) {
    let text = std::fs::read_to_string(run.file()).unwrap();
    assert!(text.contains(from), "`{from}` is not in\n{text}");
    std::fs::write(run.file(), text.replacen(from, to, 1)).unwrap();
}

fn tidemill(command: &str, run: &Pipeline, more: &[&str]) -> Output {
    let mut process = std::process::Command::new(binary());
    process
        .arg(command)
        .arg(run.file())
        .args(more)
        .output()
        .unwrap()
}

fn assert_same(run: &Pipeline, other: &Pipeline, names: &[&str]) {
    for name in names {
        let file = format!("{name}.jsonl");
        let expected = other.rows(&file);
        assert!(!expected.is_empty(), "{name} has no rows to compare");
        assert_same_rows(&format!("{name}, seed {SEED}"), run.rows(&file), expected);
    }
}

/// The state of a file of two halves is read back by 1, 2, 3 and 5 workers.
fn other_workers() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 6_000, SEED);
    let undisturbed = Pipeline::new(2, &text(&data));
    undisturbed.run();
    for (first, second) in [(1, 3), (3, 1), (2, 5)] {
        let whole = halve(&data);
        let run = Pipeline::new(first, &text(&data));
        succeeds(&run, &["--keep-open"]);
        restore(&data, &whole);
        edit(
            &run,
            &format!("workers = {first}"),
            &format!("workers = {second}"),
        );
        run.run();
        assert_same(&run, &undisturbed, &NAMES);
    }
}

fn refused_edits() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, SEED + 1);
    let undisturbed = Pipeline::new(1, &text(&data));
    undisturbed.run();
    let whole = halve(&data);
    let run = Pipeline::new(1, &text(&data));
    succeeds(&run, &["--keep-open"]);
    restore(&data, &whole);
    // A key changes, a step goes, one is renamed and all that stays moves to other places of the file.
    edit(
        &run,
        "key = [\"user_id\"]\nwindow",
        "key = [\"action\"]\nwindow",
    );
    edit(&run, "[steps.once]", "[steps.first]");
    edit(&run, "\"once\"", "\"first\"");
    let written = run.rows("big.jsonl");
    let output = run.command(&[]).output().unwrap();
    let refusal = said(&output);
    assert_eq!(output.status.code(), Some(2), "{refusal}");
    for part in [
        "step visits: `key` was [\"user_id\"], is [\"action\"]",
        "--drop-state visits",
        "step once: it is no longer in the file",
        "step first is new and just like it",
        "--drop-state once",
    ] {
        assert!(refusal.contains(part), "no {part:?} in\n{refusal}");
    }
    assert_eq!(run.rows("big.jsonl"), written, "nothing was started");
    let one = run.command(&["--drop-state", "once"]).output().unwrap();
    assert_eq!(one.status.code(), Some(2), "{}", said(&one));
    succeeds(&run, &["--drop-state", "once", "--drop-state", "visits"]);
    assert_same(&run, &undisturbed, &["views", "bought", "big"]);
    assert!(!run.rows("once.jsonl").is_empty());

    // It has run to the end: an edit now is told, not passed over in silence.
    edit(
        &run,
        "sliding = \"10m\", every = \"5m\"",
        "tumbling = \"10m\"",
    );
    let output = run.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = said(&output);
    assert!(
        text.contains("step views") && text.contains("reset"),
        "{text}"
    );
}

fn key_groups() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 400, SEED);
    let run = Pipeline::new(1, &text(&data));
    succeeds(&run, &["--keep-open"]);
    let output = run
        .command(&["--set", "host.key_groups=64"])
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in ["key_groups = 128", "64", "reset"] {
        assert!(text.contains(part), "{text}");
    }
}

/// Without the source `transactions`, then with it again.
fn removed_source() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, SEED + 2);
    let clicks = format!(
        "{}[steps.all]\nfrom = \"clicks\"\nselect = [\"event_id\"]\n[sinks.all]\nfrom = [\"all\"]\nfile = {{ path = \"all.jsonl\" }}\n",
        data.clicks("")
    );
    let both = format!(
        "{clicks}{}[steps.bought]\nfrom = \"transactions\"\nselect = [\"transaction_id\"]\n\
         [sinks.bought]\nfrom = [\"bought\"]\nfile = {{ path = \"bought.jsonl\" }}\n",
        data.transactions("")
    );
    let undisturbed = Pipeline::new(1, &both);
    undisturbed.run();
    let whole = halve(&data);
    let run = Pipeline::new(1, &both);
    let with_both = std::fs::read_to_string(run.file()).unwrap();
    succeeds(&run, &["--keep-open"]);
    let (head, _) = with_both.split_once("[sources.transactions]").unwrap();
    std::fs::write(run.file(), head).unwrap();
    restore(&data, &whole);
    succeeds(&run, &["--keep-open"]);
    std::fs::write(run.file(), with_both).unwrap();
    run.run();
    assert_same(&run, &undisturbed, &["all", "bought"]);

    // The same name for something else.
    let other = dir.path().join("other.jsonl");
    std::fs::copy(&data.clicks, &other).unwrap();
    edit(&run, "clicks.jsonl", "other.jsonl");
    let output = run.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = said(&output);
    assert!(
        text.contains("source clicks read file clicks.jsonl"),
        "{text}"
    );
}

fn removed_sink() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, SEED + 3);
    let undisturbed = Pipeline::new(1, &text(&data));
    undisturbed.run();
    let whole = halve(&data);
    let run = Pipeline::new(1, &text(&data));
    let file = std::fs::read_to_string(run.file()).unwrap();
    succeeds(&run, &["--keep-open"]);
    let before = run.rows("big.jsonl");
    let (head, _) = file.split_once("[sinks.out4]").unwrap();
    std::fs::write(run.file(), head).unwrap();
    succeeds(&run, &["--keep-open"]);
    assert_eq!(run.rows("big.jsonl"), before, "what it wrote stays");
    std::fs::write(run.file(), file).unwrap();
    restore(&data, &whole);
    run.run();
    assert_same(&run, &undisturbed, &NAMES);
}

/// A file that fits goes on with the state; named by `--drop-state` it begins anew, once.
fn changed_plugin() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, SEED + 5);
    let whole = std::fs::read_to_string(&data.transactions).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let show = |n: usize| std::fs::write(&data.transactions, lines[..n].join("\n") + "\n").unwrap();
    let run = Pipeline::new(
        1,
        &format!(
            "{}[steps.all]\nfrom = \"transactions\"\nselect = [\"amount\", \"'all' as k\"]\n\
             [steps.stamped]\nfrom = \"all\"\nkey = [\"k\"]\nplugin = {{ file = \"stamp.wasm\", config = {{}} }}\n{}",
            data.transactions(""),
            crate::pipelines::sinks(&["stamped"])
        ),
    );
    let file = run.dir.path().join("stamp.wasm");
    let guest = "tests/guests/stamp";
    std::fs::copy(plugin(guest), &file).unwrap();
    show(100);
    succeeds(&run, &["--keep-open"]);
    std::fs::copy(plugin_variant(guest, &[("STAMP", "two")]), &file).unwrap();
    show(200);
    succeeds(&run, &["--keep-open"]);
    std::fs::copy(plugin(guest), &file).unwrap();
    show(300);
    succeeds(&run, &["--keep-open", "--drop-state", "stamped"]);
    show(400);
    succeeds(&run, &["--keep-open", "--drop-state", "stamped"]);
    let rows = run.rows("stamped.jsonl");
    let seen = |i: usize| {
        (
            rows[i]["version"].as_str().unwrap(),
            rows[i]["seen"].as_i64().unwrap(),
        )
    };
    assert_eq!(rows.len(), 400);
    assert_eq!((seen(99), seen(100)), (("one", 100), ("two", 101)));
    assert_eq!((seen(199), seen(200)), (("two", 200), ("one", 1)));
    assert_eq!(seen(399), ("one", 200), "it had not changed again");
}

fn reset_to() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, SEED + 4);
    let run = Pipeline::new(2, &text(&data));
    edit(
        &run,
        "/big.jsonl\"",
        "/big.jsonl\", existing = \"overwrite\"",
    );
    run.run();
    let first: Vec<Vec<Value>> = NAMES.map(|n| run.rows(&format!("{n}.jsonl"))).into();

    let asked = tidemill("reset", &run, &["--to", "earliest"]);
    let text = said(&asked);
    assert!(asked.status.success(), "{text}");
    for part in [
        "clicks",
        "are read again",
        "views: its open windows",
        "visits: its open sessions",
        "bought: the rows that wait for their match",
        "once: the keys that it has seen",
        "out0 (file ",
        "goes on behind what is there",
        "out4 (file ",
        "begins anew with the next run",
        "nothing was changed; run again with --yes",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(
        said(&run.run()).contains("nothing to do"),
        "it was only asked"
    );

    let done = tidemill("reset", &run, &["--to", "earliest", "--yes"]);
    assert!(done.status.success(), "{}", said(&done));
    run.run();
    for (name, first) in NAMES.iter().zip(&first) {
        let twice = match *name {
            "big" => first.clone(),
            _ => [&first[..], &first[..]].concat(),
        };
        assert_same_rows(name, run.rows(&format!("{name}.jsonl")), twice);
    }

    let offsets = run.dir.path().join("offsets.json");
    std::fs::write(
        &offsets,
        "{ \"clicks\": { \"0\": 17 }, \"klicks\": { \"0\": 1 } }",
    )
    .unwrap();
    let refused = tidemill("reset", &run, &["--to", offsets.to_str().unwrap(), "--yes"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("klicks"), "{}", said(&refused));
    std::fs::write(&offsets, "{ \"transactions\": { \"0\": 0 } }").unwrap();
    let asked = tidemill("reset", &run, &["--to", offsets.to_str().unwrap()]);
    let text = said(&asked);
    assert!(text.contains("clicks stays where it is"), "{text}");
}

fn reset_while_running() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 40_000, SEED);
    let text = text(&data).replace(
        "lateness = \"5m\" }\n",
        "lateness = \"5m\" }\nlimit = { per_second = 100 }\n",
    );
    let run = Pipeline::new(1, &text);
    let mut host = run.command(&[]).spawn().unwrap();
    let started = std::time::Instant::now();
    while !run.dir.path().join("state/admin-address").exists() {
        assert!(started.elapsed().as_secs() < 60, "the host does not start");
        std::thread::yield_now();
    }
    let outputs = [
        &["--to", "earliest"][..],
        &["--to", "earliest", "--yes"],
        &["--yes"],
    ]
    .map(|more| tidemill("reset", &run, more));
    host.kill().unwrap();
    host.wait().unwrap();
    for output in outputs {
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("in use"), "{}", said(&output));
    }
}

fn drawn() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 100, SEED);
    let run = Pipeline::new(2, &text(&data));
    let diagram = tidemill("check", &run, &["--diagram"]);
    assert!(diagram.status.success(), "{}", said(&diagram));
    let text = String::from_utf8(diagram.stdout).unwrap();
    assert!(text.starts_with("flowchart LR\n"), "{text}");
    for part in [
        "    source_clicks -->|\"left\"| step_bought\n",
        "    step_views --> sink_out1\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let explained = tidemill("check", &run, &["--explain"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        explained.status.success() && text.contains("step visits: "),
        "{text}"
    );
}

fn metrics() {
    let dir = TempDir::new().unwrap();
    let data = Data::write(dir.path(), 2_000, SEED);
    let run = Pipeline::new(2, &text(&data));
    let summary = run.dir.path().join("summary.json");
    succeeds(
        &run,
        &[
            "--set",
            "host.metrics=out/metrics.json",
            "--summary",
            summary.to_str().unwrap(),
        ],
    );
    let read = |path: &str| -> Value {
        let text = std::fs::read_to_string(run.dir.path().join(path)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (metrics, summary) = (read("out/metrics.json"), read("summary.json"));
    for (part, members) in [
        ("sources", &["records_in", "bad"][..]),
        ("steps", &["rows_in", "rows_out", "late", "dead_letters"]),
        ("sinks", &["records_out"]),
    ] {
        for (name, counts) in summary[part].as_object().unwrap() {
            for member in members {
                assert_eq!(
                    metrics[part][name][member], counts[member],
                    "{part} {name} {member}"
                );
            }
        }
    }
    assert_eq!(metrics["checkpoints"], summary["checkpoints"]);
}
