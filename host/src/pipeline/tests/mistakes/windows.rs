//! Wrong windows, joins, unions and `deduplicate`: each mistake is found once, at its place.

use super::{SOURCE, check, with_source};

/// More sources: one without event time, one whose columns differ.
const SOURCES: &str = r#"[sources.plain]
file = { path = "plain.jsonl" }
fields = { user = "string", amount = "float", n = "int?", at = "timestamp" }
[sources.sales]
file = { path = "sales.jsonl" }
fields = { user = "int", amount = "float", sold = "timestamp" }
event_time = { field = "sold" }
"#;
const WINDOW: &str = "window = { tumbling = \"1m\" }\n";
const ROWS: &str = "aggregate = { rows = \"count(*)\" }\n";

fn with_sources(cases: &[(&str, &[&str])]) {
    for (marked, expected) in cases {
        check(&format!("{SOURCE}{SOURCES}{marked}"), expected);
    }
}

fn with_window(cases: &[(&str, &[&str])]) {
    for (marked, expected) in cases {
        let step = format!("[steps.a]\nfrom = \"clicks\"\n{marked}\n");
        with_source(&[(&step, expected)]);
    }
}

#[test]
fn kinds_of_windows() {
    let kinds: &[(&str, &[&str])] = &[
        ("«window = {}", &["names no kind of window"]),
        (
            "window = { «tumbling_ = \"1m\" }",
            &["did you mean `tumbling`?"],
        ),
        (
            "window = «5",
            &["`window`: expected a table, found an integer"],
        ),
        ("window = { tumbling = «60 }", &["expected a duration"]),
        (
            "window = { tumbling = «\"0s\" }",
            &["`tumbling` must be one or more whole milliseconds"],
        ),
        (
            "window = { tumbling = «\"1500us\" }",
            &["whole milliseconds"],
        ),
        ("window = { session = «\"1us\" }", &["`session` must be"]),
        (
            "window = { tumbling = «\"1 week\" }",
            &["`week` is no unit of time"],
        ),
        (
            "window = { tumbling = \"101d\", «session = \"1m\" }",
            &["`tumbling` or `session`, not both"],
        ),
        ("«window = { sliding = \"5m\" }", &["`every` is missing"]),
        (
            "window = { sliding = \"5m\", every = «\"0s\" }",
            &["`every` must be"],
        ),
        (
            "window = { sliding = \"5m\", every = «\"2m\" }",
            &["write every = \"100s\""],
        ),
        (
            "window = { sliding = \"5m\", every = «\"10m\" }",
            &["does not divide"],
        ),
        (
            "window = { tumbling = \"5m\", «every = \"1m\" }",
            &["only a sliding window has `every`"],
        ),
        ("window = { session = \"5m\", «gap = \"1m\" }", &["unknown"]),
    ];
    for (kind, expected) in kinds {
        with_window(&[(&format!("{kind}\n{ROWS}"), expected)]);
    }
}

#[test]
fn aggregates_of_windows() {
    let aggregates: &[(&str, &[&str])] = &[
        ("«aggregate = {}", &["`aggregate` names no result"]),
        (
            "aggregate = «\"count(*)\"",
            &["`aggregate`: expected a table, found a string"],
        ),
        ("aggregate = { rows = «1 }", &["`rows`: expected SQL"]),
        (
            "aggregate = { rows = \"count(*)\", total = \"sum(«amout)\" }",
            &["amout"],
        ),
        ("aggregate = { total = \"«amount\" }", &["amount"]),
        (
            "aggregate = { x = \"sum(«amout)\", y = \"min(«usr)\" }",
            &["amout", "usr"],
        ),
        (
            "aggregate = { «window_start = \"count(*)\" }",
            &["two columns of the result are named `window_start`"],
        ),
        (
            "aggregate = { «user = \"count(*)\" }\nkey = [\"user\"]",
            &["are named `user`; "],
        ),
    ];
    for (aggregate, expected) in aggregates {
        with_window(&[(&format!("{WINDOW}{aggregate}"), expected)]);
    }
    with_window(&[(
        "«aggregate = { rows = \"count(*)\" }",
        &["a filter step has no `aggregate`"],
    )]);
    with_source(&[(
        "[steps.«a]\nfrom = \"clicks\"\nwindow = { tumbling = \"1m\" }\n",
        &["`aggregate` is missing"],
    )]);
}

#[test]
fn keys_lateness_and_ranks_of_windows() {
    let options: &[(&str, &[&str])] = &[
        ("key = [«\"usr\"]", &["did you mean `user`?"]),
        (
            "key = [\"user\", «\"user\"]",
            &["names column `user` twice"],
        ),
        ("key = «\"user\"", &["`key`: expected"]),
        ("allowed_lateness = «5", &["expected a duration"]),
        ("«where = \"n > 1\"", &["a window step has no `where`"]),
        ("«select = [\"user\"]", &["a window step has no `select`"]),
        (
            "«order = \"arrival\"",
            &["it belongs to a step with `plugin`"],
        ),
        ("««top = {}", &["`by` is missing", "`n` is missing"]),
        (
            "top = { n = «0, by = \"rows\" }",
            &["`n` is 0, expected 1 to 10000"],
        ),
        (
            "top = { n = «10001, by = \"rows\" }",
            &["expected 1 to 10000"],
        ),
        ("«top = { n = 3 }", &["`by` is missing"]),
        ("top = { n = 3, by = «\"row\" }", &["did you mean `rows`?"]),
        (
            "top = { n = 3, by = «\"rows down\" }",
            &["`rows down` is no column with a direction"],
        ),
        (
            "top = { n = 3, by = «\"rows desc,\" }",
            &["is no column with a direction"],
        ),
        (
            "top = { n = 3, by = «\"rows desc first\" }",
            &["is no column with a direction"],
        ),
        (
            "top = { n = 3, by = \"rows\" }\nallowed_lateness = «\"1m\"",
            &["`top` gives its rows once"],
        ),
    ];
    for (option, expected) in options {
        with_window(&[(&format!("{WINDOW}{ROWS}{option}"), expected)]);
    }
    with_window(&[(
        "window = { session = \"1m\" }\naggregate = { rows = \"count(*)\" }\nallowed_lateness = «\"1m\"",
        &["a session whose bounds change"],
    )]);
    // A ranking or a window without anything wrong has no finding: lateness of nothing is none.
    with_source(&[(
        "[steps.a]\nfrom = \"clicks\"\nwindow = { session = \"1m\" }\naggregate = { rows = \"count(*)\" }\nallowed_lateness = \"0s\"\n[sinks.s]\nfrom = \"a\"\nconsole = {}\n",
        &[],
    )]);
}

#[test]
fn what_needs_event_time_says_so() {
    with_sources(&[
        (
            "[steps.a]\nfrom = «\"plain\"\nwindow = { tumbling = \"1m\" }\naggregate = { rows = \"count(*)\" }\n",
            &["window `a` needs event time"],
        ),
        (
            "[steps.a]\nfrom = «\"plain\"\ndeduplicate = { on = [\"user\"], within = \"1m\" }\n",
            &["step `a` forgets keys by event time"],
        ),
        (
            "[steps.a]\njoin = { left = \"clicks\", right = «\"plain\", on = [\"user\"], after = \"1m\" }\nselect = [\"left.n\"]\n",
            &["but `plain` has none"],
        ),
    ]);
}

#[test]
fn corrected_results_are_read_by_sinks_alone() {
    let window = "[steps.w]\nfrom = \"clicks\"\nwindow = { tumbling = \"1m\" }\naggregate = { rows = \"count(*)\" }\nallowed_lateness = \"1m\"\n";
    for reader in [
        "[steps.a]\nfrom = «\"w\"\nwhere = \"rows > 1\"\n",
        "[steps.a]\nfrom = [«\"w\"]\n",
        "[steps.a]\njoin = { left = «\"w\", right = \"clicks\", on = [\"user\"], after = \"1m\" }\n",
    ] {
        with_source(&[(&format!("{window}{reader}"), &["so only sinks can read it"])]);
    }
    // Its late rows are facts.
    with_source(&[(
        &format!(
            "{window}[steps.a]\nfrom = \"w.late\"\n[sinks.s]\nfrom = [\"w\", \"a\"]\nconsole = {{}}\n"
        ),
        &[],
    )]);
}

#[test]
fn joins() {
    let joins: &[(&str, &[&str])] = &[
        (
            "««««join = {}",
            &[
                "`after` is missing",
                "`left` is missing",
                "`on` is missing",
                "`right` is missing",
            ],
        ),
        (
            "join = «\"clicks\"",
            &["`join`: expected a table, found a string"],
        ),
        (
            "join = { left = «\"click\", right = «\"sale\", on = [\"user\"], after = \"1m\" }",
            &["did you mean `clicks`?", "did you mean `sales`?"],
        ),
        (
            "«join = { left = \"clicks\", right = \"sales\", on = [\"user\"] }",
            &["`after` is missing"],
        ),
        (
            "«join = { left = \"clicks\", right = \"sales\", after = \"1m\" }",
            &["`on` is missing"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = «[], after = \"1m\" }",
            &["`on` names no column"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [«\"n\"], after = \"1m\" }",
            &["`sales` has no column `n`"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [«\"user\"], after = \"1m\" }",
            &["`user` is of type string on the left and int on the right"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [\"amount\", «\"amount\"], after = \"1m\" }",
            &["`on` names column `amount` twice"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [\"amount\"], after = «\"-1m\" }",
            &["`after`"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [\"amount\"], after = \"1m\", kind = «\"outer\" }",
            &["\"full\""],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [\"amount\"], after = \"1m\", «within = \"1m\" }",
            &["within"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [\"amount\"], after = \"1m\" }\nselect = [\"«left.x\"]",
            &["left.x"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [\"amount\"], after = \"1m\" }\nselect = [\"left.at\"]\n«from = \"clicks\"",
            &["a join step has no `from`"],
        ),
        (
            "join = { left = \"clicks\", right = \"sales\", on = [\"amount\"], after = \"1m\" }\nselect = [\"left.at\"]\n«key = [\"amount\"]",
            &["a join step has no `key`"],
        ),
    ];
    for (join, expected) in joins {
        with_sources(&[(&format!("[steps.a]\n{join}\n"), expected)]);
    }
    // Both sides have a column `user`: without `select` nobody knows which is meant.
    with_sources(&[(
        "[steps.«a]\njoin = { left = \"clicks\", right = \"sales\", on = [\"amount\"], after = \"1m\" }\n",
        &["say with `select` what the join gives"],
    )]);
}

#[test]
fn unions_and_duplicates() {
    with_sources(&[
        ("[steps.a]\nfrom = «[]\n", &["`from` names nothing to read"]),
        (
            "[steps.a]\nfrom = [\"clicks\", «\"clicks\"]\n",
            &["`clicks` is named twice in `from`"],
        ),
        (
            "[steps.a]\nfrom = [\"clicks\", «\"sale\"]\n",
            &["did you mean `sales`?"],
        ),
        (
            "[steps.a]\nfrom = [\"clicks\", «\"sales\"]\n",
            &["column 1 is `user` (int) instead of `user` (string)"],
        ),
        ("[steps.a]\nfrom = «5\n", &["`from`"]),
        (
            "[steps.a]\nfrom = \"clicks\"\n««deduplicate = {}\n",
            &["`on` is missing", "`within` is missing"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\n«deduplicate = { on = [\"user\"] }\n",
            &["`within` is missing"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\ndeduplicate = { on = «[], within = \"1m\" }\n",
            &["`on` names no column"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\ndeduplicate = { on = [«\"usr\"], within = \"1m\" }\n",
            &["did you mean `user`?"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\ndeduplicate = { on = [\"user\"], within = «5 }\n",
            &["expected a duration"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\ndeduplicate = { on = [\"user\"], within = \"1m\" }\n«window = { tumbling = \"1m\" }\n",
            &["both `deduplicate` and `window`"],
        ),
    ]);
}
